"""The thread beside the requests: it outlives surprises, works a last time at the end, and does not delay it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from flask_langpont_session.support.threads import PeriodicThread, end_all, start_daemon

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

PATIENCE = 10
LONG = 3600


MakeThread = Callable[..., PeriodicThread]


class Work:
    """Work that counts how often it was done, and notes in which thread."""

    def __init__(self) -> None:
        self.done = threading.Semaphore(0)
        self.threads: list[str] = []

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)
        self.done.release()


@pytest.fixture
def make_thread() -> Iterator[Callable[..., PeriodicThread]]:
    made: list[PeriodicThread] = []

    def make(work: Callable[[], None], interval: float = 0.01) -> PeriodicThread:
        made.append(PeriodicThread("test", lambda: work, interval))
        return made[-1]

    yield make
    end_all(made, PATIENCE)


def test_a_system_without_threads_starts_nothing(monkeypatch: pytest.MonkeyPatch, make_thread: MakeThread) -> None:
    """The caller decides what that means. What works again and again is started by the next request."""

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    work = Work()
    thread = make_thread(work)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        assert start_daemon("a name", work) is None
        thread.ensure_started()
    assert work.threads == []
    thread.ensure_started()
    assert work.done.acquire(timeout=PATIENCE)


def test_work_is_done_again_and_again_and_once_more_at_the_end(make_thread: Callable[..., PeriodicThread]) -> None:
    """The work is done in one thread, which only the first call starts."""
    often, once = Work(), Work()
    threads = [make_thread(often), make_thread(once, LONG)]
    for _ in range(2):
        for thread in threads:
            thread.ensure_started()
    assert often.done.acquire(timeout=PATIENCE) and often.done.acquire(timeout=PATIENCE)
    end_all(threads, PATIENCE)
    assert once.threads == ["langpont-session-test"]
    assert set(often.threads) == {"langpont-session-test"}
    assert not [thread for thread in threading.enumerate() if thread.name == "langpont-session-test"]


def test_work_is_done_at_once_if_it_is_to_be_done_more_often(make_thread: Callable[..., PeriodicThread]) -> None:
    """To be done less often is no reason to do it."""
    work = Work()
    thread = make_thread(work, 2 * LONG)
    thread.ensure_started()
    for interval in (3 * LONG, LONG, LONG):
        thread.pace(interval)
    assert work.done.acquire(timeout=PATIENCE)
    thread.pace(0.01)
    assert work.done.acquire(timeout=PATIENCE) and work.done.acquire(timeout=PATIENCE)


def test_what_never_started_does_nothing_at_the_end(make_thread: Callable[..., PeriodicThread]) -> None:
    """A process that served no request has nothing to publish."""
    work = Work()
    end_all([make_thread(work)], PATIENCE)
    assert work.threads == []


def test_the_end_does_not_wait_for_work_that_hangs(make_thread: Callable[..., PeriodicThread]) -> None:
    """Its time is over while the work still goes on; the others are ended all the same."""
    goes_on, other = threading.Event(), Work()
    began = threading.Event()

    def hang() -> None:
        began.set()
        goes_on.wait(PATIENCE)

    threads = [make_thread(hang), make_thread(other, LONG)]
    for thread in threads:
        thread.ensure_started()
    assert began.wait(PATIENCE)
    end_all(threads, 0.1)
    assert not goes_on.is_set()
    assert other.done.acquire(timeout=PATIENCE)
    goes_on.set()


def test_a_surprise_is_logged_once_until_it_is_over(
    make_thread: Callable[..., PeriodicThread], caplog: pytest.LogCaptureFixture
) -> None:
    """The thread goes on."""
    fails = iter([True, True, True, False, True, False])
    over = threading.Event()

    def work() -> None:
        match next(fails, None):
            case True:
                raise RuntimeError("a surprise")
            case None:
                over.set()

    with caplog.at_level(logging.ERROR):
        make_thread(work).ensure_started()
        assert over.wait(PATIENCE)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
