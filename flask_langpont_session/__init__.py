"""Flask sessions by category in Redis or Valkey, with auth mirrored to SQL and outages decided by a table."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decorators import requires_fresh
    from .exceptions import (
        ConfigError,
        ConfirmationRequired,
        GrantRefused,
        LangPontSessionError,
        OutsideRequest,
        Refused,
        SessionLimitReached,
        SessionNotFound,
        SessionTooLarge,
        SessionValueError,
        UnsupportedValue,
    )
    from .extension import LangPontSession
    from .policy.levels import Kept
    from .policy.plans import Revoked
    from .policy.presets import DEFAULT_CATEGORIES
    from .session.mapping import Session
    from .session.values import FeatureReport, SessionInfo

    session: Session
    """Flask's ``session`` proxy with the type it has under this extension."""

__all__ = [
    "DEFAULT_CATEGORIES",
    "ConfigError",
    "ConfirmationRequired",
    "FeatureReport",
    "GrantRefused",
    "Kept",
    "LangPontSession",
    "LangPontSessionError",
    "OutsideRequest",
    "Refused",
    "Revoked",
    "Session",
    "SessionInfo",
    "SessionLimitReached",
    "SessionNotFound",
    "SessionTooLarge",
    "SessionValueError",
    "UnsupportedValue",
    "requires_fresh",
    "session",
]

_PLACES = {
    "DEFAULT_CATEGORIES": "policy.presets",
    "ConfigError": "exceptions",
    "ConfirmationRequired": "exceptions",
    "FeatureReport": "session.values",
    "GrantRefused": "exceptions",
    "Kept": "policy.levels",
    "LangPontSession": "extension",
    "LangPontSessionError": "exceptions",
    "OutsideRequest": "exceptions",
    "Refused": "exceptions",
    "Revoked": "policy.plans",
    "Session": "session.mapping",
    "SessionInfo": "session.values",
    "SessionLimitReached": "exceptions",
    "SessionNotFound": "exceptions",
    "SessionTooLarge": "exceptions",
    "SessionValueError": "exceptions",
    "UnsupportedValue": "exceptions",
    "requires_fresh": "decorators",
}


class _Package(ModuleType):
    """A module that imports a name when it is first asked for: pytest loads the plugin in here for every project."""

    def __getattr__(self, name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            module = import_module(f".{_PLACES[name]}", self.__name__)
        except AttributeError as error:  # "from … import" would take it for its own question, and say no cause
            raise ImportError(f"{self.__name__}.{_PLACES[name]} cannot be imported: {error}") from error
        value = getattr(module, name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})

    @property
    def session(self) -> Any:
        import flask

        return flask.session

    @session.setter
    def session(self, module: ModuleType) -> None:
        """Ignore the module of this name, which the import system sets here: the attribute is Flask's proxy."""


sys.modules[__name__].__class__ = _Package
