"""Simulated Redis servers: hashes with expiry, asynchronous replication, restarts from old data, failover.

What they do with a command, the package's scripts among them, is in ``sim_commands.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.stores.redis import auth_meta
from flask_langpont_session.stores.redis.records import answer
from flask_langpont_session.stores.redis.wire import pack

from .clock import Clock, SkewedClock

if TYPE_CHECKING:
    from .sim_connection import SimConnection

CONNECT_SECONDS = 0.2


class Key(NamedTuple):
    """The name of one hash.

    :param digest: of a session; of what belongs to none, what stands behind the category.
    """

    category: str
    digest: str
    shadow: bool = False

    def __str__(self) -> str:
        return f"session:{self.category}:{{{self.digest}}}{':anon' if self.shadow else ''}"


@lru_cache(4096)
def key_of(name: bytes) -> Key:
    """Return the key that a name stands for."""
    _, category, *rest = name.decode().split(":", 2)
    digest = "".join(rest).replace(":anon", "").replace("{", "").replace("}", "")
    return Key(category, digest, b"}:anon" in name)


@dataclass(eq=False)
class Record:
    """One hash as it is; a change makes another one, so that copies of a server's data are cheap.

    :param fields: names and values as they are stored.
    :param expires_at: true time in ms; None: never.
    """

    fields: Mapping[bytes, bytes]
    expires_at: int | None = None

    @cached_property
    def data(self) -> Mapping[str, bytes]:
        """Session key → value."""
        return {name.decode(): value for name, value in self.fields.items() if not name.startswith(b"@")}

    @cached_property
    def auth(self) -> auth_meta.AuthMeta | None:
        """Return the parts of the record of a signed-in session; None: the record is of no signed-in session."""
        meta = self.fields.get(b"@m", b"")
        return auth_meta.said(meta[:11].decode(), meta)

    @property
    def flat(self) -> list[bytes]:
        """Return the fields as ``HGETALL`` does."""
        return [part for field in self.fields.items() for part in field]


Data = dict[Key, Record]


class Tracking:
    """The tracked connections that have read each key of one server since its last change: ``CLIENT TRACKING``.

    :ivar clients: the connections for which the server notes it.
    """

    def __init__(self) -> None:
        self.clients: list[SimConnection] = []
        self._readers: dict[Key, list[SimConnection]] = {}

    def reads(self, key: Key, client: SimConnection | None) -> None:
        """A client reads a key."""
        if client in self.clients:
            readers = self._readers.setdefault(key, [])
            if client not in readers:
                readers.append(client)

    def changes(self, key: Key, client: SimConnection | None) -> None:
        """A key has changed: all that have read it are told, but for the client that changed it, and forgotten."""
        for reader in self._readers.pop(key, ()):
            if reader is not client:
                reader.send(INVALIDATE + pack((str(key),)))

    def replaces_all(self) -> None:
        """No key is what it was."""
        self._readers.clear()
        for client in self.clients:
            client.send(INVALIDATE + b"_\r\n")

    def ends(self) -> None:
        """The process has died."""
        self._readers.clear()
        self.clients.clear()


INVALIDATE = b">2\r\n$10\r\ninvalidate\r\n"


class Past(NamedTuple):
    """One earlier state of a hash, and the change that made it.

    :param number: of the change, among all of its server.
    :param at_ms: true time.
    :param record: None: it was removed.
    """

    number: int
    at_ms: int
    record: Record | None


def is_tombstone(record: Record | None) -> bool:
    """Return whether a record is a tombstone."""
    return record is not None and record.auth is not None and not record.auth.is_live


def is_live(record: Record | None) -> bool:
    """Return whether a record is of a live session."""
    return record is not None and record.auth is not None and record.auth.is_live


def known_of(key: Key, kind: str, record: Record | None) -> CategoryCopy:
    """Return the answer that a reader gets about a record."""
    return answer(key.digest, (key.category,), kind, [0, record.flat if record else [], 0, -1]).records[key.category]


class Watcher(Protocol):
    """The observer of simulated Redis servers."""

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
    tracking: Tracking = field(default_factory=Tracking)
    changes: int = 0
    """How often anything was changed, twice: between two changes something may expire."""

    past: dict[Key, list[Past]] = field(default_factory=dict)
    """What each hash was made, the latest last."""

    @property
    def lineage(self) -> object:
        """Return a value that is another one after whatever may have taken data away."""
        return self.identity, self.losses

    @property
    def identity(self) -> str:
        """Return the identity that the package makes of INFO: another one after each start, promotion and demotion."""
        role = "master" if self.is_primary else "slave"
        return f"{self.name}{self.run_id}:{role}:{self.history_id}"

    def get(self, key: Key) -> Record | None:
        """The hash under a key, if it has not expired."""
        record = self.data.get(key)
        if record is None or (record.expires_at is not None and record.expires_at <= self.true_clock.now_ms):
            return None
        return record

    def age(self, ms: int) -> bool:
        """Shorten the life of every hash, and return whether any has run out by that."""
        before = {key for key in self.data if self.get(key)}
        for key, record in list(self.data.items()):
            if record.expires_at is not None:
                self.data[key] = Record(record.fields, record.expires_at - ms)
        gone = [key for key in before if not self.get(key)]
        for key in gone:
            self.store(key, None)
            self.has_changed(key, None, None)
        return bool(gone)

    def own(self, key: Key) -> Record | None:
        """The same, if it is of the session whose key this is: a foreign record says nothing."""
        record = self.get(key)
        is_own = record is not None and record.fields.get(b"@m", b"")[:8] == key.digest[:8].encode()
        return record if is_own else None

    def misplace(self, key: Key, record: Record) -> None:
        """Put a record under the key of another session, which no request asked for."""
        self.store(key, record)
        self._has_stored(key, record)

    def store(self, key: Key, record: Record | None, client: SimConnection | None = None) -> None:
        """Put a hash in the place of what is there, and tell those that have read it. None: remove it."""
        if record is None:
            self.data.pop(key, None)
        else:
            self.data[key] = record
        self.tracking.changes(key, client)

    def has_changed(self, key: Key, before: Record | None, after: Record | None) -> None:
        """A command has changed a hash: all that watch it are told, and replicas will be."""
        self.watcher.redis_changes(self, key, before, after)
        self._has_stored(key, after)

    def _has_stored(self, key: Key, record: Record | None) -> None:
        self._note(key)
        for replica in self.replicas:
            replica.inbox.append((key, record))

    def load(self, data: Data) -> None:
        """Other data takes the place of all that is there."""
        keys = [*self.data, *data]
        self.data = dict(data)
        for key in dict.fromkeys(keys):
            self._note(key)
        self.tracking.replaces_all()

    def history(self, key: Key) -> list[Past]:
        """Return all states of a hash in their order, its expiry included."""
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

    def replicate(self, count: int) -> None:
        """Apply the oldest changes that the primary has sent."""
        applied, self.inbox = self.inbox[:count], self.inbox[count:]
        for change in applied:
            if change is None:
                self.load({})
            else:
                self.store(*change)
                self._note(change[0])


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
        """Let names on these hosts go on leading where they lead now, whatever happens."""
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
