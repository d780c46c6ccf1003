"""However Redis is deployed, on Redis 8 or Valkey 9: what works, what an outage leaves, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from devservers.processes import wait_until
from devservers.servers import Valkey
from tests.integration.behind import browser, entry, key, sign_in, wait_until_home, wait_until_lost
from tests.integration.conftest import parts

from .conftest import MakeApp
from .deployments import DEPLOYMENTS, Deployment, deploy


@pytest.fixture(scope="module", params=DEPLOYMENTS, ids="-".join)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as ends:
        yield deploy(request.param, tmp_path_factory.mktemp("servers"), ends)


@pytest.fixture
def deployment(running: Deployment) -> Iterator[Deployment]:
    """Running and empty. Whatever is done with it, nothing of it may be refused."""
    running.begin()
    yield running
    assert running.refused() == []


@pytest.fixture
def app(make_app: MakeApp, deployment: Deployment) -> Flask:
    return make_app(**deployment.settings)


@pytest.fixture
def elsewhere(make_app: MakeApp, deployment: Deployment) -> Flask:
    """Return the application of another host."""
    return make_app(**deployment.settings)


def test_at_level_0_all_of_it_works(app: Flask, elsewhere: Flask, deployment: Deployment) -> None:
    """Sign in, read, write, sign out, on two hosts; nothing else is left behind than a tombstone."""
    user = sign_in(app, "7", lang="jp", input_text="こんにちは")
    there = browser(elsewhere, user.cookie)
    assert there.get("/all").json == {
        "_user_id": "7", "_fresh": True, "user_role": "user", "lang": "jp", "input_text": "こんにちは",
    }  # fmt: skip
    there.post("/set", json={"input_text": "さようなら"})
    assert user.get("/get/input_text").json == {"value": "さようなら", "present": True}
    user.post("/logout")
    assert who(user) == {"user": None, "level": 0, "lang": "jp"}
    assert who(there)["user"] is None
    assert entry(deployment.primary, user.digest)["@live"] == "0"
    for host in (app, elsewhere):
        parts(host).monitor.tick()
        assert not parts(host).health.open_stores()


def test_an_outage_logs_no_user_out_and_ends_by_itself(app: Flask, elsewhere: Flask, deployment: Deployment) -> None:
    """SIGKILL: users stay, a sign-out holds although Redis comes back with the session in it, writes are merged."""
    user, leaver = (sign_in(app, name, lang="jp", input_text="before") for name in ("7", "8"))
    wait_until_copied(deployment, user.digest, leaver.digest)
    deployment.primary.kill()
    for _ in range(5):
        assert who(user)["user"] == "7"
    wait_until_lost(app, "primary")
    level, lang = (1, "jp") if deployment.replica else (2, None)
    assert who(user) == {"user": "7", "level": level, "lang": lang}
    assert user.get("/get/input_text").json["value"] == "before"
    user.post("/set", json={"input_text": "during"})
    newcomer = sign_in(app, "9")
    assert leaver.post("/logout").status_code == 200
    assert {who(again)["user"] for again in (leaver, browser(app, leaver.cookie))} == {None}
    deployment.start()
    wait_until_home(app, elsewhere)
    wait_until(lambda: entry(deployment.primary, leaver.digest)["@live"] == "0", "the tombstone")
    for host in (app, elsewhere):
        assert who(browser(host, user.cookie)) == {"user": "7", "level": 0, "lang": "jp"}
        assert browser(host, user.cookie).get("/get/input_text").json["value"] == "during"
        assert who(browser(host, newcomer.cookie)) == {"user": "9", "level": 0, "lang": None}
        assert who(browser(host, leaver.cookie)) == {"user": None, "level": 0, "lang": None}


def who(visitor: object) -> dict[str, object]:
    response = visitor.get("/who")  # type: ignore[attr-defined]
    assert response.status_code == 200
    found: dict[str, object] = response.json
    return found


def wait_until_copied(deployment: Deployment, *digests: str) -> None:
    """The follower, if there is one, has what the primary has of these sessions."""
    replica = deployment.replica
    if replica is not None:
        categories = ("auth", "translation", "ui", "data")
        wait_until(
            lambda: all(same(deployment.primary, replica, key(name, c)) for name in digests for c in categories),
            "the copy",
        )


def same(one: Valkey, other: Valkey, name: str) -> bool:
    with one.client() as here, other.client() as there:
        return bool(here.hgetall(name) == there.hgetall(name))
