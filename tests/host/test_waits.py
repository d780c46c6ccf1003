"""Waits of the journal's calls: for slow disks, busy siblings, stopped processes."""

from __future__ import annotations

import _thread
import ctypes
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devservers.processes import LONG, wait_until
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.host import file as journal_file
from flask_langpont_session.stores.host import group_commit
from flask_langpont_session.stores.host.entries import WIPED_FIELD
from flask_langpont_session.stores.host.journal import Carry, Journal, journal_at
from flask_langpont_session.support.lag import Deadline
from flask_langpont_session.support.locks import HostLock
from tests.support.children import in_child
from tests.support.entries import addition, value
from tests.support.journal_process import let_go, output, process
from tests.support.journals import ref
from tests.support.slow_disk import slow_disk

SHORT = 0.05
"""Seconds that a call is given which cannot succeed."""


@pytest.fixture
def journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    """Yield a journal on which a call without a time-out waits for longer than any test."""
    monkeypatch.setattr(journal_file, "BUSY_SECONDS", LONG)
    journal = journal_at(path)
    journal.open()
    journal.is_empty()
    yield journal
    journal.close()


class Disk:
    """A disk that can hang: what is to be forced to it waits until it goes on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.reached = threading.Event()
        self.fails = False
        self.goes_on.set()

    def take(self, descriptor: int) -> None:
        """Stand in for fdatasync(), and wait until the disk goes on."""
        self.reached.set()
        assert self.goes_on.wait(LONG)
        if self.fails:
            raise OSError(5, "Input/output error")

    def hang(self) -> None:
        """Let the disk hang from the next write on."""
        self.goes_on.clear()
        self.reached.clear()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.take)
    yield disk
    disk.goes_on.set()


class Threads:
    """Calls that are made at the same time, and how each ended: None or an error."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.ends: list[BaseException | None] = []

    def call(self, function: Callable[..., object], *arguments: object, **options: object) -> None:
        """Call a function in a thread of its own."""
        number = len(self.ends)
        self.ends.append(None)

        def run() -> None:
            try:
                function(*arguments, **options)
            except BaseException as error:
                self.ends[number] = error

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive()


def revoked(journal: Journal) -> set[str]:
    return {entry.digest for entry in journal.revocations.pending()}


def failing(call: Callable[[], object]) -> StoreError:
    """The error of a call that has to end long before a call would that is not told how long to wait."""
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        call()
    assert time.monotonic() - began < LONG / 2
    return caught.value


@pytest.fixture
def awaited(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The tasks that were handed to a writing thread and are waited for since, in turn."""
    tasks: list[object] = []
    result = group_commit.Task.result

    def noted(task: group_commit.Task[object]) -> object:
        tasks.append(task)
        return result(task)

    monkeypatch.setattr(group_commit.Task, "result", noted)
    return tasks


def descriptors(path: Path) -> int:
    """Return how many descriptors of this process are of a file."""
    opened = list[str]()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return opened.count(str(path))


# Many writers at once


def test_eight_busy_workers_on_a_slow_disk_lose_nothing(path: Path, tmp_path: Path) -> None:
    """D8: 256 clients of eight processes, 6 ms for each fsync: every write is acknowledged, and is there. (One
    after the other they would wait for twice as long as they may.)"""
    script = """
        if "SLOW_DISK_US" not in os.environ:  # no preload here: slow in this child process, which ends with the script
            os.fdatasync = lambda descriptor: time.sleep(0.006)
        lost = []
        def client(number):
            for count in range(10):
                try:
                    journal.put([value(f"{os.getpid()}.{number}.{count}", "a")], wait=1)
                except StoreError as error:
                    lost.append(str(error))
        began = time.monotonic()
        os.fsync(os.open(sys.argv[1] + "-gen", os.O_RDONLY))
        assert time.monotonic() - began >= 0.006 or "SLOW_DISK_US" not in os.environ
        journal.is_empty()
        clients = [threading.Thread(target=client, args=(number,)) for number in range(32)]
        wait()
        [client.start() for client in clients]
        [client.join() for client in clients]
        print(len(lost), *set(lost))
    """
    journal = journal_at(path)
    journal.open()
    environment = os.environ | (slow_disk(tmp_path, 6) or {})
    workers = [process(script, path, environment=environment) for _ in range(8)]
    let_go(workers)
    assert [output(worker) for worker in workers] == ["0"] * 8
    assert journal.counts()["writes"] == 8 * 32 * 10
    journal.close()


class Queue:
    """Calls that come one after the other while the disk hangs for a first one: they share a transaction.

    :ivar ends: how each of them ended, that of the first one before: None or an error.
    """

    def __init__(self, journal: Journal, disk: Disk, awaited: list[object]) -> None:
        self._threads, self._disk, self._awaited = Threads(), disk, awaited
        self.ends = self._threads.ends
        disk.hang()
        awaited.clear()
        self.add(journal.revocations.note, "first")
        assert disk.reached.wait(LONG)

    def add(self, call: Callable[..., object], *arguments: object) -> None:
        """Make a call, and wait until it is waited for."""
        number = len(self._awaited) + 1
        self._threads.call(call, *arguments)
        wait_until(lambda: len(self._awaited) == number, "that the callers wait")

    def go_on(self) -> None:
        """Let the disk go on, and wait for the end of all calls."""
        self._disk.goes_on.set()
        self._threads.join()


@pytest.fixture
def queue(journal: Journal, disk: Disk, awaited: list[object]) -> Queue:
    return Queue(journal, disk, awaited)


def test_threads_that_write_together_share_one_commit(journal: Journal, queue: Queue) -> None:
    """Threads that come while the disk is busy wait for it once, all together."""
    asked: list[str] = []
    queue.add(journal.file.transaction, lambda connection: connection.set_trace_callback(asked.append))
    for number in range(5):
        queue.add(journal.revocations.note, f"d{number}")
    queue.go_on()
    assert queue.ends == [None] * 7
    assert asked.count("COMMIT") == 1
    assert len(revoked(journal)) == 6


def test_one_that_fails_takes_back_its_own_only(journal: Journal, queue: Queue) -> None:
    """If one call in a shared transaction fails, the others are kept, and each caller gets the result of its own."""

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO pushes (digest) VALUES ('half')")
        raise ZeroDivisionError

    queue.add(journal.put, [value("d", "n", b'"x"')])
    queue.add(journal.put, [addition("d", "n", 1)])
    queue.add(journal.file.transaction, half)
    queue.add(journal.revocations.note, "after")
    queue.go_on()
    ends = [error.error_class if isinstance(error, StoreError) else error for error in queue.ends]
    assert [*ends[:3], type(ends[3]), ends[4]] == [None, None, ErrorClass.DATA, ZeroDivisionError, None]
    assert revoked(journal) == {"first", "after"}
    assert journal.overlay(ref("d")).writes == {"ui": {"n": b'"x"'}}
    assert journal.pending_pushes() == []


def test_what_does_not_fit_keeps_nothing_small_out(journal: Journal, queue: Queue) -> None:
    """On a disk with little room SQLite may take back the whole transaction, and then each change is tried for
    itself."""
    queue.add(journal.file.transaction, lambda db: db.execute("PRAGMA max_page_count = 1"))
    queue.add(journal.put, [value("d", "a", b"x" * 100_000)])
    queue.add(journal.revocations.note, "small")
    queue.go_on()
    assert str(queue.ends[2]) == "journal: write refused (SQLITE_FULL)"
    assert (queue.ends[3], revoked(journal)) == (None, {"first", "small"})


def test_a_commit_that_fails_as_a_whole_is_tried_again_one_by_one(journal: Journal, queue: Queue) -> None:
    """The other changes of the transaction are taken back, too, and made again."""
    queue.add(journal.revocations.note, "before")
    queue.add(journal.file.transaction, lambda db: db.execute("ROLLBACK") and 1 / 0)
    queue.add(journal.revocations.note, "after")
    queue.go_on()
    assert [type(end) for end in queue.ends] == [type(None), type(None), ZeroDivisionError, type(None)]
    assert revoked(journal) == {"first", "before", "after"}


# The time of a call


@pytest.mark.real_time("waits that end while another process has the file")
def test_a_held_file_keeps_a_call_no_longer_than_it_may_wait(journal: Journal, path: Path) -> None:
    """D9: another program has the file; what is given up is not done later either, and reading waits for nothing."""
    journal.revocations.note("before")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = failing(lambda: journal.revocations.note("given up", wait=SHORT))
        assert (error.error_class, error.cause, error.timed_out, error.sent) == (
            ErrorClass.UNREACHABLE, "SQLITE_BUSY", False, False,
        )  # fmt: skip
        assert not journal.is_empty(wait=SHORT)
        assert journal.overlay(ref("before"), wait=SHORT).revoked
        other.execute("ROLLBACK")
    journal.revocations.note("after")
    assert revoked(journal) == {"before", "after"}


@pytest.mark.real_time("waits that end while another process has the file")
def test_every_call_of_a_request_can_be_told_how_long_to_wait(journal: Journal, path: Path) -> None:
    """D9: all that write. What must not be given up is done later."""
    calls: list[Callable[[], object]] = [
        lambda: journal.revocations.note("d", wait=SHORT),
        lambda: journal.revocations.note_user("7", until_ms=1, wait=SHORT),
        lambda: journal.queue_push("d", 1, wait=SHORT),
        lambda: journal.put([value("d", "a", b"1"), addition("d", "n", 1)], wait=SHORT),
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in calls:
            assert failing(call).cause == "SQLITE_BUSY"
        late = failing(lambda: journal.carry(Carry("c", "d", "u", ["ui"]), wait=SHORT))
        assert late.timed_out
        other.execute("ROLLBACK")
    journal.board.announce_outage("primary")
    assert {name: count for name, count in journal.counts().items() if count} == {"outages": 1, "carries": 1}


@pytest.mark.real_time("waits that end while another process has the file")
def test_a_stopped_worker_keeps_a_call_no_longer_than_it_may_wait(journal: Journal, path: Path) -> None:
    """D9: in the middle of a write. What was given up meanwhile is not done when it goes on; what waits is."""
    script = """
        def write(db):
            db.execute("INSERT INTO pushes (digest) VALUES ('theirs')")
            print("writing", flush=True)
            sys.stdin.readline()
        journal.file.transaction(write, 60)
    """
    worker = process(script, path)
    assert worker.stdout is not None
    assert worker.stdin is not None
    assert worker.stdout.readline() == "writing\n"
    worker.send_signal(signal.SIGSTOP)
    for _ in range(3):
        assert failing(lambda: journal.revocations.note("given up", wait=SHORT)).cause == "SQLITE_BUSY"
    threads = Threads()
    threads.call(journal.revocations.note, "patient")
    worker.send_signal(signal.SIGCONT)
    worker.stdin.write("go\n")
    worker.stdin.flush()
    threads.join()
    output(worker)
    assert (threads.ends, revoked(journal)) == ([None], {"patient"})
    assert [push.digest for push in journal.pending_pushes()] == ["theirs"]


def test_a_killed_worker_lets_the_next_one_in_at_once(journal: Journal, path: Path) -> None:
    """The next worker goes on wherever the killed one was, also while others queue for the file behind it."""
    script = """
        def write(db):
            print("writing", flush=True)
            time.sleep(60)
        journal.file.transaction(write, 60)
    """
    worker = process(script, path)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "writing\n"
    threads = Threads()
    threads.call(journal.revocations.note, "patient")
    worker.kill()
    threads.join()
    output(worker, expected=-signal.SIGKILL)
    assert (threads.ends, revoked(journal)) == ([None], {"patient"})


@pytest.mark.real_time("waits that end while another process has the file")
def test_a_disk_that_hangs_keeps_a_call_no_longer_than_it_may_wait(journal: Journal, disk: Disk) -> None:
    """D9: what is committed then may be lost with the machine, or not: the error says that it may have happened. What
    has not been begun will not be done."""
    disk.hang()
    error = failing(lambda: journal.revocations.note("under way", wait=SHORT))
    assert (error.error_class, error.timed_out, error.sent) == (ErrorClass.UNREACHABLE, True, True)
    error = failing(lambda: journal.revocations.note("given up", wait=SHORT))
    assert (error.error_class, error.timed_out, error.sent) == (ErrorClass.UNREACHABLE, False, False)
    assert journal.revocations.is_revoked("under way", wait=SHORT)
    disk.goes_on.set()
    journal.revocations.note("after")
    assert revoked(journal) == {"under way", "after"}


def test_a_disk_that_fails_says_that_it_may_have_happened(journal: Journal, disk: Disk) -> None:
    """It is committed, but may get lost with the machine; it is not done twice."""
    disk.fails = True
    error = failing(lambda: journal.put([addition("d", "n", 1)]))
    assert (error.error_class, error.cause, error.timed_out, error.sent) == (
        ErrorClass.UNREACHABLE, "OSError", False, True,
    )  # fmt: skip
    assert journal.overlay(ref("d")).deltas == {"ui": {"n": [("added.1", 1)]}}


def test_an_answer_that_comes_with_the_end_of_the_time_is_taken() -> None:
    """The thread that waits looks once more."""
    task = group_commit.Task(lambda db: 7, Deadline.after(-1), forced=True, is_entry=True)
    assert task.take_up()
    with closing(sqlite3.connect(":memory:")) as db:
        task.execute(db)
    task.finish()
    assert task.result() == 7


@pytest.mark.real_time("waits that end while another process has the file")
def test_far_too_many_waiting_are_refused(journal: Journal, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a process that was stopped, requests must not fill the memory with what they have given up."""
    monkeypatch.setattr(group_commit, "MOST_WAITING", 3)
    disk.hang()
    threads = Threads()
    threads.call(journal.revocations.note, "first")
    assert disk.reached.wait(LONG)
    for _ in range(3):
        assert failing(lambda: journal.revocations.note("given up", wait=0.001)).cause == "SQLITE_BUSY"
    assert failing(lambda: journal.revocations.note("refused", wait=0.001)).error_class is ErrorClass.LOCAL
    disk.goes_on.set()
    threads.join()
    wait_until(lambda: is_taken(journal, "after"), "the end of those that were given up")
    assert revoked(journal) == {"first", "after"}


def is_taken(journal: Journal, digest: str) -> bool:
    with suppress(StoreError):
        journal.revocations.note(digest)
        return True
    return False


def test_where_no_thread_can_be_had_it_is_said(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a process no thread may be had: what is refused then is not written, and the next call tries
    again."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert failing(lambda: journal.revocations.note("refused")).error_class is ErrorClass.LOCAL
    journal.revocations.note("after")
    assert revoked(journal) == {"after"}


def test_an_idle_writing_thread_ends_and_comes_back() -> None:
    """A process that has written once does not keep a thread for ever."""
    others = set(threading.enumerate())

    def runs() -> bool:
        return any(thread.name == "langpont-session-journal" for thread in {*threading.enumerate()} - others)

    def serve(task: group_commit.Task[bool]) -> None:
        assert task.take_up()
        task.execute(db)
        task.finish()

    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as db:
        writer = group_commit.Writer(serve, idle=0.01)
        for _ in range(2):
            task = group_commit.Task(lambda db: runs(), Deadline.after(LONG), forced=True, is_entry=True)
            writer.put(task)
            assert task.result()
            wait_until(lambda: not runs(), "the end of the thread")


@pytest.mark.real_time("waits that end while another process has the file")
@pytest.mark.parametrize("are_native", [True, False])
def test_processes_queue_for_the_file(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, are_native: bool
) -> None:
    """Processes wait in the system's queue. Where greenlets are in the place of threads, one that waits there would
    keep all others from running: then the file is looked at again and again."""
    if not are_native:  # as gevent does it
        start = _thread.start_new_thread
        monkeypatch.setattr(_thread, "start_new_thread", lambda *arguments: start(*arguments))
    lock = HostLock(Path(f"{path}-lock"))
    threads = Threads()
    with lock.waited(lambda: True) as is_held:
        assert is_held
        assert failing(lambda: journal.revocations.note("given up", wait=SHORT)).cause == "SQLITE_BUSY"
        threads.call(journal.revocations.note, "patient")
    threads.join()
    assert (threads.ends, revoked(journal)) == ([None], {"patient"})


def test_reading_waits_for_a_recovery_no_longer_than_it_may(journal: Journal) -> None:
    """SQLite is told each time, unless it was told nearly the same."""

    def told(wait: float) -> int:
        journal.overlay(ref("d"), wait=wait)
        connection = journal.file.reader.connection
        assert connection is not None
        return int(connection.execute("PRAGMA busy_timeout").fetchone()[0])

    for wait in (3.0, 2.9, SHORT, LONG):
        assert wait * 400 < told(wait) <= wait * 1000
    assert told(1.5 * LONG) == told(1.2 * LONG) <= LONG * 1000


@pytest.mark.real_time("waits that end while another process has the file")
def test_a_process_that_computes_writes_briskly(journal: Journal) -> None:
    """Its other threads let the writing one go on soon, and only while it writes."""
    before = sys.getswitchinterval()
    assert journal.file.transaction(lambda db: sys.getswitchinterval()) < before / 10
    wait_until(lambda: sys.getswitchinterval() == before, "the interval of before")


@pytest.mark.real_time("waits that end while another process has the file")
def test_a_process_that_computes_reads_briskly(journal: Journal) -> None:
    """The other threads that want to read wait for it, each time one that computes has its turn."""
    wait_until(lambda: sys.getswitchinterval() >= 0.001, "that nothing is written any more")
    before = sys.getswitchinterval()
    with journal.file.snapshot():
        assert sys.getswitchinterval() < before / 10
    assert sys.getswitchinterval() == before


def test_a_signal_handler_that_reads_in_between_leaves_the_interval_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may read after the interval was read, before and after it is set, or set back; the thread goes on
    briskly."""
    before, brisk = sys.getswitchinterval(), group_commit.Brisk()
    asked, told = sys.getswitchinterval, sys.setswitchinterval
    handled: list[bool] = []

    def handle() -> None:
        if not (handled and handled[-1] is False):  # it is not interrupted itself
            handled.append(False)
            with brisk:
                pass
            handled[-1] = True

    def interrupted_ask() -> float:
        interval = asked()
        handle()
        return interval

    def interrupted_tell(seconds: float) -> None:
        handle()
        told(seconds)
        handle()

    monkeypatch.setattr(sys, "getswitchinterval", interrupted_ask)
    monkeypatch.setattr(sys, "setswitchinterval", interrupted_tell)
    with brisk:
        assert asked() < before / 10
    assert asked() == before
    assert len(handled) >= 4 and all(handled)


def test_a_child_that_was_forked_by_what_reads_sets_the_interval_back() -> None:
    """A signal handler may fork in the middle of it; the child goes on from there."""
    before, brisk = sys.getswitchinterval(), group_commit.Brisk()
    with ExitStack() as reading:
        reading.enter_context(brisk)

        def go_on() -> bool:
            brisk.renew()
            reading.close()
            with brisk:
                is_brisk = sys.getswitchinterval() < before / 10
            return is_brisk and sys.getswitchinterval() == before

        assert in_child(go_on)
    assert sys.getswitchinterval() == before


def test_the_last_of_two_journals_that_write_sets_the_interval_back() -> None:
    """The first one to begin ends first: what it found must not be taken for brisk by the other, nor kept."""
    before = sys.getswitchinterval()
    brisk = group_commit.Brisk()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(brisk)
        second.enter_context(brisk)
        first.close()
        assert sys.getswitchinterval() < before / 10
        second.close()
        assert sys.getswitchinterval() == before


# Signals and forks


def test_a_child_that_was_forked_by_c_code_keeps_no_lock(path: Path) -> None:
    """The child can use the lock once its parent has let go of it."""
    lock = HostLock(path)
    with lock.waited(lambda: True):
        if (child := ctypes.PyDLL(None).fork()) == 0:
            signal.pause()
        with lock.taken() as is_held:
            assert not is_held
    try:
        with lock.taken() as is_held:
            assert is_held
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_signal_handler_may_write(path: Path) -> None:
    """A handler may write wherever it interrupts a thread that writes, reads or waits. The timer counts the
    processor's time: on a busy machine the thread would get nowhere between two signals."""
    script = """
        journal.open()
        written, handled = [], []
        def note(names, kind):
            names.append(f"{kind}{len(names)}")
            journal.revocations.note(names[-1], wait=20)
        def handler(signum, frame):
            note(handled, "h")
            signal.setitimer(signal.ITIMER_PROF, 0.001)
        signal.signal(signal.SIGPROF, handler)
        signal.setitimer(signal.ITIMER_PROF, 0.001)
        while len(written) < 150 or len(handled) < 4:
            note(written, "m")
            journal.is_empty()
            journal.overlay(ref("m0"))
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one that has come may have set another
        names = {entry.digest for entry in journal.revocations.pending(10**6)}
        print(names == {*written, *handled})
    """
    assert output(process(script, path)) == "True"


def test_a_child_that_was_forked_by_c_code_writes(path: Path) -> None:
    """The child writes though it has none of its parent's threads, after open(), when no connection is open."""
    script = """
        import ctypes
        journal.open()
        journal.revocations.note("parent")
        journal.close()
        if (child := ctypes.PyDLL(None).fork()) == 0:
            journal.revocations.note("child")
            os._exit(0)
        print(os.waitpid(child, 0)[1], sorted(entry.digest for entry in journal.revocations.pending()))
    """
    assert output(process(script, path)) == "0 ['child', 'parent']"


def test_a_fork_while_another_process_has_the_file_waits_for_nothing(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing thread queues for the file; a fork of its process does not, and the child does not hold it."""
    monkeypatch.setattr(journal_file, "_FAREWELL", SHORT)
    lock = HostLock(Path(f"{path}-lock"))
    threads = Threads()
    with lock.waited(lambda: True):
        threads.call(journal.revocations.note, "patient")
        wait_until(lambda: descriptors(Path(f"{path}-lock")) == 2, "that the writing thread queues")
        if (child := os.fork()) == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    threads.join()
    assert (threads.ends, revoked(journal)) == ([None], {"patient"})


# What must not be given up


@pytest.mark.real_time("waits that end while another process has the file")
def test_a_wipe_and_the_end_of_a_session_are_done_however_late_it_is(journal: Journal, path: Path) -> None:
    """I20: a request does not wait for longer than it may, and says that it is not known to be kept. What is written
    later comes behind it."""
    wipe = replace(value("d", WIPED_FIELD, None), operation=Operation.WIPE)
    stays = [
        lambda: journal.put([wipe], wait=SHORT),
        lambda: journal.revocations.note("c", wait=SHORT, stays=True),
        lambda: journal.revocations.note_user("7", until_ms=1, wait=SHORT, stays=True),
    ]
    journal.put([value("d", "before", b"1")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in stays:
            error = failing(call)
            assert (error.cause, error.timed_out) == ("TimeoutError", True)
        assert failing(lambda: journal.put([wipe, value("d", "given up", b"1")], wait=SHORT)).cause == "SQLITE_BUSY"
        other.execute("ROLLBACK")
    journal.put([value("d", "after", b"1")])
    assert [entry.field for entry in journal.pending_writes()] == [WIPED_FIELD, "after"]
    assert revoked(journal) == {"c"}
    assert [entry.user_id for entry in journal.revocations.pending_users()] == ["7"]


@pytest.mark.real_time("waits that end while another process has the file")
def test_where_data_of_a_user_goes_is_noted_however_late_it_is(journal: Journal, path: Path) -> None:
    """The database has given the session its new id already."""
    carry = Carry("former", "present", "u", ["translation"])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = failing(lambda: journal.carry(carry, wait=SHORT))
        assert (error.cause, error.timed_out) == ("TimeoutError", True)
        other.execute("ROLLBACK")
    journal.put([value("d", "after", b"1")])
    assert [(entry.origin, entry.digest) for entry in journal.pending_carries()] == [("former", "present")]


@pytest.mark.real_time("waits that end while another process has the file")
def test_where_data_of_a_visitor_goes_is_not_noted_late(journal: Journal, path: Path) -> None:
    """The browser keeps the id that it has when this failed, and its data must not go to one that it never gets."""
    journal.put([value("former", "waits", b"1")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = failing(lambda: journal.carry(Carry("former", "present", "a", ["translation"], 7), wait=SHORT))
        assert (error.cause, error.timed_out) == ("SQLITE_BUSY", False)
        other.execute("ROLLBACK")
    journal.put([value("d", "after", b"1")])
    assert journal.pending_carries() == []
    assert [entry.digest for entry in journal.pending_writes()] == ["former", "d"]


def test_a_note_of_a_visitor_that_was_made_when_time_was_up_is_taken_back(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit was under way. What was on its way to the former id goes there again."""
    journal.put([value("former", "waits", b"1"), value("former", "other", b"2")])
    journal.carry(Carry("first", "former", "a", ["translation"], 5))
    before = [(entry.digest, entry.field, entry.value) for entry in journal.pending_writes()]
    write = journal.file.transaction

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(journal.file, "transaction", write)
        write(*arguments, **options)
        raise StoreError("journal", ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True)

    monkeypatch.setattr(journal.file, "transaction", late)
    assert failing(lambda: journal.carry(Carry("former", "present", "a", ["translation"], 7))).timed_out
    journal.put([value("d", "after", b"1")])
    [*rest, after] = [(entry.digest, entry.field, entry.value) for entry in journal.pending_writes()]
    assert (rest, after[0]) == (before, "d")
    assert [(entry.origin, entry.digest) for entry in journal.pending_carries()] == [("first", "former")]
