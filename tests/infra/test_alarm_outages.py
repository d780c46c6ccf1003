"""The alarms, over what was published while real servers failed: the right ones, and no others.

Those on the application are the same in both templates, which a rule of the serverless one says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest

from flask_langpont_session.metrics.losses import Cause
from flask_langpont_session.ops.exporters import catalogue
from tests.infra import record_workers
from tests.infra.alarm_rules import alarms, incidents
from tests.infra.alarm_states import ALARM, Figures, Key, Sample, histories, told
from tests.infra.environments import parameters
from tests.infra.metrics import own_dimensions
from tests.infra.published import figures, kinds, minutes, title
from tests.infra.record import SITES
from tests.infra.template import INFRA, Deployment, good_template


class Expected(NamedTuple):
    """The alarms that an outage raises.

    :param told: the alarms that tell a topic, each once.
    :param parts: those that fire besides and tell nothing: what the incidents consist of, or what level 4 silences.
    """

    told: set[str]
    parts: set[str]


NOTHING = Expected(set(), set())
LEVEL_1 = Expected({"RedisIncident"}, {"PrimaryDown", "OnReplica"})
LEVEL_2 = Expected({"RedisIncident"}, {"PrimaryDown", "OnReplica", "WithoutRedis"})
DATABASE = Expected({"DatabaseIncident"}, {"DatabaseDown", "GrantsRefused", "GrantsRefusedHour"})

EXPECTED: Mapping[str, Expected] = {
    **dict.fromkeys(("refused", "aof", "reset", "garbage", "hang", "slow", "half an hour"), LEVEL_2),
    **dict.fromkeys(("readonly", "oom", "with a replica"), LEVEL_1),
    "empty": Expected({"RedisIncident", "DataLoss"}, LEVEL_2.parts),
    "full journal": Expected({"RedisIncident", "WritesLost"}, LEVEL_2.parts),
    "comes and goes": Expected({"RedisIncident"}, {*LEVEL_2.parts, "ErrorRate"}),
    "flush": Expected({"DataLoss"}, set()),
    "replica": Expected({"ReplicaDown"}, set()),
    "database": DATABASE,
    "both": Expected({"WithoutStores"}, {*LEVEL_2.parts, *LEVEL_2.told, *DATABASE.parts, *DATABASE.told}),
    "slow Redis": Expected({"LatencyWarning", "LatencyCritical"}, set()),
    **dict.fromkeys(("a second", "a second of many", "nothing", "idle night", "low traffic"), NOTHING),
    **dict.fromkeys(("deployment", "busy worker"), NOTHING),
}


@cache
def deployed() -> Deployment:
    return Deployment(good_template(), parameters("production"))


def states(deployment: Deployment, published: Figures, length: int) -> dict[str, list[str]]:
    """The states of all alarms of a deployment, minute by minute, by their names."""
    on_metrics, on_alarms = ({f"<{n}>": one for n, one in of(deployment).items()} for of in (alarms, incidents))
    found = histories(on_metrics, on_alarms, published, length)
    return {name.strip("<>"): history for name, history in found.items()}


def beginnings(deployment: Deployment, history: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return the minutes at which each alarm tells its topic; alarms that never do are left out."""
    found = {}
    for name, alarm in {**alarms(deployment), **incidents(deployment)}.items():
        silence: dict[str, Any] = {}
        if suppressor := alarm.get("ActionsSuppressor", "").strip("<>"):
            wait, extension = (alarm[f"ActionsSuppressor{which}Period"] // 60 for which in ("Wait", "Extension"))
            silence = {"suppressor": history[suppressor], "wait": wait, "extension": extension}
        if alarm.get("AlarmActions"):
            found[name] = told(history[name], **silence)
    return {name: at for name, at in found.items() if at}


def test_every_outage_is_recorded() -> None:
    """The recorded outages are those of the recorder, and so those of Prometheus; for each, the expected alarms are
    known."""
    assert set(kinds()) == {*SITES, *record_workers.KINDS} == set(EXPECTED)


@pytest.mark.parametrize("kind", EXPECTED)
def test_an_outage_raises_what_it_should_and_nothing_else(kind: str) -> None:
    """Each incident is told once, and when all is well again nothing is left."""
    history = states(deployed(), figures(kind, own_dimensions(deployed())), minutes(kind))
    expected, begun = EXPECTED[kind], beginnings(deployed(), history)
    assert {name: len(at) for name, at in begun.items()} == dict.fromkeys(expected.told, 1)
    assert {name for name, states in history.items() if ALARM in states} == expected.told | expected.parts
    lasting = {"LatencyWarning", "LatencyCritical"} if kind == "slow Redis" else {"GrantsRefusedHour"}
    assert not [name for name, states in history.items() if states[0] == ALARM]
    assert {name for name, states in history.items() if states[-1] == ALARM} <= lasting


def of_half_hours(refused: Sequence[float], fine: float) -> Figures:
    """Sign-ins of half hours, in the figures of each minute."""
    base = own_dimensions(deployed())
    keys = [
        Key(catalogue.NAMESPACE, name, frozenset({**base, **third}.items()))
        for name, third in (
            (catalogue.GRANTS_REFUSED.name, {}),
            (catalogue.OPERATIONS.name, {"Operation": "regenerate"}),
        )
    ]
    of_minutes = [number for number in refused for _ in range(30)]
    return {
        keys[0]: [Sample(60 * at + 30, number) for at, number in enumerate(of_minutes)],
        keys[1]: [Sample(60 * at + 30, fine) for at in range(len(of_minutes))],
    }


@pytest.mark.parametrize(
    ("refused", "fine", "is_told"),
    [
        ((0, 0, 0.99, 0, 0), 99, False),  # one in a hundred for half an hour
        ((0, 0.99, 0.99, 0.99, 0.99), 99, True),
        ((0.4, 0.4, 0.4, 0.4), 99.6, False),  # four in a thousand: the budget lasts for a week
        ((0, 3), 97, True),
        ((0, 0.03, 0), 0, False),  # one in half an hour, and no other sign-in
    ],
)
def test_sign_ins_are_told_by_the_rate_at_which_they_use_up_the_objective(
    refused: Sequence[float], fine: float, is_told: bool
) -> None:
    """One in 1,000 may be refused: told are 14.4 times as many in an hour, or 6 times in three half hours in a row."""
    history = states(deployed(), of_half_hours(refused, fine), 30 * len(refused))
    assert ("DatabaseIncident" in beginnings(deployed(), history)) is is_told


def test_changes_that_waited_for_too_long_are_told() -> None:
    """Changes that were dropped for another cause are not."""
    base = own_dimensions(deployed())
    for cause, at in ((Cause.TOO_OLD, [1]), (Cause.SESSION_OVER, [])):
        key = Key(catalogue.NAMESPACE, catalogue.MERGE_DROPPED.name, frozenset({**base, "Cause": cause.value}.items()))
        history = states(deployed(), {key: [Sample(90, 3)]}, 5)
        assert beginnings(deployed(), history).get("ChangesTooOld", []) == at


@pytest.mark.parametrize(("kind", "at"), [("busy worker", [4]), ("deployment", []), ("nothing", [])])
def test_a_host_that_is_gone_is_told_by_the_number_of_workers(kind: str, at: list[int]) -> None:
    """A site of four workers of which two report; a deployment of all four; and a site that says no number."""
    deployment = Deployment(good_template(), parameters("production", WorkersLeft=1 if kind == "nothing" else 4))
    history = states(deployment, figures(kind, own_dimensions(deployment)), minutes(kind))
    assert beginnings(deployment, history).get("HostGone", []) == at


def test_before_the_application_exists_nothing_is_told() -> None:
    """Nothing is told while the application has reported nothing for an hour either: there is nothing to miss."""
    deployment = deployed()
    history = states(deployment, {}, 60)
    assert beginnings(deployment, history) == {}
    assert {name for name, states in history.items() if ALARM in states} == {"Heartbeat"}


def test_an_application_that_falls_silent_is_told_once() -> None:
    """Five minutes after its last figures, for as long as it is away."""
    deployment, length = deployed(), minutes("nothing")
    history = states(deployment, figures("nothing", own_dimensions(deployment)), length + 90)
    assert beginnings(deployment, history) == {"SiteIncident": [length + 6]}
    assert history["SiteIncident"][-1] == ALARM


def with_changes(name: str, **changes: Any) -> dict[str, Any]:
    """An alarm of the template, with other properties; None takes one away."""
    changed = {**alarms(deployed())[name], **changes}
    return {key: value for key, value in changed.items() if value is not None}


def history_of(alarm: Mapping[str, Any], kind: str) -> list[str]:
    published = figures(kind, own_dimensions(deployed()))
    return histories({"it": alarm}, {}, published, minutes(kind))["it"]


def test_the_worst_of_each_interval_makes_minutes_of_a_second() -> None:
    """The recording has what the alarms must not fall for: 24 workers whose intervals end over a minute."""
    worst = with_changes(
        "WithoutRedis", MetricName=catalogue.FALLBACK_LEVEL.name, EvaluationPeriods=2, DatapointsToAlarm=2
    )
    assert ALARM in history_of(worst, "a second of many")
    assert ALARM in history_of(worst, "refused")


def test_a_p99_of_few_calls_is_one_slow_call() -> None:
    """This recording has it; and if fewer than a thousand are not looked at, what is slow at night stays unseen."""
    p99 = {
        key: value
        for key, value in alarms(deployed())["LatencyCritical"].items()
        if key != "Metrics"
    } | {
        "Namespace": catalogue.NAMESPACE,
        "MetricName": catalogue.OPERATION_LATENCY.name,
        "Dimensions": with_changes("DataLoss")["Dimensions"],
        "ExtendedStatistic": "p99",
        "Period": 300,
    }  # fmt: skip
    assert ALARM in history_of(p99, "low traffic")
    assert ALARM not in history_of({**p99, "EvaluateLowSampleCountPercentile": "ignore"}, "slow Redis")


def test_the_documented_table_is_what_was_evaluated() -> None:
    """Paste the lines of ``table()`` into the page when this fails."""
    text = (INFRA / "README.md").read_text(encoding="utf-8")
    [found] = re.findall(r"<!-- recordings: begin -->\n(.*?)\n<!-- recordings: end -->", text, re.DOTALL)
    assert found == "\n".join(table())


def table() -> list[str]:
    """Return the table of outages and told alarms in Markdown, one line each."""
    rows = {
        title(kind): ", ".join(f"[{name}](../docs/operations.md#{name.lower()})" for name in sorted(expected.told))
        or "–"
        for kind, expected in EXPECTED.items()
    }
    return [
        "| what happens | what is told |",
        "| --- | --- |",
        *(f"| {what} | {names} |" for what, names in rows.items()),
    ]
