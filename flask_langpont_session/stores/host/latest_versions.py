"""Which version of a category any worker of this host has seen last, or wiped last, in small files that they share.

At the beginning of an outage a worker goes by its own copies, and does not have those of the others yet. Here it learns
that one of them has seen or written something newer: then it does not know what there is, and must not build on what it
has.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from ...support.files import PrivateNumbers

_WORD = struct.Struct("=Q")
_BYTES = _WORD.size
_PLACES = 65_536
"""Of two categories that share one, the later one is known; of the other one it is not known that a copy is old."""

_MS_BITS = 42
_MS = (1 << _MS_BITS) - 1
_NAMES = (1 << 64 - _MS_BITS) - 1


class LatestVersions:
    """Versions to the millisecond, by session and category. It costs about a microsecond to read or to note one.

    :param path: of the journal that the workers of this host share; None: this process has it for itself.
    :param what: names the file.
    """

    def __init__(self, path: Path | None, what: str) -> None:
        self._path = None if path is None else Path(f"{path.resolve()}-{what}")
        self._file: PrivateNumbers | None = None
        self._own: dict[int, int] = {}

    def note(self, digest: str, category: str, version: int) -> None:
        """This version was seen or written. That of a server whose clock is behind, after a failover, may be lower than
        what is noted: what is noted stays, and until its clock is there too, copies count as outdated.

        :raises OSError: the file cannot be used.
        """
        place, name = _place(digest, category)
        if self._is_later(place, name, version):
            return  # a request that read something older is late to say so
        word = name << _MS_BITS | version // 1000 & _MS
        if self._path is None:
            self._own[place] = word
        else:
            (self._file or self._opened()).write(place, _WORD.pack(word))

    def is_outdated(self, digest: str, category: str, version: int) -> bool:
        """Whether a worker of this host has seen a later version.

        :raises OSError: the file cannot be used.
        """
        return self._is_later(*_place(digest, category), version)

    def _is_later(self, place: int, name: int, version: int) -> bool:
        """Whether a later version is noted there."""
        if self._path is None:
            word = self._own.get(place, 0)
        else:
            found = (self._file or self._opened()).read(place, _BYTES)
            word = _WORD.unpack(found)[0] if len(found) == _BYTES else 0
        return word >> _MS_BITS == name and word & _MS > version // 1000

    def close(self) -> None:
        """Let go of the file. The next call opens it again."""
        self._file = None

    def _opened(self) -> PrivateNumbers:
        assert self._path is not None
        file = self._file
        if file is None:
            file = self._file = PrivateNumbers(self._path)  # its holes are places of which nothing is known
        return file


def _place(digest: str, category: str) -> tuple[int, int]:
    """Where a category's version stands, and what tells it from most others that stand there."""
    of = digest.encode()
    found = zlib.crc32(category.encode(), zlib.crc32(of))
    return found % _PLACES * _BYTES, zlib.adler32(of) & _NAMES
