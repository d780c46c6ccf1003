"""``python -m benchmarks.journal``: how many changes a second a host's journal takes, and how soon stores have them.

Taken: eight worker processes with eight threads each write to one file, each thread one change after the other, as
requests of an outage do. Given back: requests of an application whose Redis was killed, which is started again.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.host.journal import PendingWrite, journal_at
from flask_langpont_session.stores.host.limits import BYTES_OF_AN_ENTRY

from .contestants import Ours
from .page import say, table
from .workers import Process

WORKERS, THREADS = 8, 8
LONG = 600.0
"""Seconds after which what is waited for counts as not happening."""

KEYS = ("input_text", "partner_message", "context_info", "translation_context")
"""What is written of each session; an entry each."""


@dataclass(frozen=True)
class Effort:
    """The amount of measuring. :param writes: of all workers together; `entries`: to be given back."""

    writes: int
    entries: int


FULL, QUICK = Effort(10_000, 100_000), Effort(640, 400)


# -- taken -------------------------------------------------------------------------------------------------------------


def work(program: Connection, path: Path, writes: int) -> None:
    """Be one worker: say ready, wait for the word, write, and tell when it began and ended, and how long each write
    took, -1 for one that was not acknowledged."""
    journal = journal_at(path)
    journal.is_empty()

    def client(number: int) -> list[float]:
        return [_put(f"{os.getpid():08x}{number:04x}{count // 4:052x}", f"field{count % 4}") for count in range(writes)]

    def _put(digest: str, field: str) -> float:
        what: dict[str, Any] = {"kind": "u", "category": "translation", "operation": Operation.SET}
        entry = PendingWrite(digest=digest, field=field, value=b'"%s"' % (b"x" * 100), **what)
        began = time.perf_counter()
        try:
            journal.put([entry])
        except StoreError:
            return -1.0
        return time.perf_counter() - began

    def tend() -> None:
        while True:  # as an application's monitor does
            time.sleep(0.2)
            journal.shrink()

    threading.Thread(target=tend, daemon=True).start()
    program.send("ready")
    program.recv()
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.monotonic()
        took = [each for client in pool.map(client, range(THREADS)) for each in client]
        program.send((began, time.monotonic(), took))


def taken(folder: Path, writes: int) -> list[str]:
    """Return the cells of a row: writes a second, p50 and p99 in milliseconds, lost."""
    journal_at(folder / "journal").open()
    workers = [Process(work, folder / "journal", writes // WORKERS // THREADS) for _ in range(WORKERS)]
    for worker in workers:
        worker.answer()
    for worker in workers:
        worker.send("go")
    said = [worker.answer() for worker in workers]
    for worker in workers:
        worker.close()
    seconds = max(ended for _, ended, _ in said) - min(began for began, _, _ in said)
    took = sorted(each for _, _, of_one in said for each in of_one)
    done = [each for each in took if each >= 0]
    p50, p99 = (f"{1000 * done[int(len(done) * part)]:.1f}" for part in (0.5, 0.99))
    return [f"{len(done) / seconds:,.0f}", p50, p99, f"{len(took) - len(done)} of {len(took)}"]


# -- given back --------------------------------------------------------------------------------------------------------


def given_back(folder: Path, valkey: Valkey, database_url: str, entries: int) -> list[str]:
    """Return the cells of a row: entries, entries a second, seconds until requests used Redis again."""
    room = {"MEMORY_BYTES": 8_000_000, "JOURNAL_MAX_BYTES": (2 * entries + 1) * BYTES_OF_AN_ENTRY}
    made = Ours(valkey.url, folder, database_url, **room)
    state = state_of(made.app)
    journal = state.backend.journal
    try:
        # Half of the sessions are signed in.
        kinds = ({"_user_id": "1207"}, {"theme": "dark"})
        cookies = [made.begin(kinds[number % 2]) for number in range(entries // len(KEYS))]
        _until(journal.is_empty, "an empty journal")
        with state.monitor.paused():
            valkey.kill()
            for cookie in cookies:
                made.get("/fill", cookie, dict.fromkeys(KEYS, "a text of that session"))
            waiting = journal.counts()["writes"]
            valkey.start()
        began = time.monotonic()
        _until(lambda: not state.health.open_stores(), "Redis in use")
        in_use = time.monotonic() - began
        _until(lambda: not journal.counts()["writes"], "an empty journal")
        return [f"{waiting:,}", f"{waiting / (time.monotonic() - began):,.0f}", f"{in_use:.2f}"]
    finally:
        made.close()


def _until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what, LONG, pause=0.02)


# -- the report --------------------------------------------------------------------------------------------------------


def markdown(folder: Path, effort: Effort) -> str:
    """Measure, and return the report."""
    say("taken")
    head = (f"taken from {WORKERS} workers × {THREADS} threads: a second", "p50, ms", "p99, ms", "lost")
    first = table(head, [taken(folder, effort.writes)], texts=0)
    rows = []
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres(folder / "postgres"))
        for name, url in (("SQLite", ""), ("PostgreSQL", postgres.url)):
            say(f"given back, {name}")
            valkey = stack.enter_context(Valkey(folder / f"valkey-{name}"))
            rows.append([name, *given_back(folder / name, valkey, url, effort.entries)])
    return f"{first}\n{table(('given back', 'entries', 'a second', 'Redis is used again after, s'), rows)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="journal-", dir=options.folder) as name:
        print(markdown(Path(name), QUICK if options.quick else FULL))
