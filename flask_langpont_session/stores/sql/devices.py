"""The sessions of a user as they are shown to that user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select
from sqlalchemy.engine import Connection, Row

from ...policy.devices import DescribedRow, Device
from . import tables as sql
from .calls import Calls
from .cursor import run
from .rows import Rows


class Devices:
    """Labels and networks of sessions, which only requests need that show or name devices.

    :param calls: run it.
    :param rows: read them.
    """

    def __init__(self, calls: Calls, rows: Rows) -> None:
        self._calls = calls
        self._rows = rows

    def of_user(self, user_id: str, timeout: float | None = None) -> list[DescribedRow]:
        """Return all rows of a user, oldest first, dead and expired ones too. A row whose payload cannot be read has
        none: its user may end it, and another host may be able to read it."""

        return self._described(sql.SELECT_DEVICES, {"user": user_id}, timeout)

    def all(self, since_ms: int, after: str, limit: int) -> list[DescribedRow]:
        """Return rows of valid sessions in the order of their digests, `limit` at most.

        :param since_ms: those that were in use since then, milliseconds since 1970.
        :param after: digest that the part before ended with.
        """
        values = {"ms": since_ms, "after": after, "most": limit}
        return self._described(sql.SELECT_ALL, values, None, is_patient=True)

    def count(self, since_ms: int) -> int:
        """Return how many sessions are valid, of those in use since a moment in milliseconds since 1970."""
        values = {"ms": since_ms}
        return int(self._calls.read(lambda c: c.execute(sql.COUNT_ALL, values).scalar_one(), is_patient=True))

    def _described(
        self, statement: Select[Any], values: Mapping[str, object], timeout: float | None, *, is_patient: bool = False
    ) -> list[DescribedRow]:
        def described(row: Row[Any]) -> DescribedRow:
            device = Device(row.label, row.network)
            return DescribedRow(self._rows.value(row, may_be_damaged=True), device, row.seen_at, row.successor)

        rows = self._calls.read(lambda c: c.execute(statement, values).all(), timeout, is_patient=is_patient)
        return [*map(described, rows)]

    def label(self, digest: str, timeout: float | None = None) -> str | None:
        """Return the label of a session; None: it has none."""
        label: str | None = self._calls.read(lambda c: c.execute(sql.SELECT_LABEL, {"key": digest}).scalar(), timeout)
        return label

    def set_label(self, digest: str, label: str | None, timeout: float | None = None) -> None:
        """Give a session that lives a label, under whatever digest it goes on; None: it has none from then on."""

        def name(connection: Connection) -> None:
            following: str | None = digest
            while following is not None:
                if connection.execute(sql.LABEL, {"key": following, "text": label}).rowcount:
                    return
                following = connection.execute(sql.SELECT_SUCCESSOR, {"key": following}).scalar()

        self._calls.write(name, timeout)

    def take_displaced(self, digest: str, timeout: float | None = None) -> bool:
        """Return whether the session's user ended it by signing in or on another device. True is said once."""
        return self._calls.write(lambda c: run(c, sql.TAKE_DISPLACED, {"key": digest}).changed > 0, timeout)

    def was_displaced(self, digest: str, timeout: float | None = None) -> bool:
        """Return the same, however often; but not if it ended for a limit as soon as it had begun."""
        return self._calls.read(lambda c: run(c, sql.SELECT_DISPLACED, {"key": digest}).row is not None, timeout)
