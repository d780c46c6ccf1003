"""A user's application that names every type it gets: mypy and pyright check it, nothing runs it.

``assert_type`` fails if the package says less than before (an ``Any`` where there was a type), or something else. A
test in ``tests/packaging/test_typing.py`` holds that nothing public is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, assert_type

import pytest
from flask import Flask
from sqlalchemy import MetaData

from flask_langpont_session import (
    DEFAULT_CATEGORIES,
    ConfigError,
    ConfirmationRequired,
    FeatureReport,
    GrantRefused,
    Kept,
    LangPontSession,
    LangPontSessionError,
    OutsideRequest,
    Refused,
    Revoked,
    Session,
    SessionInfo,
    SessionLimitReached,
    SessionNotFound,
    SessionTooLarge,
    SessionValueError,
    UnsupportedValue,
    events,
    requires_fresh,
    session,
)
from flask_langpont_session.audit import write_audit_log
from flask_langpont_session.pytest_plugin import SessionOutage
from flask_langpont_session.session.values import CategoryView
from flask_langpont_session.testing import (
    app_config,
    captured_events,
    closing_applications,
    configure,
    outage,
    switched_off,
)

extension = LangPontSession()
assert_type(extension.metadata, MetaData)
assert_type(DEFAULT_CATEGORIES, Mapping[str, Mapping[str, Any]])


def create_app(config: Mapping[str, Any]) -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(config)
    try:
        assert_type(LangPontSession(app), LangPontSession)
        assert_type(extension.init_app(app), None)
    except ConfigError as error:
        assert_type(error.problems, tuple[str, ...])
        raise
    return app


app = create_app({"LANGPONT_SESSION_CATEGORIES": DEFAULT_CATEGORIES})


@app.get("/")
def index() -> dict[str, Any]:
    assert_type(session, Session)
    session["lang"] = "en"
    del session["lang"]
    assert_type(session["user_id"], Any)
    assert_type(session.pop("cart", None), Any)
    assert_type(session.popitem(), tuple[str, Any])
    assert_type("lang" in session, bool)
    assert_type(len(session), int)
    assert_type(list(session), list[str])
    assert_type(session.copy(), dict[str, Any])
    assert_type(session | {"lang": "ja"}, dict[str, Any])
    assert_type({"lang": "ja"} | session, dict[str, Any])
    assert_type(session.digest, str | None)
    assert_type(session.new, bool)
    assert_type(session.ended, bool)
    assert_type(session.permanent, bool)
    assert_type(session.modified, bool)
    assert_type(session.accessed, bool)
    session.permanent = session.modified = True
    return dict(session)


@app.post("/count")
def count() -> str:
    try:
        assert_type(session.increment("visits"), int)
        assert_type(session.increment("visits", by=2), int)
    except UnsupportedValue as error:
        assert_type(error.key, object)
        return error.reason
    except SessionTooLarge as error:
        return error.reason
    assert_type(session.flush(), Kept | None)
    assert_type(session.kept, Mapping[str, Kept])
    return Kept.NOWHERE.value


@app.get("/state")
def state() -> str:
    assert_type(session.level, int)
    assert_type(session.level_name, str)
    assert_type(session.fallback_mode, bool)
    assert_type(session.emergency_mode, bool)
    assert_type(session.unverified, bool)
    assert_type(session.was_displaced(), bool)
    assert_type(session.label, str | None)
    session.label = "the tablet in the kitchen"
    session.label = None
    assert_type(session.available("translation"), bool)
    assert_type(session.fresh(), bool)
    assert_type(session.fresh("ui"), bool)
    assert_type(session.category("ui"), CategoryView)
    assert_type(session.explain(), list[FeatureReport])
    report = session.explain()[0]
    assert_type(report.feature, str)
    assert_type(report.category, str)
    assert_type(report.priority, str)
    assert_type(report.behaviour, str)
    assert_type(report.source, str)
    assert_type(report.available, bool)
    return report.feature


@app.post("/sign-out")
def sign_out() -> str:
    assert_type(session.regenerate(), None)
    assert_type(session.sign_out(), None)
    assert_type(session.clear(), None)
    return ""


@app.post("/password")
@requires_fresh
def password(user: int) -> str:
    return str(user)


@requires_fresh(otherwise=lambda: "sign in first")
def payment(amount: int) -> str:
    return str(amount)


@requires_fresh(max_age=300)
def address(street: str) -> str:
    session.confirm()
    assert_type(session.authenticated_at, datetime | None)
    assert_type(session.fresh("auth", max_age=1.5), bool)
    return street


@app.errorhandler(ConfirmationRequired)
def ask_for_password(error: ConfirmationRequired) -> str:
    return str(error.description)


assert_type(address("a"), str)
assert_type(password(7), str)
assert_type(payment(7), str)


def sessions_of(user: int) -> list[str]:
    found = extension.sessions(user)
    assert_type(found, list[SessionInfo])
    assert_type(found[0].digest, str)
    assert_type(found[0].user_id, str | None)
    assert_type(found[0].created_at, datetime)
    assert_type(found[0].idle_expires_at, datetime)
    assert_type(found[0].absolute_expires_at, datetime)
    assert_type(found[0].last_seen_at, datetime)
    assert_type(found[0].label, str | None)
    assert_type(found[0].network, str | None)
    assert_type(found[0].is_mine, bool)
    assert_type(extension.revoke(found[0].digest), Revoked)
    assert_type(extension.revoke_others(), Revoked)
    assert_type(extension.revoke_others(found[0].digest), Revoked)
    revoked = extension.revoke_user(user, app)
    assert_type(revoked.durable, bool)
    assert_type(revoked.sessions, int)
    return [info.digest for info in found]


def edit(digest: str) -> int:
    try:
        with extension.edit(digest, app) as edited:
            assert_type(edited, Session)
    except (OutsideRequest, SessionNotFound) as error:
        assert_type(error, OutsideRequest | SessionNotFound)
    assert_type(extension.all_sessions(active_since=datetime.now(), after=digest, limit=5), list[SessionInfo])
    return extension.count_sessions(active_since=datetime.now(), app=app)


def operate() -> dict[str, Any]:
    try:
        assert_type(extension.create_tables(), None)
        return extension.status(app)
    except (GrantRefused, SessionLimitReached, SessionValueError) as error:
        assert_type(error, GrantRefused | SessionLimitReached | SessionValueError)
        return {}
    except Refused as error:
        assert_type(error, Refused)
        return {}
    except LangPontSessionError:
        return {}
    finally:
        assert_type(extension.close(app), None)


write_audit_log(app)
write_audit_log(app, logging.StreamHandler())


@events.level_changed.connect_via(app)
def level_changed(sender: Flask, event: events.LevelChanged) -> None:
    assert_type(event.old, int)
    assert_type(event.new, int)


def lost(event: events.StoreLost | events.StoreRecovered | events.WritesNotKept | events.SessionRevoked) -> str:
    if isinstance(event, events.SessionRevoked):
        assert_type(event.cause, events.EndedBy)
        return event.digest
    if isinstance(event, events.WritesNotKept):
        assert_type(event.count, int)
        return f"{event.what} {event.cause} {event.category}"
    return f"{event.store} {event.direction}"


# -- the application's own tests ---------------------------------------------------------------------------------------


@pytest.fixture
def langpont_redis_url() -> str | None:
    return "redis://127.0.0.1:6379/9"


def check_profile(session_outage: SessionOutage, captured_session_events: list[object]) -> None:
    assert_type(session_outage(2), AbstractContextManager[None])
    with session_outage(4, app):
        assert not captured_session_events


def check_config(langpont_app_config: dict[str, Any]) -> None:
    create_app(langpont_app_config)


def check_by_hand() -> None:
    assert_type(app_config(), dict[str, Any])
    assert_type(configure(app, "redis://127.0.0.1:6379/9"), None)
    with closing_applications(), outage(app, 2), switched_off(app, "database"), captured_events() as seen:
        assert_type(seen, list[object])
