"""Routing of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.config.categories import build_table
from flask_langpont_session.policy.categories import (
    CategoryTable,
    KeyKind,
    KeyPatterns,
    Priority,
    kinds_of,
)
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from tests.support.fakes import settings_in


@pytest.fixture(scope="module")
def table() -> CategoryTable:
    built = build_table(DEFAULT_CATEGORIES, {})
    assert built.problems == []
    return built.table


@pytest.mark.parametrize(
    ("key", "feature", "category"),
    [
        ("user_id", "authentication", "auth"),
        ("_user_id", "authentication", "auth"),
        ("identity.id", "authentication", "auth"),
        ("_state_google_abc", "sign_in_steps", "auth"),
        ("github_oauth_token", "oauth_tokens", "auth"),
        ("input_text", "translation_state", "translation"),
        ("lang", "language_preference", "ui"),
        ("cart", "other", "data"),
        ("identity_card", "other", "data"),
    ],
)
def test_each_key_has_one_feature(table: CategoryTable, key: str, feature: str, category: str) -> None:
    """Exact names win over prefixes, prefixes over the catch-all."""
    found = table.feature_of(key)
    assert (found.name, found.category) == (feature, category)


def test_the_longest_prefix_wins() -> None:
    """A narrower pattern is not hidden by a wider one, whatever their order."""
    built, problems, _ = build_table(
        {"auth": {"features": {"all": ["*"], "carts": ["cart_*"], "old_carts": ["cart_old_*"]}}},
        dict.fromkeys(("all", "carts", "old_carts"), "critical"),
    )
    assert problems == []
    assert built.feature_of("cart_old_7").name == "old_carts"
    assert built.feature_of("cart_7").name == "carts"
    assert built.feature_of("other").name == "all"


def test_only_the_bare_star_counts_as_unclaimed(table: CategoryTable) -> None:
    """Keys that a prefix names on purpose are not reported as forgotten."""
    assert table.is_unclaimed("cart")
    assert not table.is_unclaimed("theme")
    assert not table.is_unclaimed("identity.id")


def test_a_table_without_catch_all_has_no_place_for_other_keys() -> None:
    """The caller turns this KeyError into a sentence for the view."""
    built, *_ = build_table({"auth": {"features": {"authentication": ["user_id"]}}}, {"authentication": "critical"})
    with pytest.raises(KeyError):
        built.feature_of("theme")


def test_every_mistake_in_the_tables_is_reported_at_once() -> None:
    """An operator repairs a table in one go, not error by error."""
    _, problems, is_whole = build_table(
        {
            "shop": {"ttl": "soon", "features": {"cart": [], "box": ["cart", "@x"], "list": ["cart"]}, "color": 1},
            "a b": {"on_demand": 1, "features": {"cart": ["y*z", "*y*"], "text": "key", 7: []}},
            "odd": 3,
        },
        {"cart": "urgent"},
    )
    assert not is_whole
    text = "\n".join(problems)
    for part in (
        "'ttl'",
        "'on_demand'",
        "feature 'text' of 'a b': a list of names, not str",
        "the name of a feature",
        "'*y*'",
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
    built, *_ = build_table(
        {"auth": {"features": {}}, "blobs": {"on_demand": True, "features": {}}, "ui": {"features": {}}}, {}
    )
    assert built.loaded_together == ("auth", "ui")


def test_patterns_match_names_and_both_ends() -> None:
    """The same little language as in the table, for the other lists of keys."""
    patterns = KeyPatterns(["_remember*", "next", "*_oauth_token"])
    assert "github_oauth_token" in patterns
    assert "github_oauth_tokens" not in patterns
    assert "anything" in KeyPatterns(["*"])
    assert "_remember" in patterns
    assert "_remember_seconds" in patterns
    assert "next" in patterns
    assert "nextpage" not in patterns
    assert "x" not in KeyPatterns([])


# -- what is laid over the table ---------------------------------------------------------------------------------------


def over_default(**given: Any) -> CategoryTable:
    built = build_table(DEFAULT_CATEGORIES, given.pop("priorities", {}), **given)
    assert built.problems == []
    return built.table


def test_a_feature_is_added_in_one_entry() -> None:
    """Nothing of the table has to be said again; the priority is that of keys which nothing claims."""
    table = over_default(added={"cart": {"keys": ["cart", "cart_*"], "category": "ui"}})
    assert table.feature_of("cart_7") == table.feature_of("cart")
    assert (table.feature_of("cart").category, table.feature_of("cart").priority) == ("ui", Priority.HIGH)
    assert table.feature_of("lang").name == "language_preference"


def test_a_feature_may_have_a_category_of_its_own() -> None:
    """It lives as long as the session, as data does."""
    table = over_default(added={"cart": {"keys": ["cart"], "category": "shop"}})
    assert table.feature_of("cart").category == "shop"
    assert table.categories["shop"].ttl is None


def test_what_is_added_takes_its_keys_from_the_table() -> None:
    """An added feature takes its keys also from a feature of the table, and from its catch-all."""
    table = over_default(
        added={
            "look": {"keys": ["theme", "next"], "category": "translation", "priority": "low"},
            "rest": {"keys": ["*"], "category": "ui", "priority": "medium"},
        }
    )
    assert table.feature_of("theme").name == table.feature_of("next").name == "look"
    assert table.feature_of("unknown").name == "rest"
    assert "theme" not in table.features["ui_settings"].keys
    assert "*" not in table.features["other"].keys


def test_durable_keys_are_in_auth() -> None:
    """One setting puts keys into auth, whatever the table says of them."""
    table = over_default(durable=["cart", "lang"])
    for key in ("cart", "lang"):
        assert (table.feature_of(key).category, table.feature_of(key).priority) == ("auth", Priority.CRITICAL)


def test_users_and_rights_that_the_table_forgot_are_in_auth() -> None:
    """The catch-all does not get them, where no row in the database would stand behind them."""
    rest = {"auth": {}, "shop": {"features": {"rest": ["*"], "mine": ["admin_color"]}}}
    table, problems, _ = build_table(
        rest, {"rest": "low", "mine": "low"}, identity=["user_id", "admin*", "*_oauth_token"]
    )
    assert problems == []
    for key in ("user_id", "admin_of", "github_oauth_token"):
        assert table.feature_of(key).category == "auth"
    assert table.feature_of("admin_color").name == "mine"
    assert table.feature_of("name").name == "rest"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"added": {"cart": ["cart"]}}, "FEATURES['cart']: a mapping with keys and category, as in {'keys': [keys]"),
        ({"added": {"cart": {"keys": ["cart"]}}}, "FEATURES['cart']: category is missing; write {'keys': [keys]"),
        ({"added": {"cart": {"priority": "high"}}}, "FEATURES['cart']: keys and category are missing"),
        ({"added": {"cart": {"keys": "cart", "category": "ui"}}}, "a list of names, not str"),
        ({"added": {"cart": {"keys": ["c"], "category": "date"}}}, "'date' is too much like 'data'"),
        ({"added": {"cart": {"keys": ["c"], "category": []}}}, "['category']: [] cannot be part of a Redis key"),
        ({"added": {"cart": {"keys": ["c"], "category": "my-shop"}}}, "['category']: 'my-shop' cannot be part of"),
        ({"added": {"cart": {"keys": ["c"], "category": "ui", "ttl": 1}}}, "unknown entries ['ttl']"),
        ({"added": {"cart": {"keys": ["c"], "category": "ui", "priority": "critical"}}}, "all others high, medium or"),
        (
            {"added": {"cart": {"keys": ["c"], "category": "auth", "priority": "low"}}},
            "features of 'auth' are critical",
        ),
        ({"added": {"statistics": {"keys": ["c"], "category": "ui"}}}, "feature 'statistics' stands in 'ui' and 'ui'"),
        (
            {"added": {n: {"keys": ["c"], "category": "ui"} for n in ("a", "b")}},
            "FEATURES: key 'c' is claimed by 'a' and 'b'; leave it to one",
        ),
        (
            {"added": {"cart": {"keys": ["c"], "category": "ui"}}, "durable": ["c"]},
            "DURABLE_KEYS: key 'c' is claimed by 'cart' and 'durable_keys'; leave it to one",
        ),
        ({"durable": ["@c"]}, "DURABLE_KEYS: '@c'"),
    ],
)
def test_a_mistake_in_what_is_laid_over_is_named(given: dict[str, Any], problem: str) -> None:
    """The error names the setting to change, and what can stand there."""
    [found] = build_table(DEFAULT_CATEGORIES, {}, **given).problems
    assert problem in found


def test_what_a_message_offers_is_accepted() -> None:
    """Each word that the sentence about a priority offers, where it offers it."""
    spec = {"auth": {"features": {"login": ["user_id"]}}, "ui": {"features": {"look": ["theme"]}}}
    [problem] = build_table(spec, {"look": "urgent"}).problems
    offered = problem.partition("all others ")[2].partition(":")[0].replace(" or ", ", ").split(", ")
    assert len(offered) == 3
    assert [build_table(spec, {"look": word}).problems for word in offered] == [[], [], []]
    assert build_table(spec, {"look": "low", "login": "critical"}).problems == []


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("theme", KeyKind.STORED),
        ("of no feature", KeyKind.STORED),
        ("user_id", KeyKind.STORED),
        ("_remember", KeyKind.TRANSIENT),
        ("_permanent", KeyKind.PERMANENT),
        ("csrf_token", KeyKind.TOKEN),
        ("session_created", KeyKind.KEPT),
    ],
)
def test_each_key_has_a_kind(tmp_path: Path, key: str, kind: KeyKind) -> None:
    settings = settings_in(tmp_path)
    kind_of = kinds_of(settings.table)
    assert [kind_of(key), kind_of(key)] == [kind, kind]


def test_a_key_strays_where_the_table_was_changed(table: CategoryTable) -> None:
    """Not what describes a record, what the package keeps, or a key that no feature claims; and what another release
    has in a category of its own stays there."""
    keys = ["theme", "_user_id", "@m", "session_created"]
    for _ in range(2):  # what is known to be at home is remembered
        assert list(table.strays_in("ui", keys)) == ["_user_id"]
    assert list(table.strays_in("of another release", keys)) == []
    assert table.left_behind("ui", keys, carried=("ui", "auth")) == set()
    assert table.left_behind("ui", keys, carried=("ui", "data")) == {"_user_id"}
