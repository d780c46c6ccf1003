"""The template of a serverless cache keeps its rules, and they see the mistakes that they are for."""

from __future__ import annotations

import pytest

from tests.infra.environments import serverless_parameters
from tests.infra.rules import violations
from tests.infra.seed_bugs import IAM, KEY, Bug, both, bug, drop, output, put, ref, remove, rights, statement
from tests.infra.serverless_rules import SERVERLESS_RULES
from tests.infra.template import Deployment, copied, serverless_template


def parameters(**changes: object) -> dict[str, object]:
    """Those of the documented command, with some of them changed."""
    return serverless_parameters(**{"AuthMode": "token", **changes})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"AuthMode": "iam", "AlertEmail": "", "AlarmActions": "false"},
        {"AuthMode": "both", "KmsKeyArn": "arn:aws:kms:ap-northeast-1:" + "0" * 12 + ":key/0a1b"},
        {"Engine": "redis-7", "AuthMode": "iam", "SnapshotRetentionDays": 0},
        {"Engine": "valkey-9", "SecondSecurityGroupId": "sg-1a2b3c4d", "ThirdSecurityGroupId": "sg-2a2b3c4d"},
        {"MaxStorageGb": 5000, "MaxEcpuPerSecond": 1000, "ServiceName": "Other", "KeyPrefix": "other"},
    ],
)
def test_the_template_keeps_every_rule(options: dict[str, object]) -> None:
    """With each way to sign in, and with its options."""
    deployment = Deployment(serverless_template(), parameters(**options))
    assert deployment.refusals() == []
    assert violations(deployment, SERVERLESS_RULES) == []


def test_the_documented_command_can_be_deployed() -> None:
    """It gives every parameter that has no default, and only values that are allowed."""
    given = serverless_parameters()
    assert set(given) <= set(serverless_template()["Parameters"])
    assert Deployment(serverless_template(), given).refusals() == []


def limits(**values: object) -> Bug:
    return bug(f"limits of {sorted(values)}", "serverless_cache", put("Cache", CacheUsageLimits=values))


BUGS = [
    bug("memcached", "serverless_cache users user_group", put("Cache", Engine="memcached")),
    bug("a version that there is not", "serverless_cache", put("Cache", MajorEngineVersion="8.1")),
    limits(),
    limits(DataStorage={"Maximum": 9000, "Unit": "GB"}, ECPUPerSecond={"Maximum": 5000}),
    limits(DataStorage={"Maximum": 5, "Unit": "GB"}),
    bug(
        "more than there may be",
        "serverless_cache",
        put(
            "Cache",
            CacheUsageLimits={
                "DataStorage": {"Minimum": 9, "Maximum": 5, "Unit": "GB"},
                "ECPUPerSecond": {"Maximum": 5000},
            },
        ),
    ),
    bug("snapshots in the afternoon of a clock", "serverless_snapshots", put("Cache", DailySnapshotTime="3pm")),
    bug("a thousand refused commands", "alarm_thresholds", put("Throttled", Threshold=1000)),
    bug("evictions of many", "alarm_thresholds", put("Evictions", Threshold=1000)),
    bug("silence that is as good as few", "alarm_actions", put("Connections", TreatMissingData="notBreaching")),
    bug("no users", "serverless_cache", drop("Cache", "UserGroupId")),
    bug("the default network", "serverless_cache", drop("Cache", "SubnetIds")),
    bug("the default security group", "serverless_cache", drop("Cache", "SecurityGroupIds")),
    bug("a name of its own", "serverless_cache physical_names", put("Cache", ServerlessCacheName="Sessions")),
    bug("an AUTH token", "schema", put("Cache", AuthToken="x" * 20)),
    bug("a node type", "schema", put("Cache", CacheNodeType="cache.t4g.micro")),
    bug("snapshots without a time", "serverless_snapshots", drop("Cache", "DailySnapshotTime")),
    bug(
        "a time without snapshots",
        "serverless_snapshots",
        put("Cache", DailySnapshotTime="17:00"),
        SnapshotRetentionDays=0,
    ),
    bug("no last snapshot", "serverless_snapshots", drop("Cache", "FinalSnapshotName")),
    bug(
        "a policy of another type",
        "serverless_snapshots",
        lambda t: t["Resources"]["Cache"].update(DeletionPolicy="Snapshot"),
    ),
    bug(
        "a secret that goes",
        "serverless_snapshots",
        lambda t: t["Resources"]["AuthToken"].update(DeletionPolicy="Delete"),
    ),
    bug("one port of two", "serverless_firewall", put("CacheFromApp", ToPort=6379)),
    bug(
        "every address",
        "serverless_firewall",
        both(drop("CacheFromApp", "SourceSecurityGroupId"), put("CacheFromApp", CidrIp="0.0.0.0/0")),
    ),
    bug("calls out", "serverless_firewall", drop("CacheSecurityGroup", "SecurityGroupEgress")),
    bug(
        "the rights of a group",
        "policy",
        statement("AppPolicy", "FindEndpoints", Action="elasticache:DescribeReplicationGroups"),
    ),
    bug(
        "the type of resource of a group",
        "policy literals",
        statement(
            "AppPolicy",
            "SignIn",
            Resource=[
                {"Fn::Sub": "arn:aws:elasticache:region:account:replicationgroup:${Cache}"},
                {"Fn::GetAtt": ["AppUser", "Arn"]},
            ],
        ),
        **IAM,
    ),
    bug("no right to ask for the slots", "users", rights("TokenUser", "+cluster|slots", "")),
    bug("no key for the data", "keys", drop("Cache", "KmsKeyId"), KmsKeyArn=KEY),
    bug("a topic too few", "references serverless_topics", remove("EmergencyTopic")),
    bug("any account may publish", "serverless_topics", statement("TopicPolicy", "Owner", Condition=None)),
    bug(
        "the dimension of a node",
        "serverless_alarms",
        put("Evictions", Dimensions=[{"Name": "CacheClusterId", "Value": ref("Cache")}]),
    ),
    bug("throttling is not watched", "serverless_alarms", remove("Throttled")),
    bug("a cache that falls silent", "serverless_alarms", drop("Connections", "InsufficientDataActions")),
    bug("another alarm than in the other template", "serverless_alarms", put("WritesLost", Period=120)),
    bug("a plain endpoint", "serverless_outputs", output("Endpoint", {"Fn::Sub": "${Cache}.serverless.example:6379"})),
]


@pytest.mark.parametrize("mistake", BUGS, ids=lambda mistake: mistake.what)
def test_a_mistake_is_seen_by_its_rules_and_no_others(mistake: Bug) -> None:
    """One change of the good template, and exactly the rules that are about it report it."""
    template = copied(serverless_template())
    mistake.change(template)
    found = violations(Deployment(template, parameters(**mistake.parameters)), SERVERLESS_RULES)
    assert {rule for rule, _ in found} == mistake.rules, found


def test_every_rule_of_its_own_sees_a_mistake() -> None:
    """The others see theirs in the other template."""
    own = {name for name in SERVERLESS_RULES if name.startswith("serverless_")}
    assert own <= set().union(*(mistake.rules for mistake in BUGS))


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"Environment": "prod"}, "Environment="),
        ({"MaxStorageGb": 0}, "MaxStorageGb=0"),
        ({"MaxEcpuPerSecond": 10}, "MaxEcpuPerSecond=10"),
        ({"SnapshotTime": "17"}, "SnapshotTime="),
        ({"AuthMode": "none"}, "AuthMode="),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(options: dict[str, object], refused: str) -> None:
    """By the parameters."""
    [found] = Deployment(serverless_template(), parameters(**options)).refusals()
    assert refused in found
