"""docs/operations.md has every alert of the application and every alarm of the template, and says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from flask_langpont_session.ops.alerts.messages import RUNBOOK
from flask_langpont_session.ops.alerts.table import ALERTS
from flask_langpont_session.ops.cli.commands import langpont
from flask_langpont_session.ops.exporters import catalogue
from tests.infra.alarm_rules import alarms, incidents, topics_of
from tests.infra.dashboard_rules import rows
from tests.infra.environments import parameters, serverless_parameters
from tests.infra.template import INFRA, Deployment, good_template, serverless_template
from tests.support import metric_values

DOCS = INFRA.parent / "docs"
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")


def sections(chapter: str) -> dict[str, str]:
    """The sections of one chapter, by heading."""
    [text] = re.findall(rf"^## {chapter}\n(.*?)(?=^## )", OPERATIONS, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))


DEPLOYMENTS = (
    Deployment(good_template(), parameters("production", NodeType="cache.t4g.medium")),  # which runs on credits
    Deployment(serverless_template(), serverless_parameters()),
)


def every_alarm() -> Iterator[tuple[str, str, str]]:
    """Yield of every alarm the name without shard and node, the severity of its topic, and its section."""
    for d in DEPLOYMENTS:
        for name, alarm in {**alarms(d), **incidents(d)}.items():
            [topic] = topics_of(d, name) if name in alarms(d) else alarm["AlarmActions"]
            severity = topic.strip("<>").removesuffix("Topic").lower()
            yield re.sub(r"^Shard\dNode\d", "", name), severity, alarm["AlarmDescription"].rpartition("#")[2]


OF_APPLICATION = sections("Alerts of the application")
OF_CLOUDWATCH = sections("Alarms of CloudWatch")
OF_ALARMS = {name: severity for name, severity, _ in every_alarm()}
SEVERITIES = {alert.name: alert.severity.value for alert in ALERTS} | OF_ALARMS


def test_alarms_name_their_section() -> None:
    """The page of the template's parameter is this one, as for the alerts of the application."""
    default = good_template()["Parameters"]["Runbook"]["Default"]
    assert default == serverless_template()["Parameters"]["Runbook"]["Default"] == RUNBOOK
    named = {section for *_, section in every_alarm()}
    assert named == {name.lower() for name in OF_CLOUDWATCH} <= anchors(OPERATIONS)


def test_every_alert_and_every_alarm_has_a_section() -> None:
    """The page has no section of an alert that nothing sends. The heading is the anchor that messages link to."""
    assert list(OF_APPLICATION) == [alert.name for alert in ALERTS]
    assert set(OF_CLOUDWATCH) == set(OF_ALARMS)
    assert len(OF_CLOUDWATCH) == 39


@pytest.mark.parametrize("name", SEVERITIES)
def test_a_section_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    """Its severity is that of the message or of the topic."""
    section = (OF_APPLICATION | OF_CLOUDWATCH)[name]
    assert re.search(rf"^(`Shard…Node…{name}`, )?\*{SEVERITIES[name]}\*", section, re.MULTILINE)
    if not re.search(r"\bAs\s\[", section):  # what to do is in the section of another alert
        for label in ("Users see", "Check", "Do"):
            assert f"**{label.lower()}**" in section.lower(), label


def test_an_operator_who_looks_for_the_slow_operation_finds_it() -> None:
    """The page names the operations as they are published, and the graph that has them."""
    section = OF_CLOUDWATCH["LatencyWarning"]
    [title, check] = re.findall(r'\*\*Check\*\* "([^"]+)"(.*?)Then', section, re.DOTALL)[0]
    assert sorted(re.findall(r"`(\w+)`", check)) == sorted(metric_values.OPERATION_VALUES)
    [row] = [row for row in rows(Deployment(good_template(), parameters("production"))) if row.title.startswith(title)]
    assert (row.name, row.statistic) == (catalogue.OPERATION_LATENCY.name, "p99")
    assert catalogue.OPERATION_LATENCY.by in row.dimensions


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    """Nobody has time for a dead link at night."""
    for page, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", OPERATIONS):
        text = (DOCS / page).read_text(encoding="utf-8") if page else OPERATIONS
        assert not anchor or anchor in anchors(text), (page, anchor)


def test_the_commands_exist() -> None:
    """All that begin with ``flask langpont``, on this page or on that of the commands."""
    commands = (DOCS / "commands.md").read_text(encoding="utf-8")
    named = [set(re.findall(r"flask langpont ([a-z-]+)", page)) for page in (OPERATIONS, commands)]
    assert named[0] <= named[1] == set(langpont.commands)
