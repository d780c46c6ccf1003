"""The near cache, for programs that measure with it and without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from flask_langpont_session.extension import state_of

NONE = "no near cache"
"""What a report says where no read was a hit."""


def setting(*, on: bool) -> Mapping[str, Any]:
    """Return the setting that caches all categories, or none; without the package's prefix."""
    return {"NEAR_CACHE": None if on else ()}


def hits(app: Flask) -> int:
    """Return how many reads this process's copies have answered."""
    return state_of(app).repository.recorder.counters().get("near_cache_hits", 0)
