"""Simulated Redis servers: hashes with expiry, asynchronous replication, restarts from old data, failover.

:class:`SimRedisStore` has the methods of ``RedisStore``. What the package's
Lua scripts do is done here in Python, under their names; that both do the same is shown on a real server by
``test_real_stores.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.leases import TOMBSTONE_MS
from flask_langpont_session.policy.values import (
    AuthRow,
    CategoryChange,
    CategoryCopy,
    ErrorClass,
    RecordRef,
    StoreError,
)
from flask_langpont_session.stores.redis.commands import QUARANTINE_MS
from flask_langpont_session.stores.redis.known import KnownRecords
from flask_langpont_session.stores.redis.lane import Turn
from flask_langpont_session.stores.redis.near import ChangeIds, Hit, NearCache, Writing
from flask_langpont_session.stores.redis.records import (
    NO_RECORDS,
    Answer,
    AuthEntry,
    Change,
    Known,
    Limits,
    Merge,
    Merged,
    Restore,
    Written,
    answer,
    copy_of,
)
from flask_langpont_session.stores.redis.server_identity import NEVER_MS, Canary, Server, ServerIdentity
from tests.support.auth_records import PARTS, packed

from .clock import Clock, SkewedClock
from .sim_records import Meta, SimMerge, SimRecord, changed, restored
from .sim_tracking import REPLY, Line, Tracking
from .tasks import Path, Tasks

T = TypeVar("T")

CONNECT_SECONDS = 0.2


class Key(NamedTuple):
    """The name of one hash."""

    category: str
    digest: str
    shadow: bool = False

    def __str__(self) -> str:
        return f"session:{self.category}:{{{self.digest}}}{':anon' if self.shadow else ''}"


class Record(NamedTuple):
    """One hash as it is; a change makes another one, so that copies of a server's data are cheap.

    :param expires_at: true time in ms; None: never.
    """

    fields: Mapping[str, Any]
    expires_at: int | None


Data = dict[Key, Record]


class Past(NamedTuple):
    """What one hash was made by some change.

    :param number: of the change, among all of its server.
    :param at_ms: true time.
    :param record: None: it was removed.
    """

    number: int
    at_ms: int
    record: Record | None


def is_tombstone(record: Record | None) -> bool:
    """Whether a record says that its session is dead."""
    return record is not None and record.fields.get("@live") == "0"


def is_live(record: Record | None) -> bool:
    """Whether a record says that its session lives."""
    return record is not None and record.fields.get("@live") == "1"


class Watcher(Protocol):
    """What is told what happens in the servers."""

    def redis_changes(self, node: Node, key: Key, before: Record | None, after: Record | None) -> None:
        """A client changes one hash of a primary."""


@dataclass(eq=False)
class Node:
    """One server process and its data."""

    name: str
    clock: SkewedClock
    true_clock: Clock
    watcher: Watcher
    run_id: int = 0
    is_primary: bool = True
    history_id: str = ""
    alive: bool = True
    frozen: bool = False
    refuses_writes: bool = False
    data: Data = field(default_factory=dict)
    snapshot: Data = field(default_factory=dict)
    replicas: list[Node] = field(default_factory=list)
    inbox: list[tuple[Key, Record | None] | None] = field(default_factory=list)
    """What a replica has not applied yet; None: everything is emptied."""

    losses: int = 0
    client: Connection | Line | None = None
    """Whose question is served now."""

    tracking: Tracking = field(default_factory=Tracking)
    changes: int = 0
    """How often anything was changed, twice: between two changes something may expire."""

    past: dict[Key, list[Past]] = field(default_factory=dict)
    """What each hash was made, the latest last."""

    @property
    def lineage(self) -> object:
        """Another one after whatever may have taken data away."""
        return self.identity, self.losses

    @property
    def identity(self) -> str:
        """As the package makes it of INFO: another one after each start, promotion and demotion."""
        role = "master" if self.is_primary else "slave"
        return f"{self.name}{self.run_id}:{role}:{self.history_id}"

    def get(self, key: Key) -> Record | None:
        """The hash under a key, if it has not expired."""
        record = self.data.get(key)
        if record is None or (record.expires_at is not None and record.expires_at <= self.true_clock.now_ms):
            return None
        return record

    def age(self, ms: int) -> bool:
        """Have every hash live for less, and return whether any has run out by that."""
        before = {key for key in self.data if self.get(key)}
        for key, record in list(self.data.items()):
            if record.expires_at is not None:
                self.data[key] = record._replace(expires_at=record.expires_at - ms)
        gone = [key for key in before if not self.get(key)]
        for key in gone:
            self._set(key, None)
        return bool(gone)

    def own(self, key: Key) -> Record | None:
        """The same, if it is of the session whose key this is: a foreign record says nothing."""
        record = self.get(key)
        if record is None:
            return None
        meta = record.fields.get("@m")
        is_own = meta.digest == key.digest[:8] if isinstance(meta, Meta) else record.fields.get("@d") == key.digest
        return record if is_own else None

    def serve(self, client: Connection | Line, effect: Callable[[Node], T]) -> T:
        """Do what a client asks for."""
        self.client = client
        try:
            return effect(self)
        finally:
            self.client = None

    def misplace(self, key: Key, record: Record) -> None:
        """Put a record under the key of another session, which no request asked for."""
        self._store(key, record)
        for replica in self.replicas:
            replica.inbox.append((key, record))

    def put(self, key: Key, fields: Mapping[str, Any], life_ms: int | None) -> None:
        """Write one hash. `life_ms` None: never expires."""
        expires_at = None if life_ms is None else self.true_clock.now_ms + max(1, life_ms)
        self._set(key, Record(fields, expires_at))

    def touch(self, key: Key, record: Record, life_ms: int) -> None:
        """Set the life of a hash anew."""
        self._set(key, record._replace(expires_at=self.true_clock.now_ms + life_ms))

    def delete(self, key: Key) -> None:
        """Remove one hash."""
        if self.get(key) is not None:
            self._set(key, None)

    def _set(self, key: Key, record: Record | None) -> None:
        self.watcher.redis_changes(self, key, self.own(key), record)
        self._store(key, record)
        for replica in self.replicas:
            replica.inbox.append((key, record))

    def _store(self, key: Key, record: Record | None) -> None:
        if record is None:
            self.data.pop(key, None)
        else:
            self.data[key] = record
        self._note(key)
        self.tracking.changes(key, str(key), self.client)

    def load(self, data: Data) -> None:
        """Other data takes the place of all that is there."""
        keys = [*self.data, *data]
        self.data = dict(data)
        for key in dict.fromkeys(keys):
            self._note(key)
        self.tracking.replaces_all()

    def history(self, key: Key) -> list[Past]:
        """What a hash was, one after the other; that it expired included."""
        found, now = [Past(0, 0, None)], self.true_clock.now_ms
        past = self.past.get(key, [])
        for each, until in zip(past, [*(later.at_ms for later in past[1:]), now], strict=False):
            found.append(each)
            ends = each.record.expires_at if each.record else None
            if ends is not None and ends <= until:
                found.append(Past(each.number + 1, ends, None))
        return found

    def _note(self, key: Key) -> None:
        self.changes += 2
        self.past.setdefault(key, []).append(Past(self.changes, self.true_clock.now_ms, self.data.get(key)))

    def require_writable(self, store: str) -> None:
        """Raise what a server that takes no writes answers."""
        if not self.is_primary:
            raise StoreError(store, ErrorClass.WRITE_REFUSED, "ReadOnlyError")
        if self.refuses_writes:
            raise StoreError(store, ErrorClass.WRITE_REFUSED, "OutOfMemoryError")

    def replicate(self, count: int) -> None:
        """Apply the oldest changes that the primary has sent."""
        applied, self.inbox = self.inbox[:count], self.inbox[count:]
        for change in applied:
            if change is None:
                self.load({})
            else:
                self._store(*change)


class Cluster:
    """A pair of servers, which of them is the primary, and where their names lead.

    :param skews_ms: how far each server's clock is off.
    """

    def __init__(self, clock: Clock, watcher: Watcher, skews_ms: Sequence[int] = (0, 0)) -> None:
        self.clock = clock
        a, b = (Node(name, SkewedClock(clock, skew), clock, watcher) for name, skew in zip("AB", skews_ms, strict=True))
        self.nodes = {"A": a, "B": b}
        self.primary, self.replica = a, b
        self.names: dict[str, dict[str, Node]] = {}
        """Host → where the names ``primary`` and ``replica`` lead there. A host that is missing knows the truth."""
        self._histories = 0
        self._new_history(a)
        self._follow(b, a)
        self.losses = {"A": 0, "B": 0}
        """How often a server lost data without ending its connections, in a way that a canary can show."""
        self.replaced_at = 0
        """When another server process became the primary, which may have older data, true time in ms; 0: never, or not
        since the workers began that could notice it."""
        self.is_whole = True
        """Whether no primary can ever have had older data than the one before."""

    def leads_to(self, name: str, host: str) -> Node:
        """The server that a name leads to on some host."""
        return self.names.get(host, {"primary": self.primary, "replica": self.replica})[name]

    def _new_history(self, node: Node) -> None:
        self._histories += 1
        node.history_id = f"h{self._histories}"

    def _follow(self, replica: Node, primary: Node) -> None:
        """A full synchronisation."""
        replica.is_primary, replica.history_id = False, primary.history_id
        replica.load(primary.data)
        replica.inbox, replica.replicas = [], []
        if replica not in primary.replicas:
            primary.replicas.append(replica)

    # -- what can happen to servers ----------------------------------------------------------------------------------

    def kill(self, node: Node) -> None:
        """The process dies; its disk stays."""
        node.alive = node.frozen = False
        node.tracking.ends()

    def start(self, node: Node, data: Data | None = None) -> None:
        """A dead process starts again: from its append-only file, or with other data. The replica is synchronised."""
        if node.alive:
            return
        node.alive, node.frozen, node.refuses_writes = True, False, False
        node.run_id += 1
        if data is not None:
            node.load(data)
        if node is not self.primary:
            if self.primary.alive:
                self._become_replica(node)
            return
        self._new_history(node)
        self.replaced_at, self.is_whole = self.clock.now_ms, False
        node.is_primary, node.inbox = True, []
        if self.replica.alive:
            self._follow(self.replica, node)

    def _become_replica(self, node: Node) -> None:
        for other in self.nodes.values():
            if node in other.replicas:
                other.replicas.remove(node)
        self._follow(node, self.primary)

    def fail_over(self) -> None:
        """The replica becomes the primary, and the names lead there. The old primary does not know it yet."""
        old, new = self.primary, self.replica
        if not new.alive or new.is_primary:
            return
        if new in old.replicas:
            old.replicas.remove(new)
        new.is_primary, new.inbox = True, []
        self._new_history(new)
        self.primary, self.replica = new, old
        self.replaced_at, self.is_whole = self.clock.now_ms, False

    def stale_names(self, hosts: Iterable[str]) -> None:
        """On these hosts the names go on leading where they lead now, whatever happens."""
        for host in hosts:
            self.names.setdefault(host, {"primary": self.primary, "replica": self.replica})

    def demote(self) -> None:
        """The old primary is told of the failover: it takes over the new one's data. Its connections stay."""
        node = self.replica
        if node.alive and self.primary.alive and node.is_primary:
            self._become_replica(node)

    def empty(self, node: Node) -> None:
        """FLUSHALL: everything is gone, the connections stay."""
        if node.alive and node.is_primary:
            self._lose(node, {})

    def save(self, node: Node) -> None:
        """A snapshot is taken."""
        node.snapshot = dict(node.data)

    def restore(self, node: Node) -> None:
        """The last snapshot is loaded behind kept connections."""
        if node.alive and node.is_primary:
            self._lose(node, node.snapshot)

    def set_clock(self, node: Node, ms: int) -> None:
        """The clock of a server is set: what lives for less than it is set forward runs out."""
        node.clock.skew_ms += ms
        self.is_whole = self.is_whole and not node.age(ms)

    def _lose(self, node: Node, data: Data) -> None:
        self.is_whole = False
        self.losses[node.name] += 1
        node.losses += 1
        node.load(data)
        for replica in node.replicas:
            replica.inbox.append(None)
            replica.inbox += data.items()


@dataclass(eq=False)
class Connection:
    """A connection of one worker to one run of a server.

    :param server: what the package makes of how the server introduced itself.
    :param identity: how it did.
    """

    node: Node
    run_id: int
    server: Server
    identity: str

    @property
    def is_open(self) -> bool:
        """Whether the process at the other end still runs."""
        return self.node.alive and self.node.run_id == self.run_id


class Network(Protocol):
    """How things stand between one worker and the servers."""

    @property
    def host_name(self) -> str:
        """Where the worker runs."""

    def path_to(self, server: str) -> Path:
        """Between the worker and a server by its name."""

    def connected(self, store: str, node: Node) -> None:
        """The worker made a new connection."""

    def answered(self, connection: Connection | Line, digest: str, entry: AuthEntry | None) -> None:
        """The worker was told what a server has of a session's auth."""

    def looked(self, node: Node, before: Canary | None, after: Canary) -> None:
        """The worker looked at the canary."""

    def changed(self, node: Node, digest: str, number: int) -> None:
        """The worker was told that a session is changed; `number`: of the changes by then."""

    def hit(self, node: Node, ref: RecordRef, lives_ms: Mapping[str, int], hit: Hit) -> None:
        """The worker knew a session without asking."""


class Beside:
    """What a near cache and the monitor need of the way to the server behind a name."""

    connect_timeout = CONNECT_SECONDS

    def __init__(self, store: SimRedisStore) -> None:
        self.name = store.name
        self.server_identity = store.server_identity
        self._store = store
        self.line: Line | None = None
        self.on_forget: Callable[[], None] = lambda: None

    def is_usable(self, line: Line) -> bool:
        """See :class:`Link`."""
        return self._store._leads_where_it_should(line)

    def beside(self, timeout: float) -> Line:
        """See :class:`Link`."""
        store, connection = self._store, self._store._connect()
        self.line = Line(connection, lambda: store._path(connection))
        return self.line

    def forget_connections(self) -> None:
        """See :class:`Link`."""
        self._store.forget_connections()


class SimRedisStore:
    """The sessions in one Redis as one worker sees them."""

    def __init__(
        self,
        name: str,
        cluster: Cluster,
        network: Network,
        tasks: Tasks,
        server_identity: ServerIdentity,
        change_ids: ChangeIds | None = None,
    ) -> None:
        self.name = name
        self.prefix = "session"
        self.server_identity = server_identity
        self._cluster = cluster
        self._network = network
        self._tasks = tasks
        self._idle: list[Connection] = []
        self._skews: dict[str, int] = {}
        self._known = KnownRecords()
        self._change_ids = change_ids
        self.beside = Beside(self)
        self.endpoint = SimEndpoint(self)
        self.near: NearCache | None = None

    @property
    def endpoints(self) -> Mapping[str, SimEndpoint]:
        """See the package."""
        return {self.name: self.endpoint}

    def find_shards(self, timeout: float) -> None:
        """See the package."""

    # -- connections -------------------------------------------------------------------------------------------------

    def _take(self) -> Connection:
        if self._idle:
            connection = self._idle.pop()
            if connection.is_open and self._leads_where_it_should(connection):
                return connection
        return self._connect()

    def _put_back(self, connection: Connection) -> None:
        if self._leads_where_it_should(connection):
            self._idle.append(connection)

    def _leads_where_it_should(self, connection: Connection | Line) -> bool:
        return self.server_identity.trust_since(connection.server) != NEVER_MS

    def _connect(self) -> Connection:
        node = self._cluster.leads_to(self.name, self._network.host_name)
        path = self._network.path_to(node.name) if node.alive else Path.BROKEN
        if path is not Path.CLEAR or node.frozen:
            self._tasks.ask(self.name, lambda: path if path is Path.BROKEN else Path.SILENT, CONNECT_SECONDS, bool)
        server = self.server_identity.observe(node.identity, now_ms=node.clock.now_ms, is_primary=node.is_primary)
        self._network.connected(self.name, node)
        return Connection(node, node.run_id, server, node.identity)

    def _note_clock(self, connection: Connection) -> None:
        """See the package, which finds out by what is said of the time."""
        clock = connection.node.clock
        by_ms = clock.skew_ms - self._skews.setdefault(connection.identity, clock.skew_ms)
        self._skews[connection.identity] = clock.skew_ms
        if by_ms:
            self.server_identity.clock_was_set(by_ms, clock.now_ms)

    def _path(self, connection: Connection | Line) -> Path:
        if not connection.is_open:
            return Path.BROKEN
        if connection.node.frozen:
            return Path.SILENT
        return self._network.path_to(connection.node.name)

    def _ask(
        self,
        timeout: float,
        effect: Callable[[Node], T],
        *,
        keep: bool = True,
        understand: Callable[[T], bool] = lambda reply: True,
    ) -> tuple[T, Connection]:
        connection = self._take() if keep else self._connect()
        node = connection.node
        try:
            reply = self._tasks.ask(
                self.name, lambda: self._path(connection), timeout, lambda: node.serve(connection, effect)
            )
            self._note_clock(connection)
        except StoreError as error:
            if keep and error.cause == "OutOfMemoryError":
                self._put_back(connection)
            raise
        if keep and understand(reply):
            self._put_back(connection)
        return reply, connection

    def _ask_over(self, turn: Turn, timeout: float, effect: Callable[[Node], T]) -> T:
        """Ask over a tracked connection."""
        line: Line = turn.connection

        def served() -> T:
            try:
                return line.node.serve(line, effect)
            finally:
                line.send(REPLY)

        try:
            reply = self._tasks.ask(self.name, lambda: self._path(line), timeout, served)
        except StoreError as error:
            if error.cause == "OutOfMemoryError":
                line.receive()
            else:
                turn.drop(line)
            raise
        line.receive()
        return reply

    def _run(self, timeout: float, effect: Callable[[Node], T], digests: Sequence[str] = ()) -> T:
        """Change something, and note which sessions it was."""
        number = 0

        def write(node: Node) -> T:
            nonlocal number
            node.require_writable(self.name)
            found, number = effect(node), node.changes
            return found

        try:
            found, connection = self._ask(timeout, write)
        finally:
            for digest in digests:
                if self._change_ids:
                    self._change_ids.change(digest)
        for digest in digests:
            self._network.changed(connection.node, digest, number)
        return found

    def forget_connections(self) -> None:
        """See the package."""
        self.beside.on_forget()
        self._idle.clear()

    # -- the methods of RedisStore -----------------------------------------------------------------------------------

    def find(self, ref: RecordRef, lives_ms: Mapping[str, int]) -> Hit | None:
        """See the package."""
        hit = self.near.find(ref, lives_ms) if self.near else None
        if hit is not None and self.beside.line:
            self._network.hit(self.beside.line.node, ref, lives_ms, hit)
        return hit

    def read(self, ref: RecordRef, lives_ms: Mapping[str, int], *, timeout: float, anew: bool = False) -> Answer:
        """See the package."""

        known = NO_RECORDS if anew else self._known.of(ref)

        found: Answer

        def effect(node: Node) -> Answer:
            return answer(ref.digest, tuple(lives_ms), ref.kind, read(node, ref, lives_ms, known), known)

        connection: Connection | Line
        reading = self.near.reading(ref, lives_ms) if self.near else None
        try:
            if reading:
                connection = reading.turn.connection
                found = self._ask_over(reading.turn, timeout, effect)
                if found.foreign:
                    reading.turn.drop(connection)
            else:
                found, connection = self._ask(timeout, effect, understand=lambda found: not found.foreign)
            self._known.note(ref, known, found.records)
            if AUTH in lives_ms and ref.kind == "u":
                self._network.answered(connection, ref.digest, found.auth)
            trusted = self.server_identity.trust_since(connection.server)
            found = found._replace(is_primary=connection.server.is_primary, trust_since_ms=trusted)
            if reading:
                reading.answered(found, connection.server)
            return found
        finally:
            if reading:
                reading.end()

    def write(
        self,
        ref: RecordRef,
        changes: Mapping[str, CategoryChange],
        *,
        guard: str,
        limits: Limits,
        timeout: float,
        write_id: str,
        push: tuple[AuthRow, int] | None = None,
        push_life_ms: int = 0,
        push_exact: bool = False,
    ) -> Written:
        """See the package."""
        if not (changes or push):
            raise ValueError("a write of nothing: the real store has no reply to read")
        deadline_ms = self._deadline_ms(timeout)

        def effect(node: Node) -> Written:
            if push and push_row(node, *push, push_life_ms, exact=push_exact) in ("dead", "ended"):
                return Written("dead")
            if not changes:
                return Written("written")
            if is_late(node, deadline_ms):
                return Written("late")
            return write(node, ref, changes, guard, limits, write_id)

        writing = self.near.writing(ref.digest) if self.near and changes and not (push or ref.shadow) else None
        return (
            self._write_near(writing, ref.digest, changes, effect, timeout)
            if writing
            else self._run(timeout, effect, (ref.digest,))
        )

    def _write_near(
        self,
        writing: Writing,
        digest: str,
        changes: Mapping[str, CategoryChange],
        effect: Callable[[Node], Written],
        timeout: float,
    ) -> Written:
        assert self._change_ids is not None
        node, number = writing.turn.connection.node, 0

        def write(node: Node) -> Written:
            nonlocal number
            node.require_writable(self.name)
            found, number = effect(node), node.changes
            for name in found.versions:
                read_behind(node, Key(name, digest))
            return found

        done: Written = Written("")
        try:
            done = self._ask_over(writing.turn, timeout, write)
        finally:
            writing.end(self._change_ids, changes, done.versions)
        self._network.changed(node, digest, number)
        return done

    def _deadline_ms(self, timeout: float) -> int:
        """By the true clock: a worker that knows a server's clock knows how far it is off."""
        return self._cluster.clock.now_ms + int(timeout * 1000)

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        """See the package."""
        return self._run(timeout, lambda node: push_row(node, row, stamp_ms, life_ms), (row.digest,))

    def write_tombstone(self, digest: str, version: int, categories: Sequence[str], *, timeout: float) -> None:
        """See the package."""
        self._run(timeout, lambda node: write_tombstone(node, digest, version, categories), (digest,))

    def push_many(
        self,
        rows: Sequence[tuple[AuthRow, int]],
        dead: Sequence[tuple[str, int]],
        categories: Sequence[str],
        *,
        stamp_ms: int,
        timeout: float,
    ) -> None:
        """See the package."""

        def effect(node: Node) -> None:
            for row, life_ms in rows:
                push_row(node, row, stamp_ms, life_ms)
            for digest, version in dead:
                write_tombstone(node, digest, version, categories)

        if rows or dead:
            self._run(timeout, effect, [*(row.digest for row, _ in rows), *(digest for digest, _ in dead)])

    def extend_idle(self, digest: str, idle_ms: int, *, timeout: float) -> int:
        """See the package."""
        return self._run(timeout, lambda node: extend_idle(node, digest, idle_ms), (digest,))

    def merge(self, merge: Merge | Restore, *, limits: Limits, timeout: float, write_id: str) -> Merged:
        """See the package."""
        [merged] = self.merge_all([merge], limits=limits, timeout=timeout, write_id=write_id)
        return merged

    def merge_all(
        self, merges: Sequence[Merge | Restore], *, limits: Limits, timeout: float, write_id: str
    ) -> list[Merged]:
        """See the package."""
        deadline_ms = self._deadline_ms(timeout)

        def effect(node: Node) -> list[Merged]:
            if is_late(node, deadline_ms):
                return [Merged("late") for _ in merges]
            return [
                merge(node, one, limits, write_id) if isinstance(one, Merge) else restore(node, one, limits, write_id)
                for one in merges
            ]

        return self._run(timeout, effect, [merge.digest for merge in merges]) if merges else []

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        """See the package."""

        def effect(node: Node) -> list[CategoryCopy]:
            return [copy_of(digest, name, read(node, RecordRef(digest, "a"), {name: 0})) for digest, name in wanted]

        return self._ask(timeout, effect)[0]

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]:
        """See the package."""

        def effect(node: Node) -> list[Answer]:
            return [answer(digest, (AUTH,), "u", read(node, RecordRef(digest, "u"), {AUTH: 0})) for digest in digests]

        return self._ask(timeout, effect)[0] if digests else []

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        """See the package: the clock of the server that the name leads to, as it is."""
        return self._cluster.leads_to(self.name, self._network.host_name).clock.now_ms + latest

    def quarantine(self, ref: RecordRef, category: str, *, timeout: float, only_foreign: bool = False) -> None:
        """See the package."""

        def effect(node: Node) -> None:
            key = Key(category, ref.digest, ref.shadow)
            record = node.get(key)
            if record is not None and not (only_foreign and node.own(key)):
                node.delete(key)
                node.put(Key(category, f"{ref.digest}:aside", ref.shadow), record.fields, QUARANTINE_MS)

        self._run(timeout, effect, (ref.digest,))


class SimEndpoint:
    """The server behind a name as one worker sees it."""

    def __init__(self, store: SimRedisStore) -> None:
        self.name = store.name
        self.link = store.beside
        self.server_identity = store.server_identity
        self._store = store

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """See the package."""

        def effect(node: Node) -> Canary:
            found = look_at_canary(node, known)
            self._store._network.looked(node, known, found)
            return found

        return self._store._run(timeout, effect)

    def time_ms(self, *, timeout: float) -> int:
        """See the package."""
        return self._store._ask(timeout, lambda node: node.clock.now_ms)[0]

    def probe(self, key: str, value: str, *, timeout: float) -> float:
        """See the package."""

        def effect(node: Node) -> None:
            node.require_writable(self.name)
            node.put(Key("probe", key), {"value": value}, 600_000)

        self._store._ask(timeout, effect, keep=False)
        return 0.0

    def probe_read(self, *, timeout: float) -> float:
        """See the package."""
        self._store._ask(timeout, lambda node: None, keep=False)
        return 0.0


# -- the scripts -------------------------------------------------------------------------------------------------------


def read(node: Node, ref: RecordRef, lives_ms: Mapping[str, int], known: Mapping[str, Known] = NO_RECORDS) -> list[Any]:
    """``read.lua``: its reply."""
    reply: list[Any] = [node.clock.now_ms]
    moved, due = 0, -1
    for name, life in lives_ms.items():
        key = Key(name, ref.digest, ref.shadow)
        record = node.get(key)
        if record is not None and life > 0:
            moved = max(moved, _extend_life(node, key, record, life))
            if (left := _left(node, key)) is not None:
                rest = max(0, math.floor(left - life * 0.75))
                due = rest if due < 0 else min(due, rest)
        node.tracking.reads(key, node.client)
        hash_ = _hash(record)
        mark = known[name].mark if name in known else b""
        reply.append(mark if mark and mark == _description(hash_) else hash_)
    return [*reply, moved, due]


def _hash(record: Record | None) -> list[bytes]:
    fields = {} if record is None else record.fields
    if "@live" in fields:
        fields = {name: value for name, value in fields.items() if name not in PARTS} | {"@m": packed(fields)}
    return [part for name, value in fields.items() for part in (name.encode(), _as_bytes(value))]


def known_of(key: Key, kind: str, record: Record | None) -> Known:
    """What a reader is told of a record."""
    return answer(key.digest, (key.category,), kind, [0, _hash(record), 0, -1]).records[key.category]


def _description(fields: Sequence[bytes]) -> bytes:
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"@m", b"")


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _left(node: Node, key: Key) -> int | None:
    record = node.get(key)
    return None if record is None or record.expires_at is None else record.expires_at - node.true_clock.now_ms


def _extend_life(node: Node, key: Key, record: Record, life: int) -> int:
    """The life that it was given anew; 0: none."""
    left = _left(node, key)
    may_write = node.is_primary and not node.refuses_writes
    if left is None or left >= life * 0.75 or not may_write or is_tombstone(record):
        return 0
    node.touch(key, record, life)
    return life


def push_row(node: Node, row: AuthRow, stamp_ms: int, life_ms: int, *, exact: bool = False) -> str:
    """``push.lua``."""
    key = Key(AUTH, row.digest)
    there = node.own(key)
    idle, life = row.idle_expires_at, max(1, life_ms)
    if there is not None:
        if absorbs(there):
            return "ended" if there.fields["@v"] else "dead"
        later = there.fields.get("@i", 0)
        if is_newer(there, row, stamp_ms):
            if later and idle > later:
                node._set(key, there._replace(fields={**there.fields, "@i": idle}))
            return "older"
        if later > idle and not exact and keeps_later_use():
            idle = later
            life = max(life, later - node.clock.now_ms)
    fields = {
        **row.payload,
        "@d": row.digest, "@v": row.version, "@live": "1", "@at": stamp_ms, "@i": idle,
        "@x": row.absolute_expires_at, "@c": row.created_at, "@e": row.user_epoch,
    }  # fmt: skip
    if row.user_id is not None:
        fields["@u"] = row.user_id
    node.put(key, fields, life)
    return "pushed"


def absorbs(there: Record) -> bool:
    """Part of ``push.lua``: dead is for ever."""
    return is_tombstone(there)


def is_newer(there: Record, row: AuthRow, stamp_ms: int) -> bool:
    """Part of ``push.lua``: the higher version wins; of the same, the newer stamp."""
    version: int = there.fields["@v"]
    stamp: int = there.fields.get("@at", 0)
    return version > row.version or (version == row.version and stamp > stamp_ms)


def keeps_later_use() -> bool:
    """Part of ``push.lua``: the later idle expiry stays, whatever the version."""
    return True


def write_tombstone(node: Node, digest: str, version: int, categories: Sequence[str]) -> None:
    """``write_tombstone.lua``."""
    for name in categories:
        if name != AUTH:
            node.delete(Key(name, digest))
    node.put(Key(AUTH, digest), {"@d": digest, "@v": version, "@live": "0"}, TOMBSTONE_MS)


def extend_idle(node: Node, digest: str, idle_ms: int) -> int:
    """``extend_idle.lua``."""
    key = Key(AUTH, digest)
    record = node.own(key)
    now = node.clock.now_ms
    if record is None or not is_live(record) or record.fields["@i"] <= now:
        return 0
    idle: int = record.fields["@i"]
    later: int = min(now + idle_ms, record.fields["@x"])
    if later <= idle:
        return idle
    node.put(key, {**record.fields, "@i": later}, later - now)
    return later


def look_at_canary(node: Node, known: Canary | None) -> Canary:
    """``canary.lua``. A canary is named by its server and time instead of by chance."""
    key = Key("canary", "")
    record = node.get(key)
    canary_id = record.fields["generation"] if record else None
    number = record.fields["number"] if record else 0
    if canary_id is None or (known is not None and canary_id == known.canary_id and number < known.number):
        canary_id, number = f"{node.name}{node.true_clock.now_ms}", 0
    number += 1
    node.put(key, {"generation": canary_id, "number": number}, None)
    return Canary(canary_id, number, node.clock.now_ms)


def _refusal(node: Node, digest: str, guard: str) -> str | None:
    auth = node.own(Key(AUTH, digest))
    live = auth.fields.get("@live") if auth else None
    if guard != "free" and live == "0":
        return "dead"
    if guard == "alive" and live is None:
        return "gone"
    return None


def is_late(node: Node, deadline_ms: int) -> bool:
    """Part of ``record.lua``: what was stuck while its sender gave up does nothing."""
    return node.true_clock.now_ms > deadline_ms


def write(
    node: Node,
    ref: RecordRef,
    changes: Mapping[str, CategoryChange],
    guard: str,
    limits: Limits,
    write_id: str,
) -> Written:
    """``write.lua``."""
    refused = _refusal(node, ref.digest, guard)
    if refused:
        return Written(refused)
    records = {}
    for name, change in changes.items():
        records[name] = record = _opened(node, Key(name, ref.digest, ref.shadow))
        if is_less(record, change.since):
            return Written("less", category=name)
        status = changed(record, change, limits, write_id)
        if status != "written":
            return Written(status, category=name)
    versions = {}
    for name, record in records.items():
        life = changes[name].life_ms if record.old else limits.empty_ms
        meta = _save(node, Key(name, ref.digest, ref.shadow), record, life, write_id)
        versions[name] = Change(record.meta.stamp, meta.stamp, _as_bytes(meta))
    return Written("written", versions)


def is_less(record: SimRecord, since: int) -> bool:
    """Part of ``write.lua`` and ``merge.lua``: whether there is less than what was seen."""
    return record.meta.stamp < since


def read_behind(node: Node, key: Key) -> None:
    """Part of ``write.lua``: the sender of a write that is kept near is told of the next one."""
    node.tracking.reads(key, node.client)


def _opened(node: Node, key: Key) -> SimRecord:
    own = node.own(key)
    return SimRecord(key.digest, own.fields if own else None, node.clock.now_ms)


def _save(node: Node, key: Key, record: SimRecord, life_ms: int, write_id: str) -> Meta:
    fields = record.save(write_id)
    node.put(key, fields, life_ms)
    meta: Meta = fields["@m"]
    return meta


def restore(node: Node, kept: Restore, limits: Limits, write_id: str) -> Merged:
    """``restore.lua``."""
    key = Key(kept.category, kept.digest)
    refused = _refusal(node, kept.digest, kept.guard)
    if refused:
        return Merged(refused)
    record = _opened(node, key)
    if not restored(record, kept.copy, kept.is_partial, limits, write_id):
        return Merged("merged", record.meta.stamp)
    life = _lasting(node, key, kept.life_ms) if record.old else limits.empty_ms
    return Merged("merged", _save(node, key, record, life, write_id).stamp)


def merge(node: Node, kept: Merge, limits: Limits, write_id: str) -> Merged:
    """``merge.lua``."""
    key = Key(kept.category, kept.digest, kept.shadow)
    refused = _refusal(node, kept.digest, kept.guard)
    if refused:
        return Merged(refused)
    record = _opened(node, key)
    if is_less(record, kept.since):
        return Merged("less")
    write_id = kept.write_id or write_id
    work = SimMerge(record, limits, write_id)
    outcomes = work.outcomes(kept.steps)
    if not work.changes:
        return Merged("merged", record.meta.stamp, outcomes)
    life = _lasting(node, key, kept.life_ms) if record.old else limits.empty_ms
    return Merged("merged", _save(node, key, record, life, write_id).stamp, outcomes)


def _lasting(node: Node, key: Key, life_ms: int) -> int:
    """Part of ``kept.lua``: the life of a record into which something was brought."""
    return max(life_ms, _left(node, key if life_ms else Key(AUTH, key.digest)) or 1)
