"""Redis Cluster: each session on the shard that has its slot, each shard an ordinary store with a fence of its own.

A request goes by the map that there is (:mod:`.directory`). One that is sent elsewhere (MOVED, ASK) goes there once; a
slot whose keys are being moved (TRYAGAIN) is asked again twice. What does not work out then is served as in an outage,
without being one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from redis import exceptions as driver
from redis.connection import BlockingConnectionPool, SSLConnection
from redis.crc import key_slot

from ...policy.categories import AUTH
from ...policy.ids import SIGNED_IN
from ...policy.leases import TOMBSTONE_MS
from ...policy.values import AuthRow, CategoryCopy, ErrorClass, StoreError, Wait
from ...support.chance import CHANCE
from ...support.lag import LEAST_WAIT
from .errors import Redirected, translate
from .known import KnownRecords
from .link import Link
from .records import Answer, Limits, Merge, Merged, Restore
from .server_identity import Canary
from .slots import NO_SHARD, Address, Servers, name_of, tag_of
from .store import RedisStore
from .topology import ClusterTopology
from .wire import pack

T = TypeVar("T")
K = TypeVar("K")
P = ParamSpec("P")

_TRIES_AGAIN = 2
_PERSISTENT = 1.0
"""Seconds after which a slot that is between two shards does not get better by waiting for it."""


class Route:
    """The way to the server of a shard, which may be another one at the next connection.

    :param is_master: whether to the primary, or to one of the replicas.
    """

    def __init__(self, directory: ClusterTopology, number: int, *, is_master: bool) -> None:
        self._directory = directory
        self._number = number
        self._is_master = is_master
        # Every worker keeps to one replica, so that the fence sees one server, and the workers spread over them.
        self._choice = CHANCE.randrange(1 << 16)

    def __call__(self) -> tuple[Address, bool]:
        servers = self._servers()
        if not servers:
            raise driver.ConnectionError("the cluster has no such server any more")
        return servers[self._choice % len(servers)], self._directory.nodes.tls()

    def leads_to(self, host: str, port: int) -> bool:
        """Whether that server is still at an end of this way."""
        return (host, port) in self._servers()

    def _servers(self) -> tuple[Address, ...]:
        place = self._directory.map.places.get(self._number) if self._directory.map else None
        if place is None:
            return ()
        return (place.primary,) if self._is_master else place.replicas

    def doubt(self) -> None:
        """That server could not be used."""
        self._choice += 1


class Connection(SSLConnection):
    """A connection that finds its server when it connects, with TLS or without.

    :param route: says where, and whether with TLS.
    """

    def __init__(self, *, route: Callable[[], tuple[Address, bool]], **options: Any) -> None:
        self._route = route
        super().__init__(**options)

    def leads_there(self) -> bool:
        """Whether its server is one of those that it is to find."""
        return not isinstance(self._route, Route) or self._route.leads_to(self.host, self.port)

    def _connect(self) -> Any:
        (self.host, self.port), tls = self._route()
        # The host is what the certificate must name. Without TLS, what stands behind the class of TLS connects.
        return super()._connect() if tls else super(SSLConnection, self)._connect()  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except (driver.ConnectionError, driver.TimeoutError):
            if isinstance(self._route, Route):
                self._route.doubt()
            raise


def make_pool(
    route: Callable[[], tuple[Address, bool]],
    *,
    waits: Mapping[str, Any],
    options: Mapping[str, Any],
    **pool_options: Any,
) -> BlockingConnectionPool:
    """A pool whose every new connection goes where its route leads by then.

    :param waits: time-outs, retries and what introduces a connection.
    :param options: credentials, and what TLS needs.
    :param pool_options: of the pool itself.
    """
    return BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=Connection,
        route=route,
        protocol=3,
        **waits,
        **options,
        **pool_options,
    )


def may_read(introduce: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same ``redis_connect_func`` for replicas, which else send every reader to their primary."""

    def greet(connection: Any) -> None:
        introduce(connection)
        connection.send_command("READONLY")
        connection.read_response()

    return greet


class ShardStore(RedisStore):
    """The store of one shard. Its canary and its probes lie in a slot that the shard has.

    :param link: the way to its server, see :func:`leads_there`.
    :param number: of the shard.
    """

    def __init__(
        self,
        link: Link,
        *,
        directory: ClusterTopology,
        number: int,
        prefix: str,
        tombstone_ms: int = TOMBSTONE_MS,
        known: KnownRecords | None = None,
    ) -> None:
        super().__init__(link, prefix=prefix, tombstone_ms=tombstone_ms, known=known)
        self._directory = directory
        self._number = number
        self._tombstone_ms = tombstone_ms

    def asking(self) -> ShardStore:
        """The same store, for keys that are still on their way to it."""
        return ShardStore(
            self.link.announcing(_ASKING),
            directory=self._directory,
            number=self._number,
            prefix=self.prefix,
            tombstone_ms=self._tombstone_ms,
            known=self.known,
        )

    @property
    def _slot(self) -> int:
        return self._directory.canary_slot(self._number)

    @property
    def canary_key(self) -> str:
        """Where the canary lies; elsewhere when that slot has gone to another shard."""
        return f"{self.prefix}:canary:{{{tag_of(self._slot)}}}"

    @property
    def canary_place(self) -> str:
        """Its slot."""
        return f"{self._slot}:"

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """See :class:`RedisStore`; of a canary that lay elsewhere nothing is known here."""
        slot = self._slot
        if known is not None and known.place != str(slot):
            known = None
        return self._in(slot, lambda: super(ShardStore, self).look_at_canary(known, timeout=timeout))

    def probe(self, key: str, value: str, *, timeout: float) -> float:
        """See :class:`RedisStore`."""
        slot = self._slot
        tagged = f"{key}:{{{tag_of(slot)}}}"
        return self._in(slot, lambda: super(ShardStore, self).probe(tagged, value, timeout=timeout))

    def _in(self, slot: int, call: Callable[[], T]) -> T:
        try:
            return call()
        except StoreError as error:
            if error.error_class is ErrorClass.TOPOLOGY:
                self._directory.avoid(slot)
            raise


_ASKING = pack(("ASKING",))


def leads_there(connection: Any) -> bool:
    """Whether a connection leads to a server of its shard still: one that handed over to another primary lives on, and
    sends all there over each connection that there is."""
    return bool(connection.leads_there())


def routed(
    method: Callable[Concatenate[RedisStore, K, P], T], digest_of: Callable[[K], str] = str
) -> Callable[Concatenate[ClusterStore, K, P], T]:
    """That method, called on the store of the shard that has the session.

    :param method: takes `timeout` by name: of all stores that are asked, one after the other.
    :param digest_of: of the first argument: whose session it is about.
    """

    def route(self: ClusterStore, first: K, /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call(store: RedisStore, left: float) -> T:
            done: T = getattr(store, method.__name__)(first, *args, **{**kwargs, "timeout": left})
            return done

        return self._route(digest_of(first), cast(float, kwargs["timeout"]), call)

    return wraps(method)(route)


def _key_of(commands: Sequence[tuple[Any, ...]]) -> str:
    """A key that plain commands are about; they are all in one slot. Without one, any shard will do."""
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
        sleep: Callable[[float], None] = time.sleep,
        is_master: bool = True,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self._directory = directory
        self._make = make
        self._count = count
        self._clock = clock
        self._sleep = sleep
        self._is_master = is_master
        self._parts: Mapping[int, RedisStore] = {}
        self._asking: dict[int, RedisStore] = {}
        self._between: dict[int, float] = {}
        directory.tell(self)

    # -- shards ----------------------------------------------------------------------------------------------------

    @property
    def stores(self) -> Mapping[str, RedisStore]:
        """The stores of the shards, by name."""
        return {part.name: part for part in self._parts.values()}

    def arrange(self, places: Mapping[int, Servers], *, has_hole: bool = False) -> None:
        """Have a store for each of these shards, as far as there are servers for this role.

        :param has_hole: some slots have no shard. Their store finds no server, and is lost.
        """
        wanted = [number for number, place in sorted(places.items()) if self._is_master or place.replicas]
        if has_hole and self._is_master:
            wanted.insert(0, NO_SHARD)
        if list(self._parts) == wanted:
            return
        gone = [part for number, part in self._parts.items() if number not in wanted]
        self._parts = {number: self._parts.get(number) or self._make(number) for number in wanted}
        self._asking = {number: store for number, store in self._asking.items() if number in wanted}
        self._directory.arranged(self.name, [name_of(number) for number in wanted])
        for part in gone:
            part.forget_connections()

    def find_shards(self, timeout: float) -> None:
        """Ask one node after the other, while no shard is known.

        :param timeout: seconds for each.
        :raises StoreError: no node answers.
        """
        if self._directory.map is None:
            with self._translated():
                self._directory.refresh(timeout)

    @property
    def homeless(self) -> int:
        """How many of the :data:`SLOTS` no shard has, as far as is known."""
        return self._directory.map.homeless if self._directory.map is not None else 0

    # -- one session: as RedisStore has them -----------------------------------------------------------------------

    write = routed(RedisStore.write)
    push = routed(RedisStore.push, lambda row: row.digest)
    write_tombstone = routed(RedisStore.write_tombstone)
    extend_idle = routed(RedisStore.extend_idle)
    merge = routed(RedisStore.merge, lambda merge: merge.digest)
    quarantine = routed(RedisStore.quarantine)
    _read = routed(RedisStore.read)

    def read(
        self,
        digest: str,
        lives_ms: Mapping[str, int],
        *,
        timeout: float,
        shadow: bool = False,
        kind: str = "a",
        anew: bool = False,
    ) -> Answer:
        """See :class:`RedisStore`. What was confirmed before its slot came to this shard is not trusted."""
        answer = self._read(digest, lives_ms, timeout=timeout, shadow=shadow, kind=kind, anew=anew)
        arrived = self._directory.arrived and self._directory.arrived.get(key_slot(digest.encode()))
        if not arrived:
            return answer
        since_ms = answer.now_ms - int((self._clock() - arrived) * 1000)
        return answer._replace(trust_since_ms=max(answer.trust_since_ms, since_ms))

    # -- several sessions ------------------------------------------------------------------------------------------

    def push_many(
        self,
        rows: Sequence[tuple[AuthRow, int]],
        dead: Sequence[tuple[str, int]],
        categories: Sequence[str],
        *,
        stamp_ms: int,
        timeout: float,
    ) -> None:
        """See :class:`RedisStore`; one round trip per shard.

        :param timeout: seconds for each shard.
        """
        number_of = self._directory.number_of
        for number in sorted({number_of(row.digest) for row, _ in rows} | {number_of(digest) for digest, _ in dead}):
            own_rows = [(row, life_ms) for row, life_ms in rows if number_of(row.digest) == number]
            own_dead = [(digest, version) for digest, version in dead if number_of(digest) == number]
            try:
                self._part(number).push_many(own_rows, own_dead, categories, stamp_ms=stamp_ms, timeout=timeout)
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
        """See :class:`RedisStore`; one round trip per shard.

        :param timeout: seconds for each shard.
        """
        done: dict[int, Merged | StoreError] = {}
        numbers = [self._directory.number_of(merge.digest) for merge in merges]
        for number in sorted(set(numbers)):
            places = [place for place, its_number in enumerate(numbers) if its_number == number]
            own = [merges[place] for place in places]
            replies = self._part(number).merge_all(own, limits=limits, timeout=timeout, write_id=write_id)
            for place, merge, reply in zip(places, own, replies, strict=True):
                if isinstance(reply, StoreError) and reply.error_class is ErrorClass.TOPOLOGY:
                    reply = self._merge_alone(merge, limits, timeout, write_id)  # its slot is on its way
                done[place] = reply
        return [done[place] for place in range(len(merges))]

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        """See :class:`RedisStore`; one round trip per shard.

        :param timeout: seconds for each shard.
        """
        done: dict[tuple[str, str], CategoryCopy] = {}
        number_of = self._directory.number_of
        for number in sorted({number_of(digest) for digest, _ in wanted}):
            own = [place for place in wanted if number_of(place[0]) == number]
            done.update(zip(own, self._part(number).copies(own, timeout=timeout), strict=True))
        return [done[place] for place in wanted]

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]:
        """See :class:`RedisStore`; one round trip per shard.

        :param timeout: seconds for each shard.
        """
        done: dict[str, Answer] = {}
        number_of = self._directory.number_of
        for number in sorted(set(map(number_of, digests))):
            own = [digest for digest in digests if number_of(digest) == number]
            try:
                done.update(zip(own, self._part(number).auths(own, timeout=timeout), strict=True))
            except StoreError as error:
                if error.error_class is not ErrorClass.TOPOLOGY:
                    raise
                for digest in own:  # some of their slots are on their way: each goes its own
                    done[digest] = self.read(digest, {AUTH: 0}, kind=SIGNED_IN, timeout=timeout)
        return [done[digest] for digest in digests]

    def _merge_alone(
        self, merge: Merge | Restore, limits: Limits, timeout: float, write_id: str
    ) -> Merged | StoreError:
        try:
            return self.merge(merge, limits=limits, timeout=timeout, write_id=write_id)
        except StoreError as error:
            return error

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        """See :class:`RedisStore`."""
        known = self._directory.map
        part = self._parts.get(known.owners[key_slot(digest.encode())]) if known else None
        return part.estimated_ms(digest, at, latest=latest) if part else 0

    run_commands = routed(RedisStore.run_commands, _key_of)

    # -- connections -----------------------------------------------------------------------------------------------

    @property
    def in_use(self) -> int:
        """Connections to all shards that are in use at this moment."""
        return sum(part.in_use for part in self._parts.values())

    def take_most_in_use(self) -> int:
        """The most connections to one shard that were in use at a time since this was last asked."""
        return max((part.take_most_in_use() for part in self._parts.values()), default=0)

    def forget_connections(self) -> None:
        """Drop idle connections."""
        for part in self._parts.values():
            part.forget_connections()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _route(self, key: str, timeout: float, call: Callable[[RedisStore, float], T]) -> T:
        """Ask the shard that has a key (of a session its digest), or where it says."""
        slot = key_slot(key.encode())
        ends = self._clock() + (timeout.whole if isinstance(timeout, Wait) else timeout)
        store: RedisStore = self._owner(slot, timeout)
        redirected, tries = False, 0
        while True:
            try:
                done = call(store, timeout)
            except Redirected as error:
                self._count(_COUNTERS[error.cause])
                if redirected or not self._is_master:
                    raise
                redirected = True
                store = self._follow(store, error)
            except StoreError as error:
                if error.cause not in _COUNTERS:
                    if (
                        error.error_class is ErrorClass.TOPOLOGY
                    ):  # a slot that no server has, which the map does not know
                        self._directory.doubt()
                    raise
                self._count(_COUNTERS[error.cause])
                tries += 1
                self._wait_for(slot, error, tries, ends)
            else:
                if self._between:
                    self._between.pop(slot, None)
                return done
            left = ends - self._clock()
            timeout = Wait(min(timeout, left), left)
            if left < LEAST_WAIT:
                raise StoreError(store.name, ErrorClass.TOPOLOGY, "NoTimeLeft")

    def _owner(self, slot: int, timeout: float) -> RedisStore:
        known = self._directory.map
        if known is None:
            with self._translated():
                known = self._directory.learn(timeout)
        return self._part(known.owners[slot])

    def _part(self, number: int) -> RedisStore:
        part = self._parts.get(number)
        if part is None:
            raise StoreError(self.name, ErrorClass.UNREACHABLE, "SlotNotServed")
        return part

    def _follow(self, store: RedisStore, error: Redirected) -> RedisStore:
        address = Address(*error.address)
        if not address.host:
            address = Address(self._directory.host_of(store.name), address.port)
        if error.for_good:
            return self._part(self._directory.note_moved(error.slot, address))
        number = self._directory.note_moving(error.slot, address)
        if number is None:
            raise error  # the monitor looks for it
        asking = self._asking.get(number)
        if asking is None:
            asking = self._asking[number] = self._part(number).asking()
        return asking

    def _wait_for(self, slot: int, error: StoreError, tries: int, ends: float) -> None:
        """Some keys of the slot are here and some there, or are not anywhere yet.

        :raises StoreError: it is not worth it.
        """
        now = self._clock()
        is_persistent = now - self._between.setdefault(slot, now) > _PERSISTENT
        pause = CHANCE.uniform(0.025, 0.05)
        # However long it lasts, it is the matter of one slot: no breaker hears of it, or the whole shard would be lost.
        if is_persistent or tries > _TRIES_AGAIN or ends - now - pause < LEAST_WAIT:
            raise error
        self._sleep(pause)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ValueError:  # it answers, but knows of no slots yet
            raise StoreError(self.name, ErrorClass.UNREACHABLE, "NoSlots") from None
        except (driver.RedisError, OSError) as error:
            raise translate(self.name, error) from None


_COUNTERS = {
    "MovedError": "cluster_moved",
    "AskError": "cluster_ask",
    "TryAgainError": "cluster_try_again",
}

Redis = RedisStore | ClusterStore
"""One store, or the stores of all shards as one."""
