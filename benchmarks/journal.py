"""``python -m benchmarks.journal``: how many changes a second a host's journal takes, and how long each waits.

Worker processes with threads in them write to one file, each thread one change after the other, as requests of an
outage do. With the disk as it is, and with one that takes 6 ms for each fsync.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.host.journal import PendingWrite, journal_at

from .slow_disk import slow_disk

SLOW_MS = 6.0


def work(path: Path, threads: int, writes: int) -> None:
    """Be one worker: say ready, wait for the word, write, and print when it began and ended, and how long each write
    took, -1 for one that was not acknowledged."""
    journal = journal_at(path)
    journal.is_empty()
    took: list[float] = []

    def client(number: int) -> None:
        for count in range(writes):
            digest = f"{os.getpid():08x}{number:04x}{count // 4:052x}"
            began = time.perf_counter()
            try:
                entry = PendingWrite(
                    digest=digest,
                    kind="u",
                    category="translation",
                    operation=Operation.SET,
                    field=f"field{count % 4}",
                    value=b'"%s"' % (b"x" * 100),
                )
                journal.put([entry])
                took.append(time.perf_counter() - began)
            except StoreError:
                took.append(-1.0)

    def tend() -> None:
        while True:  # as an application's monitor does
            time.sleep(0.2)
            journal.shrink()

    threading.Thread(target=tend, daemon=True).start()
    clients = [threading.Thread(target=client, args=(number,)) for number in range(threads)]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    print(began, time.monotonic(), *took)


def measure(processes: int, threads: int, writes: int, fsync_ms: float | None, folder: Path) -> str:
    """Return one row of the table."""
    slow = {} if fsync_ms is None else slow_disk(folder, fsync_ms)
    if slow is None:
        return "no C compiler: not measured"
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "journal"
        journal_at(path).open()
        command = [sys.executable, "-m", "benchmarks.journal", "--worker", str(path), str(threads), str(writes)]
        workers = [
            subprocess.Popen(command, env=os.environ | slow, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = [[float(word) for word in worker.communicate()[0].split()] for worker in workers]
        seconds = max(ended for _, ended, *_ in said) - min(began for began, *_ in said)
        took = [each for _, _, *each_of_all in said for each in each_of_all]
        size = sum(file.stat().st_size for file in Path(place).iterdir()) / 1e6
    done = sorted(one for one in took if one >= 0)
    p50, p99 = (1000 * done[int(len(done) * part)] for part in (0.5, 0.99))
    return (
        f"{len(done) / seconds:8,.0f} writes/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms"
        f"   longest {1000 * done[-1]:6.1f} ms   lost {len(took) - len(done)} of {len(took)}   files {size:.0f} MB"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--clients", type=int, default=64, help="threads of all processes together")
    parser.add_argument("--writes", type=int, default=10_000, help="of all of them together")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--worker", nargs=3, metavar=("PATH", "THREADS", "WRITES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        path, threads, writes = options.worker
        work(Path(path), int(threads), int(writes))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for fsync_ms in (None, SLOW_MS):
            for processes in (1, 8):
                threads = options.clients // processes
                row = measure(processes, threads, options.writes // (threads * processes), fsync_ms, Path(folder))
                disk = "as it is" if fsync_ms is None else f"{fsync_ms:g} ms"
                print(f"fsync {disk:8}   {processes} x {threads:2} threads  {row}", flush=True)


if __name__ == "__main__":
    main()
