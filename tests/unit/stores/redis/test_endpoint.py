"""Questions to one server beside its sessions, and the place of a shard's canary."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.redis.cluster import ShardEndpoint
from flask_langpont_session.stores.redis.commands import Command
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from flask_langpont_session.stores.redis.slots import tag_of
from flask_langpont_session.stores.redis.store import RedisStore

WAIT = 1.0
SLOT = 5461
CANARY_ID = b"5461:0123456789abcdef"


class Link:
    """The way to a server that answers what a test says.

    :ivar sent: what it was sent, as bytes; `beside`: the same over new connections.
    :ivar fails: raised instead of an answer.
    """

    name = "primary"

    def __init__(self, announces: bytes = b"") -> None:
        self.announces = announces
        self.server_identity = ServerIdentity()
        self.sent: list[bytes] = []
        self.beside: list[bytes] = []
        self.fails: StoreError | None = None
        self.connections = SimpleNamespace(address="")

    def run(self, commands: Sequence[Command], timeout: float) -> list[Any]:
        self.sent += [command.packed for command in commands]
        if self.fails is not None:
            raise self.fails
        return [[b"1700000000", b"5999"]] if b"TIME" in commands[0].packed else [[1000, CANARY_ID, 4]]

    def over_a_new_one(self, commands: Sequence[Command], timeout: float) -> float:
        self.beside += [command.packed for command in commands]
        if self.fails is not None:
            raise self.fails
        return 0.25

    def announcing(self, command: bytes) -> Link:
        return Link(command)


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def endpoint(link: Any) -> Endpoint:
    return Endpoint(link, prefix="session")


class Directory:
    """A directory that says in which slot the canary of a shard lies.

    :ivar avoided: slots that were found to be no place for it.
    """

    def __init__(self) -> None:
        self.avoided: list[int] = []

    def canary_slot(self, number: int) -> int:
        return SLOT

    def avoid(self, slot: int) -> None:
        self.avoided.append(slot)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def shard(link: Any, directory: Any) -> ShardEndpoint:
    return ShardEndpoint(link, directory=directory, number=2, prefix="session")


# -- a server ----------------------------------------------------------------------------------------------------------


def test_the_clock_is_told_in_whole_milliseconds(endpoint: Endpoint) -> None:
    """Fractions of a millisecond are cut off."""
    assert endpoint.time_ms(timeout=WAIT) == 1_700_000_000_005


def test_the_canary_is_compared_with_what_is_known_of_it(endpoint: Endpoint, link: Link) -> None:
    """Without an earlier canary, nothing can be missed."""
    found = endpoint.look_at_canary(None, timeout=WAIT)
    assert found == Canary(CANARY_ID.decode(), 4, 1000)
    endpoint.look_at_canary(found, timeout=WAIT)
    assert [CANARY_ID in sent for sent in link.sent] == [False, True]
    assert all(b"session:canary" in sent for sent in link.sent)


def test_a_look_at_the_canary_tells_how_late_it_is(endpoint: Endpoint) -> None:
    """So an idle worker notices a clock that was set, too."""
    assert endpoint.server_identity.estimated_ms(monotonic()) == 0
    endpoint.look_at_canary(None, timeout=WAIT)
    assert endpoint.server_identity.estimated_ms(monotonic()) >= 1000


def test_probes_go_over_new_connections(endpoint: Endpoint, link: Link) -> None:
    """An old one says nothing of those that requests will make."""
    assert endpoint.probe("session:canary:worker", "value", timeout=WAIT) == 0.25
    assert endpoint.probe_read(timeout=WAIT) == 0.25
    assert link.sent == []
    assert b"session:canary:worker" in link.beside[0]
    assert b"session:canary\r\n" in link.beside[-1]


# -- the server of a shard ---------------------------------------------------------------------------------------------


def test_canary_and_probes_of_a_shard_lie_in_a_slot_of_it(shard: ShardEndpoint, link: Link) -> None:
    """Elsewhere it would send them to another shard."""
    shard.look_at_canary(None, timeout=WAIT)
    shard.probe("session:canary:worker", "value", timeout=WAIT)
    shard.probe_read(timeout=WAIT)
    tag = f"{{{tag_of(SLOT)}}}".encode()
    assert all(tag in sent for sent in [*link.sent, link.beside[0], link.beside[-1]])


@pytest.mark.parametrize(("place", "is_compared"), [("5461", True), ("5462", False)])
def test_a_canary_that_lay_elsewhere_is_not_missed(
    shard: ShardEndpoint, link: Link, place: str, is_compared: bool
) -> None:
    """Its slot has gone to another shard, and the canary with it."""
    shard.look_at_canary(Canary(f"{place}:known", 9, 1), timeout=WAIT)
    assert (f"{place}:known".encode() in link.sent[0]) is is_compared


@pytest.mark.parametrize(
    ("error_class", "avoided"), [(ErrorClass.TOPOLOGY, [SLOT, SLOT]), (ErrorClass.UNREACHABLE, [])]
)
def test_a_slot_that_leaves_the_shard_is_no_place_for_its_canary(
    shard: ShardEndpoint, link: Link, directory: Directory, error_class: ErrorClass, avoided: list[int]
) -> None:
    """A server that does not answer says nothing about the slot, which is not avoided."""
    link.fails = StoreError("primary:2", error_class, "Test")
    with pytest.raises(StoreError):
        shard.look_at_canary(None, timeout=WAIT)
    with pytest.raises(StoreError):
        shard.probe("session:canary:worker", "value", timeout=WAIT)
    assert directory.avoided == avoided


# -- its store ---------------------------------------------------------------------------------------------------------


def test_a_store_that_announces_its_commands_is_the_same_store(link: Any) -> None:
    """But nothing is kept near of keys that are on their way; and the store itself announces nothing."""
    near: Any = SimpleNamespace()
    store = RedisStore(Endpoint(link, prefix="session", near=near))
    other: Any = store.announcing(b"ASKING")
    assert (other.link.announces, other.near) == (b"ASKING", None)
    assert (other.memory, other.key("ui", "digest")) == (store.memory, store.key("ui", "digest"))
    assert (store.link, store.near) == (link, near)
