"""Statements over the driver's cursor. SQLAlchemy compiles each of them once; to have it run them takes four times as
long as SQLite does, and what it makes of parameters and rows is not needed with the drivers that we know.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection, CursorResult, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Executable

from .dialects import DRIVERS


class Fetched(NamedTuple):
    """The result of a statement.

    :param row: the first one, in the order of the statement's columns; None: there is none.
    :param changed: how many rows were.
    """

    row: Sequence[Any] | None
    changed: int


@lru_cache(maxsize=256)
def _compiled(dialect: Dialect, statement: Any) -> tuple[str, Sequence[str] | None, Mapping[str, Any]] | None:
    """Return the text for the driver, the order of its parameters (None: by name), and those that the text brings.
    None: the text depends on the length of a list."""
    compiled = statement.compile(dialect=dialect)
    if "POSTCOMPILE" in compiled.string:
        return None
    return compiled.string, compiled.positiontup, compiled.params


def run(connection: Connection, statement: Executable, values: Mapping[str, Any]) -> Fetched:
    """Run a statement of which at most one row is wanted.

    :raises sqlalchemy.exc.DBAPIError: as the connection itself raises it.
    """
    compiled = _compiled(connection.dialect, statement) if connection.dialect.driver in DRIVERS else None
    if compiled is None:
        return _outcome(connection.execute(statement, values))
    text, order, brought = compiled
    parameters = {**brought, **values}
    return execute(connection, text, parameters if order is None else tuple([parameters[name] for name in order]))


def execute(connection: Connection, text: str, parameters: Any = ()) -> Fetched:
    """Run a statement that is written for the driver, and return its first row; see :func:`run`."""
    if _is_watched(connection):
        return _outcome(connection.exec_driver_sql(text, parameters))
    dialect, cursor = connection.dialect, connection.connection.cursor()
    try:
        cursor.execute(text, parameters)
        return Fetched(cursor.fetchone() if cursor.description else None, cursor.rowcount)
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, connection.connection, cursor):
            connection.invalidate(error)
        known: Any = DBAPIError.instance(text, None, error, dialect.loaded_dbapi.Error, True, dialect=dialect)
        raise known from error
    finally:
        cursor.close()


def _outcome(result: CursorResult[Any]) -> Fetched:
    return Fetched(result.first() if result.returns_rows else None, result.rowcount)


def _is_watched(connection: Connection) -> bool:
    """Return whether statements are logged or listened to: then SQLAlchemy has to run them."""
    engine: Any = connection.engine
    listeners = engine.dispatch.before_cursor_execute or engine.dispatch.after_cursor_execute
    return bool(listeners or engine.dialect.dispatch.handle_error) or engine.logger.isEnabledFor(logging.INFO)
