"""The recorder: what it makes of observations, and that no reader can change it."""

from __future__ import annotations

import gc
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_langpont_session.metrics.recorder import (
    BOUNDS,
    Measure,
    Observation,
    Reader,
    Recorder,
    Series,
    Standing,
    count_level,
)
from flask_langpont_session.policy.errors import ErrorClass
from tests.support.children import in_child_of_locked, locked


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.mark.parametrize(
    ("milliseconds", "bound"),
    [(-1, 0.01), (0, 0.01), (0.01, 0.01), (0.0101, 0.011), (7.31, 7.4), (99.5, 100),
     (99_001, 100_000), (10**9, 1e8), (float("inf"), 1e8)],
)  # fmt: skip
def test_a_duration_is_rounded_up_to_two_digits(recorder: Recorder, milliseconds: float, bound: float) -> None:
    """The sum stays exact; what is too short or too long to tell stands at an end."""
    recorder.observe("load", "all", "primary", "ok", milliseconds / 1000)
    assert list(recorder.series().values()) == [Series(1, milliseconds / 1000, {bound: 1})]


@given(st.floats(0.01, 99e6))
def test_rounding_never_shortens_and_adds_less_than_a_tenth(milliseconds: float) -> None:
    """A percentile is never better than the truth, and hardly worse."""
    recorder = Recorder()
    recorder.observe("load", "all", "primary", "ok", milliseconds / 1000)
    [series] = recorder.series().values()
    [rounded] = series.durations
    assert milliseconds * 0.999999 <= rounded < milliseconds * 1.1000001


def test_the_bounds_are_the_numbers_of_two_digits() -> None:
    """Each once, in order, so that a search among them finds the next one."""
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert len(BOUNDS) == 10 * 90 + 1
    assert {0.01, 0.25, 2.5, 99, 250, 1000, 65_000, 1e8} < set(BOUNDS)


def test_what_is_read_is_a_copy(recorder: Recorder) -> None:
    """A reader cannot change what is recorded, and sees nothing of what comes later."""
    recorder.observe("load", "all", "primary", "ok", 0.001)
    recorder.count("duplicate_cookies")
    series, counters = recorder.series(), recorder.counters()
    [read] = series.values()
    read.durations[99] = 99
    recorder.observe("load", "all", "primary", "ok", 0.001)
    recorder.count("duplicate_cookies", 2)
    assert (read.count, counters["duplicate_cookies"]) == (1, 1)
    [now] = recorder.series().values()
    assert (now.count, now.durations, recorder.counters()["duplicate_cookies"]) == (2, {1.0: 2}, 3)


def test_no_observation_of_many_threads_is_lost(recorder: Recorder) -> None:
    """Threads that observe the same and other operations, and count, are all counted."""

    def work(name: str) -> None:
        for _ in range(2000):
            recorder.observe("load", "all", "primary", "ok", 0.001)
            recorder.observe("load", "all", name, "ok", 0.001)
            recorder.count("n")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, map(str, range(4))))
    counts = {operation.source: series.count for operation, series in recorder.series().items()}
    assert counts == {"primary": 8000, **{str(number): 2000 for number in range(4)}}
    assert recorder.counters() == {"n": 8000}


def test_no_thread_waits_for_the_lock(recorder: Recorder) -> None:
    """The thread that has it may be suspended; what is recorded meanwhile is there at the next look, and in order."""
    with locked(recorder):
        recorder.observe("load", "all", "primary", "ok", 0.001)
        recorder.count("n", 2)
        recorder.measure("payload", "ui", 120)
    recorder.count("n")
    assert recorder.counters() == {"n": 3}
    with locked(recorder):
        recorder.count("n")
    assert recorder.counters() == {"n": 4}
    assert [series.count for series in recorder.series().values()] == [1]
    assert recorder.amounts() == {Measure("payload", "ui"): {120: 1}}


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_new_kind_may_be_recorded_while_the_counts_are_made(recorder: Recorder) -> None:
    """A garbage collection may begin wherever an object is made, and run code that records."""
    kinds = iter([f"kind {number}" for number in range(200)])  # each makes more objects, and so more collections

    def record(*_: object) -> None:
        if kind := next(kinds, None):
            recorder.count(kind)

    before = gc.get_threshold()
    gc.callbacks.append(record)
    gc.set_threshold(1)  # at each object
    try:
        while next(kinds, None):
            recorder.counters()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(record)
    assert recorder.counters()


def test_a_reader_gets_what_is_new(recorder: Recorder) -> None:
    """Each observation once, in the interval in which it was made, whatever else reads."""
    reader, other = (Reader(recorder, lambda: 0) for _ in range(2))
    recorder.observe("load", "all", "primary", "ok", 0.001)
    recorder.observe("save", "all", "primary", "ok", 0.001)
    recorder.count("duplicate_cookies")
    load, save = (Observation(name, "all", "primary", "ok") for name in ("load", "save"))
    first = reader.take()
    assert first.series == {load: Series(1, 0.001, {1.0: 1}), save: Series(1, 0.001, {1.0: 1})}
    assert first.counters == {"duplicate_cookies": 1}
    recorder.observe("load", "all", "primary", "ok", 0.003)
    second = reader.take()
    [(operation, series)] = second.series.items()
    assert (operation, series.count, series.durations) == (load, 1, {3.0: 1})
    assert series.seconds == pytest.approx(0.003)
    assert second.counters == {}
    assert reader.take().series == {}
    assert other.take().series[load].durations == {1.0: 1, 3.0: 1}


def test_amounts_are_counted_by_what_they_are_of(recorder: Recorder) -> None:
    """Rounded up as durations are; a reader gets those that came since; what it has been given does not change."""
    reader = Reader(recorder, lambda: 0)
    for of, amount in (("ui", 120), ("ui", 121), ("auth", 0)):
        recorder.measure("payload", of, amount)
    first = reader.take().amounts
    assert first == {Measure("payload", "ui"): {120: 1, 130: 1}, Measure("payload", "auth"): {0.01: 1}}
    recorder.measure("payload", "ui", 125)
    assert reader.take().amounts == {Measure("payload", "ui"): {130: 1}}
    assert reader.take().amounts == {}
    assert first[Measure("payload", "ui")] == {120: 1, 130: 1}


def test_an_interval_has_its_highest_level(recorder: Recorder) -> None:
    """One that came and went between two looks, and one that lasts; but not that of an earlier interval."""
    level = 0
    reader = Reader(recorder, lambda: level)
    assert reader.take().level == 0
    for passing in (2, 4, 0):
        count_level(recorder, passing)
    assert reader.take().level == 4
    assert reader.take().level == 0
    level = 3
    count_level(recorder, 3)
    assert (reader.take().level, reader.take().level) == (3, 3)
    level = 0
    count_level(recorder, 0)
    assert reader.take().level == 3  # it began at 3
    assert reader.take().level == 0


def test_an_interval_has_the_state_at_its_end(recorder: Recorder) -> None:
    """The state at the end counts however bad it was meanwhile: what an alarm counts as a minute must not be a
    second."""
    standing = Standing(lost_shards=1)
    reader = Reader(recorder, lambda: 0, lambda: standing)
    count_level(recorder, 4)
    first = reader.take()
    standing = Standing(lost_shards=2)
    assert (first.level, first.level_now, first.standing.lost_shards) == (4, 0, 1)
    assert reader.take().standing.lost_shards == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_begins_at_nought(recorder: Recorder) -> None:
    """Counts of the parent are the parent's to publish, even if it was counting at the very moment of the fork."""
    recorder.count("before")
    recorder.observe("load", "all", "primary", "ok", 0.001)

    def counts() -> bool:
        recorder.count("after")
        return (recorder.counters(), recorder.series()) == ({"after": 1}, {})

    assert in_child_of_locked(recorder, counts)
    assert recorder.counters() == {"before": 1}


def test_every_class_of_error_is_a_documented_outcome() -> None:
    """Prometheus shows them all, and the page on metrics says which there are."""
    docs = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    classes = docs.partition("or the class of a store's error (")[2].partition(")")[0]
    assert re.findall(r"`(\w+)`", classes) == [error_class.name.lower() for error_class in ErrorClass]
