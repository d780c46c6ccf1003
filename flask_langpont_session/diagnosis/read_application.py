"""Reads the facts about an application that need no store."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask
from sqlalchemy.engine import make_url

from ..config.checks import moment_of
from ..config.settings import Settings
from ..stores.redis.url import Kind, kind_of, read_cluster, read_group, read_sentinel, read_server
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
        places=_places(settings),
        cookie=cookie,
        engine_connections=open_connections(settings.database_engine),
        claims_all=settings.table.claims_all,
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


def _places(settings: Settings) -> dict[str, str]:
    """Return the places of the stores, without users, passwords and options."""
    found = {"LANGPONT_SESSION_KEY_PREFIX": settings.key_prefix}
    for name in ("redis_url", "replica_url"):
        if url := getattr(settings, name):
            found[f"LANGPONT_SESSION_{name.upper()}"] = place_in(url)
    if settings.database_url:
        url = make_url(settings.database_url)
        if url.get_backend_name() != "sqlite":  # whose path tells of this host
            found["LANGPONT_SESSION_DATABASE_URL"] = f"{_without_end(url.host or '')} {url.database or ''}"
    return found


def place_in(url: str) -> str:
    """Return the name by which the URL of a Redis leads there: a host, several, a service or a group."""
    kind = kind_of(url)
    if kind is Kind.SENTINEL:
        return read_sentinel(url).service
    if kind is Kind.CLUSTER:
        return " ".join(_without_end(seed.host) for seed in read_cluster(url).seeds)
    if kind is Kind.GROUP:
        return read_group(url).group_id
    return _without_end(read_server(url).hostname or "")


def _without_end(host: str) -> str:
    """Return a name without its end .dev or .test, which may be of any environment."""
    return host.rpartition(".")[0] or host


def open_connections(engine: Any) -> int | None:
    """Return how many connections an engine of the application's has open by now; None: there is no such engine."""
    if engine is None:
        return None
    counted = [getattr(engine.pool, name, None) for name in ("checkedin", "checkedout")]
    return int(sum(count() for count in counted if count))
