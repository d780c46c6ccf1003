"""``python -m benchmarks.scale``: what sessions cost as there are more of them, and larger ones.

A real Valkey and PostgreSQL on loopback. Sessions are written in the form that the store gives them, many in one round
trip, and read and written through the repository, without HTTP. This process has one core, the servers have another.
What a server can do follows from the processor time that it takes for an operation.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psutil
import redis
import sqlalchemy as sa

from devservers.servers import Postgres, Valkey
from flask_langpont_session.extension import state_of
from flask_langpont_session.ops.exporters.session_index import ActiveSessions
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.health import PRIMARY
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.loaded import Verdict
from flask_langpont_session.policy.plans import Plan
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.commands import Commands, Guarded, new_write_id
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import SESSIONS

from .contestants import Ours
from .cores import apart
from .memory import used
from .page import arguments, machine, publish, say, table
from .scenarios import SIZES, data_of

KB = 1024
MANY = 2_000_000
"""Bytes that are written in one round trip, at most; a hundred sessions."""

WARM = 20
"""Operations after which an application is connected, and the server has the scripts; and so many sessions it
remembers, unless they are too large for that."""

_ROWS_AT_A_TIME = 5000
_YEAR = 365 * 86_400
LIVES: dict[str, Any] = {
    "MAX_CATEGORY_BYTES": 4_194_304,
    # The sessions were never signed in: the database is not to be asked about them.
    "IDLE_TIMEOUT": _YEAR,
    "ABSOLUTE_TIMEOUT": _YEAR,
    "VERIFY_INTERVAL": 86_400,
    "GRACE": 0,
}


@dataclass(frozen=True)
class Effort:
    """The amount of measuring.

    :param seconds: of each kind of request.
    :param sizes: bytes of a session → how many.
    :param sessions: numbers of sessions of 1 KB, one after the other.
    :param rows: of the database; `calls`: of each kind.
    """

    seconds: float
    sizes: Mapping[int, int]
    sessions: Sequence[int]
    rows: int
    calls: int


FULL = Effort(3.0, {KB: 10_000, 10 * KB: 3000, 100 * KB: 500, KB * KB: 60}, (10_000, 100_000, 1_000_000), 100_000, 2000)
QUICK = Effort(0.0, {KB: 40, 100 * KB: 20}, (40, 80), 50, 10)


# -- sessions ----------------------------------------------------------------------------------------------------------


def data_of_size(size: int) -> Mapping[str, Mapping[str, bytes]]:
    """Return category → its data, of a session that has about so many bytes as JSON: what grows is the user's
    history."""
    categories = {name: data_of("1 KB", name) for name in SIZES["1 KB"]}
    if size > KB:
        history = data_of("50 KB", "translation")["translation_context"]
        entry = len(msgspec.json.encode(history)) / len(history)
        entries = int((size - len(msgspec.json.encode(data_of("1 KB")))) / entry)
        categories["translation"]["translation_context"] = list(islice(cycle(history), entries))
    return {name: {key: msgspec.json.encode(each) for key, each in data.items()} for name, data in categories.items()}


def session(number: int) -> SessionId:
    """Return the id of a session of a signed-in user."""
    return SessionId(f"{number:043}", SIGNED_IN, False, int(time.time()), b"secret")


class Application:
    """An application on one server, and what is done with its repository; each request begins, loads or saves, and
    ends.

    :param settings: without their prefix.
    """

    def __init__(self, redis_url: str, folder: Path, **settings: Any) -> None:
        self._made = Ours(redis_url, folder, **(LIVES | settings))
        self._state = state_of(self._made.app)
        self._state.monitor.tick()
        self._state.ensure_started()

    def close(self) -> None:
        """End what runs beside."""
        self._made.close()

    def read(self, number: int) -> None:
        """Make a request that reads a session. :raises RuntimeError: something else than Redis has answered."""
        sid, repository = session(number), self._state.repository
        loaded = repository.reads.load(sid, repository.begin(digest=sid.digest), self._state.settings.life)
        sources = {name: state.source for name, state in loaded.categories.items()}
        if loaded.verdict is not Verdict.VALID or "database" in sources.values() or self._state.health.level:
            raise RuntimeError(f"session {number} is {loaded.verdict} by {sources}")

    def write(self, number: int) -> None:
        """Make a request that changes one key of a session, without reading it. :raises RuntimeError: it was not
        stored."""
        sid, repository = session(number), self._state.repository
        changes = {"ui": CategoryChange(0, sets={"theme": b'"value-%03d"' % (time.perf_counter_ns() % 1000)})}
        scope = repository.begin(digest=sid.digest)
        plan = Plan(sid, sid, self._state.settings.life, scope.level, changes=changes)
        repository.saves.save(plan, scope)
        if plan.kept.get("ui") != "redis":
            raise RuntimeError(f"session {number} was kept in {plan.kept}")

    def fill(self, numbers: range, size: int = KB) -> None:
        """Write sessions, in the form that the store gives them, with many in one round trip."""
        data, step = data_of_size(size), max(1, min(100, MANY // size))
        for begin in range(numbers.start, numbers.stop, step):
            self._write_all([session(n).digest for n in range(begin, min(begin + step, numbers.stop))], data)

    def _write_all(self, digests: Sequence[str], data: Mapping[str, Mapping[str, bytes]]) -> None:
        backend, life = self._state.backend, self._state.settings.life
        endpoint = backend.endpoint(f"{PRIMARY}{self._state.health.locate(digests[0])}")
        of_store = Commands(endpoint.prefix)
        # What was confirmed in the very millisecond in which the trust in this server began is not believed.
        now_ms = endpoint.time_ms(timeout=10.0) + 1
        guarded = Guarded(backend.limits, 0, new_write_id())
        changes = {
            name: CategoryChange(backend.life_of(name, SIGNED_IN, life), sets=dict(fields))
            for name, fields in data.items()
            if name != "auth"
        }
        commands = []
        for digest in digests:
            ends = now_ms + life.idle_ms
            row = AuthRow(digest, digest[:8], 1, True, data["auth"], 0, now_ms, ends, ends, now_ms)
            commands.append(of_store.push(row, now_ms, life.idle_ms))
            commands.append(of_store.write(RecordRef(digest, SIGNED_IN), changes, "new", guarded))
        endpoint.link.run(commands, 60.0)

    def index(self, numbers: range) -> None:
        """Put sessions into the index of those in use, as the metrics do."""
        primary: Any = self._state.backend.primary
        active = ActiveSessions(primary, self._state.backend.recorder, is_up=lambda: True, interval=60)
        for number in numbers:
            active.notes.served(session(number).digest, 3_600_000)
        active.update(may_lead=False)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, redis.Redis]]:
    """Run a server on a core of its own. Yield its URL, and a client."""
    with Valkey(folder / "valkey", appendonly=False) as server, apart(server.pid), server.client() as client:
        yield server.url, client


# -- what is measured, each a table ------------------------------------------------------------------------------------

_COSTS = ["script, µs", "Redis, CPU µs", "worker, CPU µs", "p50, ms", "p99, ms", "bytes to Redis", "bytes from it"]


def timed(client: redis.Redis, request: Callable[[int], None], numbers: range, seconds: float) -> list[str]:
    """Make requests for sessions, in turn, for so long. Return the cells of :data:`_COSTS`, which are about one
    request."""
    for number in islice(cycle(numbers), WARM):
        request(number)
    before, cpu, took = _counters(client), time.process_time(), list[float]()
    until = time.perf_counter() + seconds
    for number in cycle(numbers):
        began = time.perf_counter()
        request(number)
        took.append(time.perf_counter() - began)
        if began > until and len(took) >= WARM:
            break
    own = time.process_time() - cpu
    spent = {name: value - before[name] for name, value in _counters(client).items()}
    took, count = sorted(took), len(took)
    return [
        f"{spent['usec'] / max(1, spent['calls']):,.0f}",
        *(f"{cpu / count * 1e6:,.0f}" for cpu in (spent["cpu"], own)),
        *(f"{each * 1000:.2f}" for each in (took[count // 2], took[int(count * 0.99)])),
        *(f"{spent[name] / count:,.0f}" for name in ("bytes_in", "bytes_out")),
    ]


def _counters(client: redis.Redis) -> Mapping[str, float]:
    """Return seconds of processors, microseconds and calls of scripts, bytes, by the server's own statistics."""
    found: Any = client.info("all")
    script = found.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
    return {
        "cpu": found["used_cpu_user"] + found["used_cpu_sys"],
        "usec": script["usec"],
        "calls": script["calls"],
        "bytes_in": found["total_net_input_bytes"],
        "bytes_out": found["total_net_output_bytes"],
    }


def growth(client: redis.Redis, fill: Callable[..., None], numbers: range, *size: int) -> float:
    """Return the bytes of the server for each of these sessions."""
    before = used(client)
    fill(numbers, *size)
    return (used(client) - before) / len(numbers)


def sizes(folder: Path, effort: Effort) -> str:
    """Measure sessions of each size. One application has all that the package has, one no near cache, and one remembers
    nothing."""
    memory, costs = [], []
    with serving(folder) as (url, client), ExitStack() as stack:
        whole, asking, forgetful = (
            Application(url, folder, **settings) for settings in ({}, {"NEAR_CACHE": ()}, {"MEMORY_BYTES": 0})
        )
        for application in (whole, asking, forgetful):
            stack.callback(application.close)
        for size, count in effort.sizes.items():
            title = f"{size // KB} KB" if size < KB * KB else f"{size // KB // KB} MB"
            numbers, further = (range(first, first + count) for first in (1000 * size, 1000 * size + count))
            loose = growth(client, whole.fill, numbers, size)
            for kind, request, which in (
                ("read", forgetful.read, numbers),
                ("read again", asking.read, numbers[:WARM]),
                ("read again, near cache", whole.read, numbers[:WARM]),
                ("write", whole.write, numbers),
            ):
                costs.append([f"{title}: {kind}", *timed(client, request, which, effort.seconds)])
            client.config_set("hash-max-listpack-value", "1024")
            tight = growth(client, whole.fill, further, size)
            client.config_set("hash-max-listpack-value", "64")
            parts = data_of_size(size).values()
            as_json = sum(len(name) + len(value) + 4 for part in parts for name, value in part.items()) + len(parts)
            memory.append([title, f"{as_json:,}", f"{count:,}", f"{loose:,.0f}", f"{tight:,.0f}"])
    head = ["session", "bytes as JSON", "sessions", "bytes of Redis each", "with `hash-max-listpack-value 1024`"]
    return f"{table(head, memory)}\n{table(['session, request', *_COSTS], costs)}"


def more(folder: Path, effort: Effort) -> tuple[str, float]:
    """Measure more and more sessions on one server; and the bytes of a session in the index of those in use."""
    rows, there = [], 0
    with serving(folder) as (url, client), ExitStack() as stack:
        application = Application(url, folder, MEMORY_BYTES=0)
        stack.callback(application.close)
        empty = used(client)
        for count in effort.sessions:
            application.fill(range(there, count))
            memory, there = (used(client) - empty) / count, count
            # Of the later half: those that are asked for lie anywhere in the memory of the server.
            later = range(count // 2, count)
            read, write = (timed(client, do, later, effort.seconds) for do in (application.read, application.write))
            rows.append([f"{count:,}", f"{memory:,.0f}", *read[:5], *write[:5]])
        index = growth(client, application.index, range(effort.sessions[0]))
    head = [f"{kind}: {what}" for kind in ("read", "write") for what in _COSTS[:5]]
    return table(["sessions", "bytes of Redis each", *head], rows, texts=0), index


def database(folder: Path, effort: Effort, index: float) -> str:
    """Measure PostgreSQL, as the package uses it."""
    with Postgres(folder) as server, apart(server.pid):
        store = Database(make_engine(server.url, 10.0), timeout=10.0)
        store.upkeep.create_tables()
        payload = data_of_size(KB)["auth"]
        row = _fill_rows(store, effort.rows, payload)
        life: dict[str, Any] = {"idle_ms": _YEAR * 1000, "absolute_ms": _YEAR * 1000, "user_id": "1207"}
        step = max(1, effort.rows // effort.calls)

        def read(n: int) -> object:
            return store.load(session(n * step % effort.rows).digest)

        def create(n: int) -> object:
            return store.create(session(effort.rows + n).digest, payload=payload, **life)

        rows = [
            ["rows", f"{effort.rows:,}"],
            ["bytes per row, indexes included", f"{row:,.0f}"],
            ["a read: PostgreSQL, CPU µs; worker, CPU µs; p50, ms", _calls(server.pid, effort.calls, read)],
            ["a sign-in: PostgreSQL, CPU µs; worker, CPU µs; p50, ms", _calls(server.pid, effort.calls, create)],
            ["bytes of Redis per session in the index of sessions in use", f"{index:,.0f}"],
        ]
        store.engine.dispose()
    return table(["PostgreSQL", "measured"], rows)


def _fill_rows(store: Database, rows: int, payload: Mapping[str, bytes]) -> float:
    """Write rows. Return the bytes of each, with its share of the indexes."""
    text = json.dumps({name: value.decode() for name, value in payload.items()})
    now = int(time.time() * 1000)
    same = {"version": 1, "live": True, "payload": text, "user_epoch": 0, "created_at": now, "updated_at": now}
    same |= dict.fromkeys(("idle_expires_at", "absolute_expires_at"), now + _YEAR * 1000)
    with store.engine.begin() as connection:
        for first in range(0, rows, _ROWS_AT_A_TIME):
            part = range(first, min(rows, first + _ROWS_AT_A_TIME))
            values = [{"digest": session(n).digest, "user_id": str(n), **same} for n in part]
            connection.execute(sa.insert(SESSIONS), values)
        size = connection.execute(sa.text("SELECT pg_total_relation_size('langpont_sessions')")).scalar_one()
    return float(size) / rows


def _calls(pid: int | None, number: int, call: Callable[[int], object]) -> str:
    call(0)
    before, cpu, took = _processors(pid), time.process_time(), []
    for n in range(1, number + 1):
        began = time.perf_counter()
        assert call(n) is not None, f"row {n} is not there"
        took.append(time.perf_counter() - began)
    own, theirs = time.process_time() - cpu, _processors(pid) - before
    # Linux counts the processor time of others in hundredths of a second.
    return f"{max(1.0, theirs / number * 1e6):,.0f}; {own / number * 1e6:,.0f}; {sorted(took)[number // 2] * 1000:.2f}"


def _processors(pid: int | None) -> float:
    first = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [first, *first.children(recursive=True)])


def markdown(effort: Effort) -> str:
    """Measure, and return the report."""
    what = machine("loopback; worker and servers on a core each", "redis", "hiredis", "sqlalchemy", "psycopg")
    parts = [f"{what} Load of the machine before the run: {os.getloadavg()[0]:.1f}.\n"]
    with TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        say("sizes of sessions")
        parts += ["### Size of a session\n", sizes(folder / "sizes", effort)]
        say("numbers of sessions")
        by_number, index = more(folder / "more", effort)
        parts += ["### Number of sessions\n", by_number]
        say("database")
        parts += ["### The database\n", database(folder / "postgres", effort, index)]
    return "\n".join(parts)


if __name__ == "__main__":
    options = arguments("benchmarks.scale", __doc__).parse_args()
    publish(markdown(QUICK if options.quick else FULL), options, "measured")
