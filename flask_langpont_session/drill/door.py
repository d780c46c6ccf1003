"""A drill in a worker that serves a site: it is asked for at a Unix socket of that worker, which only the worker's own
user may connect to.

It is there where DRILL_SOCKET is set. A drill lasts for a time that is said before, and ends at once when the program
that asked for it is gone.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO
from weakref import WeakSet

from ..stores.backend import Backend
from ..support.forks import renew_in_children
from ..support.logs import fields
from ..support.threads import start_daemon
from .faults import IN_WORDS, Fault, Faults, Undrillable

log = logging.getLogger(__name__)

LONGEST = 300.0
"""Seconds that a drill may last in a worker that serves a site."""

_RECOVERY = 60.0
"""Seconds for which it is told how the worker recovers."""

_PACE = 0.2
"""Seconds between two messages, by which a program that is gone is noticed."""

_NAME = "langpont-session-drills"


class DrillRefused(Exception):
    """No drill was begun. The text says why."""


def place_of(path: Path, pid: int) -> Path:
    """Return the socket of one worker.

    :param path: DRILL_SOCKET.
    """
    return path.with_name(f"{path.name}-{pid}")


def workers_at(path: Path) -> list[int]:
    """Return the process ids of the workers whose sockets are there, and that live."""
    return [number for number in _numbers_at(path) if _lives(number)]


def _numbers_at(path: Path) -> list[int]:
    begin = f"{path.name}-"
    names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    return sorted(
        int(name.removeprefix(begin)) for name in names if name.startswith(begin) and name[len(begin) :].isdecimal()
    )


def _lives(pid: int) -> bool:
    try:
        with suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Door:
    """The socket at which a worker is asked for a drill.

    :param path: DRILL_SOCKET.
    :param suspect: has the monitor look at a store, so that a drill begins where no request meets it.
    """

    def __init__(self, path: Path, backend: Backend, suspect: Callable[[str], None]) -> None:
        self._path = path
        self._backend = backend
        self._suspect = suspect
        self._reset()
        renew_in_children(self, Door._reset)
        _doors.add(self)

    def _reset(self) -> None:
        """Begin anew: a forked child has neither the thread nor a socket of its own."""
        self._lock = threading.Lock()
        self._is_at_it = threading.Lock()
        self._listening: socket.socket | None = None
        self._is_closed = False

    def ensure_open(self) -> None:
        """Listen, unless this process already does, or has been closed."""
        # A thread that finds another one at it need not wait for that.
        if self._listening is None and not self._is_closed and self._lock.acquire(blocking=False):
            try:
                if self._listening is None and not self._is_closed:
                    self._open()
            finally:
                self._lock.release()

    def _open(self) -> None:
        place = place_of(self._path, os.getpid())
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            for pid in (*_numbers_at(self._path), os.getpid()):
                if pid == os.getpid() or not _lives(pid):  # of a process that was killed
                    place_of(self._path, pid).unlink(missing_ok=True)
            listening.bind(str(place))
            place.chmod(0o600)  # nothing can connect before it listens
            listening.listen(4)
        except OSError as error:
            listening.close()
            self._is_closed = True  # each request would try it again
            log.error(
                "DRILL_SOCKET cannot be used, and no drill can be made in this worker: %s",
                error,
                extra=fields("drill_socket_unusable", cause=str(error)),
            )
            return
        self._listening = listening
        log.warning("drills can be made in this worker: DRILL_SOCKET is set", extra=fields("drills_possible"))
        start_daemon(_NAME, self._serve, listening)

    def close(self) -> None:
        """Stop listening. A drill that is on ends."""
        with self._lock:
            listening, self._listening, self._is_closed = self._listening, None, True
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # which wakes the thread
            listening.close()
            place_of(self._path, os.getpid()).unlink(missing_ok=True)

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            start_daemon(_NAME, self._meet, connection)

    def _meet(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        with suppress(OSError, ValueError), connection, connection.makefile("rw", encoding="utf-8") as text:
            try:
                self._drill(text)
            except DrillRefused as refused:
                _say(text, problem=str(refused))

    def _drill(self, text: TextIO) -> None:
        """Read what is asked for, and make the drill.

        :raises DrillRefused: what is asked for cannot be done.
        """
        fault, seconds = _asked(text)
        if not self._is_at_it.acquire(blocking=False):
            raise DrillRefused("there is a drill in this worker already")
        faults = Faults(self._backend, slow=1.5 * self._backend.settings.slow)
        try:
            with faults.laid():
                log.warning(
                    "a drill begins in this worker, for %g s at most: %s",
                    *(seconds, IN_WORDS[fault]),
                    extra=fields("drill_begins", seconds=seconds, fault=fault.value),
                )
                until = time.monotonic() + seconds
                faults.begin(fault, until)
                try:
                    self._tell(text, until, self._look_unless_lost)
                finally:
                    faults.end()
                    log.warning("the drill in this worker is over", extra=fields("drill_over"))
            self._tell(text, time.monotonic() + _RECOVERY, lambda: not self._backend.health.open_stores())
            _say(text, **self._state(), is_over=True)
        except Undrillable as error:
            raise DrillRefused(str(error)) from None
        finally:
            self._is_at_it.release()

    def _tell(self, text: TextIO, until: float, is_done: Callable[[], bool]) -> None:
        """Send the state of this worker, again and again.

        :raises OSError: the program that asked is gone.
        """
        while time.monotonic() < until and not self._is_closed:
            _say(text, **self._state())
            if is_done():
                return
            # In the thread of the socket; no request waits for it.
            time.sleep(min(_PACE, max(0.0, until - time.monotonic())))

    def _look_unless_lost(self) -> bool:
        """Have the monitor look at all stores until one is lost: a worker that serves no requests is to notice, too.
        Return False: the drill goes on in any case."""
        if not self._backend.health.open_stores():
            for store in sorted({store for store, _ in self._backend.health.breakers}):
                self._suspect(store)
        return False

    def _state(self) -> dict[str, Any]:
        health = self._backend.health
        return {"level": health.level, "lost": sorted(f"{store} {way}" for store, way in health.open_stores())}


_doors: WeakSet[Door] = WeakSet()


@atexit.register
def _close_all() -> None:
    for door in list(_doors):
        door.close()


def _asked(text: TextIO) -> tuple[Fault, float]:
    try:
        asked = json.loads(text.readline(1000))
        fault, seconds = Fault(asked["fault"]), float(asked["seconds"])
    except (ValueError, KeyError, TypeError):
        raise DrillRefused("what is asked for is no drill") from None
    if not 0 < seconds <= LONGEST:
        raise DrillRefused(f"a drill lasts {LONGEST:g} s at most in a worker that serves a site")
    return fault, seconds


def _say(text: TextIO, **message: Any) -> None:
    text.write(json.dumps(message) + "\n")
    text.flush()


def ask(path: Path, pid: int, fault: Fault, seconds: float) -> Generator[dict[str, Any]]:
    """Have a drill made in a worker, and yield its messages meanwhile. When this ends, the drill does.

    :return: messages: ``level`` and ``lost``; the last one has ``is_over``.
    :raises DrillRefused: the worker makes none.
    :raises OSError: it cannot be asked.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10.0)
        connection.connect(str(place_of(path, pid)))
        with connection.makefile("rw", encoding="utf-8") as text:
            _say(text, fault=fault, seconds=seconds)
            for line in text:
                message: dict[str, Any] = json.loads(line)
                if "problem" in message:
                    raise DrillRefused(message["problem"])
                yield message
