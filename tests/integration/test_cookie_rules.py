"""Cookies: when one is sent, what stands in it, and what is made of those that come. Rules C1 to C4."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.session.cookies import CookieSigner
from flask_langpont_session.testing import switched_off

from .behind import digest, sign_in, wait_for_level
from .conftest import MakeApp, cookie_of, parts
from .cookie_headers import set_cookies
from .counting import evals, wait_for_monitors
from .forms_site import browser, records

LIFE = timedelta(days=10)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_pages(make_app(PERMANENT_SESSION_LIFETIME=LIFE))


def with_pages(app: Flask) -> Flask:
    @app.post("/permanent/<int:flag>")
    def permanent(flag: int) -> str:
        session.permanent = bool(flag)
        return ""

    @app.post("/clear")
    def clear() -> str:
        session.clear()
        return ""

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    @app.post("/touch")
    def touch() -> str:
        session.modified = True
        return ""

    return app


def visitor(app: Flask) -> Any:
    client = browser(app)
    client.cookie = cookie_of(client.post("/set", json={"lang": "jp"}))
    assert client.cookie
    return client


def send(app: Flask, raw: str, url: str = "/all", method: str = "GET", **options: Any) -> Any:
    """A request with exactly this Cookie header."""
    client: Any = app.test_client(use_cookies=False)
    return client.open(url, method=method, environ_overrides={"HTTP_COOKIE": raw}, **options)


# -- C1, C2: a cookie only for a sid that was minted in this request ---------------------------------------------------


def test_nothing_worth_keeping_is_worth_no_cookie(app: Flask, primary: Valkey) -> None:
    """Reading, removing what is not there, a set and removed key: a visitor stays without cookie and record."""

    @app.post("/nothing")
    def nothing() -> str:
        session["lang"] = "jp"
        del session["lang"]
        session["_fresh"] = False
        session["_remember"] = "clear"
        session.modified = True
        session.clear()
        return ""

    for method, url in (("get", "/all"), ("post", "/pop/lang"), ("post", "/nothing"), ("post", "/logout"),
                        ("post", "/clear"), ("post", "/regenerate"), ("post", "/touch")):  # fmt: skip
        assert set_cookies(getattr(browser(app), method)(url)) == []
    assert records(app, primary) == ([], 0)


# -- permanent cookies -------------------------------------------------------------------------------------------------


class Clock:
    """The wall clock of cookies, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monkeypatch.setattr(time, "time", self.time)

    _real = staticmethod(time.time)

    def time(self) -> float:
        return self._real() + self._ahead

    def advance(self, share: float) -> None:
        self._ahead += LIFE.total_seconds() * share


def test_a_visitors_permanent_cookie_is_renewed_after_a_tenth_of_its_life(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same id with a new date, once per tenth, and only by requests that look at the session."""
    clock = Clock(monkeypatch)
    client = visitor(app)
    first = cookie_of(client.post("/permanent/1"))
    assert digest(first) == digest(client.cookie)
    clock.advance(0.09)
    assert set_cookies(client.get("/all")) == []
    clock.advance(0.02)
    assert set_cookies(client.get("/untouched")) == []
    assert set_cookies(client.get("/healthz")) == []
    renewed = client.get("/all")
    assert digest(cookie_of(renewed)) == digest(first)
    assert "Expires=" in set_cookies(renewed)[0]
    assert cookie_of(renewed) != first
    assert set_cookies(client.get("/all")) == []
    clock.advance(0.11)
    assert cookie_of(client.post("/set", json={"theme": "dark"}))


@pytest.mark.parametrize("begin", [visitor, sign_in])
def test_a_change_of_the_permanent_flag_sends_the_cookie(app: Flask, begin: Any) -> None:
    """A change of the flag sends the cookie both ways, with the same id; setting what it is already sends nothing."""
    client = begin(app)
    for flag, sent in ((0, False), (1, True), (1, False), (0, True), (0, False)):
        response = client.post(f"/permanent/{flag}")
        assert bool(set_cookies(response)) is sent
        if sent:
            assert digest(cookie_of(response)) == digest(client.cookie)
            assert ("Expires=" in set_cookies(response)[0]) is bool(flag)
        else:
            assert not sent


def test_the_permanent_flag_alone_is_worth_no_cookie_for_a_new_visitor(app: Flask, primary: Valkey) -> None:
    """``session.permanent = True`` in a before_request, as many applications do it, is no session."""

    @app.before_request
    def always() -> None:
        session.permanent = True

    client = browser(app)
    for url in ("/untouched", "/all", "/healthz"):
        assert set_cookies(client.get(url)) == []
    assert records(app, primary) == ([], 0)
    response = client.post("/set", json={"lang": "jp"})
    assert "Expires=" in set_cookies(response)[0]
    assert set_cookies(client.get("/all")) == []


# -- COOKIE_RESEND="flask" ---------------------------------------------------------------------------------------------


def test_cookie_resend_flask_sends_as_flask_does(make_app: MakeApp) -> None:
    """Sent when the session was modified, or is permanent and SESSION_REFRESH_EACH_REQUEST; the id stays."""
    app = with_pages(make_app(COOKIE_RESEND="flask", PERMANENT_SESSION_LIFETIME=LIFE))
    client = visitor(app)
    assert set_cookies(client.get("/all")) == []
    for json in ({"theme": "dark"}, {"input_text": "x"}):
        assert digest(cookie_of(client.post("/set", json=json))) == digest(client.cookie)
    assert digest(cookie_of(client.post("/touch"))) == digest(client.cookie)
    client.post("/permanent/1")
    for url in ("/all", "/untouched"):
        assert digest(cookie_of(client.get(url))) == digest(client.cookie)
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    assert set_cookies(client.get("/all")) == []
    assert cookie_of(client.post("/clear")) == ""


# -- C3, C4: a dead sid ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stores", [(), ("primary",), ("database",), ("primary", "database")])
def test_a_sign_out_clears_the_cookie_at_every_level(app: Flask, stores: tuple[str, ...]) -> None:
    """C4: the sign-out itself may send a cookie, whatever is down; a replay of the old one shows no user."""
    client = sign_in(app)
    with switched_off(app, *stores):
        assert parts(app).health.level == {(): 0, ("primary",): 2, ("database",): 0}.get(stores, 4)
        response = client.post("/logout")
        assert cookie_of(response) == ""
        assert browser(app, client.cookie).get("/who").json["user"] is None
    replay = browser(app, client.cookie).get("/who")
    assert replay.json["user"] is None
    assert set_cookies(replay) == []


# -- attributes --------------------------------------------------------------------------------------------------------


def attributes(header: str) -> dict[str, str]:
    """The attributes of a Set-Cookie header but those that tell setting from deleting."""
    found = {}
    for part in header.split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name not in ("Expires", "Max-Age"):
            found[name] = value
    return found


SECURE = "https://example.test"

ATTRIBUTES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "default": ({}, {"HttpOnly": "", "Path": "/"}),
    "host": (
        {
            "SESSION_COOKIE_NAME": "__Host-lp",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_SAMESITE": "Lax",
            "SESSION_COOKIE_PARTITIONED": True,
        },
        {"Secure": "", "HttpOnly": "", "Path": "/", "SameSite": "Lax", "Partitioned": ""},
    ),
    "strict": (
        {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_SAMESITE": "Strict", "SESSION_COOKIE_HTTPONLY": False},
        {"Secure": "", "Path": "/", "SameSite": "Strict"},
    ),
    "domain": (
        {"SESSION_COOKIE_DOMAIN": "example.test", "SESSION_COOKIE_PATH": "/"},
        {"Domain": "example.test", "HttpOnly": "", "Path": "/"},
    ),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_deletion_repeats_all_attributes(make_app: MakeApp, name: str) -> None:
    """A browser ignores a deletion whose attributes are others than those it was set with."""
    config, expected = ATTRIBUTES[name]
    app = with_pages(make_app(**config))
    cookie_name = config.get("SESSION_COOKIE_NAME", "session")
    client = browser(app)
    seen = []
    for url in ("/set", "/login/7", "/permanent/1", "/regenerate", "/clear"):
        response = client.post(url, json={"lang": "jp"} if url == "/set" else None, base_url=SECURE)
        [header] = set_cookies(response)
        assert header.startswith(f"{cookie_name}=")
        assert attributes(header) == expected
        seen.append(cookie_of(response, cookie_name))
    assert seen[-1] == ""
    assert "Max-Age=0" in header
    assert client.get("/all", base_url=SECURE).json == {}


def test_flask_s_cookie_settings_are_read_live(app: Flask) -> None:
    """Name, path, domain and flags may change between requests, as with Flask's own interface."""
    client = browser(app)
    assert cookie_of(client.post("/set", json={"lang": "jp"}), "session")
    app.config.update(SESSION_COOKIE_NAME="lp", SESSION_COOKIE_PATH="/sub", SESSION_COOKIE_DOMAIN="example.test")
    app.config.update(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="None")
    response = client.post("/set", json={"lang": "en"}, base_url=SECURE)
    [header] = set_cookies(response)
    assert header.startswith("lp=")
    assert attributes(header) == {
        "Domain": "example.test", "Path": "/sub", "Secure": "", "HttpOnly": "", "SameSite": "None",
    }  # fmt: skip
    assert send(app, f"lp={cookie_of(response, 'lp')}").json == {"lang": "en"}
    app.config.update(SESSION_COOKIE_PATH=None, APPLICATION_ROOT="/app", SESSION_COOKIE_DOMAIN=None)
    [header] = set_cookies(browser(app).post("/set", json={"lang": "jp"}, base_url=SECURE))
    assert attributes(header)["Path"] == "/app"
    assert "Domain" not in attributes(header)


# -- what comes in -----------------------------------------------------------------------------------------------------


def _other_key() -> str:
    signer = CookieSigner(["a key of another application, 32+ bytes"])
    return signer.dump(signer.mint("u", permanent=False, now=0))


def bad_values(good: str) -> dict[str, str]:
    """Cookie values that are not ours, most of them made from one that is. What no signature makes good is in
    ``tests/unit/session/test_cookies.py``: these are the forms in which it comes in a header."""
    sid, flags, stamp, key, signature = good.split(".")
    return {
        "empty": "",
        "space": " ",
        "1 MB": "a" * 1_000_000,
        "a good one with NUL": good + "\0",
        "star": "*",
        "percent": "%0d%0aSet-Cookie:%20x=y",
        "quoted octal": '"a\\000\\015\\012b"',
        "quoted good with octal": f'"{good}\\012"',
        "latin-1": "\xe9" * 43,
        "emoji": "😀".encode().decode("latin-1") * 20,
        "short": good[:-1],
        "another id": f"{'A' * 43}.{flags}.{stamp}.{key}.{signature}",
        "two with a dot": f"{good}.{good}",
        "another key": _other_key(),
        "full-width digits": good.replace(sid[0], "\uff11".encode().decode("latin-1"), 1),
    }


def test_bad_cookies_are_visitors_without_one(app: Flask, primary: Valkey) -> None:
    """200, anonymous, no store asked, no Set-Cookie, one count; the next good request is as before."""
    good = sign_in(app).cookie
    recorder = parts(app).recorder
    before, asked = evals(primary), calls(recorder)
    for what, value in bad_values(good).items():
        counted = refused(recorder)
        for url in ("/who", "/all", "/get/lang", "/untouched"):
            response = send(app, f"session={value}", url)
            assert (response.status_code, set_cookies(response)) == (200, []), what
        assert send(app, f"session={value}").json == {}, what
        # Not for the page that looks at nothing.
        new = {why: number - counted[why] for why, number in refused(recorder).items() if number > counted[why]}
        assert sum(new.values()) == 4, what
        assert new.keys() == {WHY.get(what, *new)}, what
    assert (evals(primary), calls(recorder)) == (before, asked)
    assert browser(app, good).get("/who").json["user"] == "7"


WHY = {"another key": "signature", "another id": "signature", "star": "form", "short": "form"}
"""Bad value → what is told of it, of some."""


def refused(recorder: Recorder) -> dict[str, int]:
    """Return how many cookies were refused, by the reason."""
    return {why: recorder.counters().get(f"cookies_refused_{why}", 0) for why in ("signature", "form")}


def calls(recorder: Recorder) -> int:
    """Return how often stores were asked."""
    return sum(series.count for asked, series in recorder.series().items() if asked.source != "none")


NO_COOKIES = ("", ";", "=", "=x", "session", "session;", ";;;session", "a b c", "session==", "$Version=1; session=x")


def test_a_cookie_header_that_is_none_is_no_reason_to_fail(app: Flask, primary: Valkey) -> None:
    """Nameless, empty and malformed headers: 200, anonymous, no store asked, no Set-Cookie."""
    before = evals(primary)
    for raw in NO_COOKIES:
        response = send(app, raw)
        assert (response.status_code, response.json, set_cookies(response)) == (200, {}, []), raw
    assert evals(primary) == before


def test_thousands_of_cookies_in_one_header_are_no_reason_to_fail(app: Flask) -> None:
    """Bad ones before, and others around; ours is found among them."""
    good = visitor(app).cookie
    crowd = "; ".join(f"c{number}={number}" for number in range(3000))
    assert send(app, f"{crowd}; session={good}; {crowd}").json == {"lang": "jp"}
    bad = "; ".join("session=x" for _ in range(3000))
    assert send(app, f"{bad}; session={good}").json == {"lang": "jp"}


# -- what is logged ----------------------------------------------------------------------------------------------------


def test_no_id_and_no_value_is_ever_logged(app: Flask, primary: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """I14: sign-in, outage, refused grant, bad cookie, damaged record, sign-out, at DEBUG: names and short digests."""
    secrets = {"typed": "secret words 秘密", "theme": "secret theme", "user": "secret-user-id", "late": "secret late"}
    cookies: list[str] = []
    client = browser(app)

    def keep(response: Any) -> Any:
        cookies.extend(filter(None, [cookie_of(response)]))
        return response

    @app.get("/damaged")
    def damaged() -> str:
        with suppress(TypeError):
            session["theme"] = {secrets["theme"]}
        return repr(session)

    with caplog.at_level(logging.DEBUG):
        keep(client.post("/set", json={"input_text": secrets["typed"], "theme": secrets["theme"]}))
        keep(client.post(f"/login/{secrets['user']}"))
        assert secrets["theme"] not in client.get("/damaged").text
        wait_for_monitors()  # what one gives back to Redis at first would mend the record
        with primary.client() as redis:
            redis.hset(f"session:ui:{{{digest(cookies[-1])}}}", "theme", b"\xff" + secrets["theme"].encode())
            redis.hset(f"session:auth:{{{digest(cookies[-1])}}}", "@m", "x")
        parts(app).backend.memory.clear()  # a worker that has written it knows what it should be
        assert client.get("/who").json["user"] == secrets["user"]
        assert client.get("/get/theme").json["value"] is None
        primary.kill()
        client.get("/who")
        wait_for_level(app, 2)
        keep(client.post("/set", json={"input_text": secrets["late"]}))
        keep(browser(app).post("/set", json={"input_text": secrets["late"]}))
        with switched_off(app, "database"):
            assert browser(app).post(f"/login/{secrets['user']}").status_code == 503
            client.get("/all")
        keep(client.post("/logout"))
        send(app, f"session={cookies[0]}x")
        primary.start()
        wait_for_level(app, 0)
        keep(browser(app, cookies[1]).post("/set", json={"theme": secrets["late"]}))
    assert any(record.name.startswith("flask_langpont_session") for record in caplog.records)
    text = "\n".join(f"{record.getMessage()} {record.exc_text or ''} {record.__dict__}" for record in caplog.records)
    for cookie in cookies:
        for secret in (cookie, cookie.split(".")[0], cookie.split(".")[-1], digest(cookie)):
            assert secret not in text
    for secret in secrets.values():
        assert secret not in text
        assert secret.encode("unicode_escape").decode() not in text
