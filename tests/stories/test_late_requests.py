"""Requests that began before a logout, or before their session got another id, and end after it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from devservers.processes import wait_until

from .site import Held, Site
from .visitor import COOKIE, Visitor
from .watch import Watch

EACH_ALONE = pytest.mark.parametrize("deeds", [["theme", "text", "count"], ["role"], ["regenerate"]], ids="+".join)
"""What the late requests want to do (`tests/stories/application.py`). A late change of a right finds the session dead
and cleans up after the others, so it comes alone."""


@EACH_ALONE
def test_I7_requests_that_end_after_the_logout_revive_nothing(site: Site, deeds: list[str]) -> None:
    """They change nothing in SQL, write nothing but the anonymous shadow in Redis, and send no cookie.

    Their workers have not looked at the session since, so what they know of it is that it lives.
    """
    visitor = site.visitor()
    digest = visitor.digest
    with Watch(visitor, site.preloaded.doors()) as watch, ExitStack() as held:
        late = hold_on_each_worker(site, visitor, deeds, held)
        watch.sees(user="hanako")
        assert visitor.at(site.preloaded.url).send("/sign-out").status == 200
        row = site.row(digest)
        assert row["live"] is False
        watch.sees(user=None)
        assert [request.answer().set_cookies for request in late] == [() for _ in deeds]
        watch.follow(site.lazy.doors())
        watch.goes_on()
    assert watch.courses("user", on=site.preloaded.doors()) == [["hanako", None]]
    assert watch.courses("user", on=site.lazy.doors()) == [[None]]
    assert watch.set_cookies() == 0
    assert live_sessions(site) == []
    assert_dead_and_unchanged(site, digest, row)


def at_level_0(visitor: Visitor) -> Any:
    """Return the session as its worker shows it at level 0. While Redis is late on a busy machine, the worker has no
    copy of what others wrote."""
    shown: list[Any] = []

    def is_at_level_0() -> bool:
        shown[:] = [visitor.me()]
        return bool(shown[0]["level"] == 0)

    wait_until(is_at_level_0, "an answer at level 0", pause=0.02)
    return shown[0]


@EACH_ALONE
def test_I15_requests_that_end_after_their_session_got_a_new_id_do_not_touch_it(site: Site, deeds: list[str]) -> None:
    """The new id has all data from before, and the user; the old one is as dead as after a logout."""
    visitor = site.visitor()
    assert visitor.send("/text", text="before").status == 200
    old, old_cookies = visitor.digest, visitor.twin()
    with Watch(visitor, site.preloaded.doors()) as watch, ExitStack() as held:
        late = hold_on_each_worker(site, visitor, deeds, held)
        watch.sees(user="hanako", text="before")
        answer = visitor.at(site.preloaded.url).send("/regenerate")
        assert (answer.status, len(answer.set_cookies)) == (200, 1)
        assert visitor.cookies[COOKIE] != old_cookies.cookies[COOKIE]
        row = site.row(old)
        watch.sees(user=None)
        assert [request.answer().set_cookies for request in late] == [() for _ in deeds]
        for url in site.doors().values():
            shown = at_level_0(visitor.at(url))
            assert (shown["user"], shown["role"], shown["text"]) == ("hanako", "user", "before"), shown
            assert shown["theme"] is None
        watch.follow(site.lazy.doors())
        watch.goes_on()
    assert watch.courses("user", on=site.preloaded.doors()) == [["hanako", None]]
    assert watch.courses("user", on=site.lazy.doors()) == [[None]]
    assert live_sessions(site) == [visitor.digest]
    assert site.row(visitor.digest)["version"] == 1
    assert_dead_and_unchanged(site, old, row)


def test_I15_a_late_answer_does_not_touch_the_new_id_of_an_anonymous_session(site: Site) -> None:
    """An anonymous session has no user to revive; the newer cookie and its data stay all the same."""
    visitor = Visitor(site.lazy.url)
    assert len(visitor.send("/text", text="before").set_cookies) == 1
    before = visitor.digest
    [door, late_door, *_] = site.lazy.doors().values()
    with site.held(visitor.at(late_door), "text") as late:
        assert len(visitor.at(door).send("/regenerate").set_cookies) == 1
        assert late.answer().set_cookies == ()
    assert visitor.digest != before
    assert {visitor.at(url).me()["text"] for url in site.doors().values()} == {"before"}


def hold_on_each_worker(site: Site, visitor: Visitor, deeds: list[str], stack: ExitStack) -> list[Held]:
    """Requests with the session's present cookie, each held on another worker."""
    doors = site.lazy.doors().values()
    return [stack.enter_context(site.held(visitor.at(door), deed)) for door, deed in zip(doors, deeds, strict=False)]


def live_sessions(site: Site) -> list[str]:
    """Digests of the sessions that the database believes in."""
    return [row["digest"] for row in site.query("SELECT digest FROM langpont_sessions WHERE live")]


def assert_dead_and_unchanged(site: Site, digest: str, row: dict[str, Any]) -> None:
    """Assert that the row is as it was, and that Redis has a tombstone and at most the shadow, which has no auth."""
    assert row["live"] is False
    assert site.row(digest) == row
    records = site.records(digest)
    tombstone = records.pop(f"session:auth:{{{digest}}}")
    assert tombstone["@live"] == "0" and all(field.startswith("@") for field in tombstone)
    assert all(key.endswith(":anon") and not key.startswith("session:auth:") for key in records), records
