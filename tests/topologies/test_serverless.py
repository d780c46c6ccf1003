"""A serverless cache: AWS names one endpoint, which speaks TLS and the protocol of a cluster, and takes fewer
commands."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devservers.processes import free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session.aws import endpoints
from flask_langpont_session.blueprint import health_report
from tests.integration.behind import key, sign_in
from tests.integration.conftest import close, parts
from tests.integration.elasticache_site import REGION, Aws, DnsCache, aws, moto_url, names  # noqa: F401 - fixtures
from tests.integration.tls import Authority, TlsFront

from .cluster_lab import Cluster
from .conftest import MakeApp

NAME = "sessions-abc123.serverless.apne1.cache.amazonaws.com"
USER = "app-user"
URL = f"elasticache+serverless://{USER}@sessions?region={REGION}"
CACHE = {"Engine": "valkey", "Status": "available", "Endpoint": {"Address": NAME, "Port": 6379}}

RIGHTS = "on nopass ~session:* -@all +@read +@write +@connection +@transaction +@scripting -@dangerous +info +time"
FEWER = "+cluster|slots +cluster|info -client|tracking -client|list -client|id -config -acl"
"""What AWS does not list for a serverless cache, as far as a Valkey can take it away."""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Valkey]:
    """A cluster of one node, which goes by the name of the endpoint only."""
    says = ("--cluster-announce-hostname", NAME, "--cluster-preferred-endpoint-type", "hostname")
    extra = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), *says)
    with Valkey(tmp_path / "cache", appendonly=False, extra=extra) as server:
        Cluster.says(server, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: "cluster_state:ok" in str(Cluster.says(server, "CLUSTER", "INFO")), "a cluster")
        Cluster.says(server, "ACL", "SETUSER", USER, *RIGHTS.split(), *FEWER.split())
        yield server


def test_sessions_live_in_a_serverless_cache(
    make_app: MakeApp,
    aws: Aws,  # noqa: F811 - the fixture
    names: DnsCache,  # noqa: F811 - the fixture
    cache: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A serverless cache greets by IAM with a token of its kind, and each read at level 0 asks it. moto does not
    describe such caches: here its answer is given, and the rest is real."""
    caplog.set_level(logging.INFO, "flask_langpont_session")
    monkeypatch.setattr(endpoints, "describe", lambda name: endpoints.read_serverless(CACHE))
    authority = Authority(tmp_path)
    with ExitStack() as ends:
        front = ends.enter_context(TlsFront(authority.context([NAME]), cache.port))
        names.ports = {NAME: front.port}
        app = make_app(REDIS_URL=f"{URL}&ssl_ca_certs={authority.certificate}")
        ends.callback(close, app)
        visitor = sign_in(app, "7")
        wait_until(lambda: visitor.get("/who").json["level"] == 0, "level 0")
        assert visitor.post("/set", json={"theme": "dark"}).status_code == 200
        assert visitor.get("/who").json["user"] == "7"
        assert set(health_report(parts(app))["stores"]) == {"primary:1", "database"}
        primary: Any = parts(app).backend.primary
        token = primary._directory.nodes.options["credential_provider"].get_credentials()[1]
        assert "&ResourceType=ServerlessCache&" in token
        assert endpoints.MISSING in caplog.text
        refused = (
            "session store primary:1: no near cache, each read asks the server: the server refuses CLIENT TRACKING"
        )
        wait_until(lambda: bool(visitor.get("/who")) and refused in caplog.text, "the refusal")
    assert Cluster.says(cache, "KEYS", "session:auth:*") == [key(visitor.digest)]
