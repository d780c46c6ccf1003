"""Facts for the status page, made up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask_langpont_session.ops.status_page.facts import Facts, FeatureNow, Store
from flask_langpont_session.ops.status_page.history import LevelChange, Slice
from flask_langpont_session.policy.causes import Cause
from flask_langpont_session.policy.levels import LEVELS

NOW = 1_700_000_000.0
"""22:13:20 UTC."""

AWAY = Cause("unreachable", "start it", "outage")


def minute(ago: int, **said: Any) -> Slice:
    """Return the slice of the minute that began so many minutes before the present one."""
    return Slice(NOW - NOW % 60 - 60 * ago, **said)


def facts(**said: Any) -> Facts:
    """All is well, and nothing has happened, but for what is said; `report` and `level` are of the report."""
    level = said.pop("level", 0)
    report = {
        "status": "ok",
        "level": level,
        "level_name": LEVELS[level],
        "logins": True,
        "process_lag_ms": 4,
        "shards": {"lost": 0, "total": 1, "lost_share": 0.0},
        "near_cache": {"connections": 1},
        "journal": {"waiting": 0, "oldest_seconds": None},
    }
    plain: dict[str, Any] = {
        "now": NOW,
        "since": NOW - 120,
        "means": "Redis takes reads and writes.",
        "features": [FeatureNow("ui_settings", "ui", "medium", "primary", "Redis")],
        "stores": [Store("primary", reads=True, writes=True, cause=None, since=None)],
        "pid": 1234,
        "host": "web-1",
        "began": NOW - 7200,
        "budget": 0.3,
        "no_room": None,
        "span": 3600.0,
        "slices": [],
        "changes": [LevelChange(NOW - 7200, level)],
    }
    return Facts(report=report | said.pop("report", {}), **plain | said)


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
        Store("primary", reads=False, writes=False, cause=AWAY, since=NOW - 1260),
        Store("replica", reads=False, writes=None, cause=AWAY, since=NOW - 1200),
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
        report={"journal": {"waiting": 260, "oldest_seconds": 1203.0}},
    )
