"""Differences between databases and drivers: the tables, and what is said about what is not in them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import sqlalchemy as sa

from flask_langpont_session.stores.sql import dialects
from flask_langpont_session.stores.sql.dialects import (
    DRIVERS,
    REFUSED,
    advice,
    arguments,
    limits_for,
    place_of,
)


def test_a_driver_that_was_never_run_is_named() -> None:
    """Drivers that were run are known; nothing is said about these."""
    said = advice("mysqlconnector")
    assert said is not None
    assert "'mysqlconnector'" in said and "pymysql" in said and "docs/databases.md" in said
    assert [advice(driver) for driver in DRIVERS] == [None] * len(DRIVERS)
    assert not REFUSED.keys() & DRIVERS.keys()


NAMES = {"pysqlite": "sqlite:///", "psycopg": "+psycopg://", "psycopg2": "+psycopg2://"}


@pytest.mark.parametrize("driver", [*DRIVERS, *REFUSED])
def test_the_docs_have_every_driver_of_the_tables(driver: str) -> None:
    """The page says how each driver was run, or that it is refused."""
    page = (Path(__file__).parents[4] / "docs" / "databases.md").read_text(encoding="utf-8")
    [row, *_] = [
        line for line in page.splitlines() if line.startswith("|") and NAMES.get(driver, f"+{driver}:") in line
    ]
    assert ("refused" in row) is (driver in REFUSED)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql+psycopg://app:secret@db.example/app", "postgresql, database 'app' on db.example"),
        ("postgresql+psycopg://app:secret@[::1]:6432/app?password=secret", "postgresql, database 'app' on ::1:6432"),
        ("postgresql+psycopg:///app?host=/run/postgresql", "postgresql, database 'app' on /run/postgresql"),
        ("postgresql+psycopg:///app?host=a:5432&host=b", "postgresql, database 'app' on a:5432, b"),
        ("postgresql+psycopg://", "postgresql, database and host as its driver finds them"),
        ("mysql+pymysql://app:secret@h:3306/app", "mysql, database 'app' on h:3306"),
        ("sqlite:////srv/sessions.sqlite3", "sqlite, /srv/sessions.sqlite3"),
        ("sqlite://", "sqlite, in memory"),
    ],
)
def test_a_database_is_named_without_its_password(url: str, place: str) -> None:
    """The name has what an operator looks for: the engine, the host, the database."""
    assert place_of(sa.make_url(url)) == place


def test_what_a_url_says_itself_is_kept() -> None:
    """Ours is a default."""
    url = sa.make_url("mysql+pymysql://app@h/db?charset=utf8mb3&read_timeout=7")
    assert arguments(url) == {"connect_timeout": 2}
    assert arguments(sa.make_url("postgresql+psycopg://h/db"))["keepalives"] == 1
    assert arguments(sa.make_url("mssql+pyodbc://h/db")) == {}


@pytest.mark.parametrize(("ms", "seconds"), [(200, 1), (1999, 1), (2000, 1), (8000, 4)])
def test_a_lock_is_waited_for_half_as_long_where_that_can_be_said(ms: int, seconds: int) -> None:
    """MariaDB counts such waits in whole seconds."""
    connection = MagicMock()
    with limits_for("mysql", 100).around(connection, ms):
        pass
    execute = connection.connection.driver_connection.cursor().execute
    (setting,), (restored,) = (call.args for call in execute.call_args_list)
    assert "max_statement_time = 0.1 " in restored
    assert f"innodb_lock_wait_timeout = {seconds} " in setting
    assert f"/*M!, max_statement_time = {ms / 1000} */" in setting
    assert f"/*!80000 , max_execution_time = {ms} */" in setting


def test_another_database_is_told_nothing() -> None:
    """It is bounded by the wait for it alone."""
    limits = limits_for("mssql", 100)
    with limits.around(SimpleNamespace(), 100):  # type: ignore[arg-type]
        limits.inside(SimpleNamespace(), 100)  # type: ignore[arg-type]
    assert limits.lets_stand_alone


def test_mysql_is_named_as_one_that_was_never_run(caplog: pytest.LogCaptureFixture) -> None:
    """A URL does not tell it from MariaDB: the first connection does, once."""
    engine = sa.create_engine("mysql+pymysql://h/db")
    dialects.name_mysql(engine)
    server: Any = engine.dialect
    connect = engine.pool.dispatch.connect
    look = next(iter(reversed(list(connect))))
    for version, is_mariadb in ((None, False), ((11, 8, 9), True)):
        server.server_version_info, server.is_mariadb = version, is_mariadb
        look(None, None)
    assert caplog.text == ""
    server.server_version_info, server.is_mariadb = (8, 4, 3), False
    for _ in range(2):
        look(None, None)
    assert caplog.text.count("is MySQL 8.4.3; this package was never run with that") == 1


@pytest.mark.parametrize(
    ("connection", "closed"),
    [
        (SimpleNamespace(closed=1), True),  # psycopg2
        (SimpleNamespace(closed=False), False),
        (SimpleNamespace(open=False), True),  # PyMySQL
        (SimpleNamespace(open=True), False),
        (SimpleNamespace(), False),
    ],
)
def test_a_driver_may_know_that_a_connection_has_ended(connection: Any, closed: bool) -> None:
    """Each says it in its own way."""
    assert dialects.is_closed(connection) is closed
