"""Bounded waits: a caller never waits longer than asked, and a hung call costs one slot."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from devservers.processes import LONG, wait_until
from flask_langpont_session.stores.sql import bulkhead as module
from flask_langpont_session.stores.sql.bulkhead import (
    Bulkhead,
    DeadlineExceeded,
    GivenUp,
    NoFreeSlot,
    StartedLate,
    no_longer_waiting_on,
    raise_if_given_up,
    waiting_on,
)
from flask_langpont_session.support.lag import PROCESS, Deadline, Lag
from tests.support.children import in_child
from tests.support.clock import Clock


class Gate:
    """A call that hangs until it is let go."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self) -> str:
        self._entered.release()
        assert self._open.wait(LONG)
        return "late"

    def occupy(self, bulkhead: Bulkhead, slots: int) -> None:
        """Return when so many calls hang."""
        for _ in range(slots):
            with pytest.raises(DeadlineExceeded):
                bulkhead.call(self, 0.0)
            assert self.is_entered()

    def is_entered(self) -> bool:
        """Waits until the call has begun."""
        return self._entered.acquire(timeout=LONG)

    def release(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.release()


def wait_until_free(bulkhead: Bulkhead) -> None:
    wait_until(lambda: not bulkhead.busy, "free slots")


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_exception_is_raised_in_the_caller(error: BaseException) -> None:
    """Even an exception that would end a thread is raised there: the slot survives it."""
    bulkhead = Bulkhead(1, "test")

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        bulkhead.call(fail, LONG)
    assert caught.value is error
    assert bulkhead.call(lambda: "still there", LONG) == "still there"


@pytest.mark.parametrize("timeout", [0.05, 0.0, -1.0])
def test_the_wait_ends_at_the_deadline(gate: Gate, timeout: float) -> None:
    """The caller goes on while the call hangs; no time left is no endless wait. The late result goes nowhere."""
    bulkhead = Bulkhead(1, "test")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=f"test: no answer within {timeout * 1000:.0f} ms"):
        bulkhead.call(gate, timeout)
    assert time.monotonic() - began >= timeout
    assert bulkhead.busy == 1
    assert gate.is_entered()
    gate.release()
    wait_until_free(bulkhead)
    assert bulkhead.call(lambda: "own", LONG) == "own"


@pytest.mark.parametrize(("ran", "error"), [(1.0, DeadlineExceeded), (0.3, StartedLate)])
def test_a_call_that_had_too_little_time_left_says_so(
    gate: Gate, ran: float, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ran`: how much of a second's wait the call had. If it began late, the call is not the slow part."""
    moments = iter([100.0, 100.0 + ran])  # it begins; its caller gives it up
    monkeypatch.setattr(PROCESS, "passed", lambda: next(moments))
    monkeypatch.setattr(Deadline, "wait", lambda *_: not gate.is_entered())
    with pytest.raises(DeadlineExceeded) as caught:
        Bulkhead(1, "test").call(gate, 1.0)
    assert caught.type is error


def test_a_call_that_has_not_begun_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread had no turn in all that time."""
    monkeypatch.setattr(module, "start_daemon", lambda *_: threading.Thread())
    with pytest.raises(StartedLate):
        Bulkhead(1, "test").call(lambda: None, 0.0)


def test_a_call_that_is_done_is_taken_although_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """I21: a thread that comes late for an answer has it."""
    bulkhead = Bulkhead(1, "test")

    def come_late(self: Deadline, attempt: Callable[[float], bool]) -> bool:
        time.sleep(0.2)
        return wait(self, attempt)

    wait = Deadline.wait
    monkeypatch.setattr(Deadline, "wait", come_late)
    assert bulkhead.call(lambda: "answer", 0.05) == "answer"


def test_a_call_can_ask_whether_its_caller_waits_for_it(gate: Gate) -> None:
    """While a call does, after none does any more, and outside of a bulkhead; the next call is another one."""
    bulkhead = Bulkhead(1, "test")
    outcome: list[str] = []

    def take_effect() -> None:
        gate()
        try:
            raise_if_given_up()
            outcome.append("effect")
        except GivenUp:
            outcome.append("given up")

    with pytest.raises(DeadlineExceeded):
        bulkhead.call(take_effect, 0.0)
    assert outcome == []
    gate.release()
    wait_until_free(bulkhead)
    assert outcome == ["given up"]
    bulkhead.call(take_effect, LONG)
    assert outcome == ["given up", "effect"]
    raise_if_given_up()


@pytest.mark.parametrize(("timeout", "is_late"), [(LONG, False), (0.2, True)])
def test_a_call_waits_for_a_slot(gate: Gate, timeout: float, is_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its deadline: a burst of quick calls is not refused. While this process is late, the wait goes on."""
    bulkhead = Bulkhead(1, "test")
    gate.occupy(bulkhead, 1)
    monkeypatch.setattr(Lag, "is_behind", is_late)
    threading.Timer(0.3, gate.release).start()
    assert bulkhead.call(lambda: "answer", timeout) == "answer"


@pytest.mark.parametrize(("timeout", "queue"), [(0.05, True), (LONG, False)])
def test_without_a_free_slot_the_call_is_refused(gate: Gate, timeout: float, queue: bool) -> None:
    """Hung calls keep their slots; a call that waited in vain (or may not wait) is not run later either."""
    bulkhead = Bulkhead(2, "test")
    gate.occupy(bulkhead, 2)
    ran: list[int] = []
    with pytest.raises(NoFreeSlot):
        bulkhead.call(lambda: ran.append(1), timeout, queue=queue)
    gate.release()
    wait_until_free(bulkhead)
    assert ran == []


def test_threads_are_started_when_needed_and_used_again() -> None:
    """None for an idle bulkhead, one for calls one after the other; all are daemons."""
    bulkhead = Bulkhead(4, "test-reuse")
    assert threads("test-reuse") == []
    idents = {bulkhead.call(threading.get_ident, LONG) for _ in range(200)}
    assert len(idents) == 1
    assert [thread.daemon for thread in threads("test-reuse")] == [True]


def test_an_idle_thread_holds_nothing_of_its_last_call() -> None:
    """An answer may be large, and the thread may be idle for days."""

    class Answer:
        pass

    bulkhead = Bulkhead(1, "test")
    answer = weakref.ref(bulkhead.call(Answer, LONG))
    wait_until(lambda: answer() is None, "the end of the answer")


def test_a_system_without_threads_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the slot is not lost."""

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bulkhead = Bulkhead(1, "test")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(NoFreeSlot):
            bulkhead.call(lambda: 1, LONG)
    assert bulkhead.call(lambda: 1, LONG) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_begins_with_all_slots_free(gate: Gate) -> None:
    """Calls that hang in the parent, and the parent's threads, take no slots of the child."""
    bulkhead = Bulkhead(2, "test")
    bulkhead.call(lambda: 1, LONG)
    gate.occupy(bulkhead, 2)
    assert in_child(lambda: bulkhead.busy == 0 and bulkhead.call(os.getpid, LONG) == os.getpid())
    assert bulkhead.busy == 2


def test_closed_it_leaves_no_idle_thread_and_works_on() -> None:
    """A call that hangs keeps its thread and its slot; a call after the close starts another thread."""
    name = "a bulkhead that is closed"
    bulkhead, held = Bulkhead(3, name), threading.Event()

    def threads() -> int:
        return sum(thread.name == name for thread in threading.enumerate())

    with pytest.raises(DeadlineExceeded):
        bulkhead.call(lambda: held.wait(LONG), 0.01)
    assert bulkhead.call(lambda: 1, LONG) == 1
    assert threads() == 2
    bulkhead.close(0.01)  # which waits no longer than that
    wait_until(lambda: (threads(), bulkhead.busy) == (1, 1), "the end of the idle thread")
    assert [bulkhead.call(lambda: 1, LONG) for _ in range(3)] == [1, 1, 1]
    held.set()
    bulkhead.close(LONG)  # which waits for it
    assert (threads(), bulkhead.busy) == (0, 0)


class Wire:
    """A connection to a server that never answers, unless it is told to."""

    def __init__(self) -> None:
        self.client, self.server = socket.socketpair()
        self.entered = threading.Event()
        self.was_shut: list[bool] = []

    def ask(self) -> bytes:
        """Wait for the answer, as a driver does: for ever."""
        waiting_on(self, self.client.fileno())
        self.entered.set()
        try:
            return self.client.recv(1)
        finally:
            self.was_shut.append(no_longer_waiting_on(self))

    def answer(self) -> None:
        self.server.sendall(b"!")

    def is_well(self) -> bool:
        self.answer()
        return self.client.recv(1) == b"!"

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def give_up(bulkhead: Bulkhead, call: Callable[[], object]) -> None:
    with pytest.raises(DeadlineExceeded):
        bulkhead.call(call, 0.01)


def test_a_call_that_was_given_up_can_be_cut_off(wire: Wire, clock: Clock) -> None:
    """Its wait ends and its slot is free, though no answer ever comes; and it knows that the connection is of no
    use."""
    bulkhead = Bulkhead(1, "test", clock=clock)
    give_up(bulkhead, wire.ask)
    assert wire.entered.wait(LONG)
    bulkhead.cut_off(1000.0)  # it was given up then, not before
    assert bulkhead.busy == 1
    for _ in range(2):  # which may be said again and again
        bulkhead.cut_off(1000.1)
    wait_until_free(bulkhead)
    assert wire.was_shut == [True]
    assert bulkhead.call(lambda: "well", LONG) == "well"


def test_a_call_that_is_waited_for_is_not_cut_off(wire: Wire) -> None:
    """The call goes on however long it takes."""
    bulkhead, answers = Bulkhead(1, "test"), list[bytes]()
    caller = threading.Thread(target=lambda: answers.append(bulkhead.call(wire.ask, LONG)))
    caller.start()
    assert wire.entered.wait(LONG)
    bulkhead.cut_off(time.monotonic())
    wire.answer()
    caller.join(LONG)
    assert (answers, wire.was_shut) == ([b"!"], [False])


def test_a_connection_that_was_let_go_is_left_alone(wire: Wire, gate: Gate) -> None:
    """The call goes on with something else, and the connection may be another one's by now."""
    bulkhead = Bulkhead(1, "test")
    wire.answer()

    def work() -> None:
        assert wire.ask() == b"!"
        gate()

    give_up(bulkhead, work)
    assert gate.is_entered()
    bulkhead.cut_off(math.inf)
    assert (wire.is_well(), wire.was_shut) == (True, [False])


def test_another_connection_let_go_changes_nothing(wire: Wire) -> None:
    """The garbage collector gives back lost connections in whatever thread it likes."""
    bulkhead = Bulkhead(1, "test")

    def work() -> bytes:
        waiting_on(wire, wire.client.fileno())
        assert not no_longer_waiting_on(object())
        wire.entered.set()
        return wire.client.recv(1)

    give_up(bulkhead, work)
    assert wire.entered.wait(LONG)
    bulkhead.cut_off(math.inf)
    wait_until_free(bulkhead)


def test_no_call_lets_go_while_a_connection_is_shut_down(
    wire: Wire, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection would else be shut down in the hands of the next call."""
    bulkhead = Bulkhead(1, "test")
    duplicate = os.dup

    def slowly(fd: int) -> int:
        gate()
        return duplicate(fd)

    monkeypatch.setattr(os, "dup", slowly)
    give_up(bulkhead, wire.ask)
    assert wire.entered.wait(LONG)
    cutting = threading.Thread(target=bulkhead.cut_off, args=(math.inf,))
    cutting.start()
    assert gate.is_entered()
    wire.answer()
    time.sleep(0.05)
    assert wire.was_shut == []
    gate.release()
    cutting.join(LONG)
    wait_until_free(bulkhead)
    assert wire.was_shut == [True]


@pytest.mark.parametrize("is_another", [True, False])
def test_a_socket_that_is_closed_already_is_left_alone(wire: Wire, gate: Gate, is_another: bool) -> None:
    """A driver's library closes a broken connection without a word, and its number may be another's by then. Other
    calls are cut off all the same."""
    bulkhead, third, other = Bulkhead(2, "test"), Wire(), Wire()

    def work() -> None:
        waiting_on(wire, wire.client.fileno())
        if is_another:
            os.dup2(third.client.fileno(), wire.client.fileno())
        else:
            wire.client.close()
        gate()

    give_up(bulkhead, work)
    assert gate.is_entered()
    give_up(bulkhead, other.ask)
    assert other.entered.wait(LONG)
    bulkhead.cut_off(math.inf)
    assert third.is_well()
    gate.release()
    wait_until_free(bulkhead)
    for each in (third, other):
        each.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_cuts_off_nothing_of_its_parent(wire: Wire) -> None:
    """A socket that is shut down is so for both."""
    bulkhead = Bulkhead(1, "test")
    give_up(bulkhead, wire.ask)
    assert wire.entered.wait(LONG)

    def cuts_off() -> bool:
        bulkhead.cut_off(math.inf)
        return True

    assert in_child(cuts_off)
    assert bulkhead.busy == 1
    wire.answer()
    wait_until_free(bulkhead)
    assert wire.was_shut == [False]


def test_outside_of_a_bulkhead_waits_are_not_noted(wire: Wire) -> None:
    """The application's own connections say it, too."""
    wire.answer()
    assert (wire.ask(), wire.was_shut) == (b"!", [False])
