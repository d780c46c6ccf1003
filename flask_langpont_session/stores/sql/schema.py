"""The two tables: whether they are there, and making them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from ...support.logs import fields
from . import tables as sql
from .engines import PATIENT_SECONDS, Connections
from .errors import lacks_tables

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
