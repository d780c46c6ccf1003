"""The decision table in words: what is said of each kind of key, and how it could be otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.config.explanations import identity_advice, key_lines, table_lines, what_users_get
from flask_langpont_session.policy.categories import Priority
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from tests.support.fakes import settings_in


def said_of(folder: Path, key: str, **config: Any) -> list[str]:
    return key_lines(settings_in(folder, **config), key)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("@live", "reserved"),
        ("_remember_seconds", "lives for one request"),
        ("_permanent", "session.permanent"),
        ("session_created", "an assignment is ignored"),
        ("csrf_token", "derived from the session id"),
        ("strange", "name it in LANGPONT_SESSION_FEATURES"),
    ],
)
def test_a_key_that_is_not_stored_as_others_is_told_in_a_line(tmp_path: Path, key: str, said: str) -> None:
    without_the_rest = {
        name: {
            **spec,
            "features": {feature: [k for k in keys if k != "*"] for feature, keys in spec["features"].items()},
        }
        for name, spec in DEFAULT_CATEGORIES.items()
    }
    [line] = said_of(tmp_path, key, CATEGORIES=without_the_rest)
    assert line.startswith(f"{key}: ") and said in line


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("_user_id", "a user key: assigning it is a sign-in"),
        ("user_role", "a right: every change of it needs the database"),
        ("lang", "data, in Redis alone"),
        ("strange", "data, in Redis alone; no feature names it"),
        ("uid", "data, in Redis alone; no feature names it. If it names the signed-in user, add it to"),
        ("Roles", "data, in Redis alone; no feature names it. If it gives a right, add it to"),
    ],
)
def test_what_a_key_means(tmp_path: Path, key: str, meaning: str) -> None:
    [line] = [line for line in said_of(tmp_path, key) if line.startswith("meaning")]
    assert line.split(maxsplit=1)[1].startswith(meaning)


def test_a_right_of_the_other_preset_is_told_of_it(tmp_path: Path) -> None:
    """The default table is that of a translation site: names that are rights in any other lead to that preset."""
    assert "PRESET to 'application'" in identity_advice("is_admin") and "PRESET" not in identity_advice("admin")
    assert "a right: every change of it" in "".join(said_of(tmp_path, "is_admin", PRESET="application"))


def test_a_key_of_data_is_told_for_each_level_and_with_the_line_that_changes_it(tmp_path: Path) -> None:
    lines = said_of(tmp_path, "lang", FEATURES={"language_preference": {"priority": "medium"}})
    assert [line.split()[1] for line in lines if line.startswith("level ")] == ["0", "1", "2", "3", "4"]
    assert "to change it: LANGPONT_SESSION_FEATURES = " in lines[-2] and '"priority": "high"' in lines[-2]
    assert lines[-1].endswith('LANGPONT_SESSION_DURABLE_KEYS = ["lang"]')


def test_an_auth_key_is_told_for_users_and_for_visitors_unless_it_makes_a_user(tmp_path: Path) -> None:
    levels = [line for line in said_of(tmp_path, "tf_state") if line.startswith("level ")]
    assert [sum(whose in line for line in levels) for whose in ("signed in", "visitor")] == [5, 5]
    assert not [line for line in said_of(tmp_path, "_user_id") if "visitor" in line]


def test_the_table_has_a_line_for_each_priority_and_each_feature(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    lines = table_lines(settings)
    assert [line.split("|")[1].strip() for line in lines[2 : lines.index("")]] == list(Priority)
    shown = [line.split("|")[3].strip() for line in lines[lines.index("") + 3 :]]
    assert shown == [feature.name for feature in settings.table.features.values()]
    assert "| auth | session's life |" in "\n".join(lines)


def test_only_features_are_named_of_which_a_key_was_met(tmp_path: Path) -> None:
    """An application that stores a basket is told nothing of translations; before any key was met, of all."""
    settings = settings_in(tmp_path)
    assert "translation_state" in what_users_get(settings, 2)
    assert settings.table.features_in_use == set()
    settings.table.feature_of("theme")
    assert what_users_get(settings, 2) == "ui_settings: what DEFAULTS says; what is written is gone with the request"
    assert what_users_get(settings, 0) == "as usual"
