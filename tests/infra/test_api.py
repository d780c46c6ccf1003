"""The template made by API calls against moto: every property is one that AWS knows, and the pieces fit together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_langpont_session.aws.credentials import read_secret
from tests.infra.alarm_states import asked
from tests.infra.aws import Aws, Stack, reset
from tests.infra.environments import parameters
from tests.infra.metrics import ELASTICACHE, NODE, watched

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "iam": ("staging", {"AuthMode": "iam"}),
    "main": ("production", {}),
    "sharded": (
        "production",
        {"ClusterMode": "enabled", "NumShards": 3, "ReplicasPerShard": 1, "NodeType": "cache.t4g.medium"},
    ),
}


@pytest.fixture(scope="module")
def account(moto: str, clients: Aws) -> Iterator[dict[str, Stack]]:
    """An account with one stack of each size. The tests only look."""
    reset(moto)
    yield {
        name: Stack(clients, name, dict(parameters(environment, **options)))
        for name, (environment, options) in SIZES.items()
    }


@pytest.fixture(params=SIZES)
def stack(request: pytest.FixtureRequest, account: dict[str, Stack]) -> Stack:
    """Each of them."""
    return account[request.param]


@pytest.fixture
def main(account: dict[str, Stack]) -> Stack:
    """Production."""
    return account["main"]


def alarms(stack: Stack) -> list[dict[str, Any]]:
    pages = stack.aws("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{stack.name}-")
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


def topics(stack: Stack) -> set[str]:
    arns = {topic["TopicArn"] for topic in stack.aws("sns").list_topics()["Topics"]}
    return {arn for arn in arns if arn.rsplit(":", 1)[1].startswith(f"{stack.name}-")}


def log_groups(stack: Stack) -> dict[str, int]:
    prefix = f"/aws/vendedlogs/elasticache/{stack.name}/"
    found = stack.aws("logs").describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
    return {group["logGroupName"]: group["retentionInDays"] for group in found}


def test_alarms_are_on_all_nodes_that_there_are_and_no_others(stack: Stack) -> None:
    """ElastiCache says which nodes it made; alarms name exactly these."""
    watch = [metric for alarm in alarms(stack) for metric in watched(alarm) if metric.namespace == ELASTICACHE]
    nodes = set(stack.cache["MemberClusters"])
    assert {metric.dimensions.get(NODE) for metric in watch} == nodes
    for metric in ("EngineCPUUtilization", "CurrConnections", "Evictions", "AuthenticationFailures"):
        assert sorted(m.dimensions[NODE] for m in watch if m.name == metric) == sorted(nodes)


def test_the_cache_is_as_large_and_as_safe_as_asked(stack: Stack) -> None:
    """Shards, replicas, failover, encryption and the way to sign in."""
    cache, given = stack.cache, stack.parameters
    shards, replicas = int(given.get("NumShards", 1)), int(given["ReplicasPerShard"])
    assert len(cache["NodeGroups"]) == shards
    assert len(cache["MemberClusters"]) == shards * (replicas + 1)
    assert cache["ClusterEnabled"] is (shards > 1)
    assert cache["AutomaticFailover"] == ("enabled" if replicas or shards > 1 else "disabled")
    assert cache["TransitEncryptionEnabled"] and cache["AtRestEncryptionEnabled"]
    assert cache["AuthTokenEnabled"] is False
    assert cache["SnapshotRetentionLimit"] == int(given["SnapshotRetentionDays"])


def test_outputs_are_the_addresses_that_elasticache_gives(account: dict[str, Stack]) -> None:
    """The primary's endpoint without shards, the configuration endpoint with them, never a node's."""
    one, many = account["main"], account["sharded"]
    primary, configuration = one.cache["NodeGroups"][0]["PrimaryEndpoint"], many.cache["ConfigurationEndpoint"]
    assert one.deployment.outputs["RedisUrl"] == f"rediss://{primary['Address']}:{primary['Port']}/0"
    assert primary["Address"].startswith("master.")
    endpoint = many.deployment.outputs["ConfigurationEndpoint"]
    assert endpoint == f"{configuration['Address']}:{configuration['Port']}"
    assert "RedisUrl" not in many.deployment.outputs and "ConfigurationEndpoint" not in one.deployment.outputs


def test_every_alarm_tells_a_topic_that_exists(main: Stack) -> None:
    """Beginning and end go to topics that SNS lists; the mail goes to the three that an operator should read."""
    severities = ("info", "warning", "critical", "emergency")
    names = {arn.rsplit(":", 1)[1] for arn in topics(main)}
    assert names == {*(f"main-{severity}-alerts" for severity in severities), "main-events"}
    loud = topics(main) - {main.physical["InfoTopic"], main.physical["EventsTopic"]}
    every = [*alarms(main), *main.incidents.values()]
    for alarm in every:
        assert alarm.get("AlarmActions", []) == alarm.get("OKActions", []) and len(alarm.get("AlarmActions", [])) <= 1
    assert {arn for alarm in every for arn in alarm.get("AlarmActions", [])} == loud
    subscribed = [s for s in main.aws("sns").list_subscriptions()["Subscriptions"] if s["TopicArn"] in topics(main)]
    assert {s["TopicArn"] for s in subscribed} == loud
    assert {(s["Protocol"], s["Endpoint"]) for s in subscribed} == {("email", "oncall@example.com")}


def test_incidents_consist_of_alarms_that_cloudwatch_has(stack: Stack) -> None:
    """Incidents name their alarms, and the one that silences others is named as well."""
    names = {alarm["AlarmName"] for alarm in alarms(stack)}
    nodes = len(stack.cache["MemberClusters"])
    assert len(stack.incidents) == nodes + 4
    for incident in stack.incidents.values():
        assert asked(incident["AlarmRule"]) <= names
        assert incident.get("ActionsSuppressor", next(iter(names))) in names


def test_alarms_may_publish_and_the_account_is_not_locked_out(main: Stack) -> None:
    """The policy that each topic has: the account itself, and alarms of this account."""
    account = main.physical["AWS::AccountId"]
    for topic in topics(main):
        policy = json.loads(main.aws("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])
        owner, alarm = policy["Statement"]
        assert owner["Condition"] == {"StringEquals": {"AWS:SourceOwner": account}}
        assert "sns:Publish" in owner["Action"] and topic in owner["Resource"]
        assert alarm["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        assert (topic in alarm["Resource"]) is (topic != main.physical["EventsTopic"])
        assert alarm["Condition"]["StringEquals"] == {"aws:SourceAccount": account}
        assert alarm["Condition"]["ArnLike"]["aws:SourceArn"].endswith(f":{account}:alarm:*")


def test_the_token_is_one_that_elasticache_takes(main: Stack) -> None:
    """64 letters and digits, of the user that is named with them, and no output shows them. The extension reads it."""
    secret = main.aws("secretsmanager").get_secret_value(SecretId=main.physical["AuthToken"])["SecretString"]
    user, token = read_secret(secret)  # type: ignore[misc]
    assert user == main.physical["TokenUser"]
    assert re.fullmatch(r"[A-Za-z0-9]{64}", token)
    assert main.deployment.outputs["TokenSecretArn"] == main.physical["AuthToken"]
    assert token not in json.dumps(main.deployment.outputs)


def test_the_logs_have_a_place_and_an_end(main: Stack) -> None:
    """Two log groups with the retention that was asked for, and the cache writes to them."""
    assert list(log_groups(main).values()) == [90, 90]
    targets = {
        delivery["DestinationDetails"]["CloudWatchLogsDetails"]["LogGroup"]
        for delivery in main.cache["LogDeliveryConfigurations"]
    }
    assert targets == set(log_groups(main))


def test_the_dashboard_is_taken_and_shows_this_deployment(stack: Stack) -> None:
    """CloudWatch gives the dashboard back, with the nodes that exist and the logs that exist."""
    body = stack.aws("cloudwatch").get_dashboard(DashboardName=stack.name)["DashboardBody"]
    widgets = json.loads(body)["widgets"]
    assert set(re.findall(r'CacheClusterId=\\"([^"\\]+)', body)) == set(stack.cache["MemberClusters"])
    sources = [re.match(r"SOURCE '([^']+)'", w["properties"]["query"]) for w in widgets if w["type"] == "log"]
    assert {found[1] for found in sources if found} == set(log_groups(stack))


def test_with_iam_there_is_a_user_and_no_secret(account: dict[str, Stack]) -> None:
    """One user, by IAM, whom the policy lets sign in to this cache."""
    stack = account["iam"]
    secrets = {secret["Name"].split("-")[0] for secret in stack.aws("secretsmanager").list_secrets()["SecretList"]}
    assert secrets == set(account) - {"iam"}
    [user] = stack.aws("elasticache").describe_users(UserId=stack.physical["AppUser"])["Users"]
    assert "TokenUser" not in stack.physical
    assert user["UserId"] == user["UserName"] == stack.deployment.outputs["IamUser"]
    assert user["Authentication"]["Type"] == "iam"
    document = stack.deployment.of_type("AWS::IAM::ManagedPolicy")["AppPolicy"]["PolicyDocument"]
    [sign_in] = [s for s in document["Statement"] if s["Action"] == "elasticache:Connect"]
    assert user["ARN"] in sign_in["Resource"]
    assert any(arn.endswith(":replicationgroup:iam") for arn in sign_in["Resource"])
