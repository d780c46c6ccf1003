"""Gives Redis back what this host has of sessions, after it lost data: a restart without its file, FLUSHALL.

Each worker gives what it has itself, and what the host shares of other workers' copies. The order does not matter: a
copy says as of when it is, and of two the newer one wins, see ``restore.lua``.

Another server, one that was emptied, a replica that was promoted: for a moment some worker of the host knows more than
that server. So each worker tells the others with which servers it is through, in a file that it holds as long as it
lives. Until all of them are, reads show the host's newer copies, and what is written waits in the journal.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from ..policy.copies import CategoryCopy, SharedCopy
from ..policy.errors import ErrorClass, StoreError, shard_of
from ..policy.health import PRIMARY
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..stores.backend import Backend
from ..stores.host.group_commit import is_busy
from ..stores.host.opening import path_of
from ..stores.host.presence import FEATURES, FORGOTTEN, LOST, NEAR, Presence, parts_of
from ..stores.redis.records import Lack, Restore
from ..support.logs import fields
from . import steps
from .steps import Pages, Reach, Step, ask_journal

if TYPE_CHECKING:
    from .rows import Pushes

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds for which another worker is waited for that lives and does not say that it is through."""

_KINDS = (ANONYMOUS, SIGNED_IN)

_NOT_THROUGH = ""
"""Said by a worker of a server to which it has still to give something back."""

Place = tuple[str, str]
"""A shard, and a kind of sessions."""


CLOCKS_APART_US = 1_000_000
"""Microseconds by which the clock of a server may be behind that of the one before."""

_MOST_FAILURES = 10
"""Times that some copies are tried before they are left: what refuses them must not keep all others waiting. If it was
their server that did not answer, they are given back when it does."""


class _Dated(NamedTuple):
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

    version: int
    seen: int


class Refill(Step):
    """Gives Redis back the copies that one worker has."""

    is_ordered = True

    def __init__(self, backend: Backend, pushes: Pushes) -> None:
        self._backend = backend
        self._pushes = pushes
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._well_until_us: dict[str, int] = {}
        self._unverified: set[str] = set()
        self._left: set[str] = set()
        # The shards to which copies are being given back → how many were; of this worker's, those that are left; and
        # what the host shares of others'.
        self._begun: Counter[str] = Counter()
        self._waiting: Iterator[_Dated] = iter(())
        self._shared: Pages[tuple[int, SharedCopy]] = Pages(self._read_shared, itemgetter(0))
        self._failures = 0
        self.doubts: dict[tuple[str, str], _Doubt] = {}

    def ask_for(self, shard: str, well_us: int) -> None:
        """Begin to give back what a shard may have lost.

        :param well_us: microseconds by its clock, when it is known to have had everything; 0: it is not known.
        """
        with self._lock:
            if shard in self._wanted or shard in self._unverified or self._begun:
                well_us = min(well_us, self._well_until_us.get(shard, well_us))
            self._well_until_us[shard] = well_us
            self._wanted.add(shard)

    @property
    def is_wanted(self) -> bool:
        """Return whether anything is still to be given back; what is put aside meanwhile may be part of it."""
        return bool(self._wanted or self._unverified or self._begun)

    def waits_for(self, shard: str, kind: str) -> bool:
        """Return whether a shard is still to be given back sessions of a kind. Those of users need the database."""
        return shard in self._wanted or shard in self._begun or (kind == SIGNED_IN and shard in self._unverified)

    def is_due(self, reach: Reach) -> bool:
        """Return whether anything can be given back now."""
        self._want_again(reach.shards)
        return bool(self._begun) or not self._wanted_of(reach).isdisjoint(reach.shards)

    def _wanted_of(self, reach: Reach) -> set[str]:
        return self._wanted | (self._unverified if reach.database else set())

    def _want_again(self, shards: Set[str]) -> None:
        """Begin again with what was left because a shard did not answer, and what was tried together with it. Of a
        shard that is no more, such as the slots that had none, any may have the sessions by now."""
        with self._lock:
            if not self._left.issubset(shards):
                self._wanted |= self._left
                self._left = set()
            known = set(self._backend.health.shards)
            if not self._wanted | self._unverified <= known:
                self._wanted, self._unverified = known, set()

    def pending(self, reach: Reach) -> Iterator[Sequence[_Dated]]:
        """Yield copies to be given back; what was in use lately comes first."""
        with self._lock:
            begun = {shard for shard in self._wanted_of(reach) if shard in reach.shards}
            self._wanted -= begun
            self._unverified -= begun
            self._begun.update(dict.fromkeys(begun, 0))
        if begun:
            self._shared.begin()
            self._waiting = chain(self._waiting, self._own(begun))
        while self._begun:
            batch = self._next_batch()
            if batch is None:
                with self._lock:
                    number, self._begun = self._begun.total(), Counter()
                log.info(
                    "%d categories of sessions were given back to Redis, or were there",
                    number,
                    extra=fields("refilled", number=number),
                )
                return
            with self._lock:  # of those that do not answer, all is asked for again when they do
                self._wanted |= {reach.locate(held.copy.digest) for held in batch} - reach.shards
            yield [held for held in batch if reach.has(held.copy.digest)]

    def _own(self, shards: Set[str]) -> list[_Dated]:
        """Return this worker's copies, in the order of :meth:`.Memory.held`."""
        locate = self._backend.health.locate
        return self._dated(copy for copy in self._backend.memory.held() if locate(copy.digest) in shards)

    def _dated(self, copies: Iterable[SharedCopy]) -> list[_Dated]:
        now = self._backend.clock()
        return [_Dated(copy, now - copy.age) for copy in copies]

    def _next_batch(self) -> list[_Dated] | None:
        """Return some of this worker's copies; then, from the journal, what only others have. None: that was all.

        :raises StoreError: the journal does not answer; the next call reads the same part of it.
        """
        if batch := list(islice(self._waiting, steps.PIPELINE)):
            return batch
        for page in self._shared:
            return self._dated(copy for _, copy in page if self._is_of_others(copy))
        return None

    def _read_shared(self, limit: int, after: int) -> list[tuple[int, SharedCopy]]:
        return list(self._backend.board.shared_copies(limit, after=after).items())

    def _is_of_others(self, copy: SharedCopy) -> bool:
        own = self._backend.memory.category(copy.digest, copy.category)
        is_news = bool(copy.kind) and (own is None or own.version < copy.copy.version)
        return is_news and self._backend.health.locate(copy.digest) in self._begun

    def send(self, entries: Sequence[_Dated], reach: Reach) -> bool:
        """Give some copies back. What their server refuses again and again is left."""
        try:
            self._give_back(entries, reach.database)
        except StoreError:
            self._failures += 1
            if self._failures < _MOST_FAILURES:
                self._waiting = chain(entries, self._waiting)
            else:
                self._failures = 0
                with self._lock:
                    self._left |= {self._backend.health.locate(held.copy.digest) for held in entries}
                self._leave(len(entries), "no answer")
            raise
        self._failures = 0
        return False

    def give_up(self, entry: _Dated, error: Exception) -> bool:
        """Leave a copy that cannot be given back, for a reason that is not known."""
        self._leave(1, f"{type(error).__name__} in {steps.place_of(error)}")
        return True

    def _leave(self, number: int, cause: str) -> None:
        log.error(
            "%d categories of sessions could not be given back to Redis, and are left: %s",
            *(number, cause),
            extra=fields("refill_failed", number=number, cause=cause),
        )

    def _give_back(self, batch: Sequence[_Dated], database: bool) -> None:
        living = self._living({held.copy.digest for held in batch if held.copy.kind == SIGNED_IN}, database)
        wanted, given, over = list[Restore](), list[SharedCopy](), list[SharedCopy]()
        for copy, seen_at in batch:
            age = self._backend.clock() - seen_at
            if age >= self._backend.settings.local_cache_ttl:
                continue
            if copy.kind == SIGNED_IN and copy.digest not in living:
                over.append(copy._replace(age=age))
                continue
            wanted += self._restores(copy, age)
            given.append(copy._replace(age=age))
        steps.take_along(self._backend, over)
        self._tell_whose_it_is(given)
        register = self._backend.register
        seen = [register.latest_version(each.digest, each.category) for each in wanted]
        sent_at = self._backend.clock()
        for restore, latest, reply in zip(wanted, seen, steps.merge_all(self._backend, wanted), strict=True):
            if isinstance(reply, StoreError):
                if reply.error_class is not ErrorClass.DATA:
                    raise reply
            elif reply.status == "late":
                raise StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")
            else:
                self._begun[self._backend.health.locate(restore.digest)] += reply.status == "merged"
                self._compare(restore, latest, reply.version, sent_at)

    def _tell_whose_it_is(self, given: Sequence[SharedCopy]) -> None:
        """Share copies of sessions for which something waits. A copy names the writes that it is made of, and what is
        given back does not: that a value which waits was made from one of them could not be seen any more."""
        told = [copy for copy in given if copy.copy.mark and not self._backend.journal.is_silent_about(copy.digest)]
        if told:
            self._backend.reports.shared(self._backend.board.add_copies(told, steps.TIMEOUT), 0)

    def _restores(self, shared: SharedCopy, age: float) -> Iterator[Restore]:
        """Yield what a copy gives back: before it, the wipe that this host knows of. A server that fell back to before
        that shows what was wiped, and the worker that has seen it go may have ended.

        :param age: of the copy, in seconds.
        """
        digest, category, copy = shared[:3]
        life_ms = self._backend.life_of_kept(category, shared.kind)
        left_ms = life_ms - int(age * 1000)  # it was in use when it was last seen, or later
        if life_ms and left_ms <= 0:
            return
        # What began before the loss knows all that there was.
        is_partial = copy.began > self._well_until_us.get(self._backend.health.locate(digest), 0)
        give = partial(Restore, digest, category, guard="alive" if shared.kind == SIGNED_IN else "free")
        wiped = self._backend.register.wiped_version(digest, category)
        is_over = self._backend.register.is_wiped_since(digest, category, copy.version)
        if wiped and (is_over or is_partial):
            yield give(copy=CategoryCopy(wiped, {}), life_ms=max(0, left_ms))
        if not is_over:
            yield give(copy=copy, life_ms=max(0, left_ms), is_partial=is_partial)

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
            self.doubts[given.digest, given.category] = _Doubt(given.copy.version, seen)

    def _living(self, digests: Set[str], database: bool) -> set[str]:
        """Return which signed-in sessions have a live auth record in Redis; of sessions that Redis lost, the database
        says so."""
        asked = sorted(digests)
        answers = dict(zip(asked, self._backend.primary.auths(asked, timeout=steps.TIMEOUT), strict=True))
        living = {digest for digest, answer in answers.items() if answer.auth and answer.auth.row}
        unknown = [digest for digest, answer in answers.items() if answer.auth is None]
        if unknown and database:
            living |= self._pushes.push(unknown).rows.keys()
        elif unknown:  # when it answers: again
            self._unverified.update(map(self._backend.health.locate, unknown))
        return living


class LossCount(Step):
    """Counts copies that were not the latest on this host, when all of its workers have given back what they have."""

    is_ordered = True

    def __init__(self, backend: Backend, refill: Refill) -> None:
        self._backend = backend
        self._doubts = refill.doubts

    def pending(self, reach: Reach) -> Iterator[Sequence[tuple[str, str]]]:
        yield from steps.parts([] if self._backend.lacks else list(self._doubts))

    def send(self, entries: Sequence[tuple[str, str]], reach: Reach) -> bool:
        copies = self._backend.primary.copies(entries, timeout=steps.TIMEOUT)
        for place, copy in zip(entries, copies, strict=True):
            doubt = self._doubts.pop(place)
            if copy.mark:  # else the session is over
                self._backend.reports.losses.lost_by_redis(*place, copy, doubt.seen, doubt.version)
        return False


class GivingBack:
    """One of the workers of a host that give Redis back what they have.

    :param clock: monotonic seconds.
    :ivar refill: gives back what this worker has.
    :ivar presence: tells the other workers.
    """

    def __init__(self, backend: Backend, refill: Refill, clock: Callable[[], float]) -> None:
        self._backend = backend
        self.refill = refill
        self._clock = clock
        self.presence = Presence(backend.journal.file.path, backend.board.words)
        self._lock = threading.Lock()
        backend.lacks.clear()
        self._overdue: set[Place] = set()
        self._said: Mapping[str, object] | None = None

    def end(self) -> None:
        """Leave the workers of the host: no other one waits for this one, and no file is held. Never raises."""
        with self._lock:
            self.presence.end()
            self._said = None

    def join(self) -> None:
        """Become one of the workers that the others of the host wait for, before this one has anything to give back."""
        self._tell({})

    def begin(self, shard: str, well_until_ms: int) -> None:
        """Note that a shard may have less than this host from now on: it was exchanged for another server, or lost
        data. Usable from any thread, and does not block.

        :param well_until_ms: by its clock, when it is known to have had everything; 0: it is not known.
        """
        well_us = max(0, well_until_ms * 1000 - CLOCKS_APART_US)
        self.refill.ask_for(shard, well_us)
        if not (well_until_ms or self._may_lack(shard)):
            return
        for kind in _KINDS:
            before = self._backend.lacks.get((shard, kind))
            well_us = min(well_us, before.well_until_us) if before else well_us
            self._backend.lacks[shard, kind] = Lack(self._clock(), well_us)

    def _may_lack(self, shard: str) -> bool:
        """Return whether this host may know of anything that the shard lacks, though this worker has never found all
        well: not if the other workers are through with the very server that it meets."""
        locate = self._backend.health.locate
        if any(locate(copy.digest) == shard for copy in self._backend.memory.live_categories()):
            return True
        path, mark = self._backend.journal.file.path, self._mark_of(shard)
        try:
            if others := self.presence.others():
                words = map(parts_of, others)
                return any(not word.get(_name(shard, kind), mark).startswith(mark) for word in words for kind in _KINDS)
            # A command that only looks makes no journal.
            return (path is None or path_of(path).exists()) and not self._backend.journal.is_empty(0.0)
        except StoreError as error:
            # Workers that start open it at this moment, and what waits in it is laid over what Redis has in any case.
            return not is_busy(error)

    def go_on(self) -> None:
        """Tell the other workers with which servers this one is through, and end what all of them are through with."""
        lacks = self._backend.lacks
        noted = dict(lacks)  # another thread may notice a loss at any moment: the marks are of the server before it
        marks = self._marks()
        places = [(shard, kind) for shard in marks for kind in _KINDS]
        done = {_name(*place): _NOT_THROUGH if self._waits(place) else marks[place[0]] for place in places}
        is_news = self._tell(done)
        # In an empty journal no worker has announced that Redis lost anything, and nothing waits to be merged.
        if not is_news and not lacks and not self._overdue and ask_journal(self._backend.journal.is_empty, "replay"):
            return
        others = ask_journal(self.presence.others, "replay")
        words = None if others is None else list(map(parts_of, others))
        for place in {*noted, *self._overdue, *places}:
            if lacks.get(place) is noted.get(place):
                self._look_at(place, done.get(_name(*place)) or None, words)
            if words and self._is_behind(place, marks.get(place[0]), words):
                lacks[place] = Lack(self._clock(), 0)

    def _waits(self, place: Place) -> bool:
        """Return whether this worker has still to give something back that a shard may lack."""
        return (place in self._backend.lacks or place in self._overdue) and self.refill.waits_for(*place)

    def _look_at(self, place: Place, mark: str | None, words: Sequence[Mapping[str, str]] | None) -> None:
        """End the giving back to a place if all workers of the host are through with the server that this one knows,
        and after a time also if only this one is.

        :param mark: names the server, if this worker is through with it.
        :param words: of the other workers; None: they cannot be read.
        """
        lacks, name = self._backend.lacks, _name(*place)
        is_known = place[0] in self._backend.health.shards
        if not is_known or (mark and words is not None and all(word.get(name) == mark for word in words)):
            lacks.pop(place, None)
            self._overdue.discard(place)
        elif place in lacks and mark and self._clock() >= lacks[place].since + PATIENCE:
            del lacks[place]
            self._overdue.add(place)

    def _is_behind(self, place: Place, mark: str | None, words: Sequence[Mapping[str, str]]) -> bool:
        """Return whether another worker knows of a loss that this one does not know of. A worker that has said nothing
        of a server has not looked at it yet.

        :param mark: names the server that this worker knows.
        """
        is_noted = place in self._backend.lacks or place in self._overdue
        return bool(mark) and not is_noted and any(word.get(_name(*place), mark) != mark for word in words)

    def holds(self, reach: Reach) -> bool:
        """Return whether changes of all sessions have to wait, because something is to be given back before them. While
        the database does not answer, those of users wait alone, see :meth:`holds_session`."""
        self.go_on()
        lacks = list(self._backend.lacks)
        return any(shard in reach.shards and (reach.database or kind == ANONYMOUS) for shard, kind in lacks)

    def holds_session(self, digest: str, kind: str) -> bool:
        """Return whether changes of one session have to wait: its shard may lack sessions of its kind. That another
        worker has brought a user's sign-in there says nothing of the data."""
        return (self._backend.health.locate(digest), kind) in self._backend.lacks

    def holds_now(self, reach: Reach) -> bool:
        """Return whether changes that were read from the journal just now have to wait, after a look whether a shard
        lost data: a worker must not merge what another one has kept because it had noticed that.

        :raises StoreError: one does not answer.
        """
        for shard in reach.shards:
            self._backend.look_for_loss(PRIMARY + shard, steps.TIMEOUT)
        return self.holds(reach)

    @property
    def is_overdue(self) -> bool:
        """Return whether a worker was waited for in vain that may still have something to give back."""
        return bool(self._overdue)

    def _marks(self) -> Mapping[str, str]:
        """Return shard → its server and its last loss, for the shards at which this worker has looked."""
        shards = map(shard_of, self._backend.primary.endpoints)
        return {shard: mark for shard in shards if not (mark := self._mark_of(shard)).endswith(" ")}

    def _mark_of(self, shard: str) -> str:
        """Return the server of one shard and its last loss; with a space at the end: no look for that was made."""
        return self._backend.primary.endpoints[PRIMARY + shard].server_identity.mark

    def _tell(self, done: Mapping[str, str]) -> bool:
        """Tell the other workers what this one is through with, and commands how its memory and its near cache do,
        what Redis lost and which features are in use, if that is news. Return whether it was told."""
        word = {
            **done,
            FORGOTTEN: self._backend.memory.forgotten,
            NEAR: self._backend.near_connections,
            LOST: dict(self._backend.reports.data_lost_at),
            FEATURES: sorted(self._backend.table.features_in_use),
        }
        with self._lock:
            is_news = word != self._said
            is_told = bool(is_news and ask_journal(lambda: self.presence.say(json.dumps(word)), "replay"))
            if is_told:
                self._said = word
            return is_told


def _name(shard: str, kind: str) -> str:
    return f"{shard} {kind}"
