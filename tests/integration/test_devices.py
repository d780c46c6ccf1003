"""A user's devices: what is stored of them, what the user is shown, and ending them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa
from flask import Flask, jsonify, request, session

from devservers.servers import Valkey
from flask_langpont_session import LangPontSession, LangPontSessionError, Session
from flask_langpont_session.events import SessionRevoked
from flask_langpont_session.stores.sql.tables import SESSIONS
from flask_langpont_session.testing import captured_events, switched_off

from .behind import age_row, browser, digest, entry, pass_time, resting, sign_in, wait_for_level, who
from .conftest import MakeApp, cookie_of, parts

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0"
BOTH = {"DEVICE_LABELS": "user_agent", "DEVICE_NETWORKS": True}

MakeSite = Callable[..., Flask]


def here() -> Session:
    return cast(Session, session)


on_each = pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
"""For what has statements of its own."""


@pytest.fixture
def engine() -> str:
    return "sqlite"


@pytest.fixture
def make_site(make_app: MakeApp, database_url_on: Callable[[str], str], engine: str) -> MakeSite:
    """Return a factory of applications with a page of devices."""
    database_url = database_url_on(engine)

    def make(**config: Any) -> Flask:
        app = make_app(**{"DATABASE_URL": database_url, **config})
        langpont = cast(LangPontSession, app.session_interface)

        @app.get("/devices")
        def devices() -> Any:
            row = here().work.row
            infos = langpont.sessions(row.user_id) if row else []
            return jsonify([[one.digest, one.label, one.network, one.is_mine] for one in infos])

        @app.post("/devices/end")
        def end() -> Any:
            done = langpont.revoke_others(request.form.get("only"))
            return jsonify(durable=done.durable, sessions=done.sessions)

        @app.post("/label")
        def label() -> Any:
            here().label = request.form.get("label")
            return jsonify(label=here().label)

        @app.get("/why")
        def why() -> Any:
            return jsonify(displaced=here().was_displaced())

        @app.post("/regenerate")
        def regenerate() -> str:
            here().regenerate()
            return ""

        @app.errorhandler(LangPontSessionError)
        def unknown(error: LangPontSessionError) -> Any:
            return str(error), 503

        return app

    return make


def stored(app: Flask, digest: str) -> Any:
    """The row of a session."""
    with parts(app).backend.database.engine.connect() as connection:
        return connection.execute(sa.select(SESSIONS).where(SESSIONS.c.digest == digest)).one()


def signed_in(app: Flask, user: str = "7", user_agent: str = FIREFOX, address: str = "203.0.113.77") -> Any:
    """A browser of a kind, at an address."""
    client: Any = app.test_client()
    client.environ_base.update(HTTP_USER_AGENT=user_agent, REMOTE_ADDR=address)
    client.cookie = cookie_of(client.post(f"/login/{user}"))
    client.digest = digest(client.cookie)
    return client


def shown(client: Any) -> Any:
    return client.get("/devices").json


def test_a_change_of_id_keeps_what_is_known_of_the_device(make_site: MakeSite) -> None:
    """The session is the same."""
    app = make_site(**BOTH)
    one = signed_in(app)
    assert one.post("/regenerate", environ_base={"HTTP_USER_AGENT": "curl/8"}).status_code == 200
    [[name, *known]] = shown(one)
    assert name != one.digest
    assert known == ["Firefox, Windows", "203.0.113.0/24", True]


@on_each
def test_the_user_names_a_device(make_site: MakeSite) -> None:
    """The name replaces any label of the sign-in; None takes the name away."""
    app = make_site()
    one, two = signed_in(app), signed_in(app)
    assert one.post("/label", data={"label": " the tablet\x00\nin the kitchen"}).json == {
        "label": "the tablet in the kitchen"
    }
    assert [line[1] for line in shown(two)] == ["the tablet in the kitchen", None]
    assert one.post("/label", data={"label": "台" * 10_240}).json == {"label": "台" * 100}
    assert one.post("/label").json == {"label": None}
    assert [line[1] for line in shown(two)] == [None, None]
    row = stored(app, one.digest)
    assert (row.version, row.live, row.updated_at) == (1, True, row.created_at), "Redis has nothing to hear of it"


def test_a_label_that_is_given_with_a_sign_in_goes_with_it(make_site: MakeSite) -> None:
    """A label may be given before or after the user is named. A visitor's label is not kept."""
    app = make_site(**BOTH)

    @app.post("/named/<order>")
    def named(order: str) -> str:
        if order == "before":
            here().label = "kiosk"
        here()["_user_id"] = "7"
        if order == "after":
            here().label = "kiosk"
        return here().label or ""

    @app.post("/visitor")
    def visitor() -> str:
        here().label = "kiosk"
        here()["lang"] = "jp"
        return here().label or ""

    for order in ("before", "after"):
        assert app.test_client().post(f"/named/{order}").text == "kiosk"
    client = app.test_client()
    assert client.post("/visitor").text == ""
    assert client.post("/login/7", environ_base={"HTTP_USER_AGENT": FIREFOX}).status_code == 200
    assert [line[1] for line in shown(client)] == ["kiosk", "kiosk", "Firefox, Windows"]


def test_all_others_end_for_ever(make_site: MakeSite, primary: Valkey) -> None:
    """The others end on every worker, in Redis and in the database; an event tells each, and each browser is told
    once."""
    app, sibling = make_site(), make_site()
    one, mine, two, stranger = sign_in(app), sign_in(app), sign_in(sibling), sign_in(app, "8")
    with captured_events(app) as seen:
        assert mine.post("/devices/end").json == {"durable": True, "sessions": 2}
    assert {event for event in seen if isinstance(event, SessionRevoked)} == {
        SessionRevoked(client.digest[:8], durable=True) for client in (one, two)
    }
    for worker in (app, sibling):
        assert [who(worker, client) for client in (one, mine, two, stranger)] == [None, "7", None, "8"]
    assert [entry(primary, client.digest)["@live"] for client in (one, two)] == ["0", "0"]
    assert [stored(app, client.digest).live for client in (one, mine, two)] == [False, True, False]
    told = [browser(sibling, client.cookie).get("/why").json["displaced"] for client in (one, one, two, mine)]
    assert told == [True, False, True, False]
    assert mine.post("/devices/end").json == {"durable": True, "sessions": 0}


@on_each
def test_all_devices_may_end_all_others_at_once(make_site: MakeSite) -> None:
    """Two devices that end all others at once, on two workers, do not wait for each other for ever; at most one is
    left."""
    patient = {"DATABASE_TIMEOUT": 30, "REQUEST_BUDGET": 30, "DATABASE_CONCURRENCY": 10}
    workers = [make_site(**patient) for _ in range(2)]
    clients = [sign_in(workers[number % 2]) for number in range(10)]
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda client: client.post("/devices/end"), clients))
    assert [(answer.status_code, answer.json["durable"]) for answer in answers] == [(200, True)] * 10
    assert sum(stored(workers[0], client.digest).live for client in clients) <= 1
    for worker in workers:
        assert [who(worker, client) for client in clients].count("7") <= 1


def test_one_ends_and_only_one_of_the_users_own(make_site: MakeSite) -> None:
    """A digest comes from a form: that of another user, one's own or an invented one ends nothing."""
    app = make_site()
    one, mine, two, stranger = sign_in(app), sign_in(app), sign_in(app), sign_in(app, "8")
    for only in (stranger.digest, mine.digest, "x" * 43, "", "'; --"):
        assert mine.post("/devices/end", data={"only": only}).json == {"durable": True, "sessions": 0}
    assert mine.post("/devices/end", data={"only": two.digest}).json == {"durable": True, "sessions": 1}
    assert [who(app, client) for client in (one, mine, two, stranger)] == ["7", "7", None, "8"]
    assert app.test_client().post("/devices/end").json == {"durable": True, "sessions": 0}


def test_a_session_that_is_over_ends_none(make_site: MakeSite) -> None:
    """A session that is over ends no other one, not even within the time for which a worker believes what it was
    told before."""
    app = make_site()
    one, ended = sign_in(app), sign_in(app)
    with resting(app):
        parts(make_site()).backend.database.kill(ended.digest)
        assert who(app, ended) == "7", "this worker has not asked again yet"
        assert ended.post("/devices/end").json == {"durable": True, "sessions": 0}
    assert who(app, one) == "7"


def test_a_session_that_another_request_gave_a_new_id_is_still_ones_own(make_site: MakeSite) -> None:
    """Two tabs: one changes the id while the other one names the device, and ends all others."""
    app = make_site()
    mine, other = sign_in(app), sign_in(app)
    late = browser(app, mine.cookie)
    assert late.get("/who").json["user"] == "7"
    database = parts(app).backend.database
    row = database.load(mine.digest)
    assert row is not None
    successor, seen, payload = "s" * 43, row.version, row.payload
    with resting(app):  # which would tell that the old id is dead
        assert database.regenerate(mine.digest, successor=successor, seen=seen, payload=payload, idle_ms=3_600_000)
        late.post("/label", data={"label": "mine"})
        assert shown(late) == [[successor, "mine", None, True], [other.digest, None, None, False]]
        assert late.post("/devices/end").json == {"durable": True, "sessions": 1}
    assert [stored(app, name).live for name in (successor, other.digest)] == [True, False]


def test_all_others_end_in_the_request_of_the_sign_in(make_site: MakeSite) -> None:
    """A request that signs in can end all others, as after a change of password."""
    app = make_site()

    @app.post("/only-here")
    def only_here() -> Any:
        here()["_user_id"] = "7"
        done = cast(LangPontSession, app.session_interface).revoke_others()
        return jsonify(sessions=done.sessions)

    old = sign_in(app)
    client: Any = app.test_client()
    assert client.post("/only-here").json == {"sessions": 1}
    assert client.get("/who").json["user"] == "7"
    assert who(app, old) is None


def test_devices_are_shown_named_and_ended_while_redis_is_away(make_site: MakeSite, primary: Valkey) -> None:
    """Level 2: the database has it all. Redis hears of what ended when it is back."""
    app = make_site(**BOTH)
    one, mine = signed_in(app), signed_in(app)
    with switched_off(app, "primary"):
        mine.get("/who")
        wait_for_level(app, 2)
        assert [line[0] for line in shown(mine)] == [one.digest, mine.digest]
        assert mine.post("/label", data={"label": "mine"}).json == {"label": "mine"}
        assert mine.post("/devices/end").json == {"durable": True, "sessions": 1}
        assert [who(app, client) for client in (one, mine)] == [None, "7"]
    parts(app).monitor.tick()
    assert entry(primary, one.digest)["@live"] == "0"
    assert [who(app, client) for client in (one, mine)] == [None, "7"]


def test_without_the_database_nothing_is_pretended(make_site: MakeSite) -> None:
    """Without the database the devices are not known: the application gets an error to handle, and nothing has
    ended."""
    app = make_site()
    one, mine = sign_in(app), sign_in(app)
    with switched_off(app, "database"):
        for answer in (mine.get("/devices"), mine.post("/devices/end"), mine.post("/label", data={"label": "x"})):
            assert answer.status_code == 503
    assert [who(app, client) for client in (one, mine)] == ["7", "7"]
    assert [line[1] for line in shown(mine)] == [None, None]


def seen_ago(app: Flask, client: Any) -> timedelta:
    """Return the time since a session was seen in use."""
    with app.app_context():
        infos = cast(LangPontSession, app.session_interface).sessions("7")
    return datetime.now(UTC) - next(info.last_seen_at for info in infos if info.digest == client.digest)


@pytest.mark.parametrize(
    ("permanent", "labels", "is_noted"),
    [
        (True, lambda request: None, True),
        (True, None, False),
        (False, None, False),
    ],
)
def test_use_is_noted_as_often_as_the_idle_expiry_moves(
    make_site: MakeSite, primary: Valkey, permanent: bool, labels: Any, is_noted: bool
) -> None:
    """A permanent session has none that moves: its use is noted only where devices are."""
    app = make_site(VERIFY_INTERVAL=0, IDLE_TIMEOUT=3600, DEVICE_LABELS=labels, NEAR_CACHE=[])

    @app.post("/permanent")
    def make_permanent() -> str:
        here().permanent = permanent
        return ""

    client = sign_in(app)
    assert client.post("/permanent").status_code == 200
    for minutes, is_due in ((14, False), (2, True)):
        pass_time(app, primary, client.digest, minutes * 60_000)
        age_row(app, client.digest, minutes * 60_000, "seen_at")
        assert who(app, client) == "7"
        was_noted = seen_ago(app, client) < timedelta(minutes=10)
        assert was_noted is (is_due and (is_noted or not permanent))
