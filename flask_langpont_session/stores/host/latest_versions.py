"""Which version of a category any worker of this host has seen last, or wiped last, in small files that they share.

At the beginning of an outage a worker goes by its own copies, and does not have those of the others yet. Here it learns
that one of them has seen or written something newer: then it does not know what there is, and must not build on what it
has.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ...support.files import PrivateNumbers

BUCKETS = 65_536
_WORDS = 8
"""A category is noted in its bucket, in the place of the one whose version is the oldest there: what is forgotten is
older than seven others. In all there is room for some hundreds of thousands, in 4 MB of which only those parts exist
that were written to. The first word of a bucket is the highest version that was forgotten there."""

_FORM = 2
"""Part of the file's name: a release that places the numbers otherwise has another file."""

FORMER_BUCKETS = 8_192
"""In the former release's file, whose name has no number. Each word of a bucket is a place there."""

_WORD, _BUCKET = struct.Struct("=Q"), struct.Struct(f"={_WORDS}Q")
_BYTES, _ALL_BYTES = _WORD.size, _BUCKET.size
_NOTHING = bytes(_ALL_BYTES)

_MS_BITS = 42
_MS = (1 << _MS_BITS) - 1
_NAMES = (1 << 64 - _MS_BITS) - 1


class LatestVersions:
    """Versions to the millisecond, by session and category. It costs about a microsecond to read or to note one.

    :param path: of the journal that the workers of this host share; None: this process has it for itself.
    :param what: names the file.
    :param has_met_former: says whether this process has met a journal of the former release: what that release's
        workers have noted counts too, and they are told.
    :param is_former: the file is that release's.
    """

    def __init__(
        self,
        path: Path | None,
        what: str,
        *,
        has_met_former: Callable[[], bool] = lambda: False,
        is_former: bool = False,
    ) -> None:
        name = what if is_former else f"{what}-{_FORM}"
        self._path = None if path is None else Path(f"{path.resolve()}-{name}")
        self._buckets, self._first = (FORMER_BUCKETS, 0) if is_former else (BUCKETS, 1)
        self._has_met_former = has_met_former
        self._former = None if path is None or is_former else LatestVersions(path, what, is_former=True)
        self._file: PrivateNumbers | None = None
        self._own: dict[int, bytes] = {}

    def note(self, digest: str, category: str, version: int) -> None:
        """This version was seen or written. That of a server whose clock is behind, after a failover, may be lower than
        what is noted: what is noted stays, and until its clock is there too, copies count as outdated.

        :raises OSError: the file cannot be used.
        """
        if self._former and self._has_met_former():
            self._former.note(digest, category, version)
        bucket, name = _names(digest, category, self._buckets)
        words = self._in(bucket)
        place = _place_of(name, words, self._first)
        word = name << _MS_BITS | version // 1000 & _MS
        if place is not None:
            if words[place] & _MS > word & _MS:
                return  # a request that read something older is late to say so
            if self._path is None:
                self._exchange(bucket + place * _BYTES, word)
            else:
                (self._file or self._opened()).write(bucket + place * _BYTES, _WORD.pack(word))
            return
        place = min(range(self._first, _WORDS), key=lambda place: words[place] & _MS)
        self._forgets(bucket, words[place])
        displaced = self._exchange(bucket + place * _BYTES, word)
        if displaced != words[place]:  # by another process, at the same moment
            self._forgets(bucket, displaced)

    def is_outdated(self, digest: str, category: str, version: int, since_ms: int = 0) -> bool:
        """Return whether a worker of this host has seen a later version, or may have: only the highest version is known
        of all that had to be forgotten.

        :param since_ms: whatever is asked about was confirmed since then, by the clock of versions: what was forgotten
            and is older does not matter.
        :raises OSError: the file cannot be used.
        """
        if self._former and self._has_met_former() and self._former.latest(digest, category) // 1000 > version // 1000:
            return True
        bucket, name = _names(digest, category, self._buckets)
        words = self._in(bucket)
        place = _place_of(name, words, self._first)
        if place is None:
            return words[0] > version // 1000 and words[0] >= since_ms
        return words[place] & _MS > version // 1000

    def latest(self, digest: str, category: str) -> int:
        """Return what was noted of a category last, to the millisecond; 0: nothing.

        :raises OSError: the file cannot be used.
        """
        theirs = self._former.latest(digest, category) if self._former and self._has_met_former() else 0
        bucket, name = _names(digest, category, self._buckets)
        words = self._in(bucket)
        place = _place_of(name, words, self._first)
        return max(theirs, 0 if place is None else (words[place] & _MS) * 1000)

    def _forgets(self, bucket: int, word: int) -> None:
        """Have it known that a version is noted no more. The former release's file has no word for that."""
        highest = word & _MS if self._first else 0
        while highest and (before := self._exchange(bucket, highest)) > highest:
            highest = before

    def _in(self, bucket: int) -> tuple[int, ...]:
        """What is noted there."""
        if self._path is None:
            return _BUCKET.unpack(self._own.get(bucket, _NOTHING))
        found = (self._file or self._opened()).read(bucket, _ALL_BYTES)
        return _BUCKET.unpack(found + _NOTHING[len(found) :])  # the file may end before it, or within

    def _exchange(self, at: int, word: int) -> int:
        """Put a word in its place. What was there before, as far as that can be said."""
        if self._path is None:
            bucket, place = at // _ALL_BYTES * _ALL_BYTES, at % _ALL_BYTES // _BYTES
            words = list(self._in(bucket))
            before, words[place] = words[place], word
            self._own[bucket] = _BUCKET.pack(*words)
            return before
        found = (self._file or self._opened()).exchange(at, _WORD.pack(word)) or b""
        return int.from_bytes(found, sys.byteorder)

    def close(self) -> None:
        """Let go of the file. The next call opens it again."""
        self._file = None
        if self._former:
            self._former.close()

    def _opened(self) -> PrivateNumbers:
        assert self._path is not None
        file = self._file
        if file is None:
            file = self._file = PrivateNumbers(self._path)  # its holes are places of which nothing is known
        return file


def _place_of(name: int, words: Sequence[int], first: int) -> int | None:
    """Return the place of a category in its bucket; None: nothing is noted of it.

    :param first: the first place that may be one.
    """
    for place in range(first, _WORDS):
        if words[place] >> _MS_BITS == name:
            return place
    return None


def _names(digest: str, category: str, buckets: int) -> tuple[int, int]:
    """Where the bucket of a category begins, and what tells it from nearly all others there."""
    of = digest.encode()
    found, names = zlib.crc32(category.encode(), zlib.crc32(of)), zlib.adler32(of)
    return found % buckets * _ALL_BYTES, (names << 33 - buckets.bit_length() | found // buckets) & _NAMES
