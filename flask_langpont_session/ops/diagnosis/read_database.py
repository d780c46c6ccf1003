"""Reads the facts about the database. Whether it can be written to is tried in a transaction that takes everything
back, and no table is made."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from ...policy.errors import StoreError
from ...stores.sql import tables as sql
from ...stores.sql.database import Database as Store
from ...stores.sql.dialects import lacks_file, place_of
from .facts import Column, Database, Transport
from .findings import Unknown
from .read_host import file_at
from .read_redis import PATIENCE, end_of, quickest

_LOCAL = ("", "localhost", "127.0.0.1", "::1")
_IS_THERE_TLS = bytes.fromhex("00000008 04d2162f")
"""PostgreSQL's SSLRequest."""

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


def read_database(store: Store) -> Database | Unknown:
    """Return the database, or why it does not answer."""
    url = store.engine.url
    path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    if lacks_file(url):
        return Unknown(
            f"there is no file {path}; in a new installation run `flask langpont init-db` as the workers' user; if it "
            "was moved or deleted, bring it back: an empty one signs every user out"
        )
    try:
        reader = _DatabaseReader(store, path)
        found = store.calls.patiently(reader.database, PATIENCE, writing=False)
    except StoreError as error:
        return Unknown(str(error), error)
    if len(found.tables) < len(sql.METADATA.tables):
        return found  # a transaction that writes would make them, in tests
    try:
        store.probe(PATIENCE)
    except StoreError as error:
        return replace(found, refusal=error)
    return found


class _DatabaseReader:
    def __init__(self, store: Store, path: Path | None) -> None:
        self._store = store
        self._path = path
        self._backend = store.engine.url.get_backend_name()
        if self._backend == "mariadb":
            self._backend = "mysql"

    def database(self) -> Database:
        took, clock = quickest(self._now)
        with self._store.connections.reading() as connection:
            tables, indexes = _tables(connection)
        return Database(
            place=place_of(self._store.engine.url),
            backend=self._backend,
            took=took,
            clock=clock,
            transport=self._transport(),
            tables=self._with_collations(tables),
            indexes=indexes,
            refusal=None,
            missing=self._missing(),
            file=None if self._path is None else file_at(self._path),
        )

    def _now(self) -> float:
        with self._store.connections.reading() as connection:
            return float(connection.execute(sa.select(sql.now_ms())).scalar_one()) / 1000

    def _ask(self, statement: str, **values: Any) -> list[Any] | Unknown:
        """Return the rows; in a transaction of its own, because one that is refused ends it."""
        try:
            with self._store.connections.reading() as connection:
                return list(connection.execute(sa.text(statement), values).all())
        except SQLAlchemyError as error:
            cause = type(getattr(error, "orig", None) or error).__name__
            return Unknown(f"the database does not answer that ({cause})")

    # -- what differs from database to database ------------------------------------------------------------------

    def _missing(self) -> tuple[str, ...] | Unknown:
        if self._path is not None:
            return ()
        if self._backend == "postgresql":
            rows = self._ask(
                "SELECT p.name || ' on ' || t.name FROM unnest(CAST(:tables AS text[])) AS t(name), "
                "unnest(CAST(:rights AS text[])) AS p(name) "
                "WHERE to_regclass(t.name) IS NOT NULL AND NOT has_table_privilege(t.name, p.name)",
                tables=list(sql.METADATA.tables),
                rights=list(_RIGHTS),
            )
            return rows if isinstance(rows, Unknown) else tuple(name for (name,) in rows)
        has = self._mysql_rights()
        return has if isinstance(has, Unknown) else tuple(right for right in _RIGHTS if right not in has)

    def _mysql_rights(self) -> set[str] | Unknown:
        """Return the user's own rights; those that come by a role are not seen."""
        if self._backend != "mysql":
            return Unknown(f"what users of {self._backend} may do is not known here")
        rows = self._ask(
            "SELECT privilege_type FROM information_schema.user_privileges UNION "
            "SELECT privilege_type FROM information_schema.schema_privileges "
            "WHERE DATABASE() LIKE table_schema UNION "
            "SELECT privilege_type FROM information_schema.table_privileges "
            "WHERE table_schema = DATABASE() AND table_name = :table",
            table=sql.SESSIONS.name,
        )
        return rows if isinstance(rows, Unknown) else {str(name) for (name,) in rows}

    def _with_collations(self, tables: Mapping[str, Mapping[str, Column]]) -> Mapping[str, Mapping[str, Column]]:
        if self._backend != "mysql":
            return tables
        rows = self._ask(
            "SELECT table_name, column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
        )
        found = {} if isinstance(rows, Unknown) else {(table, column): str(name) for table, column, name in rows}
        compared = {(table, column) for table in tables for column in ("digest", "user_id", "successor")}
        return {
            table: {
                name: column._replace(collation=found.get((table, name)) if (table, name) in compared else None)
                for name, column in columns.items()
            }
            for table, columns in tables.items()
        }

    # -- connections ---------------------------------------------------------------------------------------------

    def _transport(self) -> Transport | Unknown:
        with self._store.connections.reading() as lent:
            connection = lent.connection.driver_connection
        if self._backend == "postgresql":
            return _libpq(connection)
        if self._backend != "mysql":
            return Unknown(f"how {self._backend} is connected to is not known here")
        rows = self._ask("SHOW STATUS LIKE 'Ssl_cipher'")
        if isinstance(rows, Unknown):
            return rows
        url, context = self._store.engine.url, getattr(connection, "ctx", None)
        unsaid = Unknown("the driver does not say whether it checks the certificate")
        is_known = isinstance(context, ssl.SSLContext)
        return Transport(
            is_local=(url.host or "") in _LOCAL,
            is_encrypted=bool(rows and rows[0][1]),
            checks_certificate=context.verify_mode == ssl.CERT_REQUIRED if context and is_known else unsaid,
            checks_name=context.check_hostname if context and is_known else unsaid,
            has_credentials=bool(url.password),
            ends_at=end_of(getattr(connection, "_sock", None)),
        )


def _libpq(connection: Any) -> Transport:
    """Return the transport of psycopg, or psycopg2: a connection says what was asked for, wherever that stands."""
    info = connection.info
    asked = info.get_parameters() if hasattr(info, "get_parameters") else info.dsn_parameters
    is_encrypted = info.ssl_in_use if hasattr(info, "ssl_in_use") else connection.pgconn.ssl_in_use
    mode, host = asked.get("sslmode", "prefer"), info.host or ""
    is_checked, place = mode in ("verify-ca", "verify-full"), asked.get("hostaddr") or host
    return Transport(
        is_local=host in _LOCAL or host.startswith("/"),
        is_encrypted=bool(is_encrypted),
        checks_certificate=is_checked,
        checks_name=mode == "verify-full",
        has_credentials=bool(info.password),
        ends_at=_end_of_certificate(place, info.port, asked.get("sslrootcert")) if is_checked else None,
    )


def _end_of_certificate(host: str, port: int, authorities: str | None) -> float | None:
    """Return :attr:`.Transport.ends_at` of a PostgreSQL whose certificate libpq, which does not show it, has checked.

    :param authorities: sslrootcert.
    """
    default = Path("~/.postgresql/root.crt").expanduser()
    with suppress(OSError):
        context = ssl.create_default_context(cafile=None if authorities == "system" else authorities or default)
        context.check_hostname = False
        with socket.create_connection((host, port), PATIENCE) as plain:
            plain.sendall(_IS_THERE_TLS)
            plain.recv(1)
            with context.wrap_socket(plain) as wire:
                return end_of(wire)
    return None


def _tables(connection: Connection) -> tuple[dict[str, dict[str, Column]], dict[str, frozenset[tuple[str, ...]]]]:
    inspector = sa.inspect(connection)
    there = [name for name in sql.METADATA.tables if inspector.has_table(name)]
    tables = {name: {str(one["name"]): _column(one["type"]) for one in inspector.get_columns(name)} for name in there}
    indexes = {
        name: frozenset(tuple(str(column) for column in one["column_names"]) for one in inspector.get_indexes(name))
        for name in there
    }
    return tables, indexes


def _column(kind: Any) -> Column:
    is_small = isinstance(kind, sa.Integer) and not isinstance(kind, sa.BigInteger)
    is_truth = type(kind).__name__ in ("TINYINT", "BIT")  # how MySQL and others keep it
    return Column(is_wide=False if is_small and not is_truth else None, length=getattr(kind, "length", None))
