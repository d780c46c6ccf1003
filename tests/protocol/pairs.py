"""A simulated store and a real one, told the same by random sequences of operations.

The simulated clock follows the real one before every operation. What is compared exactly is never near a moment at
which time would decide it; moments themselves may differ by :data:`APART_MS`, since a busy machine takes its time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.rows import AuthEntry, AuthRow
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.errors import classify
from flask_langpont_session.stores.redis.lane import Lane
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.near import Hit
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from flask_langpont_session.stores.redis.wire import pack
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.tables import SESSIONS, USERS

from .clock import Clock
from .sim_connection import SimConnection, SimStore, Way
from .sim_database import SimDatabase, Tables
from .sim_redis import Cluster, Node
from .tasks import Path, Tasks

APART_MS = 10_000
IN_MICROSECONDS = 10**15
"""From here on a number is a moment in microseconds."""

HOUR = 3_600_000
WAIT, FOR_EVER = 10.0, 1e10
KEYS = ("source_lang", "theme", "usage_count")
VALUES = (b'"x"', b"1", b"-7", b"12345678901234567890")


class NoListener:
    """Watches nothing, and the network is good."""

    host_name = "h0"

    def path_to(self, server: str) -> Path:
        """See :class:`~.sim_connection.Network`."""
        return Path.CLEAR

    def database_is_busy(self) -> bool:
        """See :class:`~.sim_database.Network`."""
        return False

    def connected(self, store: str, node: Node) -> None:
        """See :class:`~.sim_connection.Network`."""

    def answered(self, connection: SimConnection, digest: str, entry: AuthEntry | None) -> None:
        """See :class:`~.sim_connection.Network`."""

    def looked(self, node: Node, found: Canary) -> None:
        """See :class:`~.sim_connection.Network`."""

    def changed(self, node: Node, digest: str, number: int) -> None:
        """See :class:`~.sim_connection.Network`."""

    def hit(self, node: Node, ref: RecordRef, lives_ms: Mapping[str, int], hit: Hit) -> None:
        """See :class:`~.sim_connection.Network`."""

    def redis_changes(self, node: Node, key: Any, before: Any, after: Any) -> None:
        """See :class:`~.sim_redis.Watcher`."""

    def row_changes(self, before: AuthRow | None, after: AuthRow) -> None:
        """See :class:`~.sim_database.Watcher`."""

    def row_goes_on(self, old: AuthRow, new: AuthRow) -> None:
        """See :class:`~.sim_database.Watcher`."""

    def row_ends(self, row: AuthRow, reason: str) -> None:
        """See :class:`~.sim_database.Watcher`."""

    def row_ends_by_idleness(self, row: AuthRow, idle_seen: int) -> None:
        """See :class:`~.sim_database.Watcher`."""


class Different(AssertionError):
    """The two do not say the same."""


def now_ms() -> int:
    """The real time."""
    return time.time_ns() // 1_000_000


def same(one: Any, other: Any) -> bool:
    """Return whether two answers are equal, apart from small differences between times."""
    if is_dataclass(one):
        return type(one) is type(other) and all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, int) and isinstance(other, int) and one > APART_MS:
        return abs(one - other) <= APART_MS * (1000 if one > IN_MICROSECONDS else 1)
    if isinstance(one, float) and isinstance(other, float):
        return True  # how long something took
    return bool(one == other)


class Pair:
    """The common part of a pair of stores: asks both the same, and compares the answers.

    :ivar log: what was asked, to explain a difference.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.log: list[str] = []

    def catch_up(self) -> None:
        """Bring the simulated clock up to the real one."""
        self.clock.wait_until(now_ms())

    def both(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Ask both the same.

        :param name: of the method; with a dot, that of a part of the store.

        :raises Different: they do not answer the same.
        """
        self.catch_up()
        self.log.append(f"{name}{arguments} {options}")
        one, other = (self._asked(store, name, arguments, options) for store in self.stores)
        self.compare(one, other)
        return one

    def compare(self, one: Any, other: Any) -> None:
        """Compare what the simulated store says or has (`one`) and what the real one does (`other`).

        :raises Different: they are not the same.
        """
        if not same(one, other):
            raise Different("\n".join([*self.log[-12:], f"simulated: {one}", f"real:      {other}"]))

    @property
    def stores(self) -> Sequence[Any]:
        """The simulated one and the real one."""
        raise NotImplementedError

    @staticmethod
    def _asked(store: Any, name: str, arguments: Any, options: Any) -> Any:
        try:
            return attrgetter(name)(store)(*arguments, **options)
        except StoreError as error:
            return error.error_class, error.cause

    def step(self) -> str:
        """Do one random operation, and return its name."""
        name = self.rng.choice(sorted(self.operations))
        self.operations[name]()
        return name

    @property
    def operations(self) -> Mapping[str, Callable[[], object]]:
        """Return the operations that can be tried, by name."""
        raise NotImplementedError

    def check_state(self) -> None:
        """Compare all that lies in the two stores.

        :raises Different: it is not the same.
        """
        raise NotImplementedError


NAMED = [f"session:{name}:{{{digest}}}" for name in ("ui", "auth") for digest in ("a" * 43, "b" * 43)] + [
    f"session:ui:{{{'a' * 43}}}:anon"
]

PROBE = "session:canary:{probe}"

COMMANDS: Mapping[str, Callable[[random.Random, str, str], Sequence[Any]]] = {
    "HSET": lambda rng, key, other: (key, rng.choice(KEYS), rng.choice(VALUES), "theme", rng.choice(VALUES)),
    "HDEL": lambda rng, key, other: (key, *rng.sample(KEYS, 2)),
    "HGETALL": lambda rng, key, other: (key,),
    "HMGET": lambda rng, key, other: (key, *rng.sample(KEYS, 2)),
    "DEL": lambda rng, key, other: (key, other),
    "RENAME": lambda rng, key, other: (key, other),
    "PEXPIRE": lambda rng, key, other: (key, rng.choice((0, HOUR, 2 * HOUR))),
    "PTTL": lambda rng, key, other: (key,),
    "EXISTS": lambda rng, key, other: (key,),
    "SET": lambda rng, key, other: (PROBE, rng.choice(VALUES), "PX", HOUR),
    "GET": lambda rng, key, other: (PROBE,),
}
"""What the scripts and the probe call, with what may be said to it."""

SCRIPTS = {
    "replies": "return {1.9, -1.9, 'x', true, false, {2, {}}, redis.call('HMGET', KEYS[1], 'theme', 'none')}",
    "nothing": "return nil",
    "a list ends where nothing is": "return {1, nil, 3}",
    "numbers": "redis.call('HSET', KEYS[1], 'a', 12345678901, 'b', 0.1) return redis.call('PEXPIRE', KEYS[1], 36e5)",
    "read behind a write": "redis.call('HSET', KEYS[1], 'a', ARGV[1]) return redis.call('HMGET', KEYS[1], 'a')",
    "read before a write": "local old = redis.call('HGETALL', KEYS[1]) redis.call('DEL', KEYS[1]) return old",
    "life": "redis.call('PEXPIRE', KEYS[1], 7200000) return {redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2])}",
    "time": "local time = redis.call('TIME') return {time[1] * 1000, #time[2] <= 6}",
    "two keys": "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('RENAME', KEYS[1], KEYS[2]).ok end",
    "an error is a value": "local found = redis.pcall('RENAME', KEYS[1], KEYS[2]) return {found.err ~= nil, found.ok}",
    "an error is an answer": "return redis.pcall('HSET', KEYS[1], 'a', 'b')",
    "an error does not take back": "redis.call('HSET', KEYS[1], 'a', '1') redis.call('RENAME', KEYS[2], KEYS[1])",
    "an error of its own": "redis.call('HSET', KEYS[1], 'a', '2') return nil < 1",
}
"""How a script calls commands, and how its answers come back; what of it is refused, and what is told of it."""


class Told(Lane):
    """A tracked connection.

    :ivar names: of what was said to have changed; None among them: everything.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(Memory())
        self.names: list[bytes | None] = []
        self.open(connection)

    def on_message(self, message: list[Any]) -> None:
        """See :class:`Lane`."""
        self.names += message[1] or [None]


class RedisPair(Pair):
    """A simulated server and a real one, which is emptied first: two connections to each, of which one is tracked.

    :param real: the way to the real one.
    :param server: an operator's client of it.
    """

    def __init__(self, seed: int, real: Link, server: Any) -> None:
        super().__init__(seed)
        self.node = (cluster := Cluster(self.clock, NoListener())).primary
        way = Way("primary", cluster, NoListener(), self.tasks, ServerIdentity(clock=self.clock.monotonic))
        self.server = server
        self._empty = cluster.empty
        self.flush()
        links = SimStore(way).link, real
        self.connections = [[link.beside(WAIT) for _ in range(2)] for link in links]
        for connection in (*self.connections[0], *self.connections[1]):
            connection.deadline.renew(FOR_EVER)
        self.told = [Told(tracked) for tracked, _ in self.connections]

    def flush(self) -> None:
        """Empty both servers, as an operator does."""
        self._empty(self.node)
        self.server.flushall()

    @property
    def operations(self) -> Mapping[str, Callable[[], object]]:
        """See :class:`Pair`."""
        asked = {name: partial(self._ask, name) for name in (*COMMANDS, *SCRIPTS)}
        again = {f"{name} again": asked[name] for name in ("HSET", "HMGET", "HGETALL")}
        return asked | again | {"flush": self._flush, "refuse": self._refuse, "follow": self._follow}

    def _ask(self, name: str) -> None:
        rng = self.rng
        key, other = rng.sample(NAMED, 2)
        arguments = COMMANDS[name](rng, key, other) if name in COMMANDS else (rng.choice(VALUES),)
        parts: tuple[Any, ...] = name, *arguments
        if name not in ("SET", "GET"):  # which no script calls
            text = SCRIPTS.get(name, "return redis.call(unpack(ARGV))")
            parts = "EVAL", text, 2, key, other, *(arguments if name in SCRIPTS else parts)
        number = rng.randrange(2)
        self.catch_up()
        self.log.append(f"{number}: {parts}")
        asked = pack(tuple(part if isinstance(part, bytes) else str(part) for part in parts))
        replies = [connections[number].exchange(asked, 1)[0] for connections in self.connections]
        self.compare(*map(_plain, replies))

    def _flush(self) -> None:
        if self.node.is_primary and not self.node.refuses_writes and self.rng.random() < 0.2:
            self.flush()

    def _refuse(self) -> None:
        """Each takes no writes any more, or takes them again."""
        self.node.refuses_writes = self.rng.random() < 0.2
        self.server.config_set("min-replicas-to-write", 9 if self.node.refuses_writes else 0)

    def _follow(self) -> None:
        """Each becomes a replica, of a primary that is not there, or a primary again."""
        self.node.is_primary = self.rng.random() > 0.2
        self.server.execute_command("REPLICAOF", *(("NO", "ONE") if self.node.is_primary else ("127.0.0.1", "1")))

    def step(self) -> str:
        """Do one operation, and compare the invalidations that come over the tracked connection in front of the next
        reply."""
        name = super().step()
        for tracked, _ in self.connections:
            tracked.exchange(pack(("EXISTS", "session:none")), 1)
        self.log.append("what was said")
        self.compare(*(set(told.names) for told in self.told))
        for told in self.told:
            told.names.clear()
        return name

    def check_state(self) -> None:
        """Compare all that lies in the two servers, and how long it lives."""
        self.catch_up()
        there = {str(key).encode(): self.node.get(key) for key in self.node.data if key.category != "canary"}
        simulated = {
            name: (record.fields, -1 if record.expires_at is None else record.expires_at - self.clock.now_ms)
            for name, record in there.items()
            if record is not None
        }
        names = [name for name in self.server.keys("session:*") if name != PROBE.encode()]
        self.compare(simulated, {name: (self.server.hgetall(name), self.server.pttl(name)) for name in names})

    def close(self) -> None:
        """End all connections, and let the real server be as it was."""
        self.server.execute_command("REPLICAOF", "NO", "ONE")
        self.server.config_set("min-replicas-to-write", 0)
        for told, (_, other) in zip(self.told, self.connections, strict=True):
            told.end()
            other.disconnect()


def _plain(reply: Any) -> Any:
    """An error as the package looks at it."""
    return (type(reply), classify(reply)) if isinstance(reply, Exception) else reply


class DatabasePair(Pair):
    """A simulated database and a real one, which is emptied first."""

    digests = tuple(letter * 43 for letter in "abcd")

    def __init__(self, seed: int, real: Database) -> None:
        super().__init__(seed)
        self.tables = Tables(self.clock, NoListener())
        self.simulated = SimDatabase(self.tables, NoListener(), self.tasks, timeout=WAIT)
        self.real = real
        self.catch_up()
        with real.engine.begin() as connection:
            connection.execute(SESSIONS.delete())
            connection.execute(USERS.delete())

    @property
    def stores(self) -> Sequence[Any]:
        """See :class:`Pair`."""
        return self.simulated, self.real

    @property
    def operations(self) -> Mapping[str, Callable[[], object]]:
        """See :class:`Pair`."""
        return {
            "create": self._create, "load": self._load, "update": self._update, "regenerate": self._regenerate,
            "kill": self._kill, "revoke": self._revoke, "kill_user": self._kill_user,
            "kill_user_until": self._kill_user_until, "sessions_of": self._sessions_of,
            "changed_since": self._changed_since,
            "probe": lambda: self.both("probe", WAIT), "create_again": self._create, "load_again": self._load,
            "update_again": self._update, "raise_version": self._raise_version,
        }  # fmt: skip

    def _digest(self) -> str:
        return self.rng.choice(self.digests)

    def _user(self) -> str:
        return self.rng.choice(("7", "8"))

    def _payload(self) -> dict[str, bytes]:
        return {key: self.rng.choice(VALUES) for key in KEYS if self.rng.random() < 0.5}

    def _create(self) -> None:
        rng = self.rng
        life = Life(rng.choice((-HOUR, HOUR, 2 * HOUR, 2 * HOUR)), rng.choice((-HOUR, 3 * HOUR, 3 * HOUR, 3 * HOUR)))
        kill = rng.choice((None, self._digest()))
        self.both(
            "create", self._digest(), user_id=rng.choice((self._user(), None)), payload=self._payload(),
            idle_ms=life.idle_ms, absolute_ms=life.absolute_ms, kill=kill,
        )  # fmt: skip

    def _load(self) -> None:
        seen = self.rng.choice((None, None, 0, now_ms() - HOUR, now_ms() + HOUR, now_ms() + 5 * HOUR))
        life = Life(self.rng.choice((0, HOUR, 2 * HOUR, 5 * HOUR)), 5 * HOUR)
        self.both("load", self._digest(), life=life, idle_seen=seen)

    def _update(self) -> None:
        rng = self.rng
        self.both(
            "update", self._digest(), seen=rng.choice((1, 1, 2, 3)), payload=self._payload(), user_id=self._user(),
            idle_ms=rng.choice((HOUR, 2 * HOUR)), absolute_ms=rng.choice((None, None, 2 * HOUR, 4 * HOUR)),
        )  # fmt: skip

    def _raise_version(self) -> None:
        seen = self.rng.choice((1, 1, 2))
        self.both("raise_version", self._digest(), seen=seen, version=seen + 3, payload=self._payload())

    def _regenerate(self) -> None:
        rng = self.rng
        digest, successor = rng.sample(self.digests, 2)
        if successor in self.tables.rows and self.tables.successors.get(digest) != successor:
            return  # ids are random: none is given that was there before
        self.both(
            "regenerate", digest, successor=successor, seen=rng.choice((1, 1, 2)), payload=self._payload(),
            idle_ms=rng.choice((HOUR, 2 * HOUR)), absolute_ms=rng.choice((None, 4 * HOUR)),
        )  # fmt: skip

    def _kill(self) -> None:
        if self.rng.random() < 0.5:
            self.both("kill", self._digest())

    def _revoke(self) -> None:
        if self.rng.random() < 0.5:
            self.both("revoke_many", [self._digest()])

    def _kill_user(self) -> None:
        if self.rng.random() < 0.3:
            user = self._user()
            self.both("ended_with", user, self.both("kill_user", user))

    def _kill_user_until(self) -> None:
        rng = self.rng
        until_ms = now_ms() + rng.choice((-HOUR, -HOUR, HOUR))
        part = {"epoch": rng.randint(0, 2), "after": rng.choice(("", self._digest())), "limit": rng.choice((1, 2, 500))}
        self.both("kill_user_until", self._user(), until_ms, **part)

    def _sessions_of(self) -> None:
        user = self._user()
        self._compare_rows(f"sessions_of({user})", lambda store: store.sessions_of(user))

    def _changed_since(self) -> None:
        self._compare_rows("changed_since", _all_changes)

    def _compare_rows(self, what: str, rows_of: Callable[[Any], list[AuthRow]]) -> None:
        """Compare rows regardless of their order, because rows made within one millisecond have none."""
        self.catch_up()
        self.log.append(what)
        self.compare(*(sorted(rows_of(store), key=lambda row: row.digest) for store in self.stores))

    def check_state(self) -> None:
        """Compare all rows, whether they live, and what they are called now."""
        self.catch_up()
        with self.real.engine.connect() as connection:
            found = {row.digest: row for row in connection.execute(sa.select(SESSIONS))}
            epochs = {row.user_id: row.epoch for row in connection.execute(sa.select(USERS))}
        columns = ("user_id", "version", "live", "user_epoch", "created_at", "idle_expires_at", "absolute_expires_at")
        one: dict[str, Any] = {
            digest: [*(getattr(row, column) for column in columns), self.tables.successors.get(digest)]
            for digest, row in self.tables.rows.items()
        }
        other: dict[str, Any] = {
            digest: [*(getattr(row, column) for column in columns), row.successor] for digest, row in found.items()
        }
        self.compare((one, self.tables.epochs), (other, epochs))


def _all_changes(database: Any) -> list[AuthRow]:
    """Return all changed rows, read in parts."""
    changes = database.changed_since(HOUR, limit=2)
    rows = list(changes.rows)
    while changes.reached is not None:
        changes = database.changed_since(HOUR, changes.reached, limit=2)
        rows += changes.rows
    return rows
