"""A slow request in a real browser, overtaken by a sign-in or sign-out: its answer comes last and changes nothing."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from playwright.sync_api import expect

from devservers.processes import wait_until
from tests.browser.visitor import Visitor
from tests.support.gates import Gate


class SlowRequest:
    """A request from a tab of its own, sent with the cookie that the browser has now, and held by the server.

    It reads the session, takes its time, and then writes what it has read, and one more.
    """

    def __init__(self, visitor: Visitor, gates: Path) -> None:
        self._tab = visitor.another_tab()
        self._cookie = cookie_of(visitor)
        self._gate = Gate(gates, uuid4().hex)
        with self._tab.page.expect_request("**/held/*") as sent:
            self._tab.page.evaluate(
                "gate => { fetch(`/held/${gate}`).then(answer => { window.slow = answer.status; }); }", self._gate.name
            )
        self._request = sent.value
        wait_until(lambda: self._gate.is_reached, "a request that has read its session")

    def finish(self) -> None:
        """Let it go on, until its answer has arrived."""
        assert self._tab.page.evaluate("window.slow") is None, "it was not held"
        self._gate.open()
        self._tab.page.wait_for_function("window.slow === 200")
        # Not before: Playwright has the headers that were really sent only when there is an answer.
        assert self._cookie in self._request.all_headers()["cookie"]


def cookie_of(visitor: Visitor) -> str:
    """The session cookie that the browser has."""
    [cookie] = [cookie for cookie in visitor.page.context.cookies() if cookie.get("name") == "langpont"]
    return str(cookie.get("value"))


def written(visitor: Visitor, gates: Path) -> int:
    """Return how often held requests have written to the session that the browser has, as an open request counts it."""
    gate = Gate(gates, uuid4().hex)
    gate.open()
    return int(visitor.get(f"/held/{gate.name}")["bookmarked_count"]) - 1


def test_a_sign_in_stands_when_an_older_request_is_answered(visitor: Visitor, gates: Path) -> None:
    """I15: the browser keeps the cookie of the sign-in, every worker knows the user, the late write is not theirs."""
    slow = SlowRequest(visitor, gates)
    visitor.sign_in()
    expect(visitor.page.locator("#user")).to_be_visible()
    cookie = cookie_of(visitor)
    slow.finish()
    assert cookie_of(visitor) == cookie
    assert visitor.agreed(0)["user"] == "hanako"
    assert written(visitor, gates) == 0
    visitor.page.reload()
    expect(visitor.page.locator("#user")).to_be_visible()


def test_a_sign_out_stands_when_an_older_request_is_answered(visitor: Visitor, gates: Path) -> None:
    """I5, I7: the browser stays a visitor's, and the session that ended is dead for a browser that kept its cookie."""
    visitor.sign_in()
    expect(visitor.page.locator("#user")).to_be_visible()
    ended = cookie_of(visitor)
    slow = SlowRequest(visitor, gates)
    visitor.page.click("#logout")
    expect(visitor.page.locator("#sign-in")).to_be_visible()
    cookie = cookie_of(visitor)
    slow.finish()
    assert cookie_of(visitor) == cookie != ended
    assert visitor.agreed(0)["user"] is None
    assert written(visitor, gates) == 0
    visitor.page.reload()
    expect(visitor.page.locator("#sign-in")).to_be_visible()
    visitor.page.context.clear_cookies()
    visitor.page.context.add_cookies([{"name": "langpont", "value": ended, "url": visitor.url}])
    assert visitor.agreed(0)["user"] is None
    visitor.open()
    expect(visitor.page.locator("#sign-in")).to_be_visible()


def test_the_next_user_gets_nothing_of_an_older_request(visitor: Visitor, gates: Path) -> None:
    """I15, C1: a user signs out and another signs in while a request of the first is under way."""
    visitor.sign_in("hanako")
    expect(visitor.page.locator("#user")).to_be_visible()
    slow = SlowRequest(visitor, gates)
    visitor.page.click("#logout")
    visitor.sign_in("admin")
    expect(visitor.page.locator("#user")).to_be_visible()
    cookie = cookie_of(visitor)
    slow.finish()
    assert cookie_of(visitor) == cookie
    assert visitor.agreed(0)["user"] == "admin"
    assert written(visitor, gates) == 0
