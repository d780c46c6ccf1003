"""The commands that are sent to Redis, and the scripts of the package that they call. Pure: no I/O.

Key: ``{prefix}:{category}:{<digest>}`` (the braces around the digest are literal: the hash tag), for the anonymous
shadow of a dead session with ``:anon`` behind it. Fields: session key → encoded value. Fields that begin with ``@``
are ours: ``@m`` describes the record, that of a category as ``scripts/record.lua`` says and that of a signed-in session
as ``scripts/auth.lua`` does; ``@u`` is the user id of a signed-in session.

The version of a category is a stamp: microseconds by the server's clock, and more than any version before. It never
begins anew, so that of two copies of a category the older one is always known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha1
from importlib import resources
from typing import Any, NamedTuple

from ...policy.categories import AUTH
from ...policy.changes import CategoryChange, Operation
from ...policy.copies import NO_RECORDS, CategoryCopy, RecordRef
from ...policy.leases import TOMBSTONE_MS
from ...policy.rows import AuthRow
from ..codec.plain import PLAIN, Codec
from . import auth_meta, records
from .records import ABSENT, Limits, Merge, MergeStep, Restore, change_arguments, merge_arguments
from .wire import pack

QUARANTINE_MS = 86_400_000
"""A record that is not ours is kept for a day for an operator to look at."""

PROBE_MS = 600_000
PROBE_LIMITS = Limits(16, 4096, PROBE_MS)
"""Life of what a probe writes, and the fields and bytes it may have."""


def new_write_id() -> str:
    """Return seven characters by which a record remembers one write, so that it can be seen whether it was done."""
    return os.urandom(4).hex()[1:]


class Command(NamedTuple):
    """One command, ready to be sent.

    :param packed: what goes over the wire.
    :param fits: whether a reply is one that it can get.
    :param spelled_out: of a script that is called by its name: the command for a server that does not know it yet.
    """

    packed: bytes
    fits: Callable[[Any], bool]
    spelled_out: Callable[[], bytes] | None = None


def plain(*parts: Any, fits: Callable[[Any], bool]) -> Command:
    """Return a command that is no script."""
    return Command(pack(parts), fits)


class Script:
    """A Lua script shipped with the package.

    :param fits: whether a reply is one that it can give, and with how many keys.
    :param prefaces: the names of texts that stand before it.
    """

    def __init__(self, name: str, fits: Callable[[Any, int], bool], prefaces: Sequence[str] = ()) -> None:
        self.text = b"".join(map(_text, (*prefaces, name)))
        # Redis names scripts by their SHA-1; this is an address, not a defence.
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self.fits = fits

    def __call__(self, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """Return the command that runs the script."""
        number = len(keys)
        return Command(
            self.packed(keys, arguments),
            lambda reply: self.fits(reply, number),
            lambda: self.spelled_out(keys, arguments),
        )

    def packed(self, keys: Sequence[str], arguments: Sequence[Any]) -> bytes:
        """Return the bytes of that command on the wire, for a caller that knows what can be answered."""
        return pack(("EVALSHA", self.sha, len(keys), *keys, *arguments))

    def spelled_out(self, keys: Sequence[str], arguments: Sequence[Any]) -> bytes:
        """Return the bytes of the command for a server that does not know the script yet."""
        return pack(("EVAL", self.text, len(keys), *keys, *arguments))


def _text(name: str) -> bytes:
    return resources.files(__package__).joinpath("scripts", f"{name}.lua").read_bytes()


READ = Script("read", records.read_fits)
WRITE = Script("write", records.write_fits, ["guard", "usual", "record"])
PUSH, WRITE_TOMBSTONE = Script("push", records.push_fits, ["auth"]), Script("write_tombstone", records.tombstone_fits)
MERGE = Script("merge", records.merge_fits, ["guard", "record", "kept"])
RESTORE = Script("restore", records.merge_fits, ["guard", "record", "kept"])
CANARY, QUARANTINE = Script("canary", records.canary_fits), Script("quarantine", records.number_fits)
EXTEND_IDLE = Script("extend_idle", records.number_fits, ["auth"])


def _is_time(reply: Any) -> bool:
    if type(reply) is not list or len(reply) != 2 or not type(reply[0]) is type(reply[1]) is bytes:
        return False
    return (reply[0] + reply[1]).isdigit()


CLOCK = plain("TIME", fits=_is_time)
"""Asks for the server's clock: seconds and microseconds since 1970."""


class Guarded(NamedTuple):
    """Arguments of every command that changes categories.

    :param limits: what a category may hold.
    :param deadline_ms: by the server's clock; what arrives later does nothing. 0: none.
    :param write_id: see :func:`new_write_id`.
    :param is_kept_near: whether the sender is to be told of the next change by another.
    """

    limits: Limits
    deadline_ms: int
    write_id: str
    is_kept_near: bool = False

    def head(self, guard: str, digest: str) -> str:
        """Return the first argument of a script that changes categories, see ``guard.lua``."""
        (fields, size, empty_ms), deadline_ms, write_id, is_kept_near = self
        must_be, last_ms = _MUST_BE[guard], deadline_ms or _NO_DEADLINE
        return _head(digest, must_be, write_id, is_kept_near, size, fields, last_ms, empty_ms)


_head = "{:.11}{}{}{:d}{:07x}{:04x}{:013}999{}".format
_MUST_BE = {"alive": "L", "new": "N", "free": "F"}
_NO_DEADLINE = 10**13 - 1


class Commands:
    """Makes the commands about sessions.

    :param prefix: first part of every key.
    :param tombstone_ms: the life of a tombstone.
    :param codec: of the values: no script reads one, but for what is added to.
    """

    def __init__(self, prefix: str, tombstone_ms: int = TOMBSTONE_MS, codec: Codec = PLAIN) -> None:
        self.prefix = prefix
        self._codec = codec
        self._tombstone_ms = tombstone_ms

    def key(self, category: str, digest: str, shadow: bool = False) -> str:
        """Return the Redis key of one category of one session."""
        return f"{self.prefix}:{category}:{{{digest}}}{':anon' if shadow else ''}"

    def read(
        self, ref: RecordRef, lives_ms: Mapping[str, int], known: Mapping[str, CategoryCopy] = NO_RECORDS
    ) -> Command:
        """Return the command that reads categories.

        :param lives_ms: category → the life to extend it to when a quarter has passed (0: leave it).
        :param known: category → what the reader has of it already.
        """
        marks = [known[name].mark if name in known else b"" for name in lives_ms] if known else ()
        keys = [self.key(name, ref.digest, ref.shadow) for name in lives_ms]
        return READ(keys, (*lives_ms.values(), *marks))

    def write(self, ref: RecordRef, changes: Mapping[str, CategoryChange], guard: str, said: Guarded) -> Command:
        """Return the command that writes changed fields of categories. Should its outcome remain unknown, the changes
        are kept as they were sent."""
        return WRITE(*self.writes(ref.digest, changes, guard, said, ":anon" if ref.shadow else ""))

    def writes(
        self, digest: str, changes: Mapping[str, CategoryChange], guard: str, said: Guarded, behind: str = ""
    ) -> tuple[list[str], list[Any]]:
        """Return the keys and arguments of :meth:`write`.

        :param behind: stands behind the keys of the categories.
        """
        prefix, codec = self.prefix, self._codec
        if codec.overhead:
            said = self._within(said, changes)
        keys = [f"{prefix}:auth:{{{digest}}}"]
        arguments: list[Any] = [said.head(guard, digest)]
        for name, change in changes.items():
            keys.append(f"{prefix}:{name}:{{{digest}}}{behind}")
            arguments += change_arguments(change, codec.to_store_once(digest, name, change.sets))
        return keys, arguments

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, exact: bool = False) -> Command:
        """Return the command that puts a row into its auth hash.

        :param exact: the row's idle expiry counts even if an earlier one was later.
        """
        arguments: list[Any] = [max(1, life_ms), int(exact), "@m", auth_meta.live(row, stamp_ms)]
        if row.user_id is not None:
            arguments += ("@u", row.user_id)
        for name, value in self._codec.to_store(row.digest, AUTH, row.payload, row.version).items():
            arguments += (name, value)
        return PUSH([self.key(AUTH, row.digest)], arguments)

    def tombstone(self, digest: str, version: int, categories: Sequence[str]) -> Command:
        """Return the command that leaves a tombstone and removes the session's data.

        :param version: of the dead row; 0: the database does not know of it.
        """
        names = [AUTH, *(name for name in categories if name != AUTH)]
        meta = auth_meta.dead(digest, version)
        return WRITE_TOMBSTONE([self.key(n, digest) for n in names], [meta, self._tombstone_ms])

    def merge(self, merge: Merge | Restore, said: Guarded) -> Command:
        """Return the command that brings what a host kept of a category into it, whatever id the values had."""
        shadow, said = isinstance(merge, Merge) and merge.shadow, self._within(said, [merge.category])
        if isinstance(merge, Merge) and merge.write_id:
            said = said._replace(write_id=merge.write_id)
        keys = [self.key(AUTH, merge.digest), self.key(merge.category, merge.digest, shadow)]
        arguments = [said.head(merge.guard, merge.digest), merge.life_ms]
        if isinstance(merge, Merge):
            steps = map(partial(self._stored, merge), merge.steps)
            return MERGE(keys, [*arguments, f"{merge.since:016}", *merge_arguments(steps)])
        copy = merge.copy
        stored = self._codec.to_store(merge.digest, merge.category, copy.fields)
        fields = [part for item in stored.items() for part in item]
        return RESTORE(keys, [*arguments, copy.version, int(merge.is_partial), copy.additions, *fields])

    def _stored(self, merge: Merge, step: MergeStep) -> MergeStep:
        if step.operation not in (Operation.SET, Operation.DELETE):
            return step
        place, value, base = (merge.digest, merge.category, step.name), step.value, step.base
        if step.operation is Operation.SET and isinstance(value, bytes):
            value = self._codec.value_to_store(*place, value)
        return step._replace(value=value, base=None if base is None else self._codec.base_to_store(*place, base))

    def _within(self, said: Guarded, categories: Iterable[str]) -> Guarded:
        """Raise the limits by what the codec adds: they are for what the application stores."""
        if not any(map(self._codec.seals, categories)):
            return said
        limits = said.limits
        return said._replace(limits=limits._replace(bytes=limits.bytes + self._codec.overhead * limits.fields))

    def extend_idle(self, digest: str, idle_ms: int) -> Command:
        """Return the command that moves the idle expiry of a live auth record."""
        return EXTEND_IDLE([self.key(AUTH, digest)], [idle_ms])

    def quarantine(self, ref: RecordRef, category: str, *, only_foreign: bool) -> Command:
        """Return the command that moves a damaged record out of the way."""
        key = self.key(category, ref.digest, ref.shadow)
        return QUARANTINE([key, f"{key}:aside"], [QUARANTINE_MS, ref.digest if only_foreign else ""])


def probing(key: str, value: str) -> list[Command]:
    """Return the commands of a real write and read back. They are all that the scripts of requests run, asked for in
    the same way: a right that only those needed would open the breaker again at once."""
    change = CategoryChange(PROBE_MS, sets={"probe": value.encode()}, deletes={"none"}, increments={"count": 1})
    write_id = new_write_id()
    head = Guarded(PROBE_LIMITS, 0, write_id).head("free", key)
    write = WRITE([key, key], [head, *change_arguments(change, change.sets)])
    steps = merge_arguments([MergeStep(Operation.SET, "probe", value.encode(), ABSENT, doubts=write_id)])
    return [
        plain("DEL", key, fits=lambda reply: type(reply) is int),
        write,
        MERGE([key, key], [head, PROBE_MS, f"{0:016}", *steps]),
        write,  # of a record that is there, and was merged, it has more to ask
        READ([key], [2 * PROBE_MS]),
        QUARANTINE([key, f"{key}:aside"], [PROBE_MS, ""]),
        plain("SET", key, value, "PX", PROBE_MS, fits=lambda reply: reply == b"OK"),
        plain("GET", key, fits=lambda reply: reply == value.encode()),
    ]
