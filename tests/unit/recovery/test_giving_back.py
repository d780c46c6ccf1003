"""Until when a Redis may have less than its host (I32): workers of one host, each with its own view of the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flask_langpont_session.ops.diagnosis.read_host import read_host
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY
from flask_langpont_session.recovery.giving_back import PATIENCE, GivingBack
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from tests.support.clock import Clock
from tests.support.journals import write

BOTH = {("", "a"), ("", "u")}

TOO_LATE = StoreError("journal", ErrorClass.LOCAL, "TooLate", timed_out=True)
UNUSABLE = StoreError("journal", ErrorClass.UNREACHABLE, "OperationalError")


def raising(error: StoreError) -> Callable[[float], bool]:
    def is_empty(wait: float) -> bool:
        raise error

    return is_empty


class Worker(GivingBack):
    """One worker, with a journal object of its own, as processes have it.

    :ivar incident: called when its server was exchanged, or lost data.
    :ivar wanted: kinds of sessions that it has still to give back.
    :ivar copies: that it has; the digest of each is that of its shard.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.incident: Callable[[], None] = lambda: None
        self.seen = ServerIdentity(lambda: self.incident())
        self.meets("A")
        self.wanted: set[str] = set()
        self.copies: list[Any] = []
        self.journal = journal_at(folder / "journal")
        backend: Any = SimpleNamespace(
            lacks={},
            journal=self.journal,
            board=self.journal.board,
            memory=SimpleNamespace(live_categories=lambda: self.copies, forgotten=0),
            near_connections=0,
            reports=SimpleNamespace(data_lost_at={}),
            table=SimpleNamespace(features_in_use={"authentication"}),
            health=SimpleNamespace(shards=("",), locate=lambda digest: digest),
            primary=SimpleNamespace(endpoints={PRIMARY: SimpleNamespace(server_identity=self.seen)}),
        )
        self.lacks: dict[tuple[str, str], Any] = backend.lacks
        self.memory = backend.memory
        refill: Any = SimpleNamespace(waits_for=lambda shard, kind: kind in self.wanted, ask_for=lambda *what: None)
        super().__init__(backend, refill, clock)

    def meets(self, server: str) -> None:
        """A server answers it."""
        self.seen.observe(server, now_ms=1000, is_primary=True)

    def finds(self, canary: str) -> None:
        """Let the worker find a canary at the server."""
        self.seen.saw(Canary(canary, 1, 1000))

    def looks(self, canary: str = "1") -> Worker:
        """Let the worker find a canary at the server, and go on."""
        self.finds(canary)
        self.go_on()
        return self


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def make() -> Worker:
        workers.append(Worker(tmp_path, clock))
        return workers[-1]

    yield make
    for worker in workers:
        worker.end()
        worker.journal.close()


def lost(worker: Worker) -> None:
    """Let a worker notice that the server was emptied, with something to give back."""
    worker.wanted = {"a"}
    worker.begin("", 1000)
    worker.looks("2")


def test_a_worker_that_starts_after_a_loss_waits_for_the_others(make: Callable[[], Worker]) -> None:
    """It meets the emptied server, and another worker has still to give back to it."""
    old, new = make().looks(), make()
    lost(old)
    new.begin("", 0)
    assert set(new.lacks) == BOTH
    new.looks("2")
    assert set(new.lacks) == {("", "a")}
    old.wanted.clear()
    for worker in (old, new):
        worker.go_on()
        assert not worker.lacks


@pytest.mark.parametrize("seen", ["B", "A"])
def test_a_worker_that_meets_another_server_than_its_siblings_waits(make: Callable[[], Worker], seen: str) -> None:
    """A replica was promoted; or the server was emptied, and the others have not noticed."""
    make().looks()
    new = make()
    new.meets(seen)
    new.begin("", 0)
    new.looks("1" if seen == "B" else "2")
    assert set(new.lacks) == BOTH


def test_commands_hear_how_many_sessions_had_no_room_in_the_memory_of_each_worker(
    make: Callable[[], Worker], tmp_path: Path
) -> None:
    one, other = make().looks(), make().looks()
    one.memory.forgotten = 7
    one.go_on()
    assert sorted(read_host(tmp_path / "journal").forgotten) == [0, 7]
    other.end()
    assert read_host(tmp_path / "journal").forgotten == (7,)


@pytest.mark.parametrize(("shard", "may_lack"), [("", True), (":2", False)])
def test_copies_of_a_shard_say_nothing_of_the_others(make: Callable[[], Worker], shard: str, may_lack: bool) -> None:
    """A worker meets the shards of a cluster one after the other, and has copies of the first one by then."""
    new = make()
    new.copies = [SimpleNamespace(digest=shard)]
    new.begin("", 0)
    assert bool(new.lacks) is may_lack


def test_what_waits_in_a_journal_counts_where_no_worker_is_left(make: Callable[[], Worker]) -> None:
    """A restart of the host in an outage: what waits goes to the server first, by this worker alone."""
    new = make()
    write(new.journal, text=b"1")
    new.begin("", 0)
    assert set(new.lacks) == BOTH
    assert not new.looks().lacks


def test_a_journal_that_is_being_opened_is_not_waited_for(
    make: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor does not wait for it while the first request meets the server. A journal that cannot be used may
    have something."""
    new = make()
    write(new.journal, text=b"1")
    for error, may_lack in ((TOO_LATE, False), (UNUSABLE, True)):
        monkeypatch.setattr(new.journal, "is_empty", raising(error))
        new.begin("", 0)
        assert bool(new.lacks) is may_lack


def test_a_sibling_that_says_nothing_is_waited_for_so_long(make: Callable[[], Worker], clock: Clock) -> None:
    """It lives, and does not say that it is through: additions are in doubt after that, instead of waiting for good."""
    one, other = make().looks(), make().looks()
    lost(one)
    one.wanted.clear()
    clock.now += PATIENCE - 1
    one.go_on()
    assert set(one.lacks) == BOTH
    assert not one.is_overdue
    clock.now += 1
    one.go_on()
    assert not one.lacks
    assert one.is_overdue
    other.looks("2")
    one.go_on()
    assert not one.is_overdue


def test_a_worker_that_has_not_looked_yet_makes_no_sibling_wait_and_is_waited_for(make: Callable[[], Worker]) -> None:
    """It has joined the workers of its host, and may serve a request before it looks: only a loss is waited for."""
    old, new = make().looks(), make()
    new.join()
    write(old.journal, text=b"1")
    old.go_on()
    assert not old.lacks
    lost(old)
    old.wanted.clear()
    old.go_on()
    assert set(old.lacks) == BOTH
    new.looks("2")
    old.go_on()
    assert not old.lacks


def test_what_a_worker_would_give_back_without_a_loss_makes_no_sibling_wait(make: Callable[[], Worker]) -> None:
    """One that starts brings what the journal has copies of, whatever the server has."""
    old, new = make().looks(), make()
    new.wanted = {"a", "u"}
    new.begin("", 0)
    new.looks()
    write(old.journal, text=b"1")
    old.go_on()
    assert not old.lacks
    assert not new.lacks


def test_a_loss_that_is_noticed_while_the_others_are_asked_is_not_over(
    make: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread: what all have said by then is of the server before it."""
    one, other = make().looks(), make().looks()
    write(one.journal, text=b"1")
    ask = one.presence.others

    def others() -> list[str]:
        one.begin("", 1000)
        one.finds("2")
        return ask()

    monkeypatch.setattr(one.presence, "others", others)
    one.go_on()
    assert set(one.lacks) == BOTH
    monkeypatch.undo()
    other.looks("2")
    one.go_on()
    assert not one.lacks


def test_a_loss_that_is_being_noticed_is_not_over(make: Callable[[], Worker]) -> None:
    """Another thread has nothing left to give back, and goes on at the moment at which the loss has no name yet."""
    one, other = make().looks(), make().looks()
    threads: list[threading.Thread] = []

    def incident() -> None:
        one.begin("", 1000)
        threads.append(threading.Thread(target=one.go_on))
        threads[0].start()
        threads[0].join(0.1)  # it waits until the loss has a name

    one.incident = incident
    one.finds("2")
    threads[0].join()
    assert set(one.lacks) == BOTH
    other.looks("2")
    one.go_on()
    assert not one.lacks
