"""Reads the facts about an application that need no store."""

from __future__ import annotations

import time

from flask import Flask

from ...config.checks import moment_of
from ...config.settings import Settings
from .facts import Application, Cookie, Encryption


def read_application(app: Flask, settings: Settings) -> Application:
    """Return the configuration of an application."""
    cookie = Cookie(
        name=app.config["SESSION_COOKIE_NAME"],
        secure=bool(app.config["SESSION_COOKIE_SECURE"]),
        http_only=bool(app.config["SESSION_COOKIE_HTTPONLY"]),
        same_site=app.config["SESSION_COOKIE_SAMESITE"],
        domain=app.config["SESSION_COOKIE_DOMAIN"] or None,
    )
    return Application(
        settings=settings,
        secret_key=app.secret_key or "",
        fallbacks=app.config["SECRET_KEY_FALLBACKS"],
        is_debug=app.debug,
        is_testing=app.testing,
        cookie=cookie,
        encryption=_encryption(settings) if settings.encryption_keys else None,
    )


def _encryption(settings: Settings) -> Encryption:
    names, sealed = settings.table.categories, settings.sealed_categories
    ends = moment_of(settings.encryption_switch_over)
    return Encryption(
        keys=len(settings.encryption_keys),
        categories=tuple(name for name in names if name in sealed),
        plain=tuple(name for name in names if name not in sealed),
        switch_over=None if ends is None else ends.timestamp() - time.time(),
    )
