"""What this worker has read of records before: Redis is asked whether it is so still, not for all of it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...policy.values import RecordRef
from ...support.caches import Recent
from ...support.forks import renew_in_children
from .records import NO_RECORDS, Known

BYTES = 16 * 1024 * 1024
"""How much a worker keeps, names and values of fields counted: some five thousand sessions of 1 KB each."""

LARGEST_SHARE = 16
"""What is larger than such a part of it is not kept: one session must not push all others out."""

_EACH = 400
"""Bytes that an entry takes beside its fields, about."""


class KnownRecords:
    """Bounded by bytes; what was not asked for lately goes first. Usable from any thread without a lock: each entry is
    one value, whose mark names its content.

    :param most: bytes.
    """

    def __init__(self, most: int = BYTES) -> None:
        self.most = most
        self._begin()
        renew_in_children(self, KnownRecords._begin)

    def _begin(self) -> None:
        self._records: Recent[RecordRef, Mapping[str, Known]] = Recent(self.most)

    def clear(self) -> None:
        """Forget all of it: what is asked for next is sent as a whole."""
        self._begin()

    def of(self, ref: RecordRef) -> Mapping[str, Known]:
        """Category → what is known."""
        return self._records.get(ref) or NO_RECORDS

    def note(self, ref: RecordRef, known: Mapping[str, Known], found: Mapping[str, Known]) -> None:
        """Keep what a read has found.

        :param known: what was known before.
        """
        news = {name: record for name, record in found.items() if record is not known.get(name) and record.mark}
        if news:
            records = {**known, **news}
            size = size_of(records.values())
            if size <= self.most // LARGEST_SHARE:
                self._records.put(ref, records, size)


def size_of(records: Iterable[Known]) -> int:
    """Bytes, about."""
    return sum([_EACH + sum(map(len, r.copy.fields)) + sum(map(len, r.copy.fields.values())) for r in records])
