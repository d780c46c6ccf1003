"""The sessions of one user, as that user is shown them, names them and ends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..policy.devices import UserSession
from ..policy.health import DATABASE
from ..policy.records import Revoked
from .operations import Operation
from .parts import Parts
from .revocations import MOST_AT_ONCE, Revocations
from .scope import RequestScope


class Devices:
    """Asks the database: nothing of this is in Redis, or in a journal."""

    def __init__(self, parts: Parts, revocations: Revocations) -> None:
        self._database = parts.backend.database
        self._operations = parts.operations
        self._revocations = revocations

    def of_user(self, user_id: str, mine: str | None, scope: RequestScope) -> list[UserSession]:
        """The valid sessions of a user, without those that this host knows to be dead, oldest first.

        :param mine: digest of the session that asks; None: none does.
        :raises StoreError: the database does not answer.
        """
        operation = self._asked(self._operations.list, scope)
        rows: list[UserSession] = scope.ask(operation, self._database.devices.of_user, user_id)
        own = _followed(mine, {found.row.digest: found.successor for found in rows})
        valid = [found for found in rows if self._revocations.is_valid(found.row)]
        return [found._replace(is_mine=found.row.digest in own) for found in valid]

    def label(self, digest: str, scope: RequestScope) -> str | None:
        """The label of a session; None: it has none.

        :raises StoreError: the database does not answer.
        """
        label: str | None = scope.ask(self._asked(self._operations.list, scope), self._database.devices.label, digest)
        return label

    def set_label(self, digest: str, label: str | None, scope: RequestScope) -> None:
        """Give a session that lives a label; None: it has none from then on.

        :raises StoreError: the database does not answer.
        """
        scope.ask(self._asked(self._operations.save_row, scope), self._database.devices.set_label, digest, label)

    def revoke_others(self, user_id: str, mine: str, only: str | None, scope: RequestScope) -> Revoked:
        """End the other sessions of a user for ever. A session that is over itself ends none.

        :param mine: digest of the session that asks.
        :param only: digest of the one that is to end; None: all of them.
        :raises StoreError: the database does not answer: which there are is not known.
        """
        found = self.of_user(user_id, mine, scope)
        if not any(one.is_mine for one in found):
            return Revoked(durable=True, sessions=0)
        others = [one.row.digest for one in found if not one.is_mine and only in (None, one.row.digest)]
        parts = [others[first : first + MOST_AT_ONCE] for first in range(0, len(others), MOST_AT_ONCE)]
        durable = [self._revocations.end_by_device(part, scope) for part in parts]
        return Revoked(all(durable), len(others))

    @staticmethod
    def _asked(operation: Operation, scope: RequestScope) -> Operation:
        """:raises StoreError: the database is known not to answer."""
        if not scope.can(DATABASE, operation.way):
            raise scope.gave_up(DATABASE, "BreakerOpen")
        return operation


def _followed(digest: str | None, successors: Mapping[str, str | None]) -> Sequence[str]:
    """The digests under which a session went on: another request of the same browser may have given it another id."""
    names: list[str] = []
    while digest is not None:
        names.append(digest)
        digest = successors.get(digest)
    return names
