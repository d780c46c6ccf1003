"""Entries of a journal, for tests that are about something else than what is in them."""

from __future__ import annotations

from typing import Any

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.stores.host.journal import PendingWrite


def value(digest: str, field: str, text: bytes | None, **more: Any) -> PendingWrite:
    """A field that is set without having been read; None: deleted."""
    operation = Operation.DELETE if text is None else Operation.SET
    return _entry(digest, field, value=text, **{"operation": operation, **more})


def addition(digest: str, field: str, by: int, **more: Any) -> PendingWrite:
    """Return an entry that adds to a field."""
    return _entry(digest, field, operation=Operation.ADD, delta=by, **{"token": "added.1", **more})


def _entry(digest: str, field: str, **more: Any) -> PendingWrite:
    return PendingWrite(digest=digest, field=field, **{"kind": "u", "category": "ui", **more})
