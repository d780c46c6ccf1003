"""Answers of Redis and writes of a worker, as its memory gets them."""

from __future__ import annotations

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import CategoryCopy, Change
from flask_langpont_session.stores.memory.memory import Memory


def known(copy: CategoryCopy, *, began: int = 0, mark: bytes = b"") -> CategoryCopy:
    """Return a record."""
    return copy._replace(mark=mark, began=began)


def content(copy: CategoryCopy | None) -> CategoryCopy | None:
    """Return a copy without what it says of its record."""
    return copy and CategoryCopy(copy.version, copy.fields, additions=copy.additions)


def wrote(memory: Memory, digest: str, category: str, before: int, after: int, kind: str = "", **sets: bytes) -> None:
    """Tell it of a write that found one version, and made another."""
    memory.write(digest, category, CategoryChange(0, sets=sets), Change(before, after), kind=kind)
