"""I34: a database that went back to an earlier state is noticed, counted, and told what is known. Real servers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from devservers.postgres import Postgres
from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.serializer import decode
from flask_langpont_session.stores.sql.tables import METADATA
from flask_langpont_session.testing import switched_off

from .behind import age_row, browser, pass_time, resting, row, sign_in, who
from .conftest import MakeApp, close, parts
from .counting import wait_for_monitors

Tables = Mapping[str, Sequence[sa.RowMapping]]


def remembered(app: Flask) -> Tables:
    """All rows as they are now."""
    with parts(app).backend.database.engine.connect() as connection:
        return {table.name: connection.execute(table.select()).mappings().all() for table in METADATA.sorted_tables}


def go_back(app: Flask, tables: Tables) -> None:
    """The database has what it had then, as after a failover to a server that lagged."""
    with parts(app).backend.database.engine.begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
            if rows := tables[table.name]:
                connection.execute(table.insert(), [dict(row) for row in rows])


def lost_commits(*apps: Flask) -> int:
    """Return how many lost commits these workers have counted."""
    return sum(parts(app).recorder.counters().get("database_lost_commits", 0) for app in apps)


def role(app: Flask, client: Any) -> str | None:
    found: str | None = browser(app, client.cookie).get("/get/user_role").json["value"]
    return found


def after_an_outage(app: Flask) -> None:
    """The database answers again."""
    parts(app).monitor.probes.recover("database", ["read", "write"])
    parts(app).monitor.tick()


def an_admin(app: Flask) -> Any:
    client = sign_in(app)
    assert client.post("/set", json={"user_role": "admin", "identity.provides": ["edit"]}).status_code == 200
    return client


def test_i34_doctor_says_what_the_database_lacks(make_app: MakeApp) -> None:
    """It is told again by the workers, not by this."""
    app = make_app()
    client = sign_in(app)
    before = remembered(app)
    client.post("/logout")
    parts(app).backend.journal.revocations.keep_delivered()
    command = ["langpont", "doctor", "--only", "lost-commits"]
    assert app.test_cli_runner().invoke(args=command).output.startswith("ok")
    go_back(app, before)
    result = app.test_cli_runner().invoke(args=command)
    assert (result.exit_code, "lacks 1 revocations" in result.output) == (1, True)
    after_an_outage(app)
    assert app.test_cli_runner().invoke(args=command).output.startswith("ok")


def sign_out(app: Flask, client: Any) -> None:
    client.post("/logout")


def sign_out_without_the_database(app: Flask, client: Any) -> None:
    with switched_off(app, "database"):
        client.post("/logout")


def use_up_its_life(app: Flask, client: Any) -> None:
    age_row(app, client.digest, 86_400_000 * 40)
    parts(app).backend.memory.forget(client.digest)


def be_idle(app: Flask, client: Any) -> None:
    age_row(app, client.digest, 86_400_000 * 2, "idle_expires_at")


def sign_in_over(app: Flask, client: Any) -> None:
    client.post("/login/8")


def be_purged(app: Flask, client: Any) -> None:
    client.post("/logout")
    with parts(app).backend.database.engine.begin() as connection:
        connection.execute(METADATA.tables["langpont_sessions"].delete())


def change_elsewhere(app: Flask, client: Any) -> None:
    client.post("/set", json={"user_role": "admin"})
    client.post("/set", json={"user_role": "user"})


@pytest.mark.parametrize(
    "happens",
    [sign_out, sign_out_without_the_database, use_up_its_life, be_idle, sign_in_over, be_purged, change_elsewhere],
)
def test_i34_nothing_is_counted_while_the_database_keeps_what_it_confirmed(
    make_app: MakeApp, primary: Valkey, tmp_path: Path, happens: Any
) -> None:
    """Nothing is counted by the host where it happens, nor by another one, before or after an outage."""
    here, there = make_app(), make_app(JOURNAL=str(tmp_path / "there.sqlite3"))
    client = sign_in(here)
    assert who(there, client) == "7"
    happens(here, client)
    for _ in range(2):
        for app in (here, there):
            who(app, client)
            after_an_outage(app)
    assert lost_commits(here, there) == 0


def test_i34_a_postgresql_that_comes_back_without_its_last_commits(
    make_app: MakeApp, primary: Valkey, tmp_path: Path
) -> None:
    """Its data directory is one of a moment before, as that of a standby that lagged."""
    with Postgres(tmp_path / "postgres") as server:
        app = make_app(DATABASE_URL=server.url, HEALTH_INTERVAL=0.2)
        out, admin, kept = sign_in(app, "8"), an_admin(app), sign_in(app, "9")
        wait_for_monitors()
        data, copy = tmp_path / "postgres" / "data", tmp_path / "copy"
        server.stop()
        shutil.copytree(data, copy)
        server.start()
        wait_until(lambda: not parts(app).health.open_stores(), "the database to be in use")
        assert out.post("/logout").status_code == 200
        assert admin.post("/set", json={"user_role": "user"}).status_code == 200
        wait_for_monitors()
        server.kill()
        shutil.copytree(copy, data, dirs_exist_ok=True)
        wait_until(lambda: bool(parts(app).health.open_stores()), "the database to be away")
        server.start()
        wait_until(lambda: not parts(app).health.open_stores(), "the database to be in use")
        wait_until(lambda: not row(app, out.digest)["live"], "the sign-out to be told again")
        with resting(app):
            pass_time(app, primary, admin.digest, parts(app).settings.lease_terms.verify_ms + 1)
            assert (role(app, admin), who(app, admin), who(app, kept), who(app, out)) == (None, "7", "9", None)
        assert lost_commits(app) == 2
        assert decode(row(app, admin.digest)["payload"].encode())["_user_id"] == "7"
        close(app)
