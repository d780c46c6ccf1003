"""ElastiCache as moto plays it, for whole applications."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from flask_langpont_session.aws import background_query as query
from flask_langpont_session.aws import client as aws_calls
from flask_langpont_session.aws import cloud, credentials, endpoints
from tests.support.moto import moto_server

REGION = "ap-northeast-1"


URL = f"elasticache://sessions?region={REGION}"


class Aws:
    """The AWS of one test, and the threads that asked it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.elasticache = self.client("elasticache")
        self.secrets = self.client("secretsmanager")
        self.asked: Counter[str] = Counter()
        self.threads: set[str] = set()

    def client(self, service: str) -> Any:
        """A client that a test asks by itself."""
        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def reset(self) -> None:
        """Remove everything from moto."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")):
            pass

    def create_group(self, replicas: int = 1, tls: bool = False, **options: Any) -> str:
        """The name of its primary endpoint."""
        self.elasticache.create_replication_group(
            ReplicationGroupId="sessions",
            ReplicationGroupDescription="sessions",
            Engine="valkey",
            TransitEncryptionEnabled=tls,
            **(options or {"NumNodeGroups": 1, "ReplicasPerNodeGroup": replicas}),
        )
        found = self.elasticache.describe_replication_groups(ReplicationGroupId="sessions")
        shard = found["ReplicationGroups"][0]["NodeGroups"][0]
        return str(shard.get("PrimaryEndpoint", {}).get("Address"))


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An empty account. It may be as slow as a busy machine; a second question waits a short time only."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": moto_url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(query, "SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(query, "LONGEST_PAUSE", 0.4)
    monkeypatch.setattr(cloud, "START_PATIENCE", 20)
    monkeypatch.setattr(aws_calls, "READ_TIMEOUT", 20)
    account = Aws(moto_url)
    account.reset()

    @contextmanager
    def watched(service: str, region: str | None) -> Iterator[Any]:
        account.asked[service] += 1
        account.threads.add(threading.current_thread().name)
        with aws_calls.aws_client(service, region) as found:
            yield found

    monkeypatch.setattr(endpoints, "aws_client", watched)
    monkeypatch.setattr(credentials, "aws_client", watched)
    yield account
    for thread in threading.enumerate():
        if thread.name == "langpont-session-aws":
            thread.join(10)
    assert account.threads <= {"langpont-session-aws"}, "only the background asks AWS"
    account.elasticache.close()
    account.secrets.close()


class DnsCache:
    """A resolver that knows some names of ElastiCache, and no others of it."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host in self.ports:
            return self._real("127.0.0.1", self.ports[host], *rest, **options)
        if str(host).endswith("amazonaws.com"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real(host, port, *rest, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> DnsCache:
    table = DnsCache()
    monkeypatch.setattr(socket, "getaddrinfo", table)
    return table
