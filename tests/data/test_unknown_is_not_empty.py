"""D1, D5, I16: what a request could not read is unknown, and what is made of it never replaces what a store has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle

import pytest

from tests.support.site.browser import Browser
from tests.support.site.hosts import Worker

from .conftest import HostMaker
from .support import COUNTED, FIVE, KINDS, at_level, cut, home, look, send, session_of

Way = Callable[[HostMaker, str], AbstractContextManager[tuple[Worker, Browser]]]


@pytest.mark.parametrize(("level", "kind"), [*zip((3, 4), KINDS, strict=True)])
def test_d1_what_is_written_where_nothing_can_be_read_replaces_nothing(host: HostMaker, kind: str, level: int) -> None:
    """At level 3 (the copies have aged out) and 4 (the database is down, too) a list is read as empty."""
    aged = {"LOCAL_CACHE_TTL": 1} if level == 3 else {}
    with host(workers=2, **aged) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        look(browser, sibling, 0)
        with cut(here, sibling, database=level == 4, level=level):
            for entry, worker in ((6, here), (7, sibling)):
                assert not send(browser, worker, "/append", level, entry=str(entry))["available"]
        for worker in a.workers:
            assert_kept(browser, worker)


@pytest.mark.parametrize("level", [3, 4])
def test_i19_what_is_written_at_levels_3_and_4_is_for_the_request_only_and_counted(host: HostMaker, level: int) -> None:
    """A blind write and an addition, too: the answer said that the feature is not available."""
    aged = {"LOCAL_CACHE_TTL": 1} if level == 3 else {}
    with host(workers=1, **aged) as a:
        [worker] = a.workers
        browser = session_of("user", worker)
        with cut(worker, database=level == 4, level=level):
            assert not send(browser, worker, "/set", level, input_text="during")["available"]
            assert not send(browser, worker, "/count", level)["available"]
        shown = look(browser, worker, 0)
        assert (shown["text"], shown["count"]) == ("before", COUNTED)
        assert worker.counters().get("request_only_writes", 0) >= 2


def assert_kept(browser: Browser, worker: Worker) -> None:
    """All is well again, and what was stored before the outage is there."""
    shown = look(browser, worker, 0)
    assert shown["list"][:5] == FIVE, shown
    assert shown["text"] == "before"


@contextmanager
def evicted(host: HostMaker, kind: str) -> Iterator[tuple[Worker, Browser]]:
    """Yield a worker that had more sessions in use than it keeps copies of."""
    with host(workers=1, MEMORY_BYTES=40_000) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        for _ in range(40):
            send(Browser(worker.url), worker, "/append", 0, entry="0")
        with cut(worker):
            yield worker, browser
        assert_kept(browser, worker)


@contextmanager
def restarted(host: HostMaker, kind: str) -> Iterator[tuple[Worker, Browser]]:
    """The worker was killed, and no request for the session came before Redis was lost."""
    with host(workers=1) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        worker.kill()
        assert not worker.running
        worker.start()
        home(worker)
        with cut(worker):
            yield worker, browser
        assert_kept(browser, worker)


@contextmanager
def restarted_in_the_outage(host: HostMaker, kind: str) -> Iterator[tuple[Worker, Browser]]:
    """Yield a worker that was killed and started anew in an outage, and so has only what it had shared with its
    host."""
    with host(workers=1) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        with cut(worker):
            worker.kill()
            assert not worker.running
            worker.start()
            at_level(2, worker)
            yield worker, browser
        assert_kept(browser, worker)


@contextmanager
def new_here(host: HostMaker, kind: str) -> Iterator[tuple[Worker, Browser]]:
    """No worker of this host has seen the session."""
    with host("a", workers=1) as a, host("b", workers=1) as b:
        [worker], [elsewhere] = a.workers, b.workers
        browser = session_of(kind, elsewhere)
        with cut(worker):
            yield worker, browser
        assert_kept(browser, elsewhere)


@pytest.mark.parametrize(("way", "kind"), [*zip((evicted, restarted, restarted_in_the_outage, new_here), cycle(KINDS))])
def test_d5_a_session_of_which_there_is_no_copy_is_not_empty(host: HostMaker, way: Way, kind: str) -> None:
    """A page is told that the feature is not available; a list made of nothing does not replace the real one."""
    with way(host, kind) as (worker, browser):
        shown = look(browser, worker, 2)
        assert shown["list"] == FIVE or not shown["available"], shown
        send(browser, worker, "/append", 2, entry="6")


def test_d5_what_was_written_to_it_before_is_known_from_then_on(host: HostMaker) -> None:
    """A list that was begun in the outage, by a visitor without a session, is whole in the outage and after it."""
    with host(workers=2) as a:
        with cut(*a.workers):
            browser = a.browser()
            for entry, worker in zip(FIVE, a.workers * 3, strict=False):
                shown = send(browser, worker, "/append", 2, entry=str(entry))
                assert shown["available"]
            assert shown["list"] == FIVE
        for worker in a.workers:
            assert look(browser, worker, 0)["list"] == FIVE
