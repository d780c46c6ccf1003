"""Threads beside the requests: daemons, so that a waiting thread keeps no process alive.

They start when a process needs them: a thread that was started before a fork (gunicorn --preload) does not exist in the
workers.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from .chance import CHANCE
from .forks import renew_in_children
from .logs import Failing, fields

log = logging.getLogger(__name__)

EXIT_WAIT = 1.8
"""Seconds that the end of a process may wait for all threads together."""


def start_daemon(name: str, target: Callable[..., object], *arguments: Any) -> threading.Thread | None:
    """Start a thread.

    :param name: the thread's name in a stack dump.
    :return: None: no thread can be started now, or the interpreter is ending.
    """
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class PeriodicThread:
    """Does some work again and again in a thread of its own, and once more when the process ends.

    It starts with the first request that a process serves.

    :param begin: called in the new thread; prepares the work in this process, and returns the work.
    :param interval: seconds between the beginnings. The first run comes after a random part of the interval, so that
        workers do not run in step.
    """

    def __init__(self, name: str, begin: Callable[[], Callable[[], None]], interval: float) -> None:
        self._name = f"langpont-session-{name}"
        self._begin = begin
        self._interval = interval
        self._failing = Failing()
        self._reset()
        renew_in_children(self, PeriodicThread._reset)
        _alive.add(self)

    def _reset(self) -> None:
        """Begin anew: a forked child has neither the thread nor the lock's holder."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_ending = False
        self._thread: threading.Thread | None = None

    def ensure_started(self) -> None:
        """Start the thread in this process, unless the thread runs or was ended. Costs a running thread's caller an
        attribute look-up."""
        # Another thread that is starting the same thread need not be waited for.
        if self._thread is None and self._lock.acquire(blocking=False):
            try:
                if self._thread is None and not self.is_ending:
                    self._start()
            finally:
                self._lock.release()

    def _start(self) -> None:
        self._thread = start_daemon(self._name, self._run)
        if self._thread is None:  # the next request tries again
            log.error(
                "%s cannot be started: the system gives no more threads",
                self._name,
                extra=fields("thread_not_started", thread=self._name),
            )

    def end(self) -> None:
        """Run the work a last time, soon; see :meth:`wait`."""
        self._is_ending = True
        self._wake.set()

    @property
    def is_ending(self) -> bool:
        """Return whether this is the last run of the work."""
        return self._is_ending

    def pace(self, interval: float) -> None:
        """Run the work every `interval` seconds from now on, and at once if the new interval is shorter."""
        is_sooner, self._interval = interval < self._interval, interval
        if is_sooner:
            self._wake.set()

    def wait(self, timeout: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        work = self._begin()
        pause = CHANCE.uniform(0, self._interval)
        is_last = False
        while not is_last:
            self._wake.wait(pause)
            self._wake.clear()
            is_last, began = self._is_ending, time.monotonic()
            self._do(work)
            pause = max(0.0, self._interval - (time.monotonic() - began))

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._failing.ends()
        except Exception:
            # The thread must outlive any exception, and must not fill the log with repetitions.
            if self._failing.begins():
                log.exception(
                    "%s met an error it does not know; it goes on",
                    self._name,
                    extra=fields("thread_failed", thread=self._name),
                )


def end_all(threads: list[PeriodicThread], timeout: float | None = None) -> None:
    """End threads, and wait for them for `timeout` seconds in all; None: :data:`EXIT_WAIT`."""
    deadline = time.monotonic() + (EXIT_WAIT if timeout is None else timeout)
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.wait(max(0.0, deadline - time.monotonic()))


_alive: WeakSet[PeriodicThread] = WeakSet()
atexit.register(lambda: end_all(list(_alive)))
