"""The tables as a whole: whether they are there, making them, and deleting what no session needs any more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.exc import SQLAlchemyError

from ...support.logs import fields
from . import tables as sql
from .dialects import lacks_file
from .engines import PATIENT_SECONDS, Connections
from .errors import lacks_tables

if TYPE_CHECKING:
    from .calls import Calls

log = logging.getLogger(__name__)


class Schema:
    """The tables of one database. Nothing here is bounded in time.

    :param may_make: asked when a call finds that tables are missing: whether they are made then.
    :ivar was_there: whether all of it was there once, as far as this process knows.
    """

    def __init__(self, connections: Connections, may_make: Callable[[], bool]) -> None:
        self.was_there = False
        self._connections = connections
        self._may_make = may_make

    def create(self) -> None:
        """Create the tables that are missing."""
        # Several workers start at once, and none of them may fail because another was first. Where each table is a
        # transaction of its own (MySQL), that may happen with each.
        for left in range(len(sql.METADATA.tables), -1, -1):
            try:
                with self._connections.patience(PATIENT_SECONDS), self._connections.defining() as connection:
                    return sql.metadata_for(connection.dialect).create_all(connection)
            except SQLAlchemyError:
                if not left:
                    raise

    def missing(self) -> list[str]:
        """Return the names of the tables that are not there."""
        with self._connections.reading() as connection:
            there = set(sa.inspect(connection).get_table_names())
        return [name for name in sql.METADATA.tables if name not in there]

    def definitions(self) -> list[str]:
        """Return the statements that :meth:`create` would run. Runs none, and makes no file of SQLite."""
        if lacks_file(self._connections.engine.url):
            return _definitions(self._connections.engine.dialect, there=())
        with self._connections.reading() as connection:
            return _definitions(connection.dialect, there=sa.inspect(connection).get_table_names())

    def can_mend(self, error: Exception) -> bool:
        """Return whether a call failed because tables are missing that may be made."""
        return lacks_tables(error) and self._may_make()

    def mend(self) -> None:
        """Make the tables that a call did not find. A failure is only logged: the call says by itself what it lacks."""
        try:
            self.create()
        except SQLAlchemyError as error:
            cause = type(error).__name__
            log.warning(
                "the session tables are not there, and cannot be made: %s",
                cause,
                extra=fields("tables_not_made", cause=cause),
            )
        else:
            log.info("the session tables were not there, and were made", extra=fields("tables_made"))


def _definitions(dialect: Dialect, there: Collection[str]) -> list[str]:
    """Return the statements that make the tables, but for those that are there."""
    made: list[str] = []
    connection = MockConnection(dialect, lambda it, *_: made.append(str(it.compile(dialect=dialect)).strip()))
    metadata = sql.metadata_for(dialect)
    lacking = [table for table in metadata.sorted_tables if table.name not in there]
    metadata.create_all(connection, tables=lacking, checkfirst=False)
    return made


class Upkeep:
    """Makes the tables, and deletes rows for good. Everything else leaves the row of a session that has ended where it
    is: the row is what says so.

    :param calls: run it.
    :param schema: of the same database.
    """

    def __init__(self, calls: Calls, schema: Schema) -> None:
        self._calls = calls
        self._schema = schema

    def create_tables(self) -> None:
        """Create the tables that are missing. Not bounded in time."""
        try:
            self._schema.create()
        except Exception as error:
            raise self._calls.translated(error) from None
        self._schema.was_there = True

    def definitions(self) -> list[str]:
        """Return the statements that :meth:`create_tables` would run. Runs none, and makes no file of SQLite."""
        return self._calls.patiently(self._schema.definitions, writing=False)

    def missing_tables(self) -> list[str]:
        """Return the names of the tables that are not there."""
        return self._calls.patiently(self._schema.missing, writing=False)

    @property
    def had_tables(self) -> bool:
        """Return whether the tables were there once, as far as this process knows."""
        return self._schema.was_there

    def purge(self, grace_ms: int, limit: int = 1000) -> int:
        """Delete rows whose life in all ended longer than `grace_ms` ago. Return how many: `limit` means: again."""

        def delete(connection: Connection) -> int:
            digests = connection.execute(sql.SELECT_OLD, {"ms": grace_ms, "most": limit}).scalars().all()
            return connection.execute(sql.DELETE, {"digests": digests}).rowcount if digests else 0

        return self._calls.write(delete, is_patient=True)

    def erase(self, user_id: str) -> None:
        """Leave nothing of a user. Only for one whose cookies no browser has: a row is what says that a session has
        ended."""

        def delete(connection: Connection) -> None:
            connection.execute(sql.DELETE_OF_USER, {"user": user_id})
            connection.execute(sql.FORGET_USER, {"user": user_id})

        self._calls.write(delete, is_patient=True)
