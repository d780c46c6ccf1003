"""A map that forgets what was not asked for lately."""

from __future__ import annotations

from flask_langpont_session.support.caches import Recent


def filled(*keys: str) -> Recent[str, str]:
    """Return a cache with room for four, which forgets the older half where there are more."""
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


def test_listing_does_not_count_as_asking() -> None:
    kept = filled("a", "b", "c")
    assert sorted(kept.items()) == [("a", "A"), ("b", "B"), ("c", "C")]
    for key in "def":
        kept.put(key, key.upper(), 1)
    assert kept.get("a") is None


def test_what_has_to_go_is_told() -> None:
    """An entry that has to go is told once, and not while it is kept in another place."""
    gone: list[str] = []
    kept = Recent[str, str](4, on_drop=gone.extend)
    for keys, expected in (("abcad", []), ("e", ["B", "C"]), ("fgh", ["B", "C", "A", "D", "E"])):
        for key in keys:
            kept.put(key, key.upper(), 1)
        assert gone == expected


def test_what_is_taken_out_is_gone_however_old_it_is() -> None:
    kept = filled("a", "b", "c", "d")
    assert kept.pop("a") == "A" and kept.pop("d") == "D" and kept.pop("x") is None
    assert dict(kept.items()) == {"b": "B", "c": "C"}


def test_the_latest_value_counts() -> None:
    kept = filled("a", "b", "c")
    kept.put("a", "new", 1)
    assert kept.get("a") == "new" and kept.pop("a") == "new" and kept.get("a") is None


def test_the_sum_of_the_sizes_is_bounded() -> None:
    kept = filled()
    for number in range(100):
        kept.put(str(number), "x", 1)
        kept.put(str(number), "x", 1)
    assert len(kept.items()) <= 4


def test_what_is_too_large_is_not_kept() -> None:
    """Nor is the value before it kept."""
    kept = Recent[str, str](16, 2)
    kept.put("a", "small", 2)
    kept.put("a", "large", 3)
    assert kept.items() == []
