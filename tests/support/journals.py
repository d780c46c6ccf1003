"""Helpers to write changes to a journal, and to record the statements that it executes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.servers import ServerRecord
from flask_langpont_session.stores.host.entries import PendingWrite
from flask_langpont_session.stores.host.journal import Journal

KNOWN = ServerRecord(identity="a", trust_since_ms=100, canary_id="g", number=7)


def ref(digest: str, *, shadow: bool = False) -> RecordRef:
    """A session, as the journal is asked for it. Of which kind it is plays no part there."""
    return RecordRef(digest, "a", shadow)


def write_fields(journal: Journal, digest: str, changes: Mapping[str, bytes | None], *, shadow: bool = False) -> None:
    journal.put([blind_write(field, value, digest=digest, shadow=shadow) for field, value in changes.items()])


def write(journal: Journal, digest: str = "d", /, **changes: bytes | None) -> None:
    write_fields(journal, digest, changes)


def write_shadow(journal: Journal, **changes: bytes | None) -> None:
    write_fields(journal, "d", changes, shadow=True)


def blind_write(field: str, value: bytes | None = None, *, digest: str = "d", shadow: bool = False) -> PendingWrite:
    """A blind write of a field; None: its deletion."""
    operation = Operation.DELETE if value is None else Operation.SET
    return PendingWrite(
        digest=digest, kind="u", shadow=shadow, category="translation", operation=operation, field=field, value=value
    )


def questions(journal: Journal) -> list[str]:
    """Return a list that fills with the statements which the journal executes from here on, over any connection."""
    statements: list[str] = []
    with journal.file.connected() as connection:
        connection.set_trace_callback(statements.append)
    journal.file.transaction(lambda connection: connection.set_trace_callback(statements.append))
    journal.is_empty()  # opening one was a change
    statements.clear()
    return statements


def in_fork(work: Callable[[], object]) -> str:
    """Return the result of ``work`` in a forked child, as text."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def addition(by: int, digest: str = "d", token: str = "added..") -> PendingWrite:
    return replace(blind_write("n", digest=digest), operation=Operation.ADD, delta=by, token=token)


def increment(journal: Journal, by: int, digest: str = "d") -> None:
    journal.put([addition(by, digest)])
