"""Tokens on a real server, exchanged twice under load without a failed request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from redis.credentials import CredentialProvider

from devservers.servers import Valkey
from tests.integration.conftest import parts

from .conftest import MakeApp
from .deployments import ENGINES

ADMIN = ["ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all"]
TOKENS = [f"token-number-{number}-of-the-test" for number in range(3)]


class Locked:
    """A server whose default user needs a token."""

    def __init__(self, server: Valkey) -> None:
        self.server = server
        self._admin: Any = redis.Redis(port=server.port, username="admin", password="any", decode_responses=True)

    def set(self, *rules: str) -> None:
        """Change the default user: ``>token`` accepts one more, ``<token`` one less."""
        self._admin.execute_command("ACL", "SETUSER", "default", *rules)

    def refusals(self) -> int:
        """Return how many greetings the server has refused."""
        return sum(int(entry["count"]) for entry in self._admin.acl_log() if entry["reason"] == "auth")

    def greeted(self) -> int:
        """Return how many connections the server has accepted."""
        info: Any = self._admin.info("stats")
        return int(info["total_connections_received"])

    def close(self) -> None:
        self._admin.close()


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    with ENGINES[request.param](tmp_path_factory.mktemp("locked"), appendonly=False) as server:
        with server.client() as client:
            client.execute_command(*ADMIN)
        locked = Locked(server)
        yield locked
        locked.set("nopass")  # else the test could not ask it whether it has ended
        locked.close()


@pytest.fixture
def locked(running: Locked) -> Locked:
    """Return the server with the first token as password, before any refusal."""
    running.set("resetpass", f">{TOKENS[0]}")
    with redis.Redis(port=running.server.port, username="admin", password="any") as admin:
        admin.acl_log_reset()
        admin.flushall()
    return running


class TokenFile(CredentialProvider):
    """Reads its token anew for every connection, as from a secret that is mounted into a container."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_credentials(self) -> tuple[str]:
        return (self.path.read_text(),)

    def put(self, token: str) -> None:
        """Replace the token at once, as a mounted secret is: a monitor may be reading it."""
        written = self.path.with_suffix(".new")
        written.write_text(token)
        written.replace(self.path)


def visit(app: Flask, number: int) -> tuple[int, Any]:
    """A user signs in and reads over connections that are all new; the status of the sign-in, and what was read."""
    browser = app.test_client()
    forget: Callable[[], None] = parts(app).backend.primary.forget_connections
    forget()
    status = browser.post(f"/login/{number}").status_code
    forget()
    return status, browser.get("/who").json


def test_two_rotations_without_a_failed_request(make_app: MakeApp, locked: Locked, tmp_path: Path) -> None:
    """The server takes both, the file gets the new one, the old one is taken away; and once more."""
    file = TokenFile(tmp_path / "token")
    file.put(TOKENS[0])
    client = redis.Redis(port=locked.server.port, credential_provider=file)
    app = make_app(REDIS_URL=client)
    before = locked.greeted()

    def load(stage: int) -> None:
        with ThreadPoolExecutor(4) as threads:
            numbers = range(stage * 100, stage * 100 + 12)
            seen = dict(zip(numbers, threads.map(lambda number: visit(app, number), numbers), strict=True))
        assert seen == {n: (200, {"user": str(n), "level": 0, "lang": None}) for n in numbers}

    load(0)
    for turn, (old, new) in enumerate(pairwise(TOKENS)):
        locked.set(f">{new}")
        load(turn * 3 + 1)
        file.put(new)
        load(turn * 3 + 2)
        locked.set(f"<{old}")
        load(turn * 3 + 3)
    assert locked.refusals() == 0
    assert locked.greeted() - before >= 100
    assert not parts(app).health.open_stores()
    client.close()
