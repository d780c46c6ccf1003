"""A few numbers that the processes of a host share: how often the journal was written, and which rows were changed.

They are read and written by system calls, see :class:`PrivateNumbers`. It costs half a microsecond.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from functools import partial
from pathlib import Path

from ...support.files import PrivateNumbers, beside

COUNTER = "gen"
"""The end of the file's name."""

WORD = 8
_PLACES = 1024
"""For what is known of the rows of all sessions. Two that share a place cost a question more, and hide nothing."""

_MOMENTS = WORD
_CHANGES = WORD * (1 + _PLACES)
SIZE = WORD * (1 + 2 * _PLACES)
_HALF = 0xFFFF_FFFF

_COUNT = struct.Struct("=I")
_MOMENT = struct.Struct("=d")
_CHANGE = struct.Struct("=Q")


class CommitCounter:
    """Counts how often the journal was written, in a small file that the processes of the host share.

    Two numbers: that of the newest transaction which began, and that of the newest which ended. A transaction takes its
    number while it holds SQLite's write lock, before it writes, and notes it as ended after its commit. Hence:

    - Equal numbers mean that no transaction is under way, and that all which ever began are committed or taken
      back. What SQLite says from then on stays true until the first number changes.
    - Unequal numbers mean that one may be about to commit. What SQLite says then must not be kept: a reader that kept
      "empty" from just before the commit would find the number unchanged after it.
    - A process that is killed in between leaves them unequal, wherever it was: readers ask SQLite every time, and miss
      nothing, until the next transaction ends or :meth:`JournalFile.others_state` finds that nothing is written.
    - A process that is so slow that the next one began before it notes its end leaves that to the next one. Should it
      note it by a hair all the same, the numbers are unequal: questions too many, as before, and none too few.
    - They need not be read at the same moment. Neither goes back, and the second is never ahead of the first: if both
      are ``n``, no transaction after ``n`` had begun when the first was read, and ``n`` has ended by now.

    They wrap around after four thousand million transactions. They begin at a random number, and anew at another one
    where the file was cut off: a number that a process remembers from before must not mean something else.

    Behind them lies when a session's row in the database was last changed from this host, and by which change: see
    :meth:`row_changed` and :meth:`row_changing`.

    :param path: of the journal; None: this process has them for itself.
    :ivar numbers: the file.
    :ivar word: returns what it begins with, the two numbers as they are.
    :raises OSError: there is no room for them, or the file is not this user's own.
    """

    def __init__(self, path: Path | None) -> None:
        self.numbers = PrivateNumbers(path and beside(path, COUNTER))
        self.word = partial(self.numbers.read, WORD, 0)
        if self.numbers.size < SIZE:
            self._fill()

    def committed(self) -> bytes | None:
        """Return what is equal to an earlier answer if there was no commit since; None: one may be about to happen."""
        word = self.word()
        return word if word and word[:4] == word[4:] else None

    def begin(self) -> int:
        """Note that a transaction begins; to be called under SQLite's write lock, which makes the numbers unique.

        :return: its number, for :meth:`end`.
        """
        number = (self._number() + 1) & _HALF
        self.numbers.write(_COUNT.pack(number), 0)
        return number

    def end(self, number: int) -> None:
        """Note that the transaction is committed or taken back."""
        if self._number() == number:
            self.numbers.write(_COUNT.pack(number), 4)

    def row_changing(self, digest: str) -> int:
        """Note that the row of a session is about to be changed by compare-and-set; to be called before each try.

        :return: a number for this change, see :meth:`is_last_row`.
        """
        number = os.urandom(WORD)
        self._put(_CHANGES + _place_of(digest), number)
        return int(_CHANGE.unpack(number)[0])

    def row_changed(self, digest: str, at: float, number: int | None = None) -> None:
        """Note that the row of a session was changed; to be called after the commit, before that is said.

        :param at: monotonic seconds, which the processes of a host share.
        :param number: of the change. None: it was not by compare-and-set.
        """
        self._put(_MOMENTS + _place_of(digest), _MOMENT.pack(at))
        if number is None:
            self.row_changing(digest)

    def is_last_row(self, digest: str, since: float, now: float, number: int | None) -> bool:
        """Return whether what a worker has of a session's row is what there is, as far as this host goes.

        A worker that changes it further by compare-and-set has read it before, and puts another number here before the
        try: so no clock has to say which of two commits was the later one.

        :param since: when it was confirmed, monotonic seconds; a change that is yet to come by `now` is from before the
            machine's start.
        :param number: of the change that has made it, see :meth:`row_changing`; None: it was read.
        """
        if not since < self.row_changed_at(digest) <= now:
            return True
        return number is not None and self._get(_CHANGES + _place_of(digest)) == _CHANGE.pack(number)

    def row_changed_at(self, digest: str) -> float:
        """Return when a session's row was last changed, or a later moment: where another session has taken its place,
        and where the file was made or cut off since."""
        return float(_MOMENT.unpack(self._get(_MOMENTS + _place_of(digest)))[0])

    def _number(self) -> int:
        return int(_COUNT.unpack(self._get(0)[:4])[0])

    def _get(self, place: int) -> bytes:
        word = self.numbers.read(WORD, place)
        if len(word) < WORD:  # not read again: the file may have been cut off again
            word = self._fill()[place : place + WORD]
        return word

    def _put(self, place: int, word: bytes) -> None:
        # Behind the end of a file that was cut off, a hole would come before it: "never changed" of all rows.
        if self.numbers.size < SIZE:
            self._fill()
        self.numbers.write(word, place)

    def _fill(self) -> bytes:
        """Make the file whole, or whole again, and return what it says: nothing is known of the rows, which may all
        have changed just now."""
        began = int.from_bytes(os.urandom(4))
        # Unequal: a transaction may be under way that began before.
        numbers = _COUNT.pack(began) + _COUNT.pack((began - 1) & _HALF)
        content = numbers + _MOMENT.pack(time.monotonic()) * _PLACES + os.urandom(WORD * _PLACES)
        if self.numbers.write(content, 0) < len(content):
            raise OSError(errno.ENOSPC, "no room in a file of numbers")
        return content


def _place_of(digest: str) -> int:
    return zlib.crc32(digest.encode()) % _PLACES * WORD
