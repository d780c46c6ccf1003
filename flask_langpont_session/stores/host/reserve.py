"""Room on the disk for what must be written however full it is: ends of sessions, marks and deletions.

It is a file beside the journal whose blocks are allocated. On a full disk it is cut off, and what was refused is
written again, into the room that this makes. While it is not whole, nothing that makes the journal grow is taken: the
room is for what empties it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ...support.files import open_private

SIZE = 524_288
"""Bytes: what is written of one batch of entries, twice."""


class Reserve:
    """The reserve of one journal. All processes of the host share it.

    :param path: of the journal; None: it is in memory, and needs none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = Path(f"{path}-reserve") if path else None

    def hold(self) -> bool:
        """Allocate the reserve, unless it is there. Return False: there is no room for it."""
        if self._path is None or not hasattr(os, "posix_fallocate"):
            return True
        with suppress(FileNotFoundError):
            if self._path.lstat().st_size >= SIZE:
                return True
        try:
            descriptor = open_private(self._path)
            try:
                os.posix_fallocate(descriptor, 0, SIZE)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_back()  # a part of it may have been allocated, and would keep others from their room
            return False
        return True

    def give_back(self) -> bool:
        """Make room by cutting the reserve off. Return whether there was anything of it."""
        if self._path is None:
            return False
        with suppress(OSError):
            descriptor = open_private(self._path, os.O_RDWR)
            try:
                had = os.fstat(descriptor).st_size > 0
                os.ftruncate(descriptor, 0)
            finally:
                os.close(descriptor)
            return had
        return False
