"""A simulated store and a real one, told the same by random sequences of operations.

The simulated clock follows the real one before every operation. What is compared exactly is never near a moment at
which time would decide it; moments themselves may differ by :data:`APART_MS`, since a busy machine takes its time.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.values import AuthRow, CategoryChange, Operation, RecordRef, StoreError
from flask_langpont_session.stores.host.change_ids import ChangeIds
from flask_langpont_session.stores.redis.near import Hit, NearCache
from flask_langpont_session.stores.redis.records import ABSENT, SINCE, TIME, AuthEntry, Limits, Merge, MergeStep
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.tables import SESSIONS, USERS
from tests.support.auth_records import MOMENTS, packed, unpacked

from .clock import Clock
from .sim_database import SimDatabase, Tables
from .sim_redis import Cluster, Connection, Key, Node, Record, SimRedisStore
from .sim_tracking import Line
from .tasks import Path, Tasks

APART_MS = 10_000
IN_MICROSECONDS = 10**15
"""From here on a number is a moment in microseconds."""

HOUR = 3_600_000
LIVES = (HOUR, 2 * HOUR, 5 * HOUR)
AGES = tuple(part * HOUR // 10 for part in (-16, 16, 26, 46))
"""How far from now the expiry of a row is: never where a life of Redis' record, or three quarters of one, ends."""

WAIT = 10.0
SIGNED_IN = ("u" * 43, "v" * 43)
ANONYMOUS = ("a" * 43,)
NAMES = (AUTH, "ui", "translation")
KEYS = ("source_lang", "theme", "usage_count")
VALUES = (b'"x"', b"1", b"-7", b"12345678901234567890")
FOREIGN = {"@d": "f" * 43, "@live": "1", "@at": 1, "@i": 2, "@x": 3, "@c": 0, "@v": 7, "@e": 0}
"""What the record of another session says."""

LIMITS = Limits(3, 60, HOUR)
"""Small enough to be reached."""


class NoListener:
    """Watches nothing, and the network is good."""

    host_name = "h0"

    def path_to(self, server: str) -> Path:
        """See :class:`~.sim_redis.Network`."""
        return Path.CLEAR

    def database_is_busy(self) -> bool:
        """See :class:`~.sim_database.Network`."""
        return False

    def connected(self, store: str, node: Node) -> None:
        """See :class:`~.sim_redis.Network`."""

    def answered(self, connection: Connection | Line, digest: str, entry: AuthEntry | None) -> None:
        """See :class:`~.sim_redis.Network`."""

    def looked(self, node: Node, before: Canary | None, after: Canary) -> None:
        """See :class:`~.sim_redis.Network`."""

    def changed(self, node: Node, digest: str, number: int) -> None:
        """See :class:`~.sim_redis.Network`."""

    def hit(self, node: Node, ref: RecordRef, lives_ms: Mapping[str, int], hit: Hit) -> None:
        """See :class:`~.sim_redis.Network`."""

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
    """Whether two answers are equal, moments but for a little."""
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
    if isinstance(one, bytes) and ADDITIONS.fullmatch(one):
        return isinstance(other, bytes) and _ids(one) == _ids(other)
    if isinstance(one, bytes) and (signed_in := AUTH_META.fullmatch(one)):
        found = AUTH_META.fullmatch(other) if isinstance(other, bytes) else None
        return found is not None and found.groups() == signed_in.groups()
    if isinstance(one, bytes) and META.match(one):
        return bool(isinstance(other, bytes) and META.match(other)) and same(_moment("@m", one), _moment("@m", other))
    return bool(one == other)


ADDITIONS = re.compile(rb"([a-z]\w{6}\d{13})+")
"""As a record remembers them: ids and moments."""

META = re.compile(rb"[\w-]{8}\d{32}[0-9a-f]{6}")
"""How the record of a category is described."""

AUTH_META = re.compile(rb"([\w-]{11}L)[0-9a-z]{36}( \d+ \d+)")
"""How that of a signed-in session is: by moments, too."""


def _ids(additions: bytes) -> list[bytes]:
    return [additions[at : at + 7] for at in range(0, len(additions), 20)]


class Pair:
    """What both kinds of stores have in common.

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
        """One random operation. Returns its name."""
        name = self.rng.choice(sorted(self.operations))
        self.operations[name]()
        return name

    @property
    def operations(self) -> Mapping[str, Callable[[], object]]:
        """What can be asked."""
        raise NotImplementedError

    def check_state(self) -> None:
        """Compare all that lies in the two stores.

        :raises Different: it is not the same.
        """
        raise NotImplementedError

    def some_row(self, digest: str) -> AuthRow:
        """A row as a database might have it."""
        rng, now = self.rng, now_ms()
        idle = now + rng.choice(AGES)
        payload = {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.5}
        user = rng.choice(("7", None))
        return AuthRow(digest, user, rng.randint(1, 3), True, payload, 0, now, idle, max(idle, now) + HOUR, now)


class RedisPair(Pair):
    """A simulated server and a real one, which is emptied first."""

    def __init__(self, seed: int, real: RedisStore, server: Any) -> None:
        super().__init__(seed)
        self.cluster = Cluster(self.clock, NoListener())
        self.simulated = SimRedisStore("primary", self.cluster, NoListener(), self.tasks, ServerIdentity())
        self.real = real
        self.server = server
        server.flushall()
        self.ids: list[str] = []
        self.canaries: list[Canary | None] = [None, None]
        self.canary_names: list[dict[str, int]] = [{}, {}]

    @property
    def stores(self) -> Sequence[Any]:
        """See :class:`Pair`."""
        return self.simulated, self.real

    @property
    def operations(self) -> Mapping[str, Callable[[], object]]:
        """See :class:`Pair`."""
        return {
            "read": self._read, "write": self._write, "push": self._push,
            "write_tombstone": self._write_tombstone, "extend_idle": self._extend_idle,
            "merge": self._merge, "push_many": self._push_many, "quarantine": self._quarantine,
            "copies": self._copies, "carry": self._carry, "merge_again": self._merge,
            "look_at_canary": self._look_at_canary, "time_ms": lambda: self.both("endpoint.time_ms", timeout=WAIT),
            "probe": lambda: self.both("endpoint.probe", "session:probe", "1", timeout=WAIT),
            "probe_read": lambda: self.both("endpoint.probe_read", timeout=WAIT),
            "empty": self._empty, "misplace": self._misplace, "short": self._short_life,
            "write_again": self._write, "push_again": self._push,
        }  # fmt: skip

    def _digest(self) -> str:
        return self.rng.choice(SIGNED_IN + ANONYMOUS)

    def _change(self) -> CategoryChange:
        rng = self.rng
        keys = [key for key in KEYS if rng.random() < 0.5]
        change = CategoryChange(rng.choice(LIVES), wipe=rng.random() < 0.2)
        for key in keys:
            kind = rng.choice(("set", "delete", "add"))
            if kind == "set":
                change.sets[key] = rng.choice(VALUES)
            elif kind == "delete":
                change.deletes.add(key)
            else:
                change.increments[key] = rng.randint(-3, 3)
        return change

    def _pushed(self, digest: str) -> tuple[AuthRow, int]:
        return self.some_row(digest), self.rng.choice((10, 20, 30))

    def _read(self) -> None:
        digest = self._digest()
        kind = "u" if digest in SIGNED_IN else "a"
        shadow = kind == "u" and self.rng.random() < 0.2
        names = [name for name in NAMES if self.rng.random() < 0.7] or ["ui"]
        lives = {name: self.rng.choice((0, *LIVES)) for name in names}
        self.both("read", RecordRef(digest, "a" if shadow else kind, shadow), lives, timeout=WAIT)

    def _write(self) -> None:
        digest = self._digest()
        changes = {name: self._change() for name in NAMES[1:] if self.rng.random() < 0.7}
        options: dict[str, Any] = {"guard": "free", "write_id": self._write_id()}
        shadow = False
        if digest in SIGNED_IN:
            options["guard"] = self.rng.choice(("alive", "new"))
            shadow = self.rng.random() < 0.2
            if self.rng.random() < 0.3:
                options |= {"push": self._pushed(digest), "push_life_ms": HOUR, "push_exact": self.rng.random() < 0.5}
        if changes or "push" in options:
            ref = RecordRef(digest, "u" if digest in SIGNED_IN and not shadow else "a", shadow)
            self.both("write", ref, changes, limits=LIMITS, timeout=WAIT, **options)

    def _write_id(self) -> str:
        self.ids.append(f"w{len(self.ids):06}")
        return self.ids[-1]

    def _push(self) -> None:
        row, stamp = self._pushed(self.rng.choice(SIGNED_IN))
        self.both("push", row, stamp, self.rng.choice(LIVES), timeout=WAIT)

    def _write_tombstone(self) -> None:
        if self.rng.random() < 0.4:
            self.both("write_tombstone", self.rng.choice(SIGNED_IN), self.rng.randint(0, 4), NAMES, timeout=WAIT)

    def _extend_idle(self) -> None:
        self.both("extend_idle", self.rng.choice(SIGNED_IN), self.rng.choice(LIVES), timeout=WAIT)

    def _merge(self) -> None:
        """The versions that are told are those of each side."""
        digest, rng = self._digest(), self.rng
        category, is_signed_in = rng.choice(NAMES[1:]), digest in SIGNED_IN
        shadow = is_signed_in and rng.random() < 0.1
        self.catch_up()
        ref = RecordRef(digest, "a", shadow)
        seen = [store.read(ref, {category: 0}, timeout=WAIT).categories for store in self.stores]
        moments = rng.choice(((0, 0), tuple(found[category].version for found in seen), (2 * now_ms() * 1000,) * 2))
        choices = [self._choices(key) for key in rng.sample(KEYS, rng.randint(1, 3))]
        if rng.random() < 0.2:
            choices.insert(0, (Operation.WIPE, "@", b"", SINCE, None, ""))
        write_id, life = self._write_id(), rng.choice(LIVES)
        guard = rng.choice(("alive", "new")) if is_signed_in else "free"
        self.log.append(f"merge {digest} {category} {shadow} {choices} {moments} {guard} {write_id}")
        found = []
        for store, moment in zip(self.stores, moments, strict=True):
            steps = [MergeStep(*(*choice[:4], moment, *choice[4:])) for choice in choices]
            merge = Merge(digest, category, steps, guard, life, shadow)
            found.append(store.merge(merge, limits=LIMITS, timeout=WAIT, write_id=write_id))
        self.compare(*found)

    def _choices(self, key: str) -> tuple[Any, ...]:
        """All of a step but its moment."""
        rng = self.rng
        known = [*self.ids[-4:], "never00"]
        operation = rng.choice((Operation.SET, Operation.SET, Operation.DELETE, Operation.ADD))
        if operation is Operation.ADD:
            return operation, key, rng.randint(-3, 3), rng.choice(known), rng.choice((None, b"")), ""
        base = rng.choice((None, *VALUES))
        doubts = "".join(f"{write_id} " for write_id in known if rng.random() < 0.2)
        acknowledged = rng.choice((0, now_ms() * 1000 - HOUR * 1510))
        return operation, key, rng.choice(VALUES), rng.choice((SINCE, TIME, ABSENT)), base, doubts, acknowledged

    def _copies(self) -> None:
        wanted = [(self._digest(), self.rng.choice(NAMES[1:])) for _ in range(2)]
        self.catch_up()
        self.log.append(f"copies {wanted}")
        self.compare(*([copy[:2] for copy in store.copies(wanted, timeout=WAIT)] for store in self.stores))

    def _carry(self) -> None:
        """What one session has is brought to another, with all that its record knows."""
        origin, target, category = self._digest(), self._digest(), self.rng.choice(NAMES[1:])
        write_id, life = self._write_id(), self.rng.choice(LIVES)
        self.catch_up()
        self.log.append(f"carry {origin} to {target} {category} {write_id}")
        found = []
        for store in self.stores:
            [copy] = store.copies([(origin, category)], timeout=WAIT)
            steps = [MergeStep(Operation.RECORD, value=copy.meta)]
            for name, value in sorted(copy.fields.items()):
                steps.append(MergeStep(Operation.SET, name, value, ABSENT, acknowledged=1))
            merge = Merge(target, category, steps, "free", life)
            found.append(store.merge(merge, limits=LIMITS, timeout=WAIT, write_id=write_id) if copy.meta else None)
        self.compare(*found)

    def _push_many(self) -> None:
        one, other = SIGNED_IN
        rows = [(self.some_row(one), HOUR)] if self.rng.random() < 0.7 else []
        dead = [(other, self.rng.randint(0, 3))] if self.rng.random() < 0.2 else []
        self.both("push_many", rows, dead, NAMES, stamp_ms=self.rng.choice((10, 20, 30)), timeout=WAIT)

    def _quarantine(self) -> None:
        only_foreign = self.rng.random() < 0.5
        ref = RecordRef(self._digest(), "a")
        self.both("quarantine", ref, self.rng.choice(NAMES), timeout=WAIT, only_foreign=only_foreign)

    def _empty(self) -> None:
        if self.rng.random() < 0.2:
            self.cluster.empty(self.cluster.primary)
            self.server.flushall()

    def _misplace(self) -> None:
        """A record of another session lies under the key."""
        if self.rng.random() < 0.4:
            key, fields = Key(self.rng.choice(NAMES), self._digest()), FOREIGN
            self.cluster.primary.misplace(key, Record(fields, None))
            name = self.real.key(key.category, key.digest)
            self.server.delete(name)
            self.server.hset(name, "@m", packed(fields))

    def _short_life(self) -> None:
        """What expires is gone."""
        row, stamp = self._pushed(self.rng.choice(SIGNED_IN))
        self.both("push", row, stamp, 1, timeout=WAIT)
        time.sleep(0.01)
        self.clock.advance(10)

    def _look_at_canary(self) -> None:
        """The ids of canaries are random: the first that is met is called 0 on both sides, and so on."""
        forgotten, ahead = self.rng.random() < 0.2, 5 * (self.rng.random() < 0.2)
        self.catch_up()
        seen = []
        for side, store in enumerate(self.stores):
            known = None if forgotten else self.canaries[side]
            found = store.endpoint.look_at_canary(known and known._replace(number=known.number + ahead), timeout=WAIT)
            names = self.canary_names[side]
            seen.append((names.setdefault(found.canary_id, len(names)), found.number))
            self.canaries[side] = found
        self.log.append(f"look_at_canary {forgotten} {ahead}")
        self.compare(*seen)

    def check_state(self) -> None:
        """Compare all that lies in the two servers."""
        self.catch_up()
        self.compare(self._simulated_state(), self._real_state())

    def _simulated_state(self) -> dict[str, Any]:
        node = self.cluster.primary
        state = {}
        for key in list(node.data):
            record = node.get(key)
            if record is not None and key.category not in ("canary", "probe"):
                digest, _, aside = key.digest.partition(":")
                name = self.real.key(key.category, digest, key.shadow) + (":aside" if aside else "")
                values = {k: v if isinstance(v, bytes) else str(v).encode() for k, v in record.fields.items()}
                left = -1 if record.expires_at is None else record.expires_at - self.clock.now_ms
                state[name] = ({k: _moment(k, v) for k, v in values.items()}, left)
        return state

    def _real_state(self) -> dict[str, Any]:
        state = {}
        for key in map(bytes.decode, self.server.keys("session:*:{*")):
            values = {k.decode(): v.decode() for k, v in self.server.hgetall(key).items()}
            said = {k: v.encode() for k, v in unpacked(values).items()}
            state[key] = ({k: _moment(k, v) for k, v in said.items()}, self.server.pttl(key))
        return state


class NearPair(RedisPair):
    """The same, where a second store on each side keeps what it reads near, and must know what is changed behind its
    back.

    :param near: the real one of these.
    """

    def __init__(self, seed: int, real: RedisStore, server: Any, near: RedisStore) -> None:
        super().__init__(seed, real, server)
        change_ids = ChangeIds(None)
        kept = SimRedisStore("primary", self.cluster, NoListener(), self.tasks, ServerIdentity(), change_ids)
        kept.near = near_cache(kept.beside, change_ids)
        self._near: tuple[Any, Any] = kept, near
        self._is_near = False
        self._refs: list[tuple[RecordRef, Mapping[str, int]]] = []
        self.hits = 0

    @property
    def stores(self) -> Sequence[Any]:
        """See :class:`Pair`."""
        return self._near if self._is_near else super().stores

    def _read(self) -> None:
        self._is_near = True
        super()._read()

    def both(self, name: str, *arguments: Any, **options: Any) -> Any:
        """See :class:`Pair`."""
        if name == "read" and self._is_near:
            self._refs = [*self._refs[-7:], (arguments[0], arguments[1])]
        return super().both(name, *arguments, **options)

    def step(self) -> str:
        """One operation, and a look at what is known without asking."""
        self._read()
        self._is_near = self.rng.random() < 0.3
        name = super().step()
        self.catch_up()
        found: list[list[Any]] = [[], []]
        for store, known in zip(self._near, found, strict=True):
            store.near.attend()
            store.read(RecordRef("z" * 43, "a"), {"ui": 0}, timeout=WAIT)  # behind all that was said before
            for ref, lives in self._refs:
                hit = store.find(ref, lives)
                known.append(hit and {name: copy.fields for name, copy in hit.answer.categories.items()})
        self.log.append("what is known")
        self.compare(*found)
        self.hits += sum(known is not None for known in found[0])
        return name

    def close(self) -> None:
        """End the simulated connection."""
        self._near[0].near.forget()


def near_cache(link: Any, change_ids: ChangeIds) -> NearCache:
    """One for which no time passes."""
    return NearCache(link, change_ids, most=10_000_000, copies_ttl=HOUR, clock=lambda: 0.0)


def _moment(key: str, value: bytes) -> Any:
    if key == "@m":
        return _described(value.decode())
    if key == "@d":
        return value[:11]  # so much of it stands in a record
    return int(value) if key in MOMENTS else value


def _described(meta: str) -> tuple[Any, ...]:
    """What ``@m`` says, its moments as numbers, and how they follow each other."""
    stamp, horizon = int(meta[8:24]), int(meta[24:40])
    added, *lately = meta[64:].split("\1")
    additions = [added[at : at + 20] for at in range(0, len(added), 20)]
    names, noted = lately[::2], [(each[:7], int(each[7:23]), int(each[23:], 16)) for each in lately[1::2]]
    order = [sorted({stamp, horizon, *(at for _, at, _ in noted)}).index(at) for at in (stamp, horizon)]
    return (
        meta[:8], stamp, horizon, order, int(meta[40:46], 16) // 100_000, meta[46:64],
        [(each[:7], int(each[7:])) for each in additions],
        [(name, author, at, lag // 100_000) for name, (author, at, lag) in zip(names, noted, strict=True)],
    )  # fmt: skip


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
        idle_ms = self.rng.choice((0, HOUR, 2 * HOUR, 5 * HOUR))
        self.both("load", self._digest(), idle_ms=idle_ms, idle_seen=seen)

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
            self.both("revoke", self._digest())

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
        """Of rows made within one millisecond it is not known which was first."""
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
    """In parts."""
    changes = database.changed_since(HOUR, limit=2)
    rows = list(changes.rows)
    while changes.reached is not None:
        changes = database.changed_since(HOUR, changes.reached, limit=2)
        rows += changes.rows
    return rows
