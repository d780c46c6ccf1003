"""The rounds of the monitor: what is done in each, what one that fails leaves, and the life of the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devservers.processes import LONG, wait_until
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, ONLY, PRIMARY, READ
from flask_langpont_session.recovery import monitor as module
from flask_langpont_session.recovery.monitor import Monitor, Notices, Round
from flask_langpont_session.recovery.outages import NOTHING_WAITS
from flask_langpont_session.recovery.probes import Probes
from flask_langpont_session.stores.redis.records import Lack
from flask_langpont_session.support.lag import Lag
from tests.support.children import in_child_of_locked
from tests.support.fake_stores import LOST, NOW_MS, Stage

ROUND = [
    "end_overdue",
    "measure",
    "look_at_suspects",
    "note_waiting",
    "share",
    "attend",
    "probe_lost",
    "refresh",
    "shrink",
]


class Rounds:
    """A monitor whose steps do nothing but note that it was their turn.

    :ivar steps: the names of those that had it, in order.
    :ivar told: by step, what it was told last.
    :ivar faults: by step, what it raises.
    :ivar found: what each round has found before it probes.
    :ivar meanwhile: called in each round, where the monitor lets others look for addresses.
    """

    def __init__(self, stage: Stage) -> None:
        self.steps: list[str] = []
        self.told: dict[str, Any] = {}
        self.faults: dict[str, Exception] = {}
        self.found: list[Round] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.notices, self.lag, self.health = Notices(), Lag(), stage.health
        self._begun = threading.Semaphore(0)
        self._stage = stage
        vars(stage.database).update(calls=SimpleNamespace(end_overdue=None))
        self.monitor = Monitor(
            stage.backend,
            notices=self.notices,
            attend=self.attend,
            clock=stage.clock,
            now_ms=lambda: NOW_MS,
            lag=self.lag,
        )
        vars(stage.health).update(refresh=self._step("refresh", stage.health.refresh))
        self.note_steps()

    def note_steps(self) -> None:
        """Have the steps note that it is their turn; those of a forked child are others."""
        monitor, stage = self.monitor, self._stage
        calls: Any = vars(stage.database)["calls"]
        for thing, names in (
            (calls, ["end_overdue"]),
            (stage.recorder, ["measure"]),
            (monitor.probes, ["look_at_suspects", "probe_lost", "until_next"]),
            (monitor.outages, ["note_waiting", "share"]),
            (stage.journal, ["shrink"]),
            (monitor.recovery, ["run_once", "ensure_started", "stop"]),
        ):
            for name in names:
                setattr(thing, name, self._step(name))

    def _step(self, name: str, work: Callable[[], None] = lambda: None) -> Callable[..., None]:
        def step(*arguments: Any, **options: Any) -> None:
            if name != "until_next":
                self.steps.append(name)
            self.told[name] = arguments or options
            if name in self.faults:
                raise self.faults[name]
            work()

        return step

    def attend(self, found: Round) -> None:
        self.steps.append("attend")
        self.found.append(found)
        self.meanwhile()
        self._begun.release()

    def next_round(self, seconds: float = LONG) -> bool:
        """Wait for the thread's next round. Whether there was one."""
        return self._begun.acquire(timeout=seconds)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def rounds(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rounds]:
    """Yield the rounds of a monitor, which follow each other only where there is a reason."""
    monkeypatch.setattr(module, "POLL", 10 * LONG)
    rounds = Rounds(stage)
    yield rounds
    rounds.monitor.stop()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "langpont-session-monitor"]


# -- one round ---------------------------------------------------------------------------------------------------------


def test_what_a_look_has_found_to_be_lost_is_probed_in_the_same_round(rounds: Rounds) -> None:
    def lose() -> None:
        for _ in range(3):
            rounds.health.failed(LOST[DATABASE], READ)

    vars(rounds.monitor.probes).update(look_at_suspects=lose)
    rounds.monitor.watch()
    assert rounds.found[0].lost == {DATABASE}
    assert rounds.told["probe_lost"] == ({DATABASE},)


def test_a_round_says_what_waits_and_whether_it_is_at_rest(rounds: Rounds) -> None:
    monitor = rounds.monitor
    monitor.watch()
    monitor.recovery.steps.merges.nothing_waits = not rounds.found[0].is_at_rest
    monitor.outages.waiting = None
    monitor.watch()
    assert rounds.found[1] == Round(frozenset(), None, not rounds.found[0].is_at_rest)


def test_a_tick_is_a_round_and_a_slice_of_the_replay(rounds: Rounds) -> None:
    rounds.monitor.tick()
    assert rounds.steps == [*ROUND, "run_once"]


def test_the_first_round_is_the_first_look(rounds: Rounds) -> None:
    monitor = rounds.monitor
    assert not monitor.has_looked
    monitor.watch()
    assert monitor.has_looked
    monitor.wait_for_first_look(LONG)


@pytest.mark.parametrize("step", [step for step in ROUND if step not in ("attend", "shrink")])
def test_a_step_that_fails_ends_the_round_and_is_no_look(rounds: Rounds, step: str) -> None:
    """Later steps may build on it. The next round begins anew."""
    rounds.faults[step] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        rounds.monitor.watch()
    assert rounds.steps == ROUND[: ROUND.index(step) + 1]
    assert not rounds.monitor.has_looked
    rounds.faults.clear()
    rounds.steps.clear()
    rounds.monitor.watch()
    assert (rounds.steps, rounds.monitor.has_looked) == (ROUND, True)


def test_a_journal_that_cannot_be_used_does_not_end_a_round(rounds: Rounds) -> None:
    rounds.faults["shrink"] = StoreError("journal", ErrorClass.UNREACHABLE, "Test")
    rounds.monitor.watch()
    assert rounds.monitor.has_looked


# -- what it is told ---------------------------------------------------------------------------------------------------


def test_before_there_is_a_monitor_nothing_is_to_be_told() -> None:
    """It begins by looking at every store."""
    notices = Notices()
    notices.suspect(DATABASE)
    notices.suspect_slowness(PRIMARY)
    notices.note_incident()


def test_what_is_noticed_elsewhere_is_looked_at(rounds: Rounds) -> None:
    probes = rounds.monitor.probes
    for store in (PRIMARY, DATABASE):
        probes.of(store).is_suspect = False
    rounds.notices.suspect(PRIMARY)
    rounds.notices.suspect_slowness(DATABASE)
    assert (probes.of(PRIMARY).is_suspect, probes.of(PRIMARY).may_be_slow) == (True, False)
    assert (probes.of(DATABASE).is_suspect, probes.of(DATABASE).may_be_slow) == (False, True)


def test_what_may_be_lost_is_passed_on(rounds: Rounds) -> None:
    told: list[Any] = []
    vars(rounds.monitor.recovery).update(note_incident=told.append)
    rounds.notices.note_incident()
    rounds.notices.note_incident("-1")
    assert told == [ONLY, "-1"]


REASONS: dict[str, Callable[[Rounds], object]] = {
    "a request met a failure": lambda rounds: rounds.monitor.suspect(PRIMARY),
    "requests waited too long": lambda rounds: rounds.monitor.suspect_slowness(PRIMARY),
    "a wait of this process goes on": lambda rounds: rounds.lag.overtime(),
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_thread_looks_at_once_where_there_is_a_reason(rounds: Rounds, reason: str) -> None:
    rounds.monitor.ensure_started()
    assert rounds.next_round()
    assert not rounds.next_round(0.05)
    REASONS[reason](rounds)
    assert rounds.next_round()


def test_the_thread_waits_for_a_probe_that_is_due(rounds: Rounds) -> None:
    vars(rounds.monitor.probes).update(until_next=lambda: 0.0)
    rounds.monitor.ensure_started()
    assert all(rounds.next_round() for _ in range(3))


def test_what_the_thread_meets_itself_is_no_reason_for_another_round(rounds: Rounds) -> None:
    """A probe that fails says so by its result; the next one has its time."""
    rounds.monitor.ensure_started()
    assert rounds.next_round()
    rounds.meanwhile = lambda: rounds.monitor.suspect(PRIMARY)
    rounds.monitor.probes.of(PRIMARY).is_suspect = False
    rounds.lag.overtime()
    assert rounds.next_round()
    assert not rounds.next_round(0.05)
    assert not rounds.monitor.probes.of(PRIMARY).is_suspect


def redis_lacks_something(rounds: Rounds) -> None:
    rounds.monitor.backend.lacks[ONLY, "u"] = Lack(0.0, 0)


ENDS_OF_REST: dict[str, Callable[[Rounds], object]] = {
    "this process waits for something": lambda rounds: rounds.lag.attend(time.monotonic()),
    "all stores are to be looked at again": lambda rounds: rounds.told.update(is_canary_due=True),
    "a store is lost": lambda rounds: [rounds.health.failed(LOST[DATABASE], READ) for _ in range(3)],
    "Redis lacks something": redis_lacks_something,
    "another worker has told something": lambda rounds: rounds.monitor.backend.board.announce_outage(PRIMARY),
    "the journal could not be read": lambda rounds: vars(rounds.monitor.outages).update(waiting=None),
}


@pytest.mark.parametrize("end", ENDS_OF_REST)
def test_while_nothing_happens_there_are_few_rounds(rounds: Rounds, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """The thread only looks whether something does, as often as ever; the replay looks even more rarely."""
    monkeypatch.setattr(module, "POLL", 0.001)
    monkeypatch.setattr(module, "REST", 10 * LONG)
    monkeypatch.setattr(Probes, "is_canary_due", property(lambda probes: rounds.told.get("is_canary_due", False)))
    looks: list[float] = []
    monkeypatch.setattr(rounds.monitor.recovery, "look_every", looks.append)
    rounds.monitor.ensure_started()
    assert rounds.next_round()
    wait_until(lambda: looks[-9:] == [100 * LONG] * 9, "looks without a round")
    assert not rounds.next_round(0)
    ENDS_OF_REST[end](rounds)
    assert rounds.next_round()
    assert 0.001 in looks


# -- the thread --------------------------------------------------------------------------------------------------------


def test_it_is_started_once_and_starts_the_replay(rounds: Rounds) -> None:
    """The monitor is started once, however many requests are the first."""
    together = threading.Barrier(8)

    def request() -> None:
        together.wait(LONG)
        rounds.monitor.ensure_started()

    requests = [threading.Thread(target=request) for _ in range(8)]
    for one in requests:
        one.start()
    for one in requests:
        one.join(LONG)
    assert rounds.next_round()
    assert [thread.daemon for thread in threads()] == [True]
    rounds.monitor.stop()
    assert rounds.steps == [*ROUND, "ensure_started", "stop"]


def test_a_system_without_threads_is_asked_again(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        rounds.monitor.ensure_started()
        assert "the system gives no more threads" in caplog.text
    rounds.monitor.ensure_started()
    assert rounds.next_round()


def test_a_round_that_fails_is_said_and_the_thread_goes_on(rounds: Rounds, caplog: pytest.LogCaptureFixture) -> None:
    """The replay is looked after in good rounds only."""

    def fail_once() -> None:
        if len(rounds.found) == 1:
            raise ZeroDivisionError

    rounds.meanwhile = fail_once
    rounds.monitor.ensure_started()
    rounds.monitor.suspect(PRIMARY)
    assert rounds.next_round()
    rounds.monitor.stop()
    assert "it goes on" in caplog.text
    assert (len(rounds.found), rounds.steps.count("ensure_started")) == (2, 1)


def test_the_thread_outlives_a_beginning_that_fails(rounds: Rounds, caplog: pytest.LogCaptureFixture) -> None:
    """It joins the workers of its host before its first round, and tries again if that fails."""
    left = [ZeroDivisionError()]

    def join() -> None:
        while left:
            raise left.pop()

    vars(rounds.monitor.recovery.steps.giving_back).update(join=join)
    rounds.monitor.suspect(PRIMARY)
    rounds.monitor.ensure_started()
    assert rounds.next_round()
    assert "it goes on" in caplog.text


def test_stopped_it_has_no_thread_and_gets_none(rounds: Rounds) -> None:
    rounds.monitor.ensure_started()
    assert rounds.next_round()
    rounds.monitor.stop()
    assert (threads(), rounds.steps[-1]) == ([], "stop")  # that of the replay
    rounds.monitor.ensure_started()
    assert threads() == []


def test_stopped_before_its_start_it_gets_no_thread_either(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds.monitor.stop()
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
    rounds.monitor.ensure_started()


def test_its_own_thread_may_stop_it(rounds: Rounds) -> None:
    """It does not wait for itself."""
    rounds.monitor.ensure_started()
    assert rounds.next_round()
    rounds.meanwhile = rounds.monitor.stop
    rounds.lag.overtime()
    assert rounds.next_round()
    for thread in threads():
        thread.join(LONG)
    assert threads() == []
    assert "stop" in rounds.steps  # that of the replay


def test_while_it_is_paused_there_is_no_round_but_that_of_the_thread_that_paused_it(rounds: Rounds) -> None:
    other = threading.Thread(target=rounds.monitor.watch, daemon=True)
    with rounds.monitor.paused():
        other.start()
        other.join(0.05)
        assert rounds.steps == []
        rounds.monitor.watch()
        assert rounds.steps == ROUND
    other.join(LONG)
    assert rounds.steps == ROUND * 2


def test_while_it_is_paused_nothing_is_replayed(rounds: Rounds) -> None:
    begun = threading.Event()

    def replay() -> None:
        with rounds.monitor.recovery.paused():
            begun.set()

    with rounds.monitor.paused():
        threading.Thread(target=replay, daemon=True).start()
        assert not begun.wait(0.05)
    assert begun.wait(LONG)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_begins_anew(rounds: Rounds) -> None:
    """The child begins with a look of its own and a thread of its own, whatever its parent was doing."""
    monitor = rounds.monitor
    monitor.ensure_started()
    assert rounds.next_round()
    monitor.stop()
    monitor.probes.of(PRIMARY).is_suspect = False
    monitor.outages.waiting = None

    def work() -> bool:
        begun = monitor.has_looked, monitor.is_stopping, monitor.probes.of(PRIMARY).is_suspect, threads()
        knows_nothing = monitor.outages.waiting == NOTHING_WAITS
        rounds.note_steps()
        monitor.ensure_started()
        has_thread = rounds.next_round() and len(threads()) == 1
        rounds.lag.overtime()
        return begun == (False, False, True, []) and knows_nothing and has_thread and rounds.next_round()

    assert in_child_of_locked(monitor, work)
