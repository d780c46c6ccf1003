"""The register of a host: which session a worker of the host has changed last, and which version of a category any of
them has seen or wiped last.

It is one file of numbers beside the journal. A worker that keeps what it has read learns here at once what Redis tells
it a moment later, and in an outage what no server tells: that another worker has more than it has itself. Then it does
not know what there is, and must not build on what it has.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

from ...policy.leases import CLOCK_TOLERANCE_MS
from ...support.files import PrivateNumbers, beside
from ...support.forks import renew_in_children
from .commit_counter import COUNTER
from .opening import FAILURES, alone_with, path_of

PLACES = 65_536
"""Sessions that share a place count as changed together: that costs a question more, and hides nothing."""

CELLS = 16
_SHARED = CELLS - 2
"""Each worker has a cell of its own in each place, into which no other one writes: so a change takes no lock between
processes. The last cell but one is for all workers and commands that find no free one: these take a lock. The last one
is for those that do not get the lock in time, and never ask what was there."""

_CELL = 4
SIZE = CELLS * _CELL

NEVER = bytes(SIZE)
"""The change id of a place where nothing was changed yet."""

ChangeId = bytes | None
"""Equal to an earlier one of the same session: no worker of this host has changed that since. None: it cannot be
said."""

BUCKETS = 65_536
_WORDS = 8
"""A category is noted in its bucket, in the place of the one whose version is the oldest there: what is forgotten is
older than six others. In all there is room for some hundreds of thousands, in 4 MB of which only those parts exist that
were written to. The first word of a bucket is the highest version that was forgotten there."""

_WORD, _BUCKET = struct.Struct("=Q"), struct.Struct(f"={_WORDS}Q")
_MS_BITS = 42
_MS = (1 << _MS_BITS) - 1
_NAMES = (1 << 64 - _MS_BITS) - 1

SEEN, WIPED = PLACES * SIZE, PLACES * SIZE + BUCKETS * _BUCKET.size
"""The places in the file where the versions that were seen begin, and those that were wiped; change ids come first."""

FORMER_BUCKETS = 8_192
"""In the files of the former release, where each word of a bucket is a place."""

_OF_FORMER = ("near", "seen", "wiped")
"""The ends of the names of these files."""

_FORMER_ID = 8
"""Bytes of a change id of the former release, which has one for each place."""


def former_paths(journal: Path) -> list[Path]:
    """Return the files of the former release's register, beside the journal."""
    return [beside(journal, what) for what in _OF_FORMER]


def end_former(journal: Path) -> None:
    """Remove the files of the former release's register, unless a process has the journal open.

    :param journal: as the settings name it.
    """
    if paths := [path for path in former_paths(journal) if os.path.exists(path)]:
        with suppress(*FAILURES), alone_with(path_of(journal)) as db:  # what stays costs time, and is right
            for path in paths if db else ():
                path.unlink(missing_ok=True)


class Register:
    """Numbers by which a host's workers tell each other of sessions. To read or note one costs about a microsecond.

    None of its methods raises. Where the file cannot be used, nothing is kept that needs change ids, and no version is
    known; that the journal's folder cannot be used is said where something has to be kept in it.

    Workers of the former release have files of their own. Where these are, both are read and written.

    :param journal: which these workers share; None: this process has the register for itself.
    :param copies_ttl: seconds for which a copy is kept: versions that were forgotten concern no newer one.
    :param wall: seconds since 1970.
    :ivar note_version: gets a digest, a category and a version: this is what there is. No worker goes by what it had
        before.
    :ivar note_wipe: likewise: it was wiped at this version. No worker gives Redis back what it had before.
    """

    def __init__(
        self, journal: Path | None, *, copies_ttl: float = 1800.0, wall: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._copies_ms = int(copies_ttl * 1000) + CLOCK_TOLERANCE_MS  # the clock of Redis may be a little off
        self._wall = wall
        self._former = _Former(journal)
        self._tables = {at: (_Versions(self._opened, at), self._former.tables[at]) for at in (SEEN, WIPED)}
        self.note_version, self.note_wipe = partial(self._note, SEEN), partial(self._note, WIPED)
        self._begin()
        renew_in_children(self, Register._begin)

    def _begin(self) -> None:
        self._file: PrivateNumbers | None = None
        self.look_for_former()
        self._lock = threading.Lock()
        self._values = itertools.count(int.from_bytes(os.urandom(_CELL)))  # the cell may have been another worker's
        self._era = b""  # ends when a change could not be noted

    # -- change ids ----------------------------------------------------------------------------------------------------

    def of(self, digest: str) -> ChangeId:
        """Return the id of the latest change of a session."""
        place = zlib.crc32(digest.encode()) % PLACES
        try:
            file = self._file or self._opened()
            found = file.read(SIZE, place * SIZE).ljust(SIZE, b"\0")
            if self._has_former:
                found += self._former.id_of(place)
        except OSError:
            return None
        return found + self._era

    def change(self, digest: str, before: ChangeId = None) -> ChangeId:
        """Note that a session was changed, or may have been. Where that cannot be noted, this worker goes by nothing
        that it has kept until now.

        What another worker notes at the same moment is not part of the new id, which is then not that of the place.

        :param before: the id of the change before this one, as its worker knows.
        :return: the new one; None: another worker has changed it, too, since `before`.
        """
        place, era = zlib.crc32(digest.encode()) % PLACES, self._era
        at, value = place * SIZE, (next(self._values) & 0xFFFF_FFFF).to_bytes(_CELL)
        try:
            # Where there is no file, no worker keeps anything; and this may be a command of another user than theirs.
            file = self._file or self._opened(makes=False)
            with self._lock if file.claimed < _SHARED else file.locked(at, SIZE) as is_alone:
                own = (file.claimed if is_alone else _SHARED + 1) * _CELL
                found = file.read(SIZE, at).ljust(SIZE, b"\0")
                file.write(value, at + own)
            after = found[:own] + value + found[own + _CELL :]
            if self._has_former:
                theirs, now = self._former.change(place)
                found, after = found + theirs, after + now
        except OSError:
            self._era = os.urandom(_CELL)
            return None
        return after + era if is_alone and found + era == before else None

    def are_usable(self) -> bool:
        """Return whether the file can be used, or made. Does not make it."""
        try:
            self._opened(makes=False)
        except FileNotFoundError:
            return self._journal is None or os.access(self._journal.parent, os.W_OK)
        except OSError:
            return False
        return True

    # -- versions ------------------------------------------------------------------------------------------------------

    def latest_version(self, digest: str, category: str) -> int:
        """Return the version of a category that Redis has at least, as far as the workers of this host know, unless it
        has run out, to the millisecond; 0: none is known."""
        return self._latest(SEEN, digest, category)

    def wiped_version(self, digest: str, category: str) -> int:
        """Return the version at which a worker of this host has wiped a category last, to the millisecond; 0: none is
        known."""
        return self._latest(WIPED, digest, category)

    def is_outdated(self, digest: str, category: str, version: int) -> bool:
        """Return whether a worker of this host has seen a later version of a category, or wiped it since, or may
        have."""
        return self._is_later(SEEN, digest, category, version) or self._is_later(WIPED, digest, category, version)

    def is_wiped_since(self, digest: str, category: str, version: int) -> bool:
        """Return whether a worker of this host has wiped a category after a version, or may have."""
        return self._is_later(WIPED, digest, category, version)

    def _latest(self, at: int, digest: str, category: str) -> int:
        with suppress(OSError):
            return max(table.of(digest, category)[0] for table in self._all(at)) * 1000
        return 0

    def _note(self, at: int, digest: str, category: str, version: int) -> None:
        own, former = self._tables[at]
        try:
            own.note(digest, category, version // 1000 & _MS)
            if self._has_former:
                former.note(digest, category, version // 1000 & _MS)
        except OSError:
            return

    def _is_later(self, at: int, digest: str, category: str, version: int) -> bool:
        version_ms = version // 1000
        with suppress(OSError):
            for table in self._all(at):
                latest, forgotten = table.of(digest, category)
                if latest > version_ms or version_ms < forgotten >= int(self._wall() * 1000) - self._copies_ms:
                    return True
        return False

    def _all(self, at: int) -> Sequence[_Versions]:
        return self._tables[at][: 1 + self._has_former]

    # -- the file ------------------------------------------------------------------------------------------------------

    def look_for_former(self) -> None:
        """Look whether there are files of the former release. Meant to be called once a second: its workers may be
        started at any time."""
        self._has_former = self._former.is_there()

    def close(self) -> None:
        """Let go of the files. The next call opens them again."""
        if self._journal is not None:
            self._file = None
        self._former.close()

    def _opened(self, *, makes: bool = True) -> PrivateNumbers:
        file, journal = self._file, self._journal
        if file is None:
            flags = os.O_RDWR | (os.O_CREAT if makes and journal and _may_be_made_beside(journal) else 0)
            file = PrivateNumbers(journal and beside(journal, "register"), flags)
            if journal:
                file.reserve(SEEN)  # a change that finds no room would be hidden from the other workers
                file.claim(_SHARED)
            self._file = file
        return file


class _Versions:
    """The latest version of each category that was noted, to the millisecond, by session and category.

    :param numbers: where they are.
    :param at: where they begin there.
    :param first: the first word of a bucket that is a place.
    """

    def __init__(self, numbers: Callable[[], PrivateNumbers], at: int, buckets: int = 0, first: int = 1) -> None:
        self._numbers = numbers
        self._place_of = lru_cache(256)(partial(_place_of, at, buckets or BUCKETS))  # one request asks several times
        self._places = range(first, _WORDS)

    def note(self, digest: str, category: str, version: int) -> None:
        """Note a version, unless a higher one is noted. The version of a server whose clock is behind, after a
        failover, may be lower: what is noted stays, and until that clock has caught up, copies count as outdated."""
        bucket, name = self._place_of(digest, category)
        file, word = self._numbers(), name | version
        words = _read(file, bucket)
        for place in self._places:
            if not (words[place] ^ word) >> _MS_BITS:
                if words[place] < word:  # else a request that read something older is late to say so
                    file.write(_WORD.pack(word), bucket + place * _WORD.size)
                return
        with file.locked(bucket, _BUCKET.size):  # so that of two that are forgotten at once the higher one is known
            words = _read(file, bucket)
            place = min(self._places, key=lambda place: words[place] & _MS)
            if self._places[0]:
                file.write(_WORD.pack(max(words[0], words[place] & _MS)), bucket)
            file.write(_WORD.pack(word), bucket + place * _WORD.size)

    def of(self, digest: str, category: str) -> tuple[int, int]:
        """Return what was noted of a category last, 0: nothing; and the highest version of those that had to be
        forgotten in its bucket."""
        bucket, name = self._place_of(digest, category)
        words = _read(self._numbers(), bucket)
        for place in self._places if any(words) else ():
            if not (words[place] ^ name) >> _MS_BITS:
                return words[place] & _MS, 0
        return 0, words[0] if self._places[0] else 0


def _place_of(at: int, buckets: int, digest: str, category: str) -> tuple[int, int]:
    """Return where the bucket of a category begins, and what tells it from nearly all others there, above the bits of a
    version.

    :param at: where the first of so many `buckets` begins.
    """
    of = digest.encode()
    found = zlib.crc32(category.encode(), zlib.crc32(of))
    name = (zlib.adler32(of) << 33 - buckets.bit_length() | found // buckets) & _NAMES
    return at + found % buckets * _BUCKET.size, name << _MS_BITS


def _read(file: PrivateNumbers, bucket: int) -> Sequence[int]:
    return _BUCKET.unpack(file.read(_BUCKET.size, bucket).ljust(_BUCKET.size, b"\0"))  # the file may end before it


class _Former:
    """The files in which the workers of the former release tell each other the same.

    :param journal: as the settings name it; None: there are none.
    :ivar tables: the versions that they have seen and wiped.
    """

    def __init__(self, journal: Path | None) -> None:
        self._journal = journal and journal.resolve()
        self._files: dict[str, PrivateNumbers] = {}
        self.tables: Mapping[int, _Versions] = {
            at: _Versions(partial(self._file, what), 0, FORMER_BUCKETS, 0)
            for at, what in ((SEEN, "seen"), (WIPED, "wiped"))
        }

    def is_there(self) -> bool:
        """Return whether workers of the former release have made any of them. Else lets go of them."""
        if self._journal and any(map(os.path.exists, former_paths(self._journal))):
            return True
        self.close()
        return False

    def id_of(self, place: int) -> bytes:
        """Return the id of the latest change in a place."""
        file = self._file("near")
        return file.read(_FORMER_ID, place * _FORMER_ID).ljust(_FORMER_ID, b"\0")

    def change(self, place: int) -> tuple[bytes, bytes]:
        """Note a change. Return the id before, and the one after; none before: another worker may have changed it in
        between."""
        file, change_id = self._file("near"), os.urandom(_FORMER_ID)
        with file.locked(place * _FORMER_ID, _FORMER_ID) as is_alone:
            before = self.id_of(place)
            file.write(change_id, place * _FORMER_ID)
        return before if is_alone else b"", change_id

    def close(self) -> None:
        """Let go of the files."""
        self._files = {}

    def _file(self, what: str) -> PrivateNumbers:
        file = self._files.get(what)
        if file is None:
            file = self._files[what] = PrivateNumbers(Path(f"{self._journal}-{what}"))
            if what == "near":
                file.reserve(PLACES * _FORMER_ID)
        return file


def _may_be_made_beside(journal: Path) -> bool:
    """Return whether the journal is this user's: a command of another one makes no file that workers cannot use."""
    try:
        return beside(journal, COUNTER).stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True
