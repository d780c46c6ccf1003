"""A map that forgets what was not asked for lately."""

from __future__ import annotations

from flask_langpont_session.support.caches import Recent, lazy


def filled(*keys: str) -> Recent[str, str]:
    """With room for four, of which the older half is forgotten where there are more."""
    kept = Recent[str, str](4)
    for key in keys:
        kept.put(key, key.upper(), 1)
    return kept


def test_what_was_not_asked_for_is_forgotten() -> None:
    kept = filled("a", "b", "c")
    assert kept.get("a") == "A"
    for key in "def":
        kept.put(key, key.upper(), 1)
    assert kept.get("a") == "A" and kept.get("b") is None


def test_a_look_does_not_count_as_asking() -> None:
    kept = filled("a", "b", "c")
    assert kept.look("a") == "A" and kept.look("c") == "C" and kept.look("x") is None
    for key in "def":
        kept.put(key, key.upper(), 1)
    assert kept.look("a") is None


def test_what_is_taken_out_is_gone_however_old_it_is() -> None:
    kept = filled("a", "b", "c", "d")
    assert kept.pop("a") == "A" and kept.pop("d") == "D" and kept.pop("x") is None
    assert kept.look("a") is None and kept.look("d") is None and kept.look("b") == "B"


def test_the_latest_value_counts() -> None:
    kept = filled("a", "b", "c")
    kept.put("a", "new", 1)
    assert kept.look("a") == "new" and kept.pop("a") == "new" and kept.look("a") is None


def test_the_sum_of_the_sizes_is_bounded() -> None:
    kept = filled()
    for number in range(100):
        kept.put(str(number), "x", 1)
        kept.put(str(number), "x", 1)
    assert sum(kept.look(str(number)) is not None for number in range(100)) <= 4


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
