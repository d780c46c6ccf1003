"""The site of the pages: built as ``make docs`` builds it, complete, and without the network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from playwright.sync_api import Browser, sync_playwright

import flask_langpont_session
from flask_langpont_session import events
from flask_langpont_session.cli import langpont
from flask_langpont_session.ops.alerts.table import ALERTS
from flask_langpont_session.ops.diagnosis.table import CHECKS
from flask_langpont_session.ops.exporters import catalogue
from tests.support.programs import path_of_chromium
from tools import diagrams, tables

from .pages import ROOT

pytestmark = pytest.mark.timeout(300)  # the site is made in seconds of a processor, which others may use meanwhile


@dataclass
class Html:
    """The anchors, links and resources of a page of the site."""

    names: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    language: str = ""


class Reader(HTMLParser):
    """Reads one page."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Html()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.found.names.add(values["id"])
        if tag == "html":
            self.found.language = values.get("lang", "")
        elif tag == "a" and "href" in values:
            self.found.links.append(values["href"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "shortcut icon", "preload"):
            self.found.loads.append(values["href"])
        elif "src" in values:
            self.found.loads.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from nothing; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", folder / "html",
         "-d", folder / "doctrees"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> Mapping[Path, Html]:
    """All of the site."""
    found = {}
    for path in site.rglob("*.html"):
        reader = Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        found[path] = reader.found
    return found


def broken(pages: Mapping[Path, Html]) -> Iterator[str]:
    """Links of the site to files and anchors that it lacks."""
    for path, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].names | {""} if target in pages else None
            if not target.is_file() or (anchors is not None and unquote(parts.fragment) not in anchors):
                yield f"{path.name}: {link}"


def test_every_link_leads_to_a_file_and_an_anchor(pages: Mapping[Path, Html]) -> None:
    """Links of all pages are right, also of those that are made from docstrings and commands."""
    assert len(pages) > 25
    assert sorted(broken(pages)) == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    """A file that is not there, and an anchor that is not there."""
    page = tmp_path / "a.html"
    page.touch()
    html = Html(names={"top"}, links=["#top", "a.html#top", "https://a.example/", "b.html", "#end", "a.html#end"])
    assert list(broken({page: html})) == ["a.html: b.html", "a.html: #end", "a.html: a.html#end"]


def test_no_page_loads_anything_from_another_host(site: Path, pages: Mapping[Path, Html]) -> None:
    """Scripts, styles, fonts and pictures are files of the site."""
    foreign = [load for page in pages.values() for load in page.loads if urlsplit(load).netloc]
    styles = [style.read_text(encoding="utf-8") for style in site.rglob("*.css")]
    foreign += [url for style in styles for url in re.findall(r"""url\(["']?(?:https?:)?//[^)]+""", style)]
    assert foreign == []


def test_the_reference_has_every_public_name(site: Path, pages: Mapping[Path, Html]) -> None:
    """The reference has all names of the package, of its events, and of its commands."""
    names = pages[site / "reference" / "api.html"].names
    assert {f"flask_langpont_session.{name}" for name in flask_langpont_session.__all__} <= names
    names = pages[site / "reference" / "events.html"].names
    sent = [value for value in vars(events).values() if isinstance(value, type) and value.__module__ == events.__name__]
    assert len(set(sent) - {events.EndedBy}) == len(events.ALL)
    assert {f"{events.__name__}.{event.__name__}" for event in sent} <= names
    names = pages[site / "reference" / "cli.html"].names
    assert {f"flask-langpont-{'-'.join(path)}" for path in _commands(langpont)} <= names


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/log", {line.event for line in tables.all_lines()}),
        ("commands", {check.name for check in CHECKS}),
        ("alerts", {alert.name for alert in ALERTS}),
        ("metrics", {metric.name for metric in catalogue.ALL}),
    ],
)
def test_the_tables_that_are_made_from_the_code_are_on_the_site(site: Path, page: str, names: set[str]) -> None:
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    assert names <= set(re.findall(r">([A-Za-z_-]+)</span></code></p></td>", text))


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)


def test_the_japanese_page_says_that_it_is_japanese(site: Path, pages: Mapping[Path, Html]) -> None:
    """Programs that read aloud, and the choice of fonts, go by it."""
    assert pages[site / "ja" / "index.html"].language == "ja"
    assert pages[site / "index.html"].language == "en"


def test_every_diagram_has_its_pictures_and_every_picture_its_diagram() -> None:
    """If not: ``make diagrams``."""
    wanted = {diagrams.picture(diagram, page) for diagram in diagrams.diagrams() for page in diagrams.THEMES}
    assert wanted == set(diagrams.PICTURES.iterdir())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's."""
    program = path_of_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox"])
        yield browser
        browser.close()


def test_the_search_finds_what_users_call_things_without_a_server(site: Path, chromium: Browser) -> None:
    """Words that applications and their users have, also where the pages prefer others; the network is not asked."""
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for word in ("tombstone", "logout", "timeout", "guest", "503", "celery", "uninstall", "license"):
        page.goto((site / "index.html").as_uri())
        page.fill("input[name=q]", word)
        page.press("input[name=q]", "Enter")
        page.locator("ul.search li a").first.wait_for()
    assert asked and all(url.startswith("file:") for url in asked)
    page.close()


def test_a_button_copies_the_commands_of_a_terminal_without_its_prompts(site: Path, chromium: Browser) -> None:
    page = chromium.new_page()
    page.add_init_script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.goto((site / "tutorial" / "shop.html").as_uri())
    page.locator(".highlight-console", has_text="init-db").locator("button.copy").click()
    copied = page.evaluate("window.copied")
    assert copied == "flask --app shop langpont init-db\nflask --app shop langpont status\n"
    page.close()


def test_every_page_fits_a_phone(site: Path, pages: Mapping[Path, Html], chromium: Browser) -> None:
    """Tables and diagrams that are wider scroll by themselves, not with their page."""
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    wide = []
    for path in sorted(pages):
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path.name)
    page.close()
    assert wide == []
