"""Links and pictures of the pages lead to what is there: in a clone, and beside each other on the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import MAPS, PAGES, ROOT, links


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads} | {""}


def assert_is_there(target: Path, anchor: str) -> None:
    assert target.exists(), target
    assert anchor in anchors(target) if target.suffix == ".md" else not anchor, f"{target}#{anchor}"


@pytest.mark.parametrize("page", sorted({*PAGES, *MAPS}), ids=lambda page: page.name)
def test_the_pages_lead_to_each_other(page: Path) -> None:
    """Files and headings are there."""
    for link in links(page):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            assert_is_there((page.parent / path).resolve() if path else page, anchor)


def test_every_pip_install_with_an_extra_is_in_quotation_marks() -> None:
    """zsh takes brackets for a pattern."""
    for path in [*PAGES, *(ROOT / "flask_langpont_session").rglob("*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install [^\"'`]*\[", line), f"{path}: {line}"
