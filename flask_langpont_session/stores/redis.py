"""Redis or Valkey: one hash per category, all of one session in one cluster slot, every change one script.

Key: ``{prefix}:{category}:{<digest>}`` (the braces around the digest are literal: the hash tag), for the anonymous
shadow of a dead session with ``:anon`` behind it. Fields: session key → encoded value. Fields that begin with ``@``
are ours: ``@d`` own digest, ``@v`` version, ``@t`` time of the last write, ``@b`` bytes of all fields; in the auth
hash also ``@live``, ``@at``
stamp (Redis TIME in ms at which the confirming read of the database began), ``@i`` idle and ``@x`` absolute expiry,
``@c`` creation, ``@u`` user id, ``@e`` user epoch.

Commands go out through a connection of redis-py's pool directly: one request of a session is one script, and the
client object's command and pipeline machinery costs more than the script itself.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from importlib import resources
from typing import Any, NamedTuple

from redis import exceptions as driver
from redis.connection import ConnectionPool

from ..categories import AUTH
from ..leases import TOMBSTONE_MS
from .base import AuthRow, CategoryChange, CategoryCopy, ErrorClass, Fields, StoreError
from .fence import Fence

SET_ASIDE_MS = 86_400_000
"""A record that is not ours is kept for a day for an operator to look at."""


class Script:
    """A Lua script shipped with the package."""

    def __init__(self, name: str) -> None:
        self.text = resources.files(__package__).joinpath("scripts", f"{name}.lua").read_bytes()
        # Redis names scripts by their SHA-1; this is an address, not a defence.
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


READ, WRITE, PUSH, BURY, MERGE, SET_ASIDE = map(Script, ("read", "write", "push", "bury", "merge", "set_aside"))


class AuthEntry(NamedTuple):
    """What an auth hash says: a tombstone, or a row with the moment the database confirmed it.

    :param row: None for a tombstone.
    :param confirmed_ms: the stamp, by the Redis clock.
    """

    row: AuthRow | None
    confirmed_ms: int = 0


class Answer(NamedTuple):
    """What one read found. A category that is not there has version 0 and no fields.

    :param now_ms: the server's clock before the read.
    :param auth: None: no auth record there (or an unusable one, see `damaged`).
    :param categories: the fields of each category that was asked for.
    :param damaged: categories whose record is not one of ours.
    """

    now_ms: int
    auth: AuthEntry | None
    categories: Mapping[str, CategoryCopy]
    damaged: tuple[str, ...] = ()


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


class RedisStore:
    """One Redis endpoint.

    :param name: ``primary`` or ``replica``, for errors and metrics.
    :param pool: where connections come from; any pool of redis-py, also of a ready client or of fakeredis.
    :param prefix: first part of every key.
    :param fence: told of every server this endpoint connects to.
    """

    def __init__(self, name: str, pool: ConnectionPool, *, prefix: str, fence: Fence) -> None:
        self.name = name
        self.prefix = prefix
        self.fence = fence
        self._pool: Any = pool
        self._idle: list[Any] = []
        # Who waits for the pool, so that a connection is given there and not onto the stack. A set, because adding to a
        # number from several threads would lose some and never come back to nought.
        self._waiting: set[int] = set()
        _alive.add(self)

    def key(self, category: str, digest: str, shadow: bool = False) -> str:
        """The Redis key of one category of one session."""
        return f"{self.prefix}:{category}:{{{digest}}}{':anon' if shadow else ''}"

    def read(
        self,
        digest: str,
        lives_ms: Mapping[str, int],
        *,
        timeout: float,
        shadow: bool = False,
        kind: str = "a",
    ) -> Answer:
        """Load categories in one round trip.

        :param lives_ms: category → the life to slide it to when a quarter has passed (0: leave it).
        :param timeout: seconds to wait for the reply.
        :param kind: with ``u`` the auth hash is a record of a signed-in session, else plain fields.
        :raises StoreError: the server did not answer.
        """
        names = tuple(lives_ms)
        keys = [self.key(name, digest, shadow) for name in names]
        [reply] = self._run([(READ, keys, list(lives_ms.values()))], timeout)
        auth, categories, damaged = None, {}, []
        for name, found in zip(names, reply[1:], strict=True):
            try:
                fields, meta = _split(found, digest)
                if name == AUTH and kind == "u":
                    auth = _auth_entry(digest, fields, meta, reply[0])
                version = int(meta.get(b"@v", 0))
            except (_Damaged, ValueError):
                damaged.append(name)
                fields, version = {}, 0
            categories[name] = CategoryCopy(version, fields)
        return Answer(reply[0], auth, categories, tuple(damaged))

    def write(
        self,
        digest: str,
        changes: Mapping[str, CategoryChange],
        *,
        guard: str,
        limits: tuple[int, int],
        timeout: float,
        shadow: bool = False,
        push: tuple[AuthRow, int] | None = None,
        push_life_ms: int = 0,
    ) -> Written:
        """Write changed fields, and before them the auth record if there is one to push: one round trip.

        :param guard: ``free``, ``alive`` or ``new``, see ``write.lua``.
        :param limits: fields and bytes allowed per category.
        :param push: the row the database confirmed, and the stamp (Redis clock, ms) of that confirmation.
        :raises StoreError: the server did not answer (outcome unknown) or refused to write.
        """
        calls: list[_Call] = []
        if push:
            calls.append(self._push_call(*push, push_life_ms))
        if changes:
            keys = [self.key(AUTH, digest), *(self.key(name, digest, shadow) for name in changes)]
            arguments: list[Any] = [guard, digest, *limits]
            for change in changes.values():
                arguments += _change_arguments(change)
            calls.append((WRITE, keys, arguments))
        replies = self._run(calls, timeout)
        if push and replies[0] == b"dead":
            return Written("dead")
        return _written(replies[-1], tuple(changes)) if changes else Written("written")

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        """Put a row into its auth hash by compare-and-set. Returns ``pushed``, ``dead`` or ``older``."""
        [reply] = self._run([self._push_call(row, stamp_ms, life_ms)], timeout)
        return str(reply, "ascii")

    def bury(self, digest: str, version: int, categories: Sequence[str], *, timeout: float) -> None:
        """Leave a tombstone and remove the session's data."""
        names = [AUTH, *(name for name in categories if name != AUTH)]
        self._run([(BURY, [self.key(n, digest) for n in names], [digest, version, TOMBSTONE_MS])], timeout)

    def merge(
        self,
        digest: str,
        category: str,
        fields: Sequence[MergeField],
        *,
        guard: str,
        life_ms: int,
        timeout: float,
        shadow: bool = False,
    ) -> Merged:
        """Bring an outage's writes into a category."""
        arguments: list[Any] = [guard, digest, life_ms]
        for change in fields:
            version = "" if change.base_version is None else change.base_version
            arguments += (change.operation, change.name, change.value, version)
            arguments += (int(change.base is not None), change.base or b"", change.at_ms)
        keys = [self.key(AUTH, digest), self.key(category, digest, shadow)]
        [reply] = self._run([(MERGE, keys, arguments)], timeout)
        return Merged(str(reply[0], "ascii"), *reply[1:])

    def set_aside(self, digest: str, category: str, *, timeout: float, shadow: bool = False) -> None:
        """Move a damaged record out of the way."""
        key = self.key(category, digest, shadow)
        self._run([(SET_ASIDE, [key, f"{key}:aside"], [SET_ASIDE_MS])], timeout)

    def remove(self, digest: str, categories: Sequence[str], *, timeout: float) -> None:
        """Delete the records of an anonymous session (signed-in ones are buried instead)."""
        self._commands([("DEL", *(self.key(name, digest) for name in categories))], timeout)

    def time_ms(self, *, timeout: float) -> int:
        """The server's clock, milliseconds since 1970."""
        [(seconds, micros)] = self._commands([("TIME",)], timeout)
        return int(seconds) * 1000 + int(micros) // 1000

    def probe(self, key: str, value: str, *, timeout: float) -> None:
        """A real write and read back over a new connection, as the monitor needs to close a breaker.

        :raises StoreError: it failed, or another value came back.
        """
        connection = self._new_connection()
        try:
            with self._translated():
                connection.connect()
                if not self._pool.connection_kwargs.get("redis_connect_func"):
                    self.fence.ask(connection)  # a ready client's connections do not introduce themselves
                for command in (("SET", key, value, "PX", 600_000), ("GET", key)):
                    connection.send_command(*command)
                    reply = connection.read_response(disable_decoding=True, timeout=timeout)
            if reply != value.encode():
                raise StoreError(self.name, ErrorClass.DATA, "CanaryMismatch")
        finally:
            connection.disconnect()

    def probe_read(self, *, timeout: float) -> None:
        """A real read over a new connection."""
        connection = self._new_connection()
        try:
            with self._translated():
                connection.connect()
                connection.send_command("EXISTS", f"{self.prefix}:canary")
                connection.read_response(timeout=timeout)
        finally:
            connection.disconnect()

    def _new_connection(self) -> Any:
        """A connection beside the pool, which would keep it for ever in its books."""
        return self._pool.connection_class(**self._pool.connection_kwargs)

    def forget_connections(self) -> None:
        """Drop idle connections, so that the next ones go to the server that answers now."""
        while self._idle:
            self._put_back(self._idle.pop(), clean=False)
        self._pool.disconnect(inuse_connections=False)

    def _push_call(self, row: AuthRow, stamp_ms: int, life_ms: int) -> _Call:
        meta = (
            "@d", row.digest, "@v", row.version, "@live", "1", "@at", stamp_ms, "@i", row.idle_expires_at,
            "@x", row.absolute_expires_at, "@c", row.created_at, "@e", row.user_epoch,
        )  # fmt: skip
        arguments: list[Any] = [row.version, stamp_ms, max(1, life_ms), *meta]
        if row.user_id is not None:
            arguments += ("@u", row.user_id)
        for name, value in row.payload.items():
            arguments += (name, value)
        return (PUSH, [self.key(AUTH, row.digest)], arguments)

    def _run(self, calls: Sequence[_Call], timeout: float) -> list[Any]:
        """Run scripts in one round trip; a server that does not know one yet is sent its text."""
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for script, keys, arguments in calls]
        replies = self._commands(commands, timeout)
        for number, reply in enumerate(replies):
            if isinstance(reply, driver.NoScriptError):
                script, keys, arguments = calls[number]
                [replies[number]] = self._commands([("EVAL", script.text, len(keys), *keys, *arguments)], timeout)
        return replies

    def _commands(self, commands: Sequence[tuple[Any, ...]], timeout: float) -> list[Any]:
        connection, clean = None, False
        try:
            connection = self._take()
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            replies = [_read_reply(connection, timeout) for _ in commands]
            clean = not any(isinstance(reply, driver.ReadOnlyError) for reply in replies)
        except (driver.RedisError, driver.RedisClusterException, OSError, UnicodeError) as error:
            raise translate(self.name, error) from None
        finally:
            if connection is not None:
                self._put_back(connection, clean)
        for reply in replies:
            if isinstance(reply, driver.ResponseError) and not isinstance(reply, driver.NoScriptError):
                raise translate(self.name, reply)
        return replies

    def _take(self) -> Any:
        """A connection that is ready. An own stack stands before the pool, whose books cost more than a script."""
        try:
            connection = self._idle.pop()
        except IndexError:
            me = threading.get_ident()
            self._waiting.add(me)
            try:
                return self._pool.get_connection()
            finally:
                self._waiting.discard(me)
        try:
            closed = connection.can_read()  # nothing was asked: there is something to read only at the end
        except (driver.RedisError, OSError):
            closed = True
        if closed:
            connection.disconnect()
            try:
                connection.connect()
            except BaseException:  # whatever ended it: the pool must have its connection back
                self._put_back(connection, clean=False)
                raise
        return connection

    def _put_back(self, connection: Any, clean: bool) -> None:
        """Keep a connection for the next request.

        :param clean: every reply was read. A reply that was not read would answer somebody else's question, and a
            server that has become read-only must be looked up anew.
        """
        if not clean:
            connection.disconnect()
        if clean and not self._waiting:
            self._idle.append(connection)
        else:
            self._pool.release(connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (driver.RedisError, driver.RedisClusterException, OSError, UnicodeError) as error:
            raise translate(self.name, error) from None


_alive: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_alive):
        store._idle, store._waiting = [], set()  # the parent goes on using them


os.register_at_fork(after_in_child=_after_fork_in_child)


def _change_arguments(change: CategoryChange) -> list[str | bytes | int]:
    arguments: list[str | bytes | int] = [change.life_ms, int(change.wipe), len(change.sets)]
    for name, value in change.sets.items():
        arguments += (name, value)
    arguments += (len(change.deletes), *change.deletes, len(change.increments))
    for name, by in change.increments.items():
        arguments += (name, by)
    return arguments


_Call = tuple[Script, Sequence[str], Sequence[Any]]


def _read_reply(connection: Any, timeout: float) -> Any:
    # An error reply is returned: the replies behind it must be read before anything is raised.
    try:
        return connection.read_response(disable_decoding=True, timeout=timeout, disconnect_on_error=True)
    except driver.ResponseError as error:
        return error


class _Damaged(Exception):
    """A record that is not one of ours."""


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
        raise _Damaged
    return fields, meta


def _auth_entry(digest: str, fields: Fields, meta: Mapping[bytes, bytes], now_ms: int) -> AuthEntry | None:
    if not meta:
        return None
    live = meta.get(b"@live")
    if live == b"0":
        return AuthEntry(None)
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


def _written(reply: Sequence[Any], names: Sequence[str]) -> Written:
    status = str(reply[0], "ascii")
    if status == "written":
        return Written(status, dict(zip(names, reply[1:], strict=True)))
    return Written(status, category=names[reply[1] - 1] if len(reply) > 1 else None)


# The first row that matches counts: redis-py's subclasses are not what their names say (AuthenticationError and
# BusyLoadingError *are* ConnectionErrors), so the special ones stand above the general ones.
_BY_TYPE: tuple[tuple[tuple[type[Exception], ...], ErrorClass], ...] = (
    (
        (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError),
        ErrorClass.IDENTITY_REFUSED,
    ),
    ((driver.BusyLoadingError, driver.MasterDownError), ErrorClass.BUSY),
    ((driver.MaxConnectionsError, driver.DataError, UnicodeError), ErrorClass.LOCAL),
    ((driver.ReadOnlyError, driver.OutOfMemoryError), ErrorClass.WRITE_REFUSED),
    (
        (driver.MovedError, driver.AskError, driver.TryAgainError, driver.ClusterCrossSlotError),
        ErrorClass.TOPOLOGY,
    ),
    ((driver.CrossSlotTransactionError,), ErrorClass.TOPOLOGY),
)

# Errors the driver has no class for keep their code as the first word of the text.
_BY_CODE: Mapping[str, ErrorClass] = {
    "BUSY": ErrorClass.BUSY,
    "LOADING": ErrorClass.BUSY,
    "MASTERDOWN": ErrorClass.BUSY,
    "READONLY": ErrorClass.WRITE_REFUSED,
    "OOM": ErrorClass.WRITE_REFUSED,
    "MISCONF": ErrorClass.WRITE_REFUSED,
    "NOREPLICAS": ErrorClass.WRITE_REFUSED,
    "NOAUTH": ErrorClass.IDENTITY_REFUSED,
    "WRONGPASS": ErrorClass.IDENTITY_REFUSED,
    "NOPERM": ErrorClass.IDENTITY_REFUSED,
    "WRONGTYPE": ErrorClass.DATA,
}


def classify(error: Exception) -> ErrorClass:
    """The error class of a driver error. What nobody knows counts as unreachable: fail closed, and be counted."""
    for types, error_class in _BY_TYPE:
        if isinstance(error, types):
            return error_class
    text = str(error)
    code = getattr(error, "status_code", None) or text.partition(" ")[0]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code == "ERR" and "script" in text:
        return ErrorClass.LOCAL  # the server is well; what it was asked to run is not
    if type(error) is driver.ConnectionError and text.startswith("No connection available"):
        return ErrorClass.LOCAL
    if _caused_by_tls(error):
        return ErrorClass.IDENTITY_REFUSED
    return ErrorClass.UNREACHABLE


def _caused_by_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def translate(store: str, error: Exception) -> StoreError:
    """A driver error as the rest of the package sees it: by class, without its text (which may quote values)."""
    timed_out = isinstance(error, (driver.TimeoutError, TimeoutError))
    return StoreError(store, classify(error), type(error).__name__, timed_out=timed_out)
