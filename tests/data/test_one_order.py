"""D3, D4, I17, I18: what waits in the journal is neither passed by its host, nor lost to another field."""

from __future__ import annotations

import time
from functools import partial

import pytest

from devservers.processes import wait_until
from tests.faults.proxy import HANG
from tests.support.site.browser import Browser
from tests.support.site.hosts import Worker

from .conftest import HostMaker
from .support import COUNTED, FIVE, KINDS, MINIMAL, cut, home, look, reported, send, session_of, told

CLOCK_ERROR = 1.0
"""Seconds by which a host may be wrong about the clock of Redis, see ``docs/guarantees.md``: it estimates that from the
quickest of its last answers."""


def _sees(browser: Browser, worker: Worker) -> bool:
    return bool(look(browser, worker)["available"])


@pytest.mark.parametrize("change", ["sign-in", "regenerate"])
def test_d3_what_was_carried_to_a_new_id_is_there_for_a_sibling_that_reaches_redis(
    host: HostMaker, change: str
) -> None:
    """The new id was given by a worker that cannot reach Redis; the next request writes on one that can."""
    with host(workers=2) as a:
        lost, healthy = a.workers
        browser = session_of("visitor" if change == "sign-in" else "user", healthy)
        look(browser, lost, 0)
        with cut(lost):
            send(browser, lost, f"/{change}", 2, **({"user": "7"} if change == "sign-in" else {}))
            assert send(browser, healthy, "/set", 0, source_lang="next")["user"] == "7"
            assert send(browser, healthy, "/count", 0)["count"] == COUNTED + 1
        for worker in a.workers:
            shown = look(browser, worker, 0)
            assert (shown["list"], shown["count"]) == (FIVE, COUNTED + 1)
            assert (shown["user"], shown["text"], shown["blind"]) == ("7", "before", "next")


def test_i18_writes_of_two_workers_of_one_host_are_in_the_order_in_which_they_were_acknowledged(
    host: HostMaker,
) -> None:
    """One of them reaches Redis, the other one does not; requests go to them in turn. What is merged just now may be
    unknown to the other one for a moment: it says so, and what it makes of that replaces nothing."""
    with host(workers=2) as a:
        lost, healthy = a.workers
        browser = session_of("user", healthy)
        look(browser, lost, 0)
        known = [*FIVE]
        with cut(lost):
            for entry in range(6, 16):
                worker, level = (lost, 2) if entry % 2 == 0 else (healthy, 0)
                # A busy worker is a moment behind with what it shares; until then its sibling shows nothing outdated.
                wait_until(partial(_sees, browser, worker), "the copy of its sibling")
                if send(browser, worker, "/append", level, entry=str(entry))["available"]:
                    known.append(entry)
                send(browser, worker, "/count", level)
                send(browser, worker, "/set", level, source_lang=f"text {entry}")
        for worker in a.workers:
            shown = look(browser, worker, 0)
            # An answer that did not call all of the feature available may have known the list, and added to it.
            assert [entry for entry in shown["list"] if entry in known] == known
            assert shown["list"] == sorted(set(shown["list"])) and set(shown["list"]) <= set(range(1, 16))
            assert shown["count"] == COUNTED + 10
            assert shown["blind"] == "text 15"
        assert len(known) > len(FIVE) + 5


@pytest.mark.parametrize("kind", KINDS)
def test_d4_a_blind_write_is_not_lost_to_another_key_of_its_category(host: HostMaker, kind: str) -> None:
    """A worker that has never seen the session sets a key without reading it; another host sets another one later."""
    with host("a", workers=1) as a, host("b", workers=1) as b:
        [lost], [elsewhere] = a.workers, b.workers
        browser = session_of(kind, elsewhere)
        with cut(lost):
            send(browser, lost, "/set", 2, source_lang="blind")
            send(browser, elsewhere, "/set", 0, input_text="after")
        home(elsewhere)  # a busy machine may have it wait in that one's journal, too
        for worker in (lost, elsewhere):
            shown = look(browser, worker, 0)
            assert (shown["blind"], shown["text"], shown["list"]) == ("blind", "after", FIVE), told(lost, elsewhere)


def test_d4_a_blind_write_whose_request_finds_no_database_says_that_it_is_not_kept(host: HostMaker) -> None:
    """It begins at level 2, and asks whose session it is. Sent again when the database answers, it is kept."""
    with host(workers=2) as a:
        lost, healthy = a.workers
        browser = session_of("user", healthy)
        with cut(lost):
            with lost.database.failing(HANG):
                shown = browser.at(lost.url).send("/set", source_lang="not kept").json
            assert (shown["level"], reported(lost)) == (MINIMAL, 1), told(lost)
            send(browser, lost, "/set", 2, source_lang="blind")
        assert look(browser, lost, 0)["blind"] == "blind", told(lost)


def test_d4_the_later_of_two_blind_writes_to_one_key_stays(host: HostMaker) -> None:
    """The journal brings the earlier one to Redis afterwards: it is a conflict, and counted."""
    with host("a", workers=1) as a, host("b", workers=1) as b:
        [lost], [elsewhere] = a.workers, b.workers
        browser = session_of("user", elsewhere)
        with cut(lost):
            send(browser, lost, "/set", 2, source_lang="earlier")
            time.sleep(CLOCK_ERROR)  # of real processes and servers, whose clocks cannot be told
            send(browser, elsewhere, "/set", 0, source_lang="later")
        assert look(browser, elsewhere, 0)["blind"] == "later"
        assert lost.counters().get("merge_conflicts", 0) >= 1
