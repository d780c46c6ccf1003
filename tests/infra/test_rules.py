"""The template keeps the rules in every environment, and every rule sees the mistakes that it is for."""

from __future__ import annotations

from copy import deepcopy
from itertools import product

import pytest

import tests.infra.alarm_rules
import tests.infra.dashboard_rules  # noqa: F401 (both register their rules)
from tests.infra.environments import commands, parameters
from tests.infra.rules import RULES, violations
from tests.infra.seed_bugs import BUGS, Bug
from tests.infra.template import TEMPLATE, Deployment, good_template

KEY = "arn:aws:kms:ap-northeast-1:" + "0" * 12 + ":key/0a1b"
ENVIRONMENTS = ("development", "staging", "production")
CHOICES = list(product(ENVIRONMENTS, ("token", "iam"), (0, 1, 2), (1, 2, 3)))


@pytest.mark.parametrize(("environment", "auth", "replicas", "shards"), CHOICES)
def test_the_template_keeps_every_rule(environment: str, auth: str, replicas: int, shards: int) -> None:
    """In each environment, with each way to sign in, for each size."""
    given = parameters(environment, AuthMode=auth, ReplicasPerShard=replicas, NumShards=shards)
    assert violations(Deployment(good_template(), given)) == []


@pytest.mark.parametrize(
    "options",
    [
        {"KmsKeyArn": KEY},
        {"KmsKeyArn": KEY, "AuthMode": "iam"},
        {"BastionSecurityGroupId": "", "AppRoleName": "", "AlertEmail": ""},
        {"Engine": "redis-7.1"},
        {"Engine": "valkey-7.2", "NodeType": "cache.t3.medium"},
        {"ServiceName": "Other", "KeyPrefix": "other", "AuthMode": "iam"},
    ],
)
def test_the_template_keeps_every_rule_with_its_options(options: dict[str, object]) -> None:
    """Own key, no bastion, no mail, another engine, another service."""
    assert violations(Deployment(good_template(), parameters("production", **options))) == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_a_mistake_is_seen_by_its_rules_and_no_others(bug: Bug) -> None:
    """One change of the good template, and exactly the rules that are about it report it."""
    template = deepcopy(good_template())
    bug.change(template)
    found = violations(Deployment(template, parameters("production", **bug.parameters)))
    assert {rule for rule, _ in found} == bug.rules, found


def test_every_rule_sees_a_mistake() -> None:
    """No rule is there that no mistake can break, and no mistake is listed twice."""
    assert set().union(*(bug.rules for bug in BUGS)) == set(RULES)
    assert len({bug.what for bug in BUGS}) == len(BUGS)


def test_the_documented_commands_can_be_deployed() -> None:
    """README's commands give every parameter that has no default, and only values that are allowed."""
    assert set(commands()) == set(ENVIRONMENTS)
    for environment in ENVIRONMENTS:
        assert set(commands()[environment]) <= set(good_template()["Parameters"])
        assert Deployment(good_template(), parameters(environment)).refusals() == []


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"ReplicasPerShard": 0}, "at least one replica"),
        ({"AuthMode": "iam", "Engine": "redis-7.1"}, "one of Valkey"),
        ({"Environment": "prod"}, "Environment='prod'"),
        ({"NodeType": "cache.t2.micro"}, "NodeType="),
        ({"NumShards": 4}, "NumShards=4"),
        ({"BastionSecurityGroupId": "bastion"}, "BastionSecurityGroupId="),
        ({"ReplicationLagSeconds": 5000}, "ReplicationLagSeconds=5000"),
        ({"AlertEmail": "nobody"}, "AlertEmail="),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(options: dict[str, object], refused: str) -> None:
    """Allowed values and assertions stop it: production without a replica, users of Valkey on Redis, typing errors."""
    found = Deployment(good_template(), parameters("production", **options)).refusals()
    assert len(found) == 1 and refused in found[0], found


def test_a_default_node_of_every_kind_is_known_to_be_burstable_or_not() -> None:
    """The list of T nodes in the conditions is complete: credits are watched on exactly these."""
    for type_ in good_template()["Parameters"]["NodeType"]["AllowedValues"]:
        deployment = Deployment(good_template(), parameters("production", NodeType=type_))
        assert violations(deployment) == []
        assert ("Shard1Node1Credits" in deployment.resources) is type_.startswith("cache.t")


def test_the_template_has_nothing_that_cloudformation_does_not_read() -> None:
    """No YAML aliases, which it refuses, and within its limits of bytes and resources."""
    text = TEMPLATE.read_text()
    assert not [
        line for line in text.splitlines() if line.lstrip(" -").startswith(("&", "*")) or ": &" in line or ": *" in line
    ]
    assert len(text.encode()) < 1_000_000
    assert len(good_template()["Resources"]) <= 500
