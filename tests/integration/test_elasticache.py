"""ElastiCache: AWS says where the servers are and what to greet them with; it may be down, and requests never ask it.

AWS is a moto server behind boto3's real HTTP, the servers are Valkeys, and the resolver knows ElastiCache's names.
"""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from devservers.processes import LONG, free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session.aws import client as aws_calls
from flask_langpont_session.aws import cloud, credentials, endpoints
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY, REPLICA

from .behind import run_id
from .conftest import MakeApp, parts
from .elasticache_site import REGION, URL, Aws, DnsCache, aws, moto_url, names  # noqa: F401 - fixtures
from .tls import Authority, TlsFront

PATIENT = {
    "REQUEST_BUDGET": 30, "REDIS_TIMEOUT": 10, "DATABASE_TIMEOUT": 10,
    "DATABASE_CONCURRENCY": 16,
}  # fmt: skip
"""A busy machine is not an outage: what is tested here is which server is found, not how fast."""

OLD, NEW = "old-token-of-16-and-more", "new-token-of-16-and-more"


# -- AWS, and a network in which ElastiCache's names mean something ----------------------------------------------------


READER = "replica.sessions.x.apne1.cache.amazonaws.com"


@pytest.fixture
def with_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto names no reader endpoint; AWS does, also where there are no replicas."""

    def read(group: Any) -> endpoints.Endpoints:
        for shard in group["NodeGroups"]:
            shard["ReaderEndpoint"] = {"Address": READER, "Port": 6379}
        return plain(group)

    plain = endpoints.read
    monkeypatch.setattr(endpoints, "read", read)


@pytest.fixture
def make(aws: Aws, make_app: MakeApp) -> Callable[..., Flask]:
    """The applications end before AWS does: none of them asks the real one."""
    return lambda **config: make_app(**{"REDIS_URL": URL, **PATIENT, **config})


def who(browser: Any) -> Any:
    answer = browser.get("/who")
    assert answer.status_code == 200
    return answer.json


def wait_for_home(browser: Any) -> None:
    wait_until(lambda: bool(who(browser)["level"] == 0), "level 0")


def identity(app: Flask, store: str = PRIMARY) -> str:
    return (parts(app).backend.endpoint(store).server_identity.identity or "").split(":")[0]


# -- discovery ---------------------------------------------------------------------------------------------------------


def test_a_session_lives_on_the_primary_that_aws_names(
    make: Callable[..., Flask], aws: Aws, names: DnsCache, primary: Valkey, replica: Valkey, with_reader: None
) -> None:
    """The session lives on that primary from the first request on; the reader endpoint is the replica, and requests
    do not ask AWS."""
    names.ports = {aws.create_group(): primary.port, READER: replica.port}
    app = make()
    browser = app.test_client()
    browser.post("/login/7")
    assert who(browser) == {"user": "7", "level": 0, "lang": None}
    assert identity(app) == run_id(primary)
    parts(app).backend.endpoint(REPLICA).probe_read(timeout=5)
    assert identity(app, REPLICA) == run_id(replica)
    parts(app).monitor.stop()
    before = aws.asked["elasticache"]
    assert before >= 1
    for number in range(30):
        parts(app).backend.primary.forget_connections()
        browser.post("/set", json={"lang": str(number)})
    assert aws.asked["elasticache"] == before


DENIED = (
    b'<ErrorResponse xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/"><Error><Type>Sender</Type>'
    b"<Code>AccessDenied</Code><Message>No</Message></Error></ErrorResponse>"
)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """An AWS that has one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def hanging() -> Iterator[str]:
    """Connections are accepted and nothing is said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (hanging, "ReadTimeoutError"),
        (lambda: answering(200, b"<html>oh"), "AWS"),
        (lambda: answering(403, DENIED), "not allowed"),
    ],
    ids=["hangs", "garbage", "denied"],
)
def test_an_application_starts_and_serves_without_aws(
    make: Callable[..., Flask],
    aws: Aws,
    names: DnsCache,
    primary: Valkey,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: Any,
    says: str,
) -> None:
    """Redis counts as down, signing in works as in any outage, and when AWS answers all is well without a restart."""
    names.ports = {aws.create_group(): primary.port}
    with trouble() as url, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setattr(cloud, "START_PATIENCE", 0.2)
        patch.setattr(aws_calls, "READ_TIMEOUT", 0.5)
        app = make()
        browser = app.test_client()
        assert browser.post("/login/7").status_code == 200
        assert who(browser) == {"user": "7", "level": 2, "lang": None}
        with pytest.raises(StoreError) as caught:
            parts(app).backend.primary.run_commands([("PING",)], timeout=5)
        assert (caught.value.error_class, caught.value.cause) == (ErrorClass.UNREACHABLE, "NotDiscoveredYet")
        wait_until(lambda: says in caplog.text, "the reason in the log")
        assert "LANGPONT_SESSION_REDIS_URL: replication group 'sessions': " in caplog.text
    wait_for_home(browser)
    assert who(browser) == {"user": "7", "level": 0, "lang": None}
    assert identity(app) == run_id(primary)


def test_an_application_without_aws_pays_nothing_for_it(primary: Valkey, tmp_path: Path) -> None:
    """boto3 is not imported, and no thread asks; not by the start, not by a request, not by the monitor."""
    program = """
        import json, sys, threading
        from flask import Flask, session
        from flask_langpont_session import LangPontSession
        from flask_langpont_session.extension import state_of
        app = Flask("app", instance_path=sys.argv[1])
        app.testing = True
        app.config.update(SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_URL=sys.argv[2])
        LangPontSession(app)
        app.add_url_rule("/", view_func=lambda: str(session.get("lang")))
        assert app.test_client().get("/").status_code == 200
        state_of(app).monitor.tick()
        print(json.dumps([sorted(name for name in sys.modules if name.startswith(("boto", "moto"))),
                          sorted(thread.name for thread in threading.enumerate())]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), primary.url],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=LONG, check=True,
    )  # fmt: skip
    modules, threads = json.loads(done.stdout)
    assert modules == []
    assert not [name for name in threads if "aws" in name]


# -- failover ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, Valkey]]:
    folder = tmp_path_factory.mktemp("pair")
    with Valkey(folder / "first", appendonly=False) as first, Valkey(folder / "second", appendonly=False) as second:
        yield first, second


@pytest.fixture
def pair(two_servers: tuple[Valkey, Valkey]) -> tuple[Valkey, Valkey]:
    """A primary and its replica, that may change places."""
    first, second = two_servers
    for server in two_servers:
        server.start()
        with server.client() as client:
            client.replicaof("NO", "ONE")
            client.flushall()
            client.config_resetstat()
    with second.client() as client:
        client.replicaof("127.0.0.1", str(first.port))
        wait_until(lambda: follows(client), "the replica")
    return first, second


def follows(client: Any) -> bool:
    """Return whether a replica has caught up with its primary."""
    return bool(client.info("replication").get("master_link_status") == "up")


def clients_of(server: Valkey) -> int:
    """Connections to a server, without replication and the one that asks."""
    with server.client() as client:
        return len(client.client_list(_type="normal")) - 1


class Load:
    """Visitors who sign in and read without a pause, each request of each checked.

    :param app: what they visit.
    :param renew: whether connections are dropped all the time, so that new ones are greeted.
    """

    def __init__(self, app: Flask, visitors: int = 2, *, renew: bool = False) -> None:
        self.failed: list[Any] = []
        self.done: Counter[int] = Counter()
        self._app = app
        self._renew = renew
        self._over = threading.Event()
        self._users = itertools.count(100)
        self._threads = [threading.Thread(target=self._visit) for _ in range(visitors)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def goes_on(self, requests: int = 30) -> None:
        """Return when so many more requests were answered."""
        wanted = self.done.total() + requests
        wait_until(lambda: self.done.total() >= wanted, f"{requests} more answers")

    def _visit(self) -> None:
        while not self._over.is_set():
            user, browser = str(next(self._users)), self._app.test_client()
            answer = browser.post(f"/login/{user}")
            if answer.status_code != 200:
                self.failed.append(("login", answer.status_code))
                continue
            for _ in range(3):
                time.sleep(0.05)  # visitors leave the monitor some of the one processor
                if self._renew:
                    parts(self._app).backend.primary.forget_connections()
                answer = browser.get("/who")
                seen: Any = answer.json if answer.status_code == 200 else {"user": None, "level": -1}
                if seen["user"] != user:
                    self.failed.append(("who", answer.status_code, seen))
                self.done[seen["level"]] += 1


@pytest.mark.parametrize("aws_answers", [True, False], ids=["AWS up", "AWS down"])
def test_after_a_failover_the_name_leads_to_the_new_primary_and_nobody_is_logged_out(
    make: Callable[..., Flask],
    aws: Aws,
    names: DnsCache,
    pair: tuple[Valkey, Valkey],
    with_reader: None,
    monkeypatch: pytest.MonkeyPatch,
    aws_answers: bool,
) -> None:
    """The old primary lives on as a replica and keeps its connections; DNS follows a moment later.

    No sign-in fails, every connection to the demoted server goes, and AWS is asked once more; it need not answer.
    """
    old, heir = pair
    name = aws.create_group()
    names.ports = {name: old.port, READER: heir.port}
    app = make()
    browser = app.test_client()
    browser.post("/login/7")
    if not aws_answers:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    asked = aws.asked["elasticache"]
    with Load(app) as load:
        load.goes_on(10)
        before = load.done.total()
        with heir.client() as client:
            client.replicaof("NO", "ONE")
        with old.client() as client:
            client.replicaof("127.0.0.1", str(heir.port))
        load.goes_on(10)
        assert identity(app) != run_id(heir)
        names.ports = {name: heir.port, READER: old.port}
        wait_until(lambda: identity(app) == run_id(heir), "the heir")
        wait_for_home(browser)
        load.goes_on(10)
    assert load.failed == []
    assert load.done.total() >= before + 20
    assert load.done[1] > 0, "the demoted server was never noticed"
    assert who(browser) == {"user": "7", "level": 0, "lang": None}
    parts(app).backend.redis[REPLICA].forget_connections()
    wait_until(lambda: clients_of(old) == 0, "the end of all connections to the demoted server")
    wait_until(lambda: aws.asked["elasticache"] > asked, "the question to AWS")
    browser.post("/set", json={"lang": "jp"})
    with heir.client() as client:
        assert len(client.keys("session:ui:*")) == 1
        info: Any = client.info("errorstats")
    with old.client() as client:
        refused: Any = client.info("errorstats")
    assert "errorstat_READONLY" not in info
    assert refused["errorstat_READONLY"]["count"] > 0


# -- TLS and credentials -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Locked:
    """A server whose default user has tokens.

    :param admin: a connection that was greeted before there were any.
    """

    def __init__(self, server: Valkey, admin: Any) -> None:
        self.server = server
        self._admin = admin

    def accept(self, *tokens: str) -> None:
        """Accept these tokens from now on, and no others."""
        self._admin.execute_command("ACL", "SETUSER", "default", "resetpass", *(f">{token}" for token in tokens))

    def add_user(self, name: str) -> None:
        """Add a user who may greet with anything: the server cannot check what IAM signed."""
        self._admin.execute_command("ACL", "SETUSER", name, "on", "nopass", "~*", "&*", "+@all")

    @property
    def refusals(self) -> int:
        """Return how many greetings were refused since the test began."""
        return int(self._admin.info("errorstats").get("errorstat_WRONGPASS", {}).get("count", 0))

    def users(self) -> dict[int, str]:
        """Return the connected clients, without the one that asks: id → user, ``default`` before it was greeted."""
        mine = self._admin.client_id()
        users = {int(one["id"]): str(one["user"]) for one in self._admin.client_list()}
        return {client: user for client, user in users.items() if client != mine}

    def wait_for_only(self, user: str) -> set[int]:
        """Wait until all clients that are connected are this user; their ids."""
        wait_until(lambda: set(self.users().values()) == {user}, f"connections of {user} and of no other user")
        return set(self.users())

    def open(self) -> None:
        """Every client may connect."""
        self._admin.execute_command("ACL", "SETUSER", "default", "resetpass", "nopass")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("guarded"), appendonly=False) as server:
        yield server


@pytest.fixture
def locked(guarded: Valkey) -> Iterator[Locked]:
    """A server that takes no token yet; empty."""
    with redis.Redis(
        port=guarded.port, single_connection_client=True, protocol=2, retry=Retry(NoBackoff(), 0), decode_responses=True
    ) as admin:
        admin.flushall()
        admin.config_resetstat()
        locked = Locked(guarded, admin)
        locked.accept(secrets.token_hex())
        yield locked
        locked.open()


@pytest.fixture
def group(aws: Aws, names: DnsCache, authority: Authority, locked: Locked) -> Iterator[str]:
    """The locked server as a group with TLS; the name of its primary endpoint."""
    name = aws.create_group(replicas=0, tls=True)
    with TlsFront(authority.context([name]), locked.server.port) as front:
        names.ports = {name: front.port}
        yield name


@pytest.fixture
def make_tls(request: pytest.FixtureRequest, authority: Authority) -> Callable[..., Flask]:
    """The applications end before what they connect to: a socket that is reset just before its handshake is left open
    by Python, with a warning."""
    if "group" in request.fixturenames:
        request.getfixturevalue("group")
    make: Callable[..., Flask] = request.getfixturevalue("make")
    trusting = f"{URL}&ssl_ca_certs={authority.certificate}"
    return lambda user="", option="", **config: make(
        **{"REDIS_URL": trusting.replace("://", f"://{user}") + option, **config}
    )


def test_a_token_goes_over_tls_to_the_name_that_aws_gave(
    make_tls: Callable[..., Flask], group: str, locked: Locked, authority: Authority
) -> None:
    """The certificate is of our authority and names the endpoint."""
    locked.accept(OLD)
    url = f"{URL}&ssl_ca_certs={authority.certificate}".replace("://", f"://:{OLD}@")
    browser = make_tls(REDIS_URL=url).test_client()
    browser.post("/login/7")
    assert who(browser) == {"user": "7", "level": 0, "lang": None}


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is looked at every half second instead of every five minutes."""
    monkeypatch.setattr(credentials, "SECRET_REST", 0.5)


def token_in_use(app: Flask) -> str:
    link = parts(app).backend.endpoint(PRIMARY).link
    provider = link.connections.source.connection_kwargs["credential_provider"]
    return str(provider.get_credentials()[-1])


def nowhere_in(folder: Path, *tokens: str) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return bool(files) and not any(token.encode() in path.read_bytes() for path in files for token in tokens)


def test_a_token_is_exchanged_under_load_without_a_failed_request(
    make_tls: Callable[..., Flask],
    aws: Aws,
    group: str,
    locked: Locked,
    brisk: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Old, both, new: as ROTATE and SET of ElastiCache do it, with connections made anew all the time."""
    caplog.set_level(logging.INFO, "flask_langpont_session")
    locked.accept(OLD)
    aws.secrets.create_secret(Name="app/token", SecretString=OLD)
    app = make_tls(option="&token_secret=app/token")
    with Load(app, renew=True) as load:
        load.goes_on(8)
        locked.accept(OLD, NEW)
        load.goes_on(8)
        aws.secrets.put_secret_value(SecretId="app/token", SecretString=NEW)
        wait_until(lambda: token_in_use(app) == NEW, "the new token")
        load.goes_on(8)
        locked.accept(NEW)
        load.goes_on(15)
    assert load.failed == []
    assert set(load.done) == {0}
    assert load.done.total() >= 39
    assert locked.refusals == 0
    assert OLD not in caplog.text
    assert NEW not in caplog.text
    assert nowhere_in(tmp_path, OLD, NEW)


def test_iam_greets_with_a_signed_token(
    make_tls: Callable[..., Flask], group: str, locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The greeting is as the user of the URL, signed for the group; connections are made anew before their time
    is over."""
    locked.add_user("app-user")
    due: list[bool] = []
    monkeypatch.setattr(credentials.Recycling, "take_due", lambda self: bool(due) and due.pop())
    app = make_tls(user="app-user@")
    browser = app.test_client()
    browser.post("/login/7")
    assert who(browser) == {"user": "7", "level": 0, "lang": None}
    before = locked.wait_for_only("app-user")
    token = token_in_use(app)
    assert token.startswith("sessions/?Action=connect&User=app-user&X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert f"%2F{REGION}%2Felasticache%2Faws4_request" in token
    due.append(True)
    wait_until(lambda: not before & locked.users().keys(), "connections that were made anew")
    assert who(browser)["level"] == 0
