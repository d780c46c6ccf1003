"""The SQL mirror of auth: the only arbiter of who is signed in."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger, Boolean, Column, Connection, Engine, Index, MetaData, String, Table, Text, and_, create_engine, event,
    func, insert, inspect, select, update, delete,
)
from sqlalchemy import exc
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ..bulkhead import Bulkhead, DeadlineExceeded, NoFreeSlot
from .base import AuthRow, ErrorClass, Fields, StoreError

T = TypeVar("T")
metadata = MetaData()

sessions = Table(
    "langpont_sessions",
    metadata,
    Column("digest", String(43), primary_key=True),
    Column("user_id", String(255), index=True),
    Column("version", BigInteger, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("payload", Text, nullable=False),
    Column("user_epoch", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False, index=True),
    Column("idle_expires_at", BigInteger, nullable=False),
    Column("absolute_expires_at", BigInteger, nullable=False, index=True),
)
users = Table(
    "langpont_users",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)


class now_ms(FunctionElement[int]):
    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "postgresql")
def _pg(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) * 1000 AS BIGINT)"


@compiles(now_ms, "sqlite")
def _sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def make_engine(url: str, timeout: float) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": timeout}
    return create_engine(url, **options)


class Database:
    def __init__(self, engine: Engine, *, timeout: float = 0.25, concurrency: int = 4) -> None:
        self.engine = engine
        self._timeout = timeout
        self._bulkhead = Bulkhead(concurrency, "langpont-session-database")
        self._probing = Bulkhead(1, "langpont-session-database-probe")

    def _run(self, call: Callable[[Connection], T], timeout: float | None, bulkhead: Bulkhead | None = None) -> T:
        def work() -> T:
            with self.engine.begin() as connection:
                return call(connection)

        try:
            return (bulkhead or self._bulkhead).call(work, min(timeout or self._timeout, 99))
        except NoFreeSlot:
            raise StoreError("database", ErrorClass.LOCAL, "NoFreeSlot") from None
        except DeadlineExceeded:
            raise StoreError("database", ErrorClass.UNREACHABLE, "DeadlineExceeded", timed_out=True) from None
        except exc.SQLAlchemyError as error:
            raise StoreError("database", ErrorClass.UNREACHABLE, type(error).__name__) from None

    def _select(self, connection: Connection, digest: str) -> AuthRow | None:
        row = connection.execute(
            select(sessions, func.coalesce(users.c.epoch, 0).label("epoch"), now_ms().label("now"))
            .select_from(sessions.outerjoin(users, sessions.c.user_id == users.c.user_id))
            .where(sessions.c.digest == digest)
        ).one_or_none()
        return None if row is None else _row(row)

    def load(self, digest: str, *, idle_ms: int, timeout: float | None = None) -> AuthRow | None:
        return self._run(lambda c: self._select(c, digest), timeout)

    def create(self, digest: str, *, user_id: str | None, payload: Fields, idle_ms: int, absolute_ms: int,
               kill: str | None = None, timeout: float | None = None) -> AuthRow:
        def work(c: Connection) -> AuthRow:
            if kill:
                self._kill(c, kill)
            c.execute(insert(sessions).values(
                digest=digest, user_id=user_id, version=1, live=True, payload=_dump(payload), user_epoch=0,
                created_at=now_ms(), updated_at=now_ms(), idle_expires_at=now_ms() + idle_ms,
                absolute_expires_at=now_ms() + absolute_ms))
            row = self._select(c, digest)
            assert row
            return row
        return self._run(work, timeout)

    def update(self, digest: str, *, seen: int, payload: Fields, user_id: str | None, idle_ms: int,
               absolute_ms: int | None = None, timeout: float | None = None) -> AuthRow | None:
        def work(c: Connection) -> AuthRow | None:
            done = c.execute(update(sessions).where(sessions.c.digest == digest, sessions.c.version == seen,
                sessions.c.live).values(version=seen + 1, payload=_dump(payload), user_id=user_id, updated_at=now_ms()))
            return self._select(c, digest) if done.rowcount else None
        return self._run(work, timeout)

    def _kill(self, c: Connection, digest: str) -> None:
        c.execute(update(sessions).where(sessions.c.digest == digest, sessions.c.live).values(
            live=False, version=sessions.c.version + 1, updated_at=now_ms()))

    def kill(self, digest: str, timeout: float | None = None) -> int | None:
        def work(c: Connection) -> int | None:
            self._kill(c, digest)
            return c.execute(select(sessions.c.version).where(sessions.c.digest == digest)).scalar()
        return self._run(work, timeout)

    def probe(self, timeout: float) -> None:
        self._run(lambda c: c.execute(update(users).where(users.c.user_id == "").values(epoch=0)), timeout, self._probing)

    def create_tables(self) -> None:
        metadata.create_all(self.engine)

    def missing_tables(self) -> list[str]:
        return [t for t in metadata.tables if not inspect(self.engine).has_table(t)]


def _dump(payload: Fields) -> str:
    return msgspec.json.encode({k: msgspec.Raw(v) for k, v in payload.items()}).decode()


def _row(row: Any) -> AuthRow:
    raw = msgspec.json.decode(row.payload.encode(), type=dict[str, msgspec.Raw])
    return AuthRow(row.digest, row.user_id, row.version, row.live and row.user_epoch == row.epoch,
        {k: bytes(v) for k, v in raw.items()}, row.user_epoch, row.created_at, row.idle_expires_at,
        row.absolute_expires_at, row.now)
