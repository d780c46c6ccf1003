"""The one shape of all that is done after an outage, and what its kinds have in common.

Everything here is idempotent (absolute values, versions, compare-and-set, additions with ids that Redis remembers), so
it may be repeated after any failure. Of a Redis of several shards some may answer and others not: what is for those
waits, and nothing else does.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from .. import events
from ..metrics.losses import Cause, Loss
from ..policy.copies import SharedCopy
from ..policy.errors import StoreError
from ..policy.health import DATABASE, ONLY
from ..policy.ids import SIGNED_IN
from ..stores.backend import Backend
from ..stores.host.entries import Carry
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import Merge, Merged, Restore
from ..support.logs import fields

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds per call. No request waits for this thread, so it may be more patient than a request."""

PATIENCE = 10.0
"""Seconds for a batch of rows."""

BATCH = 500
"""Rows of one user that are worked on together."""

PIPELINE = 200
"""Entries that are read together, and sent in one round trip."""

AT_ONCE = 10
"""Batches of one user's rows until other things have their turn again."""

T = TypeVar("T")
E = TypeVar("E")


def _number(entry: Any) -> int:
    """Return the number of an entry of the journal."""
    return int(entry.seq)


class Reach(NamedTuple):
    """The stores that answer.

    :ivar shards: those of the primary.
    :ivar database: whether the database does.
    :ivar locate: says on which shard a digest is.
    """

    shards: frozenset[str]
    database: bool
    locate: Callable[[str], str] = lambda digest: ONLY

    @classmethod
    def of(cls, backend: Backend) -> Reach:
        """Return the stores that requests use at the moment, in both directions."""
        health = backend.health
        return cls(frozenset(health.shards) - set(health.lost_shards), health.is_whole(DATABASE), health.locate)

    @property
    def redis(self) -> bool:
        """Return whether any shard of the primary answers."""
        return bool(self.shards)

    def has(self, digest: str) -> bool:
        """Return whether the shard of a digest answers."""
        return self.locate(digest) in self.shards


class Step(ABC):
    """One kind of work: some of what waits is read, sent to the stores, and noted as done, until nothing waits.

    :cvar is_ordered: whether the next entries must not be sent before these; else one that a store does not take is
        left behind.
    """

    is_ordered = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._journal = backend.journal
        self._redis = backend.primary
        self._database = backend.database
        self._losses = backend.reports.losses

    @abstractmethod
    def pending(self, reach: Reach) -> Iterable[Sequence[Any]]:
        """Yield the entries that wait for stores that answer, as many at a time as are sent together."""

    @abstractmethod
    def send(self, entries: Sequence[Any], reach: Reach) -> bool:
        """Send entries to the stores, and note which are done.

        :return: whether any is.
        :raises StoreError: a store did not answer. Nothing is lost: they are sent again.
        """

    def give_up(self, entry: Any, error: Exception) -> bool:
        """Give up an entry that cannot be sent, for a reason that is not known, and return whether it waits no more.
        Entries that end sessions stay, and are tried again."""
        return False


class Pages(Generic[E]):
    """Leads through all that waits, a page at a time, over as many slices as that takes: where one slice ends, the next
    one goes on.

    :param read: returns at most so many entries, `after` the place of another one; none: there are no more.
    :param place_of: returns the place of an entry; `first` is that before all others.
    """

    def __init__(self, read: Callable[..., list[E]], place_of: Callable[[E], Any] = _number, first: Any = 0) -> None:
        self._read, self._place_of, self._first = read, place_of, first
        self._after: Any = None

    def begin(self) -> Pages[E]:
        """Begin before the first entry, and return this."""
        self._after = self._first
        return self

    @property
    def is_under_way(self) -> bool:
        """Return whether there may be entries that were not reached since it began."""
        return self._after is not None

    def __iter__(self) -> Iterator[list[E]]:
        while self._after is not None:
            page = self._read(PIPELINE, after=self._after)
            self._after = self._place_of(page[-1]) if page else None
            if page:
                yield page


def pages(read: Callable[..., list[E]]) -> Pages[E]:
    """Return everything that waits, a batch at a time: what is for a lost shard must not stand before all else."""
    return Pages(read).begin()


def merge_all(backend: Backend, merges: Sequence[Merge | Restore], write_id: str = "") -> list[Merged | StoreError]:
    """Send merges to Redis in one round trip, and return how each ended.

    :param write_id: of those that have none of their own; empty: a new one.
    """
    write_id = write_id or new_write_id()
    return backend.primary.merge_all(merges, limits=backend.limits, timeout=TIMEOUT, write_id=write_id)


def parts(entries: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield entries a round trip at a time."""
    return (entries[begin : begin + PIPELINE] for begin in range(0, len(entries), PIPELINE))


def ask_journal(call: Callable[[], T], asking: str) -> T | None:
    """Return the answer of the journal; None: it cannot be used. The requests' alarm tells that, it is not the end of a
    thread.

    :param asking: names the thread for the log.
    """
    try:
        return call()
    except StoreError as error:
        log.warning(
            "the %s cannot use the journal: %s",
            *(asking, error),
            extra=fields("journal_not_answering", thread=asking, **error.log_data),
        )
        return None


def being_carried(backend: Backend, but_for: Collection[Carry] = ()) -> frozenset[str]:
    """Return the former ids whose data must stay until it was brought to the present ones, and those: what waits for
    them comes behind it.

    To be asked for after that was read: a carry is kept before what follows from it.

    :param but_for: carries that are done.
    """
    waiting = (carry for page in pages(backend.journal.pending_carries) for carry in page if carry not in but_for)
    return frozenset(digest for carry in waiting for digest in (carry.origin, carry.digest))


def take_along(backend: Backend, copies: Sequence[SharedCopy]) -> None:
    """Share this worker's copies of sessions that go on under other ids as what is known of those: of a former id
    nothing is given back to Redis, and the worker that has made the new one may have known less.

    :param copies: of whichever sessions are over.
    """
    if not copies:
        return
    carries = {carry.origin: carry for page in pages(backend.journal.pending_carries) for carry in page}
    known = []
    for copy in copies:
        carry = carries.get(copy.digest)
        if carry is None or copy.category not in carry.categories:
            continue
        if not backend.register.is_wiped_since(copy.digest, copy.category, copy.copy.version):
            stays = backend.table.left_behind(copy.category, copy.copy.fields, carry.categories)
            fields = {key: value for key, value in copy.copy.fields.items() if key not in stays}
            known.append(copy._replace(digest=carry.digest, kind="", copy=copy.copy._replace(fields=fields)))
    backend.reports.shared(*backend.board.publish_copies(known))


def give_up(backend: Backend, digest: str, kind: str, categories: Sequence[str], error: Exception) -> None:
    """Count, log and report that changes of a session leave the journal without having reached a store: they could not
    the next time either, and all else goes on.

    :param kind: of the session; that of a user raises an alert.
    :param categories: the category of each change.
    :param error: what a store, or the package itself, met with them.
    """
    session, number, cause, place = events.short(digest), len(categories), type(error).__name__, place_of(error)
    for category in categories:
        backend.reports.losses.note(Loss.MERGE_DROPPED, Cause.GIVEN_UP, category, digest=digest)
    log.error(
        "%d changes of the session %s… are given up: bringing them to a store failed with %s in %s",
        *(number, session, cause, place),
        extra=fields("changes_given_up", number=number, session=session, cause=cause, place=place),
    )
    told = events.ChangesGivenUp(session, number, cause, of_user=kind == SIGNED_IN)
    backend.reports.emit(events.changes_given_up, told)


def place_of(error: Exception) -> str:
    """Return where an error was raised, as ``file:line``. The text of one that is not known may quote a value."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
