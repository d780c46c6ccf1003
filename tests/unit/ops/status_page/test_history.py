"""The last hour of a process: what is made of its records, what is forgotten, and that a child begins anew."""

from __future__ import annotations

from collections import Counter

import pytest

from flask_langpont_session.metrics.recorder import Reader, Recorder
from flask_langpont_session.ops.status_page.history import SPAN, STEP, History, LevelChange, Slice, together
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE, Health
from tests.support.children import in_child_of_locked
from tests.support.clock import Clock

LOST = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True)


class Told:
    """A history that is told the time, and what it looks at."""

    def __init__(self) -> None:
        self.now, self.recorder = Clock(1_700_000_040.0), Recorder()  # on the minute
        self.health = Health([PRIMARY, DATABASE], clock=self.now, now=self.now)
        reader = Reader(self.recorder, lambda: self.health.level)
        self.history = History(reader, self.health, now=self.now, clock=self.now)

    def slices(self) -> list[Slice]:
        return self.history.slices(0.0)


@pytest.fixture
def told() -> Told:
    return Told()


def test_answers_are_counted_by_where_they_came_from(told: Told) -> None:
    """Questions that were answered, what needed none, and what stood in for an answer; nothing else."""
    for name, source, outcome, number in (
        ("load", "primary", "ok", 3),
        ("load", "primary", "miss", 2),
        ("load", "primary", "unreachable", 7),
        ("load", "replica", "ok", 1),
        ("verify", "database", "ok", 4),
        ("save", "primary", "ok", 9),
        ("request", "none", "ok", 9),
    ):
        for _ in range(number):
            told.recorder.observe(name, "all", source, outcome, 0.001)
    told.recorder.count("near_cache_hits", 20)
    told.recorder.count("fallback_local", 5)
    told.recorder.count("fallback_default", 6)
    told.recorder.count("fallback_journal", 8)  # that is what was written
    told.history.look(0)
    [part] = told.slices()
    assert part.answers == Counter(near=20, primary=5, replica=1, database=4, local=5, default=6)


def test_calls_are_timed_by_store_failed_ones_too(told: Told) -> None:
    """A replica is Redis; the time of a whole request is no call."""
    for store, milliseconds in (("primary", 1), ("primary", 200), ("replica", 2), ("database", 30), ("none", 999)):
        outcome = "unreachable" if milliseconds == 200 else "ok"
        told.recorder.observe("load", "all", store, outcome, milliseconds / 1000)
    told.history.look(0)
    [part] = told.slices()
    assert part.took == {"redis": {1.0: 1, 2.0: 1, 200.0: 1}, "database": {30.0: 1}}


@pytest.mark.parametrize(
    ("amounts", "p50", "p99"),
    [({}, None, None), ({5.0: 1}, 5.0, 5.0), ({1.0: 50, 9.0: 50}, 1.0, 9.0), ({1.0: 99, 9.0: 1}, 1.0, 1.0),
     ({9.0: 2, 1.0: 98}, 1.0, 9.0)],
)  # fmt: skip
def test_a_percentile_is_what_so_many_calls_did_not_exceed(
    amounts: dict[float, int], p50: float | None, p99: float | None
) -> None:
    part = Slice(0.0, took={"redis": Counter(amounts)})
    assert (part.percentile("redis", 0.5), part.percentile("redis", 0.99)) == (p50, p99)
    assert part.percentile("database", 0.5) is None


def test_looks_of_one_slice_are_put_together_and_those_of_the_next_are_apart(told: Told) -> None:
    for seconds in (0, 5, 6):
        told.now.now += seconds
        told.recorder.count("near_cache_hits")
        told.history.look(0)
    assert [(part.began, part.answers["near"]) for part in told.slices()] == [
        (1_700_000_040.0, 2),
        (1_700_000_050.0, 1),
    ]


def test_the_monitor_looks_once_in_some_seconds(told: Told) -> None:
    """Its rounds are short, and each look copies everything."""
    told.history.attend(0)
    told.recorder.count("near_cache_hits")
    told.now.now += 1
    told.history.attend(0)
    assert told.slices()[-1].answers["near"] == 0
    told.now.now += 5
    told.history.attend(0)
    assert told.slices()[-1].answers["near"] == 1


def test_what_is_older_than_an_hour_is_forgotten(told: Told) -> None:
    """The history is bounded however long the process runs, and however often the level changes."""
    for number in range(400):
        if number % 2:
            told.health.close(PRIMARY, [READ, WRITE])
        else:
            told.health.failed(LOST, READ)
        told.history.look(0)
        told.now.now += STEP
    assert len(told.slices()) == SPAN // STEP + 1
    assert 60 < len(told.history.changes(0.0)) < 150
    since = told.now.now - 10 * STEP
    assert [part.began + STEP > since for part in told.history.slices(since)] == [True] * 10
    changes = told.history.changes(since)
    assert changes[0].at <= since < changes[1].at


def test_a_change_of_the_level_is_noted_between_two_looks_and_when_it_was(told: Told) -> None:
    """The level of before is known, too."""
    told.history.look(0)
    told.now.now += 1
    told.health.failed(LOST, READ)
    told.history.attend(0)
    told.history.attend(0)
    first, second = told.history.changes(0.0)
    assert first == LevelChange(1_700_000_040.0, 0)
    assert second == LevelChange(1_700_000_041.0, 2)


def test_the_most_that_waited_counts_and_what_is_not_known_is_not_nothing(told: Told) -> None:
    for waiting, seconds in ((3, 1), (8, 1), (5, 8), (None, 1), (4, 1)):
        told.history.look(waiting)
        told.now.now += seconds
    assert [part.waiting for part in told.slices()] == [8, None]
    assert together(told.slices()).waiting is None


def test_a_forked_child_remembers_nothing(told: Told) -> None:
    """A child has neither its parent's hour, nor a lock that one of the parent's threads held."""
    told.recorder.count("near_cache_hits")
    told.history.look(0)

    def is_new() -> bool:
        was_empty = told.slices() == []
        told.history.look(0)
        return was_empty and len(told.slices()) == 1

    assert in_child_of_locked(told.history, is_new)
