"""The shipped migration makes what the package uses; an application's own Alembic revision calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from flask_langpont_session.migrations import v0001
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import METADATA, metadata_for

DIALECTS = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect, "mysql": mysql.dialect}


class Operations:
    """A stand-in for ``alembic.op``, with the four operations that the migrations use."""

    def __init__(self, connection: sa.Connection | None = None) -> None:
        self.metadata = sa.MetaData()
        self._connection = connection

    def create_table(self, name: str, *columns: Any) -> None:
        table = sa.Table(name, self.metadata, *columns)
        if self._connection:
            table.create(self._connection)

    def create_index(self, name: str, table_name: str, columns: list[str]) -> None:
        table = self.metadata.tables[table_name]
        index = sa.Index(name, *(table.c[column] for column in columns))
        if self._connection:
            index.create(self._connection)

    def drop_index(self, name: str, table_name: str) -> None:
        assert self._connection
        [index] = [index for index in self.metadata.tables[table_name].indexes if index.name == name]
        index.drop(self._connection)

    def drop_table(self, name: str) -> None:
        assert self._connection
        self._connection.execute(sa.schema.DropTable(self.metadata.tables[name]))


def ddl(metadata: sa.MetaData, dialect: Any) -> list[str]:
    """Return all statements that a database gets, sorted."""
    tables = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.tables.values()]
    indexes = [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.tables.values()
        for index in table.indexes
    ]
    return sorted(tables + indexes)


@pytest.mark.parametrize("name", DIALECTS)
def test_the_migration_makes_the_tables_of_the_package(name: str) -> None:
    """Each dialect gets the same statements as by ``flask langpont init-db``: the two cannot drift apart."""
    op = Operations()
    v0001.upgrade(op)
    assert ddl(op.metadata, DIALECTS[name]()) == ddl(METADATA, DIALECTS[name]())


@pytest.mark.parametrize("name", DIALECTS)
def test_only_mysql_is_told_another_collation(name: str) -> None:
    """MariaDB, which speaks the same dialect, has no collation of that name before 11.4."""
    dialect: Any = DIALECTS[name]()
    said, usual = ddl(metadata_for(dialect), dialect), ddl(METADATA, dialect)
    if name == "mysql":
        assert said == [line.replace("utf8mb4_nopad_bin", "utf8mb4_0900_bin") for line in usual] != usual
        dialect.is_mariadb = True
    assert ddl(metadata_for(dialect), dialect) == usual


def test_up_and_down_leave_nothing_behind(tmp_path: Path) -> None:
    """After the upgrade a session can be stored; after the downgrade the database is as it was."""
    engine = make_engine(f"sqlite:///{tmp_path / 'app.sqlite3'}", 1.0)
    database = Database(engine, timeout=1.0)
    with engine.begin() as connection:
        op = Operations(connection)
        v0001.upgrade(op)
    assert database.upkeep.missing_tables() == []
    created = database.create("d" * 43, user_id="7", payload={}, idle_ms=1000, absolute_ms=1000)
    assert created is not None and created.row.version == 1
    with engine.begin() as connection:
        op._connection = connection
        v0001.downgrade(op)
    assert sa.inspect(engine).get_table_names() == []
    assert set(database.upkeep.missing_tables()) == {"langpont_sessions", "langpont_users"}
    database.close()
