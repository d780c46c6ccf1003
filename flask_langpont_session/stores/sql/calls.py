"""The way a call of the database runs: for a bounded time, on a thread of its own, begun anew where that helps.
Whatever goes wrong becomes a :class:`StoreError`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from sqlalchemy.engine import Connection

from ...policy.errors import ErrorClass, StoreError
from ...support.lag import PROCESS, Wait
from ...support.logs import Once, fields
from .bulkhead import Bulkhead, NoFreeSlot, raise_if_given_up
from .dialects import NOTHING
from .engines import OWN_SHARE, PATIENT_SECONDS, Connections
from .errors import NAME, OwnTransaction, leads_elsewhere, store_error, waited_for_a_lock, was_taken_back
from .upkeep import Schema

log = logging.getLogger(__name__)

T = TypeVar("T")

_LEAST_SHARE = 0.1
"""The share of a call's time below which work that was taken back is not tried again. It would end as a time-out, which
opens the breaker of a database that answers."""

_SILENCE = 60.0
"""Seconds between two log lines about the same mistake of the application."""

GRACE = 2.0
"""Seconds for which a call may go on after its caller gave it up: as long as connecting may take. What ends by itself,
a commit on a busy disk for one, does so in this time and keeps its connection. A commit that is cut off takes effect
all the same: the server has it by then."""


class Calls:
    """Runs the calls of requests, of probes, and of the recovery and of operators, in slots of their own each: what
    hangs in one keeps none of the others.

    :param schema: makes the tables that a call finds missing, if they may be made.
    :param timeout: seconds a request waits for one call, connecting included.
    :param concurrency: calls of requests at a time.
    :param clock: monotonic seconds.
    :ivar connections: lend what a call needs; each call borrows one for a transaction.
    """

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        *,
        timeout: float,
        concurrency: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connections = connections
        self.timeout = timeout
        self.requests = Bulkhead(concurrency, "langpont-database")
        # A hung database must not keep the probe from finding out that it answers again.
        self.probes = Bulkhead(1, "langpont-database-probe")
        self.patient = Bulkhead(1, "langpont-database-patient")
        self._schema = schema
        self._was_ill = False
        self._clock = clock
        self._complaint = Once(_SILENCE, clock)

    def in_request(self, work: Callable[[], T], timeout: float | None, *, writing: bool = True) -> T:
        """Run a request's call. One with more time than a request takes neither slots nor time-outs of requests.

        :param timeout: None: as long as a request waits.
        :param writing: what the call is for; what a read notes on the way is not that.
        """
        if timeout is not None and timeout > self.timeout and not isinstance(timeout, Wait):
            return self.patiently(work, timeout, writing=writing)
        return self._bounded(self.requests, work, self.timeout if timeout is None else timeout, writing)

    def read(self, ask: Callable[[Connection], T], timeout: float | None = None, *, is_patient: bool = False) -> T:
        """Return the result of one statement that reads.

        :param ask: gets the connection.
        :param timeout: see :meth:`in_request`, or, of one that is patient, :meth:`patiently`.
        """

        def work() -> T:
            with self.connections.reading() as connection:
                return ask(connection)

        if is_patient:
            return self.patiently(work, timeout or PATIENT_SECONDS, writing=False)
        return self.in_request(work, timeout, writing=False)

    def write(self, ask: Callable[[Connection], T], timeout: float | None = None, *, is_patient: bool = False) -> T:
        """Return the result of a transaction that writes; see :meth:`read`."""

        def work() -> T:
            with self.connections.writing() as connection:
                return ask(connection)

        return self.patiently(work, timeout or PATIENT_SECONDS) if is_patient else self.in_request(work, timeout)

    def patiently(self, work: Callable[[], T], seconds: float = PATIENT_SECONDS, *, writing: bool = True) -> T:
        """Run a call of the recovery or of an operator."""

        def patient() -> T:
            with self.connections.patience(seconds):
                return work()

        return self._bounded(self.patient, patient, seconds, writing)

    def probe(self, work: Callable[[], None], timeout: float, *, writing: bool) -> None:
        """Run a call that finds out whether the database can be used."""

        def hasty() -> None:
            # Half of the time: what keeps a write from being done must be told, in time, from no answer at all.
            with self.connections.patience(timeout / 2):
                work()

        try:
            self._bounded(self.probes, hasty if timeout < self.timeout else work, timeout, writing)
        except StoreError as error:
            if error.cause == NoFreeSlot.__name__:
                # Elsewhere a limit of our own. A probe has a slot to itself: the one before hangs.
                raise StoreError(NAME, ErrorClass.UNREACHABLE, error.cause, timed_out=True) from None
            error.may_be_one_row = False  # its rows are this call's alone: the table is locked
            raise
        self._schema.was_there = True

    def translated(self, error: Exception, *, writing: bool = True) -> StoreError:
        """Return an error as the rest of the package knows it. Remembers whether it may lead elsewhere."""
        found = store_error(error, writing=writing)
        self._was_ill = self._was_ill or leads_elsewhere(found)
        return found

    def distrust_if_ill(self) -> None:
        """Have no connection lent again that was open when a call failed in a way that may lead elsewhere."""
        if self._was_ill:
            self._was_ill = False
            self.connections.distrust()

    def end_overdue(self, grace: float = GRACE) -> None:
        """End the calls that no caller waits for any more and that do not end by themselves: a reply is lost for good.
        Does not block; to be called every second or more often, or their slots stay taken.

        :param grace: seconds for which a call may go on after its caller gave it up.
        """
        self.cut_off(self._clock() - grace)

    def cut_off(self, given_up_before: float) -> None:
        """End the calls that were given up before a moment, in monotonic seconds."""
        for bulkhead in (self.requests, self.probes, self.patient):
            bulkhead.cut_off(given_up_before)

    def close(self) -> None:
        """End idle threads."""
        for bulkhead in (self.requests, self.probes, self.patient):
            bulkhead.close()

    def _bounded(self, bulkhead: Bulkhead, work: Callable[[], T], timeout: float, writing: bool) -> T:
        # A probe that hangs is not waited for by the next one, unless it may be this process that is late.
        queue = bulkhead is not self.probes or PROCESS.is_behind
        try:
            with self.connections.beside_the_caller() if writing else NOTHING:
                return bulkhead.call(lambda: self._with_tables(work, timeout), timeout, queue=queue)
        except Exception as error:
            if isinstance(error, OwnTransaction):
                self._complain(error)
            raise self.translated(error, writing=writing) from None

    def _with_tables(self, work: Callable[[], T], timeout: float) -> T:
        """Do the work. If tables are missing that may be made, make them and do it once more."""
        try:
            return self._insisting(work, timeout)
        except Exception as error:
            if not self._schema.can_mend(error):
                raise
        self._schema.mend()
        return self._insisting(work, timeout)

    def _insisting(self, work: Callable[[], T], timeout: float) -> T:
        """Do the work, again if the database took it back in favour of another transaction: that one gets on, and so
        will this, though perhaps after several others. Also if a lock was not free in time while this process is late:
        then so is its thread that has the lock. The later tries have only what is left of the time, so that the
        database says what keeps them, instead of being given up."""
        began = PROCESS.passed()
        patience: AbstractContextManager[None] = NOTHING
        while True:
            try:
                with patience:
                    return work()
            except Exception as error:
                left = timeout - (PROCESS.passed() - began) / OWN_SHARE
                is_worth_a_try = was_taken_back(error) or (PROCESS.is_behind and waited_for_a_lock(error))
                if left <= _LEAST_SHARE * timeout or not is_worth_a_try:
                    raise
            raise_if_given_up()
            patience = self.connections.patience(left)

    def _complain(self, error: OwnTransaction) -> None:
        """Log what only the developer can mend, though not once per request."""
        if self._complaint.is_due():
            log.error(
                "the session database could not be written: %s. (Said once in %d s.)",
                *(error, _SILENCE),
                extra=fields("own_transaction_open", cause=str(error), silence=_SILENCE),
            )
