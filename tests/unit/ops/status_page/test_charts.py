"""The charts: what is where, and what is said of it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from flask_langpont_session.ops.status_page.charts import HEIGHT, Chart, Period, charts, duration, periods
from flask_langpont_session.ops.status_page.facts import Facts
from flask_langpont_session.ops.status_page.history import SOURCES, LevelChange, Slice

from .told import NOW, an_outage, facts, minute


def chart(name: str, said: Facts) -> Chart:
    [found] = [one for one in charts(said) if one.name == name]
    return found


def test_levels_are_drawn_for_as_long_as_they_lasted() -> None:
    """The older one is cut at the edge; each is in the row of its label."""
    drawn = chart("levels", an_outage())
    assert [(r.x, r.width, r.kind) for r in drawn.rectangles] == [
        (0, 2340, "level-0"),
        (2340, 60, "level-1"),
        (2400, 1200, "level-2"),
    ]
    assert drawn.said == "1 min at level 1, 20 min at level 2; the worst was level 2 (local_cache)."
    row = HEIGHT / 5
    labels = [drawn.labels[int(r.y // row)] for r in drawn.rectangles]
    assert labels == ["0 normal", "1 replica", "2 local_cache"]


def test_an_hour_without_an_outage_is_said_to_be_one() -> None:
    assert chart("levels", facts()).said == "Level 0 (normal) all the time."


def test_periods_that_ended_before_the_hour_are_left_out() -> None:
    changes = [LevelChange(NOW - 9000, 0), LevelChange(NOW - 8000, 2), LevelChange(NOW - 7000, 0)]
    assert periods(facts(changes=changes)) == [Period(0, NOW - 7000, NOW)]


def test_a_call_is_as_high_as_it_took_long() -> None:
    """A decade is a fifth of the height, from 1000 ms above; the bar is from p50 to p99."""
    took = {"redis": Counter({1.0: 50, 100.0: 50}), "database": Counter({10.0: 1})}
    drawn = chart("latency", facts(slices=[minute(5, took=took)], budget=0.1))
    redis, database = drawn.rectangles
    assert (redis.kind, database.kind) == ("redis", "database")
    assert (redis.y + 1, redis.y + redis.height - 1, database.y + 1) == pytest.approx((20, 60, 40))
    assert database.x == pytest.approx(redis.x + 30)
    assert drawn.budget_at == pytest.approx(20)
    assert "p99 was 100 ms for Redis and 10 ms for the database" in drawn.said


@pytest.mark.parametrize("amount", [0.001, 0.01, 1e8])
def test_what_is_too_short_or_too_long_is_at_an_edge(amount: float) -> None:
    [bar] = chart("latency", facts(slices=[minute(5, took={"redis": Counter({amount: 1})})])).rectangles
    assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT


def test_answers_are_stacked() -> None:
    """Their heights are to each other as the numbers are, and the highest fits."""
    drawn = chart("answers", facts(slices=[minute(5, answers=Counter(near=75, local=25)), minute(4)]))
    near, local = drawn.rectangles
    assert (near.kind, local.kind) == ("from-near", "from-local")
    assert near.height == pytest.approx(3 * local.height)
    assert (near.y + near.height, local.y + local.height) == pytest.approx((HEIGHT, near.y))
    assert local.y >= 0
    assert drawn.labels == ["100", "50"]
    assert [kind for kind, _ in drawn.legend] == [f"from-{source}" for source in SOURCES]


def test_a_journal_that_cannot_be_read_is_not_empty() -> None:
    drawn = chart("journal", facts(slices=[minute(5, waiting=7), minute(4, waiting=None), minute(3)]))
    assert [r.kind for r in drawn.rectangles] == ["waiting", "unknown"]
    assert drawn.said == "At most 7 changes waited. For a while the journal could not be read."


def test_a_shorter_time_has_finer_columns() -> None:
    """Ten seconds each in ten minutes; in an hour six of these are one column."""
    slices = [Slice(NOW - NOW % 60 - 120 + 10 * number, answers=Counter(near=1)) for number in range(6)]
    [whole] = chart("answers", facts(slices=slices)).rectangles
    assert whole.width == pytest.approx(60 * 0.9)
    found = chart("answers", facts(slices=slices, span=600.0)).rectangles
    assert [part.width for part in found] == pytest.approx([10 * 0.9] * 6)
    assert [after.x - before.x for before, after in pairwise(found)] == pytest.approx([10] * 5)


@pytest.mark.parametrize("said", [facts(), an_outage(), an_outage()._replace(span=600.0)])
def test_nothing_is_drawn_outside(said: Facts) -> None:
    """Neither an empty hour nor the minute that began before it is drawn outside."""
    said = said._replace(slices=[minute(60, answers=Counter(near=9)), *said.slices])
    rectangles = [rectangle for one in charts(said) for rectangle in one.rectangles]
    assert rectangles
    for x, y, width, height, _ in rectangles:
        assert 0 <= x <= x + width <= said.span + 0.001
        assert 0 <= y <= y + height <= HEIGHT + 0.001


@pytest.mark.parametrize(
    ("seconds", "said"), [(-0.3, "0 s"), (0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "60 min"), (5400, "1.5 h")]
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
