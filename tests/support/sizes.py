"""Sizes of objects in memory, counted one by one: the same on a busy machine as on an idle one."""

from __future__ import annotations

import gc
import sys
from enum import Enum
from types import FunctionType, MethodType, ModuleType


def room_of(*roots: object, without: tuple[type, ...] = ()) -> int:
    """Return the bytes of all that can be reached, each object once.

    :param without: types of objects that belong to others, with what only they lead to.
    """
    apart = (type, ModuleType, FunctionType, MethodType, Enum, *without)
    found: dict[int, object] = {}
    ahead = list(roots)
    while ahead:
        one = ahead.pop()
        if id(one) in found or isinstance(one, apart):
            continue
        found[id(one)] = one
        ahead += gc.get_referents(one)
        if isinstance(one, dict):
            ahead += one  # the collector passes over keys that are texts
    return sum(map(sys.getsizeof, found.values()))
