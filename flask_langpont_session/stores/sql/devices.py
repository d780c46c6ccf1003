"""The sessions of a user as they are shown to that user."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from ...policy.devices import DescribedRow, Device
from . import tables as sql
from .calls import Calls
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

        found = self._calls.read(lambda c: c.execute(sql.SELECT_DEVICES, {"user": user_id}).all(), timeout)
        return [
            DescribedRow(
                self._rows.value(row, may_be_damaged=True), Device(row.label, row.network), row.seen_at, row.successor
            )
            for row in found
        ]

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
