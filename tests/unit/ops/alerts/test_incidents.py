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


# -- what is told ------------------------------------------------------------------------------------------------------

Step = tuple[int, str, str] | bool
"""Seconds, the conditions that hold meanwhile, and what is told; or whether SNS takes messages from then on."""

FIRING, RESOLVED = f"firing {REDIS}", f"resolved {REDIS}"
AWAY, BACK = False, True

STORIES: dict[str, list[Step]] = {
    "told when it has lasted, and once more when it has been over for long enough": [
        (5, REDIS, ""), (2, REDIS, FIRING), (600, REDIS, ""), (299, "", ""), (2, "", RESOLVED), (10_000, "", "")],
    "what is gone before it has lasted is no incident, however often it comes": [(3, REDIS, ""), (10, "", "")] * 20,
    "flapping is one long incident": [
        (10, REDIS, FIRING), *[(290, "", ""), (1, REDIS, "")] * 30, (301, "", RESOLVED)],
    "an event is told at once, and is over when it did not come again": [
        (1, DATA_LOST, f"firing {DATA_LOST}"), (200, "", ""), (1, DATA_LOST, ""), (299, "", ""),
        (2, "", f"resolved {DATA_LOST}")],
    "two stores that refuse our password are two incidents": [
        (10, "auth-failed/primary auth-failed/database",
         "firing auth-failed/database, firing auth-failed/primary")],
    "SNS is back: the alarm is told within a retry": [
        AWAY, (60, REDIS, ""), BACK, (60, REDIS, FIRING), (10_000, REDIS, ""), (301, "", RESOLVED)],
    "SNS is back: of what is over meanwhile the end is told alone": [
        AWAY, (100, REDIS, ""), (3000, "", ""), BACK, (310, "", RESOLVED)],
    "SNS is back: one message waits for each incident": [
        AWAY, *[(600, f"{REDIS} {REPLICA}", ""), (3000, "", "")] * 3, BACK,
        (310, "", f"{RESOLVED}, resolved {REPLICA}")],
    "SNS is back: what came back before its end was told goes on": [
        (10, REDIS, FIRING), AWAY, (310, "", ""), BACK, (600, REDIS, ""), (301, "", RESOLVED)],
    "an emergency speaks for all that follows from it, while it lasts": [
        (600, f"{LEVEL_1} {LEVEL_2} {LEVEL_4} {REDIS} {DATABASE} {REPLICA}", f"firing {LEVEL_4}"),
        (31, f"{LEVEL_1} {LEVEL_2} {REDIS}", f"firing {LEVEL_2}, {FIRING}"),
        (271, f"{LEVEL_2} {REDIS}", f"resolved {LEVEL_4}"), (301, "", f"resolved {LEVEL_2}, {RESOLVED}")],
    "what was told before the emergency is called off in it": [
        (10, REPLICA, f"firing {REPLICA}"), (310, LEVEL_4, f"firing {LEVEL_4}, resolved {REPLICA}")],
    "an emergency does not swallow what happened once, which no worker would see any more": [
        (20, LEVEL_4, f"firing {LEVEL_4}"), (1, f"{LEVEL_4} {DATA_LOST}", f"firing {DATA_LOST}")],
    "what happened once is an emergency that speaks for nothing else": [
        (1, DATA_LOST, f"firing {DATA_LOST}"), (10, REDIS, FIRING)],
    "an emergency that is about to be told counts already": [
        (3, f"{REDIS} {LEVEL_2}", ""), (60, f"{REDIS} {DATABASE} {LEVEL_2} {LEVEL_4}", f"firing {LEVEL_4}")],
}  # fmt: skip


@pytest.mark.parametrize("steps", STORIES.values(), ids=STORIES)
def test_what_is_told_of_an_incident(world: World, steps: list[Step]) -> None:
    for step in steps:
        if isinstance(step, bool):
            world.sns = step
        else:
            seconds, seen, told = step
            assert ", ".join(sorted(world.run(seconds, *seen.split()))) == told


def test_an_incident_has_its_length_and_the_details_of_the_moment(world: World) -> None:
    """The message says what was known when it was told."""
    world.run(4, LEVEL_2, details={"level": 2})
    world.run(603, LEVEL_2, details={"level": 3})
    world.run(302)
    firing, resolved = (notice.incident for notice in world.notices)
    assert (firing.details, firing.since, resolved.since) == ({"level": 3}, START + 1, START + 1)
    assert resolved.seen - resolved.since == 606
    assert world.is_idle


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


# -- whatever comes ----------------------------------------------------------------------------------------------------

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
    assert len({alert.name for alert in ALERTS}) == len(ALERTS) == 14
    for alert in ALERTS:
        assert not any(character.isdigit() for character in alert.name + alert.title)
        assert (alert.fires_after == 0) == alert.happens_once
