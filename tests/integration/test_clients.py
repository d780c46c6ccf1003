"""Every way to say where Redis is: ready clients, URLs, sockets, passwords, several applications, forked workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from flask import Flask, session

from devservers.processes import LONG
from devservers.servers import Valkey
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.testing import switched_off
from tests.support.auth_records import unpacked

from .behind import wait_until_home
from .conftest import MakeApp, cookie_of, parts, redis_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["redis decoding", "fakeredis"])
def client_object(request: pytest.FixtureRequest, primary: Valkey) -> Iterator[Any]:
    """A ready client as an application might have it already."""
    decoding = request.param.endswith("decoding")
    if request.param.startswith("fakeredis"):
        client: Any = fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=decoding)
    else:
        client = redis.Redis(port=primary.port, decode_responses=decoding)
    yield client
    client.close()


@pytest.fixture
def app(make_app: MakeApp, client_object: Any) -> Flask:
    app = make_app(REDIS_URL=client_object)

    @app.post("/count")
    def count() -> str:
        return str(session.increment("usage_count"))  # type: ignore[attr-defined]

    @app.post("/append")
    def append() -> str:
        session["cart"].append("日本")
        return ""

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    return app


def who(browser: Any) -> Any:
    return browser.get("/who").json


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_a_ready_client_serves_a_whole_session(app: Flask, client_object: Any) -> None:
    """Visit, sign in, use, regenerate, sign out: as with a URL, whatever the client does to replies."""
    browser = app.test_client()
    browser.post("/set", json={"lang": "jp", "input_text": "こんにちは", "cart": [1]})
    browser.post("/append")
    assert browser.get("/all").json == {"lang": "jp", "input_text": "こんにちは", "cart": [1, "日本"]}
    user = cookie_of(browser.post("/login/7"))
    assert browser.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
    assert [browser.post("/count").text for _ in range(3)] == ["1", "2", "3"]
    browser.post("/pop/cart")
    second = cookie_of(browser.post("/regenerate"))
    assert browser.get("/all").json == {
        "_user_id": "7", "_fresh": True, "user_role": "user", "lang": "jp", "input_text": "こんにちは",
        "usage_count": 3,
    }  # fmt: skip
    browser.post("/logout")
    assert browser.get("/all").json == {"lang": "jp"}
    for dead in (user, second):
        digest = digest_of((dead or "").split(".")[0])
        assert unpacked({"@m": text(client_object.hget(f"session:auth:{{{digest}}}", "@m"))})["@live"] == "0"
        replay = app.test_client()
        replay.set_cookie("session", dead or "")
        assert who(replay)["user"] is None
    assert {o.outcome for o in parts(app).recorder.series() if o.source == "primary"} == {"ok"}


def test_a_connection_that_lies_ready_is_seen_to_be_good(app: Flask, client_object: Any) -> None:
    """A ready connection is seen to be good whatever made it: else each request would make one anew, and nothing
    else would show it."""
    app.test_client().post("/set", json={"lang": "jp"})
    pool = redis_store(app).link.connections
    with parts(app).monitor.paused():
        connection = pool.take(time.monotonic() + 10)
        pool.put_back(connection)
        again = pool.take(time.monotonic() + 10)
        pool.put_back(again)
    assert again is connection


def test_the_monitor_goes_along_with_a_ready_client(app: Flask, client_object: Any) -> None:
    """Its probes, canaries and replays find a healthy server."""
    browser = app.test_client()
    browser.post("/set", json={"lang": "jp"})
    state = parts(app)
    for _ in range(3):
        state.monitor.suspect("primary")
        state.monitor.tick()
    assert state.health.level == 0
    with switched_off(app, "primary"):
        assert who(browser)["level"] == 2
        browser.post("/set", json={"input_text": "during"})
    wait_until_home(app)
    assert state.health.level == 0
    assert browser.get("/all").json == {"lang": "jp", "input_text": "during"}
    assert client_object.keys("session:canary:*")


def test_one_client_may_serve_several_applications(make_app: MakeApp, client_object: Any) -> None:
    """Each has a prefix and a secret of its own, and one pool between them."""
    one = make_app(REDIS_URL=client_object)
    two = make_app(REDIS_URL=client_object, KEY_PREFIX="two", SECRET_KEY="another key of the suite, 32+ bytes")
    browsers = [app.test_client() for app in (one, two)]
    for browser, lang in zip(browsers, ("jp", "en"), strict=True):
        browser.post("/set", json={"lang": lang})
        browser.post(f"/login/{lang}")
    assert [browser.get("/who").json for browser in browsers] == [
        {"user": "jp", "level": 0, "lang": "jp"},
        {"user": "en", "level": 0, "lang": "en"},
    ]


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server with a socket, whose password may change."""
    folder = tmp_path_factory.mktemp("own")
    with Valkey(folder, appendonly=False, extra=("--unixsocket", str(folder / "valkey.sock"))) as server:
        yield server


def works(app: Flask) -> bool:
    browser = app.test_client()
    browser.post("/set", json={"lang": "jp"})
    browser.post("/login/7")
    return bool(browser.get("/who").json == {"user": "7", "level": 0, "lang": "jp"})


def test_a_unix_socket(make_app: MakeApp, own_server: Valkey) -> None:
    """A URL may lead to a server on the same host by a Unix socket."""
    app = make_app(REDIS_URL=f"unix://{own_server.folder / 'valkey.sock'}")
    assert works(app)
    parts(app).monitor.tick()
    assert parts(app).health.level == 0


# -- processes ---------------------------------------------------------------------------------------------------------

FORKING = """
    import json, os, sys, threading, time
    from flask import Flask, jsonify, session
    from flask_langpont_session import LangPontSession
    from flask_langpont_session.extension import state_of

    url, folder, before = sys.argv[1], sys.argv[2], sys.argv[3] == "used"
    app = Flask("app", instance_path=folder)
    app.testing, app.secret_key = True, "test key of the test suite, 32+ bytes"
    app.config["LANGPONT_SESSION_REDIS_URL"] = url
    for name in ("REDIS_TIMEOUT", "REQUEST_BUDGET"):
        app.config[f"LANGPONT_SESSION_{name}"] = 20
    LangPontSession(app)
    state = state_of(app)
    state.backend.database.upkeep.create_tables()

    @app.post("/login/<user>")
    def login(user):
        session["_user_id"] = user
        session["lang"] = user
        return ""

    @app.get("/who")
    def who():
        return jsonify(user=session.get("_user_id"), lang=session.get("lang"), level=session.level)

    def monitor_runs():
        return "langpont-session-monitor" in {thread.name for thread in threading.enumerate()}

    def serve(name):
        browser = app.test_client()
        browser.post(f"/login/{name}")
        found = [browser.get("/who").json for _ in range(20)]
        while not (idle := state.backend.primary.link.connections.idle):  # the monitor has the only one just now
            time.sleep(0.001)  # a pool does not signal that a connection came back
        same = all(answer == {"user": name, "lang": name, "level": 0} for answer in found)
        return {"right": same, "monitor": monitor_runs(), "port": idle[0]._sock.getsockname()[1]}

    report = {}
    if before:
        report["before"] = serve("before")
    report["started"] = monitor_runs()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        report = {"running_at_fork": monitor_runs(), **serve("child")}
        os.write(writer, json.dumps(report).encode())
        os._exit(0)
    report["parent"] = serve("parent")
    os.waitpid(child, 0)
    report["child"] = json.loads(os.read(reader, 65536))
    print(json.dumps(report))
"""


@pytest.mark.parametrize("before", ["fresh", "used"])
def test_a_forked_worker_serves_with_its_own(primary: Valkey, tmp_path: Path, before: str) -> None:
    """gunicorn --preload: the application was made before the fork, and perhaps used. The child's monitor runs in the
    child, and no connection is shared."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), primary.url, str(tmp_path), before],
        cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["started"] == (before == "used")
    assert report["child"]["right"] and report["parent"]["right"]
    assert not report["child"]["running_at_fork"]
    assert report["child"]["monitor"] and report["parent"]["monitor"]
    ports = [report[process]["port"] for process in ("child", "parent")]
    assert len(set(ports)) == 2
