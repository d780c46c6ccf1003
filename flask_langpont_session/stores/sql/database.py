"""The SQL database: the only arbiter of auth. One row per session of kind u, one per user with a
"log out everywhere".

Every call is a short transaction of its own on its own connection, never the application's session or transaction,
and runs in a :class:`~flask_langpont_session.stores.sql.bulkhead.Bulkhead`: a request waits a bounded time whatever the
driver does.

What a caller was told not to have ended in time is rolled back, or taken back, unless its commit is under way by then.
All writes are idempotent: after an unknown outcome, the same call again is safe, once the one before has ended. A call
that goes on nevertheless, because its answer is lost, is ended by :meth:`.Calls.end_overdue`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine

from ...policy.changes import Fields
from ...policy.devices import NO_DEVICE, DescribedRow, Device
from ...policy.errors import ErrorClass, StoreError
from ...policy.leases import Life
from ...policy.rows import AuthRow, ChangedRows, Created, EndedSession, Found, Limit, Position
from ..codec.plain import PLAIN, Codec
from . import tables as sql
from .calls import Calls
from .cursor import run
from .devices import Devices
from .engines import Connections, inserted, make_engine
from .errors import NAME
from .idle import after_read, note_use
from .rows import Rows
from .session_limits import inserted_within
from .upkeep import Schema, Upkeep

__all__ = ["Database", "make_engine"]

T = TypeVar("T")

_PART_SECONDS = 2.0
"""The seconds that a part of a list may take. It is read through an index, in milliseconds; its caller probes nothing
meanwhile."""


class _TakenBack(Exception):
    """Ends a transaction of which nothing is to stay."""


class Database:
    """The auth rows. Every method raises :class:`StoreError` for whatever the database or its driver does wrong.

    Times given are milliseconds, time-outs seconds. May be used from any thread, and in a forked child: that gets
    connections of its own, the inherited ones are left alone.

    :param engine: from :func:`make_engine`, or the application's, which is asked how to connect and is left alone
        otherwise, see :class:`~.engines.Connections`.
    :param timeout: seconds a request waits for one call, connecting included. A call that is given more is none of a
        request: it waits for its own kind only.
    :param concurrency: calls at a time. More are refused (class L), not queued.
    :param makes_tables: asked when a call finds that tables are missing: whether they are made then.
    :param notes_use_after: milliseconds after which a read notes again that a session is in use, where it does not move
        the idle expiry anyway. None: it does not note that.
    :param codec: of the payloads' values.
    :ivar engine: the one that is used: that of :func:`make_engine`, or one with a pool of its own.
    :ivar connections: of that engine; each method borrows one for a transaction.
    :ivar calls: run the methods, in transactions that the connections lend.
    :ivar devices: what users are shown of their sessions.
    :ivar upkeep: makes the tables, and deletes what is not needed any more.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        timeout: float = 0.25,
        concurrency: int = 4,
        makes_tables: Callable[[], bool] = lambda: False,
        notes_use_after: int | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        self.connections = Connections(engine, timeout)
        schema = Schema(self.connections, makes_tables)
        self.calls = Calls(self.connections, schema, timeout=timeout, concurrency=concurrency)
        self._rows = Rows(codec)
        self.devices = Devices(self.calls, self._rows)
        self.upkeep = Upkeep(self.calls, schema)
        self._notes_use_after = notes_use_after
        self.engine = self.connections.engine

    # -- for requests --------------------------------------------------------------------------------------------

    def load(
        self, digest: str, *, life: Life | None = None, idle_seen: int | None = None, timeout: float | None = None
    ) -> AuthRow | None:
        """Return the row of a session as it is when this returns, or None.

        A session in use has its idle expiry moved on the way. If the row's idle time has passed but Redis knows a
        later expiry, that counts; if it has passed for Redis too, the session is ended. Without an answer of Redis
        it cannot be known, and the row is returned as it is.

        A read waits for no lock: while the row is locked, or the database takes no writes, nothing is noted and
        nothing is ended, but a later expiry counts all the same. The next read tries again.

        :param life: of the session, by which its idle expiry is moved. None: this is no use of it.
        :param idle_seen: the idle expiry that Redis has, milliseconds since 1970. 0: it has none. None: no answer.
        """

        def work() -> AuthRow | None:
            after_ms = self._notes_use_after
            with self.connections.reading() as connection:
                select = sql.SELECT_ONE if after_ms is None else sql.SELECT_IN_USE
                found = run(connection, select, {"key": digest}).row
            if found is None:
                return None
            row = self._rows.value(found)
            # After the reading connection is back in the pool: one call never holds two.
            read = after_read(self.connections, self._rows, row, life, idle_seen)
            is_use = life is not None and life.is_use
            if after_ms is not None and is_use and read.idle_expires_at == row.idle_expires_at:
                note_use(self.connections, self._rows, read, found[-1] or 0, after_ms)
            return read

        return self.calls.in_request(work, timeout, writing=False)

    def create(
        self,
        digest: str,
        *,
        user_id: str | None,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int,
        kill: str | None = None,
        limit: Limit | None = None,
        device: Device = NO_DEVICE,
        timeout: float | None = None,
    ) -> Created | None:
        """Insert a row, version 1, and return it. Repeated after an unknown outcome, return the row that is there.

        :param kill: digest of a session that ends in the same transaction, and does not count.
        :param limit: what the user may have, the new session included. None: any number.
        :return: None: the user has as many sessions as the limit allows, and none is to be ended for this one.
        :raises StoreError: of class D when there is another row under this digest, or the same one has changed.
        """
        fields, idle_ms = self._rows.text(digest, payload, 1), min(idle_ms, absolute_ms)
        values = {"key": digest, "user": user_id, "fields": fields, "idle_ms": idle_ms, "absolute_ms": absolute_ms}
        values |= device._asdict()

        def created(row: AuthRow | None, ended: Sequence[EndedSession] = ()) -> Created:
            if row is None or (row.version, row.user_id, row.payload) != (1, user_id, payload):
                raise StoreError(NAME, ErrorClass.DATA, "AnotherRow")
            return Created(row, ended)

        def insert(connection: Connection) -> Created:
            ended = [] if kill is None else sql.end(connection, [kill])
            return created(self._rows.inserted(connection, values), ended)

        def find(connection: Connection) -> Created:
            return created(self._rows.one(connection, digest))

        def work() -> Created | None:
            lend = None
            if limit is not None and user_id is not None:
                return inserted_within(self.connections, user_id, limit, insert, find)
            if kill is None and self.connections.single_statements_stand_alone:
                lend = partial(self.connections.alone, sql.DELETE, {"digests": [digest]})
            return inserted(self.connections, insert, find, lend)

        return self.calls.in_request(work, timeout)

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
        device: Device = NO_DEVICE,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """Insert a new row for an old session that is taken over, and in the same transaction the note that it was.

        :param note: the digest of the old session.
        :param note_ms: how long the old session may be of use yet.
        :return: None: it was taken over (or ended) before, or its user was logged out everywhere: nothing here knows
            whether the old session is from before that.
        """
        fields, idle_ms = self._rows.text(digest, payload, 1), min(idle_ms, absolute_ms)
        values = {"key": digest, "user": user_id, "fields": fields, "idle_ms": idle_ms, "absolute_ms": absolute_ms}
        values |= device._asdict()

        def insert(connection: Connection) -> AuthRow | None:
            connection.execute(sql.INSERT_ADOPTED, {"key": note, "absolute_ms": note_ms})
            row = self._rows.inserted(connection, values)
            # Asked behind the row: a user that is logged out everywhere from now on is so for this row, too.
            if row is not None and connection.execute(sql.SELECT_EPOCH, {"user": user_id}).scalar() is not None:
                connection.execute(sql.KILL, {"key": digest})
                return None
            return row

        return self.calls.in_request(lambda: inserted(self.connections, insert, lambda connection: None), timeout)

    def note_adopted(self, note: str, note_ms: int, timeout: float | None = None) -> None:
        """Have an old session never be taken over, as :meth:`adopt` does for one that was. May be repeated."""

        def insert(connection: Connection) -> None:
            connection.execute(sql.INSERT_ADOPTED, {"key": note, "absolute_ms": note_ms})

        self.calls.in_request(lambda: inserted(self.connections, insert, lambda connection: None), timeout)

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
        """Update a row by compare-and-set. None: it is not valid, or not at that version; nothing was changed.

        :param seen: the version that the new payload was made from.
        :param absolute_ms: a new life in all, counted from the session's beginning. None: as it is.
        """
        fields = self._rows.text(digest, payload, seen + 1)
        values: dict[str, Any] = {"key": digest, "seen": seen, "user": user_id, "fields": fields}
        values |= {"idle_ms": idle_ms, "absolute_ms": absolute_ms}
        return self.calls.write(lambda connection: self._rows.updated(connection, values), timeout)

    def raise_version(
        self, digest: str, *, seen: int, version: int, payload: Fields, timeout: float | None = None
    ) -> bool:
        """Write a live row anew at a higher version than the next one, as compare-and-set.

        :param seen: the version that the row has.
        :param version: the one that it is to have.
        :return: whether it was at that version, and is written.
        """
        fields = self._rows.text(digest, payload, version)
        values = {"key": digest, "seen": seen, "to": version, "fields": fields}
        return self.calls.write(lambda connection: run(connection, sql.RAISE_VERSION, values).changed > 0, timeout)

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
        fields = self._rows.text(successor, payload, 1)
        values: dict[str, Any] = {"key": digest, "successor": successor, "fields": fields}
        values |= {"idle_ms": idle_ms, "absolute_ms": absolute_ms}

        def rename(connection: Connection) -> AuthRow | None:
            if run(connection, sql.RENAME, {"key": digest, "seen": seen, "successor": successor}).changed:
                run(connection, sql.INSERT_SUCCESSOR, values)
            return self._rows.one(connection, successor)

        return self.calls.write(rename, timeout)

    def kill(self, digest: str, timeout: float | None = None) -> int | None:
        """End a session for ever. Return the row's version, None if there is no row. A dead one stays as it is."""

        def end(connection: Connection) -> int | None:
            connection.execute(sql.KILL, {"key": digest})
            version: int | None = connection.execute(sql.SELECT_VERSION, {"key": digest}).scalar()
            return version

        return self.calls.write(end, timeout)

    def revoke_many(
        self, digests: Sequence[str], timeout: float | None = None, *, by_device: bool = False
    ) -> list[EndedSession]:
        """End sessions for ever, under whatever digests they go on, in one transaction: another request may have given
        one of them another id.

        :param by_device: their user ends them, on another device, and is to be told on those.
        :return: each row that is dead now. One that has no row is not among them.
        """

        kill, cause = (sql.DISPLACE, {"cause": sql.DEVICE}) if by_device else (sql.KILL_THESE, {})

        def end(connection: Connection) -> list[EndedSession]:
            dead: dict[str, EndedSession] = {}
            following = set(digests)
            while following:
                ended = sql.end(connection, following, kill, **cause)
                dead.update((each.digest, each) for each in ended)
                following = {each.successor for each in ended if each.successor is not None}.difference(dead)
            return list(dead.values())

        return self.calls.write(end, timeout)

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
            connection.execute(sql.INSERT_USER, {"user": user_id, "first": 1})
            return 1

        def work() -> int | None:
            with self.connections.writing() as connection:
                if (epoch := again(connection)) is not None:
                    return epoch
            # If two do it for the first time at once, the second finds the row of the first.
            return inserted(self.connections, first, again)

        epoch = self.calls.in_request(work, timeout)
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
            """Kill, and note that the user was logged out everywhere, see :meth:`adopt`. The epoch stays."""
            is_new = not (epoch or after) and connection.execute(sql.SELECT_EPOCH, values).scalar() is None
            if is_new and not connection.execute(sql.KEEP_EPOCH, values).rowcount:
                connection.execute(sql.INSERT_USER, {"user": user_id, "first": 0})
            return kill(connection)

        # Of two that note it at once, the second finds the note of the first.
        return self.calls.in_request(lambda: inserted(self.connections, note_and_kill, kill) or [], timeout)

    def ended_with(self, user_id: str, epoch: int, timeout: float | None = None) -> list[str]:
        """Return the digests, in their order, of a user's sessions that were alive until the epoch became this one.
        Their rows must not have been killed since.

        :param epoch: what :meth:`kill_user` returned.
        """
        values = {"user": user_id, "epoch": epoch}
        return self.calls.read(lambda c: list(c.execute(sql.SELECT_ENDED, values).scalars()), timeout)

    def sessions_of(self, user_id: str, timeout: float | None = None) -> list[AuthRow]:
        """Return all rows of a user, oldest first, dead and expired ones too; without live rows that are damaged."""
        values = {"user": user_id}
        return self.calls.read(lambda c: list(self._rows.readable(c.execute(sql.SELECT_OF_USER, values))), timeout)

    # -- for the recovery, the monitor and the operator ----------------------------------------------------------

    def load_many(self, digests: Sequence[str], timeout: float) -> Found:
        """Return the rows of many sessions as they are, with one question; nothing is noted or ended.

        :param timeout: seconds.
        """
        values = {"digests": list(digests)}
        return self.calls.read(
            lambda c: self._rows.found(c.execute(sql.SELECT_THESE, values).all()), timeout, is_patient=True
        )

    def renamed(self, digests: Sequence[str], ms: int, timeout: float) -> set[str]:
        """Return those of some sessions that were given another digest within the last milliseconds.

        :param timeout: seconds.
        """
        values = {"digests": list(digests), "ms": ms}
        return self.calls.read(lambda c: set(c.execute(sql.SELECT_RENAMED, values).scalars()), timeout, is_patient=True)

    def find(self, beginning: str, timeout: float, limit: int = 2) -> list[str]:
        """Return the digests with this beginning of rows, dead ones too."""
        statement, values = sql.beginning_with(beginning), {"most": limit}
        return self.calls.read(lambda c: list(c.execute(statement, values).scalars()), timeout, is_patient=True)

    def describe(self, digest: str, timeout: float) -> DescribedRow | None:
        """Return all that the database has of one session; nothing is noted or ended. None: it has no row."""

        def ask(connection: Connection) -> DescribedRow | None:
            row = connection.execute(sql.SELECT_DESCRIBED, {"key": digest}).first()
            if row is None:
                return None
            ended_by = row.ended_by and row.ended_by.removesuffix(sql.TOLD)
            found = DescribedRow(self._rows.value(row), seen_at=row.seen_at, successor=row.successor)
            return found._replace(updated_at=row.updated_at, ended_by=ended_by)

        return self.calls.read(ask, timeout, is_patient=True)

    def changed_since(self, ms_ago: int, after: Position | None = None, limit: int = 200) -> ChangedRows:
        """Return the rows changed in the last milliseconds, in the order of the change; a part of them at a time. A
        moved idle expiry is no change. Live rows that are damaged are left out: nothing follows from them.

        :param after: what was reached with the part before, instead of `ms_ago`.
        :param limit: rows that are read at most. Fewer than that are the last: to wait for none at all would go on
            for as long as anything changes.
        """
        values: dict[str, Any] = {"ms": ms_ago, "most": limit}
        statement = sql.SELECT_CHANGED
        if after is not None:
            statement, values["ms"], values["after"] = sql.SELECT_CHANGED_AFTER, *after

        def ask(connection: Connection) -> ChangedRows:
            return self._rows.changes(connection.execute(statement, values).all(), limit)

        return self.calls.read(ask, _PART_SECONDS, is_patient=True)

    def probe(self, timeout: float) -> None:
        """Find out whether the database takes writes, by one real commit in both tables that leaves nothing behind.
        Where the user may not delete, which no sign-in needs, the rows are taken back before the commit.

        :raises StoreError: it does not; also at once while an earlier probe still hangs.
        """
        may_insert = False

        def insert(connection: Connection) -> str:
            name = f"@probe-{secrets.token_hex(8)}"  # a name of its own: probes of many hosts never meet at one row
            connection.execute(sql.INSERT_USER, {"user": name, "first": 1})
            row = {"key": name, "user": None, "fields": "{}", "idle_ms": 0, "absolute_ms": 0}
            connection.execute(sql.INSERT, row)
            return name

        def commit() -> None:
            nonlocal may_insert
            with self.connections.writing() as connection:
                name = insert(connection)
                may_insert = True
                connection.execute(sql.DELETE, {"digests": [name]})
                connection.execute(sql.FORGET_USER, {"user": name})

        def take_back() -> None:
            with suppress(_TakenBack), self.connections.writing() as connection:
                insert(connection)
                raise _TakenBack

        # Requests come back only after a probe, so that they never meet an old connection.
        self.calls.distrust_if_ill()
        began = time.monotonic()
        try:
            self.calls.probe(commit, timeout, writing=True)
        except StoreError as error:
            if not (may_insert and error.error_class is ErrorClass.IDENTITY_REFUSED):
                raise
            self.calls.probe(take_back, timeout, writing=True)
        # A commit that was asked for later is done, answer included: no call need wait for the answers to earlier ones.
        self.calls.cut_off(began)

    def probe_read(self, timeout: float) -> None:
        """Find out whether the database answers reads, whatever it does with writes.

        :raises StoreError: it does not.
        """

        def read() -> None:
            with self.connections.reading() as connection:
                connection.execute(sql.SELECT_ONE, {"key": "@probe"}).first()

        self.calls.probe(read, timeout, writing=False)

    def close(self) -> None:
        """End idle threads, close connections, and leave an engine of the application's as it was found. Later calls
        begin new ones, none of which is kept."""
        self.calls.close()
        self.connections.leave()
