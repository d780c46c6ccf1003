"""Attributes that are made when they are first asked for."""

from __future__ import annotations

from flask_langpont_session.support.lazy import lazy


class Page:
    def __init__(self) -> None:
        self.made = 0

    @lazy
    def text(self) -> list[str]:
        self.made += 1
        return []


def test_it_is_made_once_for_each_object() -> None:
    page, other = Page(), Page()
    assert page.made == 0
    assert page.text is page.text
    assert page.text is not other.text
    assert (page.made, other.made) == (1, 1)
