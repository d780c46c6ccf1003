"""``flask langpont drill``: outages of a copy of the application, on real servers that notice nothing of them."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import exceptions as driver

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.events import signed_in
from flask_langpont_session.ops.cli.signals import interrupting, undisturbed
from flask_langpont_session.ops.drill.faults import Fault, Faults
from flask_langpont_session.ops.drill.run import Drill, NotReady, Parts
from flask_langpont_session.ops.drill.visits import Browser
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY, WRITE
from flask_langpont_session.session.mapping import Session
from flask_langpont_session.stores.host.journal import Journal
from flask_langpont_session.stores.redis.commands import CLOCK
from flask_langpont_session.stores.sql.tables import SESSIONS, USERS

from .behind import emptied, resting, row, sign_in
from .conftest import MakeApp, parts
from .flask_command import RunningCommand, run_flask
from .shop import run, write_shop

DRILL = ["langpont", "drill"]


def keys(primary: Valkey) -> dict[str, Any]:
    """Return the records of sessions in Redis, without the canary and what probes leave for some minutes."""
    with primary.client() as client:
        names = [name for name in client.scan_iter() if not name.startswith("session:canary")]
        return {name: client.hgetall(name) for name in names}


def users_of_drills(url: str) -> int:
    """Rows in both tables."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = (
            connection.execute(
                sa.select(sa.func.count()).select_from(table).where(table.c.user_id.startswith("langpont"))
            ).scalar_one()
            for table in (SESSIONS, USERS)
        )
        return sum(found)


def test_each_feature_gets_what_the_table_promises(
    make_app: MakeApp, primary: Valkey, replica: Valkey, postgres: Postgres, tmp_path: Path
) -> None:
    """The drill goes through every outage, one after the other. It leaves nothing, and the site with the same stores
    noticed nothing: neither its users nor its journal."""
    places: dict[str, Any] = {"REDIS_URL": primary.url, "REPLICA_URL": replica.url, "DATABASE_URL": emptied(postgres)}
    site = make_app(**places)
    client = sign_in(site, lang="ja", input_text="a text")
    write_shop(tmp_path, **places)
    with resting(site):
        before, its_row = keys(primary), dict(row(site, client.digest))
        done = run_flask(tmp_path, ["--app", "shop", *DRILL, "all", "--for", "0", "--yes"], 300)
        after = keys(primary)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("  all as promised\n") == 3
    assert re.findall(r"^  level (\d)", done.stdout, re.MULTILINE) == ["1", "1", "0"]
    assert "  ok  sign-in               is refused (503)\n" in done.stdout
    assert users_of_drills(places["DATABASE_URL"]) == 0
    assert after == before
    assert dict(row(site, client.digest)) == its_row
    assert client.get("/who").json == {"user": "7", "level": 0, "lang": "ja"}
    assert list(tmp_path.glob("langpont_session_journal*")) == []


@pytest.mark.parametrize("fault", [Fault.PRIMARY_DOWN, Fault.HANG])
def test_connections_that_are_open_meet_the_fault_too(make_app: MakeApp, fault: Fault) -> None:
    """A worker writes over one that it keeps beside the pool: with that one left out, nothing fails."""
    backend = parts(make_app()).backend
    faults = Faults(backend)
    with faults.laid():
        connection = backend.redis[PRIMARY].endpoints[PRIMARY].link.beside(LONG)
        connection.deadline.renew(time.monotonic() + LONG)
        assert len(connection.exchange(CLOCK.packed, 1)) == 1
        faults.begin(fault)
        connection.deadline.renew(time.monotonic() + 0.2)
        with pytest.raises(driver.ConnectionError if fault is Fault.PRIMARY_DOWN else driver.TimeoutError):
            connection.exchange(CLOCK.packed, 1)
        connection.disconnect()


def test_without_a_replica_the_level_is_2(primary: Valkey, tmp_path: Path) -> None:
    """The level is 2 without a replica. In debug, no leave is asked for; a feature that the table lets go shows its
    DEFAULTS; and a drill publishes nothing of its own."""
    write_shop(tmp_path, REDIS_URL=primary.url, DEFAULTS={"lang": "en"}, MAX_SESSIONS_PER_USER=1, METRICS=["emf"])
    done = run_flask(tmp_path, ["--app", "shop", "--debug", *DRILL, "primary-down", "--for", "0"], 120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "  level 2 local_cache, noticed after " in done.stdout
    said = " ".join(done.stdout.split())
    assert re.search(r"ok language_preference default_value before: primary \S+ ms during: default ", said)
    assert re.search(
        r"ok translation_state \S+ before: \S+ \S+ ms during: local [^:]* written to journal [^:]* after: primary ",
        said,
    )
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert keys(primary) == {}


def test_a_site_is_not_drilled_without_leave(primary: Valkey, tmp_path: Path) -> None:
    """Its stores may be those of users: nothing is asked of them."""
    write_shop(tmp_path, REDIS_URL=primary.url)
    done = run_flask(tmp_path, ["--app", "shop", *DRILL, "all"], 60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "neither in debug nor under test" in done.stderr and "--yes" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("langpont*")) == []


def test_a_broken_promise_is_found(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be written: named feature by feature, with exit code 1. What the table lets go is as
    promised, and the drill's sessions are ended all the same."""

    def full(*_: object, **__: object) -> None:
        raise StoreError("journal", ErrorClass.WRITE_REFUSED, "SQLITE_FULL")

    monkeypatch.setattr(Journal, "put", full)
    result = run(make_app(), "drill", "primary-down", "--for", "0")
    assert result.exit_code == 1, result.output
    assert re.search(r"^  BAD translation_state ", result.output, re.MULTILINE)
    assert "      what was written is in nowhere, not in journal\n" in result.output
    assert re.search(r"^  ok  ui_settings ", result.output, re.MULTILINE)
    assert re.search(r"^  \d not as promised$", result.output, re.MULTILINE)


def test_no_drill_is_made_where_a_store_is_lost_while_it_begins(make_app: MakeApp) -> None:
    """Such a loss is an outage of its own, of which the drill knows nothing: no feature is blamed for it."""
    state = parts(app := make_app())
    faults = Faults(state.backend)
    drill = Drill(Parts(app, state.backend, state.repository, state.monitor), faults)

    def lose_the_primary(*_: object, **__: object) -> None:
        state.backend.health.failed(StoreError(PRIMARY, ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True), WRITE)

    with faults.laid(), signed_in.connected_to(lose_the_primary), pytest.raises(NotReady, match="was lost before"):
        drill.run(Fault.PRIMARY_DOWN, 0)
    drill.clean_up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_drill_that_is_interrupted_leaves_nothing(primary: Valkey, tmp_path: Path, number: signal.Signals) -> None:
    """A drill that is interrupted in the middle of its outage leaves nothing."""
    write_shop(tmp_path, REDIS_URL=primary.url)
    command = RunningCommand(tmp_path, ["--app", "shop", "--debug", *DRILL, "primary-down", "--for", "3600"])
    wait_until(lambda: bool(keys(primary)), "that it has begun")
    command.process.send_signal(number)
    done = command.answer(60)
    assert done.returncode == 130, done.stderr
    assert "Interrupted: the sessions of the drill are deleted." in done.stderr
    assert keys(primary) == {}
    assert users_of_drills(f"sqlite:///{tmp_path / 'langpont_session.sqlite3'}") == 0


def test_a_request_of_a_drill_is_not_interrupted(make_app: MakeApp) -> None:
    """Left half way, it would leave the copies of this process in no order, and a session that no browser knows."""
    browser = Browser(make_app(), undisturbed)

    def sign_in(session: Session) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        session["_user_id"] = "7"

    with interrupting(), pytest.raises(KeyboardInterrupt):
        browser.visit(sign_in)
    assert browser.digests
    assert browser.visit(lambda session: session["_user_id"]).result == "7"


def test_what_the_database_does_for_a_request_that_is_over_is_waited_for(
    make_app: MakeApp, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may insert a row; that goes, too."""
    state = parts(app := make_app())
    faults = Faults(state.backend)
    drill = Drill(Parts(app, state.backend, state.repository, state.monitor), faults)
    with faults.laid():
        drill.run(Fault.PRIMARY_DOWN, 0)
    may_insert, calls, stop = threading.Event(), state.backend.database.calls, state.monitor.stop

    def insert() -> None:
        assert may_insert.wait(LONG)
        with state.backend.database.engine.begin() as connection:
            connection.execute(USERS.insert().values(user_id=drill.user, epoch=0))

    def stop_and_insert_later() -> None:
        stop()
        threading.Timer(0.3, may_insert.set).start()

    monkeypatch.setattr(state.monitor, "stop", stop_and_insert_later)
    with pytest.raises(StoreError):
        calls.in_request(insert, 0.05)
    drill.clean_up()
    wait_until(lambda: not calls.requests.busy, "the end of the call")
    assert users_of_drills(sqlite_url) == 0


def test_no_drill_is_made_in_an_outage(tmp_path: Path) -> None:
    """A sentence, exit code 2."""
    write_shop(tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
    done = run_flask(tmp_path, ["--app", "shop", "--debug", *DRILL, "hang", "--for", "0"], 200)
    assert done.returncode == 2
    assert "before the drill not all is well: primary" in done.stderr
