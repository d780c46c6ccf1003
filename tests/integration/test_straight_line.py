"""The straight line gives what the long way gives, and requests nearly always take it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.stores.redis import near
from flask_langpont_session.stores.redis.wire import HEARS
from tests.faults.proxy import RESET, SWALLOW_REPLY, Fault, FaultProxy

from .behind import wait_until_home
from .conftest import ENCRYPTED, MakeApp, parts
from .counting import wait_for_monitors
from .forms_site import with_login_manager
from .straight import Share, Site, Step, records

pytestmark = pytest.mark.skipif(not HEARS, reason="hiredis is too old to tell messages from replies")

MakeSite = Callable[..., Site]


@pytest.fixture(autouse=True)
def a_pause_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may let more than a second pass between two requests."""
    monkeypatch.setattr(near, "SILENCE", 3600.0)


@pytest.fixture
def make_site(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, primary: Valkey) -> MakeSite:
    """Return a factory of applications on a host of their own each: number 0 has the straight line, others have not."""

    def make(number: int = 0, *, login: bool = False, **settings: Any) -> Site:
        folder = tmp_path / str(number)
        folder.mkdir(exist_ok=True)
        own = {
            "REDIS_URL": f"{primary.url.rpartition('/')[0]}/{number}",
            "DATABASE_URL": f"sqlite:///{folder / 'sessions.sqlite3'}",
            "JOURNAL": str(folder / "journal.sqlite3"),
        }
        app = make_app(**{**own, **settings})
        site = Site(with_login_manager(app) if login else app)
        if number:
            site.leave_line(monkeypatch)
        else:
            site.watch(monkeypatch)
        site.note_use(monkeypatch)
        return site

    return make


# -- the same requests by both ways ------------------------------------------------------------------------------------


class Profile(NamedTuple):
    """Applications to which requests are drawn.

    :param settings: of both.
    :param steps: that their views take beside those of all.
    """

    name: str
    settings: Mapping[str, Any] = {}
    steps: Sequence[str] = ()
    login: bool = False


ALL = (
    "get", "get", "get", "item", "in", "pop", "set default", "assign", "assign", "assign", "update", "delete", "length",
    "all", "keys", "truth", "increment", "append", "nest", "is permanent", "level", "modified", "is modified", "token",
)  # fmt: skip

PROFILES = (
    Profile("plain", steps=("join", "copy", "category", "no text", "facts", "explain", "available")),
    Profile("ids", steps=("clear", "regenerate", "sign in", "sign out", "confirm", "authenticated", "fresh", "facts")),
    Profile("flushes", steps=("flush", "flush", "fresh", "flash", "flashes")),
    Profile(
        "permanent",
        {"PERMANENT_SESSION_LIFETIME": timedelta(days=2)},
        ("permanent", "is permanent", "later", "later", "flash", "flashes"),
    ),
    Profile(
        "as Flask",
        {"COOKIE_RESEND": "flask", "PERMANENT_SESSION_LIFETIME": timedelta(days=2)},
        ("permanent", "clear", "later"),
    ),
    Profile("encrypted", ENCRYPTED, ("category", "flash", "flashes")),
    Profile("measured", {"METRICS": ["prometheus"]}, ("sign in", "sign out")),
    Profile("Flask-Login", steps=("login", "logout", "current user", "current user", "transient", "flash"), login=True),
)

KEYS = ("lang", "theme", "usage_count", "input_text", "daily_limit", "next", "cart", "notes", "unknown")
VALUES = ("en", "", 0, 7, True, None, 1.5, [1, "two"], {"a": {"b": 1}}, "long " * 100)
TOLD: Mapping[str, Callable[[random.Random], Any]] = {
    "get": lambda drawn: drawn.choice(KEYS),
    "assign": lambda drawn: [drawn.choice(KEYS), drawn.choice(VALUES)],
    "update": lambda drawn: {drawn.choice(KEYS): drawn.choice(VALUES) for _ in range(3)},
    "join": lambda drawn: {drawn.choice(KEYS): drawn.choice(VALUES)},
    "increment": lambda drawn: drawn.choice([1, 2, -1]),
    "append": lambda drawn: "cart",
    "nest": lambda drawn: "notes",
    "flash": lambda drawn: f"message {drawn.randrange(9)}",
    "permanent": lambda drawn: drawn.random() < 0.5,
    "available": lambda drawn: drawn.choice(["translation_state", "other", "ui_settings"]),
    "fresh": lambda drawn: drawn.choice(["auth", "ui", "data"]),
    "category": lambda drawn: drawn.choice(["ui", "translation", "data"]),
    "no text": lambda drawn: drawn.randrange(3),
    "sign in": lambda drawn: str(drawn.randrange(3)),
    "login": lambda drawn: str(drawn.randrange(3)),
}
"""Name of a step → what it is told; as "get" otherwise."""


def drawn_requests(profile: Profile, number: int) -> Iterator[tuple[str, list[Step], int | None]]:
    """Draw requests, the same in every run: whose they are, what their views do, and of a stream, when it begins."""
    drawn = random.Random(profile.name)
    names = ALL + tuple(profile.steps) * 2
    for _ in range(number):
        chosen = drawn.choices(names, k=drawn.choice([1, 1, 2, 3, 4]))
        steps = [(name, TOLD.get(name, TOLD["get"])(drawn)) for name in chosen]
        stream = drawn.randrange(len(steps)) if drawn.random() < 0.1 else None
        yield drawn.choice(["user", "user", "visitor"]), steps, stream


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_requests_get_the_same_by_both_ways(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, profile: Profile
) -> None:
    sites = [make_site(number, login=profile.login, **profile.settings) for number in range(2)]
    ahead, wall = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: wall() + ahead[0])
    for site in sites:
        site.ask("user", [("login" if profile.login else "sign in", "7"), ("assign", ["lang", "en"])])
    sites[0].wait_until_near("user")
    wait_for_monitors()
    for site in sites:
        site.ask("user", [("get", "lang")])
        site.begin_count()
    for number, (name, steps, stream) in enumerate(drawn_requests(profile, 100)):
        if any(step == "later" for step, _ in steps):
            ahead[0] += timedelta(hours=5).total_seconds()
        steps = [step for step in steps if step[0] != "later"]
        straight, long_way = (site.ask(name, steps, stream) for site in sites)
        assert straight == long_way, f"request {number} of the {name}: {steps}, {stream}"
    straight_records, long_ways = map(records, sites)
    assert [record[:2] for record in straight_records] == [record[:2] for record in long_ways]
    assert [record.life for record in straight_records] == pytest.approx([record.life for record in long_ways], abs=30)
    assert sites[0].counts() == sites[1].counts()
    assert sites[0].reads.taken > 20 and sites[0].changes.taken, "the straight line was there"


# -- how often it is taken ---------------------------------------------------------------------------------------------


class Plain(NamedTuple):
    """A request to a session that is near.

    :param reads: times that it asks what the straight line knows, at least; `changes`: times that this stores a change.
    """

    name: str
    steps: Sequence[Step]
    reads: int = 1
    changes: int = 0


PLAIN = (
    Plain("read one", [("get", "lang")]),
    Plain("read all", [("all", None)]),
    Plain("read many", [("get", "lang"), ("get", "cart"), ("in", "theme"), ("length", None)]),
    Plain("change one", [("assign", ["lang", "fr"])], reads=0, changes=1),
    Plain("read and change", [("get", "lang"), ("assign", ["lang", "fr"])], changes=1),
    Plain("change two categories", [("update", {"lang": "fr", "cart": [1]})], reads=0, changes=1),
    Plain("change a list in place", [("append", "cart")], changes=1),
    Plain("change a dict in place", [("nest", "notes")], changes=1),
    Plain("increment", [("increment", 1)], changes=1),
    Plain("delete", [("pop", "theme")], changes=1),
    Plain("flash", [("flash", "text")], changes=1),
    Plain("token", [("token", None), ("get", "lang")]),
    Plain("permanent and level", [("is permanent", None), ("level", None), ("get", "lang")]),
    Plain("what lasts for a request", [("transient", None), ("get", "lang")]),
)


@pytest.mark.parametrize("change", [("assign", ["lang", "fr"]), ("append", "cart")], ids=lambda step: step[0])
def test_a_session_need_not_be_near_to_be_changed(make_site: MakeSite, change: Step) -> None:
    """A worker that has read nothing of it, or has read it from Redis just now, stores a plain change in one exchange.
    Nothing is near by that: it has not read the rest."""
    site, other = make_site(), make_site()
    for each in (site, other):
        each.ask("one", [("sign in", "7"), ("update", {"lang": "en", "cart": []})])
        each.wait_until_near("one")
    wait_for_monitors()
    with parts(other.app).monitor.paused():
        other.wait_until_near("one")
        other.take_cookie("another", site)
        other.begin_count()
        other.ask("another", [change])
        assert other.changes == Share(1, 1)
        for _ in range(2):
            assert other.value("another", "lang") == ("fr" if change[0] == "assign" else "en")
        assert other.reads.taken, "the second time"
    site.wait_until_near("one")
    assert other.value("another", "lang") == site.value("one", "lang")


NOT_PLAIN: Mapping[str, Sequence[Step]] = {
    "flush": [("assign", ["lang", "en"]), ("flush", None)],
    "permanent changed": [("assign", ["lang", "de"]), ("permanent", True)],
    "a key of auth": [("update", {"lang": "fr", "daily_limit": 5})],
    "a new id": [("assign", ["lang", "jp"]), ("regenerate", None)],
}

BEGINNINGS: Mapping[str, tuple[list[Step], str]] = {
    "user": ([("sign in", "7")], "due"),
    "Flask-Login": ([("login", "7")], "flask"),
    "visitor": ([], "flask"),
    "permanent visitor": ([("permanent", True)], "due"),
}
"""How a session begins, and COOKIE_RESEND."""


@pytest.mark.parametrize("who", BEGINNINGS)
def test_what_is_plain_takes_the_straight_line_each_time(make_site: MakeSite, who: str) -> None:
    """And what is not, never."""
    begin, cookies = BEGINNINGS[who]
    site = make_site(login=who == "Flask-Login", COOKIE_RESEND=cookies, METRICS=["prometheus"])
    site.ask("one", [*begin, ("update", {"lang": "en", "cart": [], "theme": "dark"})])
    site.wait_until_near("one")
    wait_for_monitors()
    with parts(site.app).monitor.paused():  # which looks at the connection, too
        for plain in PLAIN:
            site.wait_until_near("one")
            site.begin_count()
            site.ask("one", plain.steps)
            assert site.reads.taken == site.reads.asked >= plain.reads, plain.name
            assert site.changes.taken == plain.changes, plain.name
        for name, steps in NOT_PLAIN.items():
            site.wait_until_near("one")
            site.begin_count()
            site.ask("one", steps)
            assert site.changes.taken == 0, name


# -- while something happens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_scope", [False, True])
@pytest.mark.parametrize("fault", [SWALLOW_REPLY, RESET, None], ids=lambda fault: fault.name if fault else "frozen")
def test_a_change_of_which_nothing_is_known_is_made_once(
    make_site: MakeSite, primary: Valkey, proxy: FaultProxy, fault: Fault | None, has_scope: bool
) -> None:
    """It is not sent a second time, but waits in the journal under its id, by which Redis knows what it has. All of it
    waits: the request was at level 0.

    :param has_scope: whether the request has looked at the stores before.
    """
    site = make_site(REDIS_URL=proxy.url("redis"), REDIS_TIMEOUT=0.3)
    failing = ExitStack()

    def fail(_: Any) -> None:
        if fault is None:
            primary.freeze()
            failing.callback(primary.thaw)
        else:
            failing.enter_context(proxy.failing(fault))

    site.steps["fail"] = fail
    change: list[Step] = [("increment", 1), ("assign", ["theme", "dark"]), ("append", "cart")]
    site.ask("one", [("sign in", "7"), ("update", {"usage_count": 1, "theme": "light", "cart": []})])
    site.wait_until_near("one")
    wait_for_monitors()
    look: list[Step] = [("level", None)] if has_scope else []
    with failing, parts(site.app).monitor.paused():
        site.wait_until_near("one")
        site.begin_count()
        answer = site.ask("one", [("get", "lang"), *look, ("fail", None), *change])
        assert answer.status == 200 and site.reads.taken == 1 and site.changes == Share(1, 1)
        assert site.saves() == 1, "it was sent once"
    wait_until_home(site.app)
    site.begin_count()
    answer = site.ask("one", [("get", "usage_count"), ("get", "theme"), ("get", "cart")])
    assert json.loads(answer.body) == [2, "dark", [0]]


def flushed(primary: Valkey) -> None:
    with primary.client() as client:
        client.flushall()


def cut(primary: Valkey) -> None:
    """The server closes the connections over which it says what has changed."""
    with primary.client() as client:
        tracked = [found["id"] for found in client.client_list() if "t" in found["flags"]]
        assert tracked
        for number in tracked:
            client.client_kill_filter(_id=number)


@pytest.mark.parametrize("happens", [flushed, cut], ids=lambda happens: happens.__name__)
def test_what_redis_loses_is_there_again(
    make_site: MakeSite, primary: Valkey, happens: Callable[[Valkey], None]
) -> None:
    """Data, or a connection. The straight line is left, and found again."""
    site = make_site()
    site.ask("one", [("sign in", "7"), ("update", {"lang": "en", "usage_count": 1})])
    site.wait_until_near("one")
    wait_for_monitors()
    happens(primary)
    site.ask("one", [("increment", 1)])
    site.wait_until_near("one")
    answer = site.ask("one", [("get", "lang"), ("get", "usage_count"), ("get", "_user_id")])
    assert json.loads(answer.body) == ["en", 2, "7"]


@pytest.mark.parametrize("where", ["another worker", "another host"])
def test_a_change_elsewhere_is_seen(make_site: MakeSite, tmp_path: Path, where: str) -> None:
    """A change of a worker of this host is seen at once; that of another host as soon as the server says so."""
    site = make_site()
    there = make_site(JOURNAL=str(tmp_path / "there.sqlite3")) if where == "another host" else make_site()
    site.ask("one", [("sign in", "7"), ("assign", ["lang", "0"])])
    there.take_cookie("one", site)
    for number in map(str, range(1, 11)):
        for one in (site, there):
            one.wait_until_near("one")
        there.ask("one", [("assign", ["lang", number])])
        if where == "another host":
            wait_until(lambda: site.value("one", "lang") == number, "the message")  # noqa: B023
        assert site.value("one", "lang") == there.value("one", "lang") == number
    assert there.changes.taken >= 1


def test_threads_workers_and_hosts_add_up(make_site: MakeSite, tmp_path: Path) -> None:
    sites = [make_site(), make_site(), make_site(JOURNAL=str(tmp_path / "there.sqlite3"))]
    sites[0].ask("one", [("sign in", "7"), ("assign", ["usage_count", 0])])
    for site in sites:
        site.take_cookie("one", sites[0])
        site.take_cookie("two", sites[0])
        site.wait_until_near("one")

    def work(site: Site, name: str) -> None:
        for _ in range(25):
            answer = site.ask(name, [("get", "usage_count"), ("increment", 1)])
            seen, added = json.loads(answer.body)
            assert answer.status == 200 and added == seen + 1

    with ThreadPoolExecutor(6) as threads:
        done = [threads.submit(work, site, name) for site in sites for name in ("one", "two")]
        for each in done:
            each.result()
    for site in sites:
        wait_until(lambda: site.value("one", "usage_count") == 150, "all that was added")  # noqa: B023
