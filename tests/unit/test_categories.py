"""Routing of keys."""

from __future__ import annotations

import pytest

from flask_langpont_session.categories import (
    DEFAULT_CATEGORIES,
    DEFAULT_PRIORITIES,
    CategoryTable,
    KeyPatterns,
    Priority,
    build_table,
)


@pytest.fixture(scope="module")
def table() -> CategoryTable:
    built, problems = build_table(DEFAULT_CATEGORIES, DEFAULT_PRIORITIES)
    assert problems == []
    return built


@pytest.mark.parametrize(
    ("key", "feature", "category"),
    [
        ("user_id", "authentication", "auth"),
        ("_user_id", "authentication", "auth"),
        ("identity.id", "authentication", "auth"),
        ("_state_google_abc", "authentication", "auth"),
        ("csrf_token", "csrf_protection", "auth"),
        ("input_text", "translation_state", "translation"),
        ("translation_engine", "engine_selection", "translation"),
        ("usage_count", "usage_tracking", "translation"),
        ("lang", "language_preference", "ui"),
        ("_flashes", "temporary_data", "ui"),
        ("cart", "ui_settings", "ui"),
        ("identitycard", "authentication", "auth"),
    ],
)
def test_each_key_has_one_feature(table: CategoryTable, key: str, feature: str, category: str) -> None:
    """Exact names win over prefixes, prefixes over the catch-all."""
    found = table.feature_of(key)
    assert (found.name, found.category) == (feature, category)


def test_the_longest_prefix_wins() -> None:
    """A narrower pattern is not hidden by a wider one, whatever their order."""
    built, problems = build_table(
        {"auth": {"features": {"all": ["*"], "carts": ["cart_*"], "old_carts": ["cart_old_*"]}}},
        dict.fromkeys(("all", "carts", "old_carts"), "critical"),
    )
    assert problems == []
    assert built.feature_of("cart_old_7").name == "old_carts"
    assert built.feature_of("cart_7").name == "carts"
    assert built.feature_of("other").name == "all"


def test_only_the_bare_star_counts_as_unclaimed(table: CategoryTable) -> None:
    """Keys that a prefix names on purpose are not reported as forgotten."""
    assert table.is_catch_all("cart")
    assert not table.is_catch_all("theme")
    assert not table.is_catch_all("identity.id")


def test_a_table_without_catch_all_has_no_place_for_other_keys() -> None:
    """The caller turns this KeyError into a sentence for the view."""
    built, _ = build_table({"auth": {"features": {"authentication": ["user_id"]}}}, {"authentication": "critical"})
    with pytest.raises(KeyError):
        built.feature_of("theme")


def test_every_mistake_in_the_tables_is_reported_at_once() -> None:
    """An operator repairs a table in one go, not error by error."""
    _, problems = build_table(
        {
            "shop": {"ttl": "soon", "features": {"cart": [], "box": ["cart", "@x"], "list": ["cart"]}, "color": 1},
            "a b": {"features": {"cart": ["y*z"]}},
            "odd": 3,  # type: ignore[dict-item]
        },
        {"cart": "urgent"},
    )
    text = "\n".join(problems)
    for part in (
        "'ttl'",
        "color",
        "'a b'",
        "stands in",
        "claimed by",
        "'@x'",
        "'y*z'",
        "urgent",
        "no priority",
        "'auth'",
        "'odd'",
    ):
        assert part in text


def test_categories_on_demand_are_not_loaded_with_the_others() -> None:
    """One large category must not slow down every page."""
    built, _ = build_table(
        {"auth": {"features": {}}, "blobs": {"on_demand": True, "features": {}}, "ui": {"features": {}}}, {}
    )
    assert built.loaded_together == ("auth", "ui")


def test_patterns_match_names_and_prefixes() -> None:
    """The same little language as in the table, for the other lists of keys."""
    patterns = KeyPatterns(["_remember*", "next"])
    assert "_remember" in patterns
    assert "_remember_seconds" in patterns
    assert "next" in patterns
    assert "nextpage" not in patterns
    assert "x" not in KeyPatterns([])


def test_priorities_of_the_mission_are_the_defaults(table: CategoryTable) -> None:
    """FEATURE_PRIORITIES of the source document, name by name."""
    assert {f.name: f.priority for f in table.features.values()} == {
        "authentication": Priority.CRITICAL,
        "csrf_protection": Priority.CRITICAL,
        "session_security": Priority.CRITICAL,
        "translation_state": Priority.HIGH,
        "engine_selection": Priority.HIGH,
        "usage_tracking": Priority.HIGH,
        "language_preference": Priority.MEDIUM,
        "ui_settings": Priority.MEDIUM,
        "statistics": Priority.MEDIUM,
        "analysis_cache": Priority.LOW,
        "temporary_data": Priority.LOW,
    }
