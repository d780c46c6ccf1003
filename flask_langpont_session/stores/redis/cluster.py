"""Redis Cluster: each session on the shard that has its slot, each shard an ordinary store with a server identity
of its own.

Where the shards are is known by :mod:`.topology`, which of them a call goes to by :mod:`.shards`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from redis import exceptions as driver
from redis.connection import BlockingConnectionPool, SSLConnection

from ...policy.categories import AUTH
from ...policy.copies import CategoryCopy, RecordRef
from ...policy.errors import ErrorClass, StoreError
from ...policy.ids import SIGNED_IN
from ...policy.rows import AuthRow
from ...support.chance import CHANCE
from .endpoint import Endpoint
from .link import Link
from .near import NearCache
from .records import Answer, Limits, Merge, Merged, Restore
from .server_identity import Canary
from .shards import Router, Shards
from .slots import Address, tag_of
from .store import RedisStore
from .topology import ClusterTopology

T = TypeVar("T")
Item = TypeVar("Item")
P = ParamSpec("P")


class Route:
    """The way to a server, which may be another one at the next connection.

    :param servers: says which are at its end by now.
    :param tls: says whether they speak TLS.
    """

    def __init__(self, servers: Callable[[], Sequence[Address]], tls: Callable[[], bool]) -> None:
        self._servers = servers
        self._tls = tls
        # Every worker keeps to one replica, so that the identity is that of one server; the workers spread over them.
        self._choice = CHANCE.randrange(1 << 16)

    def __call__(self) -> tuple[Address, bool]:
        """Return the present address of the server, and whether it speaks TLS.

        :raises ConnectionError: there is none.
        """
        servers = self._servers()
        if not servers:
            raise driver.ConnectionError("the cluster has no such server any more")
        return servers[self._choice % len(servers)], self._tls()

    def leads_to(self, host: str, port: int) -> bool:
        """Return whether that server is still at an end of this way."""
        return (host, port) in self._servers()

    def doubt(self) -> None:
        """Have the next connection try another server, if there is one: the last one could not be used."""
        self._choice += 1


def to_shard(directory: ClusterTopology, number: int, *, is_master: bool) -> Route:
    """Return the way to the primary of a shard, or to one of its replicas."""

    def servers() -> Sequence[Address]:
        place = directory.map.places.get(number) if directory.map else None
        if place is None:
            return ()
        return (place.primary,) if is_master else place.replicas

    return Route(servers, directory.nodes.tls)


class RoutedConnection(SSLConnection):
    """A connection that finds its server when it connects, with TLS or without."""

    def __init__(self, *, route: Route, **options: Any) -> None:
        self._route = route
        super().__init__(**options)

    def leads_there(self) -> bool:
        """Return whether the server of this connection is still one that it is to find."""
        return self._route.leads_to(self.host, self.port)

    def _connect(self) -> Any:
        (self.host, self.port), tls = self._route()
        # The host is what the certificate must name. Without TLS, what stands behind the class of TLS connects.
        return super()._connect() if tls else super(SSLConnection, self)._connect()  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except (driver.ConnectionError, driver.TimeoutError):
            self._route.doubt()
            raise


def make_pool(
    route: Route, *, waits: Mapping[str, Any], options: Mapping[str, Any], **pool_options: Any
) -> BlockingConnectionPool:
    """Return a pool whose every new connection goes where its route leads by then.

    :param waits: time-outs, retries and what introduces a connection.
    :param options: credentials, and what TLS needs.
    :param pool_options: of the pool itself.
    """
    return BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=RoutedConnection, route=route, protocol=3, **waits, **options, **pool_options
    )


def may_read(introduce: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the same ``redis_connect_func`` for replicas, which else send every reader to their primary."""

    def greet(connection: Any) -> None:
        introduce(connection)
        connection.send_command("READONLY")
        connection.read_response()

    return greet


class ShardEndpoint(Endpoint):
    """The server of one shard. Its canary and its probes lie in a slot that the shard has.

    :param link: the way to it, see :func:`leads_there`.
    :param number: of the shard.
    """

    def __init__(
        self, link: Link, *, directory: ClusterTopology, number: int, prefix: str, near: NearCache | None = None
    ) -> None:
        super().__init__(link, prefix=prefix, near=near)
        self._directory = directory
        self._number = number

    @property
    def _slot(self) -> int:
        return self._directory.canary_slot(self._number)

    @property
    def canary_key(self) -> str:
        """Return the key of the canary; another one when its slot has gone to another shard."""
        return f"{self.prefix}:canary:{{{tag_of(self._slot)}}}"

    @property
    def canary_place(self) -> str:
        """Return the slot of the canary, with which its ids begin."""
        return f"{self._slot}:"

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """See :class:`.Endpoint`; of a canary that lay elsewhere nothing is known here."""
        slot = self._slot
        if known is not None and known.place != str(slot):
            known = None
        return self._in(slot, lambda: super(ShardEndpoint, self).look_at_canary(known, timeout=timeout))

    def probe(self, key: str, value: str, *, timeout: float) -> float:
        """See :class:`.Endpoint`."""
        slot = self._slot
        tagged = f"{key}:{{{tag_of(slot)}}}"
        return self._in(slot, lambda: super(ShardEndpoint, self).probe(tagged, value, timeout=timeout))

    def _in(self, slot: int, call: Callable[[], T]) -> T:
        try:
            return call()
        except StoreError as error:
            if error.error_class is ErrorClass.TOPOLOGY:
                self._directory.avoid(slot)
            raise


def leads_there(connection: Any) -> bool:
    """Return whether a connection leads to a server of its shard still: one that handed over to another primary lives
    on, and redirects all that is asked over its connections."""
    return bool(connection.leads_there())


def _of_session(
    method: Callable[Concatenate[RedisStore, P], T], digest_of: Callable[[Any], str]
) -> Callable[Concatenate[ClusterStore, P], T]:
    """Return a method that does what one of :class:`RedisStore` does, on the shard that has the session.

    :param digest_of: says which session that is, given the first argument.
    """
    name = method.__name__

    def ask(self: ClusterStore, /, *arguments: P.args, **options: P.kwargs) -> T:
        def there(store: RedisStore, left: float) -> T:
            done: T = getattr(store, name)(*arguments, **{**options, "timeout": left})
            return done

        return self.router.route(digest_of(arguments[0]), cast(float, options["timeout"]), there)

    return ask


def _digest(of: RecordRef | AuthRow | Merge | Restore) -> str:
    return of.digest


def _key_of(commands: Sequence[tuple[Any, ...]]) -> str:
    """Return a key that plain commands are about; they are all in one slot. Without one, any shard will do."""
    return next((str(command[1]) for command in commands if len(command) > 1), "")


class ClusterStore:
    """The stores of all shards, in one role, as one store.

    :param name: ``primary`` or ``replica``.
    :param make: makes the store of a shard.
    :param count: counts by name.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        directory: ClusterTopology,
        make: Callable[[int], RedisStore],
        *,
        prefix: str,
        count: Callable[[str], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
        # Looked up at each call: gevent may exchange it after this module was imported, and the former one stops all.
        sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds),
    ) -> None:
        self.name = name
        self.prefix = prefix
        self._directory = directory
        self._shards = Shards(name, directory, make)
        self.router = Router(self._shards, directory, count=count, clock=clock, sleep=sleep)

    # -- shards ----------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Return the servers of the shards, by name."""
        return {store.name: store.endpoint for store in self._shards.all}

    def find_shards(self, timeout: float) -> None:
        """Find the shards, if none is known: ask one node after the other.

        :param timeout: seconds for each.
        :raises StoreError: no node answers.
        """
        self._shards.find(timeout)

    @property
    def homeless(self) -> int:
        """Return how many of the :data:`SLOTS` no shard has, as far as is known."""
        return self._directory.map.homeless if self._directory.map is not None else 0

    # -- one session -----------------------------------------------------------------------------------------------

    write = _of_session(RedisStore.write, _digest)
    push = _of_session(RedisStore.push, _digest)
    write_tombstone = _of_session(RedisStore.write_tombstone, str)
    extend_idle = _of_session(RedisStore.extend_idle, str)
    merge = _of_session(RedisStore.merge, _digest)
    quarantine = _of_session(RedisStore.quarantine, _digest)
    run_commands = _of_session(RedisStore.run_commands, _key_of)
    _copies = _of_session(RedisStore.copies, lambda wanted: wanted[0][0])
    _read = _of_session(RedisStore.read, _digest)

    def read(self, ref: RecordRef, lives_ms: Mapping[str, int], *, timeout: float, anew: bool = False) -> Answer:
        """See :class:`RedisStore`. What was confirmed before its slot came to this shard is not trusted."""
        answer = self._read(ref, lives_ms, timeout=timeout, anew=anew)
        since = self._directory.since_arrival(ref.digest)
        if since is None:
            return answer
        return answer._replace(trust_since_ms=max(answer.trust_since_ms, answer.now_ms - int(since * 1000)))

    def home_of(self, digest: str) -> RedisStore | None:
        """See :class:`RedisStore`; nothing for what has moved to another shard lately."""
        store = self._known(digest)
        return None if store is None or self._directory.since_arrival(digest) is not None else store

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        """See :class:`RedisStore`."""
        store = self._known(digest)
        return store.estimated_ms(digest, at, latest=latest) if store else 0

    def _known(self, digest: str) -> RedisStore | None:
        """Return the store that has a session, as far as is known without asking."""
        known = self._directory.map
        return self._shards.get(known.number_of(digest)) if known else None

    # -- several sessions: one round trip for each shard, with that time-out ---------------------------------------

    def push_many(
        self,
        rows: Sequence[tuple[AuthRow, int]],
        dead: Sequence[tuple[str, int]],
        categories: Sequence[str],
        *,
        stamp_ms: int,
        timeout: float,
    ) -> None:
        """See :class:`RedisStore`."""

        number_of = self._directory.number_of
        for number in sorted({number_of(row.digest) for row, _ in rows} | {number_of(digest) for digest, _ in dead}):
            own_rows = [(row, life_ms) for row, life_ms in rows if number_of(row.digest) == number]
            own_dead = [(digest, version) for digest, version in dead if number_of(digest) == number]
            try:
                self._shards.of(number).push_many(own_rows, own_dead, categories, stamp_ms=stamp_ms, timeout=timeout)
            except StoreError as error:
                if error.error_class is not ErrorClass.TOPOLOGY:
                    raise
                for row, life_ms in own_rows:  # some of their slots are on their way: each goes its own
                    self.push(row, stamp_ms, life_ms, timeout=timeout)
                for digest, version in own_dead:
                    self.write_tombstone(digest, version, categories, timeout=timeout)

    def merge_all(
        self, merges: Sequence[Merge | Restore], *, limits: Limits, timeout: float, write_id: str
    ) -> list[Merged | StoreError]:
        """See :class:`RedisStore`."""

        def alone(merge: Merge | Restore) -> Merged | StoreError:
            try:
                return self.merge(merge, limits=limits, timeout=timeout, write_id=write_id)
            except StoreError as error:
                return error

        return self._by_shard(
            merges,
            _digest,
            lambda store, some: store.merge_all(some, limits=limits, timeout=timeout, write_id=write_id),
            alone,
        )

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        """See :class:`RedisStore`."""
        return self._by_shard(
            wanted,
            lambda place: place[0],
            lambda store, some: store.copies(some, timeout=timeout),
            lambda place: self._copies([place], timeout=timeout)[0],
        )

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]:
        """See :class:`RedisStore`."""
        return self._by_shard(
            digests,
            str,
            lambda store, some: store.auths(some, timeout=timeout),
            lambda digest: self.read(RecordRef(digest, SIGNED_IN), {AUTH: 0}, timeout=timeout),
        )

    def _by_shard(
        self,
        items: Sequence[Item],
        digest_of: Callable[[Item], str],
        together: Callable[[RedisStore, Sequence[Item]], Sequence[T]],
        alone: Callable[[Item], T],
    ) -> list[T]:
        """Do something with each item on its shard, and return the results in the order of the items.

        :param together: does some items on their shard.
        :param alone: does one whose slot is on its way to another shard.
        """
        done: dict[int, T] = {}
        numbers = [self._directory.number_of(digest_of(item)) for item in items]
        for number in sorted(set(numbers)):
            places = [place for place, its_number in enumerate(numbers) if its_number == number]
            own = [items[place] for place in places]
            try:
                found = together(self._shards.of(number), own)
            except StoreError as error:
                if error.error_class is not ErrorClass.TOPOLOGY:
                    raise
                found = [alone(item) for item in own]
            for place, item, each in zip(places, own, found, strict=True):
                is_moving = isinstance(each, StoreError) and each.error_class is ErrorClass.TOPOLOGY
                done[place] = alone(item) if is_moving else each
        return [done[place] for place in range(len(items))]

    # -- connections -----------------------------------------------------------------------------------------------

    @property
    def in_use(self) -> int:
        """Return how many connections to all shards are in use at this moment."""
        return sum(store.in_use for store in self._shards.all)

    def take_most_in_use(self) -> int:
        """Return the most connections to one shard that were in use at a time since the last call."""
        return max((store.take_most_in_use() for store in self._shards.all), default=0)

    def forget_connections(self) -> None:
        """Drop the connections to all shards."""
        for store in self._shards.all:
            store.forget_connections()
