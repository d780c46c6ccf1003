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

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib import resources
from typing import Any

from redis import exceptions as driver
from redis.connection import ConnectionPool

from ..categories import AUTH
from ..forks import renew_in_children
from ..leases import TOMBSTONE_MS
from .base import AuthRow, CategoryChange, ErrorClass, StoreError
from .fence import NEVER_MS, Canary, Fence, Server
from .redis_errors import translate
from .redis_records import (
    Answer,
    Merged,
    MergeField,
    Written,
    answer,
    change_arguments,
    is_answer,
    written,
)

SET_ASIDE_MS = 86_400_000
"""A record that is not ours is kept for a day for an operator to look at."""


class Script:
    """A Lua script shipped with the package."""

    def __init__(self, name: str) -> None:
        self.text = resources.files(__package__).joinpath("scripts", f"{name}.lua").read_bytes()
        # Redis names scripts by their SHA-1; this is an address, not a defence.
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


READ, WRITE, PUSH, BURY, MERGE, SLIDE = map(Script, ("read", "write", "push", "bury", "merge", "slide"))
CANARY, SET_ASIDE = map(Script, ("canary", "set_aside"))


class RedisStore:
    """One Redis endpoint.

    :param name: ``primary`` or ``replica``, for errors and metrics.
    :param pool: where connections come from; any pool of redis-py, also of a ready client or of fakeredis.
    :param prefix: first part of every key.
    :param fence: told of every server this endpoint connects to.
    :param waited: told the seconds until a connection was there, each time none lay ready.
    """

    def __init__(
        self,
        name: str,
        pool: ConnectionPool,
        *,
        prefix: str,
        fence: Fence,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.fence = fence
        self._pool: Any = pool
        self._waited = waited
        self._begin()
        renew_in_children(self, RedisStore._begin)  # the parent goes on using its connections

    def _begin(self) -> None:
        self._idle: list[Any] = []
        # Who waits for the pool, so that a connection is given there and not onto the stack. A set, because adding to a
        # number from several threads would lose some and never come back to nought.
        self._waiting: set[int] = set()
        self._taken: set[Any] = set()
        self._most_taken = 0

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
        answers: list[Answer] = []

        def understand(replies: Sequence[Any], server: Server) -> bool:
            if not is_answer(replies[0], len(names)):
                # The connection is out of step with its replies: it is closed, and health need not hear of it.
                raise StoreError(self.name, ErrorClass.DATA, "CrossedReply")
            found = answer(digest, names, kind, replies[0])
            trusted = self.fence.trust_since(server)
            answers.append(found._replace(is_primary=server.is_primary, trust_since_ms=trusted))
            return not found.foreign

        self._run([(READ, keys, list(lives_ms.values()))], timeout, understand)
        return answers[-1]

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
        push_exact: bool = False,
    ) -> Written:
        """Write changed fields, and before them the auth record if there is one to push: one round trip.

        :param guard: ``free``, ``alive`` or ``new``, see ``write.lua``.
        :param limits: fields and bytes allowed per category.
        :param push: the row the database confirmed, and the stamp (Redis clock, ms) of that confirmation.
        :param push_exact: the row's idle expiry counts even if an earlier one was later.
        :raises StoreError: the server did not answer (outcome unknown) or refused to write.
        """
        calls: list[_Call] = []
        if push:
            calls.append(self._push_call(*push, push_life_ms, exact=push_exact))
        if changes:
            keys = [self.key(AUTH, digest), *(self.key(name, digest, shadow) for name in changes)]
            arguments: list[Any] = [guard, digest, *limits]
            for change in changes.values():
                arguments += change_arguments(change)
            calls.append((WRITE, keys, arguments))
        replies = self._run(calls, timeout)
        if push and replies[0] == b"dead":
            return Written("dead")
        return written(replies[-1], tuple(changes)) if changes else Written("written")

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        """Put a row into its auth hash by compare-and-set. Returns ``pushed``, ``dead`` or ``older``."""
        [reply] = self._run([self._push_call(row, stamp_ms, life_ms)], timeout)
        return str(reply, "ascii")

    def bury(self, digest: str, version: int, categories: Sequence[str], *, timeout: float) -> None:
        """Leave a tombstone and remove the session's data.

        :param version: of the dead row; 0: the database has not heard of it.
        """
        self._run([self._bury_call(digest, version, categories)], timeout)

    def settle(
        self,
        rows: Sequence[tuple[AuthRow, int]],
        dead: Sequence[tuple[str, int]],
        categories: Sequence[str],
        *,
        stamp_ms: int,
        timeout: float,
    ) -> None:
        """Push rows and bury dead sessions, all in one round trip.

        :param rows: row, life in ms; `dead`: digest, version.
        :param stamp_ms: the Redis clock before the database was asked for the rows.
        """
        calls = [self._push_call(row, stamp_ms, life_ms) for row, life_ms in rows]
        calls += [self._bury_call(digest, version, categories) for digest, version in dead]
        if calls:
            self._run(calls, timeout)

    def slide(self, digest: str, idle_ms: int, *, timeout: float) -> int:
        """Move the idle expiry of a live auth record to `idle_ms` from now, never past its absolute expiry.

        :return: the expiry, ms since 1970; 0: there is none to be moved.
        """
        [moved] = self._run([(SLIDE, [self.key(AUTH, digest)], [idle_ms])], timeout)
        return int(moved)

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """Look whether data was lost, over the connections that reads use; see ``canary.lua``.

        :raises StoreError: the server did not answer, or refused the write that belongs to it.
        """
        name, number = (known.generation, known.number) if known else ("", 0)
        key = f"{self.prefix}:canary"
        [(now_ms, generation, now)] = self._run([(CANARY, [key], [name, number, secrets.token_hex(8)])], timeout)
        return Canary(str(generation, "ascii"), int(now), now_ms)

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

    def set_aside(
        self, digest: str, category: str, *, timeout: float, shadow: bool = False, only_foreign: bool = False
    ) -> None:
        """Move a damaged record out of the way.

        :param only_foreign: only if the record itself names another session, not just the reply that was read.
        """
        key = self.key(category, digest, shadow)
        arguments = [SET_ASIDE_MS, digest if only_foreign else ""]
        self._run([(SET_ASIDE, [key, f"{key}:aside"], arguments)], timeout)

    def remove(self, digest: str, categories: Sequence[str], *, timeout: float) -> None:
        """Delete the records of an anonymous session (signed-in ones are buried instead)."""
        self._commands([("DEL", *(self.key(name, digest) for name in categories))], timeout)

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        """Run plain commands, all on keys of one cluster slot, in one round trip; for what no session depends on."""
        return self._commands(commands, timeout)

    @property
    def in_use(self) -> int:
        """Connections that are in use at this moment."""
        return len(self._taken)

    def take_most_in_use(self) -> int:
        """The most connections that were in use at a time since this was last asked."""
        most, self._most_taken = self._most_taken, len(self._taken)
        return most

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

    def _bury_call(self, digest: str, version: int, categories: Sequence[str]) -> _Call:
        names = [AUTH, *(name for name in categories if name != AUTH)]
        return (BURY, [self.key(n, digest) for n in names], [digest, version, TOMBSTONE_MS])

    def _push_call(self, row: AuthRow, stamp_ms: int, life_ms: int, *, exact: bool = False) -> _Call:
        meta = (
            "@d", row.digest, "@v", row.version, "@live", "1", "@at", stamp_ms, "@i", row.idle_expires_at,
            "@x", row.absolute_expires_at, "@c", row.created_at, "@e", row.user_epoch,
        )  # fmt: skip
        arguments: list[Any] = [row.version, stamp_ms, max(1, life_ms), row.idle_expires_at, int(exact), *meta]
        if row.user_id is not None:
            arguments += ("@u", row.user_id)
        for name, value in row.payload.items():
            arguments += (name, value)
        return (PUSH, [self.key(AUTH, row.digest)], arguments)

    def _run(self, calls: Sequence[_Call], timeout: float, understand: _Understand | None = None) -> list[Any]:
        """Run scripts in one round trip; a server that does not know one yet is sent its text."""
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for script, keys, arguments in calls]
        replies = self._commands(commands, timeout, understand)
        for number, reply in enumerate(replies):
            if isinstance(reply, driver.NoScriptError):
                script, keys, arguments = calls[number]
                command = ("EVAL", script.text, len(keys), *keys, *arguments)
                [replies[number]] = self._commands([command], timeout, understand)
        return replies

    def _commands(
        self, commands: Sequence[tuple[Any, ...]], timeout: float, understand: _Understand | None = None
    ) -> list[Any]:
        """Send commands and read their replies.

        :param understand: gets good replies, and who sent them, before the connection is used by anybody else; False:
            they belong to another question, so that nothing this connection says can be believed any more.
        """
        connection, clean, sent = None, False, False
        try:
            connection = self._take()
            sent = True
            self._taken.add(connection)
            if len(self._taken) > self._most_taken:
                self._most_taken = len(self._taken)
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            replies = [_read_reply(connection, timeout) for _ in commands]
            understood = True
            if understand and not any(isinstance(reply, driver.ResponseError) for reply in replies):
                # Ready clients' connections (fakeredis) do not introduce themselves: they stand for the endpoint.
                understood = understand(replies, getattr(connection, "langpont_server", self.fence.server))
            clean = understood and not any(isinstance(reply, driver.ReadOnlyError) for reply in replies)
        except (driver.RedisError, driver.RedisClusterException, OSError, UnicodeError) as error:
            raise translate(self.name, error, sent=sent) from None
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
            began = time.perf_counter()
            try:
                return self._pool.get_connection()
            finally:
                self._waiting.discard(me)
                self._waited(time.perf_counter() - began)
        try:
            useless = connection.can_read()  # nothing was asked: there is something to read only at the end
        except (driver.RedisError, OSError):
            useless = True
        if useless or not self._leads_where_it_should(connection):
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
        self._taken.discard(connection)
        if not clean or not self._leads_where_it_should(connection):
            connection.disconnect()
            clean = False
        if clean and not self._waiting:
            self._idle.append(connection)
        else:
            self._pool.release(connection)

    def _leads_where_it_should(self, connection: Any) -> bool:
        """Not so after a failover, for connections to the server that was the primary before."""
        server = getattr(connection, "langpont_server", None)
        return server is None or self.fence.trust_since(server) != NEVER_MS

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (driver.RedisError, driver.RedisClusterException, OSError, UnicodeError) as error:
            raise translate(self.name, error) from None


_Call = tuple[Script, Sequence[str], Sequence[Any]]
_Understand = Callable[[Sequence[Any], Server], bool]


def _read_reply(connection: Any, timeout: float) -> Any:
    # An error reply is returned: the replies behind it must be read before anything is raised.
    try:
        return connection.read_response(disable_decoding=True, timeout=timeout, disconnect_on_error=True)
    except driver.ResponseError as error:
        return error
