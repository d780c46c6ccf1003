"""Arguments and replies of the scripts, as values; and how one hash becomes a record.

Fields that begin with ``@`` are ours; ``commands.py`` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, cast

from ...policy.categories import AUTH
from ...policy.changes import CategoryChange, Fields, Operation
from ...policy.copies import NO_RECORDS, NOT_THERE, OWN, CategoryCopy, Change, Damaged, Foreign, described
from ...policy.errors import PRIMARY
from ...policy.leases import CLOCK_TOLERANCE_MS
from ...policy.rows import AuthEntry, AuthRow
from ...policy.serializer import is_readable
from ..codec.plain import PLAIN, Codec
from . import auth_meta


class Lack(NamedTuple):
    """The state in which Redis may have less of some sessions than the workers of this host.

    :param since: when that was noticed, monotonic seconds.
    :param well_until_us: by its clock, when it is known to have had everything, microseconds since 1970; 0: it is not
        known.
    """

    since: float
    well_until_us: int


class Answer(NamedTuple):
    """The outcome of one read. A category that is not there has version 0 and no fields.

    :param now_ms: the server's clock before the read; 0: no Redis answered.
    :param records: what there is of each category that was asked for.
    :param damaged: categories whose record is not one of ours.
    :param foreign: those of them that name another session: a reply meant for another request, or a moved key.
    :param is_primary: whether the server that answered is a primary.
    :param trust_since_ms: since when that server's stamps count for this worker.
    :param moved_ms: the longest life that the read has given one of them anew, because a quarter had passed; 0: none.
    :param due_ms: milliseconds until a read has to do so for one of them; negative: none has a life to be extended.
    :param source: the role of the store that answered a request; ``none``: none did, or no request asked.
    :param asked_at: monotonic seconds, before the request asked it.
    :param lack: since when it may have less of the session than this host; None: it may not.
    """

    now_ms: int = 0
    records: Mapping[str, CategoryCopy] = NO_RECORDS
    damaged: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    is_primary: bool = True
    trust_since_ms: int = 0
    moved_ms: int = 0
    due_ms: int = 0
    source: str = "none"
    asked_at: float = 0.0
    lack: Lack | None = None

    @property
    def auth(self) -> AuthEntry | None:
        """Return what it says of auth; None: there is no record (or an unusable one, see `damaged`)."""
        return self.records.get(AUTH, NOT_THERE).auth

    @property
    def by_primary(self) -> bool:
        """Return whether it is the primary's word to a request, and that server says that it is one."""
        return self.source == PRIMARY and self.is_primary

    @property
    def stamp_ms(self) -> int:
        """Return the stamp of what the database says from then on; 0: none can be given."""
        return self.now_ms if self.by_primary else 0


@dataclass
class Written:
    """The outcome of a write.

    :param status: ``written``, ``dead`` (a tombstone refused it), ``gone`` (no auth record there), ``late`` (it arrived
        after its sender had given up), ``large``, ``no number`` or ``less`` (nothing was written; `category` names the
        culprit: of the last one there is less than :attr:`CategoryChange.since`).
    :param versions: category → its versions.
    :ivar is_held: whether this worker has noted what an outage may show of it.
    :ivar shown: what requests are shown of the session since, if it is known.
    """

    status: str
    versions: Mapping[str, Change] = field(default_factory=dict)
    category: str | None = None

    # Of the class: most writes are told neither.
    is_held = False
    shown = cast(Any, None)


SINCE, TIME, ABSENT = "since", "time", "absent"
"""The conditions under which a kept change may be applied, see ``merge.lua``."""


class MergeStep(NamedTuple):
    """One change that was kept during an outage, see ``merge.lua``.

    :param value: the encoded value, or the number to add; of ``record``, :attr:`CategoryCopy.mark`.
    :param mode: :data:`SINCE`, :data:`TIME` or :data:`ABSENT`; of an addition, its id.
    :param moment: microseconds by the server's clock: the version that the value was made from, or when it was written;
        of an addition, when it was sent first (0: never).
    :param base: the field's value at that version; None: there was none, or it is not known. Of an addition: not None
        if it is made only to a number that is there.
    :param doubts: ids of writes by which the server may have it already.
    :param acknowledged: when its user was told that it is kept, microseconds by the server's clock; 0: just now.
    """

    operation: Operation
    name: str = ""
    value: bytes | int = b""
    mode: str = SINCE
    moment: int = 0
    base: bytes | None = None
    doubts: str = ""
    acknowledged: int = 0


class Outcome(IntEnum):
    """The outcome of one step."""

    CONFLICT = 0
    APPLIED = 1
    LARGE = 2
    IN_DOUBT = 3
    NO_NUMBER = 4


class Limits(NamedTuple):
    """The most that a category may hold.

    :param empty_ms: how long a record is kept that has no fields any more. It tells that older copies are older.
    """

    fields: int
    bytes: int
    empty_ms: int


class Merge(NamedTuple):
    """Changes that a host kept for one category of one session.

    :param steps: in the order in which they were acknowledged.
    :param guard: ``free``, ``alive`` or ``new``, see ``record.lua``.
    :param life_ms: that the record has at least from now on; 0: as long as the session's own record.
    :param write_id: under which it is sent, if not under that of the call.
    :param since: the version that the record has at least: a server that has less has lost it. 0: none is known.
    """

    digest: str
    category: str
    steps: Sequence[MergeStep]
    guard: str
    life_ms: int
    shadow: bool = False
    write_id: str = ""
    since: int = 0


class Restore(NamedTuple):
    """A host's copy of one category of one session, to be given back to a server that may have lost it.

    :param copy: as of its version.
    :param guard: ``free`` or ``alive``, see ``record.lua``.
    :param life_ms: as of :class:`Merge`.
    :param is_partial: it may have begun from nothing after the loss, and says nothing of what was there before.
    """

    digest: str
    category: str
    copy: CategoryCopy
    guard: str
    life_ms: int
    is_partial: bool = False


class Merged(NamedTuple):
    """The outcome of a merge.

    :param status: ``merged``, ``dead``, ``gone``, ``late`` or ``less`` (than :attr:`Merge.since`).
    :param version: of the category afterwards.
    :param outcomes: of each step.
    """

    status: str
    version: int = 0
    outcomes: tuple[Outcome, ...] = ()


def empty_as_of(now_ms: int) -> int:
    """Return the version of a category that was not there at a moment by the server's clock. It is dated back: the next
    primary's clock may be behind, and what is written there then is later all the same."""
    return (now_ms - CLOCK_TOLERANCE_MS) * 1000


def addition_id(write_id: str, number: int) -> str:
    """Return the id of one of the additions that a write makes to a category, as ``record.lua`` has it. Each has its
    own: some may be merged, and others wait.

    :param number: from 0. There are not more ids for one write than a record remembers: the last ones share theirs.
    """
    number = min(number, _ADDITIONS - 1)
    return "ghijk"[number - 1] + write_id[1:] if number else write_id  # no id of a write begins like this


_ADDITIONS = 6
"""The number of ids of additions that a record remembers."""


def change_arguments(change: CategoryChange, sets: Fields) -> list[str | bytes | int]:
    """Return the arguments of ``record.lua`` for a change.

    :param sets: what the server gets of the values that are set.
    """
    deletes, increments = change.deletes, change.increments
    form = _form(change.wipe, len(deletes), len(increments), len(sets), change.since, change.life_ms)
    return [form, *sets, *deletes, *increments, *sets.values(), *increments.values()]


_form = "{:d}{:06x}{:06x}{:06x}{:016}{}".format


def merge_arguments(steps: Iterable[MergeStep]) -> list[str | bytes | int]:
    arguments: list[str | bytes | int] = []
    for step in steps:
        arguments += (step.operation, step.name, step.value, step.mode, step.moment)
        arguments += (int(step.base is not None), step.base or b"", step.doubts, step.acknowledged)
    return arguments


class Crossed(Exception):
    """The answer to another question: it says nothing of the records that were asked for."""


# -- forms: what each script can answer. Anything else comes from no server of ours, or is another question's reply. --


def read_fits(reply: Any, keys: int) -> bool:
    """Return whether ``read.lua`` replies so: clock, a hash or error for each key, life extended to, and until when."""
    if not (
        type(reply) is list and len(reply) == keys + 3 and type(reply[0]) is type(reply[-2]) is type(reply[-1]) is int
    ):
        return False
    for found in reply[1:-2]:  # no generator: this is asked of every answer
        if type(found) is not list:
            if type(found) is not bytes:
                return False
        elif len(found) % 2 or not _BYTES.issuperset(map(type, found)):
            return False
    return True


_BYTES = frozenset({bytes})

_WRITTEN = re.compile(rb"written(\d{16})(.{8}(\d{16}).*)", re.DOTALL)
"""The reply about one category: its versions before and after a write; its description begins behind the first."""

_REFUSALS = {b"dead": 0, b"gone": 0, b"late": 1, b"large": 1, b"no number": 1, b"less": 1}
_OF_A_CATEGORY = (b"large", b"no number", b"less")


def write_fits(reply: Any, keys: int) -> bool:
    """Return whether ``write.lua`` replies so: the first key is the auth hash, the others are the categories."""
    return written(reply, [str(number) for number in range(1, keys)]) is not None


def merge_fits(reply: Any, keys: int) -> bool:
    """Return whether ``merge.lua`` replies so, however many steps it was given."""
    if type(reply) is list and reply and reply[0] == b"merged":
        known = len(reply) > 1 and all(type(part) is int for part in reply[1:])
        return known and all(0 <= outcome < len(Outcome) for outcome in reply[2:])
    return _status_fits(reply, {b"dead": 0, b"gone": 0, b"late": 1, b"less": 0})


def canary_fits(reply: Any, keys: int) -> bool:
    """Return whether ``canary.lua`` replies so."""
    if not (type(reply) is list and [type(part) for part in reply] == [int, bytes, int]):
        return False
    return bool(reply[1].isascii())


TOMBSTONES = (b"dead", b"ended")
"""Answers of ``push.lua`` that tell of a tombstone: one that the database may not know of, and one that it knows of."""


def push_fits(reply: Any, keys: int) -> bool:
    """Return whether ``push.lua`` replies so."""
    return reply in (b"pushed", b"older", *TOMBSTONES)


def tombstone_fits(reply: Any, keys: int) -> bool:
    """Return whether ``write_tombstone.lua`` replies so."""
    return bool(reply == b"buried")


def number_fits(reply: Any, keys: int) -> bool:
    """Return whether ``extend_idle.lua`` or ``quarantine.lua`` replies so."""
    return type(reply) is int


def _status_fits(reply: Any, numbers: Mapping[bytes, int]) -> bool:
    """Return whether a reply is a status with as many numbers behind it as that status has."""
    if not (type(reply) is list and reply and type(reply[0]) is bytes):
        return False
    return numbers.get(reply[0]) == len(reply) - 1 and all(type(part) is int for part in reply[1:])


def answer(
    digest: str,
    names: Sequence[str],
    kind: str,
    reply: Sequence[Any],
    known: Mapping[str, CategoryCopy] = NO_RECORDS,
    codec: Codec = PLAIN,
) -> Answer:
    """Return what a reply to ``read.lua`` says.

    :param known: what the reader said that it has.
    :param codec: of the values.
    :raises Crossed: it is the answer to another question.
    """
    found: dict[str, CategoryCopy] = {}
    damaged, foreign = [], []
    for name, part in zip(names, reply[1:-2], strict=True):
        try:
            if type(part) is bytes:
                found[name] = _unchanged(part, digest, known.get(name))
            elif name == AUTH and kind == "u":
                found[name] = _auth(part, digest, reply[0], codec)
            else:
                found[name] = _category(part, digest, name, codec)
        except (Damaged, ValueError) as error:
            damaged.append(name)
            if isinstance(error, Foreign):
                foreign.append(name)
            found[name] = NOT_THERE
    return Answer(
        reply[0],
        found,
        tuple(damaged),
        tuple(foreign),
        moved_ms=reply[-2],
        due_ms=reply[-1],
    )


def _unchanged(part: bytes, digest: str, known: CategoryCopy | None) -> CategoryCopy:
    """Return the reader's own record, if its mark stands in the place of a hash; else that is an error text."""
    if known is not None and part == known.mark:
        return known
    raise Damaged if part.startswith(b"WRONGTYPE") else Crossed


def copy_of(digest: str, name: str, reply: Sequence[Any], codec: Codec = PLAIN) -> CategoryCopy:
    """Return one category as it is. If it is not there it is empty as of now."""
    said = answer(digest, (name,), "a", reply, codec=codec)
    copy = said.records[name]
    return copy if copy.version else CategoryCopy(empty_as_of(said.now_ms), {})


def _category(found: Sequence[bytes], digest: str, name: str, codec: Codec) -> CategoryCopy:
    """Return the record of a category that a hash holds."""
    if not found:
        return NOT_THERE
    flat = iter(found)
    fields = {str(field, "utf-8"): value for field, value in zip(flat, flat, strict=True)}
    return described(digest, fields.pop("@m", b""), codec.from_store(digest, name, fields))


def _auth(found: Sequence[bytes], digest: str, now_ms: int, codec: Codec) -> CategoryCopy:
    """Return a session's auth record from a hash. One that names another digest is a crossed reply or a moved key."""
    if not found:
        return NOT_THERE
    flat = iter(found)
    everything = {str(name, "utf-8"): value for name, value in zip(flat, flat, strict=True)}
    meta, user = everything.get("@m", b""), everything.get("@u")
    if meta and meta[:OWN] != digest[:OWN].encode():
        raise Foreign
    said = auth_meta.said(digest, meta)
    if said is None:
        raise Damaged
    fields: Fields = {name: value for name, value in everything.items() if name[:1] != "@"}
    if not said.is_live:
        return CategoryCopy(said.version, fields, auth=AuthEntry(None, in_database=said.version > 0))
    fields = codec.from_store(digest, AUTH, fields, said.version)
    row = AuthRow(
        digest=digest,
        user_id=None if user is None else str(user, "utf-8"),
        version=said.version,
        live=True,
        payload=fields,
        user_epoch=said.user_epoch,
        created_at=said.created_at,
        idle_expires_at=said.idle_expires_at,
        absolute_expires_at=said.absolute_expires_at,
        read_at=now_ms,
    )
    entry = AuthEntry(row, said.stamp, is_readable=all(map(is_readable, fields.values())))
    return CategoryCopy(said.version, fields, meta, auth=entry)


def written(reply: Any, names: Collection[str]) -> Written | None:
    """Return what a reply to ``write.lua`` says; None: it is none to a write of these categories."""
    parts = reply if type(reply) is list else [reply]
    if len(parts) != len(names):
        return _refused(reply, names)
    versions = {}
    for name, part in zip(names, parts, strict=True):
        found = _WRITTEN.match(part) if type(part) is bytes else None
        if found is None:
            return _refused(reply, names)
        before, meta, after = found.groups()
        versions[name] = Change(int(before), int(after), meta)
    return Written("written", versions)


def _refused(reply: Any, names: Collection[str]) -> Written | None:
    if not _status_fits(reply, _REFUSALS):
        return None
    status, *number = reply
    if status not in _OF_A_CATEGORY:
        return Written(str(status, "ascii"))
    return Written(str(status, "ascii"), category=[*names][number[0] - 1]) if 0 < number[0] <= len(names) else None


def merged(reply: Sequence[Any]) -> Merged:
    status = str(reply[0], "ascii")
    if status != "merged":
        return Merged(status)
    return Merged(status, reply[1], tuple(map(Outcome, reply[2:])))
