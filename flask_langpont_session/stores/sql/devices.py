"""What users are shown of the sessions in which they are signed in."""

from __future__ import annotations

from sqlalchemy.engine import Row

from ...policy.values import Device, StoreError, UserSession
from . import tables as sql
from .calls import Calls


class Devices:
    """The part of the rows that no request needs but those that show or name devices.

    :param calls: run it.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def of_user(self, user_id: str, timeout: float | None = None) -> list[UserSession]:
        """All rows of a user, oldest first, dead and expired ones too. One whose payload cannot be read has none: its
        user may end it, and another host may be able to read it.
        """

        def work() -> list[UserSession]:
            with self._calls.connections.reading() as connection:
                rows = connection.execute(sql.SELECT_DEVICES, {"user": user_id}).all()
            return list(map(_user_session, rows))

        return self._calls.in_request(work, timeout, writing=False)

    def label(self, digest: str, timeout: float | None = None) -> str | None:
        """The label of a session; None: it has none."""

        def work() -> str | None:
            with self._calls.connections.reading() as connection:
                label: str | None = connection.execute(sql.SELECT_LABEL, {"key": digest}).scalar()
                return label

        return self._calls.in_request(work, timeout, writing=False)

    def set_label(self, digest: str, label: str | None, timeout: float | None = None) -> None:
        """Give a session that lives a label, under whatever digest it goes on; None: it has none from then on."""

        def work() -> None:
            following: str | None = digest
            with self._calls.connections.writing() as connection:
                while following is not None:
                    values = {"key": following, "text": label}
                    if connection.execute(sql.LABEL, values).rowcount:
                        return
                    following = connection.execute(sql.SELECT_SUCCESSOR, {"key": following}).scalar()

        self._calls.in_request(work, timeout)


def _user_session(found: Row[tuple[object, ...]]) -> UserSession:
    try:
        row = sql.auth_row(found)
    except StoreError:  # one of them must not keep all others from being listed
        row = sql.row_without_payload(found)
    return UserSession(row, Device(found.label, found.network), found.seen_at, found.successor)
