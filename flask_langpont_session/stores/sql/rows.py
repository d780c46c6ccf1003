"""Rows of the database as values, and what a payload is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy.engine import Connection, Row

from ...policy.changes import Fields
from ...policy.errors import ErrorClass, StoreError
from ...policy.rows import AuthRow, ChangedRows, Found
from ..codec.plain import PLAIN, Codec
from . import tables as sql
from .cursor import run
from .errors import NAME

_from_text = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Rows:
    """Turns rows into values, and back.

    :param codec: of the payloads' values.
    """

    def __init__(self, codec: Codec = PLAIN) -> None:
        self._codec = codec

    def text(self, digest: str, payload: Fields, version: int) -> str:
        """Return the payload of a row: one JSON object of the encoded values, to be read by people as well.

        :param version: that the row has with it.
        """
        stored = self._codec.row_to_store(digest, payload, version)
        return msgspec.json.encode({key: msgspec.Raw(value) for key, value in stored.items()}).decode()

    def _payload(self, digest: str, text: str, version: int, *, live: bool) -> Fields | None:
        """Return the payload that a text stands for; None: it is damaged."""
        try:
            stored = {key: bytes(value) for key, value in _from_text(text).items()}
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return self._codec.row_from_store(digest, stored, version, live=live)

    def value(self, row: Sequence[Any], *, may_be_damaged: bool = False) -> AuthRow:
        """Return a row of a SELECT statement as a value. The dead are dead also when their payload is damaged.

        :param may_be_damaged: so are those that live, and have none then.
        :raises StoreError: of class DATA: the payload of one that lives cannot be read.
        """
        digest, user_id, version, is_live, text, *moments = row[:10]
        live = bool(is_live)  # not every driver has a type for truth
        payload = self._payload(digest, text, version, live=live)
        if payload is None and live and not may_be_damaged:
            raise StoreError(NAME, ErrorClass.DATA, "UnreadablePayload")
        return AuthRow(digest, user_id, version, live, payload or {}, *moments)

    def readable(self, rows: Iterable[Row[Any]]) -> Iterator[AuthRow]:
        """Yield all but the damaged: one of them must not keep all others from being listed."""
        for row in rows:
            with suppress(StoreError):
                yield self.value(row)

    def found(self, rows: Sequence[Row[Any]]) -> Found:
        """Return the rows as values, and which of them cannot be read."""
        read = {row.digest: row for row in self.readable(rows)}
        return Found(read, frozenset(row.digest for row in rows).difference(read))

    def changes(self, rows: Sequence[Row[Any]], limit: int) -> ChangedRows:
        """Return a part of the changed rows; the damaged are left out, but not forgotten: it goes on after them."""
        reached = (rows[-1].updated_at, rows[-1].digest) if len(rows) == limit else None
        return ChangedRows(list(self.readable(rows)), reached)

    def one(self, connection: Connection, digest: str) -> AuthRow | None:
        """Return the row of a session, or None."""
        row = run(connection, sql.SELECT_ONE, {"key": digest}).row
        return None if row is None else self.value(row)

    def inserted(self, connection: Connection, values: Mapping[str, Any]) -> AuthRow | None:
        """Insert a row of version 1, and return it. Of it only the user's epoch and the time are asked: the rest is
        what was written."""
        if not connection.dialect.insert_returning:  # MySQL
            run(connection, sql.INSERT, values)
            return self.one(connection, values["key"])
        epoch, now = run(connection, sql.INSERT_RETURNING, values).row or ()
        expiries = now + values["idle_ms"], now + values["absolute_ms"]
        payload = self._payload(values["key"], values["fields"], 1, live=True) or {}
        return AuthRow(values["key"], values["user"], 1, True, payload, epoch, now, *expiries, now)

    def updated(self, connection: Connection, values: Mapping[str, Any]) -> AuthRow | None:
        """Update a row, and return it; None: there is none that may be changed so."""
        if connection.dialect.update_returning:  # not MySQL, nor MariaDB
            row = run(connection, sql.UPDATE_RETURNING, values).row
            return None if row is None else self.value(row)
        return self.one(connection, values["key"]) if run(connection, sql.UPDATE, values).changed else None
