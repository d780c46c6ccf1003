"""Worker processes that share a journal with a test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence

from devservers.processes import LONG
from tests.support import patience

_PROLOGUE = f"""
import importlib.util, os, signal, sys, threading, time
from pathlib import Path
# The package itself is not executed: a worker that does not load Flask starts in a fifth of the time.
spec = importlib.util.find_spec("flask_langpont_session")
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
try:
    from flask_langpont_session.policy.changes import Operation
    from flask_langpont_session.policy.copies import RecordRef
    from flask_langpont_session.policy.errors import StoreError
    from flask_langpont_session.policy.servers import ServerRecord
except ImportError:  # the former release
    from flask_langpont_session.policy.values import Operation, RecordRef, ServerRecord, StoreError
from flask_langpont_session.stores.host.journal import PendingWrite, journal_at
from flask_langpont_session.stores.host.entries import Basis
from flask_langpont_session.stores.host import file as journal_file
journal_file.BUSY_SECONDS = {patience.JOURNAL}  # a busy disk fails no test that is not about the wait for the journal
assert "flask" not in sys.modules
journal = journal_at(Path(sys.argv[1]))
place = {{"kind": "u", "category": "translation"}}
def value(digest, field, **more):
    return PendingWrite(digest=digest, field=field, operation=Operation.SET, value=b"1", **place, **more)
def addition(digest, field, by=1):
    return PendingWrite(digest=digest, field=field, operation=Operation.ADD, delta=by, token="added..", **place)
def ref(digest):
    return RecordRef(digest, "a")
unwatched = threading.Event()
def end_with(parent):
    while not unwatched.wait(0.5):
        if os.getppid() != parent:
            os._exit(1)
watcher = threading.Thread(target=end_with, args=(os.getppid(),), daemon=True)
watcher.start()
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""


_started: list[subprocess.Popen[str]] = []


def process(script: str, *arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A worker process with a journal named ``journal`` on the file that is the first argument."""
    code = _PROLOGUE + textwrap.dedent(script)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    _started.append(worker)
    return worker


def end_all() -> None:
    """End every worker that still runs: a test that failed must leave none behind."""
    while _started:
        with _started.pop() as worker:
            worker.kill()


def let_go(workers: Sequence[subprocess.Popen[str]]) -> None:
    """Let workers that called ``wait()`` go on at the same moment."""
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()


def output(worker: subprocess.Popen[str], *, expected: int = 0) -> str:
    """Return what a worker printed, once it has ended with the expected code."""
    text, _ = worker.communicate(timeout=LONG)
    assert worker.returncode == expected
    return text.strip()
