"""Connections of a worker to the simulated servers: the package's own store and link, over simulated connections.

What the network does to a question happens here: see ``tasks.py``. The worker's end of a connection for
invalidations is the package's own :class:`Wire` on a real pair of sockets, so that the package's own code receives,
keeps and drops them; a message gets into the sockets when the network lets it arrive. The content of a reply goes
beside the sockets.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast

import hiredis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.ids import SIGNED_IN
from flask_langpont_session.policy.rows import AuthEntry
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.commands import probing
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.lane import ChangeIds, Copy
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.near import Hit, NearCache
from flask_langpont_session.stores.redis.records import Answer
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.redis.wire import Wire
from flask_langpont_session.support.lag import Deadline, Lag

from .sim_commands import Server, changed_by
from .sim_redis import CONNECT_SECONDS, Cluster, Node
from .tasks import Path, Tasks

T = TypeVar("T")

REPLY = b"+OK\r\n"
"""Stands for each reply in the sockets."""


class Network(Protocol):
    """The network between one worker and the servers."""

    @property
    def host_name(self) -> str:
        """Return the host on which the worker runs."""

    def path_to(self, server: str) -> Path:
        """Return the state of the path between the worker and a server."""

    def connected(self, store: str, node: Node) -> None:
        """The worker made a new connection."""

    def answered(self, connection: SimConnection, digest: str, entry: AuthEntry | None) -> None:
        """The worker was told what a server has of a session's auth."""

    def looked(self, node: Node, found: Canary) -> None:
        """The worker looked at the canary."""

    def changed(self, node: Node, digest: str, number: int) -> None:
        """The worker was told that a session is changed; `number`: of the changes by then."""

    def hit(self, node: Node, ref: RecordRef, lives_ms: Mapping[str, int], hit: Hit) -> None:
        """The worker knew a session without asking."""


class OnTime(Lag):
    """The lag of a process that is never late: nothing measures it."""

    def attend(self, now: float, until: float = 0.0) -> float:
        """See :class:`Lag`."""
        return 0.0


class Way:
    """The connections of one worker to the server behind a name: in the place of a pool of redis-py's.

    :ivar tracked: the connection over which the worker is told of changes; None: there never was one.
    :ivar last: the connection over which something was answered last.
    """

    max_connections = 1000

    def __init__(
        self, name: str, cluster: Cluster, network: Network, tasks: Tasks, server_identity: ServerIdentity
    ) -> None:
        self.name = name
        self.network = network
        self.tasks = tasks
        self.server_identity = server_identity
        self.lag = OnTime(tasks.clock.monotonic)
        self.connection_class = SimConnection
        self.connection_kwargs = {"way": self}
        self.tracked: SimConnection | None = None
        self.last: SimConnection
        self._cluster = cluster

    def node(self) -> Node:
        """The server that the name leads to now."""
        return self._cluster.leads_to(self.name, self.network.host_name)

    def path_to(self, node: Node) -> Path:
        """Return the state of the path between the worker and a server."""
        if not node.alive:
            return Path.BROKEN
        return Path.SILENT if node.frozen else self.network.path_to(node.name)


class SimConnection:
    """A connection of one worker to one run of a server, as far as the package looks at one of redis-py's.

    :ivar is_held: the network is slow to let messages arrive. They keep their order, and no reply overtakes them.
    """

    protocol = 3
    redis_connect_func = True

    def __init__(self, way: Way) -> None:
        self.deadline = Deadline(math.inf, way.lag)
        self.is_held = False
        self._way = way
        self._far: socket.socket | None = None
        self._on_the_way: list[bytes] = []
        self._is_closed = self._is_over = False

    def connect(self) -> None:
        """Connect, and learn which server answers."""
        way = self._way
        node = self.node = way.node()
        self._run_id, path = node.run_id, way.path_to(node)
        if path is not Path.CLEAR:
            self._ask(lambda: path, bool)
        self.identity, now_ms = node.identity, node.clock.now_ms
        known = way.server_identity
        self.langpont_server = known.observe(self.identity, now_ms=now_ms, is_primary=node.is_primary)
        known.note_clock(self.langpont_server, now_ms, known.clock())
        way.network.connected(way.name, node)

    @property
    def is_open(self) -> bool:
        """Return whether the server's process still runs and has the connection, closed at this end or not."""
        return not self._is_over and self.node.alive and self.node.run_id == self._run_id

    def is_quiet(self) -> bool:
        """See the package."""
        return self.is_open

    def leads_there(self) -> bool:
        """See the package."""
        return True

    def _path(self) -> Path:
        return self._way.path_to(self.node) if self.is_open else Path.BROKEN

    def _ask(self, path: Callable[[], Path], effect: Callable[[], T]) -> T:
        way = self._way
        try:
            return way.tasks.ask(way.name, path, self.deadline.left(), effect)
        except StoreError as error:
            raise (TimeoutError if error.timed_out else ConnectionError)(error.cause) from None

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send commands and read their replies."""
        reader = hiredis.Reader()
        reader.feed(data)
        commands: list[list[bytes]] = [cast(Any, reader.gets()) for _ in range(count)]
        if commands[0][0] == b"CLIENT":
            return self._tracked(data)

        def served() -> tuple[list[Any], int]:
            server = Server(self.node, self)
            replies = [server.serve(command) for command in commands]
            self.send(REPLY)
            return replies, self.node.changes

        replies, number = self._ask(self._path, served)
        self._receive()
        self._way.last = self
        for command, reply in zip(commands, replies, strict=True):
            digest = changed_by(command)
            if isinstance(reply, ResponseError):
                self._way.tasks.refuse(self._way.name, ErrorClass.WRITE_REFUSED, type(reply).__name__)
            elif digest is not None:
                self._way.network.changed(self.node, digest, number)
        return replies

    def disconnect(self) -> None:
        """End it. What was asked may arrive all the same."""
        self._is_closed = True
        if self._far is not None:
            if self in self.node.tracking.clients:
                self.node.tracking.clients.remove(self)
            self._sock.close()
            self._far.close()

    # -- of one that is tracked --------------------------------------------------------------------------------------

    @cached_property
    def _sock(self) -> Wire:
        ours, self._far = socket.socketpair()
        return Wire(ours, Deadline(math.inf))

    def _tracked(self, data: bytes) -> list[Any]:
        """Turn tracking on, which the server grants at once."""
        assert self._far is not None
        self.node.tracking.clients.append(self)
        self._way.tracked = self
        self._far.sendall(REPLY)
        replies: list[Any] = self._sock.exchange(data, 1, ResponseError)
        self._far.recv(len(data))
        return replies

    def send(self, message: bytes) -> None:
        """The server says something."""
        if self._far is not None and self.is_open and not self._is_closed:
            self._on_the_way.append(message)
            self.arrive()

    def hang_up(self) -> None:
        """The server ends the connection (``CLIENT KILL``, a time-out)."""
        self._is_over = True
        self.arrive()

    def arrive(self) -> None:
        """Let arrive what can arrive: invalidations, but no reply nor what is behind one (see :meth:`_receive`), and
        the end of the connection."""
        if self._far is None or self._far.fileno() < 0 or self.is_held or self._path() is Path.SILENT:
            return
        if REPLY not in self._on_the_way:
            self._pass(len(self._on_the_way))
        if self._path() is Path.BROKEN:
            self._far.close()

    def _receive(self) -> None:
        """The reply arrives, behind all that was sent before it; and together with it what came after, unless that is
        late."""
        if self._far is not None:
            self._pass(len(self._on_the_way) if not self.is_held else self._on_the_way.index(REPLY) + 1)
            self._sock.exchange(b"", 1, ResponseError)
            self.arrive()

    def _pass(self, count: int) -> None:
        assert self._far is not None
        arrives, self._on_the_way = self._on_the_way[:count], self._on_the_way[count:]
        self._far.sendall(b"".join(arrives))


class SimEndpoint(Endpoint):
    """The server behind a name as one worker sees it."""

    def __init__(self, way: Way) -> None:
        identity = way.server_identity
        self.way = way
        pool: Any = way
        link = Link(way.name, pool, server_identity=identity, connect_timeout=CONNECT_SECONDS, lag=way.lag)
        super().__init__(link, prefix="session")

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """See the package."""
        found = super().look_at_canary(known, timeout=timeout)
        self.way.network.looked(self.way.last.node, found)
        return found

    def probe(self, key: str, value: str, *, timeout: float) -> float:
        """Write and read back in plain commands. With all scripts, as the package does it, the probes of all monitors
        would take half of the time of a walk."""
        return self.link.over_a_new_one(probing(key, value)[-2:], timeout)


class SimNear(NearCache):
    """The near cache of one worker, which reports each hit to its network."""

    def __init__(self, way: Way, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.way = way

    def vouches_for(self, copy: Copy, digest: str) -> Hit | None:
        """See the package."""
        hit = super().vouches_for(copy, digest)
        if hit is not None and self.way.tracked:
            self.way.network.hit(self.way.tracked.node, RecordRef(digest, copy.kind), copy.lives_ms, hit)
        return hit


class SimStore(RedisStore):
    """The sessions in one Redis as one worker sees them: what it is told is told to its network, too."""

    endpoint: SimEndpoint

    def __init__(self, way: Way, memory: Memory | None = None, change_ids: ChangeIds | None = None) -> None:
        super().__init__(SimEndpoint(way), memory=memory, change_ids=change_ids)
        self.way = way

    def keep_near(self, near: NearCache) -> None:
        """Keep in this near cache what the store reads from now on."""
        self.near = self.endpoint.near = near

    def read(self, ref: RecordRef, lives_ms: Mapping[str, int], *, timeout: float, anew: bool = False) -> Answer:
        """See the package."""
        found = super().read(ref, lives_ms, timeout=timeout, anew=anew)
        if AUTH in lives_ms and ref.kind == SIGNED_IN:
            self.way.network.answered(self.way.last, ref.digest, found.auth)
        return found
