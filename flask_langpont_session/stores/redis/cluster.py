"""Redis Cluster: each session on the shard that has its slot, each shard an ordinary store with a server identity
of its own.

A call goes by the map that there is (:mod:`.topology`). One that is sent elsewhere (MOVED, ASK) goes there once; a slot
whose keys are being moved (TRYAGAIN) is asked again twice. What does not work out then is served as in an outage,
without being one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from redis import exceptions as driver
from redis.crc import key_slot

from ...policy.copies import RecordRef
from ...policy.errors import ErrorClass, StoreError
from ...policy.health import PRIMARY
from ...policy.rows import AuthRow
from ...support.chance import CHANCE
from ...support.lag import LEAST_WAIT, Wait
from .endpoint import Endpoint
from .errors import Redirected, translate
from .link import Link
from .near import NearCache
from .records import Answer
from .routed import Route, RoutedConnection
from .server_identity import Canary
from .slots import NO_SHARD, SINGLE, Address, Servers, name_of, tag_of
from .store import RedisStore
from .topology import ClusterTopology
from .wire import pack

T = TypeVar("T")
P = ParamSpec("P")

_ASKING = pack(("ASKING",))
_TRIES_AGAIN = 2
_PERSISTENT = 1.0
"""Seconds after which a slot that is between two shards does not get better by waiting for it."""

_COUNTERS = {"MovedError": "cluster_moved", "AskError": "cluster_ask", "TryAgainError": "cluster_try_again"}


class ShardRoute(Route):
    """The way to the primary of a shard, or to one of its replicas.

    :param number: of the shard.
    """

    def __init__(self, directory: ClusterTopology, number: int, *, is_master: bool) -> None:
        def servers() -> Sequence[Address]:
            place = directory.map.places.get(number) if directory.map else None
            if place is None:
                return ()
            return (place.primary,) if is_master else place.replicas

        super().__init__(servers, directory.nodes.tls)
        self._sends_to_primary = number != SINGLE and not is_master

    def greeted(self, connection: RoutedConnection) -> None:
        """Have a replica of a shard answer itself, which else sends every reader to its primary."""
        if self._sends_to_primary:
            connection.send_command("READONLY")  # type: ignore[no-untyped-call]
            connection.read_response()


class ShardEndpoint(Endpoint):
    """The server of one shard. Its canary and its probes lie in a slot that the shard has.

    :param link: the way to it.
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


def _of_session(
    method: Callable[Concatenate[RedisStore, P], T], digest_of: Callable[[Any], str] = attrgetter("digest")
) -> Callable[Concatenate[ClusterStore, P], T]:
    """Return a method that does what one of :class:`RedisStore` does, on the shard that has the session.

    :param digest_of: says which session that is, given the first argument.
    """
    name = method.__name__

    def ask(self: ClusterStore, /, *arguments: P.args, **options: P.kwargs) -> T:
        def there(store: RedisStore, left: float) -> T:
            done: T = getattr(store, name)(*arguments, **{**options, "timeout": left})
            return done

        return self.route(digest_of(arguments[0]), cast(float, options["timeout"]), there)

    return ask


def _of_several(
    method: Callable[Concatenate[RedisStore, P], Sequence[T]], digest_of: Callable[[Any], str], *, fails: bool = True
) -> Callable[Concatenate[ClusterStore, P], list[T]]:
    """Return a method that does with several things what one of :class:`RedisStore` does, in one round trip for each
    shard, with that time-out. Where a slot is on its way to another shard each thing goes its own way.

    :param digest_of: says to which session a thing belongs.
    :param fails: as a whole, if one of those fails; else its error is among the results.
    """
    name = method.__name__

    def ask(self: ClusterStore, /, *arguments: P.args, **options: P.kwargs) -> list[T]:
        items, *others = cast(list[Any], arguments)
        timeout = cast(float, options["timeout"])

        def together(store: RedisStore, some: Sequence[Any], left: float) -> Sequence[T]:
            done: Sequence[T] = getattr(store, name)(some, *others, **{**options, "timeout": left})
            return done

        def alone(item: Any) -> T | StoreError:
            def there(store: RedisStore, left: float) -> T:
                [done] = together(store, [item], left)
                if isinstance(done, StoreError):
                    raise done
                return done

            try:
                return self.route(digest_of(item), timeout, there)
            except StoreError as error:
                if fails:
                    raise
                return error

        found: dict[int, Any] = {}
        for number, places in sorted(self.by_shard(map(digest_of, items)).items()):
            try:
                done = together(self._store_of(number), [items[place] for place in places], timeout)
            except StoreError as error:
                if error.error_class is not ErrorClass.TOPOLOGY:
                    raise
                done = [cast(T, error)] * len(places)
            for place, each in zip(places, done, strict=True):
                is_moving = isinstance(each, StoreError) and each.error_class is ErrorClass.TOPOLOGY
                found[place] = alone(items[place]) if is_moving else each
        return [found[place] for place in range(len(items))]

    return ask


def _key_of(commands: Sequence[tuple[Any, ...]]) -> str:
    """Return a key that plain commands are about; they are all in one slot. Without one, any shard will do."""
    return next((str(command[1]) for command in commands if len(command) > 1), "")


def _digest_of_push(what: tuple[AuthRow | str, int]) -> str:
    return what[0] if isinstance(what[0], str) else what[0].digest


class ClusterStore:
    """The stores of all shards, in one role, as one store. They follow the map.

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
        self._is_primary = name == PRIMARY
        self._make = make
        self._stores: Mapping[int, RedisStore] = {}
        self._count = count
        self._clock = clock
        self._sleep = sleep
        self._between: dict[int, float] = {}
        directory.tell(self)

    # -- shards ----------------------------------------------------------------------------------------------------

    def arrange(self, places: Mapping[int, Servers], *, has_hole: bool = False) -> None:
        """Have a store for each of these shards, as far as there are servers for this role.

        :param has_hole: some slots have no shard. Their store finds no server, and is lost.
        """
        wanted = [number for number, place in sorted(places.items()) if self._is_primary or place.replicas]
        if has_hole and self._is_primary:
            wanted.insert(0, NO_SHARD)
        if list(self._stores) == wanted:
            return
        gone = [store for number, store in self._stores.items() if number not in wanted]
        self._stores = {number: self._stores.get(number) or self._make(number) for number in wanted}
        self._directory.arranged(self.name, [name_of(number) for number in wanted])
        for store in gone:
            store.forget_connections()

    def _store_of(self, number: int) -> RedisStore:
        store = self._stores.get(number)
        if store is None:
            raise StoreError(self.name, ErrorClass.UNREACHABLE, "SlotNotServed")
        return store

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Return the servers of the shards, by name."""
        return {store.name: store.endpoint for store in self._stores.values()}

    def find_shards(self, timeout: float) -> None:
        """Find the shards, if none is known: ask one node after the other.

        :param timeout: seconds for each.
        :raises StoreError: no node answers.
        """
        if self._directory.map is None:
            self._asked(self._directory.refresh, timeout)

    def _asked(self, ask: Callable[[float], T], timeout: float) -> T:
        try:
            return ask(timeout)
        except ValueError:  # a node answers, but knows of no slots yet
            raise StoreError(self.name, ErrorClass.UNREACHABLE, "NoSlots") from None
        except (driver.RedisError, OSError) as error:
            raise translate(self.name, error) from None

    @property
    def homeless(self) -> int:
        """Return how many of the :data:`SLOTS` no shard has, as far as is known."""
        return self._directory.map.homeless if self._directory.map is not None else 0

    # -- the shard that has a key ----------------------------------------------------------------------------------

    def route(self, key: str, timeout: float, call: Callable[[RedisStore, float], T]) -> T:
        """Ask the shard that has a key (of a session its digest), or where it says.

        :param timeout: seconds, of all stores that are asked, one after the other.
        """
        slot = key_slot(key.encode())
        ends = self._clock() + (timeout.whole if isinstance(timeout, Wait) else timeout)
        known = self._directory.map or self._asked(self._directory.learn, timeout)
        store = self._store_of(known.owners[slot])
        redirected, tries = False, 0
        while True:
            try:
                done = call(store, timeout)
            except Redirected as error:
                self._count(_COUNTERS[error.cause])
                if redirected or not self._is_primary:
                    raise
                redirected = True
                store = self._follow(store, error)
            except StoreError as error:
                if error.cause not in _COUNTERS:
                    if error.error_class is ErrorClass.TOPOLOGY:  # no server has the slot, which the map does not know
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

    def _follow(self, store: RedisStore, error: Redirected) -> RedisStore:
        address = Address(*error.address)
        if not address.host:
            address = Address(self._directory.host_of(store.name), address.port)
        if error.for_good:
            return self._store_of(self._directory.note_moved(error.slot, address))
        number = self._directory.note_moving(error.slot, address)
        if number is None:
            raise error  # the monitor looks for it
        return self._store_of(number).announcing(_ASKING)

    def _wait_for(self, slot: int, error: StoreError, tries: int, ends: float) -> None:
        """Wait a moment for a slot of which some keys are here and some there, or are not anywhere yet.

        :raises StoreError: it is not worth it.
        """
        now = self._clock()
        is_persistent = now - self._between.setdefault(slot, now) > _PERSISTENT
        pause = CHANCE.uniform(0.025, 0.05)
        # However long it lasts, it is the matter of one slot: no breaker is told, or the whole shard would be lost.
        if is_persistent or tries > _TRIES_AGAIN or ends - now - pause < LEAST_WAIT:
            raise error
        self._sleep(pause)

    # -- sessions --------------------------------------------------------------------------------------------------

    write = _of_session(RedisStore.write)
    push = _of_session(RedisStore.push)
    extend_idle = _of_session(RedisStore.extend_idle, str)
    quarantine = _of_session(RedisStore.quarantine)
    run_commands = _of_session(RedisStore.run_commands, _key_of)
    _read = _of_session(RedisStore.read)

    push_many = _of_several(RedisStore.push_many, _digest_of_push)
    merge_all = _of_several(RedisStore.merge_all, attrgetter("digest"), fails=False)
    copies = _of_several(RedisStore.copies, itemgetter(0))
    auths = _of_several(RedisStore.auths, str)

    def by_shard(self, digests: Iterable[str]) -> Mapping[int, Sequence[int]]:
        """Return the number of each shard that has some of these sessions → their places among them."""
        found: dict[int, list[int]] = {}
        for place, digest in enumerate(digests):
            found.setdefault(self._directory.number_of(digest), []).append(place)
        return found

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
        return self._stores.get(known.number_of(digest)) if known else None

    def forget_connections(self) -> None:
        """Drop the connections to all shards."""
        for store in self._stores.values():
            store.forget_connections()
