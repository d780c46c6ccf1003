"""The template made by API calls against moto: every property is one that AWS knows, and the pieces fit together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_langpont_session.aws.credentials import read_secret
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


def test_alarms_are_on_all_nodes_that_there_are_and_no_others(stack: Stack) -> None:
    """ElastiCache says which nodes it made; alarms name exactly these."""
    watch = [metric for alarm in alarms(stack) for metric in watched(alarm) if metric.namespace == ELASTICACHE]
    nodes = set(stack.cache["MemberClusters"])
    assert {metric.dimensions.get(NODE) for metric in watch} == nodes
    for metric in ("EngineCPUUtilization", "CurrConnections", "Evictions", "AuthenticationFailures"):
        assert sorted(m.dimensions[NODE] for m in watch if m.name == metric) == sorted(nodes)


def test_outputs_are_the_addresses_that_elasticache_gives(account: dict[str, Stack]) -> None:
    """The primary's endpoint without shards, the configuration endpoint with them, never a node's."""
    one, many = account["main"], account["sharded"]
    primary, configuration = one.cache["NodeGroups"][0]["PrimaryEndpoint"], many.cache["ConfigurationEndpoint"]
    assert one.deployment.outputs["RedisUrl"] == f"rediss://{primary['Address']}:{primary['Port']}/0"
    assert primary["Address"].startswith("master.")
    endpoint = many.deployment.outputs["ConfigurationEndpoint"]
    assert endpoint == f"{configuration['Address']}:{configuration['Port']}"
    assert "RedisUrl" not in many.deployment.outputs and "ConfigurationEndpoint" not in one.deployment.outputs


def test_the_token_is_one_that_elasticache_takes(main: Stack) -> None:
    """64 letters and digits, of the user that is named with them, and no output shows them. The extension reads it."""
    secret = main.aws("secretsmanager").get_secret_value(SecretId=main.physical["AuthToken"])["SecretString"]
    user, token = read_secret(secret)  # type: ignore[misc]
    assert user == main.physical["TokenUser"]
    assert re.fullmatch(r"[A-Za-z0-9]{64}", token)
    assert main.deployment.outputs["TokenSecretArn"] == main.physical["AuthToken"]
    assert token not in json.dumps(main.deployment.outputs)
