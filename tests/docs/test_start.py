"""The start page, in both languages, as its reader follows it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from devservers.processes import free_port, wait_until
from devservers.servers import Valkey

from .console import commands
from .pages import ROOT, blocks_of, links
from .serving import Browser, environment, running

DOCS = ROOT / "docs"
ENGLISH, JAPANESE = DOCS / "index.md", DOCS / "ja" / "index.md"
TRANSLATED = {
    f"{DOCS / 'ja' / Path(page).name}": f"{DOCS / page}" for page in ("tutorial/shop.md", "keys.md", "outages.md")
}
"""Pages that have a Japanese version → the English one."""


def test_both_languages_have_the_same_code_and_the_same_links() -> None:
    """Both languages say that the same is seen."""
    for language in ("python", "console"):
        english, japanese = blocks_of(ENGLISH, language), blocks_of(JAPANESE, language)
        assert english and [block.text for block in english] == [block.text for block in japanese]
    english_links, japanese_links = _targets(ENGLISH), {TRANSLATED.get(to, to) for to in _targets(JAPANESE)}
    assert len(english_links) > 20 and english_links == japanese_links
    seen = [re.findall(r"`(Visit .+?)`", page.read_text(encoding="utf-8")) for page in (ENGLISH, JAPANESE)]
    assert seen[0] == seen[1] == ["Visit 1, level 0", "Visit 3, level 2"]


@pytest.mark.parametrize(("japanese", "english"), TRANSLATED.items(), ids=lambda page: Path(page).stem)
def test_a_translated_page_has_the_code_and_the_tables_of_the_english_one(japanese: str, english: str) -> None:
    """A change of an English page fails here until the Japanese one has it, too."""
    pages = Path(japanese), Path(english)
    for language in ("python", "console"):
        there, here = ([block.text for block in blocks_of(page, language)] for page in pages)
        assert there == here[: len(there)] and (there or "outages" in english)
    rows = [len(re.findall(r"^\|", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in pages]
    assert rows[0] == rows[1]


def _targets(page: Path) -> set[str]:
    """Return the local targets of a page's links, without those of the two languages to each other."""
    local = [link for link in links(page) if not link.startswith("http")]
    return {os.path.normpath(page.parent / link) for link in local} - {str(ENGLISH), str(JAPANESE)}


def test_the_page_goes_on_counting_without_its_server(tmp_path: Path) -> None:
    """A reader who follows the page, command by command, sees what it says."""
    [application] = blocks_of(ENGLISH)
    (tmp_path / "app.py").write_text(application.text)
    [(serve, _)] = commands(blocks_of(ENGLISH, "console")[-1])
    assert serve == "flask --app app run"
    with Valkey(tmp_path / "valkey", appendonly=False) as valkey:
        variables = environment(tmp_path, FLASK_LANGPONT_SESSION_REDIS_URL=valkey.url)
        with running(["-m", *serve.split(), "--port", str(port := free_port())], tmp_path, port, variables):
            seen: list[str] = []
            browser = Browser(port)

            def is_right(level: int) -> bool:
                seen.append(browser.get())
                return seen[-1] == f"Visit {len(seen)}, level {level}\n"

            assert is_right(0) and is_right(0)
            valkey.stop()
            assert is_right(2)
            valkey.start()
            wait_until(lambda: is_right(0), "all visits counted, at level 0")  # it may be a merge behind at first
