"""Views that run only on the database's word: what they answer when it says no, and when it says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask, Request
from flask.sessions import SecureCookieSession, SessionInterface, SessionMixin
from werkzeug.exceptions import Unauthorized

from flask_langpont_session import requires_fresh
from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.policy.loaded import Verdict
from tests.support.fakes import Maker, Repository, settings_in


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(Repository(settings_in(tmp_path)))


class Given(SessionInterface):
    """Sessions that a test has made."""

    def __init__(self, session: SessionMixin) -> None:
        self._session = session

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return self._session


@contextmanager
def request_of(session: SessionMixin) -> Iterator[None]:
    """A request that has this session."""
    app = Flask("app")
    app.session_interface = Given(session)
    with app.test_request_context():
        yield


@requires_fresh
def pay() -> str:
    """Pay."""
    return "paid"


@requires_fresh(otherwise=lambda: "sign in first")
def change_password(old: str, *, new: str) -> str:
    return f"{old} to {new}"


def test_it_runs_for_a_user_whom_the_database_confirms(maker: Maker) -> None:
    with request_of(maker.session(maker.repository.has(maker.sid("u", "u"), auth={"_user_id": "7"}))):
        assert pay() == "paid"
        assert change_password("a", new="b") == "a to b"
        assert pay.__doc__ == "Pay."


def test_a_visitor_is_sent_elsewhere_or_refused(maker: Maker) -> None:
    with request_of(maker.session(maker.repository.has(maker.sid("a")))):
        assert change_password("a", new="b") == "sign in first"
        with pytest.raises(Unauthorized):
            pay()


def test_a_user_of_whom_nothing_is_known_is_told_to_come_back(maker: Maker) -> None:
    """The user is not asked to sign in: nothing says that this user is not signed in."""
    sid = maker.repository.has(maker.sid("u", "u"), auth={"_user_id": "7"})
    maker.repository.verdicts[sid.digest] = Verdict.UNVERIFIABLE
    with request_of(maker.session(sid)):
        for view in (pay, lambda: change_password("a", new="b")):
            with pytest.raises(GrantRefused):
                view()


def test_without_the_packages_session_it_says_what_is_missing() -> None:
    with request_of(SecureCookieSession()), pytest.raises(RuntimeError, match="LangPontSession"):
        pay()
