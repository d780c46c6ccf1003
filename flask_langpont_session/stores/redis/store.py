"""Redis or Valkey: one hash per category, all of one session in one cluster slot, every change one script.

Key: ``{prefix}:{category}:{<digest>}`` (the braces around the digest are literal: the hash tag), for the anonymous
shadow of a dead session with ``:anon`` behind it. Fields: session key → encoded value. Fields that begin with ``@``
are ours: ``@m`` describes the record of a category (``scripts/record.lua``); the auth hash of a signed-in session has
``@d`` own digest, ``@v`` version of the row, ``@live``, ``@at`` stamp (Redis TIME in ms at which the confirming read of
the database began), ``@i`` idle and ``@x`` absolute expiry, ``@c`` creation, ``@u`` user id, ``@e`` user epoch.

The version of a category is a stamp: microseconds by the server's clock, and more than any version before. It never
begins anew, so that of two copies of a category the older one is always known.

Commands go out through a connection directly: one request of a session is one script, and the client object's command
and pipeline machinery costs more than the script itself. Nothing but :class:`StoreError` comes out of here, whatever a
server says; and a connection is kept only if every reply over it was one that the question has.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha1
from importlib import resources
from time import monotonic
from typing import Any, NamedTuple

from redis import exceptions as driver
from redis.connection import ConnectionPool

from ...policy.categories import AUTH
from ...policy.health import PRIMARY
from ...policy.ids import SIGNED_IN
from ...policy.leases import TOMBSTONE_MS
from ...policy.values import (
    AuthRow,
    CategoryChange,
    CategoryCopy,
    ErrorClass,
    Operation,
    StoreError,
    Wait,
    role_of,
)
from ...support.chance import CHANCE
from ...support.forks import renew_in_children
from ...support.lag import PROCESS, Deadline
from . import records
from .connections import Pool, bound, connect, doubt
from .dns import DnsCache
from .errors import is_known, translate
from .records import (
    ABSENT,
    Answer,
    Limits,
    Merge,
    Merged,
    MergeStep,
    Restore,
    Written,
    answer,
    change_arguments,
    merge_arguments,
    merged,
    written,
)
from .server_identity import NEVER_MS, Canary, Server, ServerIdentity

log = logging.getLogger(__name__)

QUARANTINE_MS = 86_400_000
"""A record that is not ours is kept for a day for an operator to look at."""


PROBE_MS, PROBE_LIMITS = 600_000, (16, 4096)
"""Life of what a probe writes, and the fields and bytes it may have."""

_LEAST = 0.005
"""Seconds. With less left than this nothing is tried a second time."""


def _text(name: str) -> bytes:
    return resources.files(__package__).joinpath("scripts", f"{name}.lua").read_bytes()


def new_write_id() -> str:
    """Seven characters by which a record remembers one write: whether it was done can be seen there afterwards."""
    return f"{CHANCE.getrandbits(28):07x}"


class Script:
    """A Lua script shipped with the package.

    :param fits: whether a reply is one that it can give, and with how many keys.
    :param preface: the name of a text that stands before it.
    """

    def __init__(self, name: str, fits: Callable[[Any, int], bool], preface: str | None = None) -> None:
        self.text = (_text(preface) if preface else b"") + _text(name)
        # Redis names scripts by their SHA-1; this is an address, not a defence.
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self.fits = fits


READ, WRITE = Script("read", records.read_fits), Script("write", records.write_fits, "record")
PUSH, WRITE_TOMBSTONE = Script("push", records.push_fits), Script("write_tombstone", records.tombstone_fits)
MERGE, EXTEND_IDLE = Script("merge", records.merge_fits, "record"), Script("extend_idle", records.number_fits)
RESTORE = Script("restore", records.merge_fits, "record")
CANARY, QUARANTINE = Script("canary", records.canary_fits), Script("quarantine", records.number_fits)


class RedisStore:
    """One Redis endpoint.

    :param name: ``primary`` or ``replica``, for errors and metrics.
    :param pool: where to connect to and how; any pool of redis-py, also of a ready client or of fakeredis.
    :param prefix: first part of every key.
    :param server_identity: told of every server this endpoint connects to.
    :param waited: told the seconds until a connection was there, each time none lay ready.
    :param surprised: told the name of an error that stands in no table; it counts as unreachable.
    :param connect_timeout: seconds that a request may wait for a new connection, its greeting included.
    :param tombstone_ms: the life of a tombstone.
    """

    def __init__(
        self,
        name: str,
        pool: ConnectionPool,
        *,
        prefix: str,
        server_identity: ServerIdentity,
        waited: Callable[[float], None] = lambda seconds: None,
        surprised: Callable[[str], None] = lambda error: None,
        connect_timeout: float = 0.2,
        tombstone_ms: int = TOMBSTONE_MS,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.server_identity = server_identity
        self.names = DnsCache(self.forget_connections)
        self.connections = Pool(
            pool, self.names, usable=self._leads_where_it_should, made=self._look_at_role, waited=waited
        )
        self._surprised = surprised
        self._connect_timeout = connect_timeout
        self._tombstone_ms = tombstone_ms
        self._refusal = ""
        renew_in_children(self, RedisStore._begin)  # the parent goes on using its connections

    def _begin(self) -> None:
        self.connections.begin()

    @property
    def stores(self) -> Mapping[str, RedisStore]:
        """The stores that have a health of their own, by name: this one."""
        return {self.name: self}

    def asking(self) -> RedisStore:
        """The store to ask for keys that are on their way to this one: to a single server none ever are."""
        return self

    @property
    def canary_key(self) -> str:
        """Where the canary lies."""
        return f"{self.prefix}:canary"

    @property
    def canary_place(self) -> str:
        """What the names of its generations begin with, where it may have to lie elsewhere some day."""
        return ""

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
        asked_at = monotonic()

        def understand(replies: Sequence[Any], server: Server) -> bool:
            found = answer(digest, names, kind, replies[0])
            self.server_identity.note_clock(server, found.now_ms, asked_at)
            trusted = self.server_identity.trust_since(server)
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
        limits: Limits,
        timeout: float,
        write_id: str,
        shadow: bool = False,
        push: tuple[AuthRow, int] | None = None,
        push_life_ms: int = 0,
        push_exact: bool = False,
    ) -> Written:
        """Write changed fields, and before them the auth record if there is one to push: one round trip.

        What arrives at the server after `timeout` does nothing, as far as its clock is known here.

        :param guard: ``free``, ``alive`` or ``new``, see ``record.lua``.
        :param write_id: see :func:`new_write_id`.
        :param push: the row the database confirmed, and the stamp (Redis clock, ms) of that confirmation.
        :param push_exact: the row's idle expiry counts even if an earlier one was later.
        :raises StoreError: the server did not answer (outcome unknown) or refused to write.
        """
        before = [self._push_call(*push, push_life_ms, exact=push_exact)] if push else []
        if not changes:
            [reply] = self._run(before, timeout)
            return Written("dead" if reply == b"dead" else "written")
        keys = [self.key(AUTH, digest), *(self.key(name, digest, shadow) for name in changes)]
        rest = [argument for change in changes.values() for argument in change_arguments(change)]

        def calls(deadline_ms: int) -> list[_Call]:
            arguments = [guard, digest, limits.fields, limits.bytes, deadline_ms, write_id, limits.empty_ms, *rest]
            return [*before, (WRITE, keys, arguments)]

        replies = self._run_in_time(calls, timeout)
        if push and replies[0] == b"dead":
            return Written("dead")
        return written(replies[-1], tuple(changes))

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        """Put a row into its auth hash by compare-and-set. Returns ``pushed``, ``dead`` or ``older``."""
        [reply] = self._run([self._push_call(row, stamp_ms, life_ms)], timeout)
        return str(reply, "ascii")

    def write_tombstone(self, digest: str, version: int, categories: Sequence[str], *, timeout: float) -> None:
        """Leave a tombstone and remove the session's data.

        :param version: of the dead row; 0: the database has not heard of it.
        """
        self._run([self._bury_call(digest, version, categories)], timeout)

    def push_many(
        self,
        rows: Sequence[tuple[AuthRow, int]],
        dead: Sequence[tuple[str, int]],
        categories: Sequence[str],
        *,
        stamp_ms: int,
        timeout: float,
    ) -> None:
        """Push rows and write tombstones of dead sessions, all in one round trip.

        :param rows: row, life in ms; `dead`: digest, version.
        :param stamp_ms: the Redis clock before the database was asked for the rows.
        """
        calls = [self._push_call(row, stamp_ms, life_ms) for row, life_ms in rows]
        calls += [self._bury_call(digest, version, categories) for digest, version in dead]
        if calls:
            self._run(calls, timeout)

    def extend_idle(self, digest: str, idle_ms: int, *, timeout: float) -> int:
        """Move the idle expiry of a live auth record to `idle_ms` from now, never past its absolute expiry.

        :return: the expiry, ms since 1970; 0: there is none to be moved.
        """
        [moved] = self._run([(EXTEND_IDLE, [self.key(AUTH, digest)], [idle_ms])], timeout)
        return int(moved)

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """Look whether data was lost, over the connections that reads use; see ``canary.lua``.

        :raises StoreError: the server did not answer, or refused the write that belongs to it.
        """
        name, number = (known.generation, known.number) if known else ("", 0)
        new = f"{self.canary_place}{secrets.token_hex(8)}"
        [(now_ms, generation, now)] = self._run([(CANARY, [self.canary_key], [name, number, new])], timeout)
        return Canary(str(generation, "ascii"), int(now), now_ms)

    def merge(self, merge: Merge | Restore, *, limits: Limits, timeout: float, write_id: str) -> Merged:
        """Bring what a host kept for one category of one session into it, see :meth:`merge_all`."""
        [merged] = self.merge_all([merge], limits=limits, timeout=timeout, write_id=write_id)
        if isinstance(merged, StoreError):
            raise merged
        return merged

    def merge_all(
        self, merges: Sequence[Merge | Restore], *, limits: Limits, timeout: float, write_id: str
    ) -> list[Merged | StoreError]:
        """Bring what a host kept into its categories, all in one round trip. What arrives at the server after
        `timeout` does nothing, as far as its clock is known here.

        :param write_id: see :func:`new_write_id`.
        :return: what became of each; of one that the server refused, why. Additions among what was refused were not
            made.
        :raises StoreError: the server did not answer: what became of any is unknown.
        """

        def calls(deadline_ms: int) -> list[_Call]:
            return [self._merge_call(merge, limits, deadline_ms, write_id) for merge in merges]

        replies = self._run_in_time(calls, timeout, refusals=True) if merges else []
        return [self._translated(reply, sent=False) if _is_refusal(reply) else merged(reply) for reply in replies]

    def _merge_call(self, merge: Merge | Restore, limits: Limits, deadline_ms: int, write_id: str) -> _Call:
        shadow = isinstance(merge, Merge) and merge.shadow
        write_id = (isinstance(merge, Merge) and merge.write_id) or write_id
        keys = [self.key(AUTH, merge.digest), self.key(merge.category, merge.digest, shadow)]
        arguments: list[Any] = [merge.guard, merge.digest, merge.life_ms, limits.fields, limits.bytes]
        arguments += [deadline_ms, write_id, limits.empty_ms]
        if isinstance(merge, Merge):
            return (MERGE, keys, [*arguments, *merge_arguments(merge.steps)])
        fields = [part for item in merge.copy.fields.items() for part in item]
        return (RESTORE, keys, [*arguments, merge.copy.version, int(merge.is_partial), merge.copy.additions, *fields])

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        """Categories as they are, all in one round trip. One that is not there is empty as of now.

        :param wanted: digest and category of each.
        """
        replies = self._read_each(wanted, timeout)
        return [records.copy_of(digest, name, reply) for (digest, name), reply in zip(wanted, replies, strict=True)]

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]:
        """The auth records of signed-in sessions, all in one round trip; nothing is slid."""
        replies = self._read_each([(digest, AUTH) for digest in digests], timeout)
        return [answer(digest, (AUTH,), SIGNED_IN, reply) for digest, reply in zip(digests, replies, strict=True)]

    def _read_each(self, wanted: Sequence[tuple[str, str]], timeout: float) -> list[Any]:
        calls: list[_Call] = [(READ, [self.key(name, digest)], [0]) for digest, name in wanted]
        return self._run(calls, timeout) if calls else []

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        """The clock of the server that has a session, see :meth:`ServerIdentity.estimated_ms`."""
        return self.server_identity.estimated_ms(at, latest=latest)

    def quarantine(
        self, digest: str, category: str, *, timeout: float, shadow: bool = False, only_foreign: bool = False
    ) -> None:
        """Move a damaged record out of the way.

        :param only_foreign: only if the record itself names another session, not just the reply that was read.
        """
        key = self.key(category, digest, shadow)
        arguments = [QUARANTINE_MS, digest if only_foreign else ""]
        self._run([(QUARANTINE, [key, f"{key}:aside"], arguments)], timeout)

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        """Run plain commands, all on keys of one cluster slot, in one round trip; for what no session depends on."""
        return self._commands(commands, timeout, lambda number, reply: not isinstance(reply, Exception))

    @property
    def in_use(self) -> int:
        """Connections that are in use at this moment."""
        return self.connections.in_use

    def take_most_in_use(self) -> int:
        """The most connections that were in use at a time since this was last asked."""
        return self.connections.take_most_in_use()

    def time_ms(self, *, timeout: float) -> int:
        """The server's clock, milliseconds since 1970."""
        [(seconds, micros)] = self._commands([("TIME",)], timeout, _is_time)
        return int(seconds) * 1000 + int(micros) // 1000

    def probe(self, key: str, value: str, *, timeout: float) -> float:
        """A real write and read back over a new connection, as the monitor needs to close a breaker.

        It runs every command that the scripts of requests do, and asks for them in the same way: a right that only they
        needed would open the breaker again at once.

        :return: seconds between question and answer; connecting does not count.
        :raises StoreError: it failed, or another value came back.
        """
        change = CategoryChange(PROBE_MS, sets={"probe": value.encode()}, deletes={"none"}, increments={"count": 1})
        write_id = new_write_id()
        common: list[Any] = [*PROBE_LIMITS, 0, write_id, PROBE_MS]
        write = _scripted(WRITE, [key, key], ["free", key, *common, *change_arguments(change)])
        merged = merge_arguments([MergeStep(Operation.SET, "probe", value.encode(), ABSENT, doubts=write_id)])
        return self._over_a_new_one(
            [
                _Question(("DEL", key), lambda reply: type(reply) is int),
                write,
                _scripted(MERGE, [key, key], ["free", key, PROBE_MS, *common, *merged]),
                write,  # of a record that is there, and was merged, it has more to ask
                _scripted(READ, [key], [2 * PROBE_MS]),
                _scripted(QUARANTINE, [key, f"{key}:aside"], [PROBE_MS, ""]),
                _Question(("SET", key, value, "PX", PROBE_MS), lambda reply: reply == b"OK"),
                _Question(("GET", key), lambda reply: reply == value.encode()),
            ],
            timeout,
        )

    def probe_read(self, *, timeout: float) -> float:
        """A real read over a new connection, as requests read.

        :return: seconds between question and answer.
        :raises StoreError: it failed.
        """
        return self._over_a_new_one([_scripted(READ, [self.canary_key], [1])], timeout)

    def _over_a_new_one(self, asked: Sequence[_Question], timeout: float) -> float:
        """Ask over a connection that is closed afterwards."""
        connection = None
        try:
            connection = self.connections.new()
            # A late process, which waits longer by itself, shall not wait five times as long for this as for an answer.
            connect(connection, monotonic() + (timeout if PROCESS.is_behind else self._to_connect(timeout)))
            if not connection.redis_connect_func:
                self.server_identity.ask(connection)  # a ready client's connections do not introduce themselves
            began = PROCESS.passed()
            bound(connection, monotonic() + timeout)
            replies = _ask(connection, [one.command for one in asked])
            if any(isinstance(reply, driver.NoScriptError) for reply in replies):
                replies = _ask(connection, [one.spelled_out or one.command for one in asked])
            took = PROCESS.passed() - began
            for error in filter(_is_refusal, replies):
                raise error
            if not all(one.fits(reply) for one, reply in zip(asked, replies, strict=True)):
                raise driver.InvalidResponse("not what was written, or no reply to this")
        except Exception as error:
            if connection is not None:
                doubt(connection)
            raise self._translated(error, sent=False, greeting=True) from None
        finally:
            if connection is not None:
                connection.disconnect()
        return took

    def forget_connections(self) -> None:
        """Drop the connections there are, so that the next ones go to the server that answers now. That it refuses us
        is said, though the one before may have done so, too."""
        self._refusal = ""
        self.connections.forget()

    def _bury_call(self, digest: str, version: int, categories: Sequence[str]) -> _Call:
        names = [AUTH, *(name for name in categories if name != AUTH)]
        return (WRITE_TOMBSTONE, [self.key(n, digest) for n in names], [digest, version, self._tombstone_ms])

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

    def _run_in_time(self, calls: Callable[[int], list[_Call]], timeout: float, *, refusals: bool = False) -> list[Any]:
        """Run scripts that do nothing after a deadline, see ``record.lua``.

        :param calls: gets the deadline, milliseconds by the server's clock; 0: its clock is not known here.
        :param refusals: return what the server refused among the replies.
        """
        began = monotonic()
        end = Deadline.after(self._whole(timeout))
        by_now = self.server_identity.estimated_ms(began)
        replies = self._run(calls(by_now and by_now + int(timeout * 1000)), timeout, refusals=refusals)
        late = next((reply for reply in replies if type(reply) is list and reply[0] == b"late"), None)
        if late is None:
            return replies
        # It is in time all the same: the server's clock was set, or this process was late; nothing was written.
        self.server_identity.note_clock(self.server_identity.server, late[1], began)
        left = min(timeout, end.left())
        if left < _LEAST:
            raise StoreError(self.name, ErrorClass.LOCAL, "LateCommand")
        return self._run(calls(late[1] + int(left * 1000)), left, refusals=refusals)

    def _run(
        self,
        calls: Sequence[_Call],
        timeout: float,
        understand: _Understand | None = None,
        *,
        refusals: bool = False,
    ) -> list[Any]:
        """Run scripts in one round trip; a server that does not know one yet is sent its text.

        :param refusals: return what the server refused among the replies.
        """
        commands = [_by_name(*call) for call in calls]

        def fits(number: int, reply: Any) -> bool:
            script, keys, _ = calls[number]
            return script.fits(reply, len(keys))

        replies = self._commands(commands, timeout, fits, understand, refusals=refusals)
        for number, reply in enumerate(replies):
            if isinstance(reply, driver.NoScriptError):
                script, keys, arguments = calls[number]
                command = _spelled_out(script, keys, arguments)
                known = partial(_fits_alone, script, len(keys))
                [replies[number]] = again = self._commands([command], timeout, known, understand, refusals=refusals)
                if isinstance(again[0], driver.NoScriptError):
                    raise self._translated(again[0], sent=False)
        return replies

    def _commands(
        self,
        commands: Sequence[tuple[Any, ...]],
        timeout: float,
        fits: Callable[[int, Any], bool],
        understand: _Understand | None = None,
        *,
        refusals: bool = False,
    ) -> list[Any]:
        """Send commands and read their replies. Errors of the server are raised, but for a script it does not know.

        :param fits: whether a reply can be one to the command of that number.
        :param understand: gets good replies, and which server sent them, before the connection is used again; False:
            they belong to another question, so that nothing this connection says can be believed any more.
        """
        end = Deadline.after(self._whole(timeout))
        replies = self._exchange(commands, timeout, end, fits, understand)
        if _is_demoted(replies):
            # What was the primary is none any more, and has done nothing: the present one is found by connecting anew.
            self.forget_connections()
            if end.left() > _LEAST:
                replies = self._exchange(commands, timeout, end, fits, understand)
        for reply in replies:
            if _is_refusal(reply) and not isinstance(reply, driver.NoScriptError) and not refusals:
                raise self._translated(reply, sent=False)
        return replies

    def _exchange(
        self,
        commands: Sequence[tuple[Any, ...]],
        timeout: float,
        end: Deadline,
        fits: Callable[[int, Any], bool],
        understand: _Understand | None,
    ) -> list[Any]:
        connection, clean = None, False
        try:
            connection = self.connections.take(monotonic() + min(end.left(), self._to_connect(timeout)))
            bound(connection, monotonic() + min(end.left(), timeout))
            replies = _ask(connection, commands)
            refused = False
            for number, reply in enumerate(replies):
                if isinstance(reply, Exception):
                    refused = True
                elif not fits(number, reply):
                    # Of a read it says nothing of the server's health: the connection is out of step with its replies.
                    crossed = StoreError(self.name, ErrorClass.DATA, "CrossedReply")
                    raise crossed if understand else driver.InvalidResponse("no reply that this command has")
            clean = True
            if understand and not refused:
                # Ready clients' connections (fakeredis) do not introduce themselves: they stand for the endpoint.
                clean = understand(replies, getattr(connection, "langpont_server", self.server_identity.server))
            elif refused and _is_demoted(replies):
                clean = False
                doubt(connection)
        except StoreError:
            raise
        except Exception as error:
            if connection is not None:
                doubt(connection)
            greeting = connection is None
            raise self._translated(error, sent=not greeting, greeting=greeting, reading=bool(understand)) from None
        finally:
            if connection is not None:
                self._put_back(connection, clean)
        return replies

    def _put_back(self, connection: Any, clean: bool) -> None:
        """Keep a connection for the next request.

        :param clean: every reply was read. A reply that was not read would answer another request's question, and a
            server that has become read-only must be looked up anew.
        """
        if clean and self._leads_where_it_should(connection):
            self.connections.put_back(connection)
        else:
            self.connections.drop(connection)

    def _leads_where_it_should(self, connection: Any) -> bool:
        """Not so after a failover, for connections to the server that was the primary before."""
        server = getattr(connection, "langpont_server", None)
        return server is None or self.server_identity.trust_since(server) != NEVER_MS

    def _look_at_role(self, connection: Any) -> None:
        """A primary that says it is a replica was one until a failover, which its name may have followed by now. It is
        read meanwhile."""
        server = getattr(connection, "langpont_server", None)
        if role_of(self.name) == PRIMARY and server is not None and not server.is_primary:
            doubt(connection)

    def _whole(self, timeout: float) -> float:
        return timeout.whole if isinstance(timeout, Wait) else timeout + self._to_connect(timeout)

    def _to_connect(self, timeout: float) -> float:
        """Seconds for a new connection, its greeting included. What is no request has as much time as for an answer."""
        own = self._connect_timeout
        return own if isinstance(timeout, Wait) else max(own, timeout)

    def _translated(self, error: Exception, *, sent: bool, greeting: bool = False, reading: bool = True) -> StoreError:
        """The error for the rest of the package; what is in no table is counted and said.

        :param greeting: no user's data was involved yet, so none can be to blame.
        :param reading: stored data may be in the reply.
        """
        found = translate(self.name, error, sent=sent)
        own = isinstance(error, driver.MaxConnectionsError)
        blameless = {ErrorClass.DATA, ErrorClass.LOCAL} if greeting and not own else set()
        blameless |= set() if reading else {ErrorClass.DATA}
        if found.error_class in blameless:
            found = StoreError(self.name, ErrorClass.UNREACHABLE, found.cause, sent=sent)
        if not is_known(error):
            self._surprised(found.cause)
        refusal = found.cause if found.error_class is ErrorClass.IDENTITY_REFUSED else ""
        if refusal and refusal != self._refusal:
            log.error("%s", found)
        self._refusal = refusal or self._refusal
        return found


_Call = tuple[Script, Sequence[str], Sequence[Any]]
_Understand = Callable[[Sequence[Any], Server], bool]


class _Question(NamedTuple):
    """Something to ask by itself.

    :param fits: whether a reply is one to it.
    :param spelled_out: how to ask it of a server that does not know the script.
    """

    command: tuple[Any, ...]
    fits: Callable[[Any], bool]
    spelled_out: tuple[Any, ...] | None = None


def _scripted(script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> _Question:
    return _Question(
        _by_name(script, keys, arguments),
        lambda reply: script.fits(reply, len(keys)),
        _spelled_out(script, keys, arguments),
    )


def _ask(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies, errors of the server among them."""
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [_read_reply(connection) for _ in commands]


def _read_reply(connection: Any) -> Any:
    # An error reply is returned: the replies behind it must be read before anything is raised.
    try:
        return connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except (driver.ResponseError, driver.BusyLoadingError) as error:
        return error


def _is_refusal(reply: Any) -> bool:
    return isinstance(reply, Exception)


def _is_demoted(replies: Sequence[Any]) -> bool:
    return driver.ReadOnlyError in map(type, replies)


def _by_name(script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> tuple[Any, ...]:
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)


def _spelled_out(script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> tuple[Any, ...]:
    return ("EVAL", script.text, len(keys), *keys, *arguments)


def _fits_alone(script: Script, keys: int, number: int, reply: Any) -> bool:
    return script.fits(reply, keys)


def _is_time(number: int, reply: Any) -> bool:
    return type(reply) is list and len(reply) == 2 and all(type(part) is bytes and part.isdigit() for part in reply)
