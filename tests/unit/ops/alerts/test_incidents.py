"""Incidents: when they are told, how often, and that each that was told is called off. No threads, no clock."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_langpont_session.config.checks import SEVERITIES
from flask_langpont_session.ops.alerts import table
from flask_langpont_session.ops.alerts.incidents import (
    AlertState,
    Details,
    Host,
    Notice,
    Terms,
)
from flask_langpont_session.ops.alerts.table import ALERTS, Severity

REDIS = table.REDIS_CONNECTION_FAILED.name
REPLICA = table.REPLICA_CONNECTION_FAILED.name
DATABASE = table.DATABASE_CONNECTION_FAILED.name
DATA_LOST = table.DATA_LOST.name
LEVEL_1, LEVEL_2, LEVEL_4 = table.LEVEL_REPLICA.name, table.LEVEL_FALLBACK.name, table.LEVEL_MINIMAL.name
START = 1_000_000.0
TERMS = Terms()


class World:
    """One host, a step per second, and an SNS that takes everything while `sns` says so."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.host = Host()
        self.terms = terms
        self.now = START
        self.watched = 10_000
        self.sns = True
        self.notices: list[Notice] = []

    def run(self, seconds: int, *seen: str, details: Details | None = None, pace: int = 1) -> list[str]:
        """Step on for so long while these conditions hold. What was told, as ``state key``."""
        before = len(self.notices)
        for _ in range(0, seconds, pace):
            self.now += pace
            self.watched += pace
            self.look(seen, details)
        return [f"{notice.state} {notice.key}" for notice in self.notices[before:]]

    @property
    def is_idle(self) -> bool:
        """Return whether no incident burns and no message waits."""
        return not self.host.incidents

    def look(self, seen: Iterable[str] = (), details: Details | None = None) -> None:
        # As the workers do: through the encoding that they share.
        self.host = msgspec.json.decode(msgspec.json.encode(self.host), type=Host)
        sightings = dict.fromkeys(seen, details or {})
        self.host.step(sightings, self.now, self.terms, self.watched)
        while notice := self.host.take(self.now, self.terms):
            if self.sns:
                self.notices.append(notice)
                self.host.sent(notice)


@pytest.fixture
def world() -> World:
    return World()


# -- one incident ------------------------------------------------------------------------------------------------------


def test_an_incident_is_told_twice(world: World) -> None:
    """Once when it has lasted, once when it has been over for long enough; nothing in between."""
    assert world.run(5, REDIS) == []
    assert world.run(2, REDIS) == [f"firing {REDIS}"]
    assert world.run(600, REDIS) == []
    assert world.run(299) == []
    assert world.run(2) == [f"resolved {REDIS}"]
    assert world.run(10_000) == []
    firing, resolved = (notice.incident for notice in world.notices)
    assert firing.since == resolved.since == START + 1
    assert resolved.seen - resolved.since == 606
    assert world.is_idle


def test_a_blip_is_not_told(world: World) -> None:
    """A condition that is gone before it has lasted is no incident, however often it comes."""
    for _ in range(20):
        assert world.run(3, REDIS) == []
        assert world.run(10) == []
    assert world.is_idle


def test_flapping_is_one_long_incident(world: World) -> None:
    """An incident is over when no worker has seen it for five minutes, however often it has come and gone."""
    assert world.run(10, REDIS) == [f"firing {REDIS}"]
    for _ in range(30):
        assert world.run(290) == []
        assert world.run(1, REDIS) == []
    assert world.run(301) == [f"resolved {REDIS}"]


def test_what_happened_once_is_told_at_once_and_called_off_when_quiet(world: World) -> None:
    """An event has no state: it is over when it did not come again."""
    assert world.run(1, DATA_LOST) == [f"firing {DATA_LOST}"]
    assert world.run(200) == []
    assert world.run(1, DATA_LOST) == []
    assert world.run(299) == []
    assert world.run(2) == [f"resolved {DATA_LOST}"]


def test_details_are_those_of_the_moment(world: World) -> None:
    """The message says what was known when it was told."""
    world.run(4, LEVEL_2, details={"level": 2})
    world.run(4, LEVEL_2, details={"level": 3})
    assert world.notices[0].incident.details == {"level": 3}


def test_scopes_are_incidents_of_their_own(world: World) -> None:
    """Two stores that refuse our password are two incidents."""
    told = world.run(10, "auth-failed/primary", "auth-failed/database")
    assert sorted(told) == ["firing auth-failed/database", "firing auth-failed/primary"]


# -- several workers, and their ends -----------------------------------------------------------------------------------


def test_a_worker_that_just_began_to_look_resolves_nothing(world: World) -> None:
    """All workers died in the outage: the first one of the next day must have looked for long enough itself."""
    world.run(10, REDIS)
    world.now += 86_400
    world.watched = 0
    assert world.run(299) == []
    assert world.run(2) == [f"resolved {REDIS}"]


def test_a_worker_that_just_began_to_look_goes_on_with_it(world: World) -> None:
    """An outage that outlives all workers is one incident."""
    world.run(10, REDIS)
    world.now += 600
    world.watched = 0
    assert world.run(3) == []
    assert world.run(60, REDIS) == []
    assert world.run(301) == [f"resolved {REDIS}"]


def test_a_message_whose_sender_died_is_tried_again(world: World) -> None:
    """The attempt was counted before it was made: it comes after the usual pause, and may come twice."""
    world.host.step({DATA_LOST: {}}, START, TERMS, world.watched)
    taken = world.host.take(START, TERMS)
    assert taken is not None and world.host.take(START + TERMS.retry - 1, TERMS) is None
    again = world.host.take(START + TERMS.retry, TERMS)
    assert again is not None and (again.key, again.state) == (taken.key, taken.state)


def test_what_a_worker_went_through_alone_is_called_off_together(world: World) -> None:
    """It comes back to the others, which have not seen it: what it told, and what it could not tell, is theirs."""
    alone = World()
    alone.run(10, REDIS, DATABASE, REPLICA)
    alone.sns = False
    alone.run(310, DATABASE, REPLICA)
    world.run(320, DATABASE)
    world.host.join(alone.host)
    told = world.run(400, DATABASE)
    assert sorted(told) == [f"resolved {REDIS}", f"resolved {REPLICA}"]
    assert world.run(301) == [f"resolved {DATABASE}"]
    assert world.is_idle


def test_what_is_known_together_holds(world: World) -> None:
    """Joining what is known already changes nothing, and tells nothing again."""
    world.run(10, REDIS)
    world.sns = False
    world.run(10, REDIS, DATABASE)
    before = msgspec.json.encode(world.host)
    copy = msgspec.json.decode(before, type=Host)
    world.host.join(copy)
    assert msgspec.json.encode(world.host) == before


# -- SNS is away -------------------------------------------------------------------------------------------------------


def test_an_alarm_gets_through_when_sns_is_back(world: World) -> None:
    """A network that fails takes Redis and SNS: the alarm is told within a retry, not at the next repetition."""
    world.sns = False
    world.run(60, REDIS)
    world.sns = True
    assert world.run(60, REDIS) == [f"firing {REDIS}"]
    assert world.run(10_000, REDIS) == []
    assert world.run(301) == [f"resolved {REDIS}"]


@pytest.mark.parametrize("hours", [1, 23])
@pytest.mark.parametrize("key", [REDIS, REPLICA, "server-changed/primary"])
def test_a_recovery_gets_through_however_long_sns_was_away(world: World, key: str, hours: int) -> None:
    """Nothing that was told stays open in a pager."""
    world.run(10, key)
    world.sns = False
    world.run(hours * 3600, pace=10)
    world.sns = True
    assert world.run(310, pace=10) == [f"resolved {key}"]
    assert world.is_idle


def test_what_is_over_before_it_could_be_told_wakes_no_operator(world: World) -> None:
    """An incident that is over is told by its end alone, which replaces the alarm."""
    world.sns = False
    world.run(100, REDIS)
    world.run(3000)
    world.sns = True
    assert world.run(310) == [f"resolved {REDIS}"]
    assert world.notices[0].incident.seen - world.notices[0].incident.since == 99


def test_one_message_waits_for_each_incident(world: World) -> None:
    """Hours of flapping without SNS: there is nothing that would have to be dropped."""
    world.sns = False
    for _ in range(8):
        world.run(600, REDIS, REPLICA, pace=2)
        world.run(3000, pace=10)
        assert len(world.host.incidents) == 2
    world.sns = True
    assert sorted(world.run(310, pace=10)) == [f"resolved {REDIS}", f"resolved {REPLICA}"]


def test_what_comes_back_before_its_end_was_told_goes_on(world: World) -> None:
    """Receivers know of it, and not that it was over."""
    world.run(10, REDIS)
    world.sns = False
    world.run(310)
    world.sns = True
    assert world.run(600, REDIS) == []
    assert world.run(301) == [f"resolved {REDIS}"]


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_keeps_nothing_burning(world: World) -> None:
    """Hosts are corrected; an incident of the future ends as any other, and so does a wait of the future."""
    world.run(10, REDIS)
    world.now -= 5000
    assert world.run(5, REDIS) == []
    assert world.run(301) == [f"resolved {REDIS}"]
    world.sns = False
    world.run(600, REDIS)
    world.sns = True
    world.now -= 5000
    assert world.run(1, REDIS) == [f"firing {REDIS}"]


# -- too much ----------------------------------------------------------------------------------------------------------


def test_an_emergency_speaks_for_all(world: World) -> None:
    """Alarms that follow from the emergency are not sent while it lasts; those that still hold afterwards are."""
    assert world.run(600, LEVEL_1, LEVEL_2, LEVEL_4, REDIS, DATABASE, REPLICA) == [f"firing {LEVEL_4}"]
    told = world.run(31, LEVEL_1, LEVEL_2, REDIS)
    assert sorted(told) == [f"firing {LEVEL_2}", f"firing {REDIS}"]
    assert world.run(271, LEVEL_2, REDIS) == [f"resolved {LEVEL_4}"]
    assert sorted(world.run(301)) == [f"resolved {LEVEL_2}", f"resolved {REDIS}"]


def test_what_was_told_before_the_emergency_is_called_off_in_it(world: World) -> None:
    """Inhibition holds back alarms, never recoveries."""
    world.run(10, REPLICA)
    assert f"resolved {REPLICA}" in world.run(310, LEVEL_4)


def test_an_emergency_does_not_swallow_what_happened_once(world: World) -> None:
    """No worker would see the event any more after the emergency."""
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


KEYS = [REDIS, DATABASE, REPLICA, LEVEL_1, LEVEL_2, LEVEL_4, DATA_LOST]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from(KEYS)), st.integers(1, 400)), max_size=8))
def test_every_alarm_is_called_off_and_nothing_else_is(phases: list[tuple[set[str], int]]) -> None:
    """Alarm and recovery take turns, whatever comes and goes; in the end all is called off and nothing is left."""
    world = World()
    for seen, seconds in phases:
        world.run(seconds, *seen)
    world.run(1000, pace=10)
    assert world.is_idle
    burning: set[str] = set()
    for told in world.notices:
        assert (told.key in burning) == (told.state is AlertState.RESOLVED)
        (burning.discard if told.state is AlertState.RESOLVED else burning.add)(told.key)
    assert not burning


@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from(KEYS)), st.integers(1, 700), st.booleans()), max_size=8))
def test_sns_may_come_and_go(phases: list[tuple[set[str], int, bool]]) -> None:
    """In the end no receiver believes that an alert is active, and nothing is resolved twice."""
    world = World()
    for seen, seconds, world.sns in phases:
        world.run(seconds, *seen)
    world.sns = True
    world.run(3000, pace=10)
    assert world.is_idle
    last = {told.key: told for told in world.notices}
    assert {told.state for told in last.values()} <= {AlertState.RESOLVED}
    ends = [(told.key, told.incident.since) for told in world.notices if told.state is AlertState.RESOLVED]
    assert len(set(ends)) == len(ends)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_names_hold_no_numbers_and_every_severity_is_used() -> None:
    """A number in a name or title would make a new incident of each value."""
    assert {alert.severity for alert in ALERTS} == set(Severity)
    assert tuple(Severity) == SEVERITIES
    assert len({alert.name for alert in ALERTS}) == len(ALERTS) == 13
    for alert in ALERTS:
        assert not any(character.isdigit() for character in alert.name + alert.title)
        assert (alert.fires_after == 0) == alert.happens_once
