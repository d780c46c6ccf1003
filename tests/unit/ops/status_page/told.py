"""Facts for the status page, made up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask_langpont_session.ops.status_page.facts import Facts, FeatureNow, Journal, Process, Shards, Store
from flask_langpont_session.ops.status_page.history import LevelChange, Slice
from flask_langpont_session.policy.levels import LEVELS

NOW = 1_700_000_000.0
"""22:13:20 UTC."""


def minute(ago: int, **said: Any) -> Slice:
    """Return the slice of the minute that began so many minutes before the present one."""
    return Slice(NOW - NOW % 60 - 60 * ago, **said)


def facts(**said: Any) -> Facts:
    """All is well, and nothing has happened, but for what is said."""
    level = said.get("level", 0)
    plain: dict[str, Any] = {
        "now": NOW,
        "process": Process(1234, "web-1", NOW - 7200, has_looked=True, lag=0.004, near_connections=1),
        "level": 0,
        "level_name": LEVELS[level],
        "since": NOW - 120,
        "means": "Redis takes reads and writes.",
        "logins": True,
        "features": [FeatureNow("ui_settings", "ui", "medium", "primary", "Redis")],
        "stores": [Store("primary", reads=True, writes=True, cause=None, since=None)],
        "shards": Shards(0, 1, 0.0),
        "journal": Journal(0, None),
        "budget": 0.3,
        "span": 3600.0,
        "slices": [],
        "changes": [LevelChange(NOW - 7200, level)],
    }
    return Facts(**plain | said)


def an_outage() -> Facts:
    """Redis went twenty minutes ago, after half an hour in which all was well."""
    minutes = []
    for ago in range(50, -1, -1):
        if ago > 20:
            answers = Counter({"near": 800 + 3 * ago, "primary": 150, "replica": 20, "database": 30})
            took = {"redis": Counter({0.2: 80, 0.4: 60, 1.1: 5}), "database": Counter({2.1: 20, 7.5: 2})}
            minutes.append(minute(ago, answers=answers, took=took, waiting=0))
        else:
            answers = Counter({"local": 700, "default": 300, "database": 400})
            took = {"database": Counter({2.5: 200, 9.1: 15, 450.0: 9})}
            minutes.append(minute(ago, answers=answers, took=took, waiting=(20 - ago) * 13))
    stores = [
        Store("database", reads=True, writes=True, cause=None, since=None),
        Store("primary", reads=False, writes=False, cause="unreachable", since=NOW - 1260),
        Store("replica", reads=False, writes=None, cause="unreachable", since=NOW - 1200),
    ]
    local = "this host's copy; what is written waits in its journal and is merged"
    features = [
        FeatureNow("authentication", "auth", "critical", "database_fallback", "what the row in the database says"),
        FeatureNow("translation_state", "translation", "high", "local_cache_fallback", local),
        FeatureNow("ui_settings", "ui", "medium", "default_value", "what DEFAULTS says"),
    ]
    changes = [LevelChange(NOW - 7200, 0), LevelChange(NOW - 1260, 1), LevelChange(NOW - 1200, 2)]
    return facts(
        level=2,
        since=NOW - 1200,
        means="No Redis answers.",
        stores=stores,
        features=features,
        slices=minutes,
        changes=changes,
        journal=Journal(260, 1203.0),
    )
