"""Answers of Redis and writes of a worker, as its memory gets them."""

from __future__ import annotations

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import CategoryCopy, Change, Known
from flask_langpont_session.stores.memory.memory import Memory


def known(copy: CategoryCopy, *, began: int | None = None, mark: bytes = b"") -> Known:
    """Return a record.

    :param began: None: perhaps not before its version.
    """
    return Known(mark, copy, began=copy.version if began is None else began)


def wrote(memory: Memory, digest: str, category: str, before: int, after: int, kind: str = "", **sets: bytes) -> None:
    """Tell it of a write that found one version, and made another."""
    memory.write(digest, category, CategoryChange(0, sets=sets), Change(before, after), kind=kind)
