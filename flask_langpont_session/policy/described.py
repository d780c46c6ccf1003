"""Records of categories as a server describes them (``@m``): their content, since when it is there, and when each field
was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .records import apply_change
from .values import AuthRow, CategoryChange, CategoryCopy, Fields


class AuthEntry(NamedTuple):
    """The content of an auth hash: a tombstone, or a row with the moment the database confirmed it.

    :param row: None for a tombstone.
    :param confirmed_ms: the stamp, by the Redis clock.
    :param in_database: of a tombstone: the database had the revocation when it was left.
    :param is_readable: every value of the row can be decoded.
    """

    row: AuthRow | None
    confirmed_ms: int = 0
    in_database: bool = False
    is_readable: bool = True


class Known(NamedTuple):
    """The record of one category, as a reader has it.

    :param mark: how the record is described, which names just this content; empty: it has none.
    :param auth: of a signed-in session's auth hash: what that says. The row's `read_at` is when it was read first.
    :param began: if it began from nothing, as of when at the latest, as its version; 0: it did not.
    """

    mark: bytes
    copy: CategoryCopy
    auth: AuthEntry | None = None
    began: int = 0


NOT_THERE = Known(b"", CategoryCopy(0, {}))
"""Nothing, or nothing of ours."""

NO_RECORDS: Mapping[str, Known] = {}


class Change(NamedTuple):
    """The versions of a category around a write.

    :param before: 0: nothing was there.
    :param after: the present one.
    :param meta: how the record is described since.
    """

    before: int
    after: int
    meta: bytes = b""


class Damaged(ValueError):
    """A record that is not one of ours."""


class Foreign(Damaged):
    """A record of another session."""


OWN, _STAMP, _HORIZON, _LAG, _AUTHOR, _BYTES, _META = 8, 24, 40, 46, 53, 60, 64
"""Offsets at which the parts of ``@m`` end: see ``record.lua``."""

_DESCRIBED = re.compile(rb"(.{8})(\d{16})(\d{16}).{6}(.{7}).{11}([^\1]*)", re.DOTALL)
"""The same: whose record it is, stamp, horizon, author and additions."""

_GIVEN_BACK = frozenset({b"*copied", b"*part**"})
"""Authors of a horizon that is the version of a copy."""

_FROM_SOMETHING = frozenset({b"*wiped*", b"*copied", b"-------"})
"""Authors of a horizon that are no write which began a record from nothing."""


def described(digest: str, meta: bytes, fields: Fields) -> Known:
    """Return the record of a category that has these fields, and is described so.

    :raises ValueError: this describes no record of that session.
    """
    found, own = _DESCRIBED.match(meta), digest[:OWN].encode()
    if found is None or found[1] != own:
        raise Foreign if len(meta) >= _META and meta[:OWN] != own else Damaged
    _, stamp, horizon, author, additions = found.groups()
    given_back = given_back_as_of(meta) if author in _GIVEN_BACK else 0
    copy = CategoryCopy(int(stamp), fields, b"", additions, given_back)
    return Known(meta, copy, None, 0 if author in _FROM_SOMETHING else int(horizon))


def size_of(meta: bytes) -> int:
    """Return how many bytes the fields of a record have that is described so, as the server has them, with their
    names."""
    return int(meta[_AUTHOR:_BYTES], 16)


def began_as_of(meta: bytes) -> int:
    """Return :attr:`Known.began` of a record that is described so."""
    return 0 if meta[_LAG:_AUTHOR] in _FROM_SOMETHING else int(meta[_STAMP:_HORIZON])


def given_back_as_of(meta: bytes) -> int:
    """Return :attr:`CategoryCopy.given_back` of a record that is described so."""
    return int(meta[_STAMP:_HORIZON]) if meta[_LAG:_AUTHOR] in _GIVEN_BACK else 0


def written_at(meta: bytes, name: str) -> int:
    """Return when a field was written last, as far as the description of its record says: microseconds by the server's
    clock. For a field that is not noted there it is the latest time possible.

    :param meta: of a record that is there.
    """
    _, is_noted, note = meta[_META:].partition(b"\1%b\1" % name.encode().replace(b"\1", b"\2"))
    stamp, lag = (note[7:23], note[23:29]) if is_noted else (meta[_STAMP:_HORIZON], meta[_HORIZON:_LAG])
    try:
        return int(stamp) - int(lag, 16) * 1000
    except ValueError:
        return 0  # damaged: nothing is known of it


def written_over(digest: str, base: Known, change: CategoryChange, version: Change) -> Known:
    """Return what the record of a category is after a write.

    :param base: what it was before, as far as is known.
    """
    fields = apply_change(base.copy.fields, change)
    is_whole = base.copy.version in (0, version.before)
    if is_whole and version.meta:
        try:
            record = described(digest, version.meta, fields)
        except ValueError:
            pass
        else:  # an increment is added by the server: its form of the number may be another one
            return record._replace(mark=b"") if change.increments else record
    copy = base.copy._replace(version=version.after if is_whole else base.copy.version, fields=fields)
    return Known(b"", copy, began=base.began)
