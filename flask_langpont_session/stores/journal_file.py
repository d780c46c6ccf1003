"""The file of the journal: how it is made, opened, written to by several processes at once, and let go of in a fork.

Five rules shape this module:

- A connection must not live through a fork. The child would believe that it holds the locks its parent holds,
  and when the parent closes, SQLite removes the log that the child still writes to: acknowledged writes
  vanish without an error. So every connection is closed *before* a fork, and opened again where it is needed.
- Closing *any* descriptor of a file drops all locks this process has on it, SQLite's too. So nothing here
  opens the file by other means once it exists.
- ``PRAGMA data_version`` changes when, and only when, another connection has committed. But to ask takes the
  connection, a statement and two system calls: too much for every request, enough for a look now and then.
- So the processes also share a :class:`Generation`, a few bytes in a file of its own, which is asked by reading
  memory. It works wherever SQLite's own index works, which is shared in the same way.
- Who writes may have to wait for another process, and readers must not wait for that: they have a connection of their
  own.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from .base import ErrorClass, StoreError
from .journal_entries import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from .private_file import create_private

BUSY_SECONDS = 0.5
"""How long a call waits for its turn, other threads' and other workers' writes together. A write takes a few
milliseconds, and on a disk that is busy a few hundred now and then: what gives up then is lost."""

_WORD = 8
_PLACES = 1024
"""For what is known of the rows of all sessions. Two that share a place cost a question more, and hide nothing."""

_SIZE = _WORD * (1 + 2 * _PLACES)
_HALF = 0xFFFF_FFFF

_FAILURES = (sqlite3.Error, OSError, OverflowError, UnicodeError)
_FILE_IS_WELL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
_REFUSED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
_REFUSED_BY_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class NewerJournal(StoreError):
    """The file is in a form that this release does not know: its package was downgraded."""

    def __init__(self, version: int) -> None:
        cause = f"a newer release has written it: its schema is {version}, and this one knows {SCHEMA_VERSION}"
        super().__init__("journal", ErrorClass.UNREACHABLE, cause)


class Generation:
    """How often the journal was written, in memory that the processes of the host share.

    Two numbers: that of the newest transaction which began, and that of the newest which ended. A transaction takes its
    number while it holds SQLite's write lock, before it writes, and notes it as ended after its commit. Hence:

    - Equal numbers mean that no transaction is under way, and that all which ever began are committed or taken
      back. What SQLite says from then on stays true until the first number changes.
    - Unequal numbers mean that one may be about to commit. What SQLite says then must not be kept: a reader who kept
      "empty" from just before the commit would find the number unchanged after it.
    - A process that is killed in between leaves them unequal, wherever it was: readers ask SQLite every time, and miss
      nothing, until the next transaction ends or :meth:`JournalFile.tidy` finds that nobody is writing.
    - A process that is so slow that the next one began before it notes its end leaves that to the next one. Should it
      note it by a hair all the same, the numbers are unequal: questions too many, as before, and none too few.

    Both numbers are one aligned word, which a processor reads in one piece; read one after the other, they could be of
    two moments. They wrap around after four thousand million transactions.

    Behind them lies when a session's row in the database was last changed from this host, and by which change: see
    :meth:`row_changed` and :meth:`row_changing`.

    :param path: of the journal; None: it is in this process' memory, and so is this.
    """

    def __init__(self, path: Path | None) -> None:
        memory = memoryview(bytearray(_SIZE) if path is None else _shared_memory(path))
        self._word = memory[:_WORD].cast("Q")
        self._began_ended = memory[:_WORD].cast("I")
        self._moments = memory[_WORD : _WORD * (1 + _PLACES)].cast("d")
        self._changes = memory[_WORD * (1 + _PLACES) : _SIZE].cast("Q")

    def settled(self) -> int | None:
        """Equal to an earlier answer if nobody committed between the two; None: somebody may be about to."""
        word = self._word[0]
        return word if word >> 32 == word & _HALF else None

    def begin(self) -> int:
        """A transaction begins; to be called under SQLite's write lock, which makes the numbers unique.

        :return: its number, for :meth:`end`.
        """
        number = self._began_ended[0] = (self._began_ended[0] + 1) & _HALF
        return number

    def end(self, number: int) -> None:
        """The transaction is committed or taken back."""
        if self._began_ended[0] == number:
            self._began_ended[1] = number

    def row_changing(self, digest: str) -> int:
        """The row of a session is about to be changed by compare-and-set; to be called before each try.

        :return: a number for this change, see :meth:`is_last_change`.
        """
        number = self._changes[_place_of(digest)] = int.from_bytes(os.urandom(_WORD))
        return number

    def row_changed(self, digest: str, at: float, number: int | None = None) -> None:
        """The row of a session was changed; to be called after the commit, before anybody is told.

        :param at: monotonic seconds, which the processes of a host share.
        :param number: of the change. None: it was not by compare-and-set.
        """
        self._moments[_place_of(digest)] = at
        if number is None:
            self.row_changing(digest)

    def is_last_change(self, digest: str, number: int) -> bool:
        """Whether what a change that succeeded made of the row is what there is, as far as this host goes.

        Who changes it further by compare-and-set has read it before, and puts another number here before the try: so
        no clock has to say which of two commits was the later one.
        """
        last: int = self._changes[_place_of(digest)]
        return last == number

    def row_changed_at(self, digest: str) -> float:
        """When that was last; of a session whose place is taken by another one, later. 0: never."""
        at: float = self._moments[_place_of(digest)]
        return at


def _place_of(digest: str) -> int:
    return zlib.crc32(digest.encode()) % _PLACES


class _Side:
    """One connection, for all threads of this process, one at a time; opened when it is needed.

    :ivar opened: how often; what was learned from one connection says nothing about the next.
    """

    def __init__(self, path: Path | None, turn: str) -> None:
        self.connection: sqlite3.Connection | None = None
        self.opened = 0
        self._path = path
        self._turn = turn
        self._age = 0
        self._pid = 0

    @contextmanager
    def taken(self) -> Iterator[float]:
        """Alone on this side; gives the monotonic time until which the rest may wait.

        :raises StoreError: the other threads took all the time there is.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        turn = _turns[self._turn]
        if not turn.acquire(timeout=BUSY_SECONDS):
            raise StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_BUSY")
        try:
            yield deadline
        finally:
            turn.release()

    def connect(self, age: int) -> sqlite3.Connection:
        """The connection; another one if the file was let go of since (`age` is another one)."""
        if self.connection is not None and self._age != age:
            self.close()
        if self.connection is None:
            connection = _open(self._path)
            self._age, self._pid, self.opened = age, os.getpid(), self.opened + 1
            # Threads on the other side ask whether it is inherited: it comes last.
            self.connection = connection
        return self.connection

    def close(self) -> None:
        """Never raises. To be called with :meth:`taken`, or where there are no other threads."""
        if self._path is not None and self.is_inherited():
            # Closing it here could remove the log that the parent writes to.
            return
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def is_inherited(self) -> bool:
        """Whether the connection was opened by a process that this one was forked from."""
        return self.connection is not None and self._pid != os.getpid()


class JournalFile:
    """The connections of this process to the file: one for who writes, one for who reads. Errors are StoreErrors.

    :param path: the file; its folder is created if only that one is missing. None: a database in memory, which is
        empty again after :meth:`close`, and in a forked child.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.writer = _Side(path, "write")
        # What is in memory has one connection only; no other process can keep that waiting.
        self.reader = self.writer if path is None else _Side(path, "read")
        self._generation: Generation | None = None
        self._pid = 0
        self._age = 0
        self._alone = threading.Lock()
        self._lock: int | None = None
        _files.add(self)

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """The connection for who reads, for this thread alone."""
        with self._lent(self.reader) as (db, _):
            yield db

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """The same, for several questions about one moment."""
        with self._lent(self.reader) as (db, deadline), _begun(db, "DEFERRED", deadline):
            yield db

    @contextmanager
    def transaction(self, *, forced: bool = True) -> Iterator[sqlite3.Connection]:
        """For what is written whole or not at all.

        :param forced: to the disk. False: nobody waits for it, and it may be lost when the machine loses its power.
        """
        generation, number = None, 0
        try:
            with (
                self._lent(self.writer) as (db, deadline),
                nullcontext() if forced else _unforced(db),
                _begun(db, "IMMEDIATE", deadline),
            ):
                # Kept here, because a failure lets go of the file.
                generation = self._shared_numbers()
                number = generation.begin()
                yield db
        finally:
            if generation is not None:
                generation.end(number)

    @contextmanager
    def aside(self) -> Iterator[sqlite3.Connection]:
        """The same without being forced, for what is no entry: who asks whether there are entries is not made to look
        again."""
        with self._lent(self.writer) as (db, deadline), _unforced(db), _begun(db, "IMMEDIATE", deadline):
            yield db

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this is now the only one of all processes and threads that is in here; nobody waits. Who is killed
        in here is out of it."""
        if not self._alone.acquire(blocking=False):
            yield False
            return
        try:
            yield self.path is None or self._is_locked()
        finally:
            self._unlock()
            self._alone.release()

    def _is_locked(self) -> bool:
        with self._lent(self.reader):  # which makes the file that is locked
            assert self.path is not None
            self._lock = os.open(_generation_path(self.path), os.O_RDWR | os.O_CLOEXEC)
            try:
                # Not a lock of the file itself: SQLite has those.
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def drop_lock(self) -> None:
        """In a forked child: what it has inherited is its parent's."""
        self._alone = threading.Lock()
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def others_state(self) -> tuple[int, int]:
        """Differs from an earlier one if another process may have committed since. On the way, requests are made cheap
        again after a process was killed while it wrote."""
        with self._lent(self.writer) as (db, _):
            self._tidy(db)
            # By the connection for who writes: this process' own commits count for nothing there.
            return self.writer.opened, one(db, "PRAGMA data_version")

    @contextmanager
    def _lent(self, side: _Side) -> Iterator[tuple[sqlite3.Connection, float]]:
        """A connection, for this thread alone, and how long may be waited."""
        with side.taken() as deadline:
            try:
                self._refuse_if_inherited()
                db = side.connect(self._age)
                self._shared_numbers()
                yield db, deadline
            except _FAILURES as error:
                # The next call begins anew: the file may be repaired or replaced by then. Not if the file is well: on a
                # full disk reading goes on, but opened anew it might find no room for its index.
                if self.path is not None and _code(error) not in _FILE_IS_WELL:
                    self._let_go()
                    side.close()
                raise _store_error(error) from error

    def _refuse_if_inherited(self) -> None:
        """Forked by C code that runs none of Python's hooks, with a connection open: there is no safe way on, for this
        process would write where nobody looks. (After Journal.open() nothing is open, so that a server which forks like
        this works all the same.)"""
        if self.writer.is_inherited() or self.reader.is_inherited():
            raise StoreError("journal", ErrorClass.LOCAL, "forked while open")

    def _shared_numbers(self) -> Generation:
        """Not before it is known that the file is a journal, and that something may be put beside it."""
        generation = self._generation
        if generation is None or self._pid != os.getpid():
            generation = Generation(self.path)
            # The other threads look at the generation without a lock: it comes last.
            self._pid, self._generation = os.getpid(), generation
        return generation

    def _let_go(self) -> None:
        """Whoever holds a connection goes on with it; the next one opens its own."""
        self._generation = None
        self._age += 1

    def close(self) -> None:
        """Let go of the file. Never raises; the next call opens it again."""
        with _turns["write"], _turns["read"]:
            self._let_go()
            self.writer.close()
            self.reader.close()

    def shared_numbers(self) -> Generation:
        """Of a file that is open; else it is opened."""
        generation = self._generation
        if generation is not None and self._pid == os.getpid():
            return generation
        with self._lent(self.reader):
            return self._shared_numbers()

    def state(self) -> tuple[Generation, int] | None:
        """Equal to an earlier one if nobody has committed since; None: SQLite has to be asked. Takes no lock.

        Nothing is equal across opening the file anew: the answer has the generation itself in it, by identity.
        """
        generation = self._generation
        # A child that was forked by C code still has its parent's; connected() tells it so.
        if generation is None or self._pid != os.getpid():
            return None
        number = generation.settled()
        return None if number is None else (generation, number)

    def _tidy(self, db: sqlite3.Connection) -> None:
        generation = self._generation
        if generation is None or generation.settled() is not None:
            return
        # Who is alive and writes holds the lock, and needs no help. Nobody waits for it here: requests would, too.
        with suppress(sqlite3.OperationalError), _impatiently(db):
            db.execute("BEGIN IMMEDIATE")
            number = generation.begin()
            db.execute("ROLLBACK")
            generation.end(number)


# Two locks for all journals of this process, usually one: a fork has to stop and close every one of them. Whoever takes
# both takes the first one first. Reentrant, because a signal handler may fork.
_turns = {"write": threading.RLock(), "read": threading.RLock()}
_files: weakref.WeakSet[JournalFile] = weakref.WeakSet()


def _before_fork() -> None:
    for turn in _turns.values():
        turn.acquire()
    for file in list(_files):
        if file.path is not None:
            file.close()


def _after_fork_in_parent() -> None:
    for turn in _turns.values():
        turn.release()


def _after_fork_in_child() -> None:
    _turns.update(write=threading.RLock(), read=threading.RLock())
    for file in list(_files):
        file.drop_lock()
        # Only those in memory are open still. What is in the parent's memory is for the parent to merge, once.
        file.close()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def one(db: sqlite3.Connection, sql: str) -> int:
    """The one number that a statement asks for."""
    row = db.execute(sql).fetchone()
    return int(row[0])


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        _create(path)
    name = ":memory:" if path is None else path
    connection = sqlite3.connect(name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
        if path is not None:
            _make_private(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    create_private(path)


def _make_private(path: Path) -> None:
    """Take rights back that somebody gave since, for example by restoring a copy."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), _generation_path(path)):
        with suppress(FileNotFoundError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _generation_path(path: Path) -> Path:
    """Beside the file itself, as SQLite's own, also for a process that knows it by a symbolic link."""
    return Path(f"{path.resolve()}-gen")


def _shared_memory(path: Path) -> mmap.mmap:
    descriptor = os.open(_generation_path(path), os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # Written, not only made long: on a full disk a hole in the file would end this process at its first use.
        # Appended: of two processes that do this at the same time none sets the other's numbers back.
        if os.fstat(descriptor).st_size < _SIZE and os.write(descriptor, bytes(_SIZE)) < _SIZE:
            raise OSError(errno.ENOSPC, "no room for the generation")
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA synchronous = FULL")
    if _is_blank(db):
        _patiently(db, "PRAGMA journal_mode = WAL")
        _create_schema(db)
    if one(db, "PRAGMA application_id") != APPLICATION_ID:
        raise StoreError("journal", ErrorClass.UNREACHABLE, "the file is not a journal")
    version = _version(db)
    if version > SCHEMA_VERSION:
        raise NewerJournal(version)
    if version != SCHEMA_VERSION:
        raise StoreError("journal", ErrorClass.UNREACHABLE, f"schema version {version}, not {SCHEMA_VERSION}")


def _version(db: sqlite3.Connection) -> int:
    return one(db, "PRAGMA user_version")


def _is_blank(db: sqlite3.Connection) -> bool:
    return not one(db, "SELECT EXISTS (SELECT 1 FROM sqlite_schema)")


def _create_schema(db: sqlite3.Connection) -> None:
    with _begun(db, "IMMEDIATE"):
        # Another worker may have been first.
        if _is_blank(db):
            for statement in SCHEMA:
                db.execute(statement)


@contextmanager
def _begun(db: sqlite3.Connection, mode: str, deadline: float | None = None) -> Iterator[None]:
    """What is executed inside is one transaction; it is taken back if anything fails."""
    _patiently(db, f"BEGIN {mode}", deadline)
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextmanager
def _unforced(db: sqlite3.Connection) -> Iterator[None]:
    """Commits are safe from the death of this process, but not yet from that of the machine."""
    db.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous = FULL")


def _patiently(db: sqlite3.Connection, statement: str, deadline: float | None = None) -> None:
    """Run a statement that needs the write lock, as soon as other workers leave it.

    :param deadline: monotonic seconds. None: the time that a call has, from now on.

    SQLite's own waiting looks a dozen times, ever more rarely, and for some statements not at all: a sibling
    that writes without a pause would keep a logout out.
    """
    if deadline is None:
        deadline = time.monotonic() + BUSY_SECONDS
    with _impatiently(db):
        while not _takes(db, statement, last=time.monotonic() > deadline):
            time.sleep(0.001)


@contextmanager
def _impatiently(db: sqlite3.Connection) -> Iterator[None]:
    """Without SQLite's own waiting."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _takes(db: sqlite3.Connection, statement: str, *, last: bool) -> bool:
    try:
        db.execute(statement)
    except sqlite3.OperationalError as error:
        if last or _code(error) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _store_error(error: Exception) -> StoreError:
    # The name SQLite or the system gives the error says what is wrong, and unlike the text it quotes nothing.
    cause = getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, (OverflowError, UnicodeError)):
        return StoreError("journal", ErrorClass.DATA, cause)
    refused = _code(error) in _REFUSED or (isinstance(error, OSError) and error.errno in _REFUSED_BY_SYSTEM)
    return StoreError("journal", ErrorClass.WRITE_REFUSED if refused else ErrorClass.UNREACHABLE, cause)


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0: not an error of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
