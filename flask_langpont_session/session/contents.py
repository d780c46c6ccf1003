"""What is in a session as a whole: which keys have a value, and which of these can be read."""

from __future__ import annotations

from ..exceptions import UnreadableValue
from ..policy.categories import AUTHENTICATED_AT
from ..policy.serializer import decode
from .work import Work


def present(work: Work) -> dict[str, bytes | None]:
    """The keys that have a value, each with its encoding; None: it is neither stored nor assigned."""
    changes, table = work.now, work.repository.table
    present: dict[str, bytes | None] = {}
    for name in table.categories:
        present.update(work.stored(name))
    for key in changes.increments:
        present.setdefault(key)
    present.update(changes.assigned)
    for key in changes.saved:
        present.setdefault(key)
    for key in changes.deleted:
        present.pop(key, None)
    present.pop(AUTHENTICATED_AT, None)
    return present if table.claims_all else {key: raw for key, raw in present.items() if key in table}


def readable_keys(work: Work) -> list[str]:
    """Those whose value can be read; all of them are, now."""
    found, values = present(work), work.now.values
    for key, raw in found.items():
        if key not in values and raw is not None:
            try:
                values[key] = decode(raw)
            except UnreadableValue:
                work.note_unreadable(key)
    return list(filter(values.__contains__, found))
