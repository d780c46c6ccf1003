"""``python -m benchmarks.session_work``: what the session itself takes, without Flask, before an outage and in it.

One process; a primary without a replica. Timed is the session's own work for a request: opening it, reading or writing
one key, saving it. At level 2 a worker asks the database about a session every two seconds, or after another one has
changed it; "asked" are the requests in which it does. Beside it stands how long the disk takes to keep 4 KB for good,
which each value that is written to the journal waits for, and how long SQLite alone takes for a commit, which each
change of auth waits for at any level.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of

from .cores import CORES, pin

Kinds = Mapping[str, Callable[[], Iterable[float]]]
"""Name → the seconds that each call of one round takes."""

USERS = 20

WORK: Mapping[str, Callable[[Any, int], object]] = {
    "read": lambda session, number: session.get("translation_context"),
    "write, `high`": lambda session, number: session.update(translation_context=[number]),
    "write, `medium`": lambda session, number: session.update(lang=str(number)),
    "write, auth": lambda session, number: session.update(daily_limit=number),
    "read, database asked": lambda session, number: session.fresh("auth"),
    "write, auth, database asked": lambda session, number: session.fresh("auth") and session.update(daily_limit=number),
    "a mix of these": lambda session, number: mixed(session, number),
}

MIX: Sequence[str] = (*["read"] * 15, *["write, `high`"] * 2, *["write, `medium`"] * 2, "write, auth")
"""One in four changes something, one in twenty what the database has: more of both than on most sites."""


def main() -> None:
    """Measure and print a table, milliseconds: medians of the rounds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5, help="before the outage, and in it")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--cores", choices=CORES, default="any", help="where client and server run")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder, calls = Path(stack.enter_context(TemporaryDirectory())), options.calls
        server = stack.enter_context(Valkey(folder / "valkey"))
        if options.database == "sqlite":
            pin(options.cores, server.pid)
            database = f"sqlite:///{folder / 'sessions.sqlite3'}"
        else:
            postgres = stack.enter_context(Postgres(folder / "postgres"))
            pin(options.cores, server.pid, postgres.pid)
            database = postgres.url
        disk: Kinds = {
            "4 KB kept by the disk": lambda: kept_by_the_disk(folder / "file", calls),
            "a commit by SQLite alone": lambda: committed(folder / "alone.sqlite3", calls),
        }
        app, cookies = stack.enter_context(application(folder, server, database))
        work: Kinds = {name: partial(timed, app, cookies, work, calls) for name, work in WORK.items()}
        print("| | level | p50, ms | p99, ms |\n| --- | ---: | ---: | ---: |")
        print_rounds(disk, "", options.rounds)
        print_rounds(work, "0", options.rounds)
        server.kill()
        wait_until(lambda: level(app, cookies[0]) == 2, "the outage")
        print_rounds(work, "2", options.rounds)
        assert level(app, cookies[0]) == 2


def print_rounds(kinds: Kinds, at_level: str, rounds: int) -> None:
    """Print a row of each kind: the kinds take turns, so that a busy minute of the machine falls on all of them."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, measured in kinds.items():
            figures[name].append(p50_p99(measured()))
    for name, found in figures.items():
        p50, p99 = (median(column) * 1000 for column in zip(*found, strict=True))
        print(f"| {name} | {at_level} | {p50:.2f} | {p99:.2f} |")


def p50_p99(seconds: Iterable[float]) -> tuple[float, float]:
    """Return the two quantiles."""
    ordered = sorted(seconds)
    return ordered[int(len(ordered) * 0.5)], ordered[int(len(ordered) * 0.99)]


@contextmanager
def application(folder: Path, server: Valkey, database: str) -> Iterator[tuple[Flask, list[str]]]:
    """Yield an application with the defaults, and the cookies of its users."""
    app = Flask("session_work", instance_path=str(folder))
    app.config.update(
        SECRET_KEY="the key of this benchmark, longer than 32 bytes",
        LANGPONT_SESSION_REDIS_URL=server.url,
        LANGPONT_SESSION_DATABASE_URL=database,
        LANGPONT_SESSION_JOURNAL=str(folder / "journal.sqlite3"),
    )
    LangPontSession(app)
    state_of(app).backend.database.upkeep.create_tables()

    @app.post("/sign-in/<user>")
    def sign_in(user: str) -> str:
        session.update(_user_id=user, translation_context=[], daily_limit=0, lang="ja")
        return "signed in"

    try:
        yield app, [signed_in(app, str(number)) for number in range(USERS)]
    finally:
        state_of(app).close()


def signed_in(app: Flask, user: str) -> str:
    """Return the cookie of a user."""
    client = app.test_client()
    assert client.post(f"/sign-in/{user}").status_code == 200
    cookie = client.get_cookie("session")
    assert cookie is not None
    return cookie.value


def mixed(session: Any, number: int) -> object:
    """Do each kind of work in its turn, and each for all users in turn."""
    return WORK[MIX[(number + number // USERS) % len(MIX)]](session, number)


def level(app: Flask, cookie: str) -> int:
    """Return the level at which a request is served."""
    with app.test_request_context(headers={"Cookie": f"session={cookie}"}):
        assert session.get("_user_id")
        return state_of(app).health.level


def timed(app: Flask, cookies: Sequence[str], work: Callable[[Any, int], object], calls: int) -> Iterator[float]:
    """Yield the seconds that the session takes in each of so many requests."""
    sessions = app.session_interface
    for number in range(calls):
        cookie = cookies[number % len(cookies)]
        context = app.test_request_context(headers={"Cookie": f"session={cookie}"})
        with app.app_context():
            request, response = context.request, app.response_class()
            began = time.perf_counter()
            opened: Any = sessions.open_session(app, request)
            work(opened, number)
            sessions.save_session(app, opened, response)
            yield time.perf_counter() - began


def kept_by_the_disk(path: Path, calls: int) -> Iterator[float]:
    """Yield the seconds that it takes to write 4 KB and to have them kept."""
    with path.open("wb", buffering=0) as file:
        for _ in range(calls):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            yield time.perf_counter() - began


def committed(path: Path, calls: int) -> Iterator[float]:
    """Yield the seconds that it takes to change one row for good, with the settings of the session's own database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE IF NOT EXISTS rows (name TEXT PRIMARY KEY, value INTEGER)")
        database.execute("INSERT OR IGNORE INTO rows VALUES ('one', 0)")
        for _ in range(calls):
            began = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.execute("UPDATE rows SET value = value + 1 WHERE name = 'one'")
            database.execute("COMMIT")
            yield time.perf_counter() - began


if __name__ == "__main__":
    main()
