"""The journal between processes: forks, kills, commits of others, and files that the system refuses to write."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from devservers.processes import LONG
from flask_langpont_session.stores.host.journal import Journal, journal_at
from tests.support.journal_process import let_go, output, process
from tests.support.journals import in_fork, questions


def test_workers_that_start_together_share_one_file(path: Path) -> None:
    """Processes that all create the file at the same moment all succeed, and lose nothing."""
    workers = [process("wait(); journal.open(); journal.queue_push(sys.argv[2])", path, number) for number in range(6)]
    let_go(workers)
    for worker in workers:
        output(worker)
    journal = journal_at(path)
    assert sorted(entry.digest for entry in journal.pending_pushes()) == list("012345")
    journal.close()


_KILLS = 8


_KILLED = {
    "before its commit": """
def write(db):
    db.execute("INSERT INTO pushes (digest) VALUES ('d')")
    os.kill(os.getpid(), signal.SIGKILL)
journal.file.transaction(write)
""",
    "after its commit": """
CommitCounter.end = lambda self, number: os.kill(os.getpid(), signal.SIGKILL)
journal.queue_push("d")
""",
}


@pytest.mark.parametrize("moment", _KILLED)
def test_kill_9_hides_no_entry_and_costs_questions_only(durable: Journal, path: Path, moment: str) -> None:
    """Wherever in its write a worker dies, the others see what it has committed, and soon ask as rarely as before."""
    asked = questions(durable)
    prologue = "import signal\nfrom flask_langpont_session.stores.host.commit_counter import CommitCounter\n"
    worker = process(prologue + _KILLED[moment], path)
    worker.communicate(timeout=LONG)
    assert worker.returncode == -signal.SIGKILL
    for _ in range(2):
        assert durable.is_empty() == (moment == "before its commit")
    assert len(asked) == 2
    durable.changed()
    durable.is_empty()
    asked.clear()
    assert durable.is_empty() == (moment == "before its commit")
    assert asked == []


def test_without_the_shared_numbers_a_commit_is_noticed_by_the_monitor(durable: Journal, path: Path) -> None:
    """Taking the small file away makes the workers slower to notice, not blind: the next poll does."""
    assert durable.is_empty()
    durable.changed()
    path.with_name(f"{path.name}-gen").unlink()
    output(process("journal.queue_push('d')", path))
    assert durable.changed()
    assert not durable.is_empty()


def test_a_process_that_is_killed_or_has_forked_keeps_no_other_out(
    durable: Journal, sibling: Journal, path: Path
) -> None:
    """Another process is kept out until the one that is alone is killed; a child has no part in its parent's turn."""

    def is_alone(journal: Journal) -> bool:
        with journal.alone() as alone:
            return alone

    worker = process("with journal.alone():\n    wait()", path)
    assert worker.stdout and worker.stdout.readline() == "ready\n"
    assert not is_alone(durable)
    worker.kill()
    worker.wait(timeout=LONG)
    assert is_alone(durable)
    with durable.alone():
        assert in_fork(lambda: is_alone(durable)) == "False"
        assert not is_alone(sibling)
    assert is_alone(sibling)
    reader, writer = os.pipe()
    with durable.alone():
        if (child := os.fork()) == 0:
            os.write(writer, b".")
            signal.pause()
    try:
        os.read(reader, 1)
        assert is_alone(sibling)
    finally:
        os.close(reader)
        os.close(writer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_no_commit_goes_unnoticed_under_load_and_kill_9(path: Path, tmp_path: Path) -> None:
    """Two workers write all the time, and are killed; no reader ever believes what is not so.

    Each writer says in shared memory what is certain of its own entry: 0 it is gone, 1 and 3 it is not known, 2 it
    waits. What did not change during a question must agree with the answer.
    """
    script = """
        import mmap, struct
        me, count, board = int(sys.argv[2]), int(sys.argv[3]), open(sys.argv[4], "r+b")
        states = memoryview(mmap.mmap(board.fileno(), 0)).cast("Q")
        def at(state):
            states[me] += (state - states[me]) % 4 or 4
        def look():
            before = [states[n] for n in range(count)]
            empty = journal.is_empty()
            after = [states[n] for n in range(count)]
            certain = [a % 4 for a, b in zip(after, before) if a == b]
            if empty and 2 in certain or not empty and certain == [0] * count:
                print("empty" if empty else "not empty", before, after, flush=True)
                os._exit(1)
        def forget():
            while True:
                try:
                    for entry in journal.pending_pushes():
                        if entry.digest == str(me):
                            journal.forget_push(entry)
                    return
                except StoreError:
                    pass
        while me >= 2:
            look()
        at(1)
        while True:
            forget()
            at(0)
            for _ in range(20):
                look()
            at(1)
            try:
                journal.queue_push(str(me))
                at(2)
                for _ in range(20):
                    look()
                at(3)
            except StoreError:
                pass
            if me:
                journal.changed()
    """
    board, count = tmp_path / "board", 4
    board.write_bytes(bytes(8 * count))
    workers = [process(script, path, number, count, board) for number in range(count)]
    for turn in range(_KILLS):
        time.sleep(0.2)  # each is killed wherever it is by then; nothing is expected within that time
        number = turn % count
        assert [worker.poll() for worker in workers] == [None] * count
        workers[number].kill()
        workers[number].communicate(timeout=LONG)
        workers[number] = process(script, path, number, count, board)
    for worker in workers:
        worker.kill()
        text, _ = worker.communicate(timeout=LONG)
        assert text == ""


def test_a_fork_inherits_nothing(durable: Journal) -> None:
    """Parent and child each open the file anew after a fork, and see each other's writes."""
    durable.revocations.note("before")

    def child() -> bool:
        durable.revocations.note("child")
        return durable.revocations.is_revoked("before")

    assert in_fork(child) == "True"
    assert durable.revocations.is_revoked("child")
    durable.revocations.note("parent")
    assert durable.counts()["revocations"] == 3


def test_a_child_keeps_its_writes_when_the_parent_closes(path: Path) -> None:
    """A child's acknowledged write survives although the parent closed the file and the child was killed.

    With a connection that lives through the fork SQLite loses it: the parent, believing itself the last,
    removes the log the child writes to.
    """
    script = """
        import signal
        journal.revocations.note("parent")
        ready, go = os.pipe(), os.pipe()
        if (child := os.fork()) == 0:
            journal.revocations.note("first")
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            journal.revocations.note("second")
            os.kill(os.getpid(), signal.SIGKILL)
        os.read(ready[0], 1)
        journal.close()
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        print(sorted(entry.digest for entry in journal.revocations.pending()))
    """
    assert output(process(script, path)) == "['first', 'parent', 'second']"


def test_a_fork_in_the_middle_of_writes_locks_no_process_out(path: Path) -> None:
    """Forking while other threads write and read leaves no lock behind, neither in the child nor in the parent."""
    script = """
        import warnings
        warnings.simplefilter("ignore")
        stop = threading.Event()
        def write():
            while not stop.is_set():
                journal.put([addition("d", "n")])
        def read():
            while not stop.is_set():
                assert not journal.is_empty()
                journal.overlay(ref("d"))
        journal.revocations.note("parent")
        threads = [threading.Thread(target=work) for work in (write, write, read, read)]
        [thread.start() for thread in threads]
        for number in range(10):
            if (child := os.fork()) == 0:
                try:
                    assert journal.revocations.is_revoked("parent")
                    journal.queue_push(str(number))
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
        stop.set()
        [thread.join() for thread in threads]
        print(len(journal.pending_pushes()))
    """
    assert output(process(script, path)) == "10"


def test_a_journal_in_memory_begins_anew_in_a_child() -> None:
    """Entries in the parent's memory are the parent's to merge: a child's journal in memory begins empty."""
    journal = journal_at(None)
    journal.revocations.note("parent")

    def child() -> tuple[bool, int]:
        was_empty = journal.is_empty()
        journal.revocations.note("child")
        return was_empty, len(journal.revocations.pending())

    assert in_fork(child) == "(True, 1)"
    assert [entry.digest for entry in journal.revocations.pending()] == ["parent"]
    journal.close()


def test_a_fork_without_hooks_is_refused_but_for_open(path: Path) -> None:
    """A child made by C code may not use an open connection; after open() alone there is none to inherit."""
    script = """
        import ctypes
        from flask_langpont_session.support import lag
        # CPython: the child would wait for ever for a thread that asked for the interpreter at the moment of the fork.
        lag.start_daemon = lambda *_: None
        unwatched.set()
        watcher.join()
        def child_says():
            if (child := ctypes.PyDLL(None).fork()) == 0:
                try:
                    journal.close()
                    print(journal.is_empty(), flush=True)
                except StoreError as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        journal.open()
        child_says()
        journal.is_empty()
        child_says()
        print(journal.is_empty())
    """
    assert output(process(script, path)) == "True\njournal: local (forked while open)\nTrue"


def test_without_room_for_the_shared_numbers_it_cannot_be_opened(path: Path) -> None:
    """Numbers that were written in part are an error like any full disk's, and are made whole later."""
    script = """
        import resource
        from flask_langpont_session.stores.host.commit_counter import CommitCounter
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))
        try:
            CommitCounter(Path(sys.argv[1]))
        except OSError as error:
            print(error.strerror)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        print(journal.is_empty())
    """
    assert output(process(script, path)) == "no room in a file of numbers\nTrue"


def test_a_file_that_may_not_grow_loses_nothing(path: Path) -> None:
    """If the system refuses to write, the call fails and what was acknowledged stays; later calls work."""
    script = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal.revocations.note("before")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        try:
            journal.revocations.note("refused")
        except StoreError as error:
            print(error.error_class.name)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.revocations.note("after")
        print([entry.digest for entry in journal.revocations.pending()])
    """
    assert output(process(script, path)) == "WRITE_REFUSED\n['before', 'after']"


def test_what_changed_a_row_last_is_shared_without_a_question(durable: Journal, path: Path) -> None:
    """Another process says when it did, and before that puts its own number in place of this one's: no side asks
    SQLite."""
    asked, rows = questions(durable), durable.file.numbers(lambda rows: rows)
    began = rows.row_changed_at("other")
    numbers = {digest: rows.row_changing(digest) for digest in ("d", "other")}
    rows.row_changed("d", 5.5, numbers["d"])
    assert all(rows.is_last_row(digest, 0.0, 1e12, number) for digest, number in numbers.items())
    output(process("journal.file.numbers(lambda rows: rows.row_changing('d'))", path))
    assert rows.row_changed_at("d") == 5.5
    output(process("journal.file.numbers(lambda rows: rows.row_changed('d', 7.5))", path))
    assert [rows.is_last_row(digest, 0.0, 1e12, number) for digest, number in numbers.items()] == [False, True]
    assert (rows.row_changed_at("d"), rows.row_changed_at("other")) == (7.5, began)
    assert in_fork(lambda: durable.file.numbers(lambda rows: rows.row_changed_at("d"))) == "7.5"
    assert asked == []
    assert durable.is_empty()
