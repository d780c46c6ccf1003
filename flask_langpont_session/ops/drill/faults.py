"""Faults between this process and its stores, which neither the stores nor other processes notice.

Faults lie in the connections: connections to Redis have a class that checks the faults before it connects or asks, and
the database's pool lends no connection during a fault of the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from redis import exceptions as driver

from ...policy.health import PRIMARY
from ...stores.backend import Backend
from ...stores.redis.connections import Bounded, bounded
from ...stores.sql.database import Database


class Fault(StrEnum):
    """The faults, by their names in the command."""

    PRIMARY_DOWN = "primary-down"
    HANG = "hang"
    DATABASE_DOWN = "database-down"


IN_WORDS: Mapping[Fault, str] = {
    Fault.PRIMARY_DOWN: "the primary refuses connections",
    Fault.HANG: "the primary answers nothing",
    Fault.DATABASE_DOWN: "the database refuses connections",
}


class Undrillable(Exception):
    """No fault can be put between this process and a store. The text gives the reason."""


class Faults:
    """The faults of one application's stores.

    :ivar present: the present fault; None: no fault.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.present: Fault | None = None
        self._over = threading.Event()

    @contextmanager
    def laid(self) -> Iterator[None]:
        """Let the connections of this process check the faults while this context is open.

        :raises Undrillable: a client of the application makes the connections, in a way of its own.
        """
        with ExitStack() as stack:
            for endpoint in self._backend.redis[PRIMARY].endpoints.values():
                stack.enter_context(self._on_redis(endpoint.link.connections.source))
                stack.callback(endpoint.link.forget_connections)
                endpoint.link.forget_connections()
            stack.enter_context(self._on_database(self._backend.database))
            yield

    @contextmanager
    def _on_redis(self, source: Any) -> Iterator[None]:
        before = source.connection_class
        kind = bounded(before)
        if not issubclass(kind, Bounded):
            raise Undrillable(
                "the client in REDIS_URL connects in a way of its own; write the address of the server there"
            )
        source.connection_class = type(kind.__name__, (_Faulty, kind), {"faults": self})
        try:
            yield
        finally:
            source.connection_class = before

    @contextmanager
    def _on_database(self, database: Database) -> Iterator[None]:
        error = database.engine.dialect.loaded_dbapi.OperationalError

        def refuse(*_: Any) -> None:
            if self.present is Fault.DATABASE_DOWN:
                raise error("this is a drill: the database refuses connections")

        sa.event.listen(database.engine, "checkout", refuse)
        try:
            yield
        finally:
            sa.event.remove(database.engine, "checkout", refuse)

    def begin(self, fault: Fault) -> None:
        """Begin a fault."""
        self._over.clear()
        self.present = fault

    def end(self) -> None:
        """End the fault."""
        self.present = None
        self._over.set()

    # -- asked by connections ------------------------------------------------------------------------------------------

    def meet(self, left: Callable[[], float], refusal: Exception) -> None:
        """Fail or hang, by the present fault, before a connection to the primary is made or a command is sent over it.
        A hang is as of a stopped server, which answers commands in time once it goes on.

        :param left: returns the seconds left for it.
        :param refusal: is raised where the primary is down.
        """
        if self.present is Fault.PRIMARY_DOWN:
            raise refusal
        if self.present is Fault.HANG and not self._over.wait(max(0.0, left())):
            raise driver.TimeoutError("this is a drill: there is no answer")


class _Faulty:
    """Mixed in before a connection class of :mod:`..stores.redis.connections`: asks the faults first."""

    faults: Faults
    deadline: Any

    def _connect(self) -> Any:
        self.faults.meet(self.deadline.left, ConnectionRefusedError("this is a drill: connections are refused"))
        return super()._connect()  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        vars(self).pop("exchange", None)  # the socket's own, in place of the method below

    def exchange(self, data: bytes, count: int) -> list[Any]:
        self.faults.meet(self.deadline.left, driver.ConnectionError("this is a drill: the connection is closed"))
        return super().exchange(data, count)  # type: ignore[misc, no-any-return]

    def is_quiet(self) -> bool:
        is_closed = self.faults.present is Fault.PRIMARY_DOWN
        return not is_closed and super().is_quiet()  # type: ignore[misc]
