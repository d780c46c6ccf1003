"""Starting: with everything down, and beside another application."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devservers.servers import Postgres, Valkey
from tests.integration.behind import browser, emptied, sign_in, wait_until_home, wait_until_lost
from tests.integration.conftest import parts

from .conftest import MakeApp


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("primary")) as server:
        yield server


@pytest.fixture
def server(primary: Valkey) -> Valkey:
    primary.start()
    with primary.client() as client:
        client.flushall()
    return primary


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.mark.real_time("what hangs is given up within a bound")
def test_an_application_starts_while_everything_is_down(
    make_app: MakeApp, server: Valkey, postgres: Postgres, tmp_path: Path
) -> None:
    """It serves at once: no user is signed in or can sign in, no cookie is touched. All comes back by itself."""
    with Valkey(tmp_path / "replica", replica_of=server, appendonly=False) as replica:
        settings = {"REDIS_URL": server.url, "REPLICA_URL": replica.url, "DATABASE_URL": emptied(postgres)}
        user = sign_in(make_app(**settings), "7", lang="jp", input_text="before")
        for each in (server, replica, postgres):
            each.kill()
        began = time.monotonic()
        app = make_app(tables=False, **settings)
        visitor = browser(app, user.cookie)
        first = visitor.get("/who")
        assert time.monotonic() - began < 10, "a start, or a first answer, that waits for what is down"
        for answer in (first, visitor.get("/who")):
            assert (answer.status_code, answer.json) == (200, {"user": None, "level": 4, "lang": None})
            assert "Set-Cookie" not in answer.headers
        refused = app.test_client().post("/login/8")
        assert (refused.status_code, "Set-Cookie" in refused.headers) == (503, False)
        assert int(refused.headers["Retry-After"]) > 0
        for each in (postgres, server, replica):
            each.start()
        wait_until_home(app)
        assert visitor.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
        assert visitor.get("/get/input_text").json["value"] == "before"
        assert sign_in(app, "8").get("/who").json["level"] == 0


def test_applications_in_one_process_do_not_share_an_outage(make_app: MakeApp, server: Valkey, tmp_path: Path) -> None:
    """Each has its prefix, its database and its servers: one loses Redis, the other notices nothing."""
    with Valkey(tmp_path / "other", appendonly=False) as other:
        one = make_app(REDIS_URL=server.url, KEY_PREFIX="one")
        two = make_app(REDIS_URL=other.url, KEY_PREFIX="two", DATABASE_URL=f"sqlite:///{tmp_path / 'two.sqlite3'}")
        here, there = sign_in(one, "7", lang="jp"), sign_in(two, "8", lang="en")
        server.kill()
        here.get("/who")
        wait_until_lost(one, "primary")
        assert here.get("/who").json == {"user": "7", "level": 2, "lang": None}
        for _ in range(5):
            assert there.get("/who").json == {"user": "8", "level": 0, "lang": "en"}
            parts(two).monitor.tick()
        assert not parts(two).health.open_stores()
        server.start()
        wait_until_home(one)
        assert here.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
        with server.client() as client, other.client() as second:
            assert {str(key).split(":")[0] for key in client.keys("*")} == {"one"}
            assert {str(key).split(":")[0] for key in second.keys("*")} == {"two"}
