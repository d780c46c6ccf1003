"""The end of sessions, for ever: in the database, in Redis, on this host; a store without an answer is told later. Also
a user's list of sessions: to show, to label and to end them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import events
from ..events import EndedBy
from ..policy.categories import AUTH
from ..policy.copies import RecordRef
from ..policy.devices import DescribedRow
from ..policy.errors import StoreError
from ..policy.health import DATABASE
from ..policy.ids import SIGNED_IN
from ..policy.levels import Kept
from ..policy.plans import Revoked
from ..policy.rows import AuthRow, EndedSession, RowState
from .scope import LIST_SESSIONS, REVOKE, SAVE_ROW, RequestScope

if TYPE_CHECKING:
    from .repository import SessionRepository

T = TypeVar("T")

MOST_AT_ONCE = 200
"""The most sessions of a user that the request itself ends in the stores, in the time of any other call. The replay
ends the rest."""


class Part:
    """A part of a request's work over the stores, with its tools."""

    def __init__(self, repository: SessionRepository) -> None:
        backend = self._backend = repository.backend
        self._reports = backend.reports
        self._settings = backend.settings
        self._database = backend.database
        self._primary = backend.primary
        self._memory = backend.memory
        self._ended = backend.memory.ended
        self._clock = backend.clock
        self._journal_writer = repository.journal_writer
        self._verifier = repository.reads.verifier


class Revocations(Part):
    """Ends sessions of one digest, or all of a user.

    :param now_ms: milliseconds since 1970.
    """

    def __init__(self, repository: SessionRepository, now_ms: Callable[[], int]) -> None:
        super().__init__(repository)
        self._now_ms = now_ms
        self._delivered = repository.backend.journal.revocations.note_delivered

    def revoke(self, digest: str, scope: RequestScope, cause: EndedBy = EndedBy.APPLICATION) -> bool:
        """End a signed-in session for ever: in the database, in Redis, in this worker; a store without an answer is
        told later.

        :return: whether the database knows of the end already.
        """
        return self.end([digest], scope, cause) is Kept.DATABASE

    def end(
        self,
        digests: Sequence[str],
        scope: RequestScope,
        cause: EndedBy,
        *,
        keeps_data: bool = False,
        by_device: bool = False,
    ) -> Kept:
        """End signed-in sessions for ever, like :meth:`revoke`, and return the place where the end is kept.

        :param keeps_data: see :meth:`make_known`.
        :param by_device: the user ends the sessions on another device, and is to be told on the ended devices.
        """
        here = self._lived_here(digests)
        for digest in digests:
            self._backend.memory.kill(digest)
        dead = self._revoke_in_database(digests, scope, by_device=by_device)
        versions = dict.fromkeys(digests, 0) | {each.digest: each.version for each in dead or ()}
        place = self.make_known(versions, scope, in_database=dead is not None, keeps_data=keeps_data)
        lived = here if dead is None else [each.digest for each in dead if each.lived]
        self._reports.signed_out(lived, cause, in_database=dead is not None)
        return place

    def _lived_here(self, digests: Iterable[str]) -> list[str]:
        return [digest for digest in digests if not self._ended.is_dead(digest)]

    def _revoke_in_database(
        self, digests: Sequence[str], scope: RequestScope, *, by_device: bool
    ) -> list[EndedSession] | None:
        """Revoke sessions in the database, and return those dead by the call; None: the database does not answer."""
        return scope.attempt(REVOKE, self._database.revoke_many, digests, by_device=by_device)

    def make_known(
        self, versions: Mapping[str, int], scope: RequestScope, *, in_database: bool, keeps_data: bool = False
    ) -> Kept:
        """Tell the stores and this host that sessions are dead; a store without an answer is told later.

        :param versions: digest → version of the dead row; 0: unknown.
        :param keeps_data: the data is still to be carried to another id, and is deleted afterwards.
        """
        in_redis = self._tell_redis(versions, scope, in_database=in_database, keeps_data=keeps_data)
        is_gone = in_redis and not keeps_data
        waits = (
            bool(versions)
            and not (in_database and is_gone)
            and self._journal_writer.revoke(*versions, in_database=in_database, in_redis=is_gone, scope=scope)
        )
        if in_database:
            return Kept.DATABASE
        return Kept.JOURNAL if waits else Kept.REDIS if in_redis else Kept.NOWHERE

    def _tell_redis(
        self, versions: Mapping[str, int], scope: RequestScope, *, in_database: bool, keeps_data: bool = False
    ) -> bool:
        """Tell this host and Redis that sessions are dead, and return whether Redis has noted all."""
        by_shard: dict[str, list[tuple[str, int]]] = {}
        for digest, version in versions.items():
            self._backend.is_over(digest)
            shard = self._backend.health.locate(digest)
            by_shard.setdefault(shard, []).append((digest, max(version, int(in_database))))
        names = (AUTH,) if keeps_data else tuple(self._backend.table.categories)
        scope.spare_some()
        told = [self._verifier.write_tombstones(dead, scope, names) for dead in by_shard.values()]
        if in_database and all(told) and not keeps_data:
            self._delivered(*versions)
        return all(told)

    def is_valid(self, row: AuthRow) -> bool:
        """Return whether the session of a row that was just read lives, as far as this host knows."""
        if row.state is not RowState.VALID or self._ended.is_dead(row.digest) or self._ended.is_signed_out(row):
            return False
        overlay = self._journal_writer.overlay(RecordRef(row.digest, SIGNED_IN))
        is_out = row.user_id is not None and row.created_at <= overlay.users.get(row.user_id, -1)
        return not (overlay.revoked or is_out)

    def revoke_user(self, user_id: str, scope: RequestScope, cause: EndedBy = EndedBy.APPLICATION) -> Revoked:
        """End all sessions of a user, including sessions being created at this moment.

        The sessions have ended when the user's epoch is raised, for any number of rows. Then the request tells the
        stores of as many sessions as it has time for; the recovery tells of the rest, from the journal. With the
        database down, this host treats every session that began until now as ended, and tells the database as soon as
        it answers.
        """
        epoch = scope.attempt(REVOKE, self._database.kill_user, user_id)
        if epoch is None:
            revoked = self._revoke_user_later(user_id, scope, cause)
        else:
            revoked = self._revoke_user_since(epoch, user_id, scope, cause)
        told = events.UserRevoked(revoked.sessions, revoked.durable, cause)
        self._reports.emit(events.user_revoked, told)
        return revoked

    def _revoke_user_since(self, epoch: int, user_id: str, scope: RequestScope, cause: EndedBy) -> Revoked:
        ended = self._attempt(scope, self._database.ended_with, user_id, epoch)
        digests = self._attempt(scope, self._database.kill_user_until, user_id, 0, epoch=epoch, limit=MOST_AT_ONCE)
        dead = digests or []
        lived = self._lived_here(dead) if ended is None else [digest for digest in dead if digest in set(ended)]
        # Dead rows too, because Redis or a copy may still have an older state.
        in_redis = self._tell_redis(dict.fromkeys(dead, 1), scope, in_database=True)
        self._reports.signed_out(lived, cause, in_database=True)
        self._backend.memory.sign_out_user(user_id, 0, epoch)
        if not in_redis or digests is None or len(digests) >= MOST_AT_ONCE:
            self._journal_writer.revoke_user(user_id, epoch=epoch, scope=scope)
        return Revoked(durable=True, sessions=len(ended or ()))

    def _attempt(self, scope: RequestScope, call: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        """Call the database for the rows of a user whose epoch is raised. A time-out because of many rows must not open
        the database's breaker: the raised epoch suffices."""

        def without_blame(timeout: float) -> T:
            try:
                return call(*arguments, timeout=timeout, **options)
            except StoreError as error:
                raise scope.gave_up(DATABASE, error.cause) from None

        return scope.attempt(REVOKE, without_blame)

    def _revoke_user_later(self, user_id: str, scope: RequestScope, cause: EndedBy) -> Revoked:
        # By the database's clock, as the beginnings of sessions. The host's clock may have been set, also back.
        until_ms = self._ended.database_clock.latest_ms() or max(self._now_ms(), self._backend.now_ms())
        # The journal first: from then on every worker of the host knows.
        self._journal_writer.revoke_user(user_id, until_ms, scope=scope)
        digests = self._backend.memory.sign_out_user(user_id, until_ms)
        self.make_known(dict.fromkeys(digests, 0), scope, in_database=False)
        self._reports.signed_out(digests, cause, in_database=False)
        return Revoked(durable=False, sessions=len(digests))

    def displaced(self, digests: Sequence[str], scope: RequestScope) -> None:
        """Tell the stores and this host of sessions that the database ended for a sign-in of their user."""
        if digests:
            self.make_known(dict.fromkeys(digests, 1), scope, in_database=True)
            self._reports.signed_out(digests, EndedBy.LIMIT, in_database=True)


class UserSessions(Part):
    """The sessions of one user, by the database alone: neither Redis nor a journal has this list."""

    def __init__(self, repository: SessionRepository) -> None:
        super().__init__(repository)
        self._revocations = repository.revocations

    def of_user(self, user_id: str, mine: str | None, scope: RequestScope) -> list[DescribedRow]:
        """Return the valid sessions of a user, without those that this host knows to be dead, oldest first.

        :param mine: digest of the asking session; None: no session asks.
        :raises StoreError: the database does not answer.
        """
        rows: list[DescribedRow] = scope.require(LIST_SESSIONS, self._database.devices.of_user, user_id)
        own = _followed(mine, {found.row.digest: found.successor for found in rows})
        valid = [found for found in rows if self._revocations.is_valid(found.row)]
        return [found._replace(is_mine=found.row.digest in own) for found in valid]

    def all(self, since_ms: int, after: str, limit: int) -> list[DescribedRow]:
        """Return a part of the valid sessions of all users, in the order of their digests; empty: no more sessions.

        No request's budget limits the call, and health is not told, because a long call is no sign of an outage.

        :param since_ms: only sessions in use since then, milliseconds since 1970; 0: all.
        :param after: the last digest of the previous part.
        :raises StoreError: the database does not answer.
        """
        while True:
            found = self._database.devices.all(since_ms, after, limit)
            valid = [one for one in found if self._revocations.is_valid(one.row)]
            if valid or len(found) < limit:
                return valid
            after = found[-1].row.digest  # all of this part have ended, as this host knows already

    def count(self, since_ms: int) -> int:
        """Return the number of sessions in all parts of :meth:`all`, by the database alone.

        :raises StoreError: the database does not answer.
        """
        return self._database.devices.count(since_ms)

    def label(self, digest: str, scope: RequestScope) -> str | None:
        """Return the label of a session; None: no label.

        :raises StoreError: the database does not answer.
        """
        return scope.require(LIST_SESSIONS, self._database.devices.label, digest)

    def set_label(self, digest: str, label: str | None, scope: RequestScope) -> None:
        """Set the label of a living session; None: remove the label.

        :raises StoreError: the database does not answer.
        """
        scope.require(SAVE_ROW, self._database.devices.set_label, digest, label)

    def revoke_others(self, user_id: str, mine: str, only: str | None, scope: RequestScope) -> Revoked:
        """End the other sessions of a user for ever. An asking session that is over ends none.

        :param mine: digest of the asking session.
        :param only: digest of the only session to end; None: all others.
        :raises StoreError: the database does not answer, so the sessions are unknown.
        """
        found = self.of_user(user_id, mine, scope)
        if not any(one.is_mine for one in found):
            return Revoked(durable=True, sessions=0)
        others = [one.row.digest for one in found if not one.is_mine and only in (None, one.row.digest)]
        portions = [others[first : first + MOST_AT_ONCE] for first in range(0, len(others), MOST_AT_ONCE)]
        places = [self._revocations.end(part, scope, EndedBy.USER, by_device=True) for part in portions]
        return Revoked(all(place is Kept.DATABASE for place in places), len(others))


def _followed(digest: str | None, successors: Mapping[str, str | None]) -> Sequence[str]:
    """Return the digests of a session's successors: requests of its browser may have given the session other ids."""
    names: list[str] = []
    while digest is not None:
        names.append(digest)
        digest = successors.get(digest)
    return names
