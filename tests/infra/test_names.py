"""Template and extension speak of the same metrics: names, units, dimensions, and the expression of the error rate."""

from __future__ import annotations

import re
from dataclasses import fields

from flask_langpont_session.config.settings import Settings
from flask_langpont_session.ops.exporters import catalogue
from tests.infra.alarm_rules import alarms
from tests.infra.dashboard_rules import rows
from tests.infra.environments import README, parameters
from tests.infra.metrics import KNOWN, own_dimensions, watched
from tests.infra.template import Deployment, good_template, scope
from tests.support import metric_values

PUBLISHED = {metric.name: metric for metric in catalogue.ALL}


def production() -> Deployment:
    return Deployment(good_template(), parameters("production"))


def test_the_namespace_is_written_the_same_everywhere() -> None:
    """Alarms, graphs and the policy have the same namespace; a metric that is sent to another one would be refused."""
    texts = [str(leaf) for leaf in scope(good_template()["Resources"])]
    assert sum(catalogue.NAMESPACE in text for text in texts) > 10
    assert not [text for text in texts if "langpont/session" in text.lower().replace(catalogue.NAMESPACE.lower(), "")]


def test_the_error_rate_is_the_one_of_the_extension() -> None:
    """The same expression in the alarm and in the graph, over sums."""
    d = production()
    assert [row.name for row in rows(d) if not row.namespace] == [metric_values.ERROR_RATE]
    [rate] = [a for a in alarms(d).values() if catalogue.ERRORS.name in {m.name for m in watched(a)}]
    assert [query["Expression"] for query in rate["Metrics"] if "Expression" in query] == [metric_values.ERROR_RATE]
    assert {m.statistic for m in watched(rate)} == {"Sum"}


def test_defaults_of_the_dimensions_are_the_defaults_of_the_settings() -> None:
    """An application without settings publishes what production's alarms watch."""
    settings = Settings()
    assert own_dimensions(production()) == {"Environment": settings.environment, "Service": settings.service}
    assert good_template()["Parameters"]["KeyPrefix"]["Default"] == settings.key_prefix


def test_thresholds_are_in_the_unit_of_the_metric() -> None:
    """Latency in milliseconds, as it is published; levels without a unit; and the parameter's name says the unit."""
    assert PUBLISHED["OperationLatency"].unit == "Milliseconds" and PUBLISHED["FallbackLevel"].unit == "None"
    suffixes = {"Milliseconds": "Ms", "Percent": "Percent", "Seconds": "Seconds"}
    for name, resource in good_template()["Resources"].items():
        threshold = resource.get("Properties", {}).get("Threshold")
        if not isinstance(threshold, dict) or "MetricName" not in resource["Properties"]:
            continue
        unit = KNOWN[resource["Properties"]["Namespace"], resource["Properties"]["MetricName"]].unit
        value = threshold["Ref"] if "Ref" in threshold else threshold["Fn::FindInMap"][-1]
        assert value.endswith(suffixes.get(unit, ("Limit", "Left"))), name


def test_the_table_of_outputs_names_what_there_is() -> None:
    """Every output in README's table exists, every setting too, and no output that a setting could use is left out."""
    rows_ = re.findall(r"^\| (.*) \| (.*) \|$", README.read_text(), re.MULTILINE)
    table = rows_[rows_.index(("output", "setting (`LANGPONT_SESSION_…`)")) + 1 :]
    outputs = {name for left, _ in table for name in re.findall(r"`([A-Za-z]+)`", left)}
    settings = {name for _, right in table for name in re.findall(r"`([A-Z_]{3,})", right)}
    parameters_ = {"Environment", "ServiceName", "KeyPrefix", "AppRoleName"}
    assert outputs & set(good_template()["Outputs"]) == set(good_template()["Outputs"]) - {"CacheSecurityGroupId"}
    assert outputs - set(good_template()["Outputs"]) <= parameters_ <= set(good_template()["Parameters"])
    assert {name.lower() for name in settings} <= {f.name for f in fields(Settings)}
    assert {"REDIS_URL", "REPLICA_URL", "ALERT_TOPICS"} <= settings
