"""``elasticache://``: what a URL may say, what AWS' answers mean, when it is asked, and what is kept of its answers."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from botocore.stub import Stubber
from redis import exceptions as driver

from flask_langpont_session.aws import background_query as query
from flask_langpont_session.aws import endpoints
from flask_langpont_session.aws.background_query import BackgroundQuery
from flask_langpont_session.aws.client import CONNECT_TIMEOUT, READ_TIMEOUT, Unusable, aws_client, explain
from flask_langpont_session.aws.endpoints import (
    Address,
    Endpoints,
    EndpointsFile,
    Group,
    NotDiscoveredYet,
    UnusableGroup,
    read,
)
from flask_langpont_session.policy.errors import ErrorClass
from flask_langpont_session.stores.redis.cluster import ShardRoute
from flask_langpont_session.stores.redis.errors import classify
from flask_langpont_session.stores.redis.nodes import Nodes
from flask_langpont_session.stores.redis.routed import RoutedConnection, make_pool
from flask_langpont_session.stores.redis.slots import SINGLE, Servers
from flask_langpont_session.stores.redis.topology import ClusterTopology
from flask_langpont_session.stores.redis.url import GroupName

NAME = GroupName("sessions", "ap-northeast-1")
PRIMARY, READER = Address("master.sessions.x.apne1.cache.amazonaws.com", 6379), Address("replica.sessions.x", 6379)
NOT_REMEMBERED = EndpointsFile(None, NAME)


# -- answers -----------------------------------------------------------------------------------------------------------


def endpoint(address: Address) -> dict[str, Any]:
    return {"Address": address.host, "Port": address.port}


def described(members: int = 2, **changes: Any) -> dict[str, Any]:
    """An entry of DescribeReplicationGroups as the API answers it, cluster mode disabled."""
    nodes = [f"sessions-{number:03}" for number in range(1, members + 1)]
    shard = {
        "NodeGroupId": "0001",
        "PrimaryEndpoint": endpoint(PRIMARY),
        "ReaderEndpoint": endpoint(READER),
        "NodeGroupMembers": [
            {
                "CacheClusterId": node,
                "ReadEndpoint": {"Address": f"{node}.sessions.x", "Port": 6379},
                "CurrentRole": "replica" if number else "primary",
            }
            for number, node in enumerate(nodes)
        ],
    }
    whole = {"ReplicationGroupId": "sessions", "MemberClusters": nodes, "NodeGroups": [shard]}
    return {**whole, "TransitEncryptionEnabled": True, "ClusterEnabled": False, **changes}


CLUSTER = {
    "ReplicationGroupId": "sessions",
    "ClusterEnabled": True,
    "TransitEncryptionEnabled": True,
    "ConfigurationEndpoint": {"Address": "clustercfg.sessions.x", "Port": 6379},
    "NodeGroups": [{"NodeGroupId": "0001", "Slots": "0-16383", "NodeGroupMembers": []}],
}


def test_a_group_that_is_being_created_has_no_endpoint_yet() -> None:
    """Its nodes are not taken instead."""
    group = described()
    del group["NodeGroups"][0]["PrimaryEndpoint"]
    with pytest.raises(Unusable, match="no primary endpoint"):
        read(group)


def client_error(code: str) -> aws.ClientError:
    return aws.ClientError({"Error": {"Code": code, "Message": "user arn:aws:iam::1:user/x"}}, "Describe")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (client_error("ReplicationGroupNotFoundFault"), "there is none of this name"),
        (client_error("AccessDeniedException"), "not allowed"),
        (client_error("AuthorizationError"), "not allowed to publish there (AuthorizationError)"),
        (client_error("NotFound"), "in this account and region (NotFound)"),
        (client_error("KMSAccessDenied"), "use its KMS key (KMSAccessDenied)"),
        (client_error("Throttling"), "(Throttling)"),
        (client_error("<script>"), "without a code"),
        (aws.NoRegionError(), "AWS_DEFAULT_REGION"),
        (aws.NoCredentialsError(), "no AWS credentials"),
        (aws.EndpointConnectionError(endpoint_url="https://x"), "EndpointConnectionError"),
        (ResponseParserError("<html>"), "ResponseParserError"),
        (Unusable("it is blue"), "it is blue"),
    ],
)
def test_errors_in_words(error: Exception, says: str) -> None:
    """An error says what an operator can do, without the error's own text, which names principals."""
    assert says in explain(error)
    assert "arn:" not in explain(error)
    assert "https://" not in explain(error)


def test_a_question_is_tried_once_and_given_up_soon() -> None:
    """boto3 by its own defaults would wait for minutes where nothing answers."""
    with aws_client("elasticache", "eu-west-1") as client:
        config = client.meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.connect_timeout, config.read_timeout) == (CONNECT_TIMEOUT, READ_TIMEOUT)
    assert CONNECT_TIMEOUT + READ_TIMEOUT <= 3


# -- a group -----------------------------------------------------------------------------------------------------------


class Api:
    """AWS as it answers one question after the other, through botocore's own parameter and answer checks."""

    def __init__(self) -> None:
        self.client: Any = boto3.session.Session("k", "s", region_name="eu-west-1").client("elasticache")
        self.stub = Stubber(self.client)
        self.regions: list[str | None] = []

    @contextmanager
    def __call__(self, service: str, region: str | None) -> Iterator[Any]:
        assert service == "elasticache"
        self.regions.append(region)
        yield self.client

    def will_say(self, group: dict[str, Any]) -> None:
        asked = {"ReplicationGroupId": "sessions"}
        self.stub.add_response("describe_replication_groups", {"ReplicationGroups": [group]}, asked)

    def will_say_of_a_cache(self, cache: dict[str, Any]) -> None:
        asked = {"ServerlessCacheName": "sessions"}
        self.stub.add_response("describe_serverless_caches", {"ServerlessCaches": [cache]}, asked)

    def will_fail(self, code: str) -> None:
        self.stub.add_client_error("describe_replication_groups", code)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()
    monkeypatch.setattr(endpoints, "aws_client", made)
    with made.stub:
        yield made
    made.stub.assert_no_pending_responses()
    made.client.close()


def make_group(memory: EndpointsFile = NOT_REMEMBERED, needs_tls: bool = False, name: GroupName = NAME) -> Group:
    return Group(name, "LANGPONT_SESSION_REDIS_URL", needs_tls=needs_tls, memory=memory)


def nodes_of(group: Group) -> Nodes:
    return group.nodes({})


def test_before_aws_has_answered_no_place_is_known() -> None:
    """The store counts as unreachable, and what the group is like is open."""
    group = make_group()
    with pytest.raises(NotDiscoveredYet) as caught:
        nodes_of(group).seeds()
    assert classify(caught.value) is ErrorClass.UNREACHABLE
    assert nodes_of(group).single() is None
    assert not group.known


SERVERLESS = GroupName("sessions", "ap-northeast-1", serverless=True)
CACHE = {
    "ServerlessCacheName": "sessions",
    "Engine": "valkey",
    "Status": "available",
    "Endpoint": {"Address": "sessions-abc123.serverless.apne1.cache.amazonaws.com", "Port": 6379},
    "ReaderEndpoint": {"Address": "sessions-abc123.serverless.apne1.cache.amazonaws.com", "Port": 6380},
}


def test_a_serverless_cache_is_asked_as_a_cluster(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """The cache is asked at its one endpoint, with TLS, which it always has. What it lacks is said once."""
    caplog.set_level(logging.INFO)
    api.will_say_of_a_cache(CACHE)
    moved = {**CACHE, "Endpoint": {"Address": "sessions-def456.serverless.x", "Port": 6379}}
    api.will_say_of_a_cache(moved)
    group = make_group(needs_tls=True, name=SERVERLESS)
    nodes = nodes_of(group)
    group.query.ask()
    assert (nodes.single(), nodes.seeds(), nodes.tls()) == (None, (Address(CACHE["Endpoint"]["Address"], 6379),), True)  # type: ignore[index]
    assert [text for text in caplog.messages if "near cache" in text] == [
        f"LANGPONT_SESSION_REDIS_URL: serverless cache 'sessions': {endpoints.MISSING}"
    ]
    group.query.ask()
    assert nodes.seeds() == (Address("sessions-def456.serverless.x", 6379),)
    assert caplog.text.count("near cache") == 1


@pytest.mark.parametrize(
    ("cache", "says"),
    [
        ({**CACHE, "Engine": "memcached"}, "it is Memcached"),
        ({"ServerlessCacheName": "sessions", "Engine": "valkey", "Status": "creating"}, "still being created"),
    ],
)
def test_a_serverless_cache_that_cannot_be_used_is_explained(api: Api, cache: dict[str, Any], says: str) -> None:
    """The cache is explained to be unusable, and asked about again."""
    api.will_say_of_a_cache(cache)
    group = make_group(name=SERVERLESS)
    group.query.ask()
    assert not group.known
    assert says in (group.query.problem or "")


@pytest.mark.parametrize(
    ("answer", "single", "seeds", "tls"),
    [
        (described(), Servers(PRIMARY, (READER,)), (), True),
        (described(members=1), Servers(PRIMARY), (), True),
        (described(TransitEncryptionEnabled=False), Servers(PRIMARY, (READER,)), (), False),
        (described(TransitEncryptionMode="preferred"), Servers(PRIMARY, (READER,)), (), True),
        (CLUSTER, None, (Address("clustercfg.sessions.x", 6379),), True),
    ],
    ids=["replicas", "no replicas", "without TLS", "TLS preferred", "cluster mode"],
)
def test_what_is_found_is_given_out(
    api: Api, answer: dict[str, Any], single: Servers | None, seeds: Any, tls: bool
) -> None:
    """The names that stay through a failover, never those of nodes, or in cluster mode where to ask for the nodes; from
    the region that the URL names."""
    api.will_say(answer)
    group = make_group()
    nodes = nodes_of(group)
    group.query.ask()
    assert (nodes.single(), nodes.seeds(), nodes.tls()) == (single, seeds, tls)
    assert api.regions == ["ap-northeast-1"]


def test_the_last_good_answer_stays(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Through errors of all kinds; each is said once, with the setting, and that it is over."""
    caplog.set_level(logging.INFO, "flask_langpont_session.aws")
    api.will_say(described())
    for code in ("Throttling", "Throttling", "ReplicationGroupNotFoundFault"):
        api.will_fail(code)
    api.will_say(described())
    group = make_group()
    for _ in range(5):
        group.query.ask()
        assert nodes_of(group).single() == Servers(PRIMARY, (READER,))
    said = [record.getMessage() for record in caplog.records]
    assert all(line.startswith("LANGPONT_SESSION_REDIS_URL: replication group 'sessions': ") for line in said)
    assert [line.count("Throttling") for line in said] == [0, 1, 0, 0]
    assert "there is none of this name" in said[2]
    assert "answers again" in said[3]


@pytest.mark.parametrize(
    ("name", "group", "needs_tls", "says"),
    [
        (replace(NAME, db=2), CLUSTER, False, "one database, number 0; leave the number out"),
        (
            NAME,
            described(TransitEncryptionEnabled=False),
            True,
            "what this application signs in with could be read",
        ),
    ],
)
def test_a_group_that_cannot_be_used_says_why(
    api: Api, name: GroupName, group: dict[str, Any], needs_tls: bool, says: str
) -> None:
    """The reason is in the log and, by its class, in the errors of the store; what was good before stays."""
    for answer in (group, described(), group):
        api.will_say(answer)
    asked = make_group(needs_tls=needs_tls, name=name)
    asked.query.ask()
    assert says in (asked.unusable or "")
    assert says in (asked.query.problem or "")
    with pytest.raises(UnusableGroup) as caught:
        nodes_of(asked).seeds()
    assert classify(caught.value) is ErrorClass.UNREACHABLE
    asked.query.ask()
    assert asked.unusable is None
    asked.query.ask()
    assert nodes_of(asked).single() == Servers(PRIMARY, (READER,))


def test_a_pool_is_one_of_a_single_server_but_for_the_place() -> None:
    """Our time-outs and credentials, the database of the URL; certificates are checked against the host."""
    nodes = make_group(name=replace(NAME, db=3)).nodes({"password": "token", "ssl_ca_certs": "/etc/ssl/ca.pem"})
    pool = make_pool(
        ShardRoute(ClusterTopology(nodes, connect=lambda address, timeout: None), SINGLE, is_master=False),
        waits={"socket_timeout": 0.2},
        options=nodes.options,
        max_connections=7,
        timeout=0.05,
    )
    connection = pool.connection_class(**pool.connection_kwargs)
    assert (pool.max_connections, pool.timeout, pool.connection_class) == (7, 0.05, RoutedConnection)
    assert (connection.socket_timeout, connection.password, connection.db) == (0.2, "token", 3)
    assert (connection.ca_certs, connection.check_hostname) == ("/etc/ssl/ca.pem", True)
    assert connection.cert_reqs.name == "CERT_REQUIRED"
    assert "token" not in repr(connection)
    with pytest.raises(driver.ConnectionError):
        connection.connect()


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_new_process_starts_with_what_the_last_one_knew(api: Api, tmp_path: Path) -> None:
    """The process reads a file that no other user can read, and asks nothing."""
    path = tmp_path / "journal-endpoints"
    api.will_say(described())
    make_group(EndpointsFile(path, NAME)).query.ask()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    group = make_group(EndpointsFile(path, NAME))
    assert group.known
    assert nodes_of(group).single() == Servers(PRIMARY, (READER,))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    """A file that does not change is not touched; one that does is replaced whole."""
    path = tmp_path / "endpoints"
    memory = EndpointsFile(path, NAME)
    memory.note(Endpoints(PRIMARY))
    os.utime(path, (1, 1))
    memory.note(Endpoints(PRIMARY))
    assert path.stat().st_mtime == 1
    memory.note(Endpoints(PRIMARY, READER, tls=False))
    assert memory.recall() == Endpoints(PRIMARY, READER, tls=False)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\x00", b"{", b"[]", b"{}", b'{"group":"sessions"}',
        b'{"group":"sessions","region":"ap-northeast-1","primary":["h","6379"],"reader":null,"tls":true}',
        b'{"group":"other","region":"ap-northeast-1","primary":["h",6379],"reader":null,"tls":true}',
        b'{"group":"sessions","region":"eu-west-1","primary":["h",6379],"reader":null,"tls":true}',
        b'{"group":"sessions","region":"ap-northeast-1","primary":["h",6379],"reader":null,"tls":true,"serverless":true}',
    ],
)  # fmt: skip
def test_a_file_of_others_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """Damaged, half written, or about another group, region or kind."""
    path = tmp_path / "endpoints"
    path.write_bytes(content)
    assert EndpointsFile(path, NAME).recall() is None
    EndpointsFile(path, NAME).note(Endpoints(PRIMARY))
    assert EndpointsFile(path, NAME).recall() == Endpoints(PRIMARY)


def test_a_place_that_cannot_be_written_costs_a_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log line is all that it costs."""
    EndpointsFile(tmp_path / "missing" / "endpoints", NAME).note(Endpoints(PRIMARY))
    assert "cannot be kept" in caplog.text


def test_what_is_remembered_must_be_usable_too(tmp_path: Path) -> None:
    """Credentials came later, and the group had no TLS then."""
    memory = EndpointsFile(tmp_path / "endpoints", NAME)
    memory.note(Endpoints(PRIMARY, tls=False))
    assert not make_group(memory, needs_tls=True).known
    assert make_group(memory).known


# -- when AWS is asked -------------------------------------------------------------------------------------------------


class Asked:
    """A question that counts, by a clock that the test moves."""

    def __init__(self, rest: float = 900.0) -> None:
        self.now = 1000.0
        self.times: list[float] = []
        self.fails = False
        self.query = BackgroundQuery("it", self._ask, rest=rest, clock=lambda: self.now)

    def _ask(self) -> None:
        self.times.append(self.now)
        if self.fails:
            raise ConnectionError

    def goes_on(self, seconds: float, urgent: bool) -> int:
        """Look every half second, as the monitor does more often. How often it was asked meanwhile."""
        before = len(self.times)
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.query.look(urgent)
            self.query.wait(5)
        return len(self.times) - before


def test_while_all_is_well_aws_is_asked_rarely() -> None:
    """AWS is asked once soon after the start, then every quarter of an hour, give or take a fifth."""
    asked = Asked()
    assert asked.goes_on(10.5, urgent=False) == 1
    assert asked.goes_on(4 * 900, urgent=False) in (3, 4, 5)


def test_a_lost_server_has_aws_asked_at_once_and_then_ever_less_often() -> None:
    """AWS is asked at most once in two seconds, at least once in half a minute, for as long as the loss lasts."""
    asked = Asked()
    assert asked.goes_on(0.5, urgent=True) == 1
    asked.goes_on(600, urgent=True)
    gaps = [late - early for early, late in zip(asked.times, asked.times[1:], strict=False)]
    assert min(gaps) >= query.SHORTEST_PAUSE / 2
    assert max(gaps[4:]) <= query.LONGEST_PAUSE + 0.5
    assert min(gaps[4:]) >= query.LONGEST_PAUSE / 2
    asked.goes_on(60, urgent=False)
    assert asked.goes_on(5, urgent=True) >= 1


def test_a_question_without_an_answer_is_asked_again_though_nothing_is_urgent() -> None:
    """Soon, and ever less often until AWS answers: else all those that it throttles would keep it busy."""
    asked = Asked()
    asked.fails = True
    assert 4 <= asked.goes_on(120, urgent=False) <= 8
    assert asked.query.problem is not None
    asked.goes_on(1800, urgent=False)
    assert asked.goes_on(9000, urgent=False) <= 20
    assert asked.goes_on(31, urgent=True) >= 1  # but not when a server is lost
    asked.fails = False
    asked.goes_on(900, urgent=False)
    assert asked.query.problem is None
    assert asked.goes_on(600, urgent=False) <= 1


def test_workers_do_not_ask_in_step() -> None:
    """Their first questions are spread, and so are all later ones."""
    workers = [Asked() for _ in range(20)]
    for worker in workers:
        worker.goes_on(1100, urgent=False)
    assert len({worker.times[0] for worker in workers}) > 5
    assert len({worker.times[1] - worker.times[0] for worker in workers}) > 5


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_that_are_forked_do_not_ask_in_step_either() -> None:
    """The parent asked before, and its children go on from there."""
    asked = Asked()
    asked.goes_on(10.5, urgent=False)
    times = set()
    for _ in range(6):
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            try:
                asked.goes_on(900, urgent=False)
                os.write(writing, repr(asked.times[1:2]).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            times.add(pipe.read())
        os.waitpid(child, 0)
    assert len(times) > 3
    assert "[]" not in times


def test_one_question_at_a_time_and_no_request_waits_for_it() -> None:
    """One that hangs is not joined by others, however urgent it is."""
    started, let_go = threading.Event(), threading.Event()
    now, asked = [0.0], list[threading.Thread]()

    def hang() -> None:
        asked.append(threading.current_thread())
        started.set()
        let_go.wait(10)

    hanging = BackgroundQuery("it", hang, rest=900, clock=lambda: now[0])
    hanging.look(urgent=True)
    assert started.wait(5)
    now[0] += 10_000
    hanging.look(urgent=True)
    assert hanging.busy
    hanging.wait(0.01)
    assert len(asked) == 1
    let_go.set()
    hanging.wait(5)
    assert not hanging.busy
    hanging.look(urgent=True)
    hanging.wait(5)
    assert len(asked) == 2


def test_no_thread_to_be_had_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is ending: the monitor's round goes on."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    asked = Asked()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert asked.goes_on(10, urgent=True) == 0
    assert asked.goes_on(31, urgent=True) >= 1
