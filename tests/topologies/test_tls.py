"""TLS to a real redis-server: which certificates are believed, which are not, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from devservers.processes import wait_until
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.redis.url import has_tls
from tests.faults.proxy import FaultProxy, flip
from tests.integration.behind import sign_in, wait_until_home, wait_until_lost
from tests.integration.conftest import parts, redis_store
from tests.integration.shop import run
from tests.integration.tls import Authority

from .conftest import MakeApp
from .redis8 import Redis8

HOST = "localhost"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that is not trusted."""
    return Authority(tmp_path_factory.mktemp("stranger"))


Servers = Mapping[str, Redis8]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Servers]:
    """A good one, one with an expired certificate, one whose certificate expires in three days, one that asks for
    certificates, one without TLS."""
    folder = tmp_path_factory.mktemp("servers")
    good = authority.issue([HOST])
    options: dict[str, dict[str, Any]] = {
        "good": {"certificate": good},
        "expired": {"certificate": authority.issue([HOST], expired=True)},
        "expiring": {"certificate": authority.issue([HOST], days=3)},
        "asking": {"certificate": good, "authority": authority},
        "plain": {},
    }
    with ExitStack() as ends:
        yield {name: ends.enter_context(Redis8(folder / name, **given)) for name, given in options.items()}


@pytest.fixture
def make(make_app: MakeApp, authority: Authority) -> Callable[..., Flask]:
    return lambda url, trusted=authority, **config: make_app(REDIS_URL=trusting(url, trusted), **config)


def trusting(url: str, authority: Authority | None) -> str:
    """Return a URL with the certificates to trust; None: those of the system."""
    if authority is None or not has_tls(url):
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_ca_certs={authority.certificate}"


def refusal(app: Flask) -> StoreError:
    """Return the error with which the server, or this side, refuses a connection."""
    with pytest.raises(StoreError) as caught:
        redis_store(app).endpoint.time_ms(timeout=5)
    return caught.value


def url_with_certificate(server: Redis8, certificate: Path) -> str:
    return f"rediss://{HOST}:{server.port}/0?ssl_certfile={certificate}&ssl_keyfile={certificate}"


# -- the server's certificate ------------------------------------------------------------------------------------------


def test_the_right_host_is_believed(make: Callable[..., Flask], servers: Servers) -> None:
    """Its certificate is of our authority and has the name that the URL has."""
    app = make(f"rediss://{HOST}:{servers['good'].port}/0")
    browser = sign_in(app, "7")
    assert browser.get("/who").json == {"user": "7", "level": 0, "lang": None}
    assert redis_store(make(f"valkeys://{HOST}:{servers['good'].port}/0")).endpoint.time_ms(timeout=5) > 0


@pytest.mark.parametrize(
    ("host", "server", "trusted", "says"),
    [
        ("127.0.0.1", "good", "ours", "host"),  # a name that the certificate does not have
        (HOST, "good", "another authority", "ssl_ca_certs"),
        (HOST, "good", "the system's", "ssl_ca_certs"),
        (HOST, "expired", "ours", "expired"),
    ],
)
def test_any_other_certificate_is_refused(
    make: Callable[..., Flask], servers: Servers, stranger: Authority, host: str, server: str, trusted: str, says: str
) -> None:
    """Even if everything else is right. The error says why."""
    authority = {"ours": (), "another authority": (stranger,), "the system's": (None,)}[trusted]
    refused = refusal(make(f"rediss://{host}:{servers[server].port}/0", *authority))
    assert refused.error_class is ErrorClass.IDENTITY_REFUSED
    assert says in str(refused)


@pytest.mark.parametrize(
    ("name", "exit_code", "found"),
    [
        ("good", 0, "ok redis-tls primary: TLS, on this host"),
        ("expiring", 0, "warning redis-tls primary: its certificate expires on "),
        ("expired", 1, "failure stores primary: identity refused (certificate: expired)"),
    ],
)
def test_the_doctor_knows_when_a_certificate_expires(
    make: Callable[..., Flask], servers: Servers, name: str, exit_code: int, found: str
) -> None:
    """It warns two weeks before, and fails where each new connection does."""
    app = make(f"rediss://{HOST}:{servers[name].port}/0")
    said = run(app, "doctor", "--only", "redis-tls", "--only", "stores")
    assert found in " ".join(said.output.split())
    assert said.exit_code == exit_code


def test_a_server_that_is_not_believed_is_an_outage_that_names_the_setting(
    make: Callable[..., Flask], servers: Servers, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Users stay signed in, the log says what to do, and a renewed certificate ends it without a restart."""
    server = servers["expired"]
    app = make(f"rediss://{HOST}:{server.port}/0")
    browser = sign_in(app, "7")
    wait_until_lost(app, "primary")
    assert browser.get("/who").json == {"user": "7", "level": 2, "lang": None}
    assert "expired" in caplog.text
    before = server.certificate
    assert before is not None
    server.renew(servers["good"].certificate or before)
    wait_until_home(app)
    assert browser.get("/who").json == {"user": "7", "level": 0, "lang": None}
    server.renew(before)


def test_a_certificate_is_renewed_without_a_failed_request(
    make: Callable[..., Flask], servers: Servers, authority: Authority
) -> None:
    """Connections from before go on, those from now on see the new one."""
    server = servers["good"]
    app = make(f"rediss://{HOST}:{server.port}/0")
    browser = sign_in(app, "7")
    for _ in range(5):
        server.renew(authority.issue([HOST]))
        assert browser.get("/who").json == {"user": "7", "level": 0, "lang": None}
        redis_store(app).forget_connections()
        assert browser.get("/who").json == {"user": "7", "level": 0, "lang": None}
    assert not parts(app).health.open_stores()


# -- the application's certificate -------------------------------------------------------------------------------------


def test_a_client_with_a_certificate_may_come_in(
    make: Callable[..., Flask], servers: Servers, authority: Authority
) -> None:
    """``ssl_certfile`` and ``ssl_keyfile`` of the URL; the certificate names no host."""
    app = make(url_with_certificate(servers["asking"], authority.issue(["application"])))
    assert sign_in(app, "7").get("/who").json == {"user": "7", "level": 0, "lang": None}


@pytest.mark.parametrize("shown", ["nothing", "a stranger's", "an expired one"])
def test_a_client_with_none_or_a_bad_one_may_not(
    make: Callable[..., Flask], servers: Servers, authority: Authority, stranger: Authority, shown: str
) -> None:
    """The server says so in an alert; where it ends the connection first, there is nothing to be read."""
    server = servers["asking"]
    certificates = {"a stranger's": stranger.issue(["x"]), "an expired one": authority.issue(["x"], expired=True)}
    certificate = certificates.get(shown)
    url = url_with_certificate(server, certificate) if certificate else f"rediss://{HOST}:{server.port}/0"
    app = make(url)
    classes: set[ErrorClass] = set()

    def told() -> bool:
        classes.add(refusal(app).error_class)
        return ErrorClass.IDENTITY_REFUSED in classes

    wait_until(told, "an alert")
    assert classes <= {ErrorClass.IDENTITY_REFUSED, ErrorClass.UNREACHABLE}


# -- mix-ups and the wire ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "server"), [("redis", "good"), ("rediss", "plain")])
def test_tls_and_none_do_not_understand_each_other(
    make: Callable[..., Flask], servers: Servers, scheme: str, server: str
) -> None:
    """Class U; a server without TLS waits for the rest of a request, so it is the time-out that ends it."""
    app = make(f"{scheme}://{HOST}:{servers[server].port}/0", REDIS_TIMEOUT=0.5)
    refused = refusal(app)
    assert refused.error_class is ErrorClass.UNREACHABLE
    browser = sign_in(app, "7")
    wait_until_lost(app, "primary")
    assert browser.get("/who").json == {"user": "7", "level": 2, "lang": None}


@pytest.mark.parametrize("at", [0, 40])
def test_a_bit_that_was_turned_over_costs_one_command(make: Callable[..., Flask], servers: Servers, at: int) -> None:
    """It is noticed, whatever it hits, and the next command works."""
    with FaultProxy("127.0.0.1", servers["good"].port) as proxy:
        store = redis_store(make(f"rediss://{HOST}:{proxy.port}/0"))
        store.endpoint.time_ms(timeout=5)
        for fresh in (False, True):
            if fresh:
                store.forget_connections()
            before = proxy.hits["flip"]
            with proxy.failing(flip(at)), pytest.raises(StoreError) as caught:
                store.endpoint.time_ms(timeout=5)
            assert proxy.hits["flip"] > before
            assert caught.value.error_class is ErrorClass.UNREACHABLE
            assert store.endpoint.time_ms(timeout=5) > 0


# -- sentinels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory, servers: Servers, authority: Authority) -> Iterator[Redis8]:
    """Yield a sentinel that speaks TLS only, to clients and to the servers it watches, and tells their names."""
    folder = tmp_path_factory.mktemp("sentinel")
    with TlsSentinel(folder, servers["good"], authority) as sentinel:
        yield sentinel


class TlsSentinel(Redis8):
    """A redis-server as a sentinel with TLS. It rewrites its configuration file, so it has one of its own."""

    def __init__(self, folder: Path, watched: Redis8, authority: Authority) -> None:
        super().__init__(folder, certificate=watched.certificate)
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"port 0\ntls-port {self.port}\nbind 127.0.0.1\ndir {folder}\nunixsocket {self.socket}\n"
            f"tls-cert-file {watched.certificate}\ntls-key-file {watched.certificate}\n"
            f"tls-ca-cert-file {authority.certificate}\ntls-auth-clients no\ntls-replication yes\n"
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n"
            f"sentinel monitor sessions {HOST} {watched.port} 1\n"
        )

    def _command(self) -> list[str]:
        return [str(self._configuration), "--sentinel"]

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError, redis.TimeoutError), self._over_tls() as client:
            return bool(client.ping())
        return False

    def _over_tls(self) -> redis.Redis:
        retry = Retry(NoBackoff(), 0)
        return redis.Redis(
            host=HOST, port=self.port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False, retry=retry, protocol=2
        )


def test_sentinels_speak_tls_too(
    make: Callable[..., Flask], servers: Servers, sentinel: Redis8, stranger: Authority
) -> None:
    """``rediss+sentinel://`` asks them and connects to the server with the same trust, and with no other."""
    url = f"rediss+sentinel://{HOST}:{sentinel.port}/sessions"
    app = make(url)
    assert sign_in(app, "7").get("/who").json == {"user": "7", "level": 0, "lang": None}
    refused = refusal(make(url, stranger))
    assert refused.error_class is ErrorClass.IDENTITY_REFUSED
    refused = refusal(make(url.replace(HOST, "127.0.0.1")))
    assert refused.error_class is ErrorClass.IDENTITY_REFUSED
