"""The board on which the worker processes of a host tell each other something, beside what waits for the stores.

It is kept in the file of the journal, and beside it: the outages that were announced, the copies that are shared, what
was changed last (:class:`.Register`), how far Redis was told of what changed around an incident, which workers live,
and what is known of the Redis servers.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeAlias

import msgspec

from ...policy.changes import Basis
from ...policy.copies import SharedCopy
from ...policy.errors import StoreError
from ...policy.rows import Position
from ...policy.servers import ServerRecord
from ...support.logs import fields
from ..codec.plain import PLAIN, Codec
from .entries import put_copy, put_server, read_server, shared_copies
from .file import REPLAY_SECONDS, JournalFile
from .group_commit import Room
from .host_clock import HostClock
from .limits import JournalLimits
from .presence import Presence
from .register import Register

log = logging.getLogger(__name__)

PORTION = 200
"""Copies that are written or deleted at a time: a request that has to note a logout meanwhile must not wait for all of
them."""

_IF_IT_GOES_ON = "If this line comes again and again, check LANGPONT_SESSION_JOURNAL and its disk"

Outdated: TypeAlias = "Counter[tuple[str, str, Basis]]"
"""Digest, category and basis of values that waited → how many of them lost against what was shared."""


class Shared(NamedTuple):
    """The outcome of sharing copies.

    :param outdated: see :func:`~.entries.put_copy`.
    :param left_out: how many copies there was no room for.
    """

    outdated: Outdated
    left_out: int


@dataclass(frozen=True, slots=True)
class ResyncRound:
    """A round of bringing what changed around an incident to Redis: what is wanted, or what this host does of it.

    :param server: which server, and which canary of it, it is brought to.
    :param since_ms: from when on changed rows are in it, milliseconds since 1970 by the host's clock.
    :param began_ms: when it began; of one that is wanted: when at the earliest, for it must follow the incident.
    :param reached: up to which row it has come; None: it is at its beginning, or done.
    """

    server: str
    since_ms: int
    began_ms: int
    reached: Position | None = None
    is_done: bool = False

    def covers(self, wanted: ResyncRound) -> bool:
        """Return whether this round, when it is done, leaves nothing of another one to be done."""
        reaches_back, is_later = self.since_ms <= wanted.since_ms, self.began_ms >= wanted.began_ms
        return self.server == wanted.server and reaches_back and is_later


_round_of = msgspec.json.Decoder(ResyncRound).decode


class Board:
    """The board of the workers of a host. Threads, waits and errors: see :class:`~.journal.Journal`.

    :param file: of the journal.
    :param clock: seconds since 1970, of all workers of the host. None: a :class:`.HostClock`.
    :param limits: how much is kept at most, in the journal and here.
    :param codec: of the values, which are kept as the text that Redis gets.
    :ivar clock: by which order and age are decided; `limits`, `codec`: those of the journal, too.
    :ivar register: which session was changed last, and what was seen and wiped of it.
    :ivar words: of the workers of a journal in memory, see :class:`.Presence`.
    """

    def __init__(
        self,
        file: JournalFile,
        *,
        clock: Callable[[], float] | None = None,
        limits: JournalLimits | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        self._file = file
        self.codec = codec
        self.clock = clock or HostClock(file.path)
        self.limits = limits or JournalLimits()
        self.register = Register(file.path, copies_ttl=self.limits.copies_ttl, wall=clock or time.time)
        self.words: dict[Presence, str] = {}

    # -- outages -------------------------------------------------------------------------------------------------------

    def announce_outage(self, what: str) -> None:
        """Tell the other workers of the host at once, with the time of now.

        :param what: what fails, for example ``primary``.
        """
        now = self._now_ms()
        self._file.transaction(lambda db: db.execute("INSERT OR REPLACE INTO outages VALUES (?, ?)", (what, now)))

    def outages(self) -> Mapping[str, int]:
        """Return the stores whose outage was announced → when last, milliseconds since 1970."""
        with self._file.connected() as db:
            return dict(db.execute("SELECT what, at_ms FROM outages ORDER BY what").fetchall())

    def outage_over(self, what: str) -> bool:
        """Take an announcement back, and return whether there was one."""
        sql = "DELETE FROM outages WHERE what = ?"
        return self._file.transaction(lambda db: db.execute(sql, (what,)).rowcount > 0)

    # -- copies --------------------------------------------------------------------------------------------------------

    def publish_copies(self, copies: Iterable[SharedCopy], *, wait: float | None = None) -> Shared:
        """Share this worker's copies with the other workers of the host: as many as there is room for.

        :param copies: those that matter most come first. One that is not newer than what is there, or whose session is
            revoked here, is not needed.
        :param wait: seconds, for each portion of them; others are let in between.
        :raises StoreError: the journal cannot be used, or not in time.
        """
        outdated: Outdated = Counter()
        left_out, waiting = 0, iter(copies)
        while portion := list(islice(waiting, PORTION)):
            shared = self._file.transaction(partial(self.put_copies, portion), wait, room=Room.GROWING)
            outdated.update(shared.outdated)
            left_out += shared.left_out
        return Shared(outdated, left_out)

    def add_copies(self, copies: Sequence[SharedCopy], wait: float | None) -> Outdated:
        """Share what is known of a session of which something was kept, and return what gave way to it. Never raises:
        without the copies less is known, and nothing that was written is lost."""
        if copies:
            with suppress(StoreError):
                put = partial(self.put_copies, copies)
                return self._file.transaction(put, wait, forced=False, room=Room.GROWING).outdated
        return Counter()

    def put_copies(self, copies: Iterable[SharedCopy], db: sqlite3.Connection) -> Shared:
        """Share copies within a transaction that is under way, as many as there is room for."""
        copies = list(copies)
        found = [self.limits.fitting(db, partial(self._put_copies, db, copies))]
        if found == [None]:
            found = [self.limits.fitting(db, partial(self._put_copies, db, [copy])) for copy in copies]
        return Shared(sum((outdated for outdated in found if outdated), Counter()), found.count(None))

    def _put_copies(self, db: sqlite3.Connection, copies: Iterable[SharedCopy]) -> Outdated:
        outdated: Outdated = Counter()
        now = self._now_ms()
        for shared in copies:
            is_outdated = self.register.is_outdated(shared.digest, shared.category, shared.copy.version)
            for basis, count in put_copy(db, shared, now, self.codec, is_outdated=is_outdated).items():
                outdated[shared.digest, shared.category, basis] += count
        return outdated

    def shared_copies(self, limit: int = 1000, *, after: int = 0) -> Mapping[int, SharedCopy]:
        """Return the copies that the workers of this host have published, by number.

        :param after: only those with a higher number.
        """
        with self._file.connected() as db:
            return shared_copies(db, limit, after, self._now_ms(), self.codec)

    def clear_copies(self, keep: float = 0.0) -> None:
        """Delete the published copies: the outage is over, and they have no use any more.

        :param keep: seconds; what was known since then stays.
        """
        sql = "DELETE FROM copies WHERE rowid IN (SELECT rowid FROM copies WHERE at_ms <= ? LIMIT ?)"
        until_ms = self._now_ms() - int(keep * 1000)

        def clear(db: sqlite3.Connection) -> int:
            return db.execute(sql, (until_ms, PORTION)).rowcount

        while self._file.transaction(clear, REPLAY_SECONDS, room=Room.RESERVED):
            pass

    # -- what changed around an incident -------------------------------------------------------------------------------

    def resync_round(self) -> ResyncRound:
        """Return the latest round of this host, done or not."""
        with self._file.connected() as db:
            [text] = db.execute("SELECT round FROM settlement").fetchone()
        with suppress(msgspec.MsgspecError):  # none yet, or it is damaged
            return _round_of(text)
        return ResyncRound("", 0, 0)

    def note_resync(self, latest: ResyncRound) -> None:
        """Note how far the latest round has come. When the machine loses its power, some of it is done twice."""
        text = msgspec.json.encode(latest).decode()
        self._file.aside(lambda db: db.execute("UPDATE settlement SET round = ?", (text,)), REPLAY_SECONDS)

    # -- servers -------------------------------------------------------------------------------------------------------

    def server(self, endpoint: str, *, wait: float | None = None) -> ServerRecord | None:
        """Return what the workers of this host know of the Redis server behind an endpoint. It is no entry of the
        journal: it waits for nothing."""
        with self._file.connected(wait) as db:
            return read_server(db, endpoint)

    def remember_server(self, endpoint: str, record: ServerRecord) -> None:
        """Let workers that start later know. What is not news (:meth:`ServerRecord.outdates`) changes nothing.

        Meant to be called as often as a canary is sent: as long as only its number grows, nothing is forced to the
        disk, and no request is made to look at the journal.

        :param endpoint: a name for it, without a password.
        """
        known = self.server(endpoint)
        if record.outdates(known):
            write = self._file.aside if record.is_same_as(known) else self._file.transaction
            write(lambda db: put_server(db, endpoint, record))

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)


class HostMemory:
    """The view that the workers of a host share of one Redis server, see :class:`.ServerIdentity`. A new worker takes
    it over instead of distrusting every session once, which is what an unreadable journal costs.

    :param endpoint: ``primary`` or ``replica``.
    """

    def __init__(self, board: Board, endpoint: str) -> None:
        self._board = board
        self._endpoint = endpoint

    def recall(self) -> ServerRecord | None:
        """Return what any worker of this host noted last; None: nothing, or the journal cannot be read."""
        try:
            return self._board.server(self._endpoint)
        except StoreError as error:
            log.warning(
                "what this host knows of the %s cannot be read (%s): this worker verifies each signed-in session once "
                "by the database. %s",
                *(self._endpoint, error, _IF_IT_GOES_ON),
                extra=fields("server_record_unread", endpoint=self._endpoint, **error.log_data),
            )
            return None

    def note(self, record: ServerRecord) -> None:
        """Keep it for the other workers. Never raises."""
        try:
            self._board.remember_server(self._endpoint, record)
        except StoreError as error:
            log.warning(
                "what this worker knows of the %s could not be noted for the other workers of its host (%s): one that "
                "starts now verifies each signed-in session once by the database. It is noted again by itself. %s",
                *(self._endpoint, error, _IF_IT_GOES_ON),
                extra=fields("server_record_unwritten", endpoint=self._endpoint, **error.log_data),
            )
