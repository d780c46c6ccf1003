"""Promises of the table, feature by feature, and what breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from flask_langpont_session.config.settings import Settings, load_settings
from flask_langpont_session.ops.drill.promises import (
    Seen,
    broken_by_reading,
    broken_by_writing,
    key_of,
    promise,
    user_key_of,
)
from flask_langpont_session.policy.levels import Kept
from tests.support.fakes import settings_in


@pytest.fixture
def settings() -> Settings:
    app = Flask("app")
    app.config.update(SECRET_KEY="a key for tests", LANGPONT_SESSION_REDIS_URL="redis://localhost")
    return load_settings(app)


@pytest.mark.parametrize(
    ("name", "level", "has_database", "is_shown", "place"),
    [
        ("authentication", 1, True, True, Kept.DATABASE),
        ("authentication", 2, True, True, Kept.DATABASE),
        ("authentication", 0, False, True, Kept.JOURNAL),
        ("translation_state", 0, False, True, Kept.REDIS),
        ("translation_state", 2, True, True, Kept.JOURNAL),
        ("ui_settings", 1, True, True, Kept.NOWHERE),
        ("ui_settings", 2, True, False, Kept.NOWHERE),
        ("ui_settings", 0, False, True, Kept.REDIS),
    ],
)
def test_what_is_promised(
    settings: Settings, name: str, level: int, has_database: bool, is_shown: bool, place: Kept
) -> None:
    """The promises are those that docs/outages.md has in words."""
    promised = promise(settings, settings.table.features[name], level, has_database=has_database)
    assert (promised.is_shown, promised.places, promised.is_available) == (is_shown, frozenset({place}), True)


@pytest.mark.parametrize(
    ("behaviour", "is_shown", "place", "is_available"),
    [
        ("primary", False, Kept.REDIS, True),
        ("local_cache_fallback", True, Kept.JOURNAL, True),
        ("default_value", False, Kept.NOWHERE, True),
        ("disable_feature", False, Kept.NOWHERE, False),
    ],
)
def test_what_each_behaviour_promises_without_redis(
    tmp_path: Path, behaviour: str, is_shown: bool, place: Kept, is_available: bool
) -> None:
    """Stored data is shown only where a copy may be shown."""
    settings = settings_in(tmp_path, BEHAVIOURS={"low": {2: behaviour}})
    promised = promise(settings, settings.table.features["temporary_data"], 2)
    assert promised == (behaviour, is_shown, frozenset({place}), is_available)


def test_keys_that_may_hold_anything(settings: Settings) -> None:
    """Neither identities nor rights may hold anything, nor what the package keeps itself."""
    found = {name: key_of(settings, feature) for name, feature in settings.table.features.items()}
    assert found["csrf_protection"] is found["session_security"] is None
    assert (found["oauth_tokens"], found["other"]) == ("oidc_auth_profile", "fs_oauth_next")
    for name, key in found.items():
        if key is not None:
            assert settings.table.feature_of(key).name == name
            assert not settings.is_identity(key)
    assert user_key_of(settings) == "_user_id"


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (Seen(2, None, "default", True), None),
        (Seen(1, None, "default", True), "level 1 instead of 2"),
        (Seen(2, "stored", "local", True), "shown is 'stored' from local, not None"),
        (Seen(2, None, "default", False), "available() is False"),
    ],
)
def test_what_breaks_a_promise_by_reading(settings: Settings, seen: Seen, problem: str | None) -> None:
    promised = promise(settings, settings.table.features["ui_settings"], 2)
    assert broken_by_reading(seen, promised, 2, "stored", None) == problem


def test_what_breaks_a_promise_by_writing(settings: Settings) -> None:
    promised = promise(settings, settings.table.features["translation_state"], 2)
    assert broken_by_writing(Kept.JOURNAL, promised) is None
    assert broken_by_writing(Kept.NOWHERE, promised) == "what was written is in nowhere, not in journal"
