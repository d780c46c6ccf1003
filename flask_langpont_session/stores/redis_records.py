"""What the scripts are told and what they answer, as values; and how one hash becomes a record.

Fields that begin with ``@`` are ours; ``stores/redis.py`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..categories import AUTH
from .base import AuthRow, CategoryChange, CategoryCopy, Fields


class AuthEntry(NamedTuple):
    """What an auth hash says: a tombstone, or a row with the moment the database confirmed it.

    :param row: None for a tombstone.
    :param confirmed_ms: the stamp, by the Redis clock.
    :param in_database: of a tombstone: the database had the revocation when it was left.
    """

    row: AuthRow | None
    confirmed_ms: int = 0
    in_database: bool = False


class Answer(NamedTuple):
    """What one read found. A category that is not there has version 0 and no fields.

    :param now_ms: the server's clock before the read.
    :param auth: None: no auth record there (or an unusable one, see `damaged`).
    :param categories: the fields of each category that was asked for.
    :param damaged: categories whose record is not one of ours.
    :param foreign: those of them that name another session: a reply meant for somebody else, or a moved key.
    :param is_primary: whether the server that answered is a primary.
    :param trust_since_ms: since when that server's stamps count for this worker.
    :param moved_ms: the longest life that the read has given one of them anew, because a quarter had passed; 0: none.
    """

    now_ms: int
    auth: AuthEntry | None
    categories: Mapping[str, CategoryCopy]
    damaged: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    is_primary: bool = True
    trust_since_ms: int = 0
    moved_ms: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did.

    :param status: ``written``, ``dead`` (a tombstone refused it), ``gone`` (no auth record there), ``large`` or
        ``no number`` (nothing was written; `category` names the culprit).
    :param versions: category → its new version.
    """

    status: str
    versions: Mapping[str, int] = field(default_factory=dict)
    category: str | None = None


@dataclass(frozen=True, slots=True)
class MergeField:
    """One field that was written during an outage.

    :param operation: ``set``, ``del`` or ``add``.
    :param value: the encoded value, or the number to add.
    :param base_version: the category's version when this host last saw it; None: it never did.
    :param base: the field's value then; None: absent.
    :param at_ms: when it was written, by the host's clock.
    """

    operation: str
    name: str
    value: bytes | int
    base_version: int | None
    base: bytes | None
    at_ms: int


class Merged(NamedTuple):
    """What a merge did.

    :param status: ``merged``, ``dead`` or ``gone``.
    :param applied: fields that were applied.
    :param conflicts: fields that somebody else wrote since; theirs stayed.
    :param version: of the category afterwards.
    """

    status: str
    applied: int = 0
    conflicts: int = 0
    version: int = 0


def change_arguments(change: CategoryChange) -> list[str | bytes | int]:
    arguments: list[str | bytes | int] = [change.life_ms, int(change.wipe), len(change.sets)]
    for name, value in change.sets.items():
        arguments += (name, value)
    arguments += (len(change.deletes), *change.deletes, len(change.increments))
    for name, by in change.increments.items():
        arguments += (name, by)
    return arguments


def merge_arguments(fields: Sequence[MergeField]) -> list[str | bytes | int]:
    arguments: list[str | bytes | int] = []
    for change in fields:
        version = "" if change.base_version is None else change.base_version
        arguments += (change.operation, change.name, change.value, version)
        arguments += (int(change.base is not None), change.base or b"", change.at_ms)
    return arguments


class _Damaged(Exception):
    """A record that is not one of ours."""


class _Foreign(_Damaged):
    """A record of another session."""


# -- forms: what each script can answer. Anything else comes from no server of ours, or is another question's reply. --


def read_fits(reply: Any, keys: int) -> bool:
    """``read.lua``: clock, a hash or an error text for each key, the life that was slid to."""
    if not (type(reply) is list and len(reply) == keys + 2 and type(reply[0]) is int and type(reply[-1]) is int):
        return False
    for found in reply[1:-1]:  # no generator: this is asked of every answer
        if type(found) is not list:
            if type(found) is not bytes:
                return False
        elif len(found) % 2 or not _BYTES.issuperset(map(type, found)):
            return False
    return True


_BYTES = frozenset({bytes})


def write_fits(reply: Any, keys: int) -> bool:
    """``write.lua``: the first key is the auth hash, the others are the categories."""
    return _status_fits(reply, {b"written": keys - 1, b"dead": 0, b"gone": 0, b"large": 1, b"no number": 1}) and not (
        reply[0] in (b"large", b"no number") and not 1 <= reply[1] < keys
    )


def merge_fits(reply: Any, keys: int) -> bool:
    """``merge.lua``."""
    return _status_fits(reply, {b"merged": 3, b"dead": 0, b"gone": 0})


def canary_fits(reply: Any, keys: int) -> bool:
    """``canary.lua``."""
    if not (type(reply) is list and [type(part) for part in reply] == [int, bytes, int]):
        return False
    return bool(reply[1].isascii())


def push_fits(reply: Any, keys: int) -> bool:
    """``push.lua``."""
    return reply in (b"pushed", b"dead", b"older")


def bury_fits(reply: Any, keys: int) -> bool:
    """``bury.lua``."""
    return bool(reply == b"buried")


def number_fits(reply: Any, keys: int) -> bool:
    """``slide.lua`` and ``set_aside.lua``."""
    return type(reply) is int


def _status_fits(reply: Any, numbers: Mapping[bytes, int]) -> bool:
    """A status with as many numbers behind it as it is followed by."""
    if not (type(reply) is list and reply and type(reply[0]) is bytes):
        return False
    return numbers.get(reply[0]) == len(reply) - 1 and all(type(part) is int for part in reply[1:])


def answer(digest: str, names: Sequence[str], kind: str, reply: Sequence[Any]) -> Answer:
    auth, categories, damaged, foreign = None, {}, [], []
    for name, found in zip(names, reply[1:-1], strict=True):
        try:
            fields, meta = _split(found, digest)
            if name == AUTH and kind == "u":
                auth = _auth_entry(digest, fields, meta, reply[0])
            version = int(meta.get(b"@v", 0))
        except (_Damaged, ValueError) as error:
            damaged.append(name)
            if isinstance(error, _Foreign):
                foreign.append(name)
            fields, version = {}, 0
        categories[name] = CategoryCopy(version, fields)
    return Answer(reply[0], auth, categories, tuple(damaged), tuple(foreign), moved_ms=reply[-1])


def _split(found: Any, digest: str) -> tuple[dict[str, bytes], dict[bytes, bytes]]:
    """One hash as fields and metadata. A record that names another digest is a crossed reply or a moved key."""
    if isinstance(found, bytes):  # an error text: not a hash
        raise _Damaged
    fields: dict[str, bytes] = {}
    meta: dict[bytes, bytes] = {}
    flat = iter(found)
    for name, value in zip(flat, flat, strict=True):
        if name[:1] == b"@":
            meta[name] = value
        else:
            fields[str(name, "utf-8")] = value
    if found and meta.get(b"@d") != digest.encode():
        raise _Foreign if b"@d" in meta else _Damaged
    return fields, meta


def _auth_entry(digest: str, fields: Fields, meta: Mapping[bytes, bytes], now_ms: int) -> AuthEntry | None:
    if not meta:
        return None
    live = meta.get(b"@live")
    if live == b"0":
        return AuthEntry(None, in_database=meta.get(b"@v", b"0") != b"0")
    if live != b"1":
        raise _Damaged
    try:
        user = meta.get(b"@u")
        row = AuthRow(
            digest=digest,
            user_id=None if user is None else str(user, "utf-8"),
            version=_natural(meta[b"@v"]),
            live=True,
            payload=fields,
            user_epoch=_natural(meta[b"@e"]),
            created_at=_natural(meta[b"@c"]),
            idle_expires_at=_natural(meta[b"@i"]),
            absolute_expires_at=_natural(meta[b"@x"]),
            read_at=now_ms,
        )
        return AuthEntry(row, _natural(meta[b"@at"]))
    except KeyError:
        raise _Damaged from None


def _natural(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise _Damaged
    return int(value)


def written(reply: Sequence[Any], names: Sequence[str]) -> Written:
    status = str(reply[0], "ascii")
    if status == "written":
        return Written(status, dict(zip(names, reply[1:], strict=True)))
    return Written(status, category=names[reply[1] - 1] if len(reply) > 1 else None)
