"""The health pages at every level: what they say, what they never say, and that they cost nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from flask import Blueprint, Flask, request

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.policy.levels import LEVELS
from flask_langpont_session.testing import switched_off

from .behind import wait_for_level
from .conftest import MakeApp, close, parts
from .forms_site import at_level, browser, config_for

PAGES = ("/healthz", "/healthz/live", "/healthz/ready")
STATUS_PAGES = ("/healthz/status", "/healthz/status.css")
WITH_STATUS: dict[str, Any] = {"STATUS_PAGE": lambda request: True}
STATUS = {0: "ok", 1: "degraded", 2: "degraded", 3: "degraded", 4: "critical"}


def awake(app: Flask) -> Any:
    """A client of an application whose monitor runs."""
    client = browser(app)
    wait_until(lambda: client.get("/healthz").json["status"] == "ok", "ok")
    return client


def commands(server: Valkey) -> dict[str, int]:
    """Return how often the server was sent each command, without a replica's and those that serve this count."""
    with server.client() as client:
        stats = client.info("commandstats")
    others = ("info", "client", "hello", "select", "ping", "replconf", "psync")
    return {name: stat["calls"] for name, stat in stats.items() if not name.removeprefix("cmdstat_").startswith(others)}


@contextmanager
def counted_sql(app: Flask) -> Iterator[list[str]]:
    """The SQL statements that are sent while this is open."""
    sent: list[str] = []
    engine = parts(app).backend.database.engine

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    yield sent
    sqlalchemy.event.remove(engine, "before_cursor_execute", note)


# -- what it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(5))
def test_the_page_says_what_the_table_says(make_app: MakeApp, primary: Valkey, level: int) -> None:
    """200 at every level, with status, level and its name, logins, and what each feature gets."""
    app = make_app(**config_for(level))
    client = awake(app)
    with at_level(app, level, primary):
        response = client.get("/healthz")
        assert response.status_code == 200
        assert response.content_type == "application/json"
        report = response.json
        for url in PAGES:
            assert client.get(url).status_code == 200
    assert 0 <= report.pop("process_lag_ms") < 60_000
    assert set(report) == {
        "status", "level", "level_name", "since", "logins", "database", "categories", "stores", "shards", "near_cache",
        "memory", "journal", "causes", "remarks",
    }  # fmt: skip
    assert report["shards"] == {"lost": int(level > 0), "total": 1, "lost_share": float(level > 0)}
    lost = {store for store, ways in report["stores"].items() if not all(ways.values())}
    assert set(report["causes"]) == lost
    assert (report["status"], report["level"], report["level_name"]) == (STATUS[level], level, LEVELS[level])
    assert report["logins"] is (level != 4)
    assert (report["database"] == "ok") is (level != 4)
    settings = parts(app).settings
    assert report["categories"] == {
        name: {f.name: settings.behaviour(f.priority, level).value for f in settings.table.features_in(name)}
        for name in ("auth", "translation", "ui", "data")
    }
    assert report["stores"] == {
        "primary": {"read": level in (0, 1), "write": level == 0},
        "database": {"read": level != 4, "write": level != 4},
    }


def test_since_is_when_the_level_changed(make_app: MakeApp) -> None:
    """An ISO time with offset, which moves with the level and not with each request."""
    app = make_app()
    client = awake(app)
    first = datetime.fromisoformat(client.get("/healthz").json["since"])
    assert first.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - first) < timedelta(seconds=30)
    parts(app).health.since -= 3600
    earlier = client.get("/healthz").json["since"]
    assert client.get("/healthz").json["since"] == earlier
    with switched_off(app, "primary"):
        assert datetime.fromisoformat(client.get("/healthz").json["since"]) >= first
    with switched_off(app, "database"):  # no change of the level
        report = client.get("/healthz").json
        assert (report["level"], report["logins"], report["stores"]["database"]["write"]) == (0, False, False)


def test_no_near_cache_of_a_server_that_is_lost_is_shown(make_app: MakeApp, primary: Valkey) -> None:
    """The connections that an outage has cut are not there, though nothing was asked over them yet."""
    app = make_app()
    client = awake(app)

    def connections() -> int:
        client.get("/who")
        return int(client.get("/healthz").json["near_cache"]["connections"])

    client.post("/login/7")
    wait_until(lambda: connections() > 0, "a near cache")
    with switched_off(app, "primary"):
        assert connections() == 0


def test_a_replica_is_a_store_of_its_own(make_app: MakeApp, replica: Valkey) -> None:
    """Level 1 with a replica: it reads, the primary does neither."""
    app = make_app(REPLICA_URL=replica.url)
    client = awake(app)
    assert set(client.get("/healthz").json["stores"]) == {"primary", "replica", "database"}
    with switched_off(app, "primary"):
        report = client.get("/healthz").json
        assert report["level"] == 1
        assert report["stores"]["primary"] == {"read": False, "write": False}
        assert report["stores"]["replica"]["read"] is True
    with switched_off(app, "replica"):
        assert client.get("/healthz").json["level"] == 0


def test_the_page_names_no_user_and_no_address(make_app: MakeApp, primary: Valkey, tmp_path: Any) -> None:
    """No session, id, user, host, port, path, version or error text, healthy or not."""
    app = make_app()
    client = awake(app)
    client.post("/set", json={"input_text": "typed text"})
    client.post("/login/some-user")
    cookie = client.get_cookie("session").value
    secrets = [cookie.split(".")[0], "some-user", "typed text", "127.0.0.1", "localhost", str(primary.port), "sqlite",
               str(tmp_path), "redis", "valkey", "postgres", "Error", "Traceback", "test key"]  # fmt: skip
    texts = [client.get(url).text for url in PAGES]
    primary.kill()
    client.get("/who")
    wait_for_level(app, 2)
    texts += [client.get(url).text for url in PAGES]
    for text in texts:
        for secret in secrets:
            assert secret.lower() not in text.lower()
        assert not re.search(r"\d+\.\d+\.\d+", text)


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_a_health_page_asks_no_store_and_uses_no_session(make_app: MakeApp, primary: Valkey) -> None:
    """No command, no SQL, no cookie, no Vary, not to be cached; for visitors and for signed-in users."""
    app = make_app(**WITH_STATUS)
    user = awake(app)
    user.post("/login/7")
    user.get("/who")
    with parts(app).monitor.paused(), counted_sql(app) as sql:
        before = commands(primary)
        for url in [*PAGES, *STATUS_PAGES]:
            for client in (user, browser(app), browser(app, "forged")):
                response = client.get(url)
                assert (response.status_code, "Vary" in response.headers) == (200, False), url
                assert not response.headers.getlist("Set-Cookie"), url
                assert response.headers["Cache-Control"] == "no-store", url
        assert commands(primary) == before
        assert sql == []
    assert not [name for name in parts(app).recorder.counters() if name.startswith("cookies_refused")]


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_health_page_does_not_wait_for_a_frozen_server(make_app: MakeApp, primary: Valkey) -> None:
    """No worker has found out yet that the primary hangs: the page answers at once all the same."""
    app = make_app(REDIS_TIMEOUT=30, REQUEST_BUDGET=30, **WITH_STATUS)
    client = awake(app)
    with parts(app).monitor.paused():
        primary.freeze()
        began = time.monotonic()
        for url in (*PAGES, *STATUS_PAGES):
            assert client.get(url).status_code == 200
        assert time.monotonic() - began < 15  # far below one time-out, with room for a busy machine


def test_probes_may_use_head_and_a_trailing_slash(make_app: MakeApp) -> None:
    """Load balancers ask in both ways, and do not follow redirects."""
    client = browser(make_app())
    for url in (*PAGES, "/healthz/"):
        assert [client.get(url).status_code, client.head(url).status_code] == [200, 200]


def test_a_health_page_is_read_only(make_app: MakeApp) -> None:
    """There is nothing to post."""
    client = browser(make_app(**WITH_STATUS))
    assert {client.post(url).status_code for url in (*PAGES, *STATUS_PAGES)} == {405}


# -- for monitors that only read the status ----------------------------------------------------------------------------


def as_of_now(response: Any) -> Any:
    """Return the body of a response, without what is measured anew each time."""
    return {key: value for key, value in response.json.items() if key != "process_lag_ms"}


@pytest.mark.parametrize(("stores", "level"), [((), 0), (("primary",), 2), (("primary", "database"), 4)])
def test_fail_at_makes_it_503_from_that_level_on(make_app: MakeApp, stores: tuple[str, ...], level: int) -> None:
    """The body is the same; what is no number is as if it were not there; live and ready are never 503."""
    app = make_app()
    client = awake(app)
    with switched_off(app, *stores):
        plain = client.get("/healthz")
        assert plain.json["level"] == level
        for fail_at in range(1, 6):
            response = client.get(f"/healthz?fail_at={fail_at}")
            assert response.status_code == (503 if level >= fail_at else 200)
            assert as_of_now(response) == as_of_now(plain)
            assert response.headers["Cache-Control"] == "no-store"
        for nonsense in ("", "x", "1.5", "two"):
            assert client.get(f"/healthz?fail_at={nonsense}").status_code == 200
        for url in PAGES[1:]:
            assert client.get(f"{url}?fail_at=1").status_code == 200


def test_refused_sign_ins_are_degraded_and_a_monitor_may_ask_for_them(make_app: MakeApp) -> None:
    """Without the database the level is 0, and users cannot sign in: a monitor that reads only the status can tell."""
    app = make_app()
    client = awake(app)
    assert client.get("/healthz?fail_at=logins").status_code == 200
    with switched_off(app, "database"):
        response = client.get("/healthz?fail_at=logins")
        assert (response.status_code, response.json["status"], response.json["level"]) == (503, "degraded", 0)
        assert client.get("/healthz?fail_at=1").status_code == 200


# -- where it is -------------------------------------------------------------------------------------------------------


def test_the_pages_can_be_elsewhere(make_app: MakeApp) -> None:
    """HEALTH_URL_PREFIX moves all of them."""
    client = browser(make_app(HEALTH_URL_PREFIX="/internal/session", **WITH_STATUS))
    for url in (*PAGES, *STATUS_PAGES):
        assert client.get(url.replace("/healthz", "/internal/session")).status_code == 200
        assert client.get(url).status_code == 404


def test_there_need_be_no_pages(make_app: MakeApp) -> None:
    """HEALTH_URL_PREFIX=None: no page, sessions as ever, and the report from Python."""
    app = make_app(HEALTH_URL_PREFIX=None)
    client = browser(app)
    for url in PAGES:
        assert client.get(url).status_code == 404
    client.post("/set", json={"lang": "jp"})
    assert client.get("/all").json == {"lang": "jp"}
    interface: Any = app.session_interface
    wait_until(lambda: interface.status(app)["status"] == "ok", "ok")


# -- the start ---------------------------------------------------------------------------------------------------------


def test_before_the_monitor_runs_the_status_is_starting(make_app: MakeApp) -> None:
    """No thread has looked at any store yet; asking for a page starts the one that does."""
    app = make_app()
    interface: Any = app.session_interface
    assert interface.status(app)["status"] == "starting"
    client = browser(app)
    assert client.get("/healthz").json["status"] in ("starting", "ok")
    wait_until(lambda: client.get("/healthz").json["status"] == "ok", "ok")


@pytest.mark.parametrize("url", ["/healthz/status", "/untouched"])
def test_any_page_starts_the_monitor(make_app: MakeApp, primary: Valkey, url: str) -> None:
    """A process that is only asked for its health notices an outage as surely as a busy one."""
    app = make_app(HEALTH_INTERVAL=0.2, **WITH_STATUS)
    primary.kill()
    browser(app).get(url)
    wait_for_level(app, 2)


def test_a_process_that_has_not_looked_yet_does_not_say_ok(make_app: MakeApp, primary: Valkey) -> None:
    """Started while the primary is down: the first answer is ``starting`` (or what was found), not good news."""
    primary.kill()
    app = make_app()
    with parts(app).monitor.paused():  # its first round is not over before the first answer
        assert browser(app).get("/healthz").json["status"] == "starting"


def test_the_pages_need_no_secret_key(make_app: MakeApp) -> None:
    """Without SECRET_KEY there are no sessions, but the process can be asked how it is."""
    app = make_app()
    app.secret_key = None
    client = browser(app)
    for url in PAGES:
        assert client.get(url).status_code == 200
    wait_until(lambda: client.get("/healthz").json["status"] == "ok", "ok")


# -- beside routes of the application ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "when"), [("/healthz", "before"), ("/healthz/", "after"), ("/healthz/live", "after")])
def test_a_route_of_the_application_is_served_in_place_of_ours(
    tmp_path: Path, primary: Valkey, caplog: pytest.LogCaptureFixture, path: str, when: str
) -> None:
    """Whenever it was added, by the whole way that its requests take; the log says so once. Other pages stay ours."""
    app = Flask("app", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="a key for tests", LANGPONT_SESSION_REDIS_URL=primary.url)
    own = Blueprint("own", __name__)
    own.before_request(lambda: ("not for you", 403) if "key" not in request.args else None)
    own.get(path)(lambda: "its own")
    if when == "before":
        app.register_blueprint(own)
    LangPontSession(app)
    if when == "after":
        app.register_blueprint(own)
    client: Any = app.test_client()
    assert [client.get(path).status_code, client.head(path).status_code] == [403, 403]
    assert client.get(f"{path.rstrip('/')}?key=1", follow_redirects=True).text == "its own"
    [line] = [record.getMessage() for record in caplog.records if record.name == "flask_langpont_session.blueprint"]
    assert f"a route of its own at {path.rstrip('/')}," in line and "HEALTH_URL_PREFIX" in line
    for page in {"/healthz", "/healthz/ready", "/healthz/live"} - {path.rstrip("/")}:
        assert client.get(page).json["status"]
    close(app)


def test_another_method_of_the_application_does_not_take_ours(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A POST is its own business, at the same path too."""
    app = make_app()
    app.post("/healthz", endpoint="own")(lambda: "posted")
    app.get("/<page>", endpoint="any")(lambda page: page)
    client: Any = app.test_client()
    assert client.post("/healthz").text == "posted"
    assert "level" in client.get("/healthz").json
    assert client.put("/healthz").status_code == 405
    assert not [record for record in caplog.records if record.name == "flask_langpont_session.blueprint"]
