"""The file of the journal: written to by several processes at once, and let go of in a fork.

Six rules shape this module:

- A connection must not live through a fork. The child would believe that it holds the locks its parent holds,
  and when the parent closes, SQLite removes the log that the child still writes to: acknowledged writes
  vanish without an error. So every connection is closed *before* a fork, and opened again where it is needed.
- Closing *any* descriptor of a file drops all locks this process has on it, SQLite's too. So nothing here
  opens the file by other means once it exists. (SQLite has no locks on its -wal.)
- ``PRAGMA data_version`` changes when, and only when, another connection has committed. But to ask takes the
  connection, a statement and two system calls: too much for every request, enough for a look now and then.
- So the processes also share a :class:`CommitCounter`, a few bytes in a file of its own.
- Readers wait for no writer: they have a connection of their own.
- Writers of a process share a transaction, and the writing threads of all processes queue for a lock that the system
  hands on in turn, also when a process is killed. None of them waits for the disk while it holds it: a commit is
  forced to the disk after the next process was let in, so that processes wait for the disk at the same time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...policy.errors import ErrorClass, StoreError
from ...support.files import beside
from ...support.forks import call_in_children
from ...support.lag import Deadline
from ...support.locks import HostLock
from .commit_counter import COUNTER, CommitCounter
from .group_commit import Room, Task, Work, Writer, brisk, busy
from .opening import (
    FAILURES,
    LOG,
    begun,
    completed,
    full,
    give_back_reserve,
    hold_reserve,
    is_full,
    is_well,
    make_room,
    one,
    open_database,
    path_of,
    store_error,
    translated,
)

T = TypeVar("T")
P = ParamSpec("P")

BUSY_SECONDS = 0.5
"""The seconds that a call waits if it is not told: for its turn, other workers' writes and the disk together. A write
takes a few milliseconds, and on a disk that is busy a few hundred now and then: what gives up then is lost."""

REPLAY_SECONDS = 5.0
"""The same for what no request waits for: giving up there means to do again what the stores have done already."""

_PORTION = 512
"""Pages of 4 KB that are given back to the system at a time: some milliseconds for which no other process may write."""

_SLACK = 256
"""Free pages that are not worth it."""

_LARGE_LOG = 4_194_304
"""Bytes of SQLite's -wal from which on it is worth copying what it holds to the file."""

_FAREWELL = 1.0
"""Seconds that closing waits at most for what is still to be written."""

TURNS = {side: threading.RLock() for side in ("write", "read", "shrink")}
"""Locks for all journals of this process, usually one: a fork has to stop and close every one of them. A thread that
takes several takes them in this order. Reentrant, because a signal handler may fork."""


class Side:
    """One connection, for all threads of this process, one at a time; opened when it is needed.

    :param path: of the journal, as the settings name it.
    :ivar opened: how often; what was learned from one connection says nothing about the next.
    :ivar place: the file that was opened last; None: it is in memory, or none was yet.
    """

    def __init__(self, path: Path | None, turn: str) -> None:
        self.place: Path | None = None
        self.connection: sqlite3.Connection | None = None
        self.opened = 0
        self._path = path
        self._turn = turn
        self._age = 0
        self._pid = 0
        self._patience = 0
        self._file: tuple[int, int] | None = None

    @contextmanager
    def taken(self, deadline: Deadline) -> Iterator[None]:
        """Have this side alone, until the end.

        :raises StoreError: the other threads took all the time there is.
        """
        turn = TURNS[self._turn]
        if not deadline.wait(lambda seconds: turn.acquire(timeout=seconds)):
            raise busy()
        try:
            yield
        finally:
            turn.release()

    def connect(self, age: int, until: float) -> sqlite3.Connection:
        """Return the connection; another one if the file was let go of since (`age` is another one)."""
        if self.connection is not None and self._age != age:
            self.close()
        if self.connection is None:
            self.place = self._path and path_of(self._path)
            connection = open_database(self.place, until)
            self._age, self._pid, self.opened, self._patience = age, os.getpid(), self.opened + 1, 0
            self._file = _identity(self.place)
            # Threads on the other side ask whether it is inherited: it comes last.
            self.connection = connection
        return self.connection

    def wait_for_others(self, seconds: float) -> None:
        """Let SQLite wait for another process, for at most so long: it may recover the file, or be the last to leave
        it, which keeps readers out, too. To be called with :meth:`taken` and connected."""
        assert self.connection is not None
        milliseconds = max(0, int(seconds * 1000))
        if not self._patience <= milliseconds <= 2 * self._patience:  # else it is near enough
            self.connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._patience = milliseconds

    def close(self) -> None:
        """Close the connection. Never raises. To be called with :meth:`taken`, or where there are no other threads."""
        if self._path is not None and self.is_inherited():
            # Closing it here could remove the log that the parent writes to.
            return
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def is_gone(self) -> bool:
        """Return whether the file that is open here was deleted, or another one stands in its place: no other process,
        and none that starts, would find what is written to it."""
        return self.connection is not None and self._file != _identity(self.place)

    def is_inherited(self) -> bool:
        """Return whether the connection was opened by a process that this one was forked from."""
        return self.connection is not None and self._pid != os.getpid()


class Sides:
    """The connections of this process to one journal.

    :param path: of the journal, as the settings name it; None: in memory, by one connection only. No other process can
        keep that waiting.
    :ivar was_gone: see :meth:`is_gone`.
    """

    def __init__(self, path: Path | None) -> None:
        self.was_gone = False
        self._without_room = path
        self.write = Side(path, "write")
        self.read = self.write if path is None else Side(path, "read")
        self.shrink = self.write if path is None else Side(path, "shrink")

    @property
    def all(self) -> Sequence[Side]:
        """Return each of them."""
        return self.write, self.read, self.shrink

    def make_room(self) -> None:
        """Make sure, before one is opened for the first time, that no file of another program is in the way."""
        if self._without_room is not None:
            make_room(self._without_room)
            self._without_room = None

    def is_gone(self) -> bool:
        """Return whether the file of one of them was deleted, also if it has been opened anew since the last call that
        returned this."""
        was_gone, self.was_gone = self.was_gone, False
        return was_gone or any(side.is_gone() for side in self.all)


class JournalFile:
    """The connections of this process to the file: for writing, reading and shrinking it. Errors are StoreErrors.

    Wherever there is a `wait`, it is the seconds that all waits of the call take together at most; None:
    :data:`BUSY_SECONDS`.

    :param path: as the settings name it, see :mod:`.opening`; its folder is created if only that one is missing. None:
        a database in memory, which is empty again after :meth:`close`, and in a forked child.
    :ivar sides: its connections.
    :ivar counter: of commits; None: the next call opens it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path.absolute() if path is not None else None
        self.sides = Sides(self.path)
        self.writer, self.reader = self.sides.write, self.sides.read
        self._shrunk = (0, 0)  # how the file was when there was nothing more to shrink
        self._writers = Writer(self._serve)
        self.counter: CommitCounter | None = None
        self._pid = 0
        self._age = 0
        self._alone = threading.Lock()
        self._sole = HostLock(beside(path, COUNTER)) if path else None
        self._queue = HostLock(beside(path, "lock")) if path else None
        _files.add(self)

    # -- reading -------------------------------------------------------------------------------------------------

    @contextmanager
    def connected(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """Yield the connection for reading, for this thread alone."""
        # What was not told how long to wait is no request, and may look again and again while all is idle.
        deadline = _deadline(wait, attends=wait is not None)
        with brisk, self._lent(self.reader, deadline) as db:
            self.reader.wait_for_others(deadline.left())
            yield db

    @contextmanager
    def snapshot(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """Yield the connection for reading, for several questions about one moment."""
        with self.connected(wait) as db:
            db.execute("BEGIN DEFERRED")
            with completed(db):
                yield db

    # -- writing -------------------------------------------------------------------------------------------------

    def transaction(
        self,
        work: Work[T],
        wait: float | None = None,
        *,
        forced: bool = True,
        stays: bool = False,
        room: Room = Room.USUAL,
    ) -> T:
        """Have something written whole or not at all, together with what other threads write at the same moment.

        :param work: gets the connection, and is called by another thread. What it raises is raised here; then nothing
            of it was written. It may be called again if all that it did was taken back: its arguments must be there
            still.
        :param forced: to the disk. False: the call does not wait for it, and it may be lost when the machine loses its
            power.
        :param stays: it is not given up when time is up, but written as soon as possible. For what may be done however
            late it is, whatever was said of it.
        :param room: which room on the disk it may take, see :func:`.hold_reserve`.
        :return: what `work` returned.
        :raises StoreError: UNREACHABLE, when time was up. With `timed_out` it was under way, or stays, and may be
            written or not; without, it will never be. With `sent` alone it is written, but the disk may lose it.
        """
        if room is Room.GROWING:
            work = _beside_reserve(self.path, work)
        return self._done(Task(work, _deadline(wait), forced=forced, is_entry=True, stays=stays, room=room))

    def aside(self, work: Work[T], wait: float | None = None) -> T:
        """Have something written that is no entry, not forced to the disk: requests that ask whether there are entries
        are not made to look again."""
        deadline = _deadline(wait, attends=False)  # no request waits for it, and idle workers write such
        return self._done(Task(work, deadline, forced=False, is_entry=False, room=Room.RESERVED))

    def open(self) -> None:
        """Make sure that the file can be written, in this thread: a server that forks next has no more threads."""
        task = Task(lambda db: None, _deadline(None, attends=False), forced=True, is_entry=True)
        written = self._execute([task])
        _deliver(self.writer.place, written)
        task.result()

    def _done(self, task: Task[T]) -> T:
        if self.path is None:
            _deliver(self.path, self._execute([task]))
        else:
            self._refuse_if_inherited()
            self._writers.put(task)
        return task.result()

    def _serve(self, task: Task[Any]) -> None:
        """Write a task, and all that have come until it is this process' turn. Called by the writing thread."""
        tasks = [task]
        try:
            # Nothing is put beside the file before it is known that it is a journal.
            with self._lent(self.writer, Deadline(task.until, attends=False)):  # the thread that waits for it does
                pass
            with self._turn_of_host(task.until) as is_ours:
                if not is_ours:
                    raise busy()
                tasks += self._writers.more()
                written = self._execute(tasks)
        except Exception as error:
            _fail(tasks, error if isinstance(error, StoreError) else store_error(error))
        else:
            _deliver(self.writer.place, written)

    def _execute(self, tasks: Sequence[Task[Any]]) -> list[Task[Any]]:
        """Execute tasks in one transaction if that works, else each for itself.

        :return: those that are committed; the others have failed, or were given up.
        """
        try:
            written, again = self._together(tasks)
        except Exception as error:
            if len(tasks) == 1 and not _makes_room(self, tasks[0], error):
                _fail(tasks, error)
                return []
            written, again = [], list(tasks)
        for task in again:
            written += self._execute([task])
        return written

    def _together(self, tasks: Sequence[Task[Any]]) -> tuple[list[Task[Any]], list[Task[Any]]]:
        """Execute tasks in one transaction. Return those that were done, and those that failed and whose part was taken
        back. A task that fails alone raises."""
        with self._lent(self.writer, Deadline(max(task.until for task in tasks), attends=False)) as db:
            if not begun(db, "BEGIN IMMEDIATE", lambda: any(task.is_waited_for for task in tasks)):
                raise busy()
            taken = [task for task in tasks if task.take_up()]
            numbered = self._numbered() if any(task.is_entry for task in taken) else nullcontext()
            with numbered, completed(db):
                if len(tasks) == 1:
                    for task in taken:
                        task.execute(db)
                    return taken, []
                failed = [task for task in taken if not _do(db, task)]
        return [task for task in taken if task not in failed], failed

    @contextmanager
    def _numbered(self) -> Iterator[None]:
        # Kept here, because a failure lets go of the file.
        counter = self._shared_numbers()
        number = counter.begin()
        try:
            yield
        finally:
            with suppress(OSError):  # what is committed is committed; readers go on asking
                counter.end(number)

    # -- one process at a time -----------------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Yield whether this is the only one of all processes and threads in this block. Waits for none. A process that
        is killed in the block has left it."""
        with ExitStack() as ends:
            if self._sole is None:
                if is_alone := self._alone.acquire(blocking=False):
                    ends.callback(self._alone.release)
            else:
                with self._lent(self.reader, _deadline(None)):
                    pass  # which makes the file that is locked
                is_alone = _held(ends, self._sole.taken)
            yield is_alone

    def renew(self) -> None:
        """Begin anew in a forked child: what it has inherited is its parent's."""
        self._alone = threading.Lock()
        for lock in (self._sole, self._queue):
            if lock:
                lock.forget()
        self._writers.renew()
        # Only those in memory are open still. What is in the parent's memory is for the parent to merge, once.
        self.close()

    def shrink(self) -> bool:
        """Keep the files small: copy what is committed from the log to the file, and if most of the file is free, give
        a portion of it back to the system. Meant to be called again and again by a thread that may wait for the disk:
        others write meanwhile, or in between.

        :return: whether there may be more.
        """
        if self.path is None or self._queue is None:
            return False
        is_short = not hold_reserve(self.path)
        with self._lent(self.sides.shrink, _deadline(None, attends=False)) as db:
            place = self.sides.shrink.place or self.path
            state = _state_by(self.sides.shrink, db)
            if is_short:  # on a full disk the log may have the room that the reserve lacks
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                hold_reserve(self.path)
            elif state == self._shrunk:
                return False
            elif _size(beside(place, LOG)) > _LARGE_LOG:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            used = one(db, "PRAGMA page_count") - one(db, "PRAGMA freelist_count")
            free = _size(place) // one(db, "PRAGMA page_size") - used
        if free <= max(_SLACK, used):
            self._shrunk = state
            return False
        with ExitStack() as ends:
            is_ours = _held(ends, self._queue.taken)
            db = ends.enter_context(self._lent(self.sides.shrink, _deadline(None)))
            if is_ours and begun(db, "BEGIN IMMEDIATE", lambda: False):
                db.execute("ROLLBACK")  # no other program has it
                # executescript() takes all steps; by execute() it would be one page.
                db.executescript(f"PRAGMA incremental_vacuum({_PORTION})")
                # The file itself is cut off when what was committed is copied to it.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def _turn_of_host(self, until: float) -> AbstractContextManager[bool]:
        """Wait for this process' turn to write, and yield whether it has come. For fairness only: SQLite's own locks
        are not handed on in turn."""
        return self._queue.waited(lambda: time.monotonic() < until) if self._queue else nullcontext(True)

    # -- asking without SQLite -----------------------------------------------------------------------------------

    def numbers(self, ask: Callable[Concatenate[CommitCounter, P], T], *arguments: P.args, **more: P.kwargs) -> T:
        """Return what `ask` gets from the numbers that the processes share. The file is opened if it is not open."""
        try:
            counter = self.counter
            if counter is None or self._pid != os.getpid():
                with self._lent(self.reader, _deadline(None)):
                    counter = self._shared_numbers()
            return ask(counter, *arguments, **more)
        except OSError as error:
            raise store_error(error) from error

    def others_state(self) -> tuple[int, int]:
        """Return what differs from an earlier answer if another process may have committed since. On the way, make
        requests cheap again after a process was killed while it wrote."""
        with self._lent(self.writer, _deadline(None, attends=False)) as db:
            self._tidy(db)
            # By the connection for writing: this process' own commits count for nothing there.
            return _state_by(self.writer, db)

    def _tidy(self, db: sqlite3.Connection) -> None:
        counter = self.counter
        if counter is None or counter.committed() is not None:
            return
        # A process that is alive and writes holds the lock, and needs no help. It is not waited for: requests would be
        # made to, too.
        with suppress(sqlite3.OperationalError):
            db.execute("BEGIN IMMEDIATE")
            number = counter.begin()
            db.execute("ROLLBACK")
            counter.end(number)

    # -- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _lent(self, side: Side, deadline: Deadline) -> Iterator[sqlite3.Connection]:
        """Yield a connection, for this thread alone."""
        with side.taken(deadline):
            try:
                self._refuse_if_inherited()
                self.sides.make_room()
                db = side.connect(self._age, deadline.at)
                self._shared_numbers()
                yield db
            except FAILURES as error:
                # The next call begins anew: the file may be repaired or replaced by then. Not if the file is well: on a
                # full disk reading goes on, but opened anew it might find no room for its index.
                if self.path is not None and not is_well(error):
                    self.sides.was_gone = self.sides.is_gone()
                    self._let_go()
                    side.close()
                raise store_error(error) from error

    def _refuse_if_inherited(self) -> None:
        """Raise if C code that runs none of Python's hooks has forked this process with a connection open. There is no
        safe way on: this process would write where no other looks. (After Journal.open() nothing is open: a server
        which forks like this works all the same.)"""
        if any(side.is_inherited() for side in self.sides.all):
            raise StoreError("journal", ErrorClass.LOCAL, "forked while open")

    def _shared_numbers(self) -> CommitCounter:
        """Return the commit counter. Not before the file is known to be a journal, beside which it may be put."""
        counter = self.counter
        if counter is None or self._pid != os.getpid():
            counter = CommitCounter(self.path)
            # The other threads look at the counter without a lock: it comes last.
            self._pid, self.counter = os.getpid(), counter
        return counter

    def _let_go(self) -> None:
        """Have the next call open its own connection. A thread that holds one goes on with it."""
        self.counter = None
        self._age += 1

    def close(self) -> None:
        """Let go of the file, and let its thread end. Never raises; the next call opens it again."""
        self._writers.rest(_FAREWELL)
        with TURNS["write"], TURNS["read"], TURNS["shrink"]:
            self._let_go()
            for side in self.sides.all:
                side.close()


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return the device and number of a file; None: there is none."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _deadline(wait: float | None, *, attends: bool = True) -> Deadline:
    return Deadline.after(BUSY_SECONDS if wait is None else wait, attends=attends)


def _state_by(side: Side, db: sqlite3.Connection) -> tuple[int, int]:
    """Return what differs from an earlier answer if another connection than this one has committed since."""
    return side.opened, one(db, "PRAGMA data_version")


def _fail(tasks: Sequence[Task[Any]], error: Exception) -> None:
    for task in tasks:
        if task.take_up():
            task.fail(error)


def _deliver(path: Path | None, tasks: Sequence[Task[Any]]) -> None:
    """Finish committed tasks, the forced ones after the disk has them. By the commit the next process sees them, and
    the death of this one loses none; that of the machine may."""
    forced = [task for task in tasks if task.forced]
    for task in tasks:
        if not task.forced:
            task.finish()
    try:
        if forced and path is not None:
            _force(path)
    except OSError as error:
        cause = StoreError("journal", ErrorClass.UNREACHABLE, type(error).__name__, sent=True)
        for task in forced:
            task.fail(cause)
    else:
        for task in forced:
            task.finish()


def _force(path: Path) -> None:
    """Have the disk take what is committed. Without a log SQLite has done that before it took the log away."""
    with suppress(FileNotFoundError):
        log = os.open(beside(path, LOG), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            getattr(os, "fdatasync", os.fsync)(log)  # not every system has the quicker one
        finally:
            os.close(log)


def _beside_reserve(path: Path | None, work: Work[T]) -> Work[T]:
    """Return the same work, which takes none of the room that the reserve needs."""

    def add(db: sqlite3.Connection) -> T:
        if not hold_reserve(path):
            raise full()
        return work(db)

    return add


def _makes_room(file: JournalFile, task: Task[Any], error: Exception) -> bool:
    """Return whether there is more room now for a task that may take the reserve, and was refused for want of room."""
    if task.room is not Room.RESERVED or file.path is None or not is_full(error):
        return False
    log = beside(file.writer.place or file.path, LOG)
    has_more, size = give_back_reserve(file.path), _size(log)
    with suppress(StoreError), file._lent(file.writer, _deadline(None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what stands in the log has its place in the file
    return has_more or _size(log) < size


def _held(ends: ExitStack, lock: Callable[[], AbstractContextManager[bool]]) -> bool:
    """Take a lock of the host until the end of `ends`. Return whether it was free.

    :raises StoreError: its file cannot be used.
    """
    with translated():
        return ends.enter_context(lock())


def _do(db: sqlite3.Connection, task: Task[Any]) -> bool:
    """Execute one of several tasks in a transaction. Return whether it is done; else what it did is taken back.

    :raises Exception: SQLite has taken back what the others have done, too.
    """
    db.execute("SAVEPOINT task")
    try:
        task.execute(db)
    except Exception:
        if not db.in_transaction:
            raise
        db.execute("ROLLBACK TO task")
        return False
    finally:
        if db.in_transaction:
            db.execute("RELEASE task")
    return True


_files: weakref.WeakSet[JournalFile] = weakref.WeakSet()


def _before_fork() -> None:
    for turn in TURNS.values():
        turn.acquire()
    for file in list(_files):
        if file.path is not None:
            file.close()


def _after_fork_in_parent() -> None:
    for turn in TURNS.values():
        turn.release()


def _after_fork_in_child() -> None:
    TURNS.update({side: threading.RLock() for side in TURNS})
    for file in list(_files):
        file.renew()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
call_in_children(_after_fork_in_child)
