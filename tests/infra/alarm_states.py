"""In which state CloudWatch's alarms are, minute by minute, over figures that were published. Pure.

Written from AWS' documentation, and never compared with AWS: "Using Amazon CloudWatch alarms", "Configuring how
CloudWatch alarms treat missing data", "Percentile-based alarms and low data samples", "Statistics definitions", "Using
metric math", PutCompositeAlarm. What the documentation leaves open is said where it is decided.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
METRIC_ALARM, COMPOSITE_ALARM = "AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"

MINUTE = 60
"""Seconds between two evaluations of an alarm whose period is a minute or longer; its windows move by as much."""

_EXTRA = 2
"""Periods that are looked at beyond the evaluation periods: as many as in the tables of the documentation, which says
that the number differs."""


class Sample(NamedTuple):
    """One published value.

    :param at: seconds from the beginning of the recording, when CloudWatch received it.
    :param times: how many observations had it.
    """

    at: float
    value: float
    times: float = 1


class Key(NamedTuple):
    """One metric of CloudWatch."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]


Figures = Mapping[Key, Sequence[Sample]]
Point = float | None
"""The value of one period; None: there is none."""


# -- one period --------------------------------------------------------------------------------------------------------


def statistic(name: str, samples: Sequence[Sample]) -> Point:
    """A statistic of one period, extended ones included; None without samples."""
    if not samples:
        return None
    values = [sample.value for sample in samples]
    if name in _PLAIN:
        return _PLAIN[name](samples, values)
    if found := re.fullmatch(r"p(\d+(?:\.\d+)?)", name):
        return _percentile(float(found[1]), samples)
    if found := re.fullmatch(r"TC\((\d*\.?\d*):(\d*\.?\d*)\)", name):
        low, high = float(found[1] or -math.inf), float(found[2] or math.inf)
        return sum(sample.times for sample in samples if low < sample.value <= high)  # without the lower bound itself
    raise ValueError(f"no such statistic: {name}")


def _sum(samples: Sequence[Sample]) -> float:
    return sum(sample.value * sample.times for sample in samples)


def _count(samples: Sequence[Sample]) -> float:
    return sum(sample.times for sample in samples)


_PLAIN: Mapping[str, Callable[[Sequence[Sample], Sequence[float]], float]] = {
    "Sum": lambda samples, values: _sum(samples),
    "SampleCount": lambda samples, values: _count(samples),
    "Average": lambda samples, values: _sum(samples) / _count(samples),
    "Minimum": lambda samples, values: min(values),
    "Maximum": lambda samples, values: max(values),
}


def _percentile(percent: float, samples: Sequence[Sample]) -> float:
    """Return a percentile by the nearest rank; how CloudWatch interpolates is not documented."""
    rank, passed = percent / 100 * _count(samples), 0.0
    for sample in sorted(samples, key=lambda sample: sample.value):
        passed += sample.times
        if passed >= rank:
            return sample.value
    raise AssertionError("counts do not add up")


# -- metric math -------------------------------------------------------------------------------------------------------

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda one, other: math.nan if other == 0 else one / other,
}
_COMPARED: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_OVER_METRICS: Mapping[str, Callable[[list[float]], float]] = {"SUM": math.fsum, "MAX": max, "MIN": min}


def calculate(expression: str, points: Mapping[str, Point]) -> Point:
    """An expression over the points of one period. What is missing makes missing what is calculated of it, but for
    ``FILL(metric, value)``, and for functions over METRICS(), which take those that there are."""
    text = re.sub(r"\b(AND|OR|NOT)\b", lambda word: word[0].lower(), expression)
    return _value(ast.parse(text.strip(), mode="eval").body, points)


def _value(node: ast.expr, points: Mapping[str, Point]) -> Point:
    match node:
        case ast.Constant(value=bool() | int() | float() as number):
            return number
        case ast.Name(id=name):
            return points[name]
        case ast.BinOp():
            one, other = _value(node.left, points), _value(node.right, points)
            result = None if one is None or other is None else _BINARY[type(node.op)](one, other)
            return None if result is None or math.isnan(result) else result
        case ast.Compare(ops=[operation], comparators=[right]):
            one, other = _value(node.left, points), _value(right, points)
            return None if one is None or other is None else _COMPARED[type(operation)](one, other)
        case ast.BoolOp(values=parts):
            values = [_value(part, points) for part in parts]
            return None if None in values else (all if isinstance(node.op, ast.And) else any)(values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = _value(operand, points)
            return None if value is None else not value
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _call(function, arguments, points)
    raise ValueError(f"not understood: {ast.unparse(node)}")


def _call(function: str, arguments: Sequence[ast.expr], points: Mapping[str, Point]) -> Point:
    match function, arguments:
        case "IF", [condition, yes, no]:
            decided = _value(condition, points)
            return None if decided is None else _value(yes if decided else no, points)
        case "FILL", [metric, instead]:
            value = _value(metric, points)
            return _value(instead, points) if value is None else value
        case "SUM" | "MAX" | "MIN", [ast.Call(func=ast.Name(id="METRICS"), args=[])]:
            there = [point for point in points.values() if point is not None]
            return _OVER_METRICS[function](there) if there else None
    raise ValueError(f"no such function: {function}({', '.join(map(ast.unparse, arguments))})")


# -- one alarm ---------------------------------------------------------------------------------------------------------

_BREACHES: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def state(breaches: Sequence[bool | None], *, periods: int, needed: int, missing: str, before: str) -> str:
    """The state that follows from the points of an evaluation range.

    :param breaches: oldest first, of each point whether it breaches; None: it is missing.
    :param periods: EvaluationPeriods; `needed`: DatapointsToAlarm; `missing`: TreatMissingData.
    :param before: the state until now.
    """
    real = [breach for breach in breaches if breach is not None]
    if len(real) >= periods:  # then what is missing does not matter
        return ALARM if sum(real[-periods:]) >= needed else OK
    if missing in ("breaching", "notBreaching"):
        filled = (periods - len(real)) * (missing == "breaching")
        return ALARM if sum(real) + filled >= needed else OK
    if not real:
        return before if missing == "ignore" else INSUFFICIENT
    if sum(real) >= needed:
        return ALARM
    if not all(real):
        return OK
    # All that there is breaches, and is too little.
    is_old_enough = any(breaches[: len(breaches) - needed + 1])
    return ALARM if missing == "missing" and is_old_enough else before


def _metrics(alarm: Mapping[str, Any]) -> Iterator[tuple[str, Key, str, int]]:
    """Yield each metric that an alarm reads: the query's id, the key, the statistic, the period."""
    if "MetricName" in alarm:
        yield "", _key(alarm), alarm.get("Statistic") or alarm["ExtendedStatistic"], alarm["Period"]
    for query in alarm.get("Metrics", []):
        if "MetricStat" in query:
            wanted = query["MetricStat"]
            yield query["Id"], _key(wanted["Metric"]), wanted["Stat"], wanted["Period"]


def _key(metric: Mapping[str, Any]) -> Key:
    dimensions = frozenset((pair["Name"], pair["Value"]) for pair in metric.get("Dimensions", []))
    return Key(metric["Namespace"], metric["MetricName"], dimensions)


def _within(figures: Figures, key: Key, start: float, end: float) -> list[Sample]:
    return [sample for sample in figures.get(key, ()) if start <= sample.at < end]


def _point(alarm: Mapping[str, Any], figures: Figures, start: float, end: float) -> Point:
    points = {name: statistic(stat, _within(figures, key, start, end)) for name, key, stat, _ in _metrics(alarm)}
    if "MetricName" in alarm:
        return points[""]
    [returned] = [query for query in alarm["Metrics"] if query.get("ReturnData")]
    return calculate(returned["Expression"], points)


def _is_too_little(alarm: Mapping[str, Any], figures: Figures, start: float, end: float) -> bool:
    """Return whether a percentile has too few samples, and the alarm is to stay as it is then."""
    if alarm.get("EvaluateLowSampleCountPercentile") != "ignore":
        return False
    share = float(alarm["ExtendedStatistic"].removeprefix("p")) / 100
    needed = round(10 / (1 - share) if share >= 0.5 else 10 / share)
    [(_, key, _, _)] = _metrics(alarm)
    return _count(_within(figures, key, start, end)) < needed


def _metric_state(alarm: Mapping[str, Any], figures: Figures, now: float, before: str) -> str:
    periods, period = alarm["EvaluationPeriods"], max(period for *_, period in _metrics(alarm))
    if _is_too_little(alarm, figures, now - periods * period, now):
        return before
    compare, threshold = _BREACHES[alarm["ComparisonOperator"]], alarm["Threshold"]
    ends = [now - number * period for number in reversed(range(periods + _EXTRA))]
    points = [_point(alarm, figures, end - period, end) for end in ends]
    breaches = [None if point is None else compare(point, threshold) for point in points]
    return state(
        breaches, periods=periods, needed=alarm["DatapointsToAlarm"], missing=alarm["TreatMissingData"], before=before
    )


# -- all alarms --------------------------------------------------------------------------------------------------------

_ASKED = re.compile(r"(ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*\"?([^\")]+?)\"?\s*\)")


def asked(rule: str) -> set[str]:
    """The alarms that a composite one's rule names."""
    return {name for _, name in _ASKED.findall(rule)}


def holds(rule: str, states: Mapping[str, str]) -> bool:
    """Return whether a composite alarm's rule holds, by the states of the alarms that it names."""
    return bool(calculate(_ASKED.sub(lambda found: str(states[found[2]] == found[1]), rule), {}))


def histories(
    alarms: Mapping[str, Mapping[str, Any]], composites: Mapping[str, Mapping[str, Any]], figures: Figures, minutes: int
) -> dict[str, list[str]]:
    """The state of each alarm at the end of each minute. An alarm begins without data.

    :param alarms: properties of alarms on metrics, by the name that rules call them by.
    :param composites: those of alarms on these.
    """
    found: dict[str, list[str]] = {name: [] for name in (*alarms, *composites)}
    states = dict.fromkeys(found, INSUFFICIENT)
    for minute in range(1, minutes + 1):
        for name, alarm in alarms.items():
            states[name] = _metric_state(alarm, figures, minute * MINUTE, states[name])
        for name, alarm in composites.items():
            states[name] = ALARM if holds(alarm["AlarmRule"], states) else OK
        for name, history in found.items():
            history.append(states[name])
    return found


def told(history: Sequence[str], suppressor: Sequence[str] = (), *, wait: int = 0, extension: int = 0) -> list[int]:
    """The minutes at which an alarm tells its beginning, as the documentation of ActionsSuppressor has it.

    :param history: its states.
    :param suppressor: the states of the alarm that silences it.
    :param wait: minutes that it gives that alarm to begin; `extension`: minutes of silence after the end of that alarm.
    """
    found, began, is_told = [], 0, False
    for minute, now in enumerate(history):
        if now != ALARM:
            began, is_told = minute + 1, False
        elif not is_told and ALARM not in suppressor[max(0, minute - extension) : minute + 1]:
            is_told = not suppressor or minute - began >= wait
            found += [minute] * is_told
    return found
