"""What begins anew in a forked child: locks whose holders it does not have, connections the parent goes on using."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_renewals: WeakKeyDictionary[object, Callable[[object], None]] = WeakKeyDictionary()


def renew_in_children(thing: T, renew: Callable[[T], None]) -> None:
    """Have ``renew(thing)`` called in every child that is forked while `thing` lives (gunicorn's ``--preload``)."""
    _renewals[thing] = renew  # type: ignore[assignment]


def _renew_all() -> None:
    for thing, renew in list(_renewals.items()):
        renew(thing)


os.register_at_fork(after_in_child=_renew_all)
