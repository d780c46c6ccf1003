"""Mistakes that look right: each is one change of the good template, and the rules that must see it.

A dozen, of those that would cost most: that rules see what they are about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    bug("a token as a parameter", "parameters authentication replacement", token_as_parameter),
    bug("failover without a replica", "failover", put("Cache", AutomaticFailoverEnabled=True), ReplicasPerShard=0),
    bug("plain connections are taken too", "encryption", put("Cache", TransitEncryptionMode="preferred")),
    bug("a secret that is written in the template", "token", put("AuthToken", SecretString="hunter2")),
    bug("a user who may do everything", "users", put("TokenUser", AccessString="on ~* +@all")),
    bug(
        "eviction of any key",
        "cache_parameters",
        lambda t: props(t, "CacheParameters")["Properties"].update({"maxmemory-policy": "allkeys-lru"}),
    ),
    # Network, topics and rights
    bug("all ports", "firewall", put("CacheFromApp", FromPort=0, ToPort=65535)),
    bug("the key of AWS", "topics keys", put("CriticalTopic", KmsMasterKeyId="alias/aws/sns")),
    bug("all secrets", "policy", all_secrets),
    # Alarms
    bug(
        "an alarm on a replica that is not there",
        "alarm_nodes alarm_actions alarm_incidents",
        lambda t: t["Resources"]["Shard1Node3Cpu"].pop("Condition"),
        ReplicasPerShard=1,
    ),
    bug("a lag that a primary would have to have", "alarm_thresholds alarm_beginning", every_lag),
    bug("lost data is not watched", "alarm_set dashboard_complete", remove("DataLoss")),
]
