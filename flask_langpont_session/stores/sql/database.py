"""The SQL database: the only arbiter of auth. One row per session of kind u, one per user who logged out everywhere.

Every call is a short transaction of its own on its own connection, never the application's session or transaction,
and runs in a :class:`~flask_langpont_session.stores.sql.bulkhead.Bulkhead`: a request waits a bounded time whatever the
driver does.

What a caller was told not to have ended in time is rolled back, unless its commit is under way by then. All writes are
idempotent: after an unknown outcome, the same call again is safe. A call that goes on nevertheless, because its answer
is lost, is ended by :meth:`Database.end_overdue`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ...policy.values import (
    AuthRow,
    Changes,
    ErrorClass,
    Fields,
    Found,
    Position,
    RowState,
    StoreError,
    Wait,
)
from ...support.lag import PROCESS
from . import tables as sql
from .bulkhead import Bulkhead, NoFreeSlot, raise_if_given_up
from .engines import OWN_SHARE, PATIENT_SECONDS, Connections, make_engine
from .errors import (
    NAME,
    OwnTransaction,
    lacks_tables,
    leads_elsewhere,
    translated,
    waited_for_a_lock,
    was_taken_back,
)

__all__ = ["Database", "make_engine"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_SILENCE = 60.0
"""Seconds between two log lines about the same mistake of the application."""

_GRACE = 2.0
"""Seconds for which a call may go on after its caller gave it up: as long as connecting may take. What ends by itself,
a commit on a busy disk for one, does so in this time and keeps its connection. A commit that is cut off takes effect
all the same: the server has it by then."""

_REPEATS = 3
"""How often a transaction is begun anew that was rolled back for the sake of another: by then that one has ended."""

_PART_SECONDS = 2.0
"""What a part of a list may take. It is read through an index, in milliseconds; what waits for it probes nothing
meanwhile."""

_SLIDE_AFTER = 0.25
"""The share of the idle time that passes before a read moves the idle expiry: one write instead of one per read."""

_ENDS_BY_IDLENESS = frozenset({RowState.VALID, RowState.IDLE_EXPIRED})
"""What a row may be whose idle expiry still decides something."""


class Database:
    """The auth rows. Every method raises :class:`StoreError` for whatever the database or its driver does wrong.

    Times given are milliseconds, time-outs seconds. May be used from any thread, and in a forked child: that gets
    connections of its own, the inherited ones are left alone.

    :param engine: from :func:`make_engine`, or the application's, which is asked how to connect and is left alone
        otherwise, see :class:`~.engines.Connections`.
    :ivar engine: the one that is used: that of :func:`make_engine`, or one with a pool of its own.
    :param timeout: seconds a request waits for one call, connecting included. A call that is given more is none of a
        request: it waits for its own kind only.
    :param concurrency: calls at a time. More are refused (class L), not queued.
    :param makes_tables: asked when a call finds that tables are missing: whether they are made then.
    :ivar had_tables: whether they were there once, as far as this process knows.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        timeout: float = 0.25,
        concurrency: int = 4,
        makes_tables: Callable[[], bool] = lambda: False,
    ) -> None:
        self.timeout = timeout
        self._connections = Connections(engine, timeout)
        self.engine = self._connections.engine
        self._requests = Bulkhead(concurrency, "langpont-database")
        # Slots of their own: a hung database must not keep the probe from finding out that it answers again.
        self._probes = Bulkhead(1, "langpont-database-probe")
        self._patient = Bulkhead(1, "langpont-database-patient")
        self._bulkheads = (self._requests, self._probes, self._patient)
        self._makes_tables = makes_tables
        self.had_tables = False
        self._was_ill = False
        self._complained_at = -_SILENCE

    # -- for requests --------------------------------------------------------------------------------------------

    def load(
        self, digest: str, *, idle_ms: int, idle_seen: int | None = None, timeout: float | None = None
    ) -> AuthRow | None:
        """The row of a session as it is when this returns, or None.

        A session in use has its idle expiry moved on the way. If the row's idle time has passed but Redis knows a
        later expiry, that counts; if it has passed for Redis too, the session is ended. Without an answer of Redis
        it cannot be known, and the row is returned as it is.

        A read waits for no lock: while the row is locked, or the database takes no writes, nothing is noted and
        nothing is ended, but a later expiry counts all the same. The next read tries again.

        :param idle_ms: the idle time; the expiry is moved when more than a quarter of it has passed. 0: never.
        :param idle_seen: the idle expiry that Redis has, milliseconds since 1970. 0: it has none. None: no answer.
        """

        def work() -> AuthRow | None:
            with self._connections.reading() as connection:
                row = sql.one_row(connection, digest)
            # After the reading connection is back in the pool: one call never holds two.
            return self._settled(row, idle_ms, idle_seen) if row else None

        return self._in_request(work, timeout, writing=False)

    def create(
        self,
        digest: str,
        *,
        user_id: str | None,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int,
        kill: str | None = None,
        timeout: float | None = None,
    ) -> AuthRow:
        """A new row, version 1. Repeating it after an unknown outcome returns the row that is there.

        :param kill: digest of a session that ends in the same transaction.
        :raises StoreError: of class D when there is another row under this digest, or the same one has changed.
        """
        fields, idle_ms = sql.to_text(payload), min(idle_ms, absolute_ms)
        values = {"key": digest, "user": user_id, "fields": fields, "idle_ms": idle_ms, "absolute_ms": absolute_ms}

        def insert(connection: Connection) -> AuthRow | None:
            if kill is not None:
                connection.execute(sql.KILL, {"key": kill})
            return sql.written_row(connection, sql.INSERT, values)

        def find(connection: Connection) -> AuthRow | None:
            row = sql.one_row(connection, digest)
            return row if row and (row.version, row.user_id, row.payload) == (1, user_id, payload) else None

        row = self._in_request(lambda: self._inserted(insert, find), timeout)
        if row is None:
            raise StoreError(NAME, ErrorClass.DATA, "AnotherRow")
        return row

    def adopt(
        self,
        digest: str,
        *,
        note: str,
        note_ms: int,
        user_id: str | None,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """A new row for an old session that is taken over, and in the same transaction the note that it was.

        :param note: the digest of the old session.
        :param note_ms: how long the old session may be of use yet.
        :return: None: it was taken over (or ended) before, or its user was logged out everywhere: nothing here knows
            whether the old session is from before that.
        """
        fields, idle_ms = sql.to_text(payload), min(idle_ms, absolute_ms)
        values = {"key": digest, "user": user_id, "fields": fields, "idle_ms": idle_ms, "absolute_ms": absolute_ms}

        def insert(connection: Connection) -> AuthRow | None:
            connection.execute(sql.INSERT_ADOPTED, {"key": note, "absolute_ms": note_ms})
            row = sql.written_row(connection, sql.INSERT, values)
            # Asked behind the row: a user who is logged out everywhere from now on is so by this row, too.
            if row is not None and connection.execute(sql.SELECT_EPOCH, {"user": user_id}).scalar() is not None:
                connection.execute(sql.KILL, {"key": digest})
                return None
            return row

        return self._in_request(lambda: self._inserted(insert, lambda connection: None), timeout)

    def note_adopted(self, note: str, note_ms: int, timeout: float | None = None) -> None:
        """Have an old session never be taken over, as :meth:`adopt` does for one that was. May be repeated."""

        def insert(connection: Connection) -> None:
            connection.execute(sql.INSERT_ADOPTED, {"key": note, "absolute_ms": note_ms})

        self._in_request(lambda: self._inserted(insert, lambda connection: None), timeout)

    def update(
        self,
        digest: str,
        *,
        seen: int,
        payload: Fields,
        user_id: str | None,
        idle_ms: int,
        absolute_ms: int | None = None,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """Compare-and-set. None: the row is not valid, or not at that version any more; nothing was changed.

        :param seen: the version that the new payload was made from.
        :param absolute_ms: a new life in all, counted from the session's beginning. None: as it is.
        """
        fields = sql.to_text(payload)
        values = {"key": digest, "seen": seen, "user": user_id, "fields": fields, "idle_ms": idle_ms}
        statement = sql.UPDATE
        if absolute_ms is not None:
            statement, values["absolute_ms"] = sql.UPDATE_LIFE, absolute_ms

        def work() -> AuthRow | None:
            with self._connections.writing() as connection:
                return sql.written_row(connection, statement, values)

        return self._in_request(work, timeout)

    def regenerate(
        self,
        digest: str,
        *,
        successor: str,
        seen: int,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int | None = None,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """Give a valid session another digest: the old row dies and the new one, version 1, is as old as it was.

        Compare-and-set: what was withdrawn meanwhile must not come back under the new digest. Repeating it after an
        unknown outcome returns the row that is there.

        :param seen: the version that the new payload was made from.
        :param absolute_ms: a new life in all, counted from the session's beginning. None: as it is.
        :return: the successor's row; None: there is none, because the session is not valid, or not at that version,
            any more.
        """
        values = {"key": digest, "successor": successor, "fields": sql.to_text(payload), "idle_ms": idle_ms}
        statement = sql.INSERT_SUCCESSOR
        if absolute_ms is not None:
            statement, values["absolute_ms"] = sql.INSERT_SUCCESSOR_LIFE, absolute_ms

        def work() -> AuthRow | None:
            with self._connections.writing() as connection:
                renamed = connection.execute(sql.RENAME, {"key": digest, "seen": seen, "successor": successor})
                if renamed.rowcount:
                    connection.execute(statement, values)
                return sql.one_row(connection, successor)

        return self._in_request(work, timeout)

    def kill(self, digest: str, timeout: float | None = None) -> int | None:
        """End a session for ever. Returns the row's version, None if there is no row. A dead one stays as it is."""

        def work() -> int | None:
            with self._connections.writing() as connection:
                connection.execute(sql.KILL, {"key": digest})
                version: int | None = connection.execute(sql.SELECT_VERSION, {"key": digest}).scalar()
                return version

        return self._in_request(work, timeout)

    def revoke(self, digest: str, timeout: float | None = None) -> list[tuple[str, int]]:
        """End a session for ever, under whatever digest it goes on: another request may have given it another id.

        :return: digest and version of each row that is dead now, the one asked for first; empty if there is no row.
        """

        def work() -> list[tuple[str, int]]:
            dead: list[tuple[str, int]] = []
            following: str | None = digest
            with self._connections.writing() as connection:
                while following is not None:
                    connection.execute(sql.KILL, {"key": following})
                    row = connection.execute(sql.SELECT_DEAD, {"key": following}).first()
                    if row is not None:
                        dead.append((following, row.version))
                    following = row.successor if row else None
            return dead

        return self._in_request(work, timeout)

    def revoke_many(self, digests: Sequence[str], timeout: float | None = None) -> dict[str, int]:
        """End sessions for ever, under whatever digests they go on, in one transaction; see :meth:`revoke`.

        :return: digest → version of each row that is dead now. One that has no row is not among them.
        """

        def work() -> dict[str, int]:
            dead: dict[str, int] = {}
            following = set(digests)
            with self._connections.writing() as connection:
                while following:
                    rows = connection.execute(sql.LOCK_THESE, {"digests": sorted(following)}).all()
                    if rows:
                        connection.execute(sql.KILL_THESE, {"digests": [row.digest for row in rows]})
                    dead.update((row.digest, row.version + bool(row.live)) for row in rows)
                    following = {row.successor for row in rows}.difference(dead, [None])
            return dead

        return self._in_request(work, timeout)

    def kill_user(self, user_id: str, timeout: float | None = None) -> int:
        """End all sessions of a user, also those being created just now, however many there are. Their rows stay as
        they are: :meth:`kill_user_until` goes through them.

        :return: the user's epoch from now on; sessions of an earlier one are dead.
        """
        values = {"user": user_id}

        def again(connection: Connection) -> int | None:
            raised = connection.execute(sql.RAISE_EPOCH, values).rowcount
            return connection.execute(sql.SELECT_EPOCH, values).scalar() if raised else None

        def first(connection: Connection) -> int:
            connection.execute(sql.FIRST_EPOCH, values)
            return 1

        def work() -> int | None:
            with self._connections.writing() as connection:
                if (epoch := again(connection)) is not None:
                    return epoch
            # If two do it for the first time at once, the second finds the row of the first.
            return self._inserted(first, again)

        epoch = self._in_request(work, timeout)
        if epoch is None:
            raise StoreError(NAME, ErrorClass.DATA, "NoEpoch")
        return epoch

    def kill_user_until(
        self,
        user_id: str,
        until_ms: int,
        timeout: float | None = None,
        *,
        epoch: int = 0,
        after: str = "",
        limit: int = 500,
    ) -> list[str]:
        """End sessions of a user that began at that moment or before, or in an earlier epoch, and no other one, under
        whatever digest they go on; a part of them at a time. The epoch stays.

        :param until_ms: milliseconds since 1970.
        :param after: the last digest of the part before.
        :param limit: rows of a part.
        :return: the digests of the rows, dead ones too, in their order, after those under which any of them went on;
            empty: there are no more.
        """
        values = {"user": user_id, "ms": until_ms, "epoch": epoch, "after": after, "most": limit}

        def kill(connection: Connection) -> list[str]:
            dead: list[str] = []
            rows = connection.execute(sql.LOCK_UNTIL, values).all()
            while rows:
                connection.execute(sql.KILL_THESE, {"digests": [row.digest for row in rows]})
                dead = [*(row.digest for row in rows), *dead]
                # A session that gets another digest while this goes on may get one that lies before the part.
                later = {row.successor for row in rows}.difference(dead, [None])
                rows = connection.execute(sql.LOCK_THESE, {"digests": list(later)}).all() if later else []
            return dead

        def note_and_kill(connection: Connection) -> list[str]:
            """The epoch stays, but that the user was logged out everywhere is known from now on, see :meth:`adopt`."""
            if not (epoch or after) and connection.execute(sql.SELECT_EPOCH, values).scalar() is None:
                connection.execute(sql.SAME_EPOCH, values)
            return kill(connection)

        # Of two that note it at once, the second finds the note of the first.
        return self._in_request(lambda: self._inserted(note_and_kill, kill) or [], timeout)

    def sessions_of(self, user_id: str, timeout: float | None = None) -> list[AuthRow]:
        """All rows of a user, oldest first, dead and expired ones too; not what is damaged and lives."""
        return self._in_request(lambda: self._list(sql.SELECT_OF_USER, {"user": user_id}), timeout, writing=False)

    # -- for the reconciler, the monitor and the operator --------------------------------------------------------

    def load_many(self, digests: Sequence[str], timeout: float) -> Found:
        """The rows of many sessions as they are, with one question; nothing is noted or ended.

        :param timeout: seconds.
        """

        def work() -> Found:
            with self._connections.reading() as connection:
                return sql.found(connection.execute(sql.SELECT_THESE, {"digests": list(digests)}).all())

        return self._patiently(work, timeout, writing=False)

    def changed_since(self, ms_ago: int, after: Position | None = None, limit: int = 200) -> Changes:
        """Rows changed in the last milliseconds, in the order of the change; a part of them at a time. A moved idle
        expiry is no change. Live rows that are damaged are left out: nothing follows from them.

        :param after: what was reached with the part before, instead of `ms_ago`.
        :param limit: rows that are read at most. Fewer than that are the last: to wait for none at all would go on
            for as long as anything changes.
        """
        values: dict[str, Any] = {"ms": ms_ago, "most": limit}
        statement = sql.SELECT_CHANGED
        if after is not None:
            statement, values["ms"], values["after"] = sql.SELECT_CHANGED_AFTER, *after

        def work() -> Changes:
            with self._connections.reading() as connection:
                return sql.changes(connection.execute(statement, values).all(), limit)

        return self._patiently(work, _PART_SECONDS, writing=False)

    def purge(self, grace_ms: int, limit: int = 1000) -> int:
        """Delete rows whose life in all ended longer than `grace_ms` ago. Returns how many: `limit` means: again."""

        def work() -> int:
            with self._connections.writing() as connection:
                digests = connection.execute(sql.SELECT_OLD, {"ms": grace_ms, "most": limit}).scalars().all()
                return connection.execute(sql.DELETE, {"digests": digests}).rowcount if digests else 0

        return self._patiently(work)

    def probe(self, timeout: float) -> None:
        """Whether the database takes writes: one real commit, in both tables, that leaves nothing behind.

        :raises StoreError: it does not; also at once while an earlier probe still hangs.
        """
        if self._was_ill:
            # Requests come back only after a probe, so that they never meet an old connection.
            self._was_ill = False
            self._connections.distrust()
        began = time.monotonic()
        self._probed(self._commit, timeout, writing=True)
        # A commit that was asked for later is done, answer included: no call need wait for the answers to earlier ones.
        self._cut_off(began)

    def probe_read(self, timeout: float) -> None:
        """Whether the database answers reads, whatever it does with writes.

        :raises StoreError: it does not.
        """
        self._probed(self._read, timeout, writing=False)

    def _probed(self, work: Callable[[], None], timeout: float, *, writing: bool) -> None:
        def hasty() -> None:
            # Half of the time: what keeps a write from being done must be told, in time, from no answer at all.
            with self._connections.patience(timeout / 2):
                work()

        try:
            self._bounded(self._probes, hasty if timeout < self.timeout else work, timeout, writing)
        except StoreError as error:
            if error.cause == NoFreeSlot.__name__:
                # Elsewhere a limit of our own. A probe has a slot to itself: the one before hangs.
                raise StoreError(NAME, ErrorClass.UNREACHABLE, error.cause, timed_out=True) from None
            error.may_be_one_row = False  # its rows are this call's alone: the table is locked
            raise
        self.had_tables = True

    def create_tables(self) -> None:
        """Create the tables that are missing. Not bounded in time, and not for the request path."""
        with translated(self._noticed):
            self._create_tables()
        self.had_tables = True

    def _create_tables(self) -> None:
        # Several workers start at once, and none of them may fail because another was first. Where each table is a
        # transaction of its own (MySQL), that may happen with each.
        for left in range(len(sql.METADATA.tables), -1, -1):
            try:
                with self._connections.patience(PATIENT_SECONDS), self._connections.defining() as connection:
                    return sql.METADATA.create_all(connection)
            except SQLAlchemyError:
                if not left:
                    raise

    def missing_tables(self) -> list[str]:
        """Names of the tables that are not there."""
        return self._patiently(self._missing_tables, writing=False)

    @property
    def in_use(self) -> int:
        """Calls of requests that are under way, those included that were given up."""
        return self._requests.busy

    def end_overdue(self) -> None:
        """End the calls that no caller waits for any more and that do not end by themselves: a reply is lost for good.
        Does not block; to be called every second or more often, or their slots stay taken."""
        self._cut_off(time.monotonic() - _GRACE)

    def _cut_off(self, given_up_before: float) -> None:
        for bulkhead in self._bulkheads:
            bulkhead.cut_off(given_up_before)

    def close(self) -> None:
        """End idle threads, close connections, and leave an engine of the application's as it was found. Later calls
        begin new ones, none of which is kept."""
        for bulkhead in self._bulkheads:
            bulkhead.close()
        self._connections.leave()

    # -- how a call runs -----------------------------------------------------------------------------------------

    def _in_request(self, work: Callable[[], T], timeout: float | None, *, writing: bool = True) -> T:
        """A call that has more time than a request takes neither the slots nor the time-outs of requests.

        :param writing: what the call is for; what a read notes on the way is not that.
        """
        if timeout is not None and timeout > self.timeout and not isinstance(timeout, Wait):
            return self._patiently(work, timeout, writing=writing)
        return self._bounded(self._requests, work, self.timeout if timeout is None else timeout, writing)

    def _patiently(self, work: Callable[[], T], seconds: float = PATIENT_SECONDS, *, writing: bool = True) -> T:
        def patient() -> T:
            with self._connections.patience(seconds):
                return work()

        return self._bounded(self._patient, patient, seconds, writing)

    def _bounded(self, bulkhead: Bulkhead, work: Callable[[], T], timeout: float, writing: bool) -> T:
        beside = self._connections.beside_the_caller() if writing else nullcontext()
        # A probe that hangs is not waited for by the next one, unless it may be this process that is late.
        queue = bulkhead is not self._probes or PROCESS.is_behind
        with translated(self._noticed, writing=writing):
            try:
                with beside:
                    return bulkhead.call(lambda: self._with_tables(work, timeout), timeout, queue=queue)
            except OwnTransaction as error:
                self._complain(error)
                raise

    def _with_tables(self, work: Callable[[], T], timeout: float) -> T:
        """Do it; if that needs tables which are not there, and may be made, once more after that."""
        try:
            return self._insisting(work, timeout)
        except Exception as error:
            if not (lacks_tables(error) and self._makes_tables()):
                raise
        try:
            self._create_tables()
        except SQLAlchemyError as error:
            log.warning("the session tables are not there, and cannot be made: %s", type(error).__name__)
        else:
            log.info("the session tables were not there, and were made")
        return self._insisting(work, timeout)

    def _insisting(self, work: Callable[[], T], timeout: float) -> T:
        """Try again what the database took back in favour of another transaction, a few times. And when a lock was not
        free in time, if this process is late: then so is its thread that has the lock. What is left of the time is all
        that these tries have, so that the database says what keeps it, instead of being given up."""
        began, tries = PROCESS.passed(), 0
        patience: AbstractContextManager[None] = nullcontext()
        while True:
            tries += 1
            try:
                with patience:
                    return work()
            except Exception as error:
                is_victim = tries <= _REPEATS and was_taken_back(error)
                left = timeout - (PROCESS.passed() - began) / OWN_SHARE
                if left <= 0 or not (is_victim or (PROCESS.is_behind and waited_for_a_lock(error))):
                    raise
            raise_if_given_up()
            patience = self._connections.patience(left)

    def _complain(self, error: OwnTransaction) -> None:
        """What only the developer can mend is said to the developer, though not by every request."""
        now = time.monotonic()
        if now - self._complained_at >= _SILENCE:
            self._complained_at = now
            log.error("the session database could not be written: %s. (Said once in %d s.)", error, _SILENCE)

    def _noticed(self, error: StoreError) -> None:
        self._was_ill = self._was_ill or leads_elsewhere(error)

    # -- parts of a call -----------------------------------------------------------------------------------------

    def _inserted(
        self, insert: Callable[[Connection], T | None], otherwise: Callable[[Connection], T | None]
    ) -> T | None:
        """Two short transactions instead of a savepoint, which would cost every insert two round trips."""
        with suppress(IntegrityError), self._connections.writing() as connection:
            return insert(connection)
        with self._connections.writing() as connection:
            return otherwise(connection)

    def _list(self, statement: sa.Select[Any], values: Mapping[str, Any]) -> list[AuthRow]:
        with self._connections.reading() as connection:
            return list(sql.readable(connection.execute(statement, values)))

    def _commit(self) -> None:
        name = f"@probe-{secrets.token_hex(8)}"  # a name of its own: probes of many hosts never meet at one row
        row = {"key": name, "user": None, "fields": "{}", "idle_ms": 0, "absolute_ms": 0}
        with self._connections.writing() as connection:
            connection.execute(sql.FIRST_EPOCH, {"user": name})
            connection.execute(sql.INSERT, row)
            connection.execute(sql.DELETE, {"digests": [name]})
            connection.execute(sql.FORGET_USER, {"user": name})

    def _read(self) -> None:
        with self._connections.reading() as connection:
            sql.one_row(connection, "@probe")

    def _missing_tables(self) -> list[str]:
        with self._connections.reading() as connection:
            there = set(sa.inspect(connection).get_table_names())
        return [name for name in sql.METADATA.tables if name not in there]

    def _settled(self, row: AuthRow, idle_ms: int, idle_seen: int | None) -> AuthRow:
        """The row after what a read does to it."""
        stored, row = row.idle_expires_at, _by_later_expiry(row, idle_seen)
        if row.state not in _ENDS_BY_IDLENESS:
            return row
        # The read has succeeded. That a database which is locked, full or read-only cannot note it is no reason to
        # take the answer back: the next read tries again, and the probe finds out about the database.
        with suppress(SQLAlchemyError):
            if row.state is RowState.VALID:
                expires_at = _idle_expiry(row, idle_ms)
                if expires_at > stored:
                    values = {"ms": expires_at, "seen": stored}
                    noted = self._noted(sql.EXTEND_IDLE, values, row, replace(row, idle_expires_at=expires_at))
                    return _by_later_expiry(noted, idle_seen)
            elif idle_seen is not None:
                return self._noted(
                    sql.KILL_IDLE, {"seen": row.version}, row, replace(row, live=False, version=row.version + 1)
                )
        return row

    def _noted(self, statement: sa.Update, values: Mapping[str, Any], row: AuthRow, changed: AuthRow) -> AuthRow:
        """The row as it is after a statement that changes it into `changed`, unless it is not what it was."""
        with self._connections.writing_without_waiting() as connection:
            if not connection.execute(sql.LOCK_FOR_READER, {"key": row.digest}).first():
                return row
            if connection.execute(statement, {"key": row.digest, **values}).rowcount:
                return changed
            return sql.one_row(connection, row.digest) or row


def _by_later_expiry(row: AuthRow, idle_seen: int | None) -> AuthRow:
    """The row as it is with the later of the idle expiries that the database and Redis have."""
    if row.state not in _ENDS_BY_IDLENESS:
        return row
    return replace(row, idle_expires_at=max(row.idle_expires_at, min(idle_seen or 0, row.absolute_expires_at)))


def _idle_expiry(row: AuthRow, idle_ms: int) -> int:
    """The idle expiry of a row that is in use, moved if that is due."""
    is_due = row.idle_expires_at - row.read_at < idle_ms * (1 - _SLIDE_AFTER)
    moved = min(row.read_at + idle_ms, row.absolute_expires_at)
    return max(row.idle_expires_at, moved) if is_due else row.idle_expires_at
