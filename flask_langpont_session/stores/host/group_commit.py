"""Writers of one process that share one transaction.

A thread that has to write hands over what it wants to do as a :class:`Task` and waits for its result, for as long as
it may. The process' one writing thread executes all tasks that have come meanwhile in one transaction. So a slow disk
is waited for once for all of them; and no thread that has to answer a request is itself in a call that it cannot leave:
waiting for another process, for a commit, for the disk.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Generic, TypeVar

from ...policy.errors import ErrorClass, StoreError
from ...support.lag import MORE, Deadline
from ...support.threads import start_daemon

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""Work for the connection that writes. It may be done again after all that it did was taken back."""

MOST_TOGETHER = 256
"""Tasks in one transaction: reads are shown none of them meanwhile, and other processes wait for all of them."""

MOST_WAITING = 10_000
"""Tasks, those given up included. So many wait only behind a process that was stopped while it wrote."""

_PERSISTENCE = 30.0
"""Seconds for which what must not be given up is tried after its thread has gone on."""

_BRISK = 0.0001
"""Seconds that a thread may compute before another one has its turn. Python's own are 0.005."""


class Brisk:
    """Makes the threads of this process give the interpreter back soon while one of them has the journal. Every
    statement lets go of it: where many threads compute, a transaction that waits for them each time would keep other
    processes, and a question the other threads of this one, out for half a second. The interpreter has one interval for
    all threads, and several may have a journal at a time: the last one that ends sets it back.

    It has no lock. A signal handler may interrupt a thread anywhere in here, and wait for another one that comes here.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._users: list[None] = []
        self._before: float | None = None

    def __enter__(self) -> None:
        self.renew()
        self._users.append(None)
        if (interval := sys.getswitchinterval()) > _BRISK:
            self._before = interval
            sys.setswitchinterval(_BRISK)

    def __exit__(self, *exc: object) -> None:
        with suppress(IndexError):  # a child that was forked in here has begun anew
            self._users.pop()
        self._end()

    def renew(self) -> None:
        """Begin anew in a forked child, which has none of the threads that use the journal."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._users.clear()
            self._end()

    def _end(self) -> None:
        # Set back too early, which two threads can bring about, it is only less brisk; it is never kept.
        if not self._users and self._before is not None:
            sys.setswitchinterval(self._before)


brisk = Brisk()

_BUSY = "SQLITE_BUSY"


def busy() -> StoreError:
    """Return the error that time was up before anything was done."""
    return StoreError("journal", ErrorClass.UNREACHABLE, _BUSY)


def is_busy(error: StoreError) -> bool:
    """Return whether the journal would have answered, had there been more time."""
    return error.timed_out or error.cause.startswith(_BUSY)


class Room(Enum):
    """The room on the disk that a task may take."""

    GROWING = "growing"  # none that the reserve needs: it adds to what waits
    USUAL = "usual"  # what there is
    RESERVED = "reserved"  # the reserve's, if there is no other: it ends a session, or empties the journal


class Task(Generic[T]):
    """Something to be written, and the thread that waits for it.

    Either the writer takes it up or the waiting thread gives it up; never both. Both locks are used as flags, taken or
    left by one call each: a signal handler that interrupts a thread which waits may write, too.

    :param deadline: how long the thread waits.
    :param forced: its result is known when it is on the disk.
    :param is_entry: whether :meth:`Journal.is_empty` has to look again after it.
    :param stays: it is to be done even if that is later than its thread waits.
    :param room: which room it may take.
    """

    __slots__ = (
        *("_deadline", "_decided", "_done", "_error", "_is_taken", "_value", "_work"),
        *("forced", "is_entry", "room", "_stays"),
    )

    def __init__(
        self,
        work: Work[T],
        deadline: Deadline,
        *,
        forced: bool,
        is_entry: bool,
        stays: bool = False,
        room: Room = Room.USUAL,
    ) -> None:
        self.room = room
        self._work: Work[T] | None = work
        self._decided, self._done = threading.Lock(), threading.Lock()
        self._done.acquire()
        self._is_taken = False
        self._value: T
        self._error: Exception | None = None
        self._deadline = deadline
        self.forced = forced
        self.is_entry = is_entry
        self._stays = stays

    # -- the thread that waits

    def result(self) -> T:
        """Wait for the task, and return its result.

        :raises StoreError: UNREACHABLE. Without `timed_out`, it was given up and will not be done; with it, it was
            under way when time was up, or stays to be done, and may happen or not.
        """
        try:
            is_done = self._deadline.wait(lambda seconds: self._done.acquire(timeout=seconds))
        finally:  # also when a signal handler or a greenlet's end raises here
            given_up = not self._stays and self._decided.acquire(blocking=False)
            if given_up:
                self._work = None
        if given_up:
            raise busy()
        # What came a moment late is an answer all the same.
        if not (is_done or self._done.acquire(blocking=False)):
            raise StoreError("journal", ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True)
        if self._error is not None:
            raise self._error
        return self._value

    # -- the thread that writes

    @property
    def until(self) -> float:
        """Return until when the task is waited for at most, should this process be late: monotonic seconds."""
        return self._deadline.at + (_PERSISTENCE if self._stays else MORE)

    @property
    def is_waited_for(self) -> bool:
        """Return whether the task is worth being begun: it was not given up, and time is not up."""
        return (self._is_taken or not self._decided.locked()) and time.monotonic() < self.until

    def take_up(self) -> bool:
        """Take up the task, unless it was given up, and return whether. To be called before all that follows."""
        self._is_taken = self._is_taken or self._decided.acquire(blocking=False)
        return self._is_taken

    def execute(self, connection: sqlite3.Connection) -> None:
        """Do the work; what it raises is raised."""
        assert self._work is not None
        self._value = self._work(connection)

    def finish(self) -> None:
        """Let the waiting thread have the result."""
        self._done.release()

    def fail(self, error: Exception) -> None:
        """Let the waiting thread have an error."""
        self._error = error
        self._done.release()


class Writer:
    """The one thread of a process that writes to a journal. It is started when it is needed, and ends by itself.

    :param serve: called by it with a task that it has not taken up. Must not raise.
    :param idle: seconds after which the thread ends if there is nothing to do. The next task starts another one.
    """

    def __init__(self, serve: Callable[[Task[Any]], None], *, idle: float = 5.0) -> None:
        self._serve = serve
        self._idle = idle
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child: what waits is for the parent to write, and the thread is the parent's."""
        brisk.renew()
        self._pid = os.getpid()
        self._tasks: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        # Reentrant, because a signal handler may write. It may then start a second thread, which does no harm.
        self._starting = threading.RLock()
        self._runs = False
        self._thread: threading.Thread | None = None

    def put(self, task: Task[Any]) -> None:
        """Have a task executed.

        :raises StoreError: LOCAL; there is no thread to be had, or far too many wait already.
        """
        if self._pid != os.getpid():  # forked by C code that runs none of Python's hooks
            self.renew()
        if self._tasks.qsize() >= MOST_WAITING:
            raise StoreError("journal", ErrorClass.LOCAL, "too many wait for the journal")
        with self._starting:
            if not self._runs:
                self._start()
            # After that: what is refused here must not be written by a thread that is started later.
            self._tasks.put(task)

    def _start(self) -> None:
        thread = start_daemon("langpont-session-journal", self._run, self._tasks)
        if thread is None:
            raise StoreError("journal", ErrorClass.LOCAL, "no thread can be started")
        self._runs, self._thread = True, thread

    def rest(self, timeout: float) -> None:
        """Have the thread end when all that waits is written. The next task starts another one.

        :param timeout: seconds to wait for that.
        """
        thread = self._thread
        if thread is None or self._pid != os.getpid() or thread is threading.current_thread():
            return
        with self._starting:
            if not self._runs:
                return
            self._tasks.put(None)
        thread.join(timeout)

    def more(self) -> list[Task[Any]]:
        """Return the tasks that have come meanwhile, at most :data:`MOST_TOGETHER`."""
        tasks: list[Task[Any]] = []
        try:
            while len(tasks) < MOST_TOGETHER:
                task = self._tasks.get_nowait()
                if task is None:
                    self._tasks.put(None)  # for the time when these are done
                    break
                tasks.append(task)
        except queue.Empty:
            pass
        return tasks

    def _run(self, tasks: queue.SimpleQueue[Task[Any] | None]) -> None:
        while True:
            try:
                task = tasks.get(timeout=self._idle)
            except queue.Empty:
                task = None
            if task is None:
                with self._starting:
                    if tasks.empty():
                        self._runs = False
                        return
                continue
            if task.is_waited_for:
                with brisk:
                    self._serve(task)
            del task  # what it holds may be large
