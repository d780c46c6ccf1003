"""The journal between workers of which one is killed: real processes, real files."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_langpont_session.stores.host.journal import Journal, journal_at
from tests.support.journal_process import let_go, output, process
from tests.support.journals import ref


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = journal_at(path)
    yield journal
    journal.close()


def acknowledged_by(worker: subprocess.Popen[str], lines: int) -> list[str]:
    """The next lines of a worker that goes on working."""
    assert worker.stdout is not None
    read = [worker.stdout.readline().strip() for _ in range(lines)]
    assert all(read), "the worker ended"
    return read


def killed(worker: subprocess.Popen[str]) -> list[str]:
    """Kill a worker in the middle of its work. What it had said until then."""
    worker.kill()
    # Not communicate(), which leaves out what was read ahead.
    assert worker.stdout is not None
    rest = worker.stdout.read()
    output(worker, expected=-signal.SIGKILL)
    # The last line may have been cut off.
    return [line for line in rest.split("\n")[:-1] if line]


def test_kill_9_of_one_worker_loses_nothing_of_any(path: Path, journal: Journal) -> None:
    """Everything that any of three workers had acknowledged is there, and the two that live go on."""
    script = """
        me, number = sys.argv[2], 0
        while True:
            try:
                name = f"{me}.{number}"
                journal.put([value(name, "a", basis=Basis.SEEN, moment=4, base=b"0")])
                journal.put([addition("d", f"n{me}")])
                journal.revocations.note(f"r{name}")
                journal.revocations.note_user(f"u{name}", until_ms=number)
                journal.queue_push(f"p{name}")
                journal.board.remember_server(me, ServerRecord("a", 1, "g", number + 1))
            except StoreError:
                continue
            number += 1
            print(name, flush=True)
    """
    workers = [process(script, path, number) for number in range(3)]
    acknowledged = [acknowledged_by(worker, 10) for worker in workers]
    acknowledged[0] += killed(workers[0])
    for number in (1, 2):
        acknowledged[number] += acknowledged_by(workers[number], 10) + killed(workers[number])
    names = [name for names in acknowledged for name in names]
    writes = {entry.digest: entry for entry in journal.pending_writes(limit=10**6)}
    assert set(names) <= set(writes)
    assert {(writes[name].base, writes[name].moment) for name in names} == {(b"0", 4)}
    assert {f"r{name}" for name in names} <= {entry.digest for entry in journal.revocations.pending(limit=10**6)}
    assert {f"u{name}" for name in names} <= {entry.user_id for entry in journal.revocations.pending_users(limit=10**6)}
    assert {f"p{name}" for name in names} <= {entry.digest for entry in journal.pending_pushes(limit=10**6)}
    for number, said in enumerate(acknowledged):
        server = journal.board.server(str(number))
        assert server is not None
        # One more may have been written and not been acknowledged.
        assert server.number - len(said) in (0, 1)
        [(_, counted)] = journal.overlay(ref("d")).deltas["translation"][f"n{number}"]
        assert counted >= len(said)


def test_a_user_noted_while_an_older_entry_is_carried_out_is_not_lost(path: Path, journal: Journal) -> None:
    """Two workers note ever later times, two carry out and forget, one of which is killed; the last times remain or
    were carried out."""
    noting = """
        for number in range(1, 61):
            while True:
                try:
                    journal.revocations.note_user(sys.argv[2], until_ms=number)
                    break
                except StoreError:
                    pass
            if number == 30:
                wait()
    """
    carrying = """
        while True:
            try:
                for entry in journal.revocations.pending_users():
                    print(entry.user_id, entry.until_ms, flush=True)
                    journal.revocations.forget_user(entry)
            except StoreError:
                pass
    """
    carriers = [process(carrying, path) for _ in range(2)]
    writers = [process(noting, path, user) for user in ("7", "8")]
    let_go(writers)
    carried = killed(carriers[0])
    for writer in writers:
        output(writer)
    carried += killed(carriers[1])
    last = {entry.user_id: entry.until_ms for entry in journal.revocations.pending_users()}
    for user, until in (line.split() for line in carried):
        last[user] = max(last.get(user, 0), int(until))
    assert last == {"7": 60, "8": 60}
