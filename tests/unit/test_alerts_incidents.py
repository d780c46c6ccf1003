"""Incidents: when they are told, how often, and that each that was told is called off. No threads, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_langpont_session.aws import alert_table as table
from flask_langpont_session.aws.alert_table import ALERTS, Severity, alert_lines
from flask_langpont_session.aws.incidents import (
    LONGEST_QUEUE,
    PORTION,
    Details,
    Host,
    Notice,
    State,
    Terms,
    settle,
    step,
    take,
)
from flask_langpont_session.config import SEVERITIES

REDIS = table.REDIS_CONNECTION_FAILED.name
REPLICA = table.REPLICA_CONNECTION_FAILED.name
DATABASE = table.DATABASE_CONNECTION_FAILED.name
DATA_LOST = table.DATA_LOST.name
LEVEL_1, LEVEL_2, LEVEL_4 = table.LEVEL_REPLICA.name, table.LEVEL_FALLBACK.name, table.LEVEL_MINIMAL.name
START = 1_000_000.0
TERMS = Terms()


class World:
    """One host, a step per second, and an SNS that takes everything."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.host = Host()
        self.terms = terms
        self.now = START
        self.watching_since = START - 10_000
        self.suppressed = 0
        self.notices: list[Notice] = []

    def run(self, seconds: int, *seen: str, details: Details | None = None, pace: int = 1) -> list[str]:
        """Step on for so long while these conditions hold. What was told, as ``state key``."""
        before = len(self.notices)
        for _ in range(0, seconds, pace):
            self.now += pace
            self.look(seen, details)
        return [f"{notice.state} {notice.key}" for notice in self.notices[before:]]

    def look(self, seen: Iterable[str] = (), details: Details | None = None) -> None:
        # As the workers do: through the encoding that they share.
        self.host = msgspec.json.decode(msgspec.json.encode(self.host), type=Host)
        sightings = dict.fromkeys(seen, details or {})
        self.suppressed += step(self.host, sightings, self.now, self.terms, self.watching_since)
        for notice in take(self.host, self.now, self.terms):
            self.notices.append(notice)
            settle(self.host, notice.serial, self.now, self.terms, sent=True)


@pytest.fixture
def world() -> World:
    return World()


# -- one incident ------------------------------------------------------------------------------------------------------


def test_an_incident_is_told_twice(world: World) -> None:
    """Once when it has lasted, once when it has been over for long enough; nothing in between."""
    assert world.run(5, REDIS) == []
    assert world.run(2, REDIS) == [f"firing {REDIS}"]
    assert world.run(600, REDIS) == []
    assert world.run(29) == []
    assert world.run(2) == [f"resolved {REDIS}"]
    assert world.run(10_000) == []
    firing, resolved = world.notices
    assert firing.since == resolved.since == START + 1
    assert resolved.seen - resolved.since == 606
    assert world.host.is_idle


def test_a_blip_is_not_told(world: World) -> None:
    """A condition that is gone before it has lasted is no incident, however often it comes."""
    for _ in range(20):
        assert world.run(3, REDIS) == []
        assert world.run(10) == []
    assert world.host.is_idle


def test_a_short_gap_does_not_end_it(world: World) -> None:
    """An incident is over when nobody saw it for its whole healing time."""
    world.run(10, REDIS)
    for _ in range(5):
        assert world.run(25) == []
        assert world.run(1, REDIS) == []
    assert world.run(31) == [f"resolved {REDIS}"]


def test_what_happened_once_is_told_at_once_and_called_off_when_quiet(world: World) -> None:
    """An event has no state: it is over when it did not come again."""
    assert world.run(1, DATA_LOST) == [f"firing {DATA_LOST}"]
    assert world.run(200) == []
    assert world.run(1, DATA_LOST) == []
    assert world.run(299) == []
    assert world.run(2) == [f"resolved {DATA_LOST}"]


def test_a_long_incident_is_repeated(world: World) -> None:
    """Every ALERT_REPEAT, marked as the same incident."""
    world.terms = Terms(repeat=600)
    assert world.run(1900, REDIS) == [f"firing {REDIS}"] * 4
    assert [notice.repeated for notice in world.notices] == [False, True, True, True]
    assert len({notice.since for notice in world.notices}) == 1


def test_details_are_those_of_the_moment(world: World) -> None:
    """The message says what was known when it was told."""
    world.run(4, LEVEL_2, details={"level": 2})
    world.run(4, LEVEL_2, details={"level": 3})
    assert world.notices[0].details == {"level": 3}


def test_scopes_are_incidents_of_their_own(world: World) -> None:
    """Two stores that refuse our password are two incidents."""
    told = world.run(10, "auth-failed/primary", "auth-failed/database")
    assert sorted(told) == ["firing auth-failed/database", "firing auth-failed/primary"]


# -- several workers, and their ends -----------------------------------------------------------------------------------


def test_who_just_began_to_look_does_not_call_anything_off(world: World) -> None:
    """All workers died in the outage: the first one of the next day must have looked for long enough itself."""
    world.run(10, REDIS)
    world.now += 86_400
    world.watching_since = world.now
    assert world.run(29) == []
    assert world.run(2) == [f"resolved {REDIS}"]


def test_who_just_began_to_look_goes_on_with_it(world: World) -> None:
    """An outage that outlives all workers is one incident."""
    world.run(10, REDIS)
    world.now += 600
    world.watching_since = world.now
    assert world.run(3) == []
    assert world.run(60, REDIS) == []
    assert world.run(31) == [f"resolved {REDIS}"]


def test_a_message_whose_sender_died_is_sent_by_another(world: World) -> None:
    """It was taken and not settled: after the lease it is free again, and not before."""
    world.now += 1
    step(world.host, {DATA_LOST: {}}, world.now, TERMS, world.watching_since)
    [taken] = take(world.host, world.now, TERMS)
    assert take(world.host, world.now + TERMS.lease - 1, TERMS) == []
    assert take(world.host, world.now + TERMS.lease, TERMS) == [taken]


def test_a_recovery_does_not_overtake_its_alarm(world: World) -> None:
    """While the alarm waits for its second try, the recovery waits behind it."""
    for _ in range(10):
        world.now += 1
        step(world.host, {REDIS: {}}, world.now, TERMS, world.watching_since)
    [firing] = take(world.host, world.now, TERMS)
    settle(world.host, firing.serial, world.now, Terms(retry=100), sent=False)
    for _ in range(40):
        world.now += 1
        step(world.host, {}, world.now, Terms(retry=100), world.watching_since)
    assert [notice.state for notice in world.host.queue] == [State.FIRING, State.RESOLVED]
    assert take(world.host, world.now, Terms(retry=100)) == []
    assert world.run(100) == [f"firing {REDIS}", f"resolved {REDIS}"]


@pytest.mark.parametrize(
    ("key", "state", "attempts"),
    [
        (REDIS, State.FIRING, 2),
        (LEVEL_4, State.FIRING, 2),
        (REPLICA, State.FIRING, 1),
        ("server-changed/primary", State.FIRING, 1),
        (REPLICA, State.RESOLVED, 2),
        ("server-changed/primary", State.RESOLVED, 2),
    ],
)
def test_what_matters_is_tried_twice(key: str, state: State, attempts: int) -> None:
    """Critical and worse, and every recovery; the second time later."""
    notice = Notice(serial=1, key=key, state=state, since=START, at=START, seen=START, suppressed=0, firings=1)
    host = Host(queue=[notice])
    now = START
    for attempt in range(1, attempts + 1):
        assert take(host, now, TERMS) == [notice]
        assert settle(host, 1, now, TERMS, sent=False) is (attempt == attempts)
        assert take(host, now + TERMS.retry - 1, TERMS) == []
        now += TERMS.retry
    assert host.queue == []
    assert settle(host, 1, now, TERMS, sent=False) is False


def test_a_clock_that_is_set_back_keeps_nothing_burning(world: World) -> None:
    """Hosts are corrected; an incident of the future ends as any other."""
    world.run(10, REDIS)
    world.now -= 5000
    world.watching_since = world.now - 100
    assert world.run(5, REDIS) == []
    assert world.run(31) == [f"resolved {REDIS}"]


# -- too much ----------------------------------------------------------------------------------------------------------


def test_flapping_becomes_one_long_incident(world: World) -> None:
    """Each time it comes back it must be gone for twice as long to be over."""
    told = []
    for _ in range(30):
        told += world.run(10, REDIS)
        told += world.run(50)
    assert told == [f"firing {REDIS}", f"resolved {REDIS}", f"firing {REDIS}"]
    assert world.notices[-1].firings == 2
    assert world.run(61) == [f"resolved {REDIS}"]


def test_a_key_has_a_limit_and_the_next_message_says_what_was_left_out(world: World) -> None:
    """What is held back is counted once, and an incident that was never told is not called off."""
    world.terms = Terms(burst=1, token_every=1000)
    assert world.run(10, REDIS) == [f"firing {REDIS}"]
    assert world.run(100) == [f"resolved {REDIS}"]
    assert world.suppressed == 0
    assert world.run(20, REDIS) == []
    assert world.run(100) == []
    assert world.suppressed == 1
    world.run(1000)
    assert world.run(10, REDIS) == [f"firing {REDIS}"]
    assert world.notices[-1].suppressed == 1
    assert world.run(1000) == [f"resolved {REDIS}"]
    assert world.notices[-1].suppressed == 0


def test_an_incident_that_outlasts_the_limit_is_told_late(world: World) -> None:
    """The limit delays; it hides nothing that goes on."""
    world.terms = Terms(burst=1, token_every=500)
    world.run(10, REDIS)
    world.run(100)
    told = world.run(500, REDIS)
    assert told == [f"firing {REDIS}"]
    assert world.suppressed == 1
    assert world.notices[-1].suppressed == 0


def test_a_host_has_a_limit_over_all_keys(world: World) -> None:
    """Everything fails at once: the limit leaves out some, the worst comes first."""
    world.terms = Terms(host_burst=2, host_token_every=10_000)
    told = world.run(20, REDIS, DATABASE, REPLICA, LEVEL_2)
    assert len(told) == 2
    assert f"firing {REPLICA}" not in told
    assert world.suppressed == 2


def test_getting_worse_is_told_whatever_the_limits_are(world: World) -> None:
    """An escalation is exempt."""
    world.terms = Terms(host_burst=1, host_token_every=10**6)
    assert world.run(10, LEVEL_1) == [f"firing {LEVEL_1}"]
    assert world.run(10, REDIS) == []
    assert world.run(10, LEVEL_1, LEVEL_2, REDIS) == [f"firing {LEVEL_2}"]
    assert world.run(10, LEVEL_1, LEVEL_2, LEVEL_4, REDIS) == [f"firing {LEVEL_4}"]


def test_an_emergency_speaks_for_all(world: World) -> None:
    """What follows from it is not told while it lasts; what is still so afterwards is."""
    assert world.run(600, LEVEL_1, LEVEL_2, LEVEL_4, REDIS, DATABASE, REPLICA) == [f"firing {LEVEL_4}"]
    told = world.run(31, LEVEL_1, LEVEL_2, REDIS)
    assert told[0] == f"resolved {LEVEL_4}"
    assert sorted(told[1:]) == [f"firing {LEVEL_2}", f"firing {REDIS}"]
    assert world.suppressed == 0
    assert sorted(world.run(31)) == [f"resolved {LEVEL_2}", f"resolved {REDIS}"]


def test_what_was_told_before_the_emergency_is_called_off_in_it(world: World) -> None:
    """Inhibition holds back alarms, never recoveries."""
    world.run(10, REPLICA)
    assert f"resolved {REPLICA}" in world.run(60, LEVEL_4)


def test_an_emergency_does_not_swallow_what_happened_once(world: World) -> None:
    """After it nobody would see it any more."""
    world.run(20, LEVEL_4)
    assert world.run(1, LEVEL_4, DATA_LOST) == [f"firing {DATA_LOST}"]


def test_what_happened_once_speaks_for_nothing_else(world: World) -> None:
    """Data loss is an emergency too, but that Redis went away just then is another matter."""
    assert world.run(1, DATA_LOST) == [f"firing {DATA_LOST}"]
    assert world.run(10, REDIS) == [f"firing {REDIS}"]


def test_an_emergency_that_is_about_to_be_told_counts_already(world: World) -> None:
    """The stores failed one after the other, within seconds: one message."""
    assert world.run(3, REDIS, LEVEL_2) == []
    assert world.run(60, REDIS, DATABASE, LEVEL_2, LEVEL_4) == [f"firing {LEVEL_4}"]


def test_the_queue_is_bounded_and_recoveries_stay() -> None:
    """SNS is away for long: the least urgent goes first, and it is counted."""
    recoveries = [notice(number, REPLICA, State.RESOLVED) for number in range(10)]
    alarms = [notice(number, f"auth-failed/{number}", State.FIRING) for number in range(10, 10 + LONGEST_QUEUE)]
    host = Host(queue=[*recoveries, *alarms])
    assert step(host, {}, START, TERMS, START) == 10
    assert len(host.queue) == LONGEST_QUEUE
    assert host.queue[:10] == recoveries
    assert len(take(host, START, TERMS)) == PORTION


def notice(serial: int, key: str, state: State) -> Notice:
    return Notice(serial=serial, key=key, state=state, since=START, at=START, seen=START, suppressed=0, firings=1)


KEYS = [REDIS, DATABASE, REPLICA, LEVEL_1, LEVEL_2, LEVEL_4, DATA_LOST, "latency-high", "latency-critical"]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sets(st.sampled_from(KEYS)), st.integers(1, 70)), max_size=8),
    st.sampled_from([Terms(), Terms(burst=1, host_burst=2), Terms(repeat=60)]),
)
def test_every_alarm_is_called_off_and_nothing_else_is(phases: list[tuple[set[str], int]], terms: Terms) -> None:
    """Whatever comes and goes: alarm, then recovery, in turns; in the end all is called off and nothing is left."""
    world = World(terms)
    for seen, seconds in phases:
        world.run(seconds, *seen)
    world.run(1000, pace=10)
    assert world.host.is_idle
    burning: set[str] = set()
    for told in world.notices:
        assert (told.key in burning) == (told.state is State.RESOLVED or told.repeated)
        (burning.discard if told.state is State.RESOLVED else burning.add)(told.key)
    assert not burning


# -- the table ---------------------------------------------------------------------------------------------------------


def test_names_hold_no_numbers_and_every_severity_is_used() -> None:
    """A number in a name or title would make a new incident of each value."""
    assert {alert.severity for alert in ALERTS} == set(Severity)
    assert tuple(Severity) == SEVERITIES
    assert len({alert.name for alert in ALERTS}) == len(ALERTS) == 13
    for alert in ALERTS:
        assert not any(character.isdigit() for character in alert.name + alert.title)
        assert (alert.fires_after == 0) == alert.happens_once


BEGIN, END = "<!-- alerts: begin -->\n", "<!-- alerts: end -->\n"


def test_the_documented_table_is_the_code() -> None:
    """The docs' table is generated: paste the lines of ``alert_lines()`` when this fails."""
    docs = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert docs.partition(BEGIN)[2].partition(END)[0].strip() == "\n".join(alert_lines())
