"""A bounded wait for calls that have no bound of their own.

A database driver can hang for as long as the other side does: its own time-outs are the server's, and a server that
hangs keeps none. So the call runs on a thread of ours, and the caller stops waiting. The thread cannot be stopped: it
stays taken until the call ends. When all are taken, a caller waits for one within its own deadline and no longer.

What can be stopped is the wait on a socket: a call that says which one it waits on (:func:`waiting_on`) has it shut
down by :meth:`Bulkhead.cut_off`, and ends by the error that its driver makes of that. For a reply that is lost for
good, on a connection that is well, there is no other end.

Not concurrent.futures: its threads are joined when the interpreter exits, so that one hung call would block a restart.
"""

from __future__ import annotations

import math
import os
import queue
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from ...support.errors import LangPontSessionError
from ...support.forks import call_in_children
from ...support.lag import PROCESS, Deadline, no_answer
from ...support.threads import start_daemon

T = TypeVar("T")

FAIR_SHARE = 0.8
"""The share of its time that a call must have had on its thread for its lateness to be its own. In less time a store
that gives up by itself (the database's statement time-out) could not have said so."""


class NoFreeSlot(LangPontSessionError):
    """All slots stayed taken; nothing was started."""


class DeadlineExceeded(LangPontSessionError):
    """The call did not end in time. It goes on, and whether it has an effect is unknown, unless it asks
    :func:`raise_if_given_up` before it takes effect."""


class StartedLate(DeadlineExceeded):
    """The call did not end in time, and began late: this says nothing about what it waits for."""


class GivenUp(LangPontSessionError):
    """No caller waits for this call any more."""


_here = threading.local()


def raise_if_given_up() -> None:
    """Raise if no caller waits for this call any more. To be asked by a call before it takes effect.

    :raises GivenUp: its caller was told that it did not end in time.
    """
    job = getattr(_here, "job", None)
    if job is not None and job.given_up_at < math.inf:
        raise GivenUp


def is_call() -> bool:
    """Return whether this thread is in the middle of a call of a bulkhead."""
    return getattr(_here, "job", None) is not None


def waiting_on(owner: object, fd: int) -> None:
    """Note that this call is about to wait for the other side of a connection. Outside of a bulkhead this does nothing.

    :param owner: the connection. It belongs to this call until :func:`no_longer_waiting_on`, which has to be said
        before the connection is closed or given to another call.
    :param fd: its socket.
    """
    job = getattr(_here, "job", None)
    if job is not None:
        job.wait_on(_Wire(owner, fd))


def no_longer_waiting_on(owner: object) -> bool:
    """Have the socket of a connection left alone from here on.

    :return: whether it was shut down: the connection cannot be used any more.
    """
    job = getattr(_here, "job", None)
    return job is not None and job.leave(owner)


class _Wire:
    """The socket of a connection, told from another file that got the same number since."""

    __slots__ = ("_fd", "_identity", "is_shut", "owner")

    def __init__(self, owner: object, fd: int) -> None:
        self.owner = owner
        self.is_shut = False
        self._fd = fd
        self._identity = _identity(fd)

    def shut_down(self) -> None:
        """End the connection for a thread that waits on it. Does not block."""
        # The driver's own object is not safe to use from another thread, and its library closes a broken socket without
        # a word: the number may be another file's then.
        with suppress(OSError):
            duplicate = os.dup(self._fd)
            if _identity(duplicate) != self._identity:
                os.close(duplicate)
                return
            self.is_shut = True
            with socket.socket(fileno=duplicate) as connected:
                connected.shutdown(socket.SHUT_RDWR)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


class _Job(Generic[T]):
    """One call and how it ended. The thread that asked acquires `done`, or sets `given_up_at` (monotonic seconds).

    :ivar began: when its thread began with it, by :meth:`Lag.passed`; infinity: not yet.
    """

    __slots__ = ("_error", "_fn", "_guard", "_result", "_wire", "began", "done", "given_up_at")

    def __init__(self, fn: Callable[[], T]) -> None:
        self._fn = fn
        self._result: T | None = None
        self._error: BaseException | None = None
        # Held while the wire is shut down: meanwhile the connection goes to no other call. Reentrant, because the
        # garbage collector may give back a connection that was lost, in this thread and at any moment.
        self._guard = threading.RLock()
        self._wire: _Wire | None = None
        self.began = self.given_up_at = math.inf
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        _here.job = self
        self.began = PROCESS.passed()
        try:
            self._result = self._fn()
        except BaseException as error:
            self._error = error
        finally:
            _here.job = None
            with self._guard:
                self._wire = None

    def wait_on(self, wire: _Wire) -> None:
        with self._guard:
            self._wire = wire

    def leave(self, owner: object) -> bool:
        with self._guard:
            wire = self._wire
            if wire is None or wire.owner is not owner:
                return False
            self._wire = None
            return wire.is_shut

    def cut_off(self) -> None:
        with self._guard:
            if self._wire is not None and not self._wire.is_shut:
                self._wire.shut_down()

    def outcome(self) -> T:
        if self._error is None:
            return cast(T, self._result)
        try:
            raise self._error
        finally:
            # The error's traceback holds this frame, and this frame the error: a cycle that keeps everything alive.
            self._error = None


_Inbox = queue.SimpleQueue[_Job[Any] | None]
"""None: there is nothing more to do."""

_Slots = list[_Inbox | None]


class Bulkhead:
    """At most `slots` calls at a time, each awaited for a bounded time.

    Usable from any thread. A forked child begins with all slots free and no threads.

    :param slots: calls that may run at the same time, hung ones included.
    :param name: of the threads, for readers of a stack dump.
    :param clock: monotonic seconds, by which calls are given up.
    """

    def __init__(self, slots: int, name: str, *, clock: Callable[[], float] = monotonic) -> None:
        self._size = slots
        self._name = name
        self._clock = clock
        self._free_all()
        _bulkheads.add(self)

    def call(self, fn: Callable[[], T], timeout: float, *, queue: bool = True) -> T:
        """Run `fn` on a thread of its own, and return what it returns or raise what it raises, if it ends in time.

        :param timeout: seconds to wait, for a slot and for the answer together; `fn` itself is not interrupted.
        :param queue: wait for a slot, too; else it must be free now.
        :raises NoFreeSlot: no slot became free in that time; `fn` was not called.
        :raises DeadlineExceeded: `fn` still runs; what it returns or raises later is dropped.
        """
        job, deadline = _Job(fn), Deadline.after(timeout)
        if not self._places.acquire(blocking=False) and not (
            queue and deadline.wait(lambda seconds: self._places.acquire(timeout=seconds))
        ):
            raise NoFreeSlot(f"{self._name}: all {self._size} slots are taken")
        self._hand_over(job)
        if not deadline.wait(lambda seconds: job.done.acquire(timeout=seconds)):
            job.given_up_at = self._clock()
            late = StartedLate if PROCESS.passed() - job.began < timeout * FAIR_SHARE else DeadlineExceeded
            raise late(f"{self._name}: {no_answer(timeout, deadline.late)}")
        return job.outcome()

    def cut_off(self, given_up_before: float) -> None:
        """End the calls whose callers gave them up before a moment (monotonic seconds), as far as they wait on a
        socket. Does not block: each ends soon after."""
        for job in list(self._running):
            if job.given_up_at < given_up_before:
                job.cut_off()

    def close(self, timeout: float = 1.0) -> None:
        """Wait for the calls that are under way, at most so many seconds, and end all threads but those of calls that
        hang even then. A later call starts others."""
        deadline, taken = monotonic() + timeout, 0
        while taken < self._size and self._places.acquire(timeout=max(0.0, deadline - monotonic())):
            taken += 1
        ending = [thread for thread in map(self._dismiss, range(taken)) if thread]
        for _ in range(taken):
            self._places.release()
        for thread in ending:
            thread.join(timeout)

    def _dismiss(self, _: int) -> threading.Thread | None:
        """Have an idle thread end, if this slot has one."""
        inbox = self._free.pop()
        self._free.insert(0, None)
        if inbox is None:
            return None
        inbox.put(None)
        return self._threads.get(inbox)

    @property
    def busy(self) -> int:
        """Return how many slots are taken at the moment."""
        return self._size - len(self._free)

    def _free_all(self) -> None:
        # What is in the list is a free slot: the inbox of an idle thread, or None for a thread that is not there
        # yet. pop and append are atomic, so the list needs no lock, and a fork can leave none locked. Idle threads
        # are on top, so that few threads do all of the work.
        self._free: _Slots = [None] * self._size
        self._places = threading.Semaphore(self._size)
        self._running: set[_Job[Any]] = set()
        self._threads: weakref.WeakKeyDictionary[_Inbox, threading.Thread] = weakref.WeakKeyDictionary()

    def _hand_over(self, job: _Job[Any]) -> None:
        inbox = self._free.pop() or self._start_thread()
        inbox.put(job)

    def _start_thread(self) -> _Inbox:
        inbox: _Inbox = queue.SimpleQueue()
        thread = start_daemon(self._name, _serve, inbox, self._free, self._places, self._running)
        if thread is None:
            self._free.insert(0, None)
            self._places.release()
            raise NoFreeSlot(f"{self._name}: no thread can be started")
        self._threads[inbox] = thread
        return inbox


def _serve(inbox: _Inbox, free: _Slots, places: threading.Semaphore, running: set[_Job[Any]]) -> None:
    """Run the calls of one thread. Holds no reference to the bulkhead, which may go away."""
    while job := inbox.get():
        running.add(job)
        job.run()
        running.discard(job)
        # Free before done: a caller that has its answer may call again and must find the slot.
        free.append(inbox)
        places.release()
        job.done.release()
        del job  # while idle, hold nothing of the last call


_bulkheads: weakref.WeakSet[Bulkhead] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _here
    _here = threading.local()
    for bulkhead in list(_bulkheads):
        bulkhead._free_all()


call_in_children(_after_fork_in_child)
