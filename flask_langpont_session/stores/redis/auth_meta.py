"""The description of a signed-in session's record: its field ``@m``, see ``scripts/auth.lua``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ...policy.rows import AuthRow


class AuthMeta(NamedTuple):
    """The content of a description. Moments are milliseconds by the server's clock.

    :param version: of the row; of a tombstone: 0, if the database does not know of it.
    :param stamp: when the database was asked for it; this and what follows is 0 of a tombstone.
    """

    is_live: bool
    version: int
    stamp: int = 0
    idle_expires_at: int = 0
    absolute_expires_at: int = 0
    created_at: int = 0
    user_epoch: int = 0


def live(row: AuthRow, stamp: int) -> str:
    """Return the description of a row.

    :param stamp: when the database was asked for it.
    """
    moments = stamp, row.idle_expires_at, row.absolute_expires_at, row.created_at
    return f"{row.digest[:_OWN]}L{''.join(map(_packed, moments))} {max(row.version, 0)} {max(row.user_epoch, 0)}"


def dead(digest: str, version: int) -> str:
    """Return the description of a tombstone.

    :param version: of the dead row; 0: the database does not know of it.
    """
    return f"{digest[:_OWN]}D{max(version, 0)}"


def said(digest: str, meta: bytes) -> AuthMeta | None:
    """Return the content of a description; None: it is none of this session."""
    if meta[:_OWN] != digest[:_OWN].encode():
        return None
    if found := _LIVE.fullmatch(meta, _OWN):
        stamp, idle, absolute, created = [int(moment, 36) for moment in found.groups()[:4]]
        return AuthMeta(True, int(found[5]), stamp, idle, absolute, created, int(found[6]))
    if found := _DEAD.fullmatch(meta, _OWN):
        return AuthMeta(False, int(found[1]))
    return None


def _packed(ms: int) -> str:
    upper, lower = divmod(ms if 0 <= ms < _END else min(max(ms, 0), _END - 1), 36**4)
    return f"{_upper_places(upper)}{_PAIRS[lower // 1296]}{_PAIRS[lower % 1296]}"


@lru_cache
def _upper_places(number: int) -> str:
    """Return five places; they change every 28 minutes."""
    return _DIGITS[number // 36**4] + _PAIRS[number // 1296 % 1296] + _PAIRS[number % 1296]


_OWN = 11
"""Characters of the digest."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple(a + b for a in _DIGITS for b in _DIGITS)
_END = 36**9
"""A moment has nine places, to the base 36: the last that there is room for is in the year 5188."""

_LIVE = re.compile(rb"L" + rb"([0-9a-z]{9})" * 4 + rb" (\d{1,18}) (\d{1,18})")
_DEAD = re.compile(rb"D(\d{1,19})")
