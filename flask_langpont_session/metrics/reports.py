"""Counts, logs and sends as an event what requests and the recovery report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from blinker import Signal

from .. import events
from ..events import EndedBy
from ..exceptions import SessionValueError
from ..policy.changes import Basis, CategoryChange
from ..policy.errors import ErrorClass, StoreError
from ..support.logs import Once, fields
from .losses import Cause, Loss, Losses
from .recorder import Recorder

if TYPE_CHECKING:
    from .notes import Notes

log = logging.getLogger(__name__)

_SILENCE = 60.0
"""Seconds between two log lines about the same failure: an outage with a full disk would write one per request."""

_MOST_NAMED = 256
"""Keys that are named in development at most: an application that makes up keys must not fill memory or log."""


class Reports:
    """Counts, logs and sends the events of one application.

    :ivar losses: changes of sessions that were not kept.
    :ivar data_lost_at: when each Redis was found to have lost data, seconds since 1970.
    :ivar lost_commits: how many commits the database has lost, as far as this process has found out.
    :param emit: called with a signal and an event; must not raise.
    :param in_use: is told which sessions are in use.
    :param raises: whether a value that a view gave the session, and that cannot be stored, is raised as well, and each
        key of which the table drops a write is logged.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        emit: Callable[[Signal, object], None],
        in_use: Notes | None = None,
        clock: Callable[[], float] = time.monotonic,
        raises: Callable[[], bool] = lambda: False,
    ) -> None:
        self._raises = raises
        self.recorder = recorder
        self.emit = emit
        self.in_use = in_use
        self.losses = Losses(recorder, emit)
        self.data_lost_at: dict[str, float] = {}
        self.lost_commits = 0
        self._dropped: set[str] = set()
        self._journal_failure = Once(_SILENCE, clock)
        self._no_room = Once(_SILENCE, clock)
        self._database_went_back = Once(_SILENCE, clock)

    def signed_out(self, digests: Sequence[str], cause: EndedBy, *, in_database: bool) -> None:
        """Tell that signed-in sessions have ended, and count those that were ended.

        :param digests: of those that were valid until then, as the database says; while it does not answer, of those
            that this worker does not know to be over.
        """
        if cause is not EndedBy.EXPIRY:
            self.recorder.count("sessions_ended", by=len(digests))
        for digest in digests:
            self.emit(events.session_revoked, events.SessionRevoked(events.short(digest), in_database, cause))

    def no_longer_in_use(self, digest: str) -> None:
        """Have a session that is over counted no more."""
        if self.in_use is not None:
            self.in_use.ended(digest)

    def payload(self, changes: Mapping[str, CategoryChange]) -> None:
        """Measure the bytes of changes that were stored, by category."""
        for name, change in changes.items():
            if sets := change.sets:
                self.recorder.noting("payload", name)(sum(map(len, (*sets, *sets.values()))))

    def rejected(self, category: str, key: str | None, reason: str, *, is_mistake: bool = True) -> None:
        """Report a change that could not be stored by a save, when no view is there to be told any more.

        :param is_mistake: of the application; else of what is down, or of what another program stored.
        :raises SessionValueError: it is one, and the application is being developed or tested.
        """
        what = f"session key {key!r}" if key else f"session data of category {category!r}"
        log.error(
            "%s was not stored (%s); the old data is kept",
            *(what, reason),
            extra=fields("value_rejected", category=category, key=key, cause=reason),
        )
        self.recorder.count("values_rejected")
        self.emit(events.value_rejected, events.ValueRejected(category, key, reason))
        if is_mistake and self._raises():
            raise SessionValueError(key or category, reason)

    def dropped(self, category: str, key: str, level: int) -> None:
        """Count a write that lasts for its request only, by the table. In development, log it once per key."""
        self.losses.note(Loss.REQUEST_ONLY_WRITES, Cause.at_level(level), category)
        if key in self._dropped or len(self._dropped) >= _MOST_NAMED or not self._raises():
            return
        self._dropped.add(key)
        log.warning(
            "session[%r] is gone with its request: at level %d the decision table does not keep its feature. To keep "
            "it, give the feature another priority in LANGPONT_SESSION_FEATURES, or the priority another "
            "behaviour in LANGPONT_SESSION_BEHAVIOURS; `flask langpont explain %s` says more",
            *(key, level, key),
            extra=fields("write_dropped", key=key, level=level),
        )

    def shared(self, outdated: Mapping[tuple[str, str, Basis], int], left_out: int) -> None:
        """Note that copies were shared with the other workers of the host.

        :param outdated: digest, category and basis of values that waited → how many of them gave way to a copy.
        :param left_out: how many copies there was no room for. Nothing is lost: a request whose session is among them
            finds its data at another worker only, or is told that it is unknown.
        """
        self.losses.outdated(outdated)
        if left_out:
            self.recorder.count("copies_left_out", left_out)
            if self._no_room.is_due():
                log.info(
                    "%d copies of categories are not shared with the other workers of this host: copies have the room "
                    "of a quarter of LANGPONT_SESSION_JOURNAL_MAX_BYTES. "
                    "(Logged once in %d s; the counter copies_left_out counts all.)",
                    *(left_out, _SILENCE),
                    extra=fields("copies_left_out", number=left_out, silence=_SILENCE),
                )

    def data_lost(self, store: str) -> None:
        """Report that a Redis lost data behind its connections."""
        self.data_lost_at[store] = time.time()
        log.warning(
            "the %s lost data behind its connections; its signed-in sessions are verified once",
            store,
            extra=fields("data_lost", store=store),
        )
        self.emit(events.data_lost, events.DataLost(store))

    def database_went_back(self, commits: int) -> None:
        """Report commits that the database had confirmed and lacks; what is known of them was made good.

        :param commits: how many.
        """
        if not commits:
            return
        self.lost_commits += commits
        self.recorder.count("database_lost_commits", by=commits)
        self.emit(events.database_went_back, events.DatabaseWentBack(commits))
        if self._database_went_back.is_due(""):
            log.error(
                "the database has lost commits that it had confirmed, by a failover or a restored backup. "
                "Revocations that are known here are told it again, and rights that were withdrawn stay so. "
                "(Logged once in %d s; the counter database_lost_commits counts all.)",
                _SILENCE,
                extra=fields("database_went_back", commits=commits, silence=_SILENCE),
            )

    def journal_failed(self, error: StoreError) -> None:
        """Report that the journal could not be read or written."""
        if error.error_class is ErrorClass.DATA:
            # One session's value, for example something else than a number that was to be counted up.
            self.recorder.count("journal_rejected")
            log.warning(
                "the journal could not keep a change: %s", error, extra=fields("change_not_kept", **error.log_data)
            )
            return
        self.recorder.count("journal_errors")
        self.emit(events.journal_failed, events.JournalFailed(error.cause))
        if self._journal_failure.is_due(error.cause):
            log.critical(
                "the journal cannot be used: %s. Check LANGPONT_SESSION_JOURNAL and its disk. "
                "(Logged once in %d s; the counter journal_errors counts all.)",
                *(error, _SILENCE),
                extra=fields("journal_unusable", **error.log_data, silence=_SILENCE),
            )

    def journal_busy(self, error: StoreError) -> None:
        """Report that the journal did not say in time what it holds. Nothing is lost: the request goes by what it
        knows."""
        self.recorder.count("journal_errors")
        if self._journal_failure.is_due(f"reading: {error.cause}"):
            log.warning(
                "the journal could not be read in time: %s. What it holds counts as unknown; nothing is lost. "
                "(Logged once in %d s; the counter journal_errors counts all.)",
                *(error, _SILENCE),
                extra=fields("journal_busy", **error.log_data, silence=_SILENCE),
            )
