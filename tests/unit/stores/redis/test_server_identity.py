"""The server that answers, and since when it is trusted: identities, canaries, and what workers tell each other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from flask_langpont_session.policy.servers import ServerRecord
from flask_langpont_session.stores.redis.server_identity import (
    NEVER_MS,
    SET_FORWARD_MS,
    Canary,
    Server,
    ServerIdentity,
    identity_of,
)


class HostMemory:
    """The record of a server that the workers of one host share."""

    def __init__(self, record: ServerRecord | None = None) -> None:
        self.record = record
        self.noted: list[ServerRecord] = []

    def recall(self) -> ServerRecord | None:
        return self.record

    def note(self, record: ServerRecord) -> None:
        self.noted.append(record)


@pytest.fixture
def server_identity() -> ServerIdentity:
    return ServerIdentity()


# Identity


def test_at_first_nothing_is_known() -> None:
    """No server, no canary; an endpoint that never introduces itself is taken as it is."""
    server_identity = ServerIdentity()
    assert (server_identity.identity, server_identity.is_primary, server_identity.canary) == (None, True, None)
    assert server_identity.trust_since(Server()) == 0


Step = tuple[str | None, int] | Canary
"""A server introduces itself, with its clock; or a canary is looked at."""

KNOWN = ServerRecord("a", 1000, "g", 7)
"""What the other workers of the host know of a server."""

HISTORIES: dict[str, tuple[ServerRecord | None, tuple[Step, ...], tuple[int, int, int]]] = {
    "the first server: what happened before is not known": (None, (("a", 1000),), (1000, 1, 0)),
    "a reconnect": (None, (("a", 1000), ("a", 2000)), (1000, 1, 0)),
    "a restart or failover": (None, (("a", 1000), ("b", 2000)), (2000, 2, 0)),
    "back to the server before: anything may have been written there": (
        None, (("a", 1000), ("b", 2000), ("a", 3000)), (3000, 3, 0)),
    "trust is never dated back, though the new clock is behind": (None, (("a", 5000), ("b", 3000)), (5000, 2, 0)),
    "one that does not say which it is: each connection may lead elsewhere": (
        None, ((None, 1000), (None, 2000)), (2000, 0, 0)),
    "the first canary, and one that grows": (
        None, (("a", 1000), Canary("g", 1, 5000), Canary("g", 2, 5000), Canary("g", 7, 5000)), (1000, 1, 0)),
    "s9: another canary, once": (
        None, (("a", 1000), Canary("g", 7, 5000), Canary("h", 9, 6000), Canary("h", 10, 7000)), (6000, 2, 1)),
    "a canary that lies elsewhere, as its slot went to another shard": (
        None, (("a", 1000), Canary("5461:aa", 3, 5000), Canary("5462:bb", 1, 6000)), (1000, 1, 0)),
    "another one in that place": (
        None, (("a", 1000), Canary("5461:aa", 3, 5000), Canary("5461:cc", 1, 6000)), (6000, 2, 1)),
    "s5: a new worker goes on where its host is": (KNOWN, (("a", 9000), Canary("g", 8, 9500)), (1000, 0, 0)),
    "s5: data was lost while no worker ran": (KNOWN, (("a", 9000), Canary("h", 1, 9500)), (9500, 1, 1)),
    "s5: another server than the host knows": (KNOWN, (("b", 9000),), (9000, 1, 0)),
    "s5: only the first server is taken over": (KNOWN, (("b", 500), ("a", 9000)), (9000, 2, 0)),
    "the host met it with its clock set forward": (ServerRecord("a", 90_000, "g", 7), (("a", 9000),), (9000, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("known", "steps", "expected"), HISTORIES.values(), ids=HISTORIES)
def test_since_when_a_server_is_trusted(
    known: ServerRecord | None, steps: tuple[Step, ...], expected: tuple[int, int, int]
) -> None:
    """S5, S9: the moment by its clock, the number of incidents, and of losses that a canary showed."""
    incidents: list[None] = []
    identity, losses = ServerIdentity(lambda: incidents.append(None), HostMemory(known)), 0
    for step in steps:
        if isinstance(step, Canary):
            losses += identity.saw(step)
            assert identity.canary == step
        else:
            server = identity.observe(step[0], now_ms=step[1], is_primary=True)
    assert (identity.trust_since(server), len(incidents), losses) == expected


def test_a_connection_to_the_server_before_is_never_trusted(server_identity: ServerIdentity) -> None:
    """It may lead to a primary that was demoted, and may go on answering for long."""
    old = server_identity.observe("a", now_ms=1000, is_primary=True)
    new = server_identity.observe("b", now_ms=2000, is_primary=True)
    assert server_identity.trust_since(old) == NEVER_MS
    assert server_identity.trust_since(new) == 2000


def test_a_server_knows_its_role(server_identity: ServerIdentity) -> None:
    """A server that was a primary may be a replica under the next identity."""
    assert server_identity.observe("a", now_ms=1000, is_primary=True).is_primary
    assert not server_identity.observe("b", now_ms=2000, is_primary=False).is_primary
    assert not server_identity.is_primary


# The host's memory


def test_what_happens_is_noted() -> None:
    """Every incident, and every canary, so that workers that start later know."""
    memory = HostMemory()
    server_identity = ServerIdentity(memory=memory)
    server_identity.observe("a", now_ms=1000, is_primary=True)
    server_identity.saw(Canary("g", 1, 2000))
    server_identity.saw(Canary("h", 1, 3000))
    server_identity.observe("b", now_ms=4000, is_primary=True)
    assert memory.noted == [
        ServerRecord("a", 1000, "", 0),
        ServerRecord("a", 1000, "g", 1),
        ServerRecord("a", 3000, "h", 1),
        ServerRecord("b", 4000, "h", 1),
    ]


def test_s5_a_new_worker_takes_over_the_canary_of_its_host() -> None:
    server_identity = ServerIdentity(memory=HostMemory(KNOWN))
    server_identity.observe("a", now_ms=9000, is_primary=True)
    assert server_identity.canary is not None
    assert (server_identity.canary.canary_id, server_identity.canary.number) == ("g", 7)


def test_a_server_that_says_nothing_is_not_noted() -> None:
    """It could not be recognised."""
    memory = HostMemory(ServerRecord("a", 1000, "g", 7))
    server_identity = ServerIdentity(memory=memory)
    server_identity.observe(None, now_ms=9000, is_primary=True)
    server_identity.saw(Canary("g", 8, 9500))
    assert memory.noted == []
    assert server_identity.trust_since_ms == 9000


# Over a connection


class Connection:
    """A redis-py connection with the replies of a server."""

    def __init__(self, replies: Sequence[Any]) -> None:
        self.greeted = False
        self.sent: list[tuple[str, ...]] = []
        self.langpont_server: Server | None = None
        self._replies: Iterator[Any] = iter(replies)

    def on_connect(self) -> None:
        self.greeted = True

    def pack_commands(self, commands: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
        return commands

    def send_packed_command(self, commands: Sequence[tuple[str, ...]], check_health: bool) -> None:
        assert self.greeted
        assert not check_health
        self.sent += commands

    def read_response(self, *, disable_decoding: bool) -> Any:
        assert disable_decoding
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        return reply


SERVER = b"# Server\r\nredis_version:8.0\r\nrun_id:abc\r\n"
TIME = [b"1700000000", b"123456"]


@pytest.mark.parametrize(("role", "is_primary"), [(b"master", True), (b"slave", False)])
def test_a_new_connection_asks_which_server_answers(
    server_identity: ServerIdentity, role: bytes, is_primary: bool
) -> None:
    """Its run and its replication, in one round trip; the moment by the server's own clock."""
    connection = Connection([SERVER, b"# Replication\r\nrole:" + role + b"\r\nmaster_replid:def\r\n", TIME])
    server_identity.introduce(connection)
    assert connection.sent == [("INFO", "server"), ("INFO", "replication"), ("TIME",)]
    assert connection.langpont_server == server_identity.server
    assert (server_identity.trust_since_ms, server_identity.is_primary) == (1_700_000_000_123, is_primary)


OLD, NEW, NONE = "a" * 40, "b" * 40, "0" * 40


def identity(run_id: str, role: str, replid: str, before: str | None) -> str | None:
    """Return the identity of a server that says this. `before`: its second replication id; None: it does not know of
    one."""
    facts = {"role": role, "master_replid": replid} | ({} if before is None else {"master_replid2": before})
    return identity_of({"run_id": run_id}, facts)


BEFORE = ("one", "master", OLD, NONE)
PROMOTED, REPLICA = ("one", "master", NEW, OLD), ("one", "slave", OLD, NONE)


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        (BEFORE, ("two", "master", OLD, NONE), False),  # a restart
        (BEFORE, REPLICA, False),  # demoted
        (BEFORE, ("one", "slave", NEW, NONE), False),  # and synchronised
        (BEFORE, PROMOTED, False),
        (BEFORE, ("one", "master", OLD, NEW), False),  # and once more, after it was a replica again
        (BEFORE, ("one", "master", OLD, None), False),  # a server that tells of no promotion: every change counts
        (BEFORE, ("one", "master", NEW, None), False),
        (PROMOTED, ("one", "master", "d" * 40, OLD), False),  # each promotion: what was written in between is lost
        (REPLICA, ("one", "master", OLD, NEW), False),  # it is promoted, and goes on with the history that it had
        (REPLICA, ("one", "slave", NEW, NONE), False),  # a full synchronisation from elsewhere
        (BEFORE, ("one", "master", NEW, NONE), True),  # its first replica came, or its last one has gone for an hour
    ],
)
def test_what_may_have_older_data_is_another_server(before: Any, after: Any, is_same: bool) -> None:
    """Restart, promotion and resynchronisation."""
    assert (identity(*before) == identity(*after)) is is_same


def test_a_server_that_refuses_info_has_no_identity(server_identity: ServerIdentity) -> None:
    """An ACL without ``+info``: the connection works, and nothing from before it counts."""
    refusal = NoPermissionError("this user has no permissions to run the 'info' command")
    connection = Connection([refusal, refusal, TIME])
    server_identity.introduce(connection)
    assert connection.langpont_server == Server(None, True)
    assert server_identity.trust_since_ms == 1_700_000_000_123


# The clock of the server


def test_the_clock_is_not_known_until_it_was_told(server_identity: ServerIdentity) -> None:
    """0 says so; what was told of another server than the one seen last is worth nothing."""
    assert server_identity.estimated_ms(5.0) == server_identity.estimated_ms(5.0, latest=True) == 0
    before = server_identity.observe("a", now_ms=100, is_primary=True)
    server_identity.note_clock(before, 100, time.monotonic())
    assert server_identity.estimated_ms(time.monotonic()) > 0
    other = server_identity.observe("b", now_ms=100, is_primary=True)
    assert server_identity.estimated_ms(time.monotonic()) == 0
    server_identity.note_clock(before, 100, time.monotonic())
    assert server_identity.estimated_ms(time.monotonic()) == 0
    server_identity.note_clock(other, 100, time.monotonic())
    assert server_identity.estimated_ms(time.monotonic()) > 0


@pytest.mark.parametrize("at", [10.0, 10.25, 12.0, 8.0])
def test_the_clock_is_between_its_question_and_its_answer(server_identity: ServerIdentity, at: float) -> None:
    """Asked at 10 and answered at 10.25: at that moment it was what it said, at the earliest and at the latest. A
    deadline goes by the one, what was written by the other."""
    server_identity.clock = lambda: 10.25
    server_identity.note_clock(server_identity.server, 1_000_000, 10.0)
    since = round(at * 1000 - 10_000)
    assert server_identity.estimated_ms(at) == 1_000_000 + since - 250
    assert server_identity.estimated_ms(at, latest=True) == 1_000_000 + since + 1


class Noticing:
    """A server identity that notes what it says of incidents and of clocks that were set."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.identity = ServerIdentity(
            lambda: self.told.append("incident"), on_clock_set=lambda seconds: self.told.append(seconds)
        )
        self.server = self.identity.observe("a", now_ms=1_000_000, is_primary=True)
        self.identity.saw(Canary("here", 7, 1_000_000))
        self.told.clear()

    def hear(self, at: float, said: int, took: float = 0.0) -> None:
        self.identity.clock = lambda: at + took
        self.identity.note_clock(self.server, said, at)


def test_d34_a_clock_that_was_set_forward_is_an_incident_until_a_canary_tells_it() -> None:
    """The clock is an incident if it was set forward by the shortest life of what is in use or more; an answer that
    took long is none."""
    known = Noticing()
    known.hear(10.0, 1_000_000)
    known.hear(11.0, 1_010_990)  # by 9.988 s, at the least
    known.hear(12.0, 1_011_990, took=60.0)
    assert (known.told, known.identity.was_set) == ([], False)
    known.hear(13.0, 1_013_100 + SET_FORWARD_MS)
    assert known.told == ["incident", pytest.approx(10.1, abs=0.05)]
    assert known.identity.was_set
    expected = known.identity.expected_canary
    assert expected is not None
    assert (expected.canary_id, expected.number > 1 << 50) == ("here", True)
    assert not known.identity.saw(Canary("here", 8, 1_034_000))  # this look was under way by then
    assert known.identity.was_set
    assert known.identity.saw(Canary("new", 1, 1_034_000))
    assert (known.identity.was_set, known.identity.expected_canary) == (False, Canary("new", 1, 1_034_000))


def test_a_canary_that_another_worker_has_made_tells_it_too() -> None:
    """This worker makes no third one."""
    known = Noticing()
    known.hear(10.0, 1_000_000)
    known.hear(11.0, 9_000_000)
    assert known.identity.saw(Canary("of another worker", 3, 9_000_000))
    assert not known.identity.was_set


def test_stamps_count_again_after_a_clock_was_set_back() -> None:
    """Stamps from before the clock was set forward are older than that moment; those from between are in the future."""
    known = Noticing()
    known.hear(10.0, 1_000_000)
    known.hear(11.0, 90_000_000)
    known.identity.saw(Canary("new", 1, 90_000_000))
    assert known.identity.trust_since_ms == 90_000_000
    known.hear(12.0, 1_002_000)
    assert known.identity.trust_since_ms == 1_002_000
    known.hear(13.0, 1_002_500)  # that is back, too, but nothing was believed only since then
    assert known.identity.trust_since_ms == 1_002_000


Answers = list[tuple[float, float, int]]
"""When the server was asked, when it answered, and what it said its clock was."""

CLOCKS: dict[str, tuple[Answers, tuple[int, int]]] = {
    "an answer": ([(10.0, 10.0, 1_000_000)], (1_090_000, 1_090_001)),
    # A busy process reads an answer late. Five seconds before it knew the clock by a millisecond, and none can have
    # gained more than 2.5 on the other since then.
    "one that took long makes the clock no less known": (
        [(10.0, 10.0, 1_000_000), (11.0, 15.0, 1_001_500)], (1_089_997, 1_090_003)),
    "a slow answer": ([(10.0, 12.0, 1_002_000)], (1_090_000, 1_092_001)),
    # One was given at its end, the other one at its beginning: the clock is known by what both allow.
    "two of them say more together": ([(10.0, 12.0, 1_002_000), (12.0, 14.0, 1_002_000)], (1_089_999, 1_090_001)),
    # A clock that runs as fast as NTP lets it gains half a second in a thousand.
    "what was known long ago fades": (
        [(10.0, 10.0, 1_000_000), (1_000.0, 1_010.0, 1_995_000)], (1_089_500, 1_090_501)),
    **{f"a clock that was set by {ms} is known by the next answer alone": (  # both cannot be true
        [(10.0, 10.0, 1_000_000), (11.0, 11.01, 1_001_000 + ms)], (1_089_990 + ms, 1_090_001 + ms))
        for ms in (-5_000, -50, 50, 5_000)},
}  # fmt: skip


@pytest.mark.parametrize(("answers", "known"), CLOCKS.values(), ids=CLOCKS)
def test_the_clock_is_known_by_all_its_answers(
    server_identity: ServerIdentity, answers: Answers, known: tuple[int, int]
) -> None:
    """The earliest and the latest time at 100 seconds; of another server they say nothing."""
    assert noted(server_identity, answers) == known
    server_identity.observe("b", now_ms=1, is_primary=True)
    assert noted(server_identity, [(11.0, 15.0, 1_001_500)]) == (1_086_500, 1_090_501)


def noted(server_identity: ServerIdentity, answers: Answers) -> tuple[int, int]:
    for asked, answered, said in answers:
        server_identity.clock = iter([answered]).__next__
        server_identity.note_clock(server_identity.server, said, asked)
    return server_identity.estimated_ms(100.0), server_identity.estimated_ms(100.0, latest=True)
