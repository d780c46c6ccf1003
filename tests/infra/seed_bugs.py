"""Mistakes that look right: each is one change of the good template, and the rules that must see it.

As few as show of every rule that it can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.infra.rules import GROUP

Template = dict[str, Any]
Change = Callable[[Template], object]


@dataclass(frozen=True)
class Bug:
    """One mistake.

    :param what: in words.
    :param rules: those that must report it, and no other.
    :param change: makes it.
    :param parameters: with which it shows, over production's.
    """

    what: str
    rules: frozenset[str]
    change: Change
    parameters: Mapping[str, Any] = field(default_factory=dict)


def bug(what: str, rules: str, change: Change, **parameters: Any) -> Bug:
    return Bug(what, frozenset(rules.split()), change, parameters)


def props(template: Template, name: str) -> dict[str, Any]:
    found = template["Resources"][name]["Properties"]
    assert isinstance(found, dict)
    return found


def put(name: str, **values: Any) -> Change:
    """Set properties of one resource."""
    return lambda t: props(t, name).update(values)


def drop(name: str, key: str) -> Change:
    """Remove a property of one resource."""
    return lambda t: props(t, name).pop(key)


def remove(name: str) -> Change:
    """Remove a resource."""
    return lambda t: t["Resources"].pop(name)


def output(name: str, value: str) -> Change:
    return lambda t: t["Outputs"][name].update(Value={"Fn::Sub": value})


def dashboard(old: str, new: str) -> Change:
    """Replace a piece of the dashboard's text, which must be there."""

    def change(template: Template) -> None:
        body = props(template, "Dashboard")["DashboardBody"]["Fn::Sub"]
        assert old in body[0], old
        body[0] = body[0].replace(old, new, 1)

    return change


def every_lag(template: Template) -> None:
    """A primary has no lag: if missing data were one, each would have an alarm."""
    alarms = [one["Properties"] for one in template["Resources"].values() if "Alarm" in one["Type"]]
    for alarm in alarms:
        if alarm.get("MetricName") == "ReplicationLag":
            alarm.update(TreatMissingData="breaching")


def token_as_parameter(template: Template) -> None:
    template["Parameters"]["RedisAuthToken"] = {"Type": "String", "Default": "x" * 20}
    props(template, "Cache")["AuthToken"] = {"Ref": "RedisAuthToken"}


def all_secrets(template: Template) -> None:
    for entry in props(template, "AppPolicy")["PolicyDocument"]["Statement"]:
        for statement in entry.get("Fn::If", [entry]):
            if isinstance(statement, dict) and statement.get("Sid") == "ReadToken":
                statement["Resource"] = "*"


BUGS = [
    # The document and the cache
    bug(
        "a second group",
        "form retention replacement",
        lambda t: t["Resources"].update(
            Second={"Type": GROUP, "Properties": {"ReplicationGroupDescription": "another"}}
        ),
    ),
    bug("redis 7.4", "engine user_group users", put("Cache", Engine="redis", EngineVersion="7.4")),
    bug("an old node type", "node_type", put("Cache", CacheNodeType="cache.t2.micro")),
    bug("a property that there is not", "schema", put("Cache", Description="sessions")),
    bug("a token as a parameter", "parameters authentication replacement", token_as_parameter),
    bug("a fixed topic name", "physical_names", put("InfoTopic", TopicName="langpont-info-alerts")),
    bug("NumCacheClusters beside shards", "topology", put("Cache", NumCacheClusters=3)),
    bug("failover without a replica", "failover", put("Cache", AutomaticFailoverEnabled=True), ReplicasPerShard=0),
    bug("plain connections are taken too", "encryption", put("Cache", TransitEncryptionMode="preferred")),
    bug("a secret that is written in the template", "token", put("AuthToken", SecretString="hunter2")),
    bug("a user who may do everything", "users", put("TokenUser", AccessString="on ~* +@all")),
    bug("a day for a window", "windows", put("Cache", PreferredMaintenanceWindow="sunday")),
    bug(
        "eviction of any key",
        "cache_parameters",
        lambda t: props(t, "CacheParameters")["Properties"].update({"maxmemory-policy": "allkeys-lru"}),
    ),
    bug("logs for ever", "logs", drop("SlowLog", "RetentionInDays")),
    # Network, topics and rights
    bug(
        "subnets that are not declared",
        "references network",
        put("CacheSubnets", SubnetIds=[{"Ref": "PrivateSubnet1"}]),
    ),
    bug("an endpoint that is left out", "endpoints", remove("EndpointOfMetrics"), VpcEndpoints="yes"),
    bug("all ports", "firewall", put("CacheFromApp", FromPort=0, ToPort=65535)),
    bug("the key of AWS", "topics keys", put("CriticalTopic", KmsMasterKeyId="alias/aws/sns")),
    bug("no mail of emergencies", "subscriptions", remove("EmergencyEmail")),
    bug("all secrets", "policy", all_secrets),
    bug("a plain connection", "outputs", output("RedisUrl", "redis://${Cache.PrimaryEndPoint.Address}:6379/0")),
    # Alarms
    bug(
        "an alarm on a replica that is not there",
        "alarm_nodes alarm_actions alarm_incidents",
        lambda t: t["Resources"]["Shard1Node3Cpu"].pop("Condition"),
        ReplicasPerShard=1,
    ),
    bug("no dimensions", "alarm_metrics alarm_coverage", drop("Shard1Node1Memory", "Dimensions")),
    bug("a lag that a primary would have to have", "alarm_thresholds alarm_beginning", every_lag),
    bug("a period of 45 seconds", "alarm_form alarm_periods", put("Heartbeat", Period=45)),
    bug("lost data is not watched", "alarm_set references dashboard_complete", remove("DataLoss")),
    # Dashboard
    bug("no JSON", "dashboard_text", put("Dashboard", DashboardBody="{nope")),
    bug("one node of three", "dashboard_rows", dashboard("(${Nodes})", 'CacheClusterId=\\"${Cache}-001\\"')),
    bug("counts and percent on one axis", "dashboard_axes", dashboard('"yAxis": "right"', '"yAxis": "left"')),
    bug("an average of sessions", "dashboard_statistics", dashboard('{"stat": "Maximum"}', '{"stat": "Average"}')),
    bug(
        "errors in a log that has none",
        "dashboard_logs",
        dashboard("| sort `Duration (us)` desc", "| filter @message like /ERROR/"),
    ),
    bug("another region", "literals dashboard_layout", dashboard("${AWS::Region}", "us-east-1")),
]
