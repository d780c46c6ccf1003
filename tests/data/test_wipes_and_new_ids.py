"""D10, D11, D17, I20: a wipe, a new id and a limit hold in an outage as they do at level 0."""

from __future__ import annotations

import pytest

from .conftest import HostMaker
from .support import COUNTED, FIVE, cut, look, reported, send, session_of

NOTHING: dict[str, object] = {"list": [], "text": None, "count": 0, "theme": None, "blind": None, "user": None}


@pytest.mark.parametrize("reached", ["no worker", "the sibling"])
def test_d10_what_a_visitor_cleared_in_an_outage_does_not_come_back(host: HostMaker, reached: str) -> None:
    """The data stays away, on the sibling that may reach Redis and anywhere afterwards; what is written later stays."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of("visitor", here)
        look(browser, sibling, 0)
        with cut(*(a.workers if reached == "no worker" else [here])):
            send(browser, here, "/clear", 2)
            for worker in a.workers:
                assert look(browser, worker)["list"] == []
            send(browser, here, "/append", 2, entry="7")
        for worker in a.workers:
            shown = look(browser, worker, 0)
            assert {name: shown[name] for name in NOTHING} == NOTHING | {"list": [7]}


@pytest.mark.parametrize("kind", ["visitor", "user"])
def test_d10_an_id_that_was_replaced_in_an_outage_shows_nothing_afterwards(host: HostMaker, kind: str) -> None:
    """All of it is under the new one."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        look(browser, sibling, 0)
        old = browser.twin()
        with cut(*a.workers):
            send(browser, here, "/regenerate", 2)
            assert browser.cookie != old.cookie
            send(browser, sibling, "/append", 2, entry="6")
        for worker in a.workers:
            shown = look(old, worker, 0)
            assert {name: shown[name] for name in NOTHING} == NOTHING
            shown = look(browser, worker, 0)
            assert (shown["list"], shown["count"]) == ([*FIVE, 6], COUNTED)


def test_d10_the_limit_of_a_category_is_kept_by_the_merge(host: HostMaker) -> None:
    """Writes beyond the limit are counted as lost, and the category takes writes afterwards."""
    limit, size = 2000, 1400
    with host("a", workers=1, MAX_CATEGORY_BYTES=limit) as a, host("b", workers=1, MAX_CATEGORY_BYTES=limit) as b:
        [lost], [elsewhere] = a.workers, b.workers
        browser = b.browser()
        send(browser, elsewhere, "/set", 0, input_text="x" * size)
        with cut(lost):
            for key in ("partner_message", "context_info"):
                send(browser, lost, "/set", 2, **{key: "y" * (size // 2)})
        assert look(browser, elsewhere, 0)["text"] == "x" * size
        assert reported(lost) >= 1
        send(browser, elsewhere, "/append", 0, entry="1")
        assert look(browser, elsewhere, 0)["list"] == [1]


@pytest.mark.parametrize("change", ["sign-in", "regenerate"])
def test_d11_what_the_table_hides_in_an_outage_is_carried_to_a_new_id(host: HostMaker, change: str) -> None:
    """Language and theme were chosen before; at level 2 they are not shown, and at level 0 they are there again."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of("visitor" if change == "sign-in" else "user", here)
        look(browser, sibling, 0)
        with cut(*a.workers):
            send(browser, here, f"/{change}", 2, **({"user": "7"} if change == "sign-in" else {}))
            assert look(browser, sibling, 2)["user"] == "7"
        for worker in a.workers:
            shown = look(browser, worker, 0)
            assert (shown["user"], shown["theme"], shown["list"]) == ("7", "dark", FIVE)


@pytest.mark.parametrize("knows", ["a copy", "nothing"])
def test_d11_what_a_sign_out_keeps_is_carried_though_none_of_it_is_shown(host: HostMaker, knows: str) -> None:
    """Theme is of `ui`, which outlives a sign-out. At level 2 it is not shown; a worker that has just started does not
    even know that there is one."""
    with host(workers=1) as a, host("b", workers=1) as b:
        [here], [elsewhere] = a.workers, b.workers
        browser = session_of("user", elsewhere if knows == "nothing" else here)
        with cut(here):
            send(browser, here, "/sign-out", 2)
            assert look(browser, here, 2)["user"] is None
        shown = look(browser, here, 0)
        assert (shown["user"], shown["theme"], shown["list"]) == (None, "dark", [])


def test_d17_what_a_visitor_cleared_at_level_0_does_not_come_back_in_the_next_outage(host: HostMaker) -> None:
    """A sibling has an older copy of it."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of("visitor", here)
        assert look(browser, sibling, 0)["list"] == FIVE
        send(browser, here, "/clear", 0)
        with cut(*a.workers):
            for worker in (sibling, here):
                shown = look(browser, worker, 2)
                assert (shown["list"], shown["count"], shown["text"]) == ([], 0, None)
            send(browser, sibling, "/append", 2, entry="7")
        for worker in a.workers:
            assert look(browser, worker, 0)["list"] == [7]
