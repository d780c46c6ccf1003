"""``flask langpont purge`` that is interrupted, and what it shows while it works."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.stores.sql.tables import METADATA, SESSIONS
from tests.support.clock import Clock

from .behind import emptied, row, sign_in
from .conftest import MakeApp, parts
from .flask_command import RunningCommand, run_flask
from .shop import run, write_shop

PURGE = ["--app", "shop", "langpont", "purge"]


def fill(engine: sa.Engine, rows: int) -> None:
    """Rows of sessions that were over long ago."""
    whole = dict.fromkeys(("user_epoch", "created_at", "updated_at", "idle_expires_at", "absolute_expires_at"), 0)
    METADATA.create_all(engine)
    with engine.begin() as connection:
        values = [{"digest": str(number), "version": 1, "live": False, "payload": "{}"} for number in range(rows)]
        connection.execute(sa.insert(SESSIONS).values(**whole), values)


def left(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(SESSIONS)).scalar_one()


@pytest.fixture
def engine(postgres: Postgres, primary: Valkey, tmp_path: Path) -> Iterator[sa.Engine]:
    """Yield an engine of a database with 2,001 rows to be deleted, which the shop in `tmp_path` uses."""
    url = emptied(postgres)
    write_shop(tmp_path, REDIS_URL=primary.url, DATABASE_URL=url)
    engine = sa.create_engine(url)
    fill(engine, 2001)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("number", "code", "deleted"), [(signal.SIGINT, 130, 1000), (signal.SIGTERM, 143, 1000), (signal.SIGKILL, -9, 0)]
)
def test_what_was_interrupted_goes_on_with_what_is_left(
    engine: sa.Engine, tmp_path: Path, number: signal.Signals, code: int, deleted: int
) -> None:
    """The portion that was interrupted is done as a whole, or, where the process is killed, not at all."""
    with engine.connect() as others:
        others.execute(sa.text("LOCK TABLE langpont_sessions IN ACCESS EXCLUSIVE MODE"))
        command = RunningCommand(tmp_path, PURGE)
        wait_until(lambda: waits(engine), "that it waits for the table")
        command.process.send_signal(number)
        if number == signal.SIGKILL:
            command.process.wait(LONG)
    done = command.answer(30)
    assert (done.returncode, done.stdout) == (code, "")
    if deleted:
        assert done.stderr.endswith("Interrupted: 1000 rows deleted; the next run goes on with the others.\n")
    wait_until(lambda: not waits(engine), "that nothing of it is left")
    assert left(engine) == 2001 - deleted
    again = run_flask(tmp_path, PURGE, 30)
    assert (again.returncode, again.stdout) == (0, f"{2001 - deleted} rows deleted.\n")
    assert left(engine) == 0


def waits(engine: sa.Engine) -> bool:
    """Return whether a process waits for a lock."""
    with engine.connect() as connection:
        return bool(connection.execute(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())


def test_there_is_a_line_now_and_then(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The progress is told now and then, not for each portion."""
    app, clock, portions = make_app(), Clock(), iter([1000] * 50 + [0])

    def portion(*_: object) -> int:
        clock.now += 0.5
        return next(portions)

    monkeypatch.setattr(parts(app).backend.database.upkeep, "purge", portion)
    monkeypatch.setattr(time, "monotonic", clock)
    said = run(app, "purge").stderr
    assert said.splitlines() == ["20000 rows deleted so far", "40000 rows deleted so far"]


def test_a_user_without_delete_signs_in_and_out_and_purge_names_the_right(
    make_app: MakeApp, postgres: Postgres
) -> None:
    """No request needs it. `doctor` names it before the first night."""
    owner = emptied(postgres)
    make_app(DATABASE_URL=owner)
    engine = sa.create_engine(owner, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE thrifty LOGIN PASSWORD 'thrifty'")
        connection.exec_driver_sql("GRANT SELECT, INSERT, UPDATE ON langpont_sessions, langpont_users TO thrifty")
        try:
            url = sa.make_url(owner).set(username="thrifty", password="thrifty")
            app = make_app(DATABASE_URL=url.render_as_string(hide_password=False))
            client = sign_in(app)
            client.post("/logout")
            signed_out = not row(app, client.digest)["live"]
            status = run(app, "status")
            connection.exec_driver_sql("UPDATE langpont_sessions SET absolute_expires_at = 0")
            purge, doctor = run(app, "purge"), run(app, "doctor", "--only", "database-rights")
        finally:
            connection.exec_driver_sql("DROP OWNED BY thrifty")
            connection.exec_driver_sql("DROP ROLE thrifty")
    assert (signed_out, status.exit_code) == (True, 0)
    assert (purge.exit_code, "GRANT DELETE ON langpont_sessions TO its user" in purge.output) == (1, True), purge.output
    assert "its user lacks DELETE on langpont_sessions" in doctor.output
