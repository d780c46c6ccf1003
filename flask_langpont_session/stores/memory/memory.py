"""This worker's memory of the sessions it serves: one entry for each, all together bounded by bytes.

An entry holds what a primary said or took, and what the database said of the sign-in. Four questions are asked of it:

- *Need a server be asked?* Not while the connection by which it was read vouches for it, see `stores/redis/near.py`.
- *Need it be sent?* Not if its mark is that of what is kept, see :attr:`Entry.records`.
- *May an outage show it?* As long as it was confirmed less than LOCAL_CACHE_TTL ago, see :meth:`Memory.category`.
- *Is it given back to a server that lost it?* Then, if something was there, see :meth:`Memory.held`.
"""

from __future__ import annotations

import marshal
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ...policy.changes import CategoryChange, Fields
from ...policy.copies import (
    NO_RECORDS,
    NOT_THERE,
    CategoryCopy,
    Change,
    RecordRef,
    SharedCopy,
    rewritten,
    size_of,
    sizes_of,
    written_over,
)
from ...policy.rows import AuthRow
from ...support.caches import Recent
from ...support.forks import renew_in_children
from .ended import Ended
from .packed import Packed, columns_of, parts_of, record_of, row_of

if TYPE_CHECKING:
    from ..redis.lane import Copy
    from ..redis.records import Written

BYTES = 64 * 1024 * 1024
"""The bytes that a worker keeps by default; names and values of fields count."""

LARGEST_SHARE = 16
"""A session that is larger than such a part of it is not kept: it must not push all others out."""

OPEN = 256
"""Sessions whose records are kept as objects, for the next request. Those of the others are :class:`.Packed`, which
takes half of the room and some microseconds."""

_LARGE = 16_384
"""Bytes of a session from which on packing it would save nothing."""

_ENTRY, _COPY, _AUTH, _UNPACKED, _ABSENT, _RECORD, _FIELD = 450, 370, 650, 800, 270, 580, 50
"""Bytes that a session takes beside names and values, about: its entry; what is vouched for; what the database said;
that it is not packed, with what requests are shown of it, and then a record without fields, one that has some, and each
of these."""

IN_USE = 300.0
"""Seconds. A session that was confirmed so lately is in use: to forget it is a sign of too little memory."""

_NO_FIELDS: Fields = MappingProxyType({})
_NOTHING: Any = MappingProxyType({})
_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class LocalAuth:
    """The database's word on a session, and its moment.

    :param row: the row; its `read_at` goes with `confirmed_at`.
    :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
    :param change: the number of the compare-and-set by which this worker made it so; None: it has only read it.
    """

    row: AuthRow
    confirmed_at: float
    change: int | None = None

    def packed(self) -> bytes:
        """Return the same in little room."""
        return marshal.dumps((columns_of(self.row), dict(self.row.payload), self.confirmed_at, self.change))

    @classmethod
    def opened(cls, data: bytes) -> LocalAuth:
        """Return what was packed."""
        columns, payload, *said = marshal.loads(data)
        return cls(row_of(columns, MappingProxyType(payload)), *said)


class _Held(NamedTuple):
    """A record of which an outage may show a copy.

    :param kept_at: when it was confirmed last, by an answer of the primary or by a write, monotonic seconds.
    :param kind: of the session; empty: not known, or nothing was there.
    """

    kept_at: float
    kind: str


class _Missed(NamedTuple):
    """A record that the primary seems not to have any more, until it is known whether it lost data.

    :param at: when that was noticed, monotonic seconds.
    """

    record: CategoryCopy
    held: _Held
    at: float


class Entry:
    """All that this worker keeps of one session. Each part is replaced as a whole, and may be read without the lock.

    :ivar records: category → what a primary said of it, or took.
    :ivar held: category → since when, of those that an outage may show.
    :ivar missed: category → what it was before the primary did not have it any more.
    :ivar near: what a connection vouches for; `seen`: what requests are shown of it, as the last one has made it.
    :ivar weight: its size, as it was counted last.
    :ivar auth: what the database said, perhaps packed; `auth_at`: when it was put here last, monotonic seconds.
    """

    __slots__ = ("auth", "auth_at", "held", "missed", "near", "records", "seen", "weight")

    def __init__(self) -> None:
        self.near: tuple[Copy, ...] = ()
        self.seen: Any = None
        self.weight = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything: another thread may have found the entry just now."""
        self.records: Mapping[str, CategoryCopy] = NO_RECORDS
        self.held: Mapping[str, _Held] = _NOTHING
        self.missed: Mapping[str, _Missed] = _NOTHING
        self.put_near(())
        self.auth: LocalAuth | bytes | None = None
        self.auth_at = _NEVER

    def put_near(self, near: tuple[Copy, ...]) -> None:
        """Replace what a connection vouches for. Requests may have found what was there: it counts no more."""
        for copy in self.near:
            copy.over = None
        self.near, self.seen = near, None

    def pack(self) -> None:
        """Take little room, until a request wants more than a look at what is vouched for. With the lock."""
        records = self.records
        packed = self.records = _packed(records, self.held)
        self.seen, self.held = None, Packed(packed.data, _held)
        if isinstance(self.auth, LocalAuth):
            self.auth = self.auth.packed()
        for copy in self.near:
            if not _is_part(said := copy.records, records):
                copy.records = _packed(said)
            else:
                copy.records = packed if len(said) == len(records) else Packed(packed.data, _record, tuple(said))

    def unpack(self) -> None:
        """Make the entry ready for a request. With the lock."""
        if isinstance(self.auth, bytes):
            self.auth = LocalAuth.opened(self.auth)
        if isinstance(packed := self.records, Packed):
            self.records, self.held = packed.opened(), dict(self.held.items())
            for copy in self.near:
                if isinstance(said := copy.records, Packed):
                    is_part = said.data is packed.data
                    copy.records = {name: self.records[name] for name in said} if is_part else said.opened()

    def copies(self) -> list[tuple[str, CategoryCopy, _Held]]:
        """Return what an outage may show."""
        return [(name, self.records[name], held) for name, held in self.held.items()]

    def lost(self) -> list[tuple[str, CategoryCopy, _Held]]:
        """Return what the primary does not have any more."""
        return [(name, missed.record, missed.held) for name, missed in self.missed.items()]

    def weigh(self) -> None:
        """Count the entry's size anew. Nothing that several parts have counts twice."""
        kept = self.records
        if isinstance(kept, Packed):
            size = _ENTRY + len(kept.data)
            said = [copy.records for copy in self.near if isinstance(copy.records, Packed)]
            size += sum(len(each.data) for each in said if each.data is not kept.data)
        else:
            size = _ENTRY + _UNPACKED + sum(map(_weight, kept.values()))
            for copy in self.near:
                others = [r for name, r in copy.records.items() if r is not kept.get(name) and r is not NOT_THERE]
                size += sum(map(_weight, others))
        if isinstance(self.auth, bytes):
            size += len(self.auth)
        elif self.auth is not None:
            size += _AUTH + _bytes_of(self.auth.row.payload)
        for missed in self.missed.values():
            size += _weight(missed.record)
        self.weight = size + len(self.near) * _COPY


class _Entries(Recent[str, Entry]):
    """The entries by the sessions' digests. Those that were opened first are packed.

    :param lock: for all but :meth:`get` and :meth:`opened`.
    """

    def __init__(self, most: int, on_drop: Callable[[Iterable[Entry]], None], lock: threading.RLock) -> None:
        super().__init__(most, most // LARGEST_SHARE, on_drop)
        self._lock = lock
        self._open: dict[str, None] = {}

    def opened(self, digest: str) -> Entry | None:
        """Return what is kept of a session, not packed; None: nothing."""
        entry = self.get(digest)
        if entry is not None and type(entry.records) is Packed:
            with self._lock:
                self.of(digest)
        return entry

    def of(self, digest: str) -> Entry:
        """Return the entry of a session, not packed; a new one is to be put as soon as it has something."""
        entry = self.get(digest)
        if entry is None:
            entry = Entry()
        elif type(entry.records) is not Packed:
            return entry
        else:
            entry.unpack()
            entry.weigh()
            self.put(digest, entry, entry.weight)
        self._open[digest] = None
        if len(self._open) > OPEN:
            del self._open[first := next(iter(self._open))]
            self._pack(first)
        return entry

    def _pack(self, digest: str) -> None:
        """Pack an entry, which does not count as asking for it."""
        part = self._young if digest in self._young else self._old
        before, entry = part.get(digest, (0, None))
        if entry is not None and entry.weight < _LARGE:
            entry.pack()
            entry.weigh()
            part[digest] = entry.weight, entry
            self._sum += entry.weight - before if part is self._young else 0


class Memory:
    """The memory of one worker process. Safe to use from several threads. A forked child begins with nothing.

    A copy is known until its time is over since it was confirmed last; reading prolongs nothing. Sessions that were not
    asked for lately go first. What is over is kept apart, and for longer than any copy.

    :param most: bytes.
    :param ttl: seconds for which a copy may be shown.
    :param ended: what it knows of sessions that are over; None: nothing yet.
    :param clock: monotonic seconds.
    :ivar on_missing: called with a digest when the primary does not have what it had: it may have lost data. Must not
        raise or block.
    :ivar entry: gets a digest and returns what is known of the session, for those that look at a part without the lock.
    :ivar opened: the same, for a request that goes by its records.
    :ivar forgotten: sessions in use that had to go because there was no room.
    """

    def __init__(
        self,
        most: int = BYTES,
        ttl: float = 1800,
        *,
        ended: Ended | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended = ended or Ended(most, ttl, clock=clock)
        self.on_missing: Callable[[str], None] = lambda digest: None
        self._most = most
        self._ttl = ttl
        self._clock = clock
        self._begin()
        # Another thread may hold the lock, with a map half changed, at the moment of a fork.
        renew_in_children(self, Memory._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self.forgotten = 0
        self._entries = _Entries(self._most, self._drop, self._lock)
        self.entry, self.opened = self._entries.get, self._entries.opened
        self._any_missed = False

    def _drop(self, entries: Iterable[Entry]) -> None:
        """Count the sessions in use among entries for which there is no room."""
        used_since = self._clock() - IN_USE
        for entry in entries:
            latest = [held.kept_at for held in tuple(entry.held.values())]  # another thread may be putting one
            self.forgotten += max([entry.auth_at, *latest]) > used_since

    @property
    def sessions(self) -> int:
        """Return how many sessions are kept."""
        return len(self._entries)

    @property
    def used(self) -> int:
        """Return about how many bytes the entries take."""
        return sum(entry.weight for _, entry in self._entries.items())

    # -- need it be asked or sent? ---------------------------------------------------------------------------------

    def put_near(self, digest: str, near: tuple[Copy, ...]) -> None:
        """Keep what a connection vouches for."""
        with self._lock:
            entry = self._entries.of(digest)
            entry.put_near(near)
            entry.weigh()
            self._entries.put(digest, entry, entry.weight)

    def rewrite(
        self,
        digest: str,
        entry: Entry | None,
        near: Sequence[Copy],
        changes: Mapping[str, CategoryChange],
        done: Written,
        change_id: bytes,
    ) -> bool:
        """Have what a connection vouches for, and what requests are shown of it, be as new as a write over it.

        :param entry: what was known of the session before it; None: nothing.
        :param near: what the connection vouches for.
        :param done: the write, which is told what came of it here.
        :return: False: of one category it is not known what there is.
        """
        with self._lock:
            if entry is None or type(entry.records) is Packed:
                entry = self._entries.of(digest)
            known, held, seen, grown, is_held = entry.records, entry.held, entry.seen, 0, True
            written: dict[str, CategoryCopy] = {}
            for name, version in done.versions.items():
                before = known.get(name, NOT_THERE)
                written[name] = after = rewritten(digest, before, changes[name], version)
                if not after.mark:
                    return False
                if sizes_of(after.mark) != sizes_of(before.mark):
                    grown += size_of(after.mark) - (size_of(before.mark) if before.mark else -_RECORD)
                if version.before and name in held:
                    held = {**held, name: _Held(self._clock(), held[name].kind)}
                else:
                    is_held = False
            if seen is not None and not (seen.copy in near and seen.records is seen.copy.records):
                seen = None  # another thread made it of what there was before an earlier write
            for copy in near:
                said = copy.records
                copy.records = dict(zip(said, map(written.get, said, said.values()), strict=True))
                copy.change_id = change_id
            entry.records, entry.held = {**known, **written}, held
            done.is_held, done.shown = is_held, None if seen is None else seen.since(changes, written)
            entry.seen = done.shown
            if grown:
                entry.weight += grown
                self._entries.put(digest, entry, entry.weight)
            return True

    def note(self, ref: RecordRef, found: Mapping[str, CategoryCopy]) -> None:
        """Keep what a primary said, so that it need not be sent again. Copies go by :meth:`put_category`."""
        if ref.shadow or self.ended.is_dead(ref.digest):
            return
        with self._lock:
            entry = self._entries.of(ref.digest)
            kept, held = entry.records, entry.held
            news = {n: r for n, r in found.items() if r.mark and n not in held and r is not kept.get(n)}
            if news:
                entry.records = {**kept, **news}
                entry.weigh()
                self._entries.put(ref.digest, entry, entry.weight)

    # -- auth ------------------------------------------------------------------------------------------------------

    def auth(self, digest: str) -> LocalAuth | None:
        """Return what the database last said of this session; None: nothing known here, or dead."""
        entry = self.entry(digest)
        if entry is None or self._clock() - entry.auth_at >= self._ttl:
            return None
        return LocalAuth.opened(entry.auth) if isinstance(entry.auth, bytes) else entry.auth

    def put_auth(
        self, row: AuthRow, confirmed_at: float, confirmed_ms: int | None = None, *, change: int | None = None
    ) -> None:
        """Keep what the database said, unless something newer is kept or the session is dead.

        Newer is the higher version; of the same version, what was confirmed later. The version becomes the minimum
        version.

        :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
        :param confirmed_ms: the same moment as milliseconds since 1970, as Redis tells it; None: when the row was read,
            by the database's own word.
        :param change: the number of this worker's change that made it so.
        """
        with self._lock:
            if confirmed_ms is None:
                self.ended.database_clock.note(row.read_at, confirmed_at)
            if row.version > 1:
                self.ended.raise_min_version(row.digest, row.version)
            known = self.auth(row.digest)
            if known is None and self.ended.is_dead(row.digest):
                return
            if known is not None and (known.row.version, known.confirmed_at) > (row.version, confirmed_at):
                return
            entry, payload = self._entries.of(row.digest), row.payload
            is_known = known is not None and known.row.payload == payload
            payload = known.row.payload if known and is_known else MappingProxyType(dict(payload))
            read_at = row.read_at if confirmed_ms is None else confirmed_ms
            entry.auth, entry.auth_at = LocalAuth(row.read_as(payload, read_at), confirmed_at, change), self._clock()
            if not is_known:
                entry.weigh()
                self._entries.put(row.digest, entry, entry.weight)

    # -- may an outage show it, is it given back? ------------------------------------------------------------------

    def category(self, digest: str, category: str, *, before_loss: bool = False) -> CategoryCopy | None:
        """Return the category as this worker last saw it; None: nothing known here, or the session is dead.

        :param before_loss: as it was before the primary did not have it any more, if that may have lost it.
        """
        with self._lock:
            entry = self.opened(digest)
            missed = entry.missed.get(category) if entry and before_loss else None
            if missed is not None and self._clock() - missed.held.kept_at < self._ttl:
                return missed.record
            found = self._copy(digest, category)
        return found[0] if found else None

    def put_category(
        self, digest: str, category: str, record: CategoryCopy, *, kind: str = "", as_of: float = -math.inf
    ) -> bool:
        """Keep a category that was read as a whole, unless a higher version is kept or it is dead.

        :param kind: of the session; empty: it is not known.
        :param as_of: of what the primary said: when it was asked at the earliest, monotonic seconds. Its version counts
            even if it is lower than what was kept before that, because a category that was cleared begins anew.
        :return: whether this is news here.
        """
        with self._lock:
            found = self._copy(digest, category)
            if found is None:
                if not self.ended.is_dead(digest):
                    self._keep(digest, category, record, kind)
                return True
            known, held = found  # what is kept is not dead: kill() takes it away
            if known.version > record.version and held.kept_at > as_of:
                return False
            is_news = known.version != record.version or known.fields != record.fields
            if is_news or record.mark != known.mark:
                self._keep(digest, category, record, kind or held.kind)
            else:
                entry = self._entries.of(digest)
                entry.held = {**entry.held, category: _Held(self._clock(), kind or held.kind)}
        return is_news

    def put_absent(self, digest: str, category: str, version: int, as_of: float = math.inf) -> bool:
        """Keep that by the primary's word nothing is there: that is not the same as not to know.

        :param version: the moment of that, as a version.
        :param as_of: when it was asked at the earliest, monotonic seconds: what was kept since then is later.
        :return: whether something was there before, as far as is known here, and it is not perhaps lost.
        """
        with self._lock:
            found = self._copy(digest, category)
            if found is not None and not found[0].fields:
                entry = self._entries.of(digest)
                entry.held = {**entry.held, category: found[1]._replace(kept_at=self._clock())}  # it is so still
                return False
            if self.ended.is_dead(digest) or (found is not None and found[1].kept_at > as_of):
                return False
            is_missing = found is not None and bool(found[1].kind)
            if found is not None and is_missing:
                self._any_missed = True
                entry = self._entries.of(digest)
                entry.missed = {**entry.missed, category: _Missed(*found, self._clock())}
            self._keep(digest, category, CategoryCopy(version, _NO_FIELDS, began=version), "")
        if is_missing:
            self.on_missing(digest)
        return found is not None and not is_missing

    def write(
        self,
        digest: str,
        category: str,
        change: CategoryChange,
        version: Change,
        *,
        kind: str = "",
        found: CategoryCopy | None = None,
    ) -> None:
        """Have what is kept be as new as a write of this worker.

        A copy takes the new version only if it was the one before the write. Otherwise other writes came between that
        this worker has not seen; the copy keeps its version, so that another worker's complete copy counts as newer.
        Where nothing is kept a part of a category is not kept as if it were the whole.

        :param version: before the write and after it.
        :param found: the category as the request had read it.
        """
        with self._lock:
            kept = self._copy(digest, category)
            if kept is not None and kept[0].version >= version.after:
                return  # it contains the write already
            if change.wipe or not version.before:
                base = CategoryCopy(0, _NO_FIELDS, began=0 if change.wipe else version.after)
            elif found is not None and found.version == version.before:
                base = found._replace(began=kept[0].began if kept else version.after)
            elif kept is not None:
                base = kept[0]
            else:
                return
            if not self.ended.is_dead(digest):
                record = written_over(digest, base, change, version)
                self._keep(digest, category, record, kind or (kept[1].kind if kept else ""))

    def live_categories(self) -> list[SharedCopy]:
        """Return every copy that is not too old, the one that was confirmed last first: to be shared when an outage
        begins."""
        return self._listed(Entry.copies)

    def held(self) -> list[SharedCopy]:
        """Return every copy of what was really there, or was wiped, as :meth:`live_categories` does: to be given back
        to a primary that lost it."""
        return [copy for copy in [*self._listed(Entry.lost), *self._listed(Entry.copies)] if copy.kind]

    def nothing_was_lost(self, before: float, concerns: Callable[[str], bool]) -> None:
        """Forget what the primary did not have any more: it was really over.

        :param before: monotonic seconds; what was missed later may be lost all the same.
        :param concerns: whether it is the one that has a session, by its digest.
        """
        if not self._any_missed:
            return
        with self._lock:
            self._any_missed = False
            for digest, entry in self._entries.items():
                if entry.missed and concerns(digest):
                    entry.missed = {name: missed for name, missed in entry.missed.items() if missed.at >= before}
                self._any_missed = self._any_missed or bool(entry.missed)

    def kill(self, digest: str) -> None:
        """Forget a session that is dead, and let nothing of it be kept again."""
        self.ended.kill(digest)
        self.forget(digest)

    def sign_out_user(self, user_id: str, until_ms: int, epoch: int = 0) -> list[str]:
        """Note that a user was logged out everywhere, while not every store knows it yet.

        :param until_ms: sessions created until then are dead, milliseconds since 1970.
        :param epoch: those of an earlier epoch are dead too.
        :return: the digests of those known here; they are dead now.
        """
        if not self.ended.note_user(user_id, until_ms, epoch):
            return []
        with self._lock:
            rows = [auth.row for digest, _ in self._entries.items() if (auth := self.auth(digest))]
        dead = [row.digest for row in rows if row.user_id == user_id and self.ended.is_signed_out(row)]
        for digest in dead:
            self.kill(digest)
        return dead

    def forget(self, digest: str) -> None:
        """Drop what is kept of a session; if it is dead, it stays dead."""
        with self._lock:
            if entry := self._entries.pop(digest):
                entry.clear()

    def clear(self) -> None:
        """Drop all that is kept. The dead stay dead."""
        with self._lock:
            self._entries.clear()

    def _keep(self, digest: str, category: str, record: CategoryCopy, kind: str) -> None:
        entry = self._entries.of(digest)
        entry.records = {**entry.records, category: record}
        entry.held = {**entry.held, category: _Held(self._clock(), kind)}
        entry.weigh()
        self._entries.put(digest, entry, entry.weight)

    def _copy(self, digest: str, category: str) -> tuple[CategoryCopy, _Held] | None:
        """Return the record of a category; None: there is none, or it was not confirmed for too long."""
        entry = self.entry(digest)
        held = entry.held.get(category) if entry else None
        is_young = held is not None and self._clock() - held.kept_at < self._ttl
        return (entry.records[category], held) if entry and held and is_young else None

    def _listed(self, of: Callable[[Entry], Iterable[tuple[str, CategoryCopy, _Held]]]) -> list[SharedCopy]:
        now = self._clock()
        with self._lock:
            all_of = [(digest, *part) for digest, entry in self._entries.items() for part in of(entry)]
        young = [part for part in all_of if now - part[3].kept_at < self._ttl]
        young.sort(key=lambda part: -part[3].kept_at)
        return [SharedCopy(d, name, record, now - held.kept_at, held.kind) for d, name, record, held in young]


_NOT_HELD = None, ""


def _packed(records: Mapping[str, CategoryCopy], held: Mapping[str, _Held] = _NOTHING) -> Packed[CategoryCopy]:
    parts = {name: (*held.get(name, _NOT_HELD), *parts_of(record)) for name, record in records.items()}
    return Packed(marshal.dumps(parts), _record)


def _record(kept_at: float | None, kind: str, *parts: Any) -> CategoryCopy:
    return record_of(*parts)


def _held(kept_at: float | None, kind: str, *parts: Any) -> _Held | None:
    return None if kept_at is None else _Held(kept_at, kind)


def _is_part(said: Mapping[str, CategoryCopy], records: Mapping[str, CategoryCopy]) -> bool:
    """Return whether all of an answer is kept. Of what was not there a version is kept."""
    return said.keys() <= records.keys() and all(
        record == (kept := records[name]) or (record == NOT_THERE and not (kept.mark or kept.fields))
        for name, record in said.items()
    )


def _weight(record: CategoryCopy) -> int:
    return _RECORD + _bytes_of(record.fields) if record.fields else _ABSENT


def _bytes_of(fields: Fields) -> int:
    return sum(map(len, fields.values())) + _FIELD * len(fields)
