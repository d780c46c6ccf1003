"""Rules for the template of a serverless cache: most rules of the other one, and some of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tests.infra.alarm_rules  # noqa: F401 (registers its rules)
from flask_langpont_session.ops.exporters import catalogue
from tests.infra.alarm_states import COMPOSITE_ALARM, METRIC_ALARM
from tests.infra.metrics import CACHE, ELASTICACHE, watched
from tests.infra.rules import POLICY_VERSION, RULES, SERVERLESS, TOPIC_ACTIONS, TOPICS, Rule
from tests.infra.template import Deployment, good_template

SHARED = (
    "literals", "parameters", "physical_names", "keys", "user_group", "token", "users",
    "policy", "subscriptions", "alarm_form", "alarm_actions", "alarm_metrics", "alarm_periods",
    "alarm_thresholds", "alarm_set", "alarm_incidents", "alarm_beginning",
)  # fmt: skip
"""Rules that hold for both."""

MAJORS = {"valkey": {"7", "8", "9"}, "redis": {"7"}}
"""Major versions of which AWS makes serverless caches."""

WATCHED = {
    "ThrottledCmds", "Evictions", "CurrConnections", "BytesUsedForCache", "AuthenticationFailures",
    "CommandAuthorizationFailures", "KeyAuthorizationFailures",
}  # fmt: skip
"""What a serverless cache reports and an operator has to know."""


def serverless_cache(d: Deployment) -> Iterator[str]:
    """There is one cache: an existing engine, limits that AWS takes, the users of the template, the given network."""
    caches = d.of_type(SERVERLESS)
    if list(caches) != ["Cache"]:
        yield f"serverless caches: {sorted(caches)}"
    for name, cache in caches.items():
        if cache.get("MajorEngineVersion") not in MAJORS.get(cache.get("Engine", ""), set()):
            yield f"{name}: there is no {cache.get('Engine')} {cache.get('MajorEngineVersion')}"
        limits = cache.get("CacheUsageLimits", {})
        storage, commands = limits.get("DataStorage", {}), limits.get("ECPUPerSecond", {})
        if not 1 <= storage.get("Maximum", 0) <= 5000 or storage.get("Unit") != "GB":
            yield f"{name}: storage of {storage}; without a limit nothing bounds what it costs"
        if any(limit.get("Minimum", 0) > limit.get("Maximum", 0) for limit in (storage, commands)):
            yield f"{name}: more than there may be is wanted"
        if not 1000 <= commands.get("Maximum", 0) <= 15_000_000:
            yield f"{name}: commands of {commands}; without a limit nothing bounds what it costs"
        if cache.get("UserGroupId") != "<AppUsers>":
            yield f"{name} takes everybody"
        if cache.get("SubnetIds") != d.parameters["SubnetIds"]:
            yield f"{name} is in the default network"
        if cache.get("SecurityGroupIds") != ["<CacheSecurityGroup.GroupId>"]:
            yield f"{name} is in the default security group"
        if not str(cache.get("ServerlessCacheName")).islower() or len(cache["ServerlessCacheName"]) > 40:
            yield f"{name}: AWS keeps names in lower case, and of 40 characters at most"


def serverless_snapshots(d: Deployment) -> Iterator[str]:
    """Daily ones if any, and a last one: the type knows no DeletionPolicy of Snapshot."""
    for name, cache in d.of_type(SERVERLESS).items():
        days = cache.get("SnapshotRetentionLimit", 0)
        if not 0 <= days <= 35 or ("DailySnapshotTime" in cache) is not (days > 0):
            yield f"{name}: snapshots for {days} days at {cache.get('DailySnapshotTime')}"
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", cache.get("DailySnapshotTime", "00:00")):
            yield f"{name}: {cache['DailySnapshotTime']} is no time of a day"
        if "FinalSnapshotName" not in cache:
            yield f"{name} goes without a snapshot"
    for name, resource in d.resources.items():
        if resource["Type"] == SERVERLESS and "Snapshot" in (
            resource.get("DeletionPolicy"),
            resource.get("UpdateReplacePolicy"),
        ):
            yield f"{name}: CloudFormation refuses this DeletionPolicy"
        if resource["Type"] == "AWS::SecretsManager::Secret" and resource.get("DeletionPolicy") != "Retain":
            yield f"{name} must stay"


def serverless_firewall(d: Deployment) -> Iterator[str]:
    """In: the port for all and that for readers, from the groups of the application. Out: nothing."""
    wanted = sorted(filter(None, (d.parameters[f"{which}SecurityGroupId"] for which in ("App", "Second", "Third"))))
    ingress = list(d.of_type("AWS::EC2::SecurityGroupIngress").values())
    if any((r.get("IpProtocol"), r.get("FromPort"), r.get("ToPort")) != ("tcp", 6379, 6380) for r in ingress):
        yield "a serverless cache has its readers on port 6380"
    if sorted(str(entry.get("SourceSecurityGroupId")) for entry in ingress) != wanted:
        yield "not exactly the application may connect"
    for name, security_group in d.of_type("AWS::EC2::SecurityGroup").items():
        out = security_group.get("SecurityGroupEgress")
        if not out or any(entry.get("CidrIp") != "127.0.0.1/32" for entry in out):
            yield f"{name} lets the cache call out"


def serverless_topics(d: Deployment) -> Iterator[str]:
    """The four topics of alerts, which the account and its alarms may publish to."""
    told = {f"<{name}>" for name in TOPICS}
    if {f"<{name}>" for name in d.of_type("AWS::SNS::Topic")} != told:
        yield "not the four topics"
    [policy] = d.of_type("AWS::SNS::TopicPolicy").values()
    owner, alarms = policy["PolicyDocument"]["Statement"]
    if set(policy["Topics"]) != told or policy["PolicyDocument"].get("Version") != POLICY_VERSION:
        yield "not every topic has the policy"
    if {action.removeprefix("sns:") for action in owner["Action"]} != TOPIC_ACTIONS or "Condition" not in owner:
        yield "the account is locked out, or every account let in"
    if alarms["Principal"] != {"Service": "cloudwatch.amazonaws.com"} or "Condition" not in alarms:
        yield "alarms of this account, and only they, must be able to publish"


def serverless_alarms(d: Deployment) -> Iterator[str]:
    """There are alarms on what the cache reports and an operator has to know, and on the application those of the
    other template."""
    alarms = d.of_type("AWS::CloudWatch::Alarm")
    reported = {
        metric.name: metric.dimensions
        for alarm in alarms.values()
        for metric in watched(alarm)
        if metric.namespace == ELASTICACHE
    }
    if set(reported) != WATCHED or any(dimensions != {CACHE: "<Cache>"} for dimensions in reported.values()):
        yield f"watched: {reported}"
    if not alarms.get("Connections", {}).get("InsufficientDataActions"):
        yield "no alarm notices a cache that reports nothing"

    def of_application(template: dict[str, object]) -> dict[str, object]:
        resources = template["Resources"]
        assert isinstance(resources, dict)
        return {
            name: one
            for name, one in resources.items()
            if (catalogue.NAMESPACE in str(one) and one["Type"] == METRIC_ALARM)
            or (one["Type"] == COMPOSITE_ALARM and not name.startswith("Shard"))
        }

    if of_application(dict(d.template)) != of_application(good_template()):
        yield "the alarms on the application are not those of elasticache.yaml"


def serverless_outputs(d: Deployment) -> Iterator[str]:
    """The name by which the extension finds the cache, its endpoint, and no secret."""
    mode = d.parameters["AuthMode"]
    wanted = {
        "CacheName": "<Cache>",
        "Endpoint": "<Cache.Endpoint.Address>:<Cache.Endpoint.Port>",
        "TokenSecretArn": "<AuthToken>" if mode != "iam" else None,
        "IamUser": "<AppUser>" if mode != "token" else None,
        **{f"{topic}Arn": f"<{topic}>" for topic in TOPICS},
    }
    for output, value in wanted.items():
        if d.outputs.get(output) != value:
            yield f"{output} is {d.outputs.get(output)}, not {value}"


SERVERLESS_RULES: dict[str, Rule] = {
    **{name: RULES[name] for name in SHARED},
    **{
        check.__name__: check
        for check in (
            serverless_cache, serverless_snapshots, serverless_firewall, serverless_topics, serverless_alarms,
            serverless_outputs,
        )
    },
}  # fmt: skip
