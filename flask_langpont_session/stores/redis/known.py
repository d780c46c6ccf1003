"""What this worker has read of records before: Redis is asked whether it is so still, not for all of it again."""

from __future__ import annotations

from collections.abc import Mapping

from ...policy.values import RecordRef
from ...support.forks import renew_in_children
from .records import NO_RECORDS, Known

BYTES = 16 * 1024 * 1024
"""How much a worker keeps, names and values of fields counted: some five thousand sessions of 1 KB each."""

LARGEST_SHARE = 16
"""What is larger than such a part of it is not kept: one session must not push all others out."""

_EACH = 400
"""Bytes that an entry takes beside its fields, about."""


class KnownRecords:
    """Bounded by bytes; what was not asked for lately goes first. Usable from any thread without a lock: a race loses
    at most an entry, and each entry is one value, whose mark names its content.

    :param most: bytes.
    """

    def __init__(self, most: int = BYTES) -> None:
        self._most = most
        self._begin()
        renew_in_children(self, KnownRecords._begin)

    def _begin(self) -> None:
        # Of two generations the older one goes when the younger one has half of the room: all that is asked for
        # meanwhile moves to the younger one. That needs no order of entries, which a lock would have to protect.
        # Each with its size.
        self._young: dict[RecordRef, tuple[int, Mapping[str, Known]]] = {}
        self._old: dict[RecordRef, tuple[int, Mapping[str, Known]]] = {}
        self._bytes = 0

    def clear(self) -> None:
        """Forget all of it: what is asked for next is sent as a whole."""
        self._begin()

    def of(self, ref: RecordRef) -> Mapping[str, Known]:
        """Category → what is known."""
        found = self._young.get(ref)
        if found is None:
            found = self._old.get(ref)
            if found is None:
                return NO_RECORDS
            self._keep(ref, *found)
        return found[1]

    def note(self, ref: RecordRef, known: Mapping[str, Known], found: Mapping[str, Known]) -> None:
        """Keep what a read has found.

        :param known: what was known before.
        """
        news = {name: record for name, record in found.items() if record is not known.get(name) and record.mark}
        if news:
            records = {**known, **news}
            self._keep(ref, sum(map(_size, records.values())), records)

    def _keep(self, ref: RecordRef, size: int, records: Mapping[str, Known]) -> None:
        if size > self._most // LARGEST_SHARE:
            return
        self._bytes += size - self._young.get(ref, _NOTHING)[0]
        self._young[ref] = size, records
        if self._bytes > self._most // 2:
            self._old, self._young, self._bytes = self._young, {}, 0


_NOTHING: tuple[int, Mapping[str, Known]] = 0, NO_RECORDS


def _size(record: Known) -> int:
    return _EACH + sum(len(name) + len(value) for name, value in record.copy.fields.items())
