"""Work that one process of a host does for all of them: the election of that process, and the messages of the others.

A folder with a lock and a file for each message. The system takes the lock back from a process that is killed, and a
message appears and disappears as a whole: it is taken once, whatever happens to the process that takes it.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import files
from .files import UnsafeFile, open_private
from .forks import renew_in_children
from .locks import release, takes
from .logs import Failing, fields

log = logging.getLogger(__name__)

KEPT = 3600.0
"""Seconds after which a message is dropped that no process has taken: all of them were away."""

_LOCK, _STATE = "lock", "state"
_MESSAGE, _UNFINISHED = ".message", ".new"
_PAUSE = 0.02


class HostWork:
    """A work for all processes of a host, as one process sees it. For one thread, but for :attr:`leads`.

    Where the folder cannot be used, each process leads, which means that it works for itself alone; the log says so
    once.

    :ivar leads: whether this process did the work for the others when :meth:`lead` was asked last.
    :param folder: this work's own; None: this process is the only one.
    :param what: the work, for the log: ``metrics``.
    :param patience: seconds after which messages that are not taken show that the process that leads hangs, and without
        a failure after which the log says that the folder can be used again: a full disk takes a little now and then.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, folder: Path | None, what: str, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._what = what
        self._patience = patience
        self._clock = clock
        self._lock: int | None = None
        self._failing = Failing()
        self._begin()
        renew_in_children(self, HostWork._renew)

    def _begin(self) -> None:
        self.leads, self._failed_at = False, 0.0
        self._left: dict[Path, float] = {}
        self._numbers = itertools.count()

    def _renew(self) -> None:
        """Give up the child's copy of the lock in a forked child: its parent goes on leading."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._begin()

    def lead(self) -> bool:
        """Return whether this process is to do the work: it is the first that asks, or the one that led is gone. It
        leads until it ends or resigns."""
        try:
            self.leads = self._folder is None or self._holds(self._folder)
        except OSError as error:
            self._say(error)
            self.leads = True
        else:
            self._say(None)
        return self.leads

    def _holds(self, folder: Path) -> bool:
        path = folder / _LOCK
        if self._lock is not None and _is_open_as(self._lock, path):
            return True
        self.resign()
        _make(folder)
        descriptor = open_private(path)
        try:
            if takes(descriptor):
                self._lock = descriptor
        finally:  # also after an interruption: the file must not stay open
            if self._lock is None:
                os.close(descriptor)
        return self._lock is not None

    def resign(self) -> None:
        """Let another process lead."""
        self.leads = False
        if self._lock is not None:
            release(self._lock)
            self._lock = None

    def leave(self, message: bytes) -> bool:
        """Leave a message for the process that leads.

        :return: False: this process has to work for itself. The folder cannot be used, or the process that leads
            hangs, and will take what was left before when it goes on.
        """
        if self._folder is None or self._is_ignored():
            return False
        name = f"{time.time_ns():020}-{os.getpid()}-{next(self._numbers)}"
        unfinished, path = self._folder / f"{name}{_UNFINISHED}", self._folder / f"{name}{_MESSAGE}"
        try:
            _write(unfinished, message)
            unfinished.rename(path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            self._say(error)
            return False
        self._left[path] = self._clock()
        return True

    def _is_ignored(self) -> bool:
        self._left = {path: at for path, at in self._left.items() if path.exists()}
        return any(self._clock() - at > self._patience for at in self._left.values())

    @property
    def is_shared(self) -> bool:
        """Return whether this process leads others, or would, rather than works for itself for want of a folder."""
        return self._lock is not None

    @property
    def waits(self) -> bool:
        """Return whether a message of this process was not taken yet."""
        return any(path.exists() for path in self._left)

    def succeeds(self, seconds: float = 1.0) -> bool:
        """Return, at the end of this process, whether it leads after all, once the leader has had time to take what
        this process has left. All processes of a host may end together, and the leader be the first."""
        until = self._clock() + seconds
        while self.waits and not self.lead():
            if self._clock() > until:
                return False
            time.sleep(_PAUSE)  # an flock with a time limit does not exist
        return self.leads

    def collect(self) -> list[bytes]:
        """Take what the other processes have left, the oldest first."""
        if self._folder is None or self._lock is None:
            return []
        try:
            paths = sorted(self._folder.iterdir())
        except OSError:
            return []
        oldest = time.time() - KEPT
        found = []
        for path in paths:
            if path.suffix == _MESSAGE and not _is_older(path, oldest):
                found.append(_taken(path))
            elif path.suffix in (_MESSAGE, _UNFINISHED) and _is_older(path, oldest):
                path.unlink(missing_ok=True)
        return [message for message in found if message is not None]

    def keep(self, state: bytes) -> None:
        """Keep what the next process that leads has to know."""
        if self._folder is None or self._lock is None:
            return
        unfinished = self._folder / f"{_STATE}{_UNFINISHED}"
        try:
            _write(unfinished, state)
            unfinished.rename(self._folder / _STATE)
        except OSError as error:
            self._say(error)

    def kept(self) -> bytes:
        """Return what the previous leader has kept; empty: nothing."""
        if self._folder is None or self._lock is None:
            return b""
        with suppress(OSError):
            return _read(self._folder / _STATE)
        return b""

    def _say(self, error: OSError | None) -> None:
        now = self._clock()
        if error is None:
            if now - self._failed_at >= self._patience and self._failing.ends():
                log.warning(
                    "the processes of this host share their %s again",
                    self._what,
                    extra=fields("host_shared", work=self._what),
                )
            return
        self._failed_at = now
        if self._failing.begins():
            problem = str(error) if isinstance(error, UnsafeFile) else _words(error)
            log.warning(
                "the processes of this host do not share their %s: %s. Each goes on for itself. Check the folder %s.",
                *(self._what, problem, self._folder),
                extra=fields("host_not_shared", work=self._what, cause=problem, folder=str(self._folder)),
            )


def _make(folder: Path) -> None:
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        status = each.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UnsafeFile(f"{each.name} is not a folder of this user's")


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has that name: another file of the name has locks of its own."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(content)


def _read(path: Path) -> bytes:
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def _taken(path: Path) -> bytes | None:
    """Return a message, which is this process' from now on; None: another process was first."""
    try:
        message = _read(path)
        path.unlink()
    except OSError:
        return None
    return message


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except OSError:
        return False


def _words(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def beside(journal: str | Path | None, work: str) -> Path | None:
    """Return the folder of a work, beside the journal of the host; None: the host has none."""
    return files.beside(Path(journal), "workers") / work if journal else None
