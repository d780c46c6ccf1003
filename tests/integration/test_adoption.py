"""Real sessions of Flask 3.1 and of Flask-Session 0.8 go on here, with old and new workers side by side."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from flask import Flask
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from devservers.constants import extended
from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import events, session
from flask_langpont_session.adoption import adopter
from flask_langpont_session.adoption.adopter import FlaskCookie, FlaskSessionRecord
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.plans import Revoked
from flask_langpont_session.testing import switched_off
from tests.faults.proxy import HANG, REFUSE, FaultProxy
from tests.support.clock import Clock

from .behind import digest, row
from .conftest import PATIENT, close, parts, unforced
from .old_site import KEY, NEW, OLD, Browser, MakeShop, old_app, said, settings_for, shop

KINDS = ["flask-cookie", "flask-session", "flask-session json", "flask-session signed"]


@pytest.fixture
def make_shop(primary: Valkey, sqlite_url: str, tmp_path: Path) -> Iterator[MakeShop]:
    """The application after the move; `config` without the prefix, but for that of others."""
    made: list[Flask] = []

    def make(kind: str, **config: Any) -> Flask:
        config = {**settings_for(kind, primary.url), **config}
        app = Flask("new", instance_path=str(tmp_path))
        app.config.update(SECRET_KEY=KEY, TESTING=True)
        settings = {"REDIS_URL": primary.url, "DATABASE_URL": sqlite_url, **PATIENT}
        settings["JOURNAL"] = str(tmp_path / "journal.sqlite3")
        for name, value in {**settings, **config}.items():
            is_ours = not name.startswith(("SESSION_", "SECRET_", "PERMANENT_"))
            app.config[f"LANGPONT_SESSION_{name}" if is_ours else name] = value
        extended(app)
        unforced(parts(app).backend.database.engine)
        parts(app).backend.database.upkeep.create_tables()
        made.append(app)
        return shop(app)

    yield make
    for app in made:
        close(app)


@pytest.fixture
def old(primary: Valkey, kind: str) -> Flask:
    """A worker of before the move."""
    return old_app(kind, primary.url)


@pytest.fixture
def new(make_shop: MakeShop, kind: str) -> Flask:
    """A worker of after it."""
    return make_shop(kind)


each_kind = pytest.mark.parametrize("kind", KINDS)
both_kinds = pytest.mark.parametrize("kind", ["flask-cookie", "flask-session"])
one_kind = pytest.mark.parametrize("kind", ["flask-session"])
"""For what comes after the old session was read."""


def rows(app: Flask) -> list[Any]:
    """The live rows of the database."""
    with parts(app).backend.database.engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT * FROM langpont_sessions WHERE live")))


def revoke_user(app: Flask, user: str) -> Revoked:
    """Log a user out everywhere."""
    repository = parts(app).repository
    return repository.revocations.revoke_user(user, repository.begin())


# -- what comes along --------------------------------------------------------------------------------------------------


@each_kind
def test_a_user_stays_in_and_keeps_the_cart(old: Flask, new: Flask) -> None:
    """The user gets an id of ours with a row; the old cookie is left as it is, and the old session with it."""
    browser = Browser().visit(old, "tea", "rice", user="7")
    before = browser.cookies[OLD]
    response = browser.open(new, "GET", "/page")
    assert (response.json["user"], response.json["cart"]) == ("7", ["tea", "rice"])
    assert browser.cookies[OLD] == before and NEW in browser.cookies
    found = row(new, digest(browser.cookies[NEW]))
    assert (found["user_id"], found["live"]) == ("7", True)
    assert response.headers["Cache-Control"] == "no-store" and "Cookie" in response.headers["Vary"]
    assert browser.page(old) == browser.page(new) == {"user": "7", "cart": ["tea", "rice"]}
    assert len(rows(new)) == 1


@each_kind
def test_a_visitor_keeps_the_cart(old: Flask, new: Flask) -> None:
    """The visitor keeps the cart without a row in the database."""
    browser = Browser().visit(old, "tea")
    assert browser.page(new) == browser.page(old) == {"user": None, "cart": ["tea"]}
    assert rows(new) == []


@both_kinds
@pytest.mark.parametrize("user", ["7", None])
def test_forms_are_good_for_old_and_new_workers_alike(old: Flask, new: Flask, user: str | None) -> None:
    """Forms are accepted from before the move, also when another page was opened since, and so are those of a new
    worker."""
    browser = Browser().visit(old, "tea", user=user)
    assert browser.post(new, "/add/rice") == 200  # the first request of this browser to any new worker
    assert browser.post(new, "/add/milk") == 200
    browser.page(new)
    assert browser.post(old, "/add/salt") == 200
    assert browser.page(new)["cart"] == ["tea", "rice", "milk"]
    assert browser.page(old)["cart"] == ["tea", "salt"]


@both_kinds
def test_flashes_come_along(old: Flask, new: Flask) -> None:
    """Flashed messages that the old worker has not shown come along."""
    browser = Browser().visit(old, "tea")
    assert browser.open(new, "GET", "/flashes").json == [["message", "added tea"]]
    assert browser.open(new, "GET", "/flashes").json == []


@both_kinds
@pytest.mark.parametrize("user", ["7", None])
def test_old_and_new_workers_take_turns(old: Flask, new: Flask, user: str | None) -> None:
    """User and cart are the same on each worker while they are exchanged, and on the old ones after all new ones are
    gone again."""
    browser = Browser().visit(old, "tea", user=user)
    for worker in (new, old, new, new, old, old):
        assert browser.page(worker) == {"user": user, "cart": ["tea"]}
    del browser.cookies[NEW]
    assert browser.page(old) == {"user": user, "cart": ["tea"]}


@pytest.mark.parametrize("permanent", [True, False])
def test_a_permanent_session_stays_so(make_shop: MakeShop, permanent: bool) -> None:
    """The cookie and the row of the session stay permanent."""
    new = make_shop("flask-cookie")
    cookie = signed({"_user_id": "7", "_permanent": permanent})
    response = Browser(session=cookie).open(new, "GET", "/page")
    [header] = response.headers.getlist("Set-Cookie")
    assert ("Expires=" in header) is permanent
    [found] = rows(new)
    assert (found.absolute_expires_at - found.created_at) / 3_600_000 == (31 * 24 if permanent else 12)


# -- what ended stays so -----------------------------------------------------------------------------------------------


@each_kind
def test_a_sign_out_on_a_new_worker_is_one_everywhere(old: Flask, new: Flask) -> None:
    """The old cookie goes, its record too, and a browser that has kept the cookie is not signed in by it."""
    browser = Browser().visit(old, "tea", user="7")
    kept = Browser(session=browser.cookies[OLD])
    browser.page(new)
    assert browser.post(new, "/logout") == 200
    assert OLD not in browser.cookies
    assert browser.page(new) == {"user": None, "cart": []}  # as after any sign-out: the cart was the user's
    assert browser.page(old) == {"user": None, "cart": []}
    assert kept.page(new) == {"user": None, "cart": []}
    if old.config.get("SESSION_TYPE"):
        assert kept.page(old)["user"] is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flask-cookie"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_late_save_of_an_old_worker_signs_no_user_in_again(old: Flask, new: Flask, is_known: bool) -> None:
    """Its request began before the sign-out and puts the record back, with a change: it is the same session all the
    same, and that is over."""
    meanwhile: list[Callable[[], object]] = []

    @old.get("/late")
    def add_late() -> str:
        cart = session["cart"]
        for act in meanwhile:
            act()
        session["cart"] = [*cart, "late"]
        return "late"

    browser = Browser().visit(old, "tea", user="7")
    tab = Browser(**{OLD: browser.cookies[OLD]})
    if is_known:
        assert browser.page(new)["user"] == "7"
    meanwhile.append(lambda: browser.post(new, "/logout"))
    assert tab.open(old, "GET", "/late").text == "late"
    assert tab.page(old) == {"user": "7", "cart": ["tea", "late"]}  # the record is there again
    assert tab.page(new)["user"] is None
    assert rows(new) == []


@both_kinds
@pytest.mark.parametrize("is_known", [True, False])
def test_a_sign_out_on_an_old_worker_is_one_on_new_ones(old: Flask, new: Flask, is_known: bool) -> None:
    """Sign-outs on an old worker count on new ones, whether or not they know of the session. The browser stays as a
    visitor."""
    browser = Browser().visit(old, "tea", user="7")
    if is_known:
        browser.page(new)
    assert browser.post(old, "/logout") == 200
    assert browser.page(new) == browser.page(old) == {"user": None, "cart": ["tea"]}


@both_kinds
@pytest.mark.parametrize("first", ["7", None])
def test_a_sign_in_on_an_old_worker_is_one_on_new_ones(old: Flask, new: Flask, first: str | None) -> None:
    """Sign-ins on an old worker count on new ones, for a visitor they know and for another user: Flask-Session keeps
    its id."""
    browser = Browser().visit(old, "tea", user=first)
    browser.page(new)
    for user in ("8", "7", "8"):
        browser.page(old)
        assert browser.post(old, f"/login/{user}") == 200
        assert browser.page(new)["user"] == browser.page(old)["user"] == user


def test_a_cookie_that_an_old_worker_renewed_ends_as_well(make_shop: MakeShop, primary: Valkey) -> None:
    """The one that comes with the sign-out, whichever was taken over."""
    old, new = old_app("flask-cookie", primary.url), make_shop("flask-cookie")
    browser = Browser().visit(old, user="7")
    browser.page(new)
    browser.page(old)
    assert browser.post(old, "/add/tea") == 200
    kept = Browser(session=browser.cookies[OLD])
    browser.page(new)
    assert browser.post(new, "/logout") == 200
    assert kept.page(new)["user"] is None


@one_kind
def test_a_user_logged_out_everywhere_is_not_taken_over(old: Flask, new: Flask) -> None:
    """The old session of such a user is not taken over, also in browsers that no new worker knows of."""
    browser = Browser().visit(old, user="7")
    assert revoke_user(new, "7").durable
    assert browser.page(new)["user"] is None
    assert rows(new) == []


# -- requests at the same time, and answers that are lost --------------------------------------------------------------


@pytest.mark.parametrize("user", ["7", None])
@both_kinds
def test_requests_at_the_same_time_find_one_session(old: Flask, new: Flask, kind: str, user: str | None) -> None:
    """Requests of a user always find one session, those of a visitor if the old session has an id. In any case the
    cart is whole."""
    browser = Browser().visit(old, "tea", user=user)
    start = threading.Barrier(6)

    def page(number: int) -> Browser:
        mine = Browser(**browser.cookies)
        start.wait()
        assert mine.page(new) == {"user": user, "cart": ["tea"]}
        return mine

    with ThreadPoolExecutor(6) as pool:
        browsers = list(pool.map(page, range(6)))
    ids = {digest(each.cookies[NEW]) for each in browsers}
    assert len(ids) == 1 or (user is None and kind == "flask-cookie")
    for each in browsers:
        each.cookies[NEW] = browsers[-1].cookies[NEW]
        assert each.post(new, "/add/rice") == 200
    assert browsers[0].page(new)["cart"] == ["tea", *["rice"] * 6]


@pytest.mark.parametrize("user", ["7", None])
def test_a_late_one_undoes_nothing_that_was_changed_since(
    make_shop: MakeShop, primary: Valkey, user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent before the answer to the first was there, and has read the old session already."""
    old, new = old_app("flask-session", primary.url), make_shop("flask-session")
    browser = Browser().visit(old, "tea", user=user)
    late = Browser(**browser.cookies)
    adopt = adopter.Adoption.adopt

    def first_another(*arguments: Any) -> Any:
        monkeypatch.setattr(adopter.Adoption, "adopt", adopt)
        browser.page(new)
        assert browser.post(new, "/add/rice") == 200
        return adopt(*arguments)

    monkeypatch.setattr(adopter.Adoption, "adopt", first_another)
    with new.app_context():
        assert late.page(new)["cart"] == ["tea", "rice"]
    assert browser.page(new)["cart"] == ["tea", "rice"]


@one_kind
def test_a_lost_answer_costs_nothing(old: Flask, new: Flask) -> None:
    """The next request goes on with the session that the first one made."""
    browser = Browser().visit(old, "tea", user="7")
    Browser(**browser.cookies).page(new)
    assert browser.page(new) == {"user": "7", "cart": ["tea"]}
    assert len(rows(new)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"user": {"name": "Alice"}}, {"user": {"name": "Bob"}}),
        ({"logged_in": True, "uid": 7}, {"logged_in": True, "uid": 8}),
    ],
)
def test_users_without_a_name_are_told_apart(
    make_shop: MakeShop, primary: Valkey, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Users sign in one after the other on old workers, which keep the id of Flask-Session."""
    new = make_shop("flask-session")
    new.get("/all")(lambda: {key: session.get(key) for key in ("user", "logged_in", "uid") if key in session})
    for values in (one, other, one):
        with primary.client() as client:
            client.set("session:an-id-of-flask-session", msgspec.msgpack.encode(values))
        assert Browser(session="an-id-of-flask-session").open(new, "GET", "/all").json == values
    assert len(rows(new)) == 2


def test_an_id_never_changes_its_kind(make_shop: MakeShop, primary: Valkey) -> None:
    """An id keeps its kind, although Flask-Session keeps its id when a visitor is given a right."""
    new, ids = make_shop("flask-session"), []
    for values in ({"cart": ["tea"]}, {"logged_in": True}):
        with primary.client() as client:
            client.set("session:an-id-of-flask-session", msgspec.msgpack.encode(values))
        browser = Browser(session="an-id-of-flask-session")
        browser.page(new)
        ids.append(digest(browser.cookies[NEW]))
    assert ids[0] != ids[1]
    assert [found.digest for found in rows(new)] == ids[1:]


def test_what_is_known_to_be_over_asks_no_store(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old session that is over asks no store, however often its cookie comes."""
    new, cookie = make_shop("flask-cookie"), signed({"_user_id": "7"})
    browser = Browser(session=cookie)
    browser.page(new)
    assert browser.post(new, "/logout") == 200

    def asked(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(parts(new).backend.database, "adopt", asked)
    assert Browser(session=cookie).page(new)["user"] is None


# -- outages -----------------------------------------------------------------------------------------------------------


@one_kind
def test_without_the_database_users_wait_and_visitors_do_not(old: Flask, new: Flask) -> None:
    """A user is shown as a visitor, as an unverifiable session is, and gets no cookie that would make that last."""
    user, visitor = Browser().visit(old, "tea", user="7"), Browser().visit(old, "rice")
    with switched_off(new, "database"):
        assert user.page(new) == {"user": None, "cart": []}
        assert NEW not in user.cookies
        assert visitor.page(new) == {"user": None, "cart": ["rice"]}
    assert user.page(new) == {"user": "7", "cart": ["tea"]}


def test_one_that_was_taken_over_and_cannot_be_verified_waits(
    make_shop: MakeShop, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first request was lost, and so was Redis; the database fails at the second question."""
    # A near cache hears of the loss a moment after the client that caused it.
    new = make_shop("flask-cookie", NEAR_CACHE=())
    browser = Browser(session=signed({"_user_id": "7"}))
    Browser(**browser.cookies).page(new)

    def fails(*arguments: Any, **options: Any) -> None:
        raise StoreError("database", ErrorClass.UNREACHABLE, "Gone")

    # The monitor gives an emptied Redis what the database says of its sessions.
    with monkeypatch.context() as patch, parts(new).monitor.paused():
        parts(new).backend.memory.clear()
        with primary.client() as client:
            client.flushall()
        patch.setattr(parts(new).backend.database, "load", fails)
        assert browser.page(new)["user"] is None
        assert NEW not in browser.cookies
    wait_until(lambda: parts(new).health.level == 0 and browser.page(new)["user"] == "7", "the database is used again")


@one_kind
def test_a_form_that_was_shown_meanwhile_is_good(old: Flask, new: Flask) -> None:
    """The form is accepted, as are all forms of the old session."""
    browser = Browser().visit(old, user="7")
    with switched_off(new, "database"):
        browser.page(new)
    assert browser.post(new, "/add/tea") == 200
    assert browser.page(new) == {"user": "7", "cart": ["tea"]}


@one_kind
def test_what_cannot_be_kept_meanwhile_is_said(old: Flask, new: Flask) -> None:
    """It lasts for the request, and `flush()` says so."""

    @new.post("/pay")
    def pay() -> Any:
        session["order"] = "tea"
        return {"kept": session.flush(), "unverified": session.unverified, "places": dict(session.kept)}

    browser = Browser().visit(old, user="7")
    with switched_off(new, "database"), said(new, events.value_rejected) as rejected:
        response = browser.open(new, "POST", "/pay")
    assert response.json == {"kept": "nowhere", "unverified": True, "places": {"data": "nowhere"}}
    assert [(event.category, event.key) for event in rejected] == [("data", "order")]
    assert browser.page(new)["user"] == "7"


@one_kind
def test_a_sign_out_meanwhile_holds(old: Flask, new: Flask) -> None:
    """The old session goes with its cookie."""
    browser = Browser().visit(old, user="7")
    with switched_off(new, "database"):
        browser.page(new)
        assert browser.post(new, "/logout") == 200
        assert OLD not in browser.cookies
    assert browser.page(new)["user"] is browser.page(old)["user"] is None


def test_without_redis_the_database_takes_users_over(make_shop: MakeShop, primary: Valkey) -> None:
    """Without Redis the database takes users over, and the journal the cart."""
    old, new = old_app("flask-cookie", primary.url), make_shop("flask-cookie")
    browser = Browser().visit(old, "tea", user="7")
    with switched_off(new, "primary"):
        assert browser.page(new) == {"user": "7", "cart": ["tea"]}
        assert browser.page(new) == {"user": "7", "cart": ["tea"]}


@pytest.mark.parametrize("fault", [REFUSE, HANG])
def test_without_the_old_store_all_wait(
    make_shop: MakeShop, primary: Valkey, proxy: FaultProxy, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is taken for a stranger for good, nor signed in without the cart. It is not asked again at once."""
    clock = Clock()
    monkeypatch.setattr(adopter, "time", SimpleNamespace(monotonic=clock))
    old = old_app("flask-session", primary.url)
    client = settings_for("flask-session", proxy.instead_of(primary.url))["SESSION_REDIS"]
    new = make_shop("flask-session", SESSION_REDIS=client, REDIS_TIMEOUT=0.2)
    user, visitor = Browser().visit(old, "tea"), Browser().visit(old, "rice")
    assert user.post(old, "/remember/7") == 200 and "remember_token" in user.cookies
    proxy.impose(fault)
    for browser in (user, visitor, user):
        assert browser.page(new) == {"user": None, "cart": []}
        assert NEW not in browser.cookies
    assert sum(proxy.hits.values()) == 1
    assert parts(new).health.level == 0
    proxy.heal()
    clock.now += 60
    assert user.page(new) == {"user": "7", "cart": ["tea"]}
    assert visitor.page(new) == {"user": None, "cart": ["rice"]}


# -- what is not taken over --------------------------------------------------------------------------------------------


def signed(values: dict[str, Any], *, key: str = KEY, salt: str = "cookie-session") -> str:
    """A cookie as Flask makes them."""
    app = Flask("signer")
    app.secret_key = key
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    assert isinstance(serializer, URLSafeTimedSerializer)
    return str(serializer.dumps(values, salt=salt))


def test_a_cookie_of_another_key_or_purpose_is_not_taken_over(make_shop: MakeShop) -> None:
    """A cookie that was changed, or is nothing at all, is refused as well; one of a former key is taken over."""
    new = make_shop("flask-cookie", SECRET_KEY_FALLBACKS=["a former key"])
    user = {"_user_id": "7"}
    good = signed(user)
    content, _, mac = good.rpartition(".")  # two bits of its last character are not used
    for cookie in (
        signed(user, key="another key"),
        signed(user, salt="another purpose"),
        f"{content}.{'A' if mac[0] != 'A' else 'B'}{mac[1:]}",
        good.replace(good[0], "f", 1),
        "eyJfdXNlcl9pZCI6IjcifQ",
        "x" * 9000,
        '""',
    ):
        assert Browser(session=cookie).page(new)["user"] is None, cookie
    assert rows(new) == []
    assert Browser(session=signed(user, key="a former key")).page(new)["user"] == "7"


def test_an_old_cookie_past_its_time_is_not_taken_over(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """PERMANENT_SESSION_LIFETIME, as with Flask."""
    new = make_shop("flask-cookie", PERMANENT_SESSION_LIFETIME=60)
    now = time.time()
    for age, user in ((70, None), (20, "7")):
        with monkeypatch.context() as patch:
            patch.setattr(TimestampSigner, "get_timestamp", lambda self, age=age: int(now - age))
            cookie = signed({"_user_id": "7"})
        assert Browser(session=cookie).page(new)["user"] == user


def test_a_forged_id_of_flask_session_finds_nothing(make_shop: MakeShop, primary: Valkey) -> None:
    """A forged id finds neither a signed-in session of ours nor any other key of that Redis."""
    new = make_shop("flask-session")
    mine = Browser()
    mine.page(new)
    mine.post(new, "/login/7")
    record = msgspec.msgpack.encode({"_user_id": "8"})
    with primary.client() as client:
        client.set("session:secrets:of:somebody:else", record)
        client.set("session:short", record)
        client.hset("session:a-hash-of-another-program", "x", "y")
    for cookie in (
        f"auth:{{{digest(mine.cookies[NEW])}}}",
        "secrets:of:somebody:else",
        "short",
        "a-hash-of-another-program",
        "../" * 8,
        "x" * 43,
        mine.cookies[NEW],
    ):
        browser = Browser(session=cookie)
        assert browser.page(new)["user"] is None, cookie
        assert NEW in browser.cookies, "an ordinary visitor"


def pickled(primary: Valkey, values: Any, name: str = "a-record-of-an-older-release") -> Browser:
    """A browser with a record as Flask-Session wrote them before 0.7."""
    with primary.client() as client:
        client.set(f"session:{name}", pickle.dumps(values))
    return Browser(session=name)


def test_pickle_is_read_only_if_it_is_asked_for(make_shop: MakeShop, primary: Valkey, caplog: Any) -> None:
    """The log names what would read it. Flask-Session 0.8 reads the same record."""
    values = {"_user_id": "7", "cart": ["tea"], "_permanent": True}
    browser = pickled(primary, values)
    assert browser.page(old_app("flask-session", primary.url))["user"] == "7"
    pickled(primary, values)  # which it has written anew
    assert Browser(**browser.cookies).page(make_shop("flask-session")) == {"user": None, "cart": []}
    assert "'flask-session-pickle' in LANGPONT_SESSION_ADOPT" in caplog.text
    assert Browser(**browser.cookies).page(make_shop("flask-session-pickle")) == {"user": "7", "cart": ["tea"]}


def test_what_cannot_be_stored_is_said(make_shop: MakeShop) -> None:
    """Key by key; all else comes along."""
    new = make_shop("flask-cookie", MAX_CATEGORY_BYTES=1000)
    cookie = signed({"_user_id": "7", "cart": ["tea"], "@odd": 1, "large": "x" * 2000})
    with said(new, events.value_rejected) as rejected:
        assert Browser(session=cookie).page(new) == {"user": "7", "cart": ["tea"]}
    assert sorted(event.key for event in rejected) == ["@odd", "large"]


def test_a_user_who_cannot_be_stored_leaves_no_rights_behind(make_shop: MakeShop) -> None:
    """Nothing of auth is taken over with a user who cannot be stored."""
    new = make_shop("flask-cookie")
    cookie = signed({"user_role": "admin", "user_id": "x" * 300, "cart": ["tea"]})
    assert Browser(session=cookie).page(new) == {"user": None, "cart": ["tea"]}
    assert rows(new) == []


# -- what it costs -----------------------------------------------------------------------------------------------------


@both_kinds
def test_a_request_with_a_session_of_ours_asks_for_no_old_one(
    old: Flask, new: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that does not touch the session asks for no old session either."""
    browser = Browser().visit(old, user="7")
    other = Browser(**browser.cookies)
    browser.page(new)

    def asked(*arguments: Any) -> None:
        raise AssertionError("an old session was looked for")

    for source in (FlaskCookie, FlaskSessionRecord):
        monkeypatch.setattr(source, "read", asked)
    assert browser.page(new)["user"] == "7"
    assert other.open(new, "GET", "/untouched").status_code == 200
    assert OLD in other.cookies and NEW not in other.cookies


@both_kinds
def test_with_cookies_as_flask_sends_them(make_shop: MakeShop, primary: Valkey, kind: str) -> None:
    """A session that was emptied takes the old cookie with it, so that the old data does not come back."""
    old, new = old_app(kind, primary.url), make_shop(kind, COOKIE_RESEND="flask")
    new.post("/clear")(lambda: session.clear() or "cleared")  # type: ignore[func-returns-value]
    for user in ("7", None):
        browser = Browser().visit(old, "tea", user=user)
        for worker in (new, old, new):
            assert browser.page(worker) == {"user": user, "cart": ["tea"]}
        assert browser.post(new, "/clear") == 200
        assert OLD not in browser.cookies
        assert browser.page(new) == {"user": None, "cart": []}


def test_it_is_off_by_default(make_shop: MakeShop) -> None:
    """Old cookies are ignored by default, as any other cookie is."""
    new = make_shop("flask-cookie", ADOPT=[])
    assert parts(new).adoption is None
    browser = Browser(session=signed({"_user_id": "7"}))
    assert browser.page(new)["user"] is None
    browser.post(new, "/login/8")
    browser.page(new)
    assert browser.post(new, "/logout") == 200 and OLD in browser.cookies


def test_the_old_cookie_of_a_domain_is_deleted_there(make_shop: MakeShop) -> None:
    """A browser ignores a deletion that names another domain."""
    new = make_shop("flask-cookie", ADOPT_COOKIE_DOMAIN="shop.example")
    response = Browser(session=signed({"_user_id": "7"})).open(new, "POST", "/logout")
    assert response.status_code == 400, "without a token"
    browser = Browser(session=signed({"_user_id": "7"}))
    browser.page(new)
    headers = browser.open(new, "POST", "/logout").headers.getlist("Set-Cookie")
    [deletion] = [header for header in headers if header.startswith(f"{OLD}=;")]
    assert "Domain=shop.example" in deletion and "Max-Age=0" in deletion
