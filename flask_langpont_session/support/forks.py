"""Begins in a forked child anew what the child cannot share: locks whose holders it does not have, connections that the
parent goes on using.

Under gunicorn's ``--preload`` with gevent a child exchanges Python's locks after the fork. A lock from before stops all
its greenlets when one of them waits for another one that holds it. So the child begins anew once more, before its first
request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_renewals: WeakKeyDictionary[object, Callable[[object], None]] = WeakKeyDictionary()
_of_modules: list[Callable[[], None]] = []
_locks: Any = None  # with what a forked child has begun anew


def renew_in_children(thing: T, renew: Callable[[T], None]) -> None:
    """Have ``renew(thing)`` called in every child that is forked while `thing` lives (gunicorn's ``--preload``)."""
    _renewals[thing] = renew  # type: ignore[assignment]


def call_in_children(renew: Callable[[], None]) -> None:
    """Have ``renew()`` called in every child that is forked, after the things of :func:`renew_in_children`: for what
    belongs to a module."""
    _of_modules.append(renew)


def renew_if_locks_were_exchanged() -> None:
    """Begin anew if this process was forked, and Python's locks are others since. Before anything else in a request:
    what is made anew is not in use then."""
    if _locks is not threading.Lock and _locks is not None:
        _renew_all()


def _renew_all() -> None:
    global _locks
    _locks = threading.Lock
    for thing, renew in list(_renewals.items()):
        renew(thing)
    for renew_module in _of_modules:
        renew_module()


os.register_at_fork(after_in_child=_renew_all)
