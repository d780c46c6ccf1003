"""The near cache, for programs that measure with it and without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from flask_langpont_session.config.settings import Settings
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.categories import DEFAULT_CATEGORIES

IS_KNOWN = "near_cache" in Settings.__dataclass_fields__
"""Whether the package has one at all."""

NONE = "no near cache"
"""What a report says where no read was a hit."""


def setting(*, on: bool) -> Mapping[str, Any]:
    """The setting, without the package's prefix; none where the package knows none."""
    if not IS_KNOWN:
        return {}
    return {"NEAR_CACHE": tuple(DEFAULT_CATEGORIES) if on else ()}


def hits(app: Flask) -> int:
    """How many reads this process's copies have answered."""
    return state_of(app).repository.recorder.counters().get("near_cache_hits", 0)
