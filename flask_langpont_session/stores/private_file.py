"""Files of SQLite that only their owner may read."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

# Closing any descriptor of a file drops all locks that this process has on it, SQLite's too: until this one is closed,
# no other thread may go on to open the file and lock it. (Forks wait for whoever is inside, as they do for all who use
# SQLite here.)
_creating = threading.Lock()


def create_private(path: Path) -> None:
    """Create an empty file, unless there is one. SQLite gives its -wal and -shm the mode of the file.

    To be called before each opening.

    :raises OSError: there is none, and it cannot be created.
    """
    with _creating, suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
