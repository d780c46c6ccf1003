"""The rows of the database, where auth is encrypted.

Each change of a row writes its whole payload, at a version that is known before: by compare-and-set it is one more than
that of the row before. So all values of a row belong to its version, and none of an older one can be put back beside
them.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy.engine import Engine

from ..policy.categories import AUTH
from ..policy.values import (
    AuthRow,
    ChangedRows,
    Created,
    ErrorClass,
    Fields,
    Found,
    Limit,
    Position,
    StoreError,
    UserSession,
)
from ..stores.sql.calls import Calls
from ..stores.sql.database import Database, Described
from ..stores.sql.devices import Devices
from ..stores.sql.errors import NAME
from ..stores.sql.session_limits import LimitedSignIns
from .cipher import FORMAT
from .values import Values, is_damaged

_BEGIN, _END = b'{"@sealed":"', b'"}'
"""Around the base64 of a sealed value: the payload is JSON. No plain value looks so: the serializer wraps an
application's dict whose only key begins with "@"."""


class SealedRows:
    """Rows as this process knows them, and as the database has them."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def payload(self, digest: str, payload: Fields, version: int) -> Fields:
        """As the database is to have it."""
        sealed = self._values.wires(digest, AUTH, payload, version)
        return {key: _text_of(value) for key, value in sealed.items()}

    def open(self, row: AuthRow) -> AuthRow:
        """As this process knows it. The dead are dead also when their payload is damaged.

        :raises StoreError: one of the values is not what was written for this row and version.
        """
        found = {key: _from_text(value) for key, value in row.payload.items()}
        # What ended a row has raised its version, and left its payload.
        for version in (row.version,) if row.live else (row.version - 1, row.version):
            payload = self._values.opened(row.digest, AUTH, found, version)
            if not any(map(is_damaged, payload.values())):
                return replace(row, payload=payload)
        if row.live:
            raise StoreError(NAME, ErrorClass.DATA, "UnreadablePayload")
        return replace(row, payload={})

    def readable(self, rows: Sequence[AuthRow]) -> list[AuthRow]:
        """All but the damaged."""
        opened = []
        for row in rows:
            with suppress(StoreError):
                opened.append(self.open(row))
        return opened


def _text_of(value: bytes) -> bytes:
    return _BEGIN + b64encode(value) + _END if value[:1] == FORMAT else value


def _from_text(value: bytes) -> bytes:
    if not (value.startswith(_BEGIN) and value.endswith(_END)):
        return value
    with suppress(ValueError):
        return b64decode(value[len(_BEGIN) : -len(_END)], validate=True)
    return FORMAT  # and nothing behind it


class SealedDatabase(Database):
    """A database whose payloads are sealed.

    :param values: seal them.
    """

    def __init__(self, values: Values, engine: Engine, **options: Any) -> None:
        super().__init__(engine, **options)
        self._rows = SealedRows(values)
        self.limited = SealedSignIns(self._rows, self._repeated, self.calls)
        self.devices = SealedDevices(self._rows, self.calls)

    def _opened(self, row: AuthRow | None) -> AuthRow | None:
        return None if row is None else self._rows.open(row)

    def load(self, digest: str, **options: Any) -> AuthRow | None:
        return self._opened(super().load(digest, **options))

    def _idle_ms_of(self, row: AuthRow, idle_ms: int) -> int:
        return super()._idle_ms_of(self._rows.open(row), idle_ms)

    def create(self, digest: str, *, user_id: str | None, payload: Fields, **options: Any) -> Created:
        sealed = self._rows.payload(digest, payload, 1)
        try:
            created = super().create(digest, user_id=user_id, payload=sealed, **options)
        except StoreError as error:
            if (row := self._repeated(error, digest, user_id, payload, options)) is not None:
                return Created(row)
            raise
        return created._replace(row=self._rows.open(created.row))

    def _repeated(
        self, error: StoreError, digest: str, user_id: str | None, payload: Fields, options: Mapping[str, Any]
    ) -> AuthRow | None:
        """The row that is there already, if it is the one that was to be made: its text is another one each time."""
        if error.error_class is not ErrorClass.DATA:
            return None
        row = self.load(digest, idle_ms=0, timeout=options.get("timeout"))
        is_same = row is not None and (row.version, row.user_id, row.payload) == (1, user_id, payload)
        return row if is_same else None

    def adopt(self, digest: str, *, payload: Fields, **options: Any) -> AuthRow | None:
        return self._opened(super().adopt(digest, payload=self._rows.payload(digest, payload, 1), **options))

    def update(self, digest: str, *, seen: int, payload: Fields, **options: Any) -> AuthRow | None:
        sealed = self._rows.payload(digest, payload, seen + 1)
        return self._opened(super().update(digest, seen=seen, payload=sealed, **options))

    def raise_version(self, digest: str, *, version: int, payload: Fields, **options: Any) -> bool:
        sealed = self._rows.payload(digest, payload, version)
        return super().raise_version(digest, version=version, payload=sealed, **options)

    def regenerate(self, digest: str, *, successor: str, payload: Fields, **options: Any) -> AuthRow | None:
        sealed = self._rows.payload(successor, payload, 1)
        return self._opened(super().regenerate(digest, successor=successor, payload=sealed, **options))

    def sessions_of(self, user_id: str, timeout: float | None = None) -> list[AuthRow]:
        return self._rows.readable(super().sessions_of(user_id, timeout))

    def load_many(self, digests: Sequence[str], timeout: float) -> Found:
        found = super().load_many(digests, timeout)
        rows = {row.digest: row for row in self._rows.readable(list(found.rows.values()))}
        return Found(rows, found.damaged | (found.rows.keys() - rows.keys()))

    def describe(self, digest: str, timeout: float) -> Described | None:
        described = super().describe(digest, timeout)
        return None if described is None else described._replace(row=self._rows.open(described.row))

    def changed_since(self, ms_ago: int, after: Position | None = None, limit: int = 200) -> ChangedRows:
        changes = super().changed_since(ms_ago, after, limit)
        return changes._replace(rows=self._rows.readable(changes.rows))


class SealedDevices(Devices):
    """What users are shown of their sessions."""

    def __init__(self, rows: SealedRows, calls: Calls) -> None:
        super().__init__(calls)
        self._rows = rows

    def of_user(self, user_id: str, timeout: float | None = None) -> list[UserSession]:
        return [found._replace(row=self._opened(found.row)) for found in super().of_user(user_id, timeout)]

    def _opened(self, row: AuthRow) -> AuthRow:
        try:
            return self._rows.open(row)
        except StoreError:
            return replace(row, payload={})


class SealedSignIns(LimitedSignIns):
    """The same of users that may have so many sessions at a time."""

    def __init__(self, rows: SealedRows, repeated: Callable[..., AuthRow | None], calls: Calls) -> None:
        super().__init__(calls)
        self._rows = rows
        self._repeated = repeated

    def create(self, digest: str, *, limit: Limit, user_id: str, payload: Fields, **options: Any) -> Created | None:
        sealed = self._rows.payload(digest, payload, 1)
        try:
            created = super().create(digest, limit=limit, user_id=user_id, payload=sealed, **options)
        except StoreError as error:
            if (row := self._repeated(error, digest, user_id, payload, options)) is not None:
                return Created(row)
            raise
        return None if created is None else created._replace(row=self._rows.open(created.row))
