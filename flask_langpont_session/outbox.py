"""This host's journal as the repository uses it: what waits for a store that does not answer.

The journal must never be a reason for a request to fail. When its disk refuses, that is an alarm for an operator and
the request goes on with what is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from blinker import Signal

from . import events
from .categories import AUTH
from .metrics import Recorder
from .policy import Behaviour
from .records import NO_FIELDS, Plan
from .stores.base import CategoryChange, ErrorClass, SharedCopy, StoreError
from .stores.journal import Journal, Overlay
from .stores.local import LocalAuth
from .visibility import Visibility

log = logging.getLogger(__name__)

NOTHING = Overlay(revoked=False, writes={}, deltas={}, copies={})
"""What the journal says while it is empty, which is nearly always."""


_SILENCE = 60.0
"""Seconds between two log lines about the same failure: an outage with a full disk would write one per request."""


def _nobody(signal: Signal, event: object) -> None:
    pass


class Outbox:
    """Reads and fills the journal by the rules of the table.

    :param emit: called with a signal and an event; must not raise.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        journal: Journal,
        visibility: Visibility,
        recorder: Recorder,
        emit: Callable[[Signal, object], None] = _nobody,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._visibility = visibility
        self._recorder = recorder
        self._emit = emit
        self._clock = clock
        self._said: dict[str, float] = {}

    def overlay(self, digest: str, *, shadow: bool = False) -> Overlay:
        """What this host knows of a session beyond what Redis says; :data:`NOTHING` nearly always."""
        try:
            return NOTHING if self._journal.is_empty() else self._journal.overlay(digest, shadow=shadow)
        except StoreError as error:
            self._failed(error)
            return NOTHING

    def queue_push(self, digest: str, version: int = 0) -> None:
        """Redis lacks what the database has of this session.

        :param version: of its row; 0: unknown.
        """
        self._do(lambda: self._journal.queue_push(digest, version))

    def revoke(self, *digests: str, in_database: bool, in_redis: bool) -> None:
        """Revocations that not every store has heard of."""
        self._do(lambda: self._journal.revoke(*digests, in_database=in_database, in_redis=in_redis))

    def revoke_user(self, user_id: str, until_ms: int = 0, *, epoch: int = 0) -> None:
        """A user was logged out everywhere, of which not every store has heard.

        :param until_ms: of the sessions created until then, milliseconds since 1970; the database does not know it.
        :param epoch: of the sessions of an earlier epoch; the database knows it.
        """
        self._do(lambda: self._journal.revoke_user(user_id, until_ms=until_ms, epoch=epoch))

    def row_changing(self, digest: str) -> int | None:
        """This worker is about to try a compare-and-set of a session's row.

        :return: the number of this try; None: there is no place for it, and what it makes is asked for again.
        """
        try:
            return self._journal.row_changing(digest)
        except StoreError as error:
            self._failed(error)
            return None

    def row_changed(self, digest: str, number: int | None = None) -> None:
        """The database has another row of this session: what other workers of this host have of it is out of date.

        :param number: of the try that succeeded, if it was a compare-and-set.
        """
        self._do(lambda: self._journal.row_changed(digest, self._clock(), number))

    def is_up_to_date(self, held: LocalAuth) -> bool:
        """Whether no worker of this host has changed a session's row since this copy of it was confirmed, or made by
        this worker. False: nobody can say."""
        digest, number = held.row.digest, held.change
        try:
            changed_at = self._journal.row_changed_at(digest)
            if changed_at <= held.confirmed_at or changed_at > self._clock():
                return True  # a moment that is yet to come is from before the machine's start
            return number is not None and self._journal.is_last_change(digest, number)
        except StoreError as error:
            self._failed(error)
            return False

    def publish(self, copies: Iterable[SharedCopy]) -> None:
        """Put local copies where the other workers of the host can read them."""
        self._do(lambda: self._journal.publish_copies(copies))

    def taken(self, digest: str, changes: Mapping[str, CategoryChange], *, shadow: bool) -> None:
        """Redis took newer values of these keys directly: what the journal holds of them is old.

        While it holds anything, a worker of the host may not reach Redis: it shall see them, too, and build on them.
        """
        if self.overlay(digest, shadow=shadow) is NOTHING:
            return
        for name, change in changes.items():
            self._do(lambda n=name, c=change: self._journal.forget_fields(digest, n, c.writes, shadow=shadow))  # type: ignore[misc]
        if not shadow and (copies := self._visibility.copies(digest, changes)):
            self.publish(copies)

    def keep(self, plan: Plan, changes: Mapping[str, CategoryChange], *, shadow: bool = False) -> bool:
        """Keep what the table keeps of changes that Redis did not take; the rest lasts for this request only.

        :return: whether anything was kept.
        """
        assert plan.target is not None
        kind = "a" if shadow else plan.target.kind
        kept = [self._keep_category(plan, name, change, kind, shadow) for name, change in changes.items()]
        return any(kept)

    def _keep_category(self, plan: Plan, name: str, change: CategoryChange, kind: str, shadow: bool) -> bool:
        writes = {key: value for key, value in change.writes.items() if self._outlives_request(key, kind)}
        increments = {key: by for key, by in change.increments.items() if self._outlives_request(key, kind)}
        if not (writes or increments):
            return False
        return self._do(lambda: self._write(plan, name, writes, increments, kind, shadow, in_doubt=change.in_doubt))

    def _outlives_request(self, key: str, kind: str) -> bool:
        """Auth that may wait (no rights: those are refused before this) is kept like high."""
        feature = self._visibility.table.feature_of(key)
        behaviour = self._visibility.behaviour(feature, kind, 1)
        return feature.category == AUTH or behaviour is Behaviour.LOCAL_CACHE_FALLBACK

    def _write(
        self,
        plan: Plan,
        name: str,
        writes: Mapping[str, bytes | None],
        increments: Mapping[str, int],
        kind: str,
        shadow: bool,
        *,
        in_doubt: bool,
    ) -> None:
        assert plan.target is not None
        digest, loaded = plan.target.digest, plan.loaded
        known = loaded if loaded and not plan.is_new and loaded.shadow == shadow else None
        before = known.fields.get(name, NO_FIELDS) if known else NO_FIELDS
        version = (known.versions.get(name) if known else None) or None
        if writes:
            self._journal.write(
                digest,
                kind=kind,
                shadow=shadow,
                category=name,
                changes=writes,
                # What Redis may have of this very write is no change by somebody else.
                base=writes if in_doubt else {key: before.get(key) for key in writes},
                base_version=version,
            )
        for key, by in increments.items():
            self._journal.increment(
                digest,
                kind=kind,
                shadow=shadow,
                category=name,
                field=key,
                by=by,
                base=before.get(key),
                base_version=version,
            )

    def _do(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except StoreError as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: StoreError) -> None:
        if error.error_class is ErrorClass.DATA:
            # One session's value, for example something else than a number that was to be counted up.
            self._recorder.count("journal_rejected")
            log.warning("the journal could not keep a change: %s", error)
            return
        self._recorder.count("journal_errors")
        self._emit(events.journal_failed, events.JournalFailed(error.cause))
        now = self._clock()
        if now - self._said.get(error.cause, -_SILENCE) >= _SILENCE:
            self._said[error.cause] = now
            log.critical(
                "the journal cannot be used: %s. Check LANGPONT_SESSION_JOURNAL and its disk. "
                "(Said once in %d s; the counter journal_errors has all.)", error, _SILENCE
            )  # fmt: skip
