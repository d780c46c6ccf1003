"""The template of a serverless cache keeps its rules, and they see the mistakes that they are for."""

from __future__ import annotations

import pytest

from tests.infra.environments import serverless_parameters
from tests.infra.rules import violations
from tests.infra.seed_bugs import Bug, bug, drop, output, put, remove
from tests.infra.serverless_rules import SERVERLESS_RULES
from tests.infra.template import Deployment, copied, serverless_template


def parameters(**changes: object) -> dict[str, object]:
    """Return the parameters of the documented command, with some of them changed."""
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
    """The template is deployed with each way to sign in, and with its options."""
    deployment = Deployment(serverless_template(), parameters(**options))
    assert deployment.refusals() == []
    assert violations(deployment, SERVERLESS_RULES) == []


def test_the_documented_command_can_be_deployed() -> None:
    """It gives every parameter that has no default, and only values that are allowed."""
    given = serverless_parameters()
    assert set(given) <= set(serverless_template()["Parameters"])
    assert Deployment(serverless_template(), given).refusals() == []


BUGS = [
    bug("no limits of what it costs", "serverless_cache", put("Cache", CacheUsageLimits={})),
    bug("the default network", "serverless_cache", drop("Cache", "SubnetIds")),
    bug("no last snapshot", "serverless_snapshots", drop("Cache", "FinalSnapshotName")),
    bug("one port of two", "serverless_firewall", put("CacheFromApp", ToPort=6379)),
    bug("a topic too few", "serverless_topics", remove("EmergencyTopic")),
    bug("throttling is not watched", "serverless_alarms", remove("Throttled")),
    bug("a plain endpoint", "serverless_outputs", output("Endpoint", "${Cache}.serverless.example:6379")),
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
        ({"SnapshotTime": "17"}, "SnapshotTime="),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(options: dict[str, object], refused: str) -> None:
    """The parameters refuse it."""
    [found] = Deployment(serverless_template(), parameters(**options)).refusals()
    assert refused in found
