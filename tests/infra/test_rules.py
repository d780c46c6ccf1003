"""The template keeps the rules in every environment, and rules see the mistakes that they are for."""

from __future__ import annotations

import json
from itertools import cycle

import pytest

import tests.infra.alarm_rules
import tests.infra.dashboard_rules  # noqa: F401 (both register their rules)
from tests.infra.environments import commands, parameters
from tests.infra.rules import RULES, violations
from tests.infra.seed_bugs import BUGS, Bug
from tests.infra.template import TEMPLATE, Deployment, copied, good_template

KEY = "arn:aws:kms:ap-northeast-1:" + "0" * 12 + ":key/0a1b"
ENVIRONMENTS = ("development", "staging", "production")
SIZES = [
    *(("disabled", 1, replicas) for replicas in range(6)),
    *(("enabled", shards, replicas) for shards, replicas in ((1, 5), (2, 1), (3, 0), (3, 2))),
]
"""Cluster mode, shards, replicas of each: every node is there in one, and is not in another one."""


@pytest.mark.parametrize(("size", "auth"), [*zip(SIZES, cycle(("token", "both", "iam")))])
def test_the_template_keeps_every_rule(size: tuple[str, int, int], auth: str) -> None:
    """Each size is deployed with one of the ways to sign in."""
    options = dict(zip(("ClusterMode", "NumShards", "ReplicasPerShard"), size, strict=True))
    deployment = Deployment(good_template(), parameters("production", AuthMode=auth, **options))
    assert violations(deployment) == []
    assert deployment.refusals() == ([] if size[2] else ["Production needs at least one replica per shard."])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_documented_command_can_be_deployed(environment: str) -> None:
    """README's command gives every parameter that has no default, and only values that are allowed."""
    deployment = Deployment(good_template(), parameters(environment))
    assert set(commands()) == set(ENVIRONMENTS)
    assert set(commands()[environment]) <= set(good_template()["Parameters"])
    assert deployment.refusals() == []
    assert violations(deployment) == []


@pytest.mark.parametrize(
    "options",
    [
        {
            "KmsKeyArn": KEY,
            "VpcEndpoints": "yes",
            "SecondSecurityGroupId": "sg-2a1b2c3d",
            "ThirdSecurityGroupId": "sg-3a1b2c3d",
        },
        {"KmsKeyArn": KEY, "VpcEndpoints": "yes", "AuthMode": "iam"},
        {"SnapshotName": "before", "SnapshotWindow": "19:00-20:00", "MaintenanceWindow": "mon:17:00-mon:18:30"},
        {"BastionSecurityGroupId": "", "AppRoleName": "", "AlertEmail": "", "AlarmActions": "false"},
        {"Engine": "redis-7.1"},
        {"Engine": "redis-7.1", "AuthMode": "iam"},
        {"Engine": "valkey-9.1", "ServiceName": "Other", "KeyPrefix": "other", "AuthMode": "iam"},
        {"Engine": "valkey-7.2", "NodeType": "cache.t3.medium"},
    ],
)
def test_the_template_keeps_every_rule_with_its_options(options: dict[str, object]) -> None:
    """Own key, no bastion, no mail, another engine, another service."""
    assert violations(Deployment(good_template(), parameters("production", **options))) == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_a_mistake_is_seen_by_its_rules_and_no_others(bug: Bug) -> None:
    """One change of the good template, and exactly the rules that are about it report it."""
    template = copied(good_template())
    bug.change(template)
    found = violations(Deployment(template, parameters("production", **bug.parameters)))
    assert {rule for rule, _ in found} == bug.rules, found


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"ReplicasPerShard": 0}, "at least one replica"),
        ({"NumShards": 2}, "Several shards need ClusterMode=enabled"),
        ({"ClusterMode": "enabled", "NumShards": 3, "ReplicasPerShard": 3}, "up to 2 replicas of each"),
        ({"ReplicasPerShard": 6}, "ReplicasPerShard=6"),
        ({"SnapshotWindow": "3-5"}, "SnapshotWindow="),
        ({"Environment": "prod"}, "Environment='prod'"),
        ({"AlertEmail": "nobody"}, "AlertEmail="),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(options: dict[str, object], refused: str) -> None:
    """Allowed values and assertions stop it: production without a replica, users of Valkey on Redis, typing errors."""
    found = Deployment(good_template(), parameters("production", **options)).refusals()
    assert len(found) == 1 and refused in found[0], found


OF_NODES = {name: RULES[name] for name in ("alarm_coverage", "alarm_thresholds")}


def test_a_default_node_of_every_kind_is_known_to_be_burstable_or_not() -> None:
    """The list of T nodes in the conditions is complete: credits are watched on exactly these."""
    for type_ in good_template()["Parameters"]["NodeType"]["AllowedValues"]:
        deployment = Deployment(good_template(), parameters("production", NodeType=type_))
        assert violations(deployment, OF_NODES) == []
        assert ("Shard1Node1Credits" in deployment.resources) is type_.startswith("cache.t")


def test_the_template_has_nothing_that_cloudformation_does_not_read() -> None:
    """No YAML aliases, which it refuses, and within its limits of bytes and resources."""
    text = TEMPLATE.read_text()
    assert not [
        line for line in text.splitlines() if line.lstrip(" -").startswith(("&", "*")) or ": &" in line or ": *" in line
    ]
    assert len(text.encode()) < 1_000_000
    assert len(good_template()["Resources"]) <= 500


def test_the_stack_policy_keeps_what_holds_data() -> None:
    """It names resources that there are, and no update replaces the cache or its secret."""
    allowed, denied = json.loads((TEMPLATE.parent / "stack-policy.json").read_text())["Statement"]
    assert (allowed["Effect"], allowed["Action"], allowed["Resource"]) == ("Allow", "Update:*", "*")
    assert (denied["Effect"], set(denied["Action"])) == ("Deny", {"Update:Replace", "Update:Delete"})
    kept = {name for name, one in good_template()["Resources"].items() if "DeletionPolicy" in one}
    assert {entry.removeprefix("LogicalResourceId/") for entry in denied["Resource"]} == kept - {"SlowLog", "EngineLog"}
