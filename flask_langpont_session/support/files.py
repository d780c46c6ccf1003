"""Files that only their owner may read and write, in a folder that other users may be able to write to."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

# Closing any descriptor of a file drops all locks that this process has on it, SQLite's too: until this one is closed,
# no other thread may go on to open the file and lock it. (Forks wait for the threads that are inside, as for
# all that use SQLite here.)
_creating = threading.Lock()


_PATIENCE, _TRIES = 0.002, 4
"""Seconds that are waited for a lock that others hold for some microseconds, and how often it is tried."""

_CLAIMS = 1 << 40
"""The place of the locks of :meth:`PrivateNumbers.claim`: behind all that is ever written."""

_SET_LOCK: int = getattr(fcntl, "F_OFD_SETLK", -1) if sys.platform == "linux" else -1
"""Sets a lock of one opening of a file: another opening in the same process is kept out as well, and closing that one
ends no lock. -1: this system refuses it."""

_LOCK = struct.Struct("hhqqi")
"""A ``struct flock`` of Linux: its kind, what it is counted from, its place, its length, and no process."""


class UnsafeFile(OSError):
    """A file is not what it has to be: one of this user's own, under its own name. The text names it and says why."""


def beside(path: Path, ending: str) -> Path:
    """Return the file with the same name, a hyphen and this ending; beside the file itself, also for a process that
    knows its folder by a link."""
    return Path(f"{path.resolve()}-{ending}")


def create_private(path: Path) -> None:
    """Create an empty file, unless there is one. SQLite gives its -wal and -shm the mode of the file.

    To be called before each opening.

    :raises OSError: there is none, and it cannot be created.
    """
    with _creating, suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def open_private(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Return a descriptor of a file of this user's, which has mode 0600 from then on. Not for files that SQLite has
    open.

    :raises UnsafeFile: it is a symbolic link, no regular file, or another user's.
    :raises OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeFile(f"{path.name} is a symbolic link") from error
        raise
    try:
        status = os.fstat(descriptor)
        _check(path, status)
        if status.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class PrivateNumbers:
    """A file of numbers, each at its place, that several threads and processes read and write by system calls: whatever
    is done to it from outside must not end them, and a page of a mapping that is cut off does.

    It is closed when the last thread lets go of this object: another file would get the number of the descriptor, and
    a thread that was about to write would write there. A forked child may go on with it, but for :meth:`locked`.

    :param path: and `flags`: see :func:`open_private`. None: a file without a name, of this process alone.
    :ivar read: gets how many bytes are wanted, and from which place; returns them, or fewer: the file ends there.
    :ivar write: gets bytes, and their place; returns how many were put there. Of one number it is all, or none and an
        OSError.
    :ivar claimed: which number :meth:`claim` found.
    """

    def __init__(self, path: Path | None, flags: int = os.O_RDWR | os.O_CREAT) -> None:
        self._descriptor = _open_nameless() if path is None else open_private(path, flags)
        self.read, self.write = partial(os.pread, self._descriptor), partial(os.pwrite, self._descriptor)
        self._threads = threading.Lock()
        self.claimed = 0

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self._descriptor).st_size

    def reserve(self, size: int) -> None:
        """Reserve room for so many bytes, where the system can do that: no write among them fails for want of it.

        :raises OSError: there is no room.
        """
        if not hasattr(os, "posix_fallocate") or self.size >= size:
            return
        try:
            os.posix_fallocate(self._descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this file system cannot do that
                raise

    def claim(self, most: int) -> None:
        """Claim a number below `most` that no other opening of the file has, in any process, until this one is closed
        or its process is killed. `most` itself: there is none, or this system has no such locks."""
        for self.claimed in range(most):
            with suppress(OSError):
                self._set_lock(fcntl.F_WRLCK, _CLAIMS + self.claimed, 1)
                return
        self.claimed = most

    @contextmanager
    def locked(self, place: int, size: int) -> Iterator[bool]:
        """Lock a place against all others that ask for its lock, and yield whether that succeeded: not if one of them
        holds the lock for longer than this waits, or there are no locks here."""
        if not self._threads.acquire(timeout=_PATIENCE):  # the lock of a file is one of all threads of a process
            yield False
            return
        is_alone = False
        try:
            is_alone = any(self._takes(place, size) for _ in range(_TRIES))
            yield is_alone
        finally:
            if is_alone:
                self._set_lock(fcntl.F_UNLCK, place, size)
            self._threads.release()

    def _takes(self, place: int, size: int) -> bool:
        try:
            self._set_lock(fcntl.F_WRLCK, place, size)
        except OSError:
            # A lock of a file can be waited for without an end only: its holder may have been stopped.
            time.sleep(_PATIENCE / _TRIES)
            return False
        return True

    def _set_lock(self, kind: int, place: int, size: int) -> None:
        fcntl.fcntl(self._descriptor, _SET_LOCK, _LOCK.pack(kind, os.SEEK_SET, place, size, 0))


def _open_nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("numbers")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def check_private(path: Path) -> None:
    """Check a file that SQLite is to open; no file at all is fine.

    :raises UnsafeFile: it is a symbolic link, no regular file, or another user's.
    """
    with suppress(FileNotFoundError):
        _check(path, path.lstat())


def make_private(path: Path) -> None:
    """Take rights back that were given since, for example by restoring a copy."""
    with suppress(FileNotFoundError):
        if path.lstat().st_mode & 0o077:
            path.chmod(0o600)


def check_folder(folder: Path) -> None:
    """Check a folder, which may be known by a symbolic link that this user or the administrator has made.

    :raises UnsafeFile: another user has made it.
    """
    with suppress(FileNotFoundError):
        status = folder.lstat()
        if stat.S_ISLNK(status.st_mode) and status.st_uid not in (os.geteuid(), 0):
            raise UnsafeFile(f"the folder {folder.name} is another user's symbolic link")


def _check(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise UnsafeFile(f"{path.name} is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFile(f"{path.name} is not a regular file")
    if status.st_uid != os.geteuid():
        raise UnsafeFile(
            f"{path.name} belongs to {_name_of(status.st_uid)}, and this process runs as {_name_of(os.geteuid())}; run "
            f"workers and commands as one user, and chown {path} and the files beside it to that one"
        )


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # of a container, for example
        return str(user)
