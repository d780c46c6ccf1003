"""I32, D21 to D23: what a host has of a session stands until a Redis that may have less was given it back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.stores.host.journal import journal_at
from tests.faults.proxy import REFUSE
from tests.support.site.browser import Browser
from tests.support.site.hosts import Host, Stage, Worker

from .conftest import HostMaker
from .support import COUNTED, FIVE, KINDS, at_level, home, look, reported, send, session_of

SESSIONS = 8


@contextmanager
def nothing_is_replayed(host: Host) -> Iterator[None]:
    """No worker of a host gives anything back to Redis, or merges anything, while this is open: another process does
    what only one may do at a time."""
    journal = journal_at(host.workers[0].journal)
    with ExitStack() as stack:
        # A worker may be at it at this moment.
        wait_until(lambda: stack.enter_context(journal.alone()), "this process is the one that does it")
        yield
    journal.close()


def start_empty(server: Valkey) -> None:
    """Start a server that has lost all its data."""
    shutil.rmtree(server.folder / "appendonlydir")
    server.start()


@pytest.mark.parametrize(("loss", "kind"), [*zip(("flushed", "restarted"), KINDS, strict=True)])
def test_d22_from_the_loss_until_all_is_given_back_the_copies_are_shown(
    stage: Stage, host: HostMaker, kind: str, loss: str
) -> None:
    """Changes based on the copies destroy nothing, and an addition is added to the value before."""
    with host(workers=1) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        with nothing_is_replayed(a):
            if loss == "flushed":
                with stage.redis.client() as client:
                    client.flushall()
                wait_until(lambda: bool(worker.counters().get("DataLost")), "the loss is noticed")
            else:
                stage.redis.kill()
                at_level(2, worker)
                start_empty(stage.redis)
            at_level(0, worker)
            shown = look(browser, worker, 0)
            assert (shown["list"], shown["count"], shown["text"]) == (FIVE, COUNTED, "before")
            assert send(browser, worker, "/append", 0, entry="6")["list"] == [*FIVE, 6]
            assert send(browser, worker, "/count", 0)["count"] == COUNTED + 1
            shown = look(browser, worker, 0)
            assert (shown["list"], shown["count"]) == ([*FIVE, 6], COUNTED + 1)
        home(worker)
        shown = look(browser, worker, 0)
        assert (shown["list"], shown["count"], shown["text"]) == ([*FIVE, 6], COUNTED + 1, "before")
        assert not reported(worker)


@pytest.mark.parametrize("kind", KINDS)
def test_d22_a_worker_without_copies_does_not_take_what_was_lost_for_empty(
    stage: Stage, host: HostMaker, kind: str
) -> None:
    """The worker waits for another worker of its host that has still to give back its copies, and hangs for a
    moment."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        here.freeze()
        try:
            with stage.redis.client() as client:
                client.flushall()
            wait_until(lambda: bool(sibling.counters().get("DataLost")), "the loss is noticed")
            answer = send(browser, sibling, "/append", 0, entry="6")
            # What a busy machine has put into the journal first, the sibling knows.
            assert answer["list"] in ([6], [*FIVE, 6]) and answer["available"] == (len(answer["list"]) > 1)
            assert look(browser, sibling, 0)["available"] == answer["available"]
            send(browser, sibling, "/count", 0)
        finally:
            here.thaw()
        home(*a.workers)
        for worker in a.workers:
            shown = look(browser, worker, 0)
            assert shown["list"][:5] == FIVE
            assert (shown["count"], shown["text"]) == (COUNTED + 1, "before")


@pytest.mark.parametrize("kind", KINDS)
def test_i32_an_older_copy_that_was_given_back_first_is_not_taken_for_all(
    stage: Stage, host: HostMaker, kind: str
) -> None:
    """The worker that wrote last hangs when Redis is emptied, and its sibling has what was before."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        look(browser, sibling, 0)
        send(browser, here, "/append", 0, entry="6")
        here.freeze()
        try:
            with stage.redis.client() as client:
                client.flushall()
                wait_until(lambda: bool(client.keys("session:translation:*")), "the older copy is given back")
            assert not look(browser, sibling, 0)["available"]
            send(browser, sibling, "/append", 0, entry="7")
        finally:
            here.thaw()
        home(*a.workers)
        for worker in a.workers:
            assert look(browser, worker, 0)["list"][:6] == [*FIVE, 6]


@pytest.mark.parametrize(("older", "kind"), [*zip((False, True), KINDS, strict=True)])
def test_i32_what_a_killed_worker_alone_had_is_counted(stage: Stage, host: HostMaker, kind: str, older: bool) -> None:
    """Redis is emptied, and the worker that wrote last can give nothing back any more; `older`: a sibling has an older
    copy."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        if older:
            look(browser, sibling, 0)
        send(browser, here, "/append", 0, entry="6")
        here.freeze()
        with stage.redis.client() as client:
            client.flushall()
        wait_until(lambda: bool(sibling.counters().get("DataLost")), "the loss is noticed")
        here.kill()
        home(sibling)
        wait_until(lambda: look(browser, sibling, 0)["available"], "all that lives has given back")
        assert look(browser, sibling, 0)["list"] in (FIVE, [])
        wait_until(lambda: bool(sibling.counters().get("writes_lost")), "what is missing is counted")


@pytest.mark.parametrize("number", [0, 1], ids=["by the worker that has a copy", "by its sibling"])
def test_d22_a_request_that_finds_nothing_finds_out_that_it_was_lost(
    stage: Stage, host: HostMaker, number: int
) -> None:
    """The request has the canary looked at, long before it is due. What the request writes destroys nothing."""
    with host(workers=2, HEALTH_INTERVAL=600) as a:
        here, worker = a.workers[0], a.workers[number]
        browser = session_of("visitor", here)
        with nothing_is_replayed(a):
            with stage.redis.client() as client:
                client.flushall()
            answer = send(browser, worker, "/append", 0, entry="6")
            assert answer["available"] == (worker is here)
            send(browser, worker, "/count", 0)
        home(*a.workers)
        for each in a.workers:
            wait_until(
                lambda each=each: look(browser, each, 0)["count"] == COUNTED + 1,  # type: ignore[misc]
                "what was acknowledged before the loss, and after it",
            )
            shown = look(browser, each, 0)
            assert (shown["list"][:5], shown["text"]) == (FIVE, "before")


@pytest.mark.parametrize("kind", KINDS)
def test_d33_a_loss_during_an_outage_is_noticed_before_anything_is_merged(
    stage: Stage, host: HostMaker, kind: str
) -> None:
    """The worker cannot reach Redis while it is emptied, and no canary is due for long after that."""
    with host(workers=1, HEALTH_INTERVAL=600) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        worker.redis.impose(REFUSE)
        wait_until(lambda: look(browser, worker)["level"] == 2, "an outage", pause=0.02)
        send(browser, worker, "/append", 2, entry="6")
        send(browser, worker, "/count", 2)
        with stage.redis.client() as client:
            client.flushall()
        worker.redis.heal()
        home(worker)
        shown = look(browser, worker, 0)
        assert (shown["list"], shown["count"], shown["text"]) == ([*FIVE, 6], COUNTED + 1, "before")
        assert not reported(worker)


@pytest.fixture
def replica(stage: Stage, tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "replica", replica_of=stage.redis) as server:
        yield server


def test_d21_additions_wait_for_all_workers_of_the_host(stage: Stage, host: HostMaker, replica: Valkey) -> None:
    """A worker without copies has nothing to give back, and must not add to nothing what the others have counted."""
    with host(workers=2, REPLICA_URL=replica.url) as a:
        here, sibling = a.workers
        browsers = [session_of("visitor", here) for _ in range(SESSIONS)]
        stage.redis.kill()
        at_level(1, here, sibling)
        for browser in browsers:
            assert send(browser, here, "/count", 1)["count"] == COUNTED + 1
        here.redis.impose(REFUSE)
        start_empty(stage.redis)
        at_level(0, sibling)
        wait_until(lambda: bool(sibling.counters().get("DataLost")), "the sibling has noticed the loss")
        here.redis.heal()
        home(here, sibling)
        assert counts(browsers, sibling) == [COUNTED + 1] * SESSIONS


def counts(browsers: list[Browser], worker: Worker) -> list[int]:
    return [look(browser, worker, 0)["count"] for browser in browsers]


@contextmanager
def failed_over(stage: Stage, worker: Worker, other: Valkey) -> Iterator[None]:
    """Make the other server the primary at the end; it gets nothing of what happens inside of the ``with``."""
    with other.client() as client:
        client.replicaof("NO", "ONE")
    yield
    stage.redis.kill()
    worker.redis.lead_to(other.port)
    at_level(0, worker)


@pytest.mark.parametrize(("reading", "kind"), [*zip((False, True), KINDS, strict=True)])
def test_d23_what_a_replica_lacks_that_becomes_the_primary_is_kept(
    stage: Stage, host: HostMaker, replica: Valkey, kind: str, reading: bool
) -> None:
    """An entry, an addition and a cleared text of the last second before it, whether it is read at once or later."""
    with host(workers=1) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        with nothing_is_replayed(a), failed_over(stage, worker, replica):
            send(browser, worker, "/append", 0, entry="6")
            send(browser, worker, "/count", 0)
            send(browser, worker, "/set", 0, input_text="after")
        if reading:
            shown = look(browser, worker, 0)
            assert (shown["list"], shown["count"], shown["text"]) == ([*FIVE, 6], COUNTED + 1, "after")
        home(worker)
        shown = look(browser, worker, 0)
        assert (shown["list"], shown["count"], shown["text"]) == ([*FIVE, 6], COUNTED + 1, "after")


@pytest.mark.parametrize("kind", KINDS)
def test_d33_what_was_brought_to_another_id_meanwhile_is_what_the_host_knew(
    stage: Stage, host: HostMaker, replica: Valkey, kind: str
) -> None:
    """The former id is over: nothing of it is given back to a primary that was a replica, and lacks the last of it."""
    with host(workers=1) as a:
        [worker] = a.workers
        browser = session_of(kind, worker)
        with failed_over(stage, worker, replica):
            send(browser, worker, "/append", 0, entry="6")
            send(browser, worker, "/count", 0)
            stage.redis.kill()
            at_level(2, worker)
            send(browser, worker, "/regenerate", 2)
            send(browser, worker, "/append", 2, entry="7")
        home(worker)
        shown = look(browser, worker, 0)
        assert (shown["list"], shown["count"]) == ([*FIVE, 6, 7], COUNTED + 1)
        assert not reported(worker)


@pytest.mark.parametrize("kind", KINDS)
def test_i30_another_id_by_a_worker_that_knows_less_takes_along_what_its_sibling_knows(
    stage: Stage, host: HostMaker, kind: str
) -> None:
    """Redis is emptied, and nothing was given back yet: of a former id of a user nothing will be."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        with nothing_is_replayed(a):
            with stage.redis.client() as client:
                client.flushall()
            wait_until(lambda: bool(sibling.counters().get("DataLost")), "the loss is noticed")
            send(browser, sibling, "/regenerate", 0)
            assert not look(browser, sibling, 0)["available"]
        home(*a.workers)
        for worker in a.workers:
            shown = look(browser, worker, 0)
            assert (shown["list"], shown["count"], shown["text"]) == (FIVE, COUNTED, "before")
        assert not reported(*a.workers)
