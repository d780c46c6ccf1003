"""The contents of the journal: the rows of its tables as values.

A field that waits for Redis is one row however often it is written; an addition that was sent, whose outcome is
unknown, stays a row of its own. :func:`put_write` says what remains of what waits when more is written.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from ...policy.changes import Basis, Operation
from ...policy.copies import CategoryCopy, RecordRef, SharedCopy, is_written_by, may_be_later, written_at
from ...policy.errors import ErrorClass, StoreError
from ...policy.ids import ANONYMOUS
from ...policy.servers import ServerRecord
from ..codec.plain import Codec

_INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """A session that is dead, as long as not both the database and Redis know it.

    :param at_ms: when it was first revoked here, milliseconds since 1970 by the host's clock.
    :param in_database: the database has it.
    :param in_redis: Redis has the tombstone.
    """

    seq: int
    digest: str
    at_ms: int
    in_database: bool
    in_redis: bool


@dataclass(frozen=True, slots=True)
class PendingUserRevocation:
    """A user that was logged out everywhere, while not all stores know that its sessions have ended.

    :param until_ms: sessions that began then or earlier are dead, milliseconds since 1970. Later ones are not.
    :param epoch: sessions of an earlier epoch are dead too; 0: there is none.
    :param in_database: the database knows that they are dead.
    :param reached: up to this digest, the database and Redis have all that follows.
    """

    seq: int
    user_id: str
    until_ms: int
    epoch: int = 0
    in_database: bool = False
    reached: str = ""


@dataclass(frozen=True, slots=True)
class PendingPush:
    """Redis lacks what the database has for this session."""

    seq: int
    digest: str


class Carry(NamedTuple):
    """Data of some categories that a session had under a former id and is to have under the present one, where it has
    none of that name.

    :param origin: the digest of the former id.
    :param digest: of the present one, whose kind it is.
    :param left_us: when the former id was given up, microseconds by the Redis clock: what it had then is wiped when it
        was brought, and not shown any more. 0: it is left to run out, or is revoked.
    :param lives_ms: of each category how long its data may lie unused, milliseconds; none, or 0: as the table says.
    :param seq: its number; 0: it is not kept yet.
    """

    origin: str
    digest: str
    kind: str
    categories: Sequence[str]
    left_us: int = 0
    lives_ms: Sequence[int] = ()
    seq: int = 0

    @property
    def lives(self) -> Mapping[str, int]:
        """Return category → its life; 0: as the table says."""
        return dict(zip(self.categories, self.lives_ms or [0] * len(self.categories), strict=True))


@dataclass(frozen=True, slots=True)
class Overlay:
    """Everything this host knows about one session and the stores may not.

    :param revoked: the session is dead.
    :param writes: category → key → encoded value, None for a deleted key.
    :param deltas: category → key → additions to the value in Redis: the id of each, and how much.
    :param wiped: categories of which nothing but this is left.
    :param guesses: category → those keys of `writes` whose value was made without knowing what the stores have.
    :param copies: category → the newest copy that a worker of this host published.
    :param users: user id → until when, for every user that was logged out everywhere, whichever session this is: only
        the session's own record says whose it is and when it began. See :class:`PendingUserRevocation`.
    :param epochs: user id → the epoch that goes with it.
    :param version: of the row that Redis is to be told of; 0: of none that is known.
    :param carried: categories to which data of a former id is still to be brought, or of which data is still to be
        brought to a later id.
    :param is_known: False: the journal holds something, and could not be read in time.
    """

    revoked: bool
    writes: Mapping[str, Mapping[str, bytes | None]]
    deltas: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]]
    copies: Mapping[str, CategoryCopy]
    wiped: frozenset[str] = frozenset()
    guesses: Mapping[str, Set[str]] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    version: int = 0
    carried: frozenset[str] = frozenset()
    is_known: bool = True

    def has_writes(self, category: str) -> bool:
        """Return whether data of a category waits here: what is written after it must not reach Redis before it."""
        return any(category in waiting for waiting in (self.writes, self.deltas, self.wiped, self.carried))


NOTHING = Overlay(revoked=False, writes={}, deltas={}, copies={})
"""The answer of the journal about nearly every session: it holds nothing of it."""

UNKNOWN = Overlay(revoked=False, writes={}, deltas={}, copies={}, is_known=False)
"""The answer about a session while the journal holds something but cannot be read in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWrite:
    """One change of a session that waits to be merged into Redis. The columns of ``writes`` are named like this.

    :param seq: given anew at each write of the field, never twice, always higher. 0: not kept yet.
    :param digest: the session.
    :param kind: ``a`` anonymous, ``u`` signed in.
    :param shadow: belongs to the anonymous shadow of a dead session id.
    :param category: the category the field belongs to.
    :param operation: what is to be done.
    :param field: the session key; of a wipe ``@``, which no key begins with.
    :param value: the encoded value to be set.
    :param delta: what is to be added.
    :param basis: what a value was made from.
    :param moment: microseconds by the Redis clock: the version of a value that was seen, else when it was written; of
        an addition that was sent, when that was. Of auth of a signed-in session: the version of its row.
    :param base: the encoded value that the request saw, or that is known to be older; None: none.
    :param doubts: ids of the writes by which Redis may have it already, each with a blank behind it.
    :param token: of an addition its id; else empty.
    :param is_sent: an addition that Redis may have: it is not changed any more.
    :param acknowledged: when it was last written, microseconds by the Redis clock.
    :param at_ms: when the field was last written, milliseconds since 1970 by the host's clock.
    :param life_ms: how long the category's data may lie unused, milliseconds; 0: as the table says.
    """

    seq: int = 0
    digest: str
    kind: str
    shadow: bool = False
    category: str
    operation: Operation
    field: str
    value: bytes | None = None
    delta: int = 0
    basis: Basis = Basis.BLIND
    moment: int = 0
    base: bytes | None = None
    doubts: str = ""
    token: str = ""
    is_sent: bool = False
    acknowledged: int = 0
    at_ms: int = 0
    life_ms: int = 0


_NAMES = tuple(column.name for column in fields(PendingWrite))
_COLUMNS = ", ".join(_NAMES)
# SQLite gives the number.
_INSERT = f"INSERT INTO writes ({', '.join(_NAMES[1:])}) VALUES ({', '.join('?' * len(_NAMES[1:]))})"
_values = attrgetter(*_NAMES[1:])

WIPED_FIELD = "@"
"""Stands for all fields of a category."""

_WIPED = "SELECT category FROM writes WHERE digest = ? AND NOT shadow AND operation = ?"

_OF_CATEGORY = f"""FROM writes
    WHERE digest = ? AND NOT shadow AND category = ? AND operation <> '{Operation.WIPE}'"""

_INSERT_CARRY = """INSERT INTO carries (origin, digest, kind, categories, lives_ms, left_us, at_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""

_CATEGORY = "digest = ? AND shadow = ? AND category = ?"

FIELD = f"{_CATEGORY} AND field = ?"
"""The condition for one field in ``writes``."""

_PUT_COPY = """INSERT INTO copies (digest, category, version, fields, additions, kind, at_ms)
    SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE digest = ?)
    ON CONFLICT (digest, category)
        DO UPDATE SET version = excluded.version, fields = excluded.fields, additions = excluded.additions,
            kind = excluded.kind, at_ms = excluded.at_ms
        WHERE excluded.version > copies.version"""

_CONFIRM_COPY = "UPDATE copies SET at_ms = ? WHERE digest = ? AND category = ? AND version = ? AND at_ms < ?"
"""The latest of several workers' confirmations of this version counts."""


def put_write(db: sqlite3.Connection, entry: PendingWrite) -> PendingWrite | None:
    """Keep a change, merged with what waits of its field already, under a new number.

    :return: what was made without knowing what is there, and is lost because something else is there: this change,
        which is not kept then; or the value that waited, if the request of this change saw what the stores have.
    """
    place = (entry.digest, entry.shadow, entry.category)
    if entry.operation is Operation.WIPE:
        _put_wipe(db, place, entry)
        return None
    waiting, wiped_us = of_field(db, entry), _wiped_at(db, place)
    if entry.basis is Basis.UNSEEN and not _has_seen(waiting, wiped_us is not None, entry):
        return entry
    if wiped_us is not None and entry.operation is not Operation.ADD:
        # Nothing was there any more, whatever version was read. It must not lose against the wipe itself, whichever
        # server's clock that was by.
        moment = entry.moment if entry.basis is Basis.BLIND else entry.acknowledged
        entry = replace(entry, basis=Basis.BLIND, moment=max(moment, wiped_us), base=None)
    lost = next((row for row in waiting if _knows_more(entry, row) and entry.base not in (None, row.value)), None)
    if waiting:
        if entry.operation is Operation.ADD:
            replaced, entry = _with_addition(waiting, entry)
        else:
            replaced, entry = waiting, _in_place_of(waiting, entry)
        # Not INSERT OR REPLACE: of what that deletes no trigger hears, and the entries would be counted wrong.
        db.executemany("DELETE FROM writes WHERE seq = ?", [(row.seq,) for row in replaced])
    if not (entry.operation is Operation.DELETE and entry.basis is Basis.UNSEEN):  # there is nothing that it may delete
        db.execute(_INSERT, _values(entry))
    return lost


def of_field(db: sqlite3.Connection, entry: PendingWrite) -> list[PendingWrite]:
    """Return what waits of the field of a change, in its order."""
    place = (entry.digest, entry.shadow, entry.category, entry.field)
    rows = db.execute(f"SELECT {_COLUMNS} FROM writes WHERE {FIELD} ORDER BY seq", place).fetchall()
    return list(filter(None, map(_understood, rows)))


def _put_wipe(db: sqlite3.Connection, place: tuple[str, bool, str], wipe: PendingWrite) -> None:
    """Keep a wipe, in the place of all that waits. It may have come late: what was acknowledged after it, by a worker
    that did not know of it, stays."""
    db.execute(f"DELETE FROM writes WHERE {_CATEGORY} AND at_ms <= ?", (*place, wipe.at_ms))
    if _wiped_at(db, place) is None:
        db.execute(_INSERT, _values(wipe))


def _has_seen(waiting: Sequence[PendingWrite], is_wiped: bool, guess: PendingWrite) -> bool:
    """Return whether a guess (a value made without knowing what the stores have) was made from what waits here."""
    if is_wiped and not waiting:
        return guess.base is None
    return all(row.operation is not Operation.ADD and row.value == guess.base for row in waiting)


def _wiped_at(db: sqlite3.Connection, place: tuple[str, bool, str]) -> int | None:
    """Return the moment of a wipe that waits, microseconds by the Redis clock; None: there is none."""
    row = db.execute(f"SELECT moment FROM writes WHERE {FIELD}", (*place, WIPED_FIELD)).fetchone()
    return row and int(row[0])


def _in_place_of(waiting: Sequence[PendingWrite], new: PendingWrite) -> PendingWrite:
    """Return the change to be kept when a field that waits is set or deleted."""
    value = next((row for row in waiting if row.operation is not Operation.ADD), None)
    doubts = new.doubts + "".join(row.doubts for row in waiting if row.doubts not in new.doubts)
    if value is None or new.basis is Basis.BLIND or _knows_more(new, value):
        return replace(new, doubts=doubts)
    # What is made from a value that waits knows no more of Redis than that value did.
    return replace(new, basis=value.basis, moment=value.moment, base=value.base, doubts=doubts)


def _knows_more(new: PendingWrite, waiting: PendingWrite) -> bool:
    """Return whether a value was made from what the stores have, and one that waits without knowing that. Where the
    stores do not say what they have, the one that waits is shown, and what is made from it is UNSEEN as well."""
    return new.basis is Basis.SEEN and waiting.basis is Basis.UNSEEN


def _with_addition(waiting: Sequence[PendingWrite], new: PendingWrite) -> tuple[list[PendingWrite], PendingWrite]:
    """Return the rows whose place an addition takes, and the change to be kept then.

    :raises StoreError: of class DATA: what waits is no whole number.
    """
    for row in waiting:
        if row.operation is Operation.ADD:
            if not row.is_sent and not new.is_sent:
                return [row], replace(row, delta=row.delta + new.delta, acknowledged=new.acknowledged, at_ms=new.at_ms)
        elif row.basis is not Basis.UNSEEN and not new.is_sent and len(waiting) == 1:
            return [row], replace(
                row,
                operation=Operation.SET,
                value=_added(row.value, new.delta),
                acknowledged=new.acknowledged,
                at_ms=new.at_ms,
            )
    return [], new


def put_copy(
    db: sqlite3.Connection, shared: SharedCopy, now_ms: int, codec: Codec, *, is_outdated: bool
) -> Counter[Basis]:
    """Share a copy, unless one as new is there or the session is revoked. Values that wait and have lost against it go:
    those that were made from an older version, and differ from what they were made from now; and those whose request
    could not read what the copy has. Without that, all that is made from such a value would be lost with it. Of values
    that were made from nothing, and are later than what the copy has, that is noted: Redis that is given it back does
    not know when it was written.

    :param is_outdated: a worker of this host has seen a later version, in which all may be different.
    :return: how many values that were, by what they were made from.
    """
    digest, category, copy = shared[:3]
    stored = codec.to_store(digest, category, copy.fields)
    known_since_ms = now_ms - int(shared.age * 1000)
    fields = msgspec.msgpack.encode(dict(stored))
    row = (digest, category, copy.version, fields, copy.additions, shared.kind, known_since_ms, digest)
    put = db.execute(_PUT_COPY, row)
    lost: Counter[Basis] = Counter()
    if not put.rowcount:
        db.execute(_CONFIRM_COPY, (known_since_ms, digest, category, copy.version, known_since_ms))
        return lost
    waiting = db.execute(
        """SELECT seq, field, value, basis, base, doubts, moment FROM writes
        WHERE digest = ? AND shadow = 0 AND category = ? AND token = '' AND (basis <> ? OR moment < ?)""",
        (digest, category, Basis.SEEN, copy.version),
    ).fetchall()
    for seq, name, value, basis, base, doubts, moment in waiting:
        now = stored.get(name)
        if basis == Basis.BLIND:
            has_lost = False
            if copy.mark and written_at(copy.mark, name) < moment:
                db.execute("UPDATE writes SET base = ? WHERE seq = ?", (now, seq))
        elif basis == Basis.UNSEEN:
            has_lost = now not in (None, value) and not is_outdated
        else:
            # What Redis has may be this very value as it was before, by a merge whose answer was lost.
            has_lost = now not in (base, value) and not is_written_by(copy.mark, name, doubts)
            if has_lost and copy.mark:  # what Redis was given back may be older than what the value was made from
                has_lost = may_be_later(copy.mark, name, moment)
            elif not has_lost:
                db.execute("UPDATE writes SET moment = ?, base = ? WHERE seq = ?", (copy.version, now, seq))
        if has_lost and not doubts:  # else it may be this host's own: the merge finds out
            db.execute("DELETE FROM writes WHERE seq = ?", (seq,))
            lost[Basis(basis)] += 1
    return lost


def oldest_writes(db: sqlite3.Connection, limit: int, after: int) -> tuple[list[PendingWrite], dict[int, str]]:
    """Return the fields that wait, the one written longest ago first, from behind a number; and the numbers of damaged
    rows, with the category that stands there."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM writes WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)).fetchall()
    entries = {row: _understood(row) for row in rows}
    damaged = {row[0]: str(row[_NAMES.index("category")]) for row, entry in entries.items() if entry is None}
    return [entry for entry in entries.values() if entry], damaged


def take_out(
    db: sqlite3.Connection, ref: RecordRef, category: str, fields: Iterable[str] | None, added: Iterable[str] = ()
) -> int:
    """Take out what waits for some fields of a category, because a store is about to get what comes after it.

    :param fields: those that are set or deleted; None: all are wiped.
    :param added: those that are added to: what they were to be set to goes, additions to them stay.
    :return: how many of the latter were to be set or deleted.
    """
    place = (ref.digest, ref.shadow, category)
    if fields is None:
        db.execute(f"DELETE FROM writes WHERE {_CATEGORY}", place)
    db.executemany(f"DELETE FROM writes WHERE {FIELD}", [(*place, name) for name in fields or ()])
    of_values = f"DELETE FROM writes WHERE {FIELD} AND operation <> '{Operation.ADD}'"
    return sum(db.execute(of_values, (*place, name)).rowcount for name in added)


def unmarked(db: sqlite3.Connection, entries: Sequence[PendingWrite]) -> list[PendingWrite]:
    """Return those that still wait as they are and may be sent without a mark: absolute values, which are the same
    however often they are sent. What waits for a field to which something is added has to wait with that."""
    sql = f"SELECT count(*), sum(operation = '{Operation.ADD}') FROM writes WHERE {FIELD} AND (seq = ? OR token <> '')"

    def may_be_sent(entry: PendingWrite) -> bool:
        place = (entry.digest, entry.shadow, entry.category, entry.field)
        rows, additions = db.execute(sql, (*place, entry.seq)).fetchone()
        return bool(rows) and not additions

    return [entry for entry in entries if may_be_sent(entry)]


def read_overlay(db: sqlite3.Connection, ref: RecordRef, copies_since_ms: int, codec: Codec) -> Overlay:
    """Return all that waits for one session, or for its anonymous shadow, of which copies are never published. Of a
    value that cannot be opened it is not known what it was to change.

    :param copies_since_ms: copies that were known last before then are too old, milliseconds since 1970.
    """
    digest, _, shadow = ref
    sql = f"SELECT {_COLUMNS} FROM writes WHERE digest = ? AND shadow = ? ORDER BY seq"
    writes: dict[str, dict[str, bytes | None]] = {}
    deltas: dict[str, dict[str, list[tuple[str, int]]]] = {}
    guesses: dict[str, set[str]] = {}
    wiped = set()
    for entry in filter(None, map(_understood, db.execute(sql, (digest, shadow)))):
        if entry.operation is Operation.WIPE:
            wiped.add(entry.category)
        elif entry.operation is Operation.ADD:
            deltas.setdefault(entry.category, {}).setdefault(entry.field, []).append((entry.token, entry.delta))
        else:
            waiting, value = writes.setdefault(entry.category, {}), entry.value
            if value is not None:
                value = codec.value_from_store(digest, entry.category, entry.field, value)
            if not codec.is_damaged(value):
                waiting[entry.field] = value
            if entry.basis is Basis.UNSEEN and entry.category not in wiped:
                guesses.setdefault(entry.category, set()).add(entry.field)
    copies = {} if shadow else dict(_copies(db, digest, copies_since_ms, codec))
    ended = db.execute("SELECT user_id, until_ms, epoch FROM user_revocations").fetchall()
    users, epochs = {user: until_ms for user, until_ms, _ in ended}, {user: epoch for user, _, epoch in ended if epoch}
    version = _pushed_version(db, digest)
    revoked = is_revoked(db, digest)
    carried, given_up = (frozenset(), frozenset()) if shadow else _carried(db, digest)
    return Overlay(revoked, writes, deltas, copies, given_up | wiped, guesses, users, epochs, version, carried)


def _carried(db: sqlite3.Connection, digest: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the categories that are brought to a session or from it, and those that it has given up."""
    sql = "SELECT categories, lives_ms, origin = ? AND left_us FROM carries WHERE digest = ? OR origin = ?"
    rows = [(_lives(*texts), is_left) for *texts, is_left in db.execute(sql, (digest, digest, digest))]
    given_up = frozenset(name for names, is_left in rows if is_left for name in names)
    return frozenset(name for names, _ in rows for name in names), given_up


def _lives(categories: str, lives_ms: str) -> dict[str, int]:
    """Return the categories of a carry as they are kept → the life of each, milliseconds; 0 of what the former release
    has kept. None of them: the row is damaged."""
    try:
        names = categories.split("\n") if categories else []
        lives = [int(life) for life in lives_ms.split("\n")] if lives_ms else [0] * len(names)
        return dict(zip(names, lives, strict=True))
    except (AttributeError, TypeError, ValueError):
        return {}


def _as_texts(lives: Mapping[str, int]) -> tuple[str, str]:
    """Return the lives of categories as they are kept: the opposite of :func:`_lives`."""
    return "\n".join(lives), "\n".join(map(str, lives.values()))


def as_stored(entry: PendingWrite, codec: Codec) -> PendingWrite:
    """Return a change as it is kept: what the journal compares are the texts that Redis gets, or may have already."""
    return _by(codec.value_to_store, codec.base_to_store, entry)


def as_known(entry: PendingWrite, codec: Codec) -> PendingWrite:
    """Return a kept change as this process knows it, with its values opened."""
    return _by(codec.value_from_store, codec.value_from_store, entry)


def _by(of_value: Callable[..., bytes], of_base: Callable[..., bytes], entry: PendingWrite) -> PendingWrite:
    place, value, base = (entry.digest, entry.category, entry.field), entry.value, entry.base
    value = None if value is None else of_value(*place, value)
    base = None if base is None else of_base(*place, base)
    return entry if value is entry.value and base is entry.base else replace(entry, value=value, base=base)


def _moved(entry: PendingWrite, digest: str, kind: str, codec: Codec) -> PendingWrite:
    """Return what waits for a session under one id as it waits under another one."""
    return as_stored(replace(as_known(entry, codec), digest=digest, kind=kind), codec)


Stays = Callable[[PendingWrite], bool]
"""Says whether a change that waits for a category is not taken along with it."""


def put_carry(
    db: sqlite3.Connection, carry: Carry, *, now_ms: int, codec: Codec, stays: Stays = lambda entry: False
) -> list[PendingWrite]:
    """Keep that what a session has under a former id is to be brought to the present one. What waits of it here waits
    for the present one from now on.

    :return: what waited for the present one and is not kept, see :func:`put_write`.
    """
    (origin, digest, kind, *_), lives, left_us = carry, carry.lives, carry.left_us

    def move(entry: PendingWrite) -> PendingWrite:
        return entry if stays(entry) else _moved(entry, digest, kind, codec)

    left_out = [entry for name, life in lives.items() for entry in _move_writes(db, origin, digest, name, move, life)]
    wiped = {name for (name,) in db.execute(_WIPED, (origin, Operation.WIPE))}  # nothing of these is to be brought
    # What is on its way to the former id goes on to this one, behind what that one has itself, which is newer.
    sql = "SELECT origin, left_us, categories, lives_ms FROM carries WHERE digest = ? ORDER BY seq"
    rows = [(former, _lives(*texts), left) for former, left, *texts in db.execute(sql, (origin,)).fetchall()]
    db.execute("DELETE FROM carries WHERE digest = ?", (origin,))
    for former, names, left in [(origin, lives, left_us), *rows]:
        if brought := {name: lives[name] for name in names if name in lives and name not in wiped}:
            row = (former, digest, kind, *_as_texts(brought), left, now_ms)
            db.execute(_INSERT_CARRY, row)
        for name in set(names).difference(brought) if left else ():  # nothing else tells that it was given up
            put_write(db, _wipe_of_former(former, name, left, now_ms))
    return left_out


def end_carry(db: sqlite3.Connection, carry: Carry) -> None:
    """Take out a carry that is done, unless its data goes on to a later id. What the former id had is to be wiped from
    here on, if that was given up; not before: what is done again must not find the wipe in the place of the data."""
    for (at_ms,) in db.execute("SELECT at_ms FROM carries WHERE seq = ?", (carry.seq,)).fetchall():
        delete("carries", [carry.seq], db)
        for name in carry.categories if carry.left_us else ():
            put_write(db, _wipe_of_former(carry.origin, name, carry.left_us, at_ms))


def take_carry_back(db: sqlite3.Connection, carry: Carry, codec: Codec) -> None:
    """Undo :func:`put_carry`: the session keeps its former id, and no response named the present one."""
    origin, digest, kind, categories, *_ = carry
    db.execute("DELETE FROM carries WHERE origin = ? AND digest = ?", (origin, digest))
    db.execute("UPDATE carries SET digest = ? WHERE digest = ?", (origin, digest))
    for name in categories:
        _move_writes(db, digest, origin, name, lambda entry: _moved(entry, origin, kind, codec))


def _move_writes(
    db: sqlite3.Connection,
    origin: str,
    digest: str,
    category: str,
    move: Callable[[PendingWrite], PendingWrite],
    life_ms: int = 0,
) -> list[PendingWrite]:
    """Have what waits for a category under one id wait under another one, as if it had been put there first.

    Under new numbers: a replay that has read the old ones is not to mark or delete them.
    """
    sql = f"SELECT {_COLUMNS} {_OF_CATEGORY} ORDER BY seq"
    older, newer = (
        [entry for row in db.execute(sql, (name, category)).fetchall() if (entry := _understood(row))]
        for name in (origin, digest)
    )
    for name in (origin, digest) if older else ():
        db.execute(f"DELETE {_OF_CATEGORY}", (name, category))
    for entry in older:
        db.execute(_INSERT, _values(replace(move(entry), life_ms=life_ms or entry.life_ms)))
    return [lost for entry in newer if (lost := put_write(db, entry))] if older else []


def _wipe_of_former(digest: str, category: str, left_us: int, now_ms: int) -> PendingWrite:
    return PendingWrite(
        digest=digest,
        kind=ANONYMOUS,
        category=category,
        operation=Operation.WIPE,
        field=WIPED_FIELD,
        moment=left_us,
        acknowledged=left_us,
        at_ms=now_ms,
    )


def oldest_carries(db: sqlite3.Connection, limit: int, after: int) -> tuple[list[Carry], dict[int, str]]:
    """Return the carries that wait, the oldest first, from behind a number; and the numbers of damaged rows."""
    sql = """SELECT seq, origin, digest, kind, left_us, categories, lives_ms FROM carries
        WHERE seq > ? ORDER BY seq LIMIT ?"""
    found = []
    for seq, origin, digest, kind, left_us, *texts in db.execute(sql, (after, limit)):
        lives = _lives(*texts)
        found.append(Carry(origin, digest, kind, tuple(lives), left_us, tuple(lives.values()), seq))
    return [carry for carry in found if carry.categories], {c.seq: "" for c in found if not c.categories}


def put_push(db: sqlite3.Connection, digest: str, version: int) -> None:
    """Keep that a session waits for a push, under a new number: forgetting an older entry does not forget this one."""
    known = max(version, _pushed_version(db, digest))
    db.execute("INSERT OR REPLACE INTO pushes (digest, version) VALUES (?, ?)", (digest, known))


def _pushed_version(db: sqlite3.Connection, digest: str) -> int:
    row = db.execute("SELECT version FROM pushes WHERE digest = ?", (digest,)).fetchone()
    return row[0] if row else 0


def is_revoked(db: sqlite3.Connection, digest: str) -> bool:
    """Return whether a revocation of this session waits."""
    return db.execute("SELECT 1 FROM revocations WHERE digest = ?", (digest,)).fetchone() is not None


def put_revocation(db: sqlite3.Connection, digest: str, now_ms: int, in_database: bool) -> None:
    """Keep that a session is dead, and nothing else of it but its shadow's writes.

    :param in_database: the database knows that this id is dead. An entry that waits for the database goes on waiting:
        what the database knows may be a change of id only, and the session would go on. :func:`mark_done` ends that.
    """
    db.execute(
        """INSERT INTO revocations (digest, at_ms, in_database, in_redis) VALUES (?, ?, ?, FALSE)
        ON CONFLICT (digest) DO UPDATE SET in_database = in_database AND excluded.in_database""",
        (digest, now_ms, in_database),
    )
    db.execute("DELETE FROM writes WHERE digest = ? AND NOT shadow", (digest,))
    db.execute("DELETE FROM copies WHERE digest = ?", (digest,))


def mark_done(db: sqlite3.Connection, digest: str, now_ms: int, in_database: bool, in_redis: bool) -> None:
    """Add the stores that have a revocation now; it waits for nothing any more when both have it."""
    db.execute(
        "UPDATE revocations SET in_database = max(in_database, ?), in_redis = max(in_redis, ?) WHERE digest = ?",
        (in_database, in_redis, digest),
    )
    if db.execute("DELETE FROM revocations WHERE digest = ? AND in_database AND in_redis", (digest,)).rowcount:
        put_delivered(db, digest, now_ms)


def put_delivered(db: sqlite3.Connection, digest: str, now_ms: int) -> None:
    """Keep that the stores know a session to be dead: a database that went back does not know it any more."""
    db.execute("INSERT OR REPLACE INTO delivered (digest, at_ms) VALUES (?, ?)", (digest, now_ms))


def put_user_revocation(db: sqlite3.Connection, user_id: str, until_ms: int, epoch: int) -> None:
    """Keep what ends most, under a new number: forgetting an older entry does not forget this one.

    :param epoch: not 0: the database has raised it, which ends all that there is and makes the time needless.
    """
    sql = "SELECT until_ms, epoch FROM user_revocations WHERE user_id = ?"
    known_until_ms, known_epoch = db.execute(sql, (user_id,)).fetchone() or (until_ms, 0)
    db.execute(
        "INSERT OR REPLACE INTO user_revocations (user_id, until_ms, epoch, in_database) VALUES (?, ?, ?, ?)",
        (user_id, 0 if epoch else max(until_ms, known_until_ms), max(epoch, known_epoch), epoch > 0),
    )


def read_server(db: sqlite3.Connection, endpoint: str) -> ServerRecord | None:
    """Return what is known of the server behind an endpoint; None: nothing."""
    sql = "SELECT identity, trust_since_ms, generation, number FROM servers WHERE endpoint = ?"
    row = db.execute(sql, (endpoint,)).fetchone()
    return row and ServerRecord(*row)


def read_servers(db: sqlite3.Connection) -> dict[str, ServerRecord]:
    """Return what is known of each endpoint."""
    rows = db.execute("SELECT endpoint, identity, trust_since_ms, generation, number FROM servers").fetchall()
    return {endpoint: ServerRecord(*row) for endpoint, *row in rows}


def put_server(db: sqlite3.Connection, endpoint: str, record: ServerRecord) -> None:
    """Keep what is known of an endpoint, unless newer things are."""
    if record.outdates(read_server(db, endpoint)):
        row = (endpoint, record.identity, record.trust_since_ms, record.canary_id, record.number)
        db.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?)", row)


def _copies(db: sqlite3.Connection, digest: str, since_ms: int, codec: Codec) -> Iterator[tuple[str, CategoryCopy]]:
    sql = "SELECT category, version, fields, additions FROM copies WHERE digest = ? AND at_ms > ?"
    for category, version, blob, additions in db.execute(sql, (digest, since_ms)):
        if (fields := _fields(blob)) is not None:
            yield category, CategoryCopy(version, codec.from_store(digest, category, fields), additions=additions)


def shared_copies(db: sqlite3.Connection, limit: int, after: int, now_ms: int, codec: Codec) -> dict[int, SharedCopy]:
    """Return the published copies, by number."""
    sql = """SELECT rowid, digest, category, version, fields, additions, kind, at_ms FROM copies
        WHERE rowid > ? ORDER BY rowid LIMIT ?"""
    return {
        number: SharedCopy(
            digest,
            category,
            CategoryCopy(version, codec.from_store(digest, category, fields), additions=additions, began=version),
            age=(now_ms - at_ms) / 1000,
            kind=kind,
        )
        for number, digest, category, version, blob, additions, kind, at_ms in db.execute(sql, (after, limit))
        if (fields := _fields(blob)) is not None
    }


def delete(table: str, numbers: Sequence[int], db: sqlite3.Connection) -> None:
    """Delete entries of a kind, by number."""
    db.executemany(f"DELETE FROM {table} WHERE seq = ?", [(number,) for number in numbers])


def _fields(blob: bytes) -> dict[str, bytes] | None:
    """Return the fields of a copy; None: they are damaged."""
    try:
        return msgspec.msgpack.decode(blob, type=dict[str, bytes])
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None


def _understood(row: tuple[Any, ...]) -> PendingWrite | None:
    """Return a row as a change; None: the row is damaged, and what it was to change is not known."""
    try:
        return _pending_write(row)
    except (TypeError, ValueError):
        return None


def _pending_write(row: tuple[Any, ...]) -> PendingWrite:
    entry = PendingWrite(**dict(zip(_NAMES, row, strict=True)))
    return replace(
        entry,
        shadow=bool(entry.shadow),
        operation=Operation(entry.operation),
        basis=Basis(entry.basis),
        is_sent=bool(entry.is_sent),
    )


def _added(value: bytes | None, by: int) -> bytes:
    if value is None:
        return b"%d" % by
    if not _INTEGER.fullmatch(value):
        raise StoreError("journal", ErrorClass.DATA, "not an integer")
    return b"%d" % (int(value) + by)
