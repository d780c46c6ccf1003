"""Flask sessions by category in Redis or Valkey, with auth mirrored to SQL and outages decided by a table."""

from typing import cast

import flask

from .exceptions import (
    ConfigError,
    GrantRefused,
    LangPontSessionError,
    SessionTooLarge,
    SessionValueError,
    UnsupportedValue,
)
from .extension import LangPontSession
from .guards import requires_fresh
from .records import Kept, Revoked
from .session import Session
from .views import FeatureReport, SessionInfo

session: Session = cast("Session", flask.session)
"""Flask's ``session`` proxy with the type it has under this extension."""

__all__ = [
    "ConfigError",
    "FeatureReport",
    "GrantRefused",
    "Kept",
    "LangPontSession",
    "LangPontSessionError",
    "Revoked",
    "Session",
    "SessionInfo",
    "SessionTooLarge",
    "SessionValueError",
    "UnsupportedValue",
    "requires_fresh",
    "session",
]
