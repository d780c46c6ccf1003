"""The evaluator of alarms does what AWS' documentation says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.alarm_states import ALARM, INSUFFICIENT, OK, Key, Sample, asked, histories, state

KEPT = "the state before"
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")


@pytest.mark.parametrize(
    ("points", "needed", "states"),
    [
        # The two tables of "Configuring how CloudWatch alarms treat missing data"; an evaluation over three periods.
        ("0 - X - X", 3, (OK, OK, OK, OK)),
        ("0 - - - -", 3, (OK, OK, OK, OK)),
        ("- - - - -", 3, (INSUFFICIENT, KEPT, ALARM, OK)),
        ("0 X X - X", 3, (ALARM, ALARM, ALARM, ALARM)),
        ("- - X - -", 3, (ALARM, KEPT, ALARM, OK)),
        ("0 - X - X", 2, (ALARM, ALARM, ALARM, ALARM)),
        ("0 0 X 0 X", 2, (ALARM, ALARM, ALARM, ALARM)),
        ("0 - X - -", 2, (OK, OK, ALARM, OK)),
        ("- - - - 0", 2, (OK, OK, ALARM, OK)),
        ("- - - X -", 2, (ALARM, KEPT, ALARM, OK)),
        # What the page says of the youngest point: it is too early for an alarm.
        ("- - - - X", 3, (KEPT, KEPT, ALARM, OK)),
    ],
)
def test_missing_data_are_treated_as_in_the_tables(points: str, needed: int, states: tuple[str, ...]) -> None:
    """X breaches, 0 does not, - is missing; the newest is the last."""
    breaches = [{"X": True, "0": False, "-": None}[point] for point in points.split()]
    found = [state(breaches, periods=3, needed=needed, missing=missing, before=KEPT) for missing in TREATMENTS]
    assert found == list(states)


FIGURE = Key("N", "M", frozenset({("D", "v")}))


def alarm(**more: Any) -> dict[str, Any]:
    return {
        "Namespace": "N", "MetricName": "M", "Dimensions": [{"Name": "D", "Value": "v"}], "Statistic": "Maximum",
        "Period": 60, "EvaluationPeriods": 2, "DatapointsToAlarm": 2, "Threshold": 2,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": "notBreaching", **more,
    }  # fmt: skip


def of_minutes(*values: float) -> dict[Key, list[Sample]]:
    return {FIGURE: [Sample(60 * number + 30, value) for number, value in enumerate(values)]}


def test_a_longer_period_moves_by_minutes() -> None:
    """The period has what was received until then, each sample in one of two windows side by side."""
    figures = of_minutes(0, 0, 9, 0, 0, 0, 0, 0, 0)
    slow = alarm(Period=300, EvaluationPeriods=1, DatapointsToAlarm=1)
    assert histories({"A": slow}, {}, figures, 9)["A"] == [OK, OK, *[ALARM] * 5, OK, OK]


def test_a_percentile_of_few_samples_stays_as_it_was_if_it_is_told_to() -> None:
    """Below 10 / (1 - 0.99) = 1,000 samples in the periods of the evaluation; else it follows each of them."""
    p99 = alarm(ExtendedStatistic="p99", EvaluationPeriods=1, DatapointsToAlarm=1)
    del p99["Statistic"]
    frozen = p99 | {"EvaluateLowSampleCountPercentile": "ignore"}
    figures = {FIGURE: [Sample(30, 9, 1000), Sample(90, 0, 999), Sample(150, 0, 1000)]}
    assert histories({"A": frozen, "B": p99}, {}, figures, 3) == {"A": [ALARM, ALARM, OK], "B": [ALARM, OK, OK]}


def test_a_composite_alarm_is_what_its_rule_says_of_the_others() -> None:
    """Names with and without quotation marks, as CloudWatch takes them."""
    rule = '(ALARM("A") OR INSUFFICIENT_DATA(B)) AND NOT ALARM(stack-C-1)'
    assert asked(rule) == {"A", "B", "stack-C-1"}
    alarms = {"A": alarm(), "B": alarm(), "stack-C-1": alarm(Threshold=4)}
    found = histories(alarms, {"All": {"AlarmRule": rule}}, of_minutes(0, 2, 3, 4, 4, 0), 6)
    assert found["All"] == [OK, OK, ALARM, ALARM, OK, OK]
