"""The recorder: what it makes of observations, and that nobody who reads it can change it."""

from __future__ import annotations

import threading

import pytest

from flask_langpont_session.metrics import BUCKETS_MS, Operation, Recorder, Series


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_operations_that_differ_in_one_word_are_apart(recorder: Recorder) -> None:
    """Each combination of name, category, source and outcome has a series of its own, under an Operation."""
    words = ("load", "all", "primary", "ok")
    others = [
        ("save", "all", "primary", "ok"),
        ("load", "ui", "primary", "ok"),
        ("load", "all", "replica", "ok"),
        ("load", "all", "primary", "miss"),
    ]
    for name, category, source, outcome in (words, words, *others):
        recorder.observe(name, category, source, outcome, 0.001)
    assert {operation: series.count for operation, series in recorder.series().items()} == {
        Operation(*words): 2,
        **{Operation(*other): 1 for other in others},
    }


@pytest.mark.parametrize(
    ("milliseconds", "bucket"), [(0.0, 0), (0.25, 0), (0.26, 1), (7, 5), (1000, len(BUCKETS_MS) - 1), (1001, -1)]
)
def test_a_duration_falls_under_the_first_bound_that_it_does_not_pass(
    recorder: Recorder, milliseconds: float, bucket: int
) -> None:
    """The bounds are inclusive, and the last place has what passes all of them."""
    recorder.observe("load", "all", "primary", "ok", milliseconds / 1000)
    buckets = [0] * (len(BUCKETS_MS) + 1)
    buckets[bucket] = 1
    assert list(recorder.series().values()) == [Series(1, milliseconds / 1000, buckets)]


def test_what_is_read_is_a_copy(recorder: Recorder) -> None:
    """Whoever reads cannot change what is recorded, and sees nothing of what comes later."""
    recorder.observe("load", "all", "primary", "ok", 0.001)
    recorder.count("bad_cookies")
    series, counters = recorder.series(), recorder.counters()
    [read] = series.values()
    read.buckets[0] = 99
    recorder.observe("load", "all", "primary", "ok", 0.001)
    recorder.count("bad_cookies", 2)
    assert (read.count, counters["bad_cookies"]) == (1, 1)
    [now] = recorder.series().values()
    assert (now.count, sum(now.buckets), recorder.counters()["bad_cookies"]) == (2, 2, 3)


def test_no_observation_of_many_threads_is_lost(recorder: Recorder) -> None:
    """Threads that observe the same and other operations, and count, are all heard."""

    def work(name: str) -> None:
        for _ in range(2000):
            recorder.observe("load", "all", "primary", "ok", 0.001)
            recorder.observe("load", "all", name, "ok", 0.001)
            recorder.count("n")

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {operation.source: series.count for operation, series in recorder.series().items()}
    assert counts == {"primary": 8000, **{str(number): 2000 for number in range(4)}}
    assert recorder.counters() == {"n": 8000}
