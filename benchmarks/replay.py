"""Measures how many journal entries a second are replayed, and whether a store that comes back has to wait for that.

``python -m benchmarks.replay --entries 100000`` fills a journal through sessions of an application whose primary is
switched off, switches it on again and waits until nothing is left, on a real Valkey. Meanwhile the database is away for
a second, once. ``--database postgresql`` has signed-in sessions in PostgreSQL, ``sqlite`` in SQLite.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flask import Flask

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.build import State
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.loaded import Loaded, Verdict
from flask_langpont_session.policy.plans import Plan
from flask_langpont_session.recovery.rows import Pushes
from flask_langpont_session.stores.host.limits import BYTES_OF_AN_ENTRY

AWAY = 1.0
"""Seconds for which the database does not answer."""

LONG = 600.0
"""Seconds after which what is waited for counts as not happening."""

KEYS = ("input_text", "partner_message", "context_info", "translation_context")
"""What is written of each session; an entry each."""


@dataclass(frozen=True)
class Result:
    """The result of one run.

    :param seconds: until all was home.
    :param primary_back: seconds until requests used the primary again, since it answered.
    :param database_back: the same of the database, during the replay; None: the replay was over before.
    :param left_then: how many entries were left by then.
    """

    entries: int
    sessions: int
    seconds: float
    per_second: float
    primary_back: float
    database_back: float | None
    left_then: int


def application(folder: Path, primary: Valkey, database_url: str, entries: int) -> Flask:
    """Return an application on these servers. Its parts end with it, so it has to be held on to."""
    app = Flask("benchmark", instance_path=str(folder))
    app.config.update(
        SECRET_KEY="a key of the benchmarks, 32 bytes or more",
        LANGPONT_SESSION_REDIS_URL=primary.url,
        LANGPONT_SESSION_DATABASE_URL=database_url,
        LANGPONT_SESSION_JOURNAL=str(folder / "journal.sqlite3"),
        LANGPONT_SESSION_MEMORY_BYTES=8_000_000,
        LANGPONT_SESSION_JOURNAL_MAX_BYTES=(2 * entries + 1) * BYTES_OF_AN_ENTRY,
    )
    LangPontSession(app)
    state = state_of(app)
    state.backend.database.upkeep.create_tables()
    state.monitor.tick()
    return app


def sessions(state: State, count: int, signed_in: float) -> Iterator[SessionId]:
    """Yield new sessions, a part of them signed in; those have their row, and their record in Redis."""
    for number in range(count):
        kind = "u" if number % 100 < signed_in * 100 else "a"
        sid = SessionId(f"{number:043}", kind, False, int(time.time()), b"secret")
        if kind == "u":
            life = state.settings.life
            state.backend.database.create(
                sid.digest,
                user_id=str(number),
                payload={"_user_id": b'"%d"' % number},
                idle_ms=life.idle_ms,
                absolute_ms=life.absolute_ms,
                timeout=5,
            )
        yield sid


def fill(state: State, entries: int, signed_in: float) -> int:
    """Put that many changes into the journal, as requests do while the primary is away. Return how many are there."""
    repository = state.repository
    known = list(sessions(state, -(-entries // len(KEYS)), signed_in))
    for begin in range(0, len(known), 1000):  # Redis knows the sessions of users that signed in before the outage
        Pushes(state.backend).push([sid.digest for sid in known[begin : begin + 1000] if sid.kind == "u"])
    for shard in state.backend.health.shards:
        state.backend.health.failed(
            StoreError(f"{PRIMARY}{shard}", ErrorClass.UNREACHABLE, "Off", timed_out=True), READ
        )
    for sid in known:
        sets = dict.fromkeys(KEYS, b'"a text of that session"')
        changes = {"translation": CategoryChange(0, sets=sets)}
        scope = repository.begin(digest=sid.digest)
        plan = Plan(sid, sid, state.settings.life, scope.level, Loaded(Verdict.ANONYMOUS), changes=changes)
        repository.saves.save(plan, scope)
    return left(state)


def left(state: State) -> int:
    """Return how many changes wait."""
    return state.backend.journal.counts()["writes"]


@contextmanager
def away(state: State) -> Iterator[None]:
    """Have the database not answer while this is open."""
    calls = state.backend.database.calls
    execute, down = calls._bounded, True

    def bounded(*arguments: object, **more: object) -> object:
        if down:
            raise StoreError(DATABASE, ErrorClass.UNREACHABLE, "Away")
        return execute(*arguments, **more)  # type: ignore[arg-type]

    calls._bounded = bounded  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        down = False


def wait_for_use(state: State, store: str) -> float:
    """Return the seconds until requests use a store again."""
    began = time.monotonic()

    def is_used() -> bool:
        return not any(name.startswith(store) for name, _ in state.health.open_stores())

    wait_until(is_used, f"{store} in use", LONG)
    return time.monotonic() - began


def measure(state: State, entries: int, signed_in: float) -> Result:
    """Make one run."""
    with state.monitor.paused():
        waiting = fill(state, entries, signed_in)
    state.monitor.ensure_started()
    began = time.monotonic()
    primary_back = wait_for_use(state, PRIMARY)
    found: list[tuple[float, int]] = []

    def lose_the_database() -> None:
        with away(state):
            state.health.failed(StoreError(DATABASE, ErrorClass.UNREACHABLE, "Away", timed_out=True), WRITE)
            time.sleep(AWAY)  # the length of the outage is part of what is measured
        found.append((wait_for_use(state, DATABASE), left(state)))

    meanwhile = threading.Thread(target=lose_the_database)
    meanwhile.start()
    wait_until(lambda: not left(state), "an empty journal", LONG, pause=0.02)
    seconds = time.monotonic() - began
    meanwhile.join()
    [(database_back, remained)] = found
    return Result(
        waiting,
        -(-entries // len(KEYS)),
        round(seconds, 2),
        round(waiting / seconds, 1),
        round(primary_back, 2),
        round(database_back, 2) if remained else None,
        remained,
    )


def main(arguments: list[str]) -> None:
    """Run it, and print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--signed-in", type=float, default=0.5, help="the part of the sessions that is signed in")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    wanted = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        primary = stack.enter_context(Valkey(folder / "valkey", appendonly=False))
        url = f"sqlite:///{folder / 'sessions.sqlite3'}"
        if wanted.database == "postgresql":
            url = stack.enter_context(Postgres(folder / "postgres")).url
        app = application(folder, primary, url, wanted.entries)
        state = state_of(app)
        stack.callback(state.close)
        print(json.dumps(asdict(measure(state, wanted.entries, wanted.signed_in)), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
