"""Sessions that say whose they are, read by requests that are interrupted: has any been given another's data?"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.stores.redis.records import Limits
from flask_langpont_session.stores.redis.store import RedisStore

PATIENCE = 5.0
"""Seconds for what shall succeed."""

_WAITS = frozenset({"connect", "poll", "recv", "recv_into", "sendall"})
"""Functions written in C that a signal may interrupt before they have done anything."""

_LIVES = {"auth": 0, "translation": 0, "ui": 0}


class Interruption(BaseException):
    """An interruption that ends a read in the middle and is no error: a signal, a killed greenlet, the end of the
    process."""


def fill(store: RedisStore, count: int, name: str = "") -> list[str]:
    """Make sessions, each with its own digest for data. Returns the digests."""
    digests = [digest_of(f"{name}{number}") for number in range(count)]
    for digest in digests:
        change = CategoryChange(600_000, sets={"lang": digest.encode()})
        limits = Limits(256, 65_536, 600_000)
        store.write(
            RecordRef(digest, "a"), {"ui": change}, guard="free", limits=limits, timeout=PATIENCE, write_id="write.1"
        )
    return digests


def read(store: RedisStore, digest: str, timeout: float = PATIENCE) -> bytes | None:
    """Return a session's language as a request would be shown it."""
    return store.read(RecordRef(digest, "a"), _LIVES, timeout=timeout).records["ui"].fields.get("lang")


class Readers:
    """Reads of which many are interrupted.

    :ivar seen: ``right``, ``nothing`` (a reply that was not believed), ``wrong``, and the names of what interrupted.
    """

    def __init__(self, store: RedisStore, digests: list[str], seed: int) -> None:
        self.seen: Counter[str] = Counter()
        self._store = store
        self._digests = digests
        self._random = random.Random(seed)

    def read(self, timeout: float = PATIENCE) -> None:
        """Read one of the sessions, and count the outcome; an error is not an answer."""
        digest = self._random.choice(self._digests)
        try:
            found = read(self._store, digest, timeout)
        except StoreError as error:
            self.seen["time-out" if error.timed_out else error.cause] += 1
        else:
            self.seen["right" if found == digest.encode() else "nothing" if found is None else "wrong"] += 1

    def interrupt(self, step: int) -> bool:
        """A read that is interrupted at its `step`-th line. False: it had fewer."""
        before = self.seen["Interruption"]
        reader = threading.Thread(target=self._interrupted, args=(step,))
        reader.start()
        reader.join()
        return self.seen["Interruption"] > before

    def _interrupted(self, step: int) -> None:
        """Interrupt one read, in a thread that ends with it: what a trace function raises where an ``except`` is
        about to be left leaves the error of the ``except`` behind in the thread (CPython 3.11), as context of all
        that is raised there."""
        with suppress(Interruption), Interrupter(step, self._count):
            self.read()

    def _count(self) -> None:
        self.seen["Interruption"] += 1


class Interrupter:
    """Raises :class:`Interruption` at one of the moments at which the store or the driver may be interrupted by a
    signal: at the beginning of a function, in a wait for the network, and after a call of what is written in C.

    A trace function could raise at every line, but also where no signal's exception comes from, as before the exit of
    a ``with``; what it raises in a comprehension passes by the ``with`` around that (CPython 3.13).

    :param step: which one, counted from 1 in the order they come.
    :param told: called when it happens.
    """

    def __init__(self, step: int, told: Callable[[], None]) -> None:
        self._left = step
        self._told = told

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        sys.setprofile(self._profile)

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(self._before)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        is_one = event in ("call", "c_return") or (event == "c_call" and argument.__name__ in _WAITS)
        if is_one and _is_interruptible(frame):
            self._left -= 1
            if self._left == 0:
                self._told()
                raise Interruption


def _is_interruptible(frame: FrameType) -> bool:
    """Return whether a frame may be interrupted: not where Python swallows what is raised, in a destructor, whenever
    that may run."""
    callers = (frame, frame.f_back)
    if any(caller is not None and caller.f_code.co_name == "__del__" for caller in callers):
        return False
    return str(frame.f_globals.get("__name__")).startswith(("redis.", "flask_langpont_session.stores"))
