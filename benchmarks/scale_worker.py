"""One worker process of ``python -m benchmarks.scale``: it does with sessions what it is told.

It has an application of its own and works through the repository of that, without HTTP: each request begins, loads or
saves, and ends.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.build import State
from flask_langpont_session.extension import state_of
from flask_langpont_session.metrics.session_index import ActiveSessions
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.health import PRIMARY
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.loaded import Verdict
from flask_langpont_session.policy.plans import Plan
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.commands import Commands, Guarded, new_write_id

from .scenarios import SIZES, data_of

TOGETHER = 100
"""Sessions that are written in one round trip."""

MANY = TOGETHER * 20_000
"""Bytes that are written in one round trip, at most."""

WARM = 20
"""Operations after which a worker is connected, and the server has the scripts."""

WRITES = 0.2
"""The share of requests that change something, where requests are mixed."""

PAUSE = 0.01
"""Seconds between two requests in an outage."""

YEAR = 365 * 86_400
PATIENCE = 5.0
"""Seconds for an answer: a busy machine is no outage."""


@dataclass(frozen=True)
class Order:
    """An order to a worker.

    :param work: a key of :data:`WORK`, or ``fill``, ``index``, ``return``.
    :param first: number of the first session that it is about; `count`: how many there are.
    :param size: of a session to be written, bytes of JSON.
    :param seconds: how long to go on with it, after the first :data:`WARM` operations.
    """

    work: str
    first: int
    count: int
    size: int = 1024
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """The result of an order.

    :param took: microseconds of each operation, in their order.
    :param cpu: seconds of this process meanwhile.
    :param seconds: from the first operation to the last.
    """

    took: list[int]
    cpu: float
    seconds: float


def data_of_size(size: int) -> Mapping[str, Mapping[str, Any]]:
    """Return category → its data, of a session that has about so many bytes as JSON: what grows is the user's
    history."""
    categories = {name: dict(data_of("1 KB", name)) for name in SIZES["1 KB"]}
    if size > 1024:
        history = data_of("50 KB", "translation")["translation_context"]
        entry = len(msgspec.json.encode(history)) / len(history)
        entries = int((size - len(msgspec.json.encode(data_of("1 KB")))) / entry)
        categories["translation"]["translation_context"] = [history[n % len(history)] for n in range(entries)]
    return categories


def session(number: int) -> SessionId:
    """Return the id of a session of a signed-in user."""
    return SessionId(f"{number:043}", SIGNED_IN, False, int(time.time()), b"secret")


class Worker:
    """An application on the servers of one URL, and what it can be told to do.

    :param settings: of the application, without their prefix.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._app = Flask("scale", instance_path=str(folder))
        settings = {
            "DATABASE_URL": f"sqlite:///{folder / 'sessions.sqlite3'}",
            "JOURNAL": str(folder / "journal.sqlite3"),
            "SINGLE_HOST": True,
            "MAX_CATEGORY_BYTES": 4_194_304,
            # The sessions were never signed in: the database is not to be asked about them.
            "IDLE_TIMEOUT": YEAR,
            "ABSOLUTE_TIMEOUT": YEAR,
            "VERIFY_INTERVAL": 86_400,
            "GRACE": 0,
            **dict.fromkeys(("REDIS_TIMEOUT", "DATABASE_TIMEOUT", "REQUEST_BUDGET"), PATIENCE),
            **settings,
        }
        self._app.config["SECRET_KEY"] = "a key of the benchmarks, 32 bytes or more"
        self._app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
        LangPontSession(self._app)
        self._state: State = state_of(self._app)
        self._state.backend.database.upkeep.create_tables()
        self._state.monitor.tick()
        self._state.ensure_started()
        self._random = random.Random(len(str(folder)))

    def close(self) -> None:
        """End what runs beside."""
        self._state.close()

    def do(self, order: Order) -> Report:
        """Carry out an order."""
        if order.work == "return":
            return self.until_return(order)
        if order.work in ("fill", "index"):
            began, cpu = time.perf_counter(), time.process_time()
            getattr(self, order.work)(order)
            return Report([], time.process_time() - cpu, time.perf_counter() - began)
        return self._timed(WORK[order.work], order)

    def _timed(self, work: Callable[[Worker, int, int], None], order: Order) -> Report:
        took: list[int] = []
        cpu, began = time.process_time(), time.perf_counter_ns()
        now, until = began, began + int(order.seconds * 1e9)
        for turn, number in enumerate(self._numbers(order)):
            work(self, number, turn)
            before, now = now, time.perf_counter_ns()
            took.append((now - before) // 1000)
            if now > until and len(took) >= WARM:
                break
        return Report(took, time.process_time() - cpu, (now - began) / 1e9)

    def _numbers(self, order: Order) -> Iterator[int]:
        if order.work == "mixed":
            while True:
                yield order.first + self._random.randrange(order.count)
        while True:
            yield from range(order.first, order.first + order.count)

    # -- requests --------------------------------------------------------------------------------------------------

    def read(self, number: int, turn: int) -> None:
        """Make a request that reads a session. :raises RuntimeError: something else than Redis has answered."""
        sid, repository = session(number), self._state.repository
        loaded = repository.reads.load(sid, repository.begin(digest=sid.digest), self._state.settings.life)
        sources = {name: state.source for name, state in loaded.categories.items()}
        if loaded.verdict is not Verdict.VALID or "database" in sources.values() or self._state.health.level:
            raise RuntimeError(f"session {number} is {loaded.verdict} by {sources}")

    def write(self, number: int, turn: int) -> None:
        """Make a request that changes one key of a session, without reading it. :raises RuntimeError: it was not
        stored."""
        if (place := self._change(number, "ui", "theme", turn)) != "redis":
            raise RuntimeError(f"session {number} was kept in {place}")

    def _change(self, number: int, category: str, key: str, turn: int) -> str | None:
        """Change one key of a session. Return where the change is then."""
        sid, repository = session(number), self._state.repository
        changes = {category: CategoryChange(0, sets={key: b'"value-%03d"' % (turn % 1000)})}
        scope = repository.begin(digest=sid.digest)
        plan = Plan(sid, sid, self._state.settings.life, scope.level, changes=changes)
        repository.saves.save(plan, scope)
        return plan.kept.get(category)

    def until_return(self, order: Order) -> Report:
        """Change a session whose primary was lost until Redis has a change again.

        :raises RuntimeError: a change was not kept in the journal meanwhile, or it took too long.
        """
        logging.disable()  # what it says of the outage is no news here
        took: list[int] = []
        cpu, began = time.process_time(), time.perf_counter()
        while time.perf_counter() - began < order.seconds:
            before = time.perf_counter_ns()
            place = self._change(order.first, "translation", "translation_context", len(took))  # of priority high
            took.append((time.perf_counter_ns() - before) // 1000)
            if place == "redis":
                return Report(took, time.process_time() - cpu, time.perf_counter() - began)
            if place != "journal":
                raise RuntimeError(f"session {order.first} was kept in {place}")
            time.sleep(PAUSE)  # the failover is measured, not how often it can be asked for
        raise RuntimeError(f"no new primary within {order.seconds:g} s")

    def mixed(self, number: int, turn: int) -> None:
        """Read or write."""
        (self.write if self._random.random() < WRITES else self.read)(number, turn)

    # -- many at once ----------------------------------------------------------------------------------------------

    def fill(self, order: Order) -> None:
        """Write sessions, in the form that the store gives them, with many in one round trip."""
        data = {
            name: {key: msgspec.json.encode(value) for key, value in fields.items()}
            for name, fields in data_of_size(order.size).items()
        }
        together = max(1, min(TOGETHER, MANY // order.size))
        shards: dict[str, list[str]] = {}
        for number in range(order.first, order.first + order.count):
            digest = session(number).digest
            waiting = shards.setdefault(self._state.health.locate(digest), [])
            waiting.append(digest)
            if len(waiting) == together:
                self._write_all(shards.pop(self._state.health.locate(digest)), data)
        for waiting in shards.values():
            self._write_all(waiting, data)

    def _write_all(self, digests: list[str], data: Mapping[str, Mapping[str, bytes]]) -> None:
        """Write sessions of one shard in one round trip."""
        backend = self._state.backend
        endpoint = backend.endpoint(f"{PRIMARY}{self._state.health.locate(digests[0])}")
        of_store = Commands(endpoint.prefix)
        # The question for the time may have connected to this shard for the first time. What was confirmed in the very
        # millisecond in which its trust began is not believed.
        now_ms, life = endpoint.time_ms(timeout=PATIENCE) + 1, self._state.settings.life
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
        endpoint.link.run(commands, 10 * PATIENCE)

    def index(self, order: Order) -> None:
        """Put sessions into the index of those in use, as the metrics do."""
        primary: Any = self._state.backend.primary
        active = ActiveSessions(primary, self._state.backend.recorder, is_up=lambda: True, interval=60)
        for number in range(order.first, order.first + order.count):
            active.notes.served(session(number).digest, 3_600_000)
        active.update(may_lead=False)


WORK: Mapping[str, Callable[[Worker, int, int], None]] = {
    "read": Worker.read,
    "write": Worker.write,
    "mixed": Worker.mixed,
}
"""Kind of request → what does it."""


def work(orders: Connection, folder: Path, settings: Mapping[str, Any]) -> None:
    """Do what is told, until nothing is told any more."""
    worker = Worker(folder, settings)
    orders.send("ready")
    with suppress(EOFError):
        while True:
            orders.send(worker.do(orders.recv()))
    worker.close()
