"""A database without tables: a cause of its own, said wherever an operator looks; and where they are made unasked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import alembic.autogenerate
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from flask import Flask

from devservers.constants import extended
from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import LangPontSession

from .conftest import PATIENT, add_views, close, on_sqlite, parts

TABLES = {"langpont_sessions", "langpont_users"}

Make = Callable[..., Flask]


@pytest.fixture
def make(primary: Valkey, database_url: str, tmp_path: Path) -> Iterator[Make]:
    """Yield a factory of applications as they are in production, on an empty database; ``DATABASE_URL=None``: on the
    default one."""
    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        app = Flask("app", instance_path=str(tmp_path))
        app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes")
        app.config.update({key: config.pop(key) for key in list(config) if key in ("TESTING", "DEBUG")})
        settings = {"REDIS_URL": primary.url, "DATABASE_URL": database_url, **PATIENT, **config}
        app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items()})
        extended(app)
        add_views(app)
        made.append(app)
        return app

    yield make
    for app in made:
        close(app)


def interface(app: Flask) -> LangPontSession:
    assert isinstance(app.session_interface, LangPontSession)
    return app.session_interface


def tables(app: Flask) -> set[str]:
    return set(sa.inspect(parts(app).backend.database.engine).get_table_names()) & TABLES


# -- where nothing makes them ------------------------------------------------------------------------------------------


@on_sqlite
def test_it_is_said_wherever_an_operator_looks(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Log, health page and readiness, until the tables were there once; nothing has to be restarted."""
    app = make()
    client: Any = app.test_client()
    ready = client.get("/healthz/ready")
    assert (ready.status_code, ready.json) == (503, {"status": "no tables"})
    assert ready.headers["Cache-Control"] == "no-store"
    report = client.get("/healthz").json
    assert (report["database"], report["logins"]) == ("no tables", False)
    refused = client.post("/login/7")
    assert refused.status_code == 503
    assert "init-db" not in refused.text  # for visitors
    [lost] = [line for line in caplog.text.splitlines() if "is lost for reads and writes: no tables (langpont_" in line]
    assert "is not there; in a new installation run `flask langpont init-db`; if a migration renamed" in lost
    assert "signs every user out" in lost
    assert tables(app) == set()
    interface(app).create_tables(app)
    assert tables(app) == TABLES
    wait_until(lambda: client.get("/healthz").json["database"] == "ok", "the database is used")
    assert client.get("/healthz/ready").status_code == 200
    assert client.post("/login/7").status_code == 200


@on_sqlite
def test_a_process_that_was_ready_stays_so(make: Make) -> None:
    """Tables that were there and are not are an outage, which all hosts have at once."""
    app = make(HEALTH_INTERVAL=0.05)
    with app.app_context():
        interface(app).create_tables()
    client: Any = app.test_client()
    assert client.get("/healthz/ready").status_code == 200
    with parts(app).backend.database.engine.begin() as connection:
        interface(app).metadata.drop_all(connection)
    wait_until(lambda: client.get("/healthz").json["database"] == "no tables", "it is noticed")
    assert client.get("/healthz/ready").status_code == 200


@on_sqlite
def test_a_database_that_does_not_answer_does_not_make_a_process_unready(make: Make, tmp_path: Path) -> None:
    """Without an answer, it is not known whether the database has tables."""
    client: Any = make(DATABASE_URL=f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite3'}").test_client()
    assert client.get("/healthz/ready").status_code == 200
    wait_until(lambda: client.get("/healthz").json["database"] == "unreachable", "it is noticed")
    assert client.get("/healthz/ready").status_code == 200


@on_sqlite
def test_in_debug_the_503_says_what_is_wrong(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the tables cannot be made, because the user of the database may not, the 503 says so in debug."""
    app = make(DEBUG=True)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise sa.exc.ProgrammingError("CREATE TABLE", {}, Exception("permission denied"))

    monkeypatch.setattr(interface(app).metadata, "create_all", refuse)
    client = app.test_client()
    assert client.get("/healthz/ready").status_code == 503
    with caplog.at_level(logging.INFO):
        refused = client.post("/login/7")
    assert refused.status_code == 503
    assert "the database has to decide about session['_user_id']" in [entry.getMessage() for entry in caplog.records]
    assert "In debug: the session database: no tables; run `flask langpont init-db`." in refused.text
    assert "It has to decide about session[&#39;_user_id&#39;], which names a user" in refused.text


# -- where they are made -----------------------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("config", [{"TESTING": True}, {"DEBUG": True}, {"DATABASE_URL": None}], ids=str)
def test_they_are_made_without_being_asked_for(
    make: Make, caplog: pytest.LogCaptureFixture, config: dict[str, Any]
) -> None:
    """Tables are made in debug, in testing and for the default file: the first sign-in of a new application works."""
    caplog.set_level(logging.INFO, "flask_langpont_session")
    app = make(**config)
    client: Any = app.test_client()
    assert client.post("/login/7").status_code == 200
    assert client.get("/who").json["user"] == "7"
    assert client.get("/healthz/ready").status_code == 200
    assert client.get("/healthz").json["database"] == "ok"
    assert tables(app) == TABLES
    assert "the session tables were not there, and were made" in caplog.text


@on_sqlite
def test_app_run_with_debug_counts(make: Make) -> None:
    """``app.run(debug=True)`` says it after the extension was set up."""
    app = make()
    app.debug = True
    assert app.test_client().post("/login/7").status_code == 200


# -- beside migrations of the application ------------------------------------------------------------------------------


def changes(app: Flask, metadata: Any, **options: Any) -> list[Any]:
    """Return what ``flask db migrate`` would write into a new revision."""
    with parts(app).backend.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata, **options})
        found: list[Any] = alembic.autogenerate.compare_metadata(context, metadata)
    return found


@pytest.fixture
def shop(make: Make) -> Iterator[tuple[Flask, sa.MetaData]]:
    """An application with a table of its own beside those of the sessions."""
    app = make()
    metadata = sa.MetaData()
    sa.Table("langpont_shop_orders", metadata, sa.Column("id", sa.Integer, primary_key=True))
    engine = parts(app).backend.database.engine
    metadata.create_all(engine)
    yield app, metadata
    metadata.drop_all(engine)


def test_left_out_they_are_not_dropped(shop: tuple[Flask, sa.MetaData]) -> None:
    """The recipe of docs/databases.md; without it the next revision ends every session."""
    app, metadata = shop
    interface(app).create_tables(app)

    def include_name(name: str | None, type_: str, parent_names: object) -> bool:
        return type_ != "table" or name not in LangPontSession.metadata.tables

    assert {change[0] for change in changes(app, metadata)} == {"remove_table", "remove_index"}
    assert changes(app, metadata, include_name=include_name) == []


def test_in_the_chain_of_the_application(shop: tuple[Flask, sa.MetaData]) -> None:
    """A revision makes the tables with ``langpont.metadata`` beside the application's own, and the next one has
    nothing to do."""
    app, metadata = shop
    both = [metadata, interface(app).metadata]
    assert {change[1].name for change in changes(app, both) if change[0] == "add_table"} == TABLES
    interface(app).create_tables(app)
    assert changes(app, both) == []
