"""The journal and the copies that a host shares, where categories are encrypted.

What waits is kept as the sealed text that Redis gets, or may have got already: what the journal compares are texts.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..policy.values import CategoryChange, RecordRef, SharedCopy
from ..stores.host.board import Board, Shared
from ..stores.host.entries import Overlay, PendingWrite
from ..stores.host.file import JournalFile
from ..stores.host.journal import Journal
from ..stores.host.limits import JournalLimits
from ..support.logs import fields
from .cipher import FORMAT
from .values import Values, is_damaged

log = logging.getLogger(__name__)


class SealedBoard(Board):
    """What the workers of a host tell each other: copies of categories are sealed."""

    def __init__(self, values: Values, file: JournalFile, limits: JournalLimits | None = None) -> None:
        super().__init__(file, limits=limits)
        self._values = values

    def put_copies(self, copies: Iterable[SharedCopy], db: sqlite3.Connection) -> Shared:
        return super().put_copies([self._with(self._values.wires, shared) for shared in copies], db)

    def shared_copies(self, limit: int = 1000, *, after: int = 0) -> Mapping[int, SharedCopy]:
        found = super().shared_copies(limit, after=after)
        return {number: self._with(self._values.opened, shared) for number, shared in found.items()}

    @staticmethod
    def _with(change: Any, shared: SharedCopy) -> SharedCopy:
        fields = change(shared.digest, shared.category, shared.copy.fields)
        return shared._replace(copy=shared.copy._replace(fields=fields))


class SealedJournal(Journal):
    """A journal whose values are sealed."""

    def __init__(self, values: Values, file: JournalFile, limits: JournalLimits | None = None) -> None:
        super().__init__(file, SealedBoard(values, file, limits), limits=limits)
        self._values = values
        self.move, self.can_read = self._moved, self._can_read

    @classmethod
    def at(cls, values: Values, path: Path | None, limits: JournalLimits) -> SealedJournal:
        """See :func:`.journal_at`."""
        return cls(values, JournalFile(path), limits)

    def prepare(self, digest: str, changes: Mapping[str, CategoryChange]) -> None:
        """What the request sees of them from here on is what is kept: what is made of it later is known to be."""
        for name, change in changes.items():
            self._values.seal_once(digest, name, change.sets)

    def put(
        self, entries: Sequence[PendingWrite], copies: Sequence[SharedCopy] = (), *, wait: float | None = None
    ) -> list[PendingWrite]:
        return super().put(list(map(self._sealed, entries)), copies, wait=wait)

    def overlay(self, ref: RecordRef, *, wait: float | None = None) -> Overlay:
        found, digest = super().overlay(ref, wait=wait), ref.digest
        writes = {name: self._open_writes(digest, name, waiting) for name, waiting in found.writes.items()}
        copies = {
            name: copy._replace(fields=self._values.opened(digest, name, copy.fields))
            for name, copy in found.copies.items()
        }
        return replace(found, writes=writes, copies=copies)

    def _open_writes(
        self, digest: str, category: str, waiting: Mapping[str, bytes | None]
    ) -> Mapping[str, bytes | None]:
        """Those that can be opened: of others it is not known what they were to change."""
        opened = {
            field: None if stored is None else self._values.open(digest, category, field, _as_bytes(stored))
            for field, stored in waiting.items()
        }
        return {field: value for field, value in opened.items() if not is_damaged(value)}

    def pending_writes(self, limit: int = 1000, *, signed_in: bool = True, after: int = 0) -> list[PendingWrite]:
        opened = list(map(self._opened, super().pending_writes(limit, signed_in=signed_in, after=after)))
        if damaged := [entry for entry in opened if is_damaged(entry.value) and self.can_read(entry)]:
            log.error(
                "%d entries of the journal cannot be decrypted and are removed: what they were to change is lost",
                len(damaged),
                extra=fields("entries_not_decrypted", number=len(damaged)),
            )
            self.forget_writes(damaged)
            for entry in damaged:
                self.on_damaged(entry.category)
        return [entry for entry in opened if entry not in damaged]

    def _can_read(self, entry: PendingWrite) -> bool:
        """False: it is sealed by a key that this process does not have."""
        return not any(self._values.lack_the_key_of(value) for value in (entry.value, entry.base))

    def forget_writes(
        self,
        entries: Iterable[PendingWrite],
        copies: Iterable[SharedCopy] = (),
        *,
        applied: Iterable[PendingWrite] = (),
    ) -> Shared:
        return super().forget_writes(entries, copies, applied=list(map(self._sealed, applied)))

    def _moved(self, entry: PendingWrite, digest: str, kind: str) -> PendingWrite:
        return self._sealed(replace(self._opened(entry), digest=digest, kind=kind))

    def _sealed(self, entry: PendingWrite) -> PendingWrite:
        place, value, base = (entry.digest, entry.category, entry.field), entry.value, entry.base
        return replace(
            entry,
            value=None if value is None else self._values.wire(*place, value),
            base=None if base is None else self._values.base(*place, base),
        )

    def _opened(self, entry: PendingWrite) -> PendingWrite:
        place, value, base = (entry.digest, entry.category, entry.field), entry.value, entry.base
        return replace(
            entry,
            value=None if value is None else self._values.open(*place, _as_bytes(value)),
            base=None if base is None else self._values.open(*place, _as_bytes(base)),
        )


def _as_bytes(stored: Any) -> bytes:
    """SQLite keeps what it is given in a column of any type: what is no blob is damaged."""
    return stored if type(stored) is bytes else FORMAT
