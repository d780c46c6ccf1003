"""The map of a cluster, the way to a shard, and health by shard; without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions as driver
from redis.crc import key_slot

from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import (
    DATABASE,
    ONLY,
    PRIMARY,
    READ,
    REPLICA,
    WRITE,
    Health,
    HealthLimits,
    Shards,
)
from flask_langpont_session.policy.leases import LONGEST_UNCONFIRMED_MS
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.recovery.recovery import Recovery
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.request.scope import LOAD, VERIFY, RequestScope
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.stores.redis.cluster import ClusterStore
from flask_langpont_session.stores.redis.errors import translate
from flask_langpont_session.stores.redis.nodes import Nodes
from flask_langpont_session.stores.redis.records import Answer, Merge
from flask_langpont_session.stores.redis.slots import (
    NO_SHARD,
    SINGLE,
    SLOTS,
    Address,
    Servers,
    draw,
    moved,
    name_of,
    read_ranges,
    tag_of,
)
from flask_langpont_session.stores.redis.topology import REST, ClusterTopology

THIRDS = ((0, 5460), (5461, 10922), (10923, 16383))


def node(number: int) -> Address:
    return Address("h", number)


def ranges(*shards: tuple[int, ...], slots: Sequence[tuple[int, int]] = THIRDS) -> list[Any]:
    """Return an answer to CLUSTER SLOTS: of each shard its slots, its primary, its replicas."""
    return [
        [first, last, *([b"h", port, b"id", []] for port in ports)]
        for (first, last), ports in zip(slots, shards, strict=True)
    ]


def read(*shards: tuple[int, ...], slots: Sequence[tuple[int, int]] = THIRDS) -> Any:
    return read_ranges(ranges(*shards, slots=slots), node(1))


def on(slot: int) -> str:
    """A digest whose session is in a slot."""
    return tag_of(slot)


# -- the map -----------------------------------------------------------------------------------------------------------


def test_every_slot_has_its_shard() -> None:
    """Numbered in the order of their slots, however the answer is ordered."""
    found = draw(reversed(read((1, 4), (2, 5), (3, 6))))
    assert [found.owners[slot] for slot in (0, 5460, 5461, 10922, 10923, SLOTS - 1)] == [1, 1, 2, 2, 3, 3]
    assert found.places[2] == Servers(node(2), (node(5),))
    assert found.number_of(on(5461)) == 2
    assert [found.at(node(port)) for port in (3, 6, 7)] == [3, 3, None]


def test_a_slot_may_have_no_shard() -> None:
    """Some shard was never given its slots, or they were taken from it."""
    found = draw(read((1,), (2,), slots=((0, 10), (20, 30))))
    assert (found.owners[10], found.owners[11], found.owners[31]) == (1, NO_SHARD, NO_SHARD)


@pytest.mark.parametrize(
    ("after", "numbers"),
    [
        ([(4,), (2, 5), (3, 6)], {1: 4, 2: 2, 3: 3}),  # the replica of the first was promoted
        ([(3, 6), (1, 4), (2, 5)], {3: 3, 1: 1, 2: 2}),  # they exchanged their slots
        ([(7, 8), (2, 5), (3, 6)], {1: 7, 2: 2, 3: 3}),  # all nodes of the first have other names
    ],
    ids=["failover", "slots", "names"],
)
def test_a_shard_keeps_its_number(after: list[tuple[int, ...]], numbers: dict[int, int]) -> None:
    """The number stays whatever happens to the shard's primary or its slots, as long as either is left."""
    found = draw(read(*after), draw(read((1, 4), (2, 5), (3, 6))))
    assert {number: place.primary.port for number, place in found.places.items()} == numbers


def test_a_new_shard_has_a_new_number() -> None:
    """The number is not that of a shard that went away meanwhile: the new shard must not be taken for that one."""
    before = draw(read((1, 4), (2, 5), (3, 6)))
    halves = ((0, 8191), (8192, SLOTS - 1))
    two = draw(read((1, 4), (2, 5), slots=halves), before)
    assert set(two.places) == {1, 2}
    more = draw(read((1, 4), (2, 5), (9,), slots=((0, 5000), (5001, 10000), (10001, SLOTS - 1))), before)
    assert more.places[3].primary == node(9), "it has the slots of the third, whose nodes are gone"
    both = draw(
        read((1, 4), (2, 5), (3, 6), (9,), slots=((0, 5460), (5461, 10922), (10923, 16000), (16001, SLOTS - 1))), before
    )
    assert both.places[4].primary == node(9)


def test_what_moved_is_told() -> None:
    """Slots are told that went from one shard to another, or came from none, where they may have lain for long; not
    those that no shard has by now."""
    before = draw(read((1,), (2,), slots=((0, 10), (11, 20))))
    after = draw(read((1,), (2,), slots=((1, 8), (9, 21))), before)
    assert moved(before, after) == [9, 10, 21]
    assert moved(before, draw(read((1,), (2,), slots=((0, 10), (11, 20))), before)) == []


def test_a_host_that_is_not_named_is_the_one_that_answered() -> None:
    """Nodes answer so that do not know their own name."""
    answered = [[0, SLOTS - 1, [None, 1, b"id"], [b"", 2, b"id"], [b"?", 3, b"id"]]]
    [(_, _, place)] = read_ranges(answered, Address("asked", 9))
    assert place == Servers(Address("asked", 1), (Address("asked", 2), Address("asked", 3)))


@pytest.mark.parametrize("reply", [[], None, [[1]], [[0, SLOTS, [b"h", 1, b"id"]]], [[0, 1, b"h"]], b"PONG"])
def test_what_is_no_map_is_refused(reply: Any) -> None:
    """A node that was reset knows no slots; another server knows no such command."""
    with pytest.raises(ValueError, match=r"slots|SLOTS"):
        read_ranges(reply, node(1))


@pytest.mark.parametrize("slot", [0, 1, 8191, SLOTS - 1])
def test_a_tag_leads_to_its_slot(slot: int) -> None:
    """A tag leads to its slot in a key with braces, and as a digest."""
    assert key_slot(f"session:canary:{{{tag_of(slot)}}}".encode()) == slot == key_slot(tag_of(slot).encode())


# -- the directory -----------------------------------------------------------------------------------------------------


class Cluster:
    """Nodes that answer CLUSTER SLOTS and CLUSTER INFO, or do not."""

    def __init__(self) -> None:
        self.answers: dict[int, tuple[int, Any]] = {}
        self.asked: list[int] = []
        self.now = 1000.0
        self.arranged: list[tuple[str, list[str]]] = []
        self.single: Servers | None = None
        self.directory = ClusterTopology(
            Nodes(lambda: [node(1), node(9)], lambda: False, {}, lambda: self.single),
            self.connect,
            clock=lambda: self.now,
        )
        self.directory.arranged = lambda role, shards: self.arranged.append((role, list(shards)))

    def connect(self, address: Address, timeout: float) -> Any:
        self.asked.append(address.port)
        if address.port not in self.answers:
            raise driver.ConnectionError("refused")
        epoch, slots = self.answers[address.port]
        replies = iter([slots, b"cluster_state:ok\r\ncluster_current_epoch:%d\r\n" % epoch])
        return SimpleNamespace(
            pack_commands=lambda commands: commands,
            send_packed_command=lambda commands, check_health: None,
            read_response=lambda **options: next(replies),
            disconnect=lambda: None,
        )

    def primary(self, number: int) -> Address:
        """Return the address of a shard's primary, as the directory has it."""
        assert self.directory.map is not None
        return self.directory.map.places[number].primary

    def say(self, epoch: int, *shards: tuple[int, ...], by: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> None:
        self.answers.update(dict.fromkeys(by, (epoch, ranges(*shards))))


WHOLE = ((1, 4), (2, 5), (3, 6))


@pytest.fixture
def nodes() -> Cluster:
    return Cluster()


@pytest.fixture
def known(nodes: Cluster) -> Cluster:
    """Return a cluster whose map is known."""
    nodes.say(7, *WHOLE)
    nodes.directory.refresh(1)
    nodes.asked.clear()
    return nodes


def test_a_request_asks_one_node_only(nodes: Cluster) -> None:
    """Another one the next time; the monitor asks them all."""
    for _ in range(2):
        with pytest.raises(driver.ConnectionError):
            nodes.directory.learn(1)
    assert sorted(nodes.asked) == [1, 9]
    nodes.asked.clear()
    with pytest.raises(driver.ConnectionError):
        nodes.directory.refresh(1)
    assert sorted(nodes.asked) == [1, 9]
    nodes.say(1, *WHOLE, by=[9])
    nodes.directory.refresh(1)
    assert nodes.directory.locate(on(5461)) == ":2"
    nodes.asked.clear()
    assert nodes.directory.learn(1) is nodes.directory.map
    assert not nodes.asked


def test_every_known_node_is_asked_before_the_seeds(known: Cluster) -> None:
    """Each of them may be the only one that is left."""
    known.answers = {5: (7, ranges(*WHOLE))}
    for _ in range(10):
        known.directory.refresh(1)
    assert known.asked.count(5) == 10
    known.answers = {}
    known.asked.clear()
    with pytest.raises(driver.ConnectionError):
        known.directory.refresh(1)
    assert sorted(known.asked) == [1, 2, 3, 4, 5, 6, 9]


def test_a_node_that_missed_an_election_is_not_believed(known: Cluster) -> None:
    """It is cut off with the old primary, and still answers. Alone it is better than none."""
    known.say(8, (4,), (2, 5), (3, 6))
    known.directory.refresh(1)
    known.answers.clear()
    known.say(7, *WHOLE, by=[1])
    known.say(8, (4,), (2, 5), (3, 6), by=[6])
    for _ in range(10):
        known.directory.refresh(1)
        assert known.primary(1) == node(4)
    del known.answers[6]
    known.directory.refresh(1)
    assert known.primary(1) == node(1)


def test_the_map_is_looked_at_when_it_is_time(known: Cluster) -> None:
    """Every half minute; soon and ever more slowly while a shard is lost; soon after a request was sent elsewhere."""
    look = known.directory.attend
    look(lost=False)
    known.asked.clear()
    look(lost=False)
    assert not known.asked
    known.now += 1
    look(lost=True)
    look(lost=True)
    assert len(known.asked) == 1
    for _ in range(10):
        known.now += 0.4
        look(lost=True)
    assert 3 <= len(known.asked) <= 8
    known.asked.clear()
    known.now += 1
    known.directory.note_moved(0, node(2))
    look(lost=False)
    assert len(known.asked) == 1
    known.now += REST
    look(lost=False)
    assert len(known.asked) == 2


def test_what_came_from_another_shard_is_remembered_as_long_as_it_matters(known: Cluster) -> None:
    """A record that was confirmed there may be older than this worker's view of the shard it is on now."""
    known.directory.note_moved(3, node(2))
    assert known.directory.locate(on(3)) == ":2"
    assert set(known.directory.arrived) == {3}
    known.now += LONGEST_UNCONFIRMED_MS / 1000 + 1
    known.answers = {1: (9, ranges(*WHOLE))}
    known.directory.refresh(1)
    assert set(known.directory.arrived) == {3}, "it went back just now"
    known.now += LONGEST_UNCONFIRMED_MS / 1000 + 1
    known.answers = {1: (9, ranges((4,), *WHOLE[1:]))}
    known.directory.refresh(1)
    assert known.directory.arrived == {}


def test_an_unknown_server_is_a_new_shard(known: Cluster) -> None:
    """A promoted replica is not."""
    assert known.directory.note_moved(1, node(6)) == 3
    assert known.directory.map is not None
    assert known.directory.map.places[3] == Servers(node(6), (node(3),))
    assert known.directory.note_moved(1, node(8)) == 4


def test_a_canary_goes_to_a_slot_that_stays(known: Cluster) -> None:
    """The first one of its shard, unless that one is on its way."""
    assert known.directory.canary_slot(2) == 5461
    known.directory.avoid(5461)
    assert known.directory.canary_slot(2) == 5462
    known.now += 61
    assert known.directory.canary_slot(2) == 5461


# -- the store ---------------------------------------------------------------------------------------------------------


def said(store: str, error: str) -> StoreError:
    """Return the error of a node, as the store translates it."""
    kind, _, text = error.partition(" ")
    made = {"MOVED": driver.MovedError, "ASK": driver.AskError, "TRYAGAIN": driver.TryAgainError}[kind](text)
    return translate(store, made, sent=True)


class Part:
    """The store of a shard, with what it will say."""

    def __init__(self, number: int, stores: Stores, *, asks: bool = False) -> None:
        self.name = f"primary{name_of(number)}"
        self.number = number
        self._stores = stores
        self._asks = asks

    def read(self, ref: RecordRef, lives_ms: Any, *, timeout: float, anew: bool) -> Answer:
        self._stores.asked.append((self.number, self._asks))
        self._stores.timeouts.append(timeout)
        error = self._stores.errors.pop(0) if self._stores.errors else None
        if error:
            raise said(self.name, error)
        return Answer(1_000_000, trust_since_ms=5)

    def about_several(self, of: Any, *more: Any, timeout: float, **options: Any) -> list[str]:
        """Say of each which shard did it. On the first one a slot is on its way: it takes one at a time only."""
        digests = [getattr(each, "digest", each) for each in of]
        self._stores.asked.append((self.number, self._asks))
        if self.number == 1 and len(digests) > 1:
            raise said(self.name, "TRYAGAIN")
        return [f"{digest} by {self.number}" for digest in digests]

    copies = auths = about_several

    def merge_all(self, merges: Any, **options: Any) -> list[Any]:
        """Refuse each for itself."""
        is_moving = self.number == 1 and len(merges) > 1
        return [said(self.name, "TRYAGAIN") if is_moving else f"{each.digest} by {self.number}" for each in merges]

    def push_many(self, what: Any, categories: Any, **options: Any) -> list[Any]:
        return self.about_several([of for of, _ in what], **options)

    @property
    def endpoint(self) -> Part:
        return self

    def announcing(self, command: bytes) -> Part:
        assert b"ASKING" in command
        return Part(self.number, self._stores, asks=True)

    def forget_connections(self) -> None:
        self._stores.closed.append(self.number)


class Stores:
    """A cluster store over parts that are told what to say."""

    def __init__(self, known: Cluster, role: str = PRIMARY) -> None:
        self.asked: list[tuple[int, bool]] = []
        self.timeouts: list[float] = []
        self.errors: list[str | None] = []
        self.closed: list[int] = []
        self.counted: list[str] = []
        self.nodes = known
        make: Any = lambda number: Part(number, self)  # noqa: E731
        self.store = ClusterStore(
            role,
            known.directory,
            make,
            prefix="session",
            count=self.counted.append,
            clock=lambda: known.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        assert 0.025 <= seconds <= 0.05
        self.nodes.now += seconds

    def read(self, slot: int = 0, *errors: str, timeout: float = 0.2) -> Answer:
        self.errors[:] = errors
        self.asked.clear()
        return self.store.read(RecordRef(on(slot), "a"), {}, timeout=timeout)


@pytest.fixture
def stores(nodes: Cluster) -> Stores:
    nodes.say(7, *WHOLE)
    made = Stores(nodes)
    nodes.directory.refresh(1)
    return made


def test_each_session_goes_to_its_shard(stores: Stores) -> None:
    """Health is told which shards there are."""
    for slot, number in ((0, 1), (5461, 2), (SLOTS - 1, 3)):
        stores.read(slot)
        assert stores.asked == [(number, False)]
    assert stores.nodes.arranged[-1] == (PRIMARY, [":1", ":2", ":3"])
    assert list(stores.store.endpoints) == ["primary:1", "primary:2", "primary:3"]


def test_calls_about_several_sessions_ask_each_shard_once(stores: Stores) -> None:
    """The answers for each shard come in the order of its sessions, however they are mixed."""
    store: Any = stores.store
    several = [on(SLOTS - 1), on(5461), on(SLOTS - 2)]
    assert store.auths(several, timeout=1) == [f"{several[0]} by 3", f"{several[1]} by 2", f"{several[2]} by 3"]
    assert stores.asked == [(2, False), (3, False)]
    assert store.auths([], timeout=1) == []


def test_where_a_slot_is_on_its_way_each_session_goes_its_own(stores: Stores) -> None:
    """Each session of such a slot goes its own way, whatever is asked; the other shards are asked for theirs
    together."""
    moving, other = [on(0), on(1)], on(5461)
    store: Any = stores.store
    answers = [f"{digest} by 1" for digest in moving] + [f"{other} by 2"]
    assert store.auths([*moving, other], timeout=1) == answers
    assert [number for number, _ in stores.asked] == [1, 1, 1, 2]
    places = [(digest, "ui") for digest in (*moving, other)]
    assert store.copies(places, timeout=1) == [f"{place} by {1 + (place[0] == other)}" for place in places]
    row = AuthRow(moving[0], "7", 3, True, {}, 0, 0, 0, 0, 0)
    assert store.push_many([(row, 9), (moving[1], 4)], ("auth",), stamp_ms=1, timeout=1) == answers[:2]
    merges = [Merge(digest, "ui", [], "free", 1) for digest in (*moving, other)]
    assert store.merge_all(merges, limits=None, timeout=1, write_id="1234567") == answers


def test_a_slot_that_moved_is_asked_for_there_once(stores: Stores) -> None:
    """The next one goes there at once; what was confirmed before is not trusted."""
    answer = stores.read(0, "MOVED 0 h:2")
    assert (stores.asked, stores.counted) == ([(1, False), (2, False)], ["cluster_moved"])
    assert answer.trust_since_ms == 1_000_000
    stores.nodes.now += 2
    answer = stores.read(0)
    assert stores.asked == [(2, False)]
    assert answer.trust_since_ms == 998_000
    with pytest.raises(StoreError) as caught:
        stores.read(0, "MOVED 0 h:3", "MOVED 0 h:2")
    assert caught.value.error_class is ErrorClass.TOPOLOGY
    assert len(stores.asked) == 2


def test_a_slot_on_its_way_is_asked_for_with_a_word_before(stores: Stores) -> None:
    """Once; it stays where it is."""
    stores.read(0, "ASK 0 h:3")
    assert stores.asked == [(1, False), (3, True)]
    stores.read(0)
    assert stores.asked == [(1, False)]
    with pytest.raises(StoreError):
        stores.read(0, "ASK 0 h:77")
    assert stores.asked == [(1, False)], "that node is not known yet"


def test_a_slot_between_two_nodes_is_tried_again_twice(stores: Stores) -> None:
    """No longer than there is time for; after a second of it not at all. No breaker is told: it is one slot."""
    stores.read(0, "TRYAGAIN x", "TRYAGAIN x")
    assert len(stores.asked) == 3
    with pytest.raises(StoreError) as caught:
        stores.read(0, *["TRYAGAIN x"] * 3)
    assert (len(stores.asked), caught.value.error_class) == (3, ErrorClass.TOPOLOGY)
    with pytest.raises(StoreError) as caught:
        stores.read(0, *["TRYAGAIN x"] * 3, timeout=0.03)
    assert len(stores.asked) <= 2
    stores.nodes.now += 1
    with pytest.raises(StoreError) as caught:
        stores.read(0, *["TRYAGAIN x"] * 3)
    assert (len(stores.asked), caught.value.error_class) == (1, ErrorClass.TOPOLOGY)
    stores.read(0)
    stores.read(0, "TRYAGAIN x")
    assert len(stores.asked) == 2, "it was whole in between"
    assert set(stores.counted) == {"cluster_try_again"}


def test_all_waits_of_a_call_come_out_of_its_time(stores: Stores) -> None:
    """The wait for a node's connection counts, too."""
    stores.timeouts.clear()
    stores.read(0, "TRYAGAIN x", "MOVED 0 h:2", timeout=0.2)
    first, second, third = stores.timeouts
    assert first == 0.2
    assert 0.15 <= second <= 0.175 + 1e-9
    assert third == second


def test_a_slot_without_a_shard_has_no_store(stores: Stores) -> None:
    """Its sessions are served without Redis; no shard is blamed."""
    assert stores.nodes.directory.map is not None
    stores.nodes.directory.map.owners[5] = NO_SHARD
    with pytest.raises(StoreError) as caught:
        stores.read(5)
    assert caught.value.store == PRIMARY
    assert stores.nodes.directory.locate(on(5)) == ONLY


def test_slots_without_a_shard_are_a_lost_shard(stores: Stores) -> None:
    """Health is told when they appear and when they are given to a shard."""
    two = ranges((1, 4), (2, 5), slots=((0, 8191), (8192, 12287)))
    stores.nodes.answers = {1: (9, two)}
    stores.nodes.directory.refresh(1)
    assert stores.nodes.arranged[-1] == (PRIMARY, [ONLY, ":1", ":2"])
    assert [stores.nodes.directory.share(shard) for shard in (":1", ":2", ONLY)] == [0.5, 0.25, 0.25]
    assert stores.store.homeless == 4096
    stores.nodes.answers = {1: (9, ranges((1, 4), (2, 5), slots=((0, 8191), (8192, SLOTS - 1))))}
    stores.nodes.directory.refresh(1)
    assert stores.nodes.arranged[-1] == (PRIMARY, [":1", ":2"])
    assert stores.store.homeless == 0


def test_a_shard_that_is_gone_is_forgotten(stores: Stores) -> None:
    """A shard that is gone is forgotten with its connections; health is told."""
    halves = ranges((1, 4), (2, 5), slots=((0, 8191), (8192, SLOTS - 1)))
    stores.nodes.answers = {1: (9, halves)}
    stores.nodes.directory.refresh(1)
    assert list(stores.store.endpoints) == ["primary:1", "primary:2"]
    assert stores.closed == [3]
    assert stores.nodes.arranged[-1] == (PRIMARY, [":1", ":2"])


def test_servers_that_are_no_cluster_are_one_shard_without_a_number(nodes: Cluster) -> None:
    """No node is asked for a map, not even by a request; and the replica comes and goes as it is said."""
    primary, replica = Stores(nodes), Stores(nodes, REPLICA)
    nodes.single = Servers(node(1))
    for slot in (0, SLOTS - 1):
        assert primary.read(slot).trust_since_ms == 5
        assert primary.asked == [(SINGLE, False)]
        assert nodes.directory.locate(on(slot)) == ONLY
    for replicas in ((node(2),), ()):
        nodes.single = Servers(node(1), replicas)
        nodes.directory.refresh(1)
        assert nodes.arranged[-1] == (REPLICA, [ONLY] if replicas else [])
        assert (list(primary.store.endpoints), bool(replica.store.endpoints)) == ([PRIMARY], bool(replicas))
    assert nodes.asked == []


def test_what_becomes_a_cluster_has_the_names_of_one(nodes: Cluster) -> None:
    """The names are as if it had been found as a cluster, also at an address that is known; and it may cease to be
    one. What was confirmed before it changed is not trusted."""
    stores = Stores(nodes)
    nodes.single = Servers(node(1), (node(2),))
    assert nodes.directory.adopt_single()
    nodes.say(7, *WHOLE)
    nodes.single = None
    assert not nodes.directory.adopt_single()
    assert nodes.directory.locate(on(0)) == ONLY, "it is asked first"
    nodes.directory.refresh(1)
    assert list(stores.store.endpoints) == ["primary:1", "primary:2", "primary:3"]
    assert nodes.arranged[-1] == (PRIMARY, [":1", ":2", ":3"])
    assert stores.closed == [SINGLE]
    assert stores.read(0).trust_since_ms == 1_000_000
    nodes.now += 1
    nodes.single = Servers(node(9))
    nodes.directory.refresh(1)
    assert nodes.arranged[-1] == (PRIMARY, [ONLY])
    assert stores.closed == [SINGLE, 1, 2, 3]
    assert stores.read(0).trust_since_ms == 1_000_000


# -- health ------------------------------------------------------------------------------------------------------------

SHARDS = (":1", ":2", ":3")
ALL = [DATABASE, *(f"{role}{shard}" for role in (PRIMARY, REPLICA) for shard in SHARDS)]


def lose(health: Health, *stores: str) -> None:
    for store in stores:
        health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Test", timed_out=True), READ)


def test_a_shard_is_lost_for_its_own_sessions() -> None:
    """Level 1 by its replica, then 2, for them; 0 for the others; the worst is what the whole shows."""
    health = Health(ALL)
    assert (health.level, len(health.lost_shards)) == (0, 0)
    lose(health, "primary:2")
    assert [health.snapshot(shard).level for shard in SHARDS] == [0, 1, 0]
    lose(health, "replica:2")
    assert [health.snapshot(shard).level for shard in SHARDS] == [0, 2, 0]
    assert (health.level, health.lost_shards) == (2, (":2",))
    assert health.best_shard in (":1", ":3")
    lose(health, DATABASE)
    assert [health.snapshot(shard).level for shard in SHARDS] == [0, 4, 0]
    assert not health.snapshot(":1").can(DATABASE)
    health.close("primary:2", (READ, WRITE))
    assert health.level == 0


def test_the_share_of_lost_shards_is_the_share_of_the_sessions() -> None:
    """A lost shard counts by its share of the slots; a single primary counts as all or nothing."""
    health = Health(ALL, shards=Shards(share={":1": 0.5, ":2": 0.3, ":3": 0.2}.__getitem__))
    assert health.lost_share == 0
    lose(health, "primary:1", "replica:2", "primary:3")
    assert health.lost_share == pytest.approx(0.7)
    single = Health([PRIMARY, DATABASE])
    assert single.lost_share == 0
    lose(single, PRIMARY)
    assert single.lost_share == 1


def test_each_shard_has_an_outage_of_its_own_age() -> None:
    """Its local copies age from when it was lost."""
    now = [0.0]
    health = Health([DATABASE, "primary:1", "primary:2"], limits=HealthLimits(local_ttl=100), clock=lambda: now[0])
    lose(health, "primary:1")
    now[0] = 60
    lose(health, "primary:2")
    now[0] = 120
    assert [health.snapshot(shard).level for shard in (":1", ":2")] == [3, 2]


def test_a_request_goes_to_two_shards_with_one_budget() -> None:
    """A sign-in has to do with the old session and the new one."""
    now = [0.0]
    health = Health(ALL, shards=Shards(lambda digest: f":{digest}"), clock=lambda: now[0])
    scope = RequestScope(health, Recorder(), {PRIMARY: 0.2, DATABASE: 0.2}, 0.3, lambda: now[0], ":1")
    assert scope.to("1") is scope
    there = scope.to("2")
    assert there.to("1") is scope
    assert scope.to("2") is there

    def fail(timeout: float) -> None:
        now[0] += timeout
        raise StoreError("primary:2", ErrorClass.UNREACHABLE, "Test", timed_out=True)

    with pytest.raises(StoreError):
        there.ask(LOAD, fail)
    assert (there.level, scope.level) == (1, 0)
    waited: list[float] = []
    scope.ask(LOAD, lambda timeout: waited.append(timeout))
    assert waited == [pytest.approx(0.1)]
    assert health.lost_shards == (":2",)

    def no_answer(timeout: float) -> None:
        raise StoreError(DATABASE, ErrorClass.UNREACHABLE, "Test")

    with pytest.raises(StoreError):
        scope.ask(VERIFY, no_answer)
    assert not there.can(DATABASE, READ)
    assert not scope.to("3").can(DATABASE, READ)


# -- what waits --------------------------------------------------------------------------------------------------------


class Home:
    """Stores that take everything, and remember what."""

    def __init__(self) -> None:
        self.tombstones: list[str] = []
        self.merged: list[str] = []

    def push_many(self, what: Any, categories: Any, *, stamp_ms: int, timeout: float) -> None:
        self.tombstones += [digest for digest, _ in what]

    def kill_user_until(self, *arguments: Any, after: str, **options: Any) -> list[str]:
        return ["1a", "2b"] if not after else []


@pytest.mark.parametrize("others", [0, 1200])
def test_what_waits_for_a_lost_shard_keeps_nothing_else_waiting(tmp_path: Path, others: int) -> None:
    """All else is sent, however much waits for the lost shard, and however old it is: it stays where it is, and no
    node is asked."""
    home: Any = Home()
    journal = journal_at(tmp_path / "journal")
    backend: Any = SimpleNamespace(
        journal=journal,
        board=journal.board,
        primary=home,
        database=home,
        table=SimpleNamespace(categories=()),
        memory=SimpleNamespace(kill=lambda digest: None),
        is_over=lambda digest: None,
        health=SimpleNamespace(locate=lambda digest: f":{digest[0]}"),
        limits=None,
        reports=SimpleNamespace(losses=None, no_longer_in_use=lambda digest: None, lost_commits=0),
        settings=SimpleNamespace(lease_terms=SimpleNamespace(tombstone_ms=60_000)),
        lacks={},
        now_ms=lambda: 1,
    )
    recovery = Recovery(backend)
    users_and_sessions = recovery.steps.journal[:2]

    def replay(*shards: str) -> None:
        assert (
            recovery.run(users_and_sessions, Reach(frozenset(shards), True, backend.health.locate), 10.0).left is None
        )

    journal.revocations.note("2first", *(f"2{number}" for number in range(others)), "1last", in_database=True)
    replay(":1")
    assert home.tombstones == ["1last"]
    assert journal.counts()["revocations"] == others + 1
    journal.revocations.note_user("u", epoch=3)
    replay(":1")
    assert home.tombstones == ["1last", "1a"]
    assert journal.revocations.is_revoked("2b"), "it waits for its shard alone"
    assert not journal.counts()["user_revocations"]
    replay(":1", ":2")
    assert len(home.tombstones) == others + 4
    assert not journal.counts()["revocations"]
    journal.close()
