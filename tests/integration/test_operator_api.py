"""``sessions``, ``revoke`` and ``revoke_user``: a user's sessions, and ending them whatever is down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession, Revoked, session
from flask_langpont_session.events import EndedBy, SessionRevoked, UserRevoked
from flask_langpont_session.testing import captured_events

from .behind import (
    age_row,
    elsewhere,
    emptied,
    entry,
    outcomes,
    questions,
    resting,
    row,
    sign_in,
    wait_until_home,
    waiting,
    who,
)
from .conftest import MakeApp, parts

"""A busy machine is no outage."""


def operator(app: Flask) -> LangPontSession:
    """Return the extension, as an operator calls it."""
    return cast(LangPontSession, app.session_interface)


class Site:
    """Two workers of one host, which share a journal, and one of another."""

    def __init__(self, make_app: MakeApp, tmp_path: Path, **config: Any) -> None:
        self.worker = make_app(**config)
        self.sibling = make_app(**config)
        self._make = partial(make_app, **config)
        self.elsewhere = make_app(**config, JOURNAL=str(tmp_path / "other host.sqlite3"))

    def start_another(self) -> Flask:
        """Return one more worker of the first host, which has not served any request yet."""
        return self._make()

    @property
    def host(self) -> tuple[Flask, Flask]:
        return self.worker, self.sibling

    @property
    def all(self) -> tuple[Flask, Flask, Flask]:
        return self.worker, self.sibling, self.elsewhere

    def signed_in_everywhere(self, user: str = "7", on: Flask | None = None) -> Any:
        """A browser that every worker has seen, signed in on one of them."""
        client = sign_in(on or self.worker, user)
        assert self.users(client, *self.all) == [user] * 3
        return client

    def users(self, client: Any, *apps: Flask) -> list[str | None]:
        """Whom each worker takes a browser for. None of them touches its cookie."""
        return [who(app, client) for app in apps]


@pytest.fixture
def site(make_app: MakeApp, tmp_path: Path) -> Site:
    return Site(make_app, tmp_path)


@pytest.fixture
def pg_site(make_app: MakeApp, tmp_path: Path, postgres: Postgres) -> Iterator[Site]:
    """The same on a database that can be killed."""
    yield Site(make_app, tmp_path, DATABASE_URL=emptied(postgres))
    postgres.start()


# -- listing -----------------------------------------------------------------------------------------------------------


def test_sessions_are_listed_oldest_first(site: Site) -> None:
    """The list has the user's sessions only, with times that have a zone, and a name to end them by."""
    first = sign_in(site.worker)
    age_row(site.worker, first.digest, 600_000)
    second = sign_in(site.sibling)
    sign_in(site.worker, "8")
    found = operator(site.worker).sessions(7, site.worker)  # whatever type the application uses for ids
    assert [info.digest for info in found] == [first.digest, second.digest]
    assert found == operator(site.worker).sessions("7", site.worker)
    now = datetime.now(UTC)
    for info, age in zip(found, (600, 0), strict=True):
        assert info.user_id == "7"
        began = now - timedelta(seconds=age)
        assert abs(info.created_at - began) < timedelta(seconds=60)
        assert abs(info.idle_expires_at - began - timedelta(hours=1)) < timedelta(seconds=60)
        assert abs(info.absolute_expires_at - began - timedelta(hours=12)) < timedelta(seconds=60)
    assert operator(site.worker).sessions("nobody", site.worker) == []


def test_calls_use_the_current_application(site: Site) -> None:
    """Inside of a request or a command it need not be named."""
    client = sign_in(site.worker)
    with site.worker.app_context():
        assert len(operator(site.worker).sessions("7")) == 1
        assert operator(site.worker).revoke(client.digest) == Revoked(durable=True, sessions=1)
        assert operator(site.worker).revoke_user("7") == Revoked(durable=True, sessions=0)  # it is dead
    with pytest.raises(RuntimeError):
        operator(site.worker).sessions("7")


# -- everything healthy ------------------------------------------------------------------------------------------------


def test_i1_a_revoked_session_is_over_on_every_host(site: Site, primary: Valkey) -> None:
    """I1: at once, since all are healthy. Other sessions of the user go on. Doing it again changes nothing."""
    client, other = site.signed_in_everywhere(), site.signed_in_everywhere()
    with resting(*site.all), captured_events(site.worker) as events:
        assert operator(site.worker).revoke(client.digest, site.worker) == Revoked(durable=True, sessions=1)
        assert events == [SessionRevoked(client.digest[:8], durable=True, cause=EndedBy.APPLICATION)]
        assert site.users(client, *site.all) == [None] * 3
        assert site.users(other, *site.all) == ["7"] * 3
        assert entry(primary, client.digest)["@live"] == "0"
        before = row(site.worker, client.digest)
        assert (before["live"], before["version"]) == (False, 2)
        assert operator(site.elsewhere).revoke(client.digest, site.elsewhere).durable
        assert row(site.worker, client.digest) == before
        assert waiting(site.worker) == 0


ENDS: dict[str, Callable[[Site, Any], object]] = {
    "langpont.revoke()": lambda site, client: operator(site.worker).revoke(client.digest, site.worker),
    "revoke_user()": lambda site, client: operator(site.worker).revoke_user("7", site.worker),
    "a sign-out": lambda site, client: client.post("/logout"),
    "a sign-in in its place": lambda site, client: client.post("/login/8"),
}
"""What ends a session."""


def told_and_counted(site: Site, act: Callable[[], object]) -> tuple[list[str], int]:
    """The digests of the sessions that a worker said to have ended, and how many it counted."""
    recorder = parts(site.worker).recorder
    before = recorder.counters().get("sessions_ended", 0)
    with resting(*site.all), captured_events(site.worker) as seen:
        act()
    told = [event.digest for event in seen if isinstance(event, SessionRevoked)]
    return told, recorder.counters().get("sessions_ended", 0) - before


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_d36_a_session_that_lived_is_told_and_counted_once(site: Site, end: Callable[[Site, Any], object]) -> None:
    """A session that lived is told and counted by one rule, whatever ends it; then it is over, and nothing is told
    of it any more."""
    client = sign_in(site.worker)
    name = client.digest[:8]
    assert told_and_counted(site, lambda: end(site, client)) == ([name], 1)
    told, counted = told_and_counted(site, lambda: operator(site.worker).revoke(client.digest, site.worker))
    assert (told, counted) == ([], 0)


def test_d36_a_sign_out_and_a_sign_in_of_one_request_are_one_end(site: Site) -> None:
    @site.worker.post("/exchange")
    def exchange() -> str:
        session.clear()
        session["_user_id"] = "8"
        return ""

    client = sign_in(site.worker)
    assert told_and_counted(site, lambda: client.post("/exchange")) == ([client.digest[:8]], 1)


def test_what_is_no_digest_is_a_mistake(site: Site) -> None:
    """A session id or a user id in its place must not look like a success."""
    for name in ("", "A" * 42, "A" * 44, "A" * 42 + "!", "A" * 42 + "\n", "A" * 42 + "é"):
        with pytest.raises(ValueError, match="43 characters"):
            operator(site.worker).revoke(name, site.worker)


def test_i1_a_user_is_logged_out_everywhere(site: Site, primary: Valkey) -> None:
    """I1: of all the user's sessions on all hosts, and of no others. Signing in again works."""
    clients = [site.signed_in_everywhere(on=app) for app in site.all]
    other = site.signed_in_everywhere("70")
    with resting(*site.all), captured_events(site.worker) as events:
        assert operator(site.worker).revoke_user(7, site.worker) == Revoked(durable=True, sessions=3)
        assert [type(event) for event in events] == [SessionRevoked] * 3 + [UserRevoked]
        for client in clients:
            assert site.users(client, *site.all) == [None] * 3
            assert entry(primary, client.digest)["@live"] == "0"
        assert site.users(other, *site.all) == ["70"] * 3
        again = site.signed_in_everywhere()
        assert waiting(site.worker) == 0
    assert [info.digest for info in operator(site.worker).sessions("7", site.worker)] == [again.digest]


# -- the database is killed --------------------------------------------------------------------------------------------


def test_i5_a_revocation_without_the_database_holds_everywhere_at_once(
    pg_site: Site, postgres: Postgres, primary: Valkey
) -> None:
    """I1, I5: Redis tells the other host, the journal keeps it, the database is told when it is back."""
    site = pg_site
    client, other = site.signed_in_everywhere(), site.signed_in_everywhere()
    new = site.start_another()
    with resting(*site.all, new):
        postgres.kill()
        assert operator(site.worker).revoke(client.digest, site.worker) == Revoked(durable=False, sessions=1)
        assert "unreachable" in outcomes(site.worker, "database")
        assert entry(primary, client.digest)["@live"] == "0"
        assert site.users(client, *site.all, new) == [None] * 4
        assert site.users(other, *site.all) == ["7"] * 3
        postgres.start()
        assert row(site.worker, client.digest)["live"]
    wait_until_home(*site.all)
    assert not row(site.worker, client.digest)["live"]
    assert row(site.worker, other.digest)["live"]
    assert site.users(client, *site.all) == [None] * 3
    assert site.users(other, *site.all) == ["7"] * 3


def is_leased(app: Flask, client: Any) -> bool:
    """Return whether this worker shows its user without asking the database. On a busy machine the lease comes
    later."""
    before = questions(app)
    return who(app, client) is not None and questions(app) == before


def test_s8_rows_that_are_dead_already_are_pushed_too(site: Site, primary: Valkey) -> None:
    """S8: another host ended them and died before Redis was told: their leases end with this."""
    ended, idle, living = (site.signed_in_everywhere() for _ in range(3))
    wait_until(lambda: all(is_leased(app, ended) for app in site.all), "a lease for every worker")
    with resting(*site.all):
        database = elsewhere(site.worker)
        database.kill(ended.digest)
        database.close()
        age_row(site.worker, idle.digest, 3_600_001, "idle_expires_at")
        assert site.users(ended, *site.all) == ["7"] * 3  # by its lease
        assert operator(site.worker).revoke_user("7", site.worker).sessions == 1
        for client in (ended, idle, living):
            assert entry(primary, client.digest)["@live"] == "0"
            assert site.users(client, *site.all) == [None] * 3
