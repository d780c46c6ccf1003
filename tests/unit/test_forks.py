"""A forked child begins anew: no lock stays held by a thread that it does not have."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

import pytest

from flask_langpont_session import forks
from flask_langpont_session.forks import renew_in_children
from flask_langpont_session.health import DATABASE, PRIMARY, Health
from flask_langpont_session.stores.base import ErrorClass, StoreError
from flask_langpont_session.stores.fence import Canary, Fence

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it returns True in a forked child, within ten seconds."""
    if (child := os.fork()) == 0:
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
        thread.start()
        thread.join(10)
        os._exit(0 if done == [True] else 1)
    return os.waitpid(child, 0)[1] == 0


class Counter:
    def __init__(self) -> None:
        self.renewed = 0
        renew_in_children(self, Counter.renew)

    def renew(self) -> None:
        self.renewed += 1


def test_it_is_called_in_the_child_and_not_in_the_parent() -> None:
    """Once per fork; a child of the child again."""
    counter = Counter()
    assert in_child(lambda: counter.renewed == 1 and in_child(lambda: counter.renewed == 2))
    assert counter.renewed == 0


def test_nothing_is_kept_alive_by_it() -> None:
    """Applications come and go in tests."""
    counter = Counter()
    before = len(forks._renewals)
    del counter
    gc.collect()
    assert len(forks._renewals) < before


def test_a_fence_can_be_used_in_the_child() -> None:
    """A thread of the parent may be looking at a new connection or a canary at the moment of the fork."""
    fence = Fence()

    def work() -> bool:
        fence.observe("a:master:x", now_ms=1, is_primary=True)
        return not fence.saw(Canary("g", 1, 2))

    with fence._lock:
        assert in_child(work)


def test_breakers_can_be_used_in_the_child() -> None:
    """A request of the parent may be telling of a failure at that moment."""
    health = Health([PRIMARY, DATABASE])
    error = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True)
    with health.breakers[PRIMARY, "read"]._lock:
        assert in_child(lambda: bool(health.failed(error, "read")))
