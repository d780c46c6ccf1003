"""The way to one Redis or Valkey: connections, whole exchanges over them, and errors in the words of this package.

Nothing but :class:`StoreError` comes out of here, whatever a server says; and a connection is kept only if every reply
over it was one that the question has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import exceptions as driver
from redis.connection import ConnectionPool

from ...policy.errors import ErrorClass, StoreError, role_of
from ...policy.health import PRIMARY
from ...support.forks import renew_in_children
from ...support.lag import LEAST_WAIT, PROCESS, Lag, Wait
from ...support.logs import fields
from .commands import CLOCK, Command
from .connections import Pool, connect, doubt
from .dns import DnsCache
from .errors import is_known, translate
from .records import Written, written
from .server_identity import NEVER_MS, Server, ServerIdentity

if TYPE_CHECKING:
    from .near import Reading

log = logging.getLogger(__name__)

Understand = Callable[[Sequence[Any], Server], bool]


class Reports(NamedTuple):
    """Callbacks by which a link tells of itself.

    :param waited: the seconds until a connection was there, each time none lay ready.
    :param surprised: the name of an error that stands in no table; it counts as unreachable.
    """

    waited: Callable[[float], None] = lambda seconds: None
    surprised: Callable[[str], None] = lambda error: None


class Link:
    """The way to one server.

    :param name: ``primary``, ``replica``, or one of those with a shard: for errors and metrics.
    :param pool: where to connect to and how; any pool of redis-py, also of a ready client or of fakeredis.
    :param server_identity: told of every server that is connected to.
    :param connect_timeout: seconds that a request may wait for a new connection, its greeting included.
    :param lag: says what time it is, and how late this process is.
    :ivar connect_timeout: as it was given.
    :ivar on_forget: called without arguments when connections are to be forgotten, for those beside the pool.
    """

    def __init__(
        self,
        name: str,
        pool: ConnectionPool,
        *,
        server_identity: ServerIdentity,
        reports: Reports | None = None,
        connect_timeout: float = 0.2,
        lag: Lag = PROCESS,
    ) -> None:
        self.name = name
        self.server_identity = server_identity
        self.names = DnsCache(self.forget_connections)
        self.on_forget: Callable[[], None] = lambda: None
        self._reports = reports or Reports()
        self.connections = Pool(
            pool, self.names, usable=self.is_usable, made=self._look_at_role, waited=self._reports.waited, lag=lag
        )
        self.connect_timeout = connect_timeout
        self._announces = b""
        self._refusal = ""
        self._lag = lag
        self._clock = lag.clock
        renew_in_children(self, Link._begin)  # the parent goes on using its connections

    def _begin(self) -> None:
        self.connections.begin()

    def announcing(self, command: bytes) -> Link:
        """Return another link to the same server, on which a command stands before each other one."""
        link = copy(self)
        link._announces = command
        return link

    def run_in_time(
        self,
        commands: Callable[[int], list[Command]],
        timeout: float,
        *,
        refusals: bool = False,
    ) -> list[Any]:
        """Run scripts that do nothing after a deadline, see ``record.lua``.

        :param commands: gets the deadline, milliseconds by the server's clock; 0: its clock is not known here.
        :param refusals: return what the server refused among the replies.
        """
        end = self._end(timeout)
        by_now = self.server_identity.estimated_ms(end.began)
        deadline_ms = by_now and by_now + int(timeout * 1000)
        replies = self.run(commands(deadline_ms), timeout, refusals=refusals, end=end)
        for reply in replies:
            if type(reply) is list and reply[0] == b"late":
                break
        else:
            return replies
        # It is in time all the same: the server's clock was set, or this process was late; nothing was written.
        server_ms = reply[1]
        self.server_identity.note_clock(self.server_identity.server, server_ms, end.began)
        left = min(timeout, end.at() - self._clock())
        if left < LEAST_WAIT:
            raise StoreError(self.name, ErrorClass.LOCAL, "LateCommand")
        return self.run(commands(server_ms + int(left * 1000)), left, refusals=refusals)

    def run(
        self,
        commands: Sequence[Command],
        timeout: float,
        understand: Understand | None = None,
        *,
        refusals: bool = False,
        source: Pool | Reading | None = None,
        end: _End | None = None,
    ) -> list[Any]:
        """Send commands in one round trip and read their replies; a server that does not know a script yet is sent its
        text.

        :param timeout: seconds to wait for the replies.
        :param understand: gets good replies, and which server sent them, before the connection is used again; False:
            they belong to another question, so that nothing this connection says can be believed any more.
        :param refusals: return what the server refused among the replies.
        :param source: of the connection, if it is not the pool.
        :param end: of all waits, of what this is a part of.
        :raises StoreError: the server did not answer, or refused one of them.
        """
        if not commands:
            return []
        source, end = source or self.connections, end or self._end(timeout)
        replies, is_refused = self._exchange(commands, timeout, end, understand, source)
        if is_refused and _is_demoted(replies):
            # What was the primary is none any more, and has done nothing: the present one is found by connecting anew.
            self.forget_connections()
            left = end.at() - self._clock()
            if left > LEAST_WAIT:
                source, end = self.connections, _End(left, end.connected_until - end.began, self._lag)
                replies, is_refused = self._exchange(commands, timeout, end, understand, source)
        if is_refused:
            self._spell_out(commands, replies, timeout, end, understand, source)
        for reply in replies if is_refused and not refusals else ():
            if is_refusal(reply):
                raise self.translated(reply, sent=False)
        return replies

    def _spell_out(
        self,
        commands: Sequence[Command],
        replies: list[Any],
        timeout: float,
        end: _End,
        understand: Understand | None,
        source: Pool | Reading,
    ) -> None:
        """Put the replies of scripts that the server did not know in the place of what it said: the first of them is
        sent as its text, by which the server knows that of the others, too."""
        texts = {number: one.spelled_out for number, one in enumerate(commands) if one.spelled_out is not None}
        while unknown := [number for number in texts if type(replies[number]) is driver.NoScriptError]:
            if end.at() - self._clock() < LEAST_WAIT:
                raise StoreError(self.name, ErrorClass.LOCAL, "LateCommand")
            first, *others = unknown
            again = [Command(texts[first](), commands[first].fits), *(commands[number] for number in others)]
            found, _ = self._exchange(again, timeout, end, understand, source)
            if type(found[0]) is driver.NoScriptError:
                raise self.translated(found[0], sent=False)
            for number, reply in zip(unknown, found, strict=True):
                replies[number] = reply

    def _exchange(
        self,
        commands: Sequence[Command],
        timeout: float,
        end: _End,
        understand: Understand | None,
        source: Pool | Reading,
    ) -> tuple[list[Any], bool]:
        """Return the replies, and whether there are errors of the server among them.

        :param end: of all waits, that for a connection included.
        """
        connection, clean = None, False
        try:
            connection = source.take(end.connected_until)
            until = self._clock() + timeout
            connection.deadline.renew(until if until <= end.until else min(until, end.at()))
            replies = self._ask(connection, commands)
            is_refused = False
            for command, reply in zip(commands, replies, strict=True):
                if isinstance(reply, Exception):
                    is_refused = True
                elif not command.fits(reply):
                    # Of a read it says nothing of the server's health: the connection is out of step with its replies.
                    crossed = StoreError(self.name, ErrorClass.DATA, "CrossedReply")
                    raise crossed if understand else driver.InvalidResponse("no reply that this command has")
            if understand and not is_refused:
                # Ready clients' connections (fakeredis) do not introduce themselves: they stand for the endpoint.
                clean = understand(replies, getattr(connection, "langpont_server", self.server_identity.server))
            elif is_refused and _is_demoted(replies):
                doubt(connection)
            else:
                clean = True
            return replies, is_refused
        except StoreError:
            raise
        except Exception as error:
            if connection is not None:
                doubt(connection)
            greeting = connection is None
            raise self.translated(error, sent=not greeting, greeting=greeting, reading=bool(understand)) from None
        finally:
            # Of a connection that is kept every reply was read: one that was not would answer another question.
            if clean:
                source.put_back(connection)
            elif connection is not None:
                source.drop(connection)

    def _ask(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        if self._announces:
            announced = b"".join([self._announces + command.packed for command in commands])
            replies: list[Any] = connection.exchange(announced, 2 * len(commands))
            # One that is refused is of one slot: what comes behind it is sent to the server that has that still.
            if not all(reply == b"OK" or is_refusal(reply) for reply in replies[::2]):
                raise driver.InvalidResponse("no reply that this command has")
            return replies[1::2]
        replies = connection.exchange(b"".join([command.packed for command in commands]), len(commands))
        return replies

    def over(self, connection: Any, packed: bytes, names: Collection[str], until: float) -> Written | None:
        """Write categories over a connection that is at hand, with one wait and no second try. A question for the clock
        stands in front, see :meth:`.RedisStore._change`.

        :param packed: the command.
        :param names: of the categories.
        :param until: monotonic seconds.
        :return: None: the server refused it, or the script: nothing was written.
        :raises StoreError: the server did not answer: what became of it is not known.
        """
        try:
            connection.deadline.renew(until)
            now, reply = connection.exchange(CLOCK.packed + packed, 2)
            done = written(reply, names)
            is_clock = type(now) is list and len(now) == 2
            if (not is_clock and not is_refusal(now)) or (done is None and not is_refusal(reply)):  # if busy, both
                raise driver.InvalidResponse("no reply that this command has")
            return done if done is not None and done.versions else None
        except Exception as error:
            doubt(connection)
            raise self.translated(error, sent=True, reading=False) from None

    def over_a_new_one(self, commands: Sequence[Command], timeout: float) -> float:
        """Ask over a connection that is closed afterwards.

        :return: seconds between question and answer; connecting does not count.
        :raises StoreError: it failed, or another reply came back than is expected.
        """
        connection = None
        try:
            connection = self.connections.new()
            # A late process, which waits longer by itself, shall not wait five times as long for this as for an answer.
            patience = timeout if self._lag.is_behind else max(self.connect_timeout, timeout)
            connect(connection, self._clock() + patience)
            if not connection.redis_connect_func:
                self.server_identity.ask(connection)  # a ready client's connections do not introduce themselves
            began = self._lag.passed()
            connection.deadline.renew(self._clock() + timeout)
            replies = self._ask(connection, commands)
            if any(isinstance(reply, driver.NoScriptError) for reply in replies):
                again = [Command(one.spelled_out() if one.spelled_out else one.packed, one.fits) for one in commands]
                replies = self._ask(connection, again)
            took = self._lag.passed() - began
            for error in filter(is_refusal, replies):
                raise error
            if not all(one.fits(reply) for one, reply in zip(commands, replies, strict=True)):
                raise driver.InvalidResponse("not what was written, or no reply to this")
        except Exception as error:
            if connection is not None:
                doubt(connection)
            raise self.translated(error, sent=False, greeting=True) from None
        finally:
            if connection is not None:
                connection.disconnect()
        return took

    def beside(self, timeout: float) -> Any:
        """Return a connection beside the pool, connected and greeted.

        :param timeout: seconds.
        :raises Exception: whatever redis-py raises where none can be made.
        """
        connection = self.connections.new()
        connect(connection, self._clock() + timeout)
        self._look_at_role(connection)
        return connection

    def forget_connections(self) -> None:
        """Drop the connections there are, so that the next ones go to the server that answers by then. If that one
        refuses us it is logged, though the one before may have done so, too."""
        self._refusal = ""
        self.on_forget()
        self.connections.forget()

    def is_usable(self, connection: Any) -> bool:
        """Return whether a connection leads to the right server still. After a failover, one to the former primary does
        not."""
        known = self.server_identity
        server = getattr(connection, "langpont_server", known.server)
        if server is not known.server and known.trust_since(server) == NEVER_MS:
            return False
        return bool(connection.leads_there())

    def _look_at_role(self, connection: Any) -> None:
        """Doubt the address of a primary that says it is a replica: it was one until a failover, which its name may
        have followed by now. It is read meanwhile."""
        server = getattr(connection, "langpont_server", None)
        if role_of(self.name) == PRIMARY and server is not None and not server.is_primary:
            doubt(connection)

    def _end(self, timeout: float) -> _End:
        if isinstance(timeout, Wait):
            return _End(timeout.whole, self.connect_timeout, self._lag)
        # What is no request has as much time for a new connection, its greeting included, as for an answer.
        to_connect = max(self.connect_timeout, timeout)
        return _End(timeout + to_connect, to_connect, self._lag)

    def translated(self, error: Exception, *, sent: bool, greeting: bool = False, reading: bool = True) -> StoreError:
        """Return the error for the rest of the package; what is in no table is reported.

        :param sent: the command had left.
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
            self._reports.surprised(found.cause)
        refusal = found.cause if found.error_class is ErrorClass.IDENTITY_REFUSED else ""
        if refusal and refusal != self._refusal:
            log.error("%s", found, extra=fields("identity_refused", **found.log_data))
        self._refusal = refusal or self._refusal
        return found


class _End:
    """The moment at which all waits of a call end. Time in which this process is late meanwhile does not count.

    :param seconds: until then; `to_connect`: for a new connection.
    :param lag: of this process.
    :ivar until: if it is never late, monotonic seconds; `connected_until`: likewise.
    """

    __slots__ = ("_lag", "_late", "began", "connected_until", "until")

    def __init__(self, seconds: float, to_connect: float, lag: Lag) -> None:
        self._lag = lag
        self.began = began = lag.clock()
        self.until = began + seconds
        self.connected_until = began + min(seconds, to_connect)
        self._late = lag.late(began)

    def at(self) -> float:
        """Return that moment as far as it is known by now, monotonic seconds."""
        now = self._lag.clock()
        return self.until + self._lag.late(now) - self._late


def is_refusal(reply: Any) -> bool:
    """Return whether a reply is an error of the server."""
    return isinstance(reply, Exception)


def _is_demoted(replies: Sequence[Any]) -> bool:
    return driver.ReadOnlyError in map(type, replies)
