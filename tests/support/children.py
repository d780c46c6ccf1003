"""Forked children of the test process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


def in_child(work: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether `work` returns True in a forked child, within so many seconds."""
    if (child := os.fork()) == 0:
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
        thread.start()
        thread.join(seconds)
        os._exit(0 if done == [True] else 1)
    return os.waitpid(child, 0)[1] == 0


LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)


@contextmanager
def locked(thing: object) -> Iterator[None]:
    """Every lock that a thing has is held, as by a thread that is not there any more."""
    locks = [value for value in vars(thing).values() if isinstance(value, LOCKS)]
    assert locks, "it has no lock"
    with ExitStack() as held:
        for lock in locks:
            if lock.acquire(blocking=False):  # two of them may be one, as with a condition
                held.callback(lock.release)
        yield


def in_child_of_locked(thing: object, work: Callable[[], bool]) -> bool:
    """The same, if the fork comes while another thread of the parent holds every lock that a thing has."""
    with locked(thing):
        return in_child(work)
