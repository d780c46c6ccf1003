"""The status page as HTML: what it says, that it can be read without seeing it, and that it loads nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from flask_langpont_session.ops.status_page.facts import Facts, FeatureNow
from flask_langpont_session.ops.status_page.page import POLICY, STYLE, render

from .told import NOW, an_outage, facts


class Page(HTMLParser):
    """The elements and the text of a page.

    :ivar elements: tag and attributes.
    """

    def __init__(self, said: Facts) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self._texts: list[str] = []
        self.feed(render(said))
        self.text = re.sub(r"\s+", " ", "".join(self._texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self._texts.append(" ")

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def all(self, name: str) -> list[dict[str, Any]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def test_an_outage_is_told_in_words() -> None:
    """The level and since when, each store with its cause, what features get, what waits, and the last hour."""
    text = Page(an_outage()).text
    for said in (
        "Process 1234 of host web-1 at 22:13:20 UTC.",
        "Level 2 local_cache",
        "Since 21:53:20 UTC, for 20 min.",
        "Users can sign in.",
        "260 changes wait in the journal of this host, the oldest for 20 min.",
        "primary lost lost unreachable, for 21 min",
        "What helps: start it. See docs/operations.md#outage.",
        "replica lost – unreachable, for 20 min",
        "database used used –",
        "translation_state translation high this host's copy; what is written waits in its journal and is merged",
        "this host's copies 14,700 23.5 %",
        "Redis 0.2 ms 1.1 ms 300 ms",
        "21:52:20 1 replica 1 min",
        "22:10:00 2 local_cache – – 2.5 ms 450 ms 0 0 0 1,600 2,800 1,200 260",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"report": {"logins": False}}, "No user can sign in, and no right can be changed (503)."),
        ({"report": {"journal": {"waiting": None}}}, "The journal of this host cannot be read."),
        ({"report": {"journal": {"waiting": 0}}}, "Nothing waits in the journal of this host."),
        (
            {"report": {"journal": {"waiting": 3, "oldest_seconds": None}}},
            "3 changes wait in the journal of this host.",
        ),
        (
            {"report": {"shards": {"lost": 1, "total": 3, "lost_share": 0.3333}}},
            "1 of 3 shards are lost, with 33 % of all sessions.",
        ),
        ({"no_room": "3 MB are free"}, "Its disk is full (3 MB are free): make room; without it what waits is lost."),
        ({"report": {"status": "starting"}}, "This process has not looked at every store yet."),
        ({"began": NOW - 60}, "since 22:12:20 UTC."),
    ],
)
def test_what_is_so_at_times_is_said_then_alone(said: dict[str, Any], text: str) -> None:
    assert text in Page(facts(**said)).text
    assert text not in Page(an_outage()).text


def test_names_of_the_application_are_text() -> None:
    """Features and hosts may be called anything."""
    feature = FeatureNow("<b>_x", "<i>", "high", "primary", "<u>")
    html = render(facts(features=[feature], host="<script>"))
    assert not re.search(r"<(script|b|i|u)>", html)
    assert "&lt;b&gt;_<wbr>x" in html


def test_the_page_loads_one_stylesheet_of_its_own_and_runs_nothing() -> None:
    """So the strictest policy fits; nothing in it needs one that is looser."""
    page = Page(an_outage())
    assert [link["href"] for link in page.all("link")] == ["status.css"]
    assert not {tag for tag, _ in page.elements} & {"script", "style", "img", "iframe", "object", "form"}
    attributes = {name for _, found in page.elements for name in found}
    assert not [name for name in attributes if name.startswith("on")] and not attributes & {"style", "src", "srcset"}
    assert "url(" not in STYLE and "@import" not in STYLE
    assert POLICY.startswith("default-src 'none'; style-src 'self';")


@pytest.mark.parametrize("said", [facts(), an_outage()])
def test_the_page_can_be_read_aloud(said: Facts) -> None:
    """Landmarks, headings in order, a name and a description for each chart, headers for each cell; nothing is pointed
    at that is not there."""
    page = Page(said)
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("header", "main", "h1", "title")] == [1, 1, 1, 5]
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(headings))
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert set(_pointed_at(page)) <= set(ids)
    drawn = [svg for svg in page.all("svg") if "aria-hidden" not in svg]
    assert [svg["role"] for svg in drawn] == ["img"] * 4
    assert all(len(svg["aria-labelledby"].split()) == 2 for svg in drawn)
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}


def _pointed_at(page: Page) -> Iterator[str]:
    for _, found in page.elements:
        yield from (found.get("aria-labelledby") or "").split()


def test_every_class_of_a_drawing_has_its_colour() -> None:
    """A class without a colour would be black on black."""
    kinds = {kind for rect in Page(an_outage()).all("rect") for kind in rect["class"].split()}
    assert kinds
    assert not [kind for kind in kinds if f".{kind} {{ fill:" not in STYLE and f".{kind} {{ fill" not in STYLE]
