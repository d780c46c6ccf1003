"""Gives Redis back what this host has of sessions, after it lost data: a restart without its file, FLUSHALL.

Each worker gives what it has itself, and what the host shares of other workers' copies. The order does not matter: a
copy says as of when it is, and of two the newer one wins, see ``restore.lua``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from ..metrics.losses import Cause, Loss
from ..policy.health import PRIMARY
from ..policy.ids import SIGNED_IN
from ..policy.values import ErrorClass, Found, SharedCopy, StoreError
from ..stores.backend import Backend
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import Restore
from ..support.logs import fields
from . import calls
from .giving_up import place_of

log = logging.getLogger(__name__)

_BATCH = 200
"""Copies per round trip."""

CLOCKS_APART_US = 1_000_000
"""Microseconds by which the clock of a server may be behind that of the one before."""

_MOST_FAILURES = 10
"""Times that some copies are tried before they are left: what refuses them must not keep all others waiting. If it was
their server that did not answer, they are given back when it does."""


class _Held(NamedTuple):
    """A copy that may be given back.

    :param seen_at: when it was known last, monotonic seconds.
    """

    copy: SharedCopy
    seen_at: float


class _Doubt(NamedTuple):
    """A copy that was given back, though this host has seen a later version.

    :param version: of the copy.
    :param seen: the latest version.
    """

    digest: str
    category: str
    version: int
    seen: int


@dataclass
class _Pass:
    """Once through all that is to be given back: what of the journal was looked at, and how much there was."""

    after: int = 0
    given: int = 0


class Refill:
    """What one worker gives back.

    :param push: brings the auth records of sessions in Redis up to what the database says.
    """

    def __init__(self, backend: Backend, push: Callable[[Sequence[str]], Found]) -> None:
        self._backend = backend
        self._push = push
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._well_until_us: dict[str, int] = {}
        self._unverified: set[str] = set()
        self._left: set[str] = set()
        # Of which shards copies are being given back; of this worker's, those that are left; and the number of the last
        # one that was read from the journal.
        self._begun: set[str] = set()
        self._waiting: Iterator[_Held] = iter(())
        self._pass = _Pass()
        self._failures = 0
        self._doubts: list[_Doubt] = []

    def ask_for(self, shard: str, well_until_ms: int) -> None:
        """A shard may have lost something.

        :param well_until_ms: by its clock, when it is known to have had everything; 0: it is not known.
        """
        well_us = max(0, well_until_ms * 1000 - CLOCKS_APART_US)
        with self._lock:
            if shard in self._wanted or shard in self._unverified or self._begun:
                well_us = min(well_us, self._well_until_us.get(shard, well_us))
            self._well_until_us[shard] = well_us
            self._wanted.add(shard)

    @property
    def is_wanted(self) -> bool:
        """Whether anything is still to be given back; what is put aside meanwhile may be part of it."""
        return bool(self._wanted or self._unverified or self._begun)

    def waits_for(self, shard: str, kind: str) -> bool:
        """Return whether a shard is still to be given back sessions of a kind. Those of users need the database."""
        return shard in self._wanted or shard in self._begun or (kind == SIGNED_IN and shard in self._unverified)

    def is_due(self, shards: Collection[str], database: bool = False) -> bool:
        """Whether anything can be given back now.

        :param shards: those of Redis that answer; `database`: it answers.
        """
        self._want_again(shards)
        wanted = self._wanted | (self._unverified if database else set())
        return bool(self._begun) or not wanted.isdisjoint(shards)

    def _want_again(self, shards: Collection[str]) -> None:
        """What was left because a shard did not answer is wanted after all, and so is what was tried together with it.
        Of a shard that is no more, such as the slots that had none, any may have the sessions by now."""
        with self._lock:
            if not self._left.issubset(shards):
                self._wanted |= self._left
                self._left = set()
            known = set(self._backend.health.shards)
            if not self._wanted | self._unverified <= known:
                self._wanted, self._unverified = known, set()

    def run(self, shards: Set[str], database: bool, end: float) -> bool:
        """Give back as much as there is time for; what was in use lately comes first.

        :param end: monotonic seconds; after these nothing more is begun.
        :return: whether that was all.
        :raises StoreError: Redis, the database or the journal does not answer. Run it again: it goes on where it was.
        """
        self._begin(shards, database)
        while self._begun:
            batch = self._next_batch()
            if batch is None:
                with self._lock:
                    self._begun = set()
                log.info(
                    "%d categories of sessions were given back to Redis, or were there",
                    self._pass.given,
                    extra=fields("refilled", number=self._pass.given),
                )
                break
            self._try(self._reached(batch, shards), database)
            if self._backend.clock() >= end:
                return False
        return True

    def _begin(self, shards: Set[str], database: bool) -> None:
        with self._lock:
            begun = {shard for shard in self._wanted | (self._unverified if database else set()) if shard in shards}
            self._wanted -= begun
            self._unverified -= begun
            self._begun |= begun
        if begun:
            self._pass = _Pass()
            self._waiting = chain(self._waiting, self._own(begun))

    def _own(self, shards: Set[str]) -> list[_Held]:
        """This worker's, those that were used lately first."""
        locate = self._backend.health.locate
        own = [copy for copy in self._backend.memory.held() if locate(copy.digest) in shards]
        return sorted(self._dated(own), key=lambda held: -held.seen_at)

    def _dated(self, copies: Iterable[SharedCopy]) -> list[_Held]:
        now = self._backend.clock()
        return [_Held(copy, now - copy.age) for copy in copies]

    def _next_batch(self) -> list[_Held] | None:
        """This worker's copies; then, from the journal, what only others have. None: that was all.

        :raises StoreError: the journal does not answer; the next call reads the same part of it.
        """
        if batch := list(islice(self._waiting, _BATCH)):
            return batch
        page = self._backend.board.shared_copies(_BATCH, after=self._pass.after)
        if not page:
            return None
        self._pass.after = max(page)
        return self._dated(copy for copy in page.values() if self._is_of_others(copy))

    def _is_of_others(self, copy: SharedCopy) -> bool:
        is_due = bool(copy.kind) and self._backend.health.locate(copy.digest) in self._begun
        return is_due and self._backend.memory.category(copy.digest, copy.category) is None

    def _reached(self, batch: Sequence[_Held], shards: Set[str]) -> list[_Held]:
        """Those whose shards answer. The others' are asked again when they do, as a whole."""
        locate = self._backend.health.locate
        with self._lock:
            self._wanted |= {locate(held.copy.digest) for held in batch} - shards
        return [held for held in batch if locate(held.copy.digest) in shards]

    def _try(self, batch: Sequence[_Held], database: bool) -> None:
        try:
            self._give_back(batch, database)
            self._failures = 0
        except StoreError:
            self._failures += 1
            if self._failures < _MOST_FAILURES:
                self._waiting = chain(batch, self._waiting)
            else:
                self._failures = 0
                with self._lock:
                    self._left |= {self._backend.health.locate(held.copy.digest) for held in batch}
                self._leave(batch, "no answer")
            raise
        except Exception as error:
            if len(batch) == 1:
                self._leave(batch, f"{type(error).__name__} in {place_of(error)}")
            for held in batch if len(batch) > 1 else ():
                self._try([held], database)

    def _leave(self, batch: Sequence[_Held], cause: str) -> None:
        log.error(
            "%d categories of sessions could not be given back to Redis, and are left: %s",
            *(len(batch), cause),
            extra=fields("refill_failed", number=len(batch), cause=cause),
        )

    def _give_back(self, batch: Sequence[_Held], database: bool) -> None:
        living = self._living({held.copy.digest for held in batch if held.copy.kind == SIGNED_IN}, database)
        wanted = []
        for copy, seen_at in batch:
            age = self._backend.clock() - seen_at
            # Of what was wiped nothing need be left that tells so, when all copies of it should have gone.
            is_over = age >= self._backend.settings.local_cache_ttl or self._backend.was_wiped(copy)
            if is_over or (copy.kind == SIGNED_IN and copy.digest not in living):
                continue
            life_ms = self._backend.life_of_kept(copy.category, copy.kind)
            left_ms = life_ms - int(age * 1000)  # it was in use when it was last seen, or later
            if left_ms > 0 or not life_ms:
                guard = "alive" if copy.kind == SIGNED_IN else "free"
                # What began before the loss knows all that there was.
                is_partial = copy.began > self._well_until_us.get(self._backend.health.locate(copy.digest), 0)
                wanted.append(Restore(copy.digest, copy.category, copy.copy, guard, max(0, left_ms), is_partial))
        seen = [self._backend.latest_version(each.digest, each.category) for each in wanted]
        sent_at = self._backend.clock()
        limits, write_id = self._backend.limits, new_write_id()
        replies = self._backend.primary.merge_all(wanted, limits=limits, timeout=calls.TIMEOUT, write_id=write_id)
        for restore, latest, reply in zip(wanted, seen, replies, strict=True):
            if isinstance(reply, StoreError):
                if reply.error_class is not ErrorClass.DATA:
                    raise reply
            elif reply.status == "late":
                raise StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")
            else:
                self._pass.given += reply.status == "merged"
                self._compare(restore, latest, reply.version, sent_at)

    def _compare(self, given: Restore, seen: int, version: int, sent_at: float) -> None:
        """Note a copy that was not the latest, where Redis has less than that, or may have by what it was given.

        :param seen: the latest version that this host knew of before.
        :param version: that Redis has by now.
        :param sent_at: monotonic seconds.
        """
        if not version or given.copy.version >= seen:
            return
        is_changed = version >= self._backend.primary.estimated_ms(given.digest, sent_at) * 1000
        if is_changed or version < seen:
            self._doubts.append(_Doubt(given.digest, given.category, given.copy.version, seen))

    def count_lost(self) -> bool:
        """All workers of the host have given back what they have: count where none had the latest. True.

        :raises StoreError: Redis does not answer. Run it again.
        """
        while doubts := self._doubts[:_BATCH]:
            places = [(doubt.digest, doubt.category) for doubt in doubts]
            copies = self._backend.primary.copies(places, timeout=calls.TIMEOUT)
            for doubt, copy in zip(doubts, copies, strict=True):
                # Else another worker has given a later one, or the session is over.
                if copy.meta and (copy.given_back == doubt.version or copy.version < doubt.seen):
                    self._backend.reports.losses.note(Loss.WRITES_LOST, Cause.LOST_BY_REDIS, doubt.category)
            del self._doubts[: len(doubts)]
        return True

    def _living(self, digests: Set[str], database: bool) -> set[str]:
        """Those of signed-in sessions that have a live auth record in Redis; the database says it of those that were
        lost."""
        asked = sorted(digests)
        answers = dict(zip(asked, self._backend.primary.auths(asked, timeout=calls.TIMEOUT), strict=True))
        living = {digest for digest, answer in answers.items() if answer.auth and answer.auth.row}
        unknown = [digest for digest, answer in answers.items() if answer.auth is None]
        if unknown and database:
            living |= self._push(unknown).rows.keys()
        elif unknown:  # when it answers: again
            self._unverified.update(map(self._backend.health.locate, unknown))
        return living
