"""Records of categories as a server describes them (``@m``): their content, since when it is there, and when each field
was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import NamedTuple

from .changes import NO_FIELDS, CategoryChange, Fields, apply_change
from .rows import AuthEntry


class RecordRef(NamedTuple):
    """The name of a session's data: of the session itself, or of its shadow.

    :param digest: of the session.
    :param kind: of the session; ``a`` of a shadow.
    :param shadow: the anonymous shadow of a session that is dead is meant.
    """

    digest: str
    kind: str
    shadow: bool = False


class CategoryCopy(NamedTuple):
    """The record of one category as of one version, as a store or this host has it.

    :param version: microseconds by the Redis clock: when it was written last, or, of one that was not there, when that
        was seen. It grows for ever; 0: nothing is there, or it is not known.
    :param mark: how the server describes the record, see ``record.lua``, which names just this content; empty: that is
        not known.
    :param additions: the ids of the latest additions that are part of it, 20 bytes each: 7 of the id, then its time.
        What waits in the journal under one of them is not added to the copy again.
    :param given_back: of what Redis was given back after a loss: the version of the copy that it was given last, which
        is all that it knows of the time before. 0: it was given none.
    :param began: if it began from nothing, as of when at the latest, as its version; 0: it did not.
    :param auth: of a signed-in session's auth hash: what that says. The row's `read_at` is when it was read first.
    """

    version: int
    fields: Fields
    mark: bytes = b""
    additions: bytes = b""
    given_back: int = 0
    began: int = 0
    auth: AuthEntry | None = None


NOT_THERE = CategoryCopy(0, NO_FIELDS)
"""Nothing, or nothing of ours."""

NO_RECORDS: Mapping[str, CategoryCopy] = {}


class SharedCopy(NamedTuple):
    """A worker's copy of a category, to be shared with the other workers of its host.

    :ivar age: seconds for which it has known this version, or one as new.
    :ivar kind: of the session: ``a`` anonymous, ``u`` signed in. Empty: that is not known, or nothing was there. Then
        there is nothing that could be given back to Redis.
    """

    digest: str
    category: str
    copy: CategoryCopy
    age: float = 0.0
    kind: str = ""


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

_ADDITIONS = 6
"""The number of additions that a record remembers."""

_GIVEN_BACK = frozenset({b"*copied", b"*part**"})
"""Authors of a horizon that is the version of a copy."""

_FROM_SOMETHING = frozenset({b"*wiped*", b"*copied", b"-------"})
"""Authors of a horizon that are no write which began a record from nothing."""


def described(digest: str, meta: bytes, fields: Fields) -> CategoryCopy:
    """Return the record of a category that has these fields, and is described so.

    :raises ValueError: this describes no record of that session.
    """
    found, own = _DESCRIBED.match(meta), digest[:OWN].encode()
    if found is None or found[1] != own:
        raise Foreign if len(meta) >= _META and meta[:OWN] != own else Damaged
    _, stamp, horizon, author, additions = found.groups()
    given_back = given_back_as_of(meta) if author in _GIVEN_BACK else 0
    began = 0 if author in _FROM_SOMETHING else int(horizon)
    return CategoryCopy(int(stamp), fields, meta, additions, given_back, began)


def mark_of_copy(digest: str, copy: CategoryCopy) -> bytes:
    """Return how a record would be described that was given such a copy back: nothing is known of it but that, and the
    latest additions that are part of it. It was acknowledged before all that was written without reading since."""
    own, version, all_of = digest[:OWN].encode(), copy.version, copy.additions
    additions = sorted({all_of[i : i + 20] for i in range(0, len(all_of), 20)}, key=lambda addition: addition[7:])
    return b"%b%016d%016dffffff*copied%011d%b" % (own, version, version, 0, b"".join(additions[-_ADDITIONS:]))


sizes_of: Callable[[bytes], bytes] = itemgetter(slice(_AUTHOR, _META))
"""Returns a text that is the same for records of the same size."""

_history_of = itemgetter(slice(0, OWN), slice(_STAMP, _AUTHOR))
"""Returns what a usual write leaves as it was: whose record it is, and horizon, lag and author."""


def size_of(meta: bytes) -> int:
    """Return how many bytes the fields of a record have that is described so, as the server has them, with their
    names."""
    return int(meta[_AUTHOR:_BYTES], 16)


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


def may_be_later(meta: bytes, name: str, version: int) -> bool:
    """Return whether a field may have been written after a version, as the description of its record says.

    :param meta: of a record that is there.
    """
    _, is_noted, note = meta[_META:].partition(b"\1%b\1" % name.encode().replace(b"\1", b"\2"))
    try:
        return int(note[7:23] if is_noted else meta[_STAMP:_HORIZON]) > version
    except ValueError:
        return True  # damaged: nothing is known of it


def is_written_by(mark: bytes, name: str, doubts: str) -> bool:
    """Return whether a field was written last by one of some writes, as far as the description of its record says.

    :param doubts: their ids, each with a blank behind it.
    """
    _, is_noted, note = mark[_META:].partition(b"\1%b\1" % name.encode().replace(b"\1", b"\2"))
    return bool(is_noted) and note[:7] in doubts.encode().split()


def rewritten(digest: str, base: CategoryCopy, change: CategoryChange, version: Change) -> CategoryCopy:
    """Return what the record of a category is after a write, with its mark; :data:`NOT_THERE`: that is not known.

    :param base: what is known of it.
    """
    if change.wipe or not base.mark:
        base = NOT_THERE
    # An increment is added by the server: its form of the number may be another one.
    if change.increments or not (change.wipe or version.before == base.version):
        return NOT_THERE
    fields, meta = apply_change(base.fields, change), version.meta
    if _history_of(meta) == _history_of(base.mark):  # nearly always
        return CategoryCopy(version.after, fields, meta, base.additions, base.given_back, base.began)
    try:
        return described(digest, meta, fields)
    except ValueError:
        return NOT_THERE


def written_over(digest: str, base: CategoryCopy, change: CategoryChange, version: Change) -> CategoryCopy:
    """Return what the record of a category is after a write.

    :param base: what it was before, as far as is known.
    """
    fields = apply_change(base.fields, change)
    is_whole = base.version in (0, version.before)
    if is_whole and version.meta:
        try:
            record = described(digest, version.meta, fields)
        except ValueError:
            pass
        else:
            return record._replace(mark=b"") if change.increments else record
    return base._replace(version=version.after if is_whole else base.version, fields=fields, mark=b"")
