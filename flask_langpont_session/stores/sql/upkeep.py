"""The tables as a whole: making them, and deleting what no session needs any more. For operators; no request asks for
it."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from . import tables as sql
from .calls import Calls
from .schema import Schema


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

    def missing_tables(self) -> list[str]:
        """Return the names of the tables that are not there."""
        return self._calls.patiently(self._schema.missing, writing=False)

    @property
    def had_tables(self) -> bool:
        """Return whether the tables were there once, as far as this process knows."""
        return self._schema.was_there

    def count_old(self, grace_ms: int) -> int:
        """Return how many rows :meth:`purge` would delete, in all."""
        return self._calls.read(lambda c: c.execute(sql.COUNT_OLD, {"ms": grace_ms}).scalar_one(), is_patient=True)

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
