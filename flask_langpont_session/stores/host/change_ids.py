"""Which session was changed by a worker of this host last, in a small file that they share.

A worker that keeps what it has read of a session is told by the server when that changes, a moment later. The other
workers of its host need not wait for that moment: what any of them has changed is seen here before its response leaves.
"""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

from ...support.files import PrivateNumbers
from ...support.forks import renew_in_children

SIZE = 8
PLACES = 65_536
"""Sessions that share a place count as changed together: that costs a question more, and hides nothing."""

NEVER = bytes(SIZE)
"""The change id of a place where nothing was changed yet."""

ChangeId = bytes | None
"""Equal to an earlier one of the same session: no worker of this host has changed that since. None: it cannot be
said."""


class ChangeIds:
    """One id per session. It costs about a microsecond to read or to change one.

    :param path: of the journal that the workers of this host share; None: this process has them for itself.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = None if path is None else Path(f"{path.resolve()}-near")
        self._begin()
        renew_in_children(self, ChangeIds._begin)

    def _begin(self) -> None:
        self._file: PrivateNumbers | None = None
        self._own: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._era = b""  # ends when a change could not be noted

    def of(self, digest: str) -> ChangeId:
        """The id of the latest change of a session. Never raises."""
        place = _place(digest)
        if self._path is None:
            return self._own.get(place, NEVER)
        try:
            found = (self._file or self._opened()).read(place * SIZE, SIZE)
        except OSError:
            return None
        return (found if len(found) == SIZE else NEVER) + self._era

    def are_usable(self) -> bool:
        """Whether the file can be used, or made. Does not make it."""
        if self._path is None:
            return True
        try:
            self._opened(os.O_RDWR)
        except FileNotFoundError:
            return os.access(self._path.parent, os.W_OK)
        except OSError:
            return False
        return True

    def change(self, digest: str, before: ChangeId = None) -> ChangeId:
        """The session was changed, or may have been. Never raises: where that cannot be noted, this worker goes by
        nothing that it has kept until now.

        :param before: that of the change before this one, as its worker knows.
        :return: the new one; None: another worker has changed it, too, since `before`.
        """
        place, change_id, era = _place(digest), os.urandom(SIZE), self._era
        try:
            found = self._exchange(place, change_id)
        except OSError:
            self._era = os.urandom(SIZE)
            return None
        return change_id + era if before is not None and found is not None and found + era == before else None

    def _exchange(self, place: int, change_id: bytes) -> ChangeId:
        if self._path is None:
            with self._lock:
                found = self._own.get(place, NEVER)
                self._own[place] = change_id
                return found
        # Where there is no file, no worker keeps anything; and this may be a command of another user than the workers'.
        before = self._opened(os.O_RDWR).exchange(place * SIZE, change_id)
        return before if before is None or len(before) == SIZE else NEVER

    def close(self) -> None:
        """Let go of the file. The next call opens it again."""
        self._file = None

    def _opened(self, flags: int = os.O_RDWR | os.O_CREAT) -> PrivateNumbers:
        assert self._path is not None
        file = self._file
        if file is None:
            file = PrivateNumbers(self._path, flags)
            file.reserve(PLACES * SIZE)  # a change that finds no room would be hidden from the other workers
            self._file = file
        return file


def _place(digest: str) -> int:
    return zlib.crc32(digest.encode()) % PLACES
