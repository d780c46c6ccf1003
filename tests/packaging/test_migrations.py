"""The shipped migration makes what the package uses; an application's own Alembic revision calls it."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from devservers.servers import Postgres
from flask_langpont_session.migrations import v0001
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import METADATA, metadata_for
from tests.support import former_release

DIALECTS = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect, "mysql": mysql.dialect}


def offline(name: str, step: Callable[[Any], None]) -> list[str]:
    """Return what ``flask db upgrade --sql``, or ``downgrade --sql``, prints, a statement each, sorted."""
    printed = StringIO()
    context = MigrationContext.configure(dialect_name=name, opts={"as_sql": True, "output_buffer": printed})
    step(Operations(context))
    return sorted(statement.strip() for statement in printed.getvalue().split(";") if statement.strip())


def ddl(metadata: sa.MetaData, dialect: Any) -> list[str]:
    """Return all statements that a database gets, as Alembic prints them, sorted."""
    tables = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.tables.values()]
    indexes = [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.tables.values()
        for index in table.indexes
    ]
    return sorted(statement.strip().replace("\t", "    ") for statement in tables + indexes)


@pytest.mark.parametrize("name", DIALECTS)
def test_the_migration_makes_the_tables_of_the_package(name: str) -> None:
    """Each dialect gets the same statements as by ``flask langpont init-db``: the two cannot drift apart."""
    assert offline(name, v0001.upgrade) == ddl(METADATA, DIALECTS[name]())


@pytest.mark.parametrize("name", DIALECTS)
def test_only_mysql_is_told_another_collation(name: str) -> None:
    """MariaDB, which speaks the same dialect, has no collation of that name before 11.4."""
    dialect: Any = DIALECTS[name]()
    said, usual = ddl(metadata_for(dialect), dialect), ddl(METADATA, dialect)
    if name == "mysql":
        assert said == [line.replace("utf8mb4_nopad_bin", "utf8mb4_0900_bin") for line in usual] != usual
        dialect.is_mariadb = True
    assert ddl(metadata_for(dialect), dialect) == usual


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database."""
    if request.param == "sqlite":
        yield make_engine(f"sqlite:///{tmp_path / 'app.sqlite3'}", 1.0)
        return
    with Postgres(tmp_path / "postgres") as server:
        yield make_engine(server.url, 5.0)


def test_up_and_down_leave_nothing_behind(engine: sa.Engine, tmp_path: Path) -> None:
    """After the upgrade, which is the former release's, a session can be stored; after the downgrade, which is this
    one's, the database is as it was, and the former release may begin anew."""
    database = Database(engine, timeout=5.0)
    former = former_release.unpack(tmp_path / "former") / "flask_langpont_session" / "migrations" / "v0001.py"
    of_former = runpy.run_path(str(former))

    def run(step: Callable[[Any], None]) -> None:
        with engine.begin() as connection:
            step(Operations(MigrationContext.configure(connection)))

    for upgrade in (of_former["upgrade"], v0001.upgrade):
        run(upgrade)
        assert database.upkeep.missing_tables() == []
        created = database.create("d" * 43, user_id="7", payload={}, idle_ms=1000, absolute_ms=1000)
        assert created is not None and created.row.version == 1
        run(v0001.downgrade)
        assert sa.inspect(engine).get_table_names() == []
        assert set(database.upkeep.missing_tables()) == {"langpont_sessions", "langpont_users"}
    run(v0001.upgrade)
    run(of_former["downgrade"])
    assert sa.inspect(engine).get_table_names() == []
    database.close()
