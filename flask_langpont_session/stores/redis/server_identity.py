"""Noticing that a Redis server may be older than the database: which server is it, and since when is it trusted?

Failover and restart need a new connection, and a new connection asks the server for its identity. Another answer than
the one seen last is an incident: from that moment on no stamp from before counts, and every signed-in session is
verified once against the database. What keeps the connection (an emptied server, a restored snapshot) is found by a
canary: a number that only grows, under a name that changes with every loss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from redis.exceptions import RedisError, ResponseError

from ...policy.servers import ServerRecord
from ...support.forks import renew_in_children

_PRIMARY_ROLE = "master"

NEVER_MS = 2**63
"""Later than any stamp: what is trusted since then is not trusted."""


class Canary(NamedTuple):
    """A number that lies in a server to show that nothing was lost.

    :param canary_id: a random name, a new one after each loss; before a colon in it, where the canary lies.
    :param number: grows with every look of any worker.
    :param now_ms: the server's clock at that look.
    """

    canary_id: str
    number: int
    now_ms: int

    @property
    def place(self) -> str:
        """Return where the canary lies, if it may lie in several places."""
        return self.canary_id.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Server:
    """The server at the other end of a connection.

    :param identity: see :func:`identity_of`: new after every start, promotion and resynchronisation. None: it does not
        say.
    :param is_primary: whether it is the primary of its replication group.
    """

    identity: str | None = None
    is_primary: bool = True

    @property
    def run_id(self) -> str | None:
        """Return what names the process of the server, whatever its role is; None: it does not say."""
        return self.identity and self.identity.partition(":")[0]


class Memory(Protocol):
    """The place where a host's workers keep what they know of a server: a new one need not begin with nothing."""

    def recall(self) -> ServerRecord | None:
        """Return what was noted last; None: nothing, or it cannot be read."""

    def note(self, record: ServerRecord) -> None:
        """Note what is known of the server. Must not raise."""


SET_FORWARD_MS = 10_000
"""From so many milliseconds on, by which a server's clock was set forward, it may lack data: what lived for less is
gone. A record that is in use lives for longer."""

_MORE_THAN_ANY = 1 << 52
"""Added to a canary's number: then the one that lies there is the smaller one."""

_DRIFT = 0.0005
"""Seconds by which one of two clocks may gain on the other in a second: NTP lets a clock run so fast (adjtimex(2))."""


class _Ahead(NamedTuple):
    """The lead of a server's clock over this process's monotonic one, in milliseconds.

    :param least: so far at least, and `most`: at most.
    :param at_ms: when that was so, by the monotonic clock.
    """

    server: Server
    least: float
    most: float
    at_ms: float

    def after(self, before: _Ahead) -> _Ahead:
        """Combine two leads: both are true, but for the time between. Where not, a clock was set, and this one counts.

        What comes out lies within this one. So a clock that runs faster for a while than is thought possible here, as
        chrony may let it, is never known worse than by the last answer alone.
        """
        drift = (self.at_ms - before.at_ms) * _DRIFT
        least, most = max(self.least, before.least - drift), min(self.most, before.most + drift)
        return self if least > most else _Ahead(self.server, least, most, self.at_ms)


class ServerIdentity:
    """The identity of the server behind one endpoint, and since when this worker's view of its data is unbroken.

    :param on_incident: called without arguments when another server answered than before, or data was lost; must not
        raise or block.
    :param memory: shared with the other workers of the host; None: this one begins with an incident.
    :param on_other_server: called without arguments, after that, if it is another server; must not raise or block.
    :param on_clock_set: called with the seconds by which the server's clock was set forward, after that, if it may have
        let data run out; must not raise or block.
    :param clock: monotonic seconds.
    :ivar was_set: its clock was set forward, and no canary has told the other workers so far.
    """

    def __init__(
        self,
        on_incident: Callable[[], None] = lambda: None,
        memory: Memory | None = None,
        on_other_server: Callable[[], None] = lambda: None,
        on_clock_set: Callable[[float], None] = lambda seconds: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.trust_since_ms = 0
        self.was_set = False
        self.server = Server()
        self.canary: Canary | None = None
        self._memory = memory
        self._on_incident = on_incident
        self._on_other_server = on_other_server
        self._on_clock_set = on_clock_set
        self._lock = threading.RLock()
        self._clock: _Ahead | None = None
        renew_in_children(self, ServerIdentity._renew)

    @property
    def identity(self) -> str | None:
        """Return the identity of the server seen last."""
        return self.server.identity

    @property
    def mark(self) -> str:
        """Return a name of the server as it is since it lost data last. It ends with a space where that is not known:
        no canary was looked at, or none since its clock was set. It waits for a thread that is noticing a loss."""
        with self._lock:
            canary = None if self.was_set else self.canary
            return f"{self.server.identity} {canary.canary_id if canary else ''}"

    @property
    def is_primary(self) -> bool:
        """Return whether the server seen last is a primary."""
        return self.server.is_primary

    def trust_since(self, server: Server) -> int:
        """Return since when (ms, that server's clock) stamps of a reply count, by the connection it came over.

        A connection to another server than the one seen last may be to one that was demoted: it is never trusted.
        """
        return self.trust_since_ms if server.identity == self.server.identity else NEVER_MS

    def note_clock(self, server: Server, now_ms: int, asked_at: float) -> None:
        """Note a server's clock as just told. A slow answer says less than one before, which still holds.

        :param now_ms: milliseconds by its own clock.
        :param asked_at: monotonic seconds, before it was asked.
        """
        at_ms, before = self.clock() * 1000, self._clock
        clock = _Ahead(server, now_ms - at_ms, now_ms + 1 - asked_at * 1000, at_ms)
        if before is None or before.server is not server:
            self._clock = clock
            return
        self._clock = now = clock.after(before)
        if now is clock:  # the two cannot both be true
            self.clock_was_set(round(clock.least - before.most), now_ms)

    def clock_was_set(self, by_ms: int, now_ms: int) -> None:
        """Note that the clock of the server seen last was set.

        :param by_ms: milliseconds forward; less than 0: back.
        :param now_ms: what it says since then.
        """
        if by_ms >= SET_FORWARD_MS:
            self.was_set = True
            self._on_incident()
            self._on_clock_set(by_ms / 1000)
        elif by_ms < 0:
            with self._lock:  # else no stamp would count until it is as late again as it was
                self.trust_since_ms = min(self.trust_since_ms, now_ms)

    @property
    def expected_canary(self) -> Canary | None:
        """Return the canary that has to lie there, or a later one. None does if the clock was set forward: then the
        look at it writes a new one, by which the other workers notice."""
        canary = self.canary
        return canary._replace(number=canary.number + _MORE_THAN_ANY) if canary and self.was_set else canary

    def estimated_ms(self, at: float, *, latest: bool = False) -> int:
        """Return the clock of the server seen last at some moment, milliseconds since 1970, without asking it. 0: it
        has not said what time it is.

        :param at: monotonic seconds.
        :param latest: it was that late or earlier; else that late or later. Between the two lies as much time as the
            quickest of its last answers took.
        """
        clock = self._clock
        if clock is None or clock.server is not self.server:
            return 0
        return int(at * 1000 + (clock.most if latest else clock.least))

    def observe(self, identity: str | None, *, now_ms: int, is_primary: bool) -> Server:
        """Note that a server introduced itself. Return what to believe of the connection.

        :param identity: see :class:`Server`. None: every connection may lead to another server, and nothing
            confirmed before this one counts.
        :param now_ms: its own clock, the one that stamps are taken from.
        :param is_primary: whether it is the primary of its replication group.
        """
        # The memory is a file: no lock that others need is held while it is read or written.
        is_first = self.server.identity is None and identity is not None
        remembered = self._memory.recall() if self._memory and is_first else None
        with self._lock:
            if identity is not None and identity == self.server.identity:
                return self.server
            known = self.server.identity
            if known is None and self._takes_over(identity, remembered, now_ms):
                self.server = Server(identity, is_primary)
                return self.server
            if identity != known:
                self._on_incident()  # before any thread is told anything by this server
            self.server = Server(identity, is_primary)
            self._begin_anew(now_ms)
        if identity != known and (known is not None or remembered is not None):
            self._on_other_server()  # else it is the first one that this host meets
        self._note()  # last, because others go on with this server meanwhile
        return self.server

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Read and note nothing meanwhile of what the host's workers know of the server."""
        memory, self._memory = self._memory, None
        try:
            yield
        finally:
            self._memory = memory

    def saw(self, canary: Canary) -> bool:
        """Note a look at the canary. Return whether it says that data was lost.

        Any other generation than the one seen last is a loss: the worker that noticed it first wrote a new one, and
        must not hide it from the others. One that lies elsewhere says nothing of the one before.
        """
        with self._lock:
            known = self.canary
            lost = known is not None and known.place == canary.place and known.canary_id != canary.canary_id
            if lost:
                self.was_set = False
                self._on_incident()
                self._begin_anew(canary.now_ms)
            self.canary = canary
        self._note()
        return lost

    def introduce(self, connection: Any) -> None:
        """Greet, then ask which server answers: redis-py's ``redis_connect_func``. One round trip per new
        connection."""
        try:
            connection.on_connect()
            self.ask(connection)
        except RedisError:  # the connection is whole, or redis-py closes it
            raise
        except BaseException:  # of these redis-py knows nothing: the next command would be answered with what is unread
            connection.disconnect()
            raise

    def ask(self, connection: Any) -> None:
        """Ask a connected server for its identity, clock and role, and note it on the connection.

        A server may refuse INFO (an ACL without ``+info``): see `identity` of :meth:`observe`.
        """
        asked_at = self.clock()
        commands = connection.pack_commands([("INFO", "server"), ("INFO", "replication"), ("TIME",)])
        connection.send_packed_command(commands, check_health=False)
        server, replication = _facts(connection), _facts(connection)
        seconds, micros = connection.read_response(disable_decoding=True)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        role = _role(replication) == _PRIMARY_ROLE
        connection.langpont_server = self.observe(identity_of(server, replication), now_ms=now_ms, is_primary=role)
        self.note_clock(connection.langpont_server, now_ms, asked_at)

    def _takes_over(self, identity: str | None, known: ServerRecord | None, now_ms: int) -> bool:
        """Go on where the other workers of the host are, if they know this server. Its clock may have been set back
        since."""
        if known is None or known.identity != identity:
            return False
        self.trust_since_ms = min(known.trust_since_ms, now_ms)
        if known.canary_id:
            self.canary = Canary(known.canary_id, known.number, 0)
        return True

    def _begin_anew(self, now_ms: int) -> None:
        self.trust_since_ms = max(now_ms, self.trust_since_ms)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def _note(self) -> None:
        memory = self._memory
        if memory is not None and self.server.identity is not None:
            canary = self.canary or Canary("", 0, 0)
            memory.note(ServerRecord(self.server.identity, self.trust_since_ms, canary.canary_id, canary.number))


def identity_of(server: Mapping[str, str], replication: Mapping[str, str]) -> str | None:
    """Return the identity of a server, so that it is another one after whatever may have given it older data.

    A start gives it another run id. A replica has the replication id of its primary: another one, another history. A
    primary changes its own when it is promoted, but also when its first replica comes, and an hour after its last one
    has gone: with its data as they were. What tells these apart is the second replication id, that of the history
    before the promotion: a primary without one was nothing else since its start, or not for an hour, and by then the
    canary has shown what was lost.

    :param server: of ``INFO server``.
    :param replication: of ``INFO replication``.
    :return: None: it does not say.
    """
    run_id, role = server.get("run_id"), _role(replication)
    if not run_id:
        return None
    was_always_primary = role == _PRIMARY_ROLE and not replication.get("master_replid2", "?").strip("0")
    return f"{run_id}:{role}:{'' if was_always_primary else replication.get('master_replid', '')}"


def _role(replication: Mapping[str, str]) -> str:
    return replication.get("role", _PRIMARY_ROLE)


def _facts(connection: Any) -> dict[str, str]:
    try:
        info = connection.read_response(disable_decoding=True)
    except ResponseError:
        return {}
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
