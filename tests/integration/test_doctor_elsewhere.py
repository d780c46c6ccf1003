"""``flask langpont doctor`` where stores, or what else uses them, are not on this host or not of this user."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from flask import Flask

from devservers.servers import Postgres, Valkey
from tests.topologies.redis8 import Redis8

from .behind import emptied
from .conftest import MakeApp, parts
from .shop import run
from .tls import Authority, TlsFront


@pytest.fixture(scope="module")
def address() -> str:
    """Return an address of this host that others would come to: a connection to it is one over the network."""
    found = "127.0.0.1"
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to_no_host:
        to_no_host.connect(("192.0.2.1", 9))  # sends nothing
        found = to_no_host.getsockname()[0]
    if found.startswith("127."):
        pytest.skip("this host has no address but its own loopback")
    return found


def open_to(address: str) -> tuple[str, ...]:
    """Options of a server."""
    return ("--bind", "127.0.0.1", address, "--protected-mode", "no")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("far"), extra=open_to(address)) as server:
        yield server


def told(app: Flask, name: str) -> list[str]:
    """Return the findings of a check, each behind its outcome."""
    lines = run(app, "doctor", "--only", name).output.splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith(("ok", "warning", "failure", "skipped"))]


def test_a_redis_elsewhere_without_tls(make_app: MakeApp, far: Valkey, address: str) -> None:
    """The data of all sessions can be read on the way; and a password, which is worse."""
    place = f"{address}:{far.port}/0"
    assert told(make_app(REDIS_URL=f"redis://{place}"), "redis-tls") == [
        "warning redis-tls primary: all data of sessions goes over the network without TLS"
    ]
    with far.client() as client:
        client.config_set("requirepass", "secret")
        try:
            app = make_app(REDIS_URL=f"redis://:secret@{place}")
            assert told(app, "redis-tls") == ["failure redis-tls primary: a password goes over the network without TLS"]
        finally:
            client.config_set("requirepass", "")


def test_a_redis_elsewhere_whose_certificate_is_not_checked(make_app: MakeApp, address: str, tmp_path: Path) -> None:
    """TLS to whatever answers there."""
    certificate = Authority(tmp_path).issue(["localhost"])
    with Redis8(tmp_path / "tls", certificate=certificate, extra=open_to(address)) as server:
        careless = redis.Redis(host=address, port=server.port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False)
        app = make_app(REDIS_URL=careless)
        assert told(app, "redis-tls") == ["warning redis-tls primary: TLS, but any certificate is accepted"]
        careless.close()


@pytest.mark.parametrize("mode", ["disable", "prefer"])
def test_a_database_elsewhere(make_app: MakeApp, postgres: Postgres, mode: str) -> None:
    """A database elsewhere is known by its name; the server of the tests has no certificate."""
    url = sa.make_url(emptied(postgres)).set(host="db.example")
    url = url.update_query_dict({"hostaddr": "127.0.0.1", "sslmode": mode})
    [said] = told(make_app(DATABASE_URL=url.render_as_string(hide_password=False)), "database-tls")
    assert said.startswith(("warning database-tls", "failure database-tls")) and said.endswith("without TLS")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_certificate_of_a_database_expires(
    make_app: MakeApp, postgres: Postgres, tmp_path: Path, driver: str
) -> None:
    """`doctor` warns in the weeks before the certificate ends; after that, `status` names the certificate."""
    pytest.importorskip(driver)
    authority, url = Authority(tmp_path), sa.make_url(emptied(postgres)).set(host="localhost")
    tls = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}

    context = authority.context(["localhost"])
    with TlsFront(context, postgres.port, asked=True) as front:
        there = url.set(drivername=f"postgresql+{driver}", port=front.port).update_query_dict(tls)
        app = make_app(DATABASE_URL=there.render_as_string(hide_password=False))
        [late] = told(app, "database-tls")
        context.load_cert_chain(authority.issue(["localhost"], days=13))
        [soon] = told(app, "database-tls")
        context.load_cert_chain(authority.issue(["localhost"], expired=True))
        parts(app).backend.database.engine.dispose()
        over = " ".join(run(app, "status").output.split())
    assert late == "ok database-tls TLS, on this host"
    assert soon.startswith("warning database-tls its certificate expires on ")
    assert "certificate: not trusted" in over and "has not expired" in over, over


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of other users")
def test_a_journal_of_two_users(make_app: MakeApp) -> None:
    """A process of another one has it open: what it makes beside it this one cannot read."""
    app = make_app()
    client: Any = app.test_client()
    client.get("/healthz")
    journal = parts(app).backend.journal
    journal.waiting()
    other = (
        "import os, sys\nfile = open(sys.argv[1])\nos.setgid(65534)\nos.setuid(65534)\nprint(flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", other, str(journal.file.reader.place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        try:
            [said] = told(app, "journal-workers")
        finally:
            process.stdin.close()
    assert said == "failure journal-workers processes of users 65534 have it open"
