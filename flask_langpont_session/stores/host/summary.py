"""The journal in numbers, for operators. Reads only; no key, no value and no digest is in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...policy.rows import AuthRow

KINDS = ("writes", "carries", "revocations", "user_revocations", "pushes", "copies")
"""Tables of entries. Copies wait for nothing: the workers of the host show them to users while Redis is away."""

_OLDEST = {
    "writes": "SELECT at_ms FROM writes ORDER BY seq LIMIT 1",
    "carries": "SELECT at_ms FROM carries ORDER BY seq LIMIT 1",
    "revocations": "SELECT at_ms FROM revocations ORDER BY seq LIMIT 1",
    "user_revocations": "SELECT min(until_ms) FROM user_revocations WHERE until_ms > 0",
}
"""Pushes, copies, and logging a user out by an epoch that the database has raised bear no time."""

_SESSIONS = """SELECT is_signed_in, count(*) FROM (
        SELECT digest, kind <> 'a' AND NOT shadow AS is_signed_in FROM writes
        UNION SELECT digest, kind <> 'a' FROM carries
        UNION SELECT digest, 1 FROM revocations
        UNION SELECT digest, 1 FROM pushes
    ) GROUP BY is_signed_in"""


_OF_SESSION = {
    "writes": "SELECT count(*), min(at_ms) FROM writes WHERE digest = :digest",
    "carries": "SELECT count(*), min(at_ms) FROM carries WHERE digest = :digest OR origin = :digest",
    "revocations": "SELECT count(*), min(at_ms) FROM revocations WHERE digest = :digest",
    "user_revocations": """SELECT count(*), min(nullif(until_ms, 0)) FROM user_revocations
        WHERE user_id = :user_id AND (until_ms >= :created_ms OR epoch > :epoch)""",
    "pushes": "SELECT count(*), NULL FROM pushes WHERE digest = :digest",
    "copies": "SELECT count(*), NULL FROM copies WHERE digest = :digest",
}

_BEGINNING = " UNION ".join(
    f"SELECT digest FROM {table} WHERE substr(digest, 1, :length) = :beginning"
    for table in ("writes", "carries", "revocations", "pushes", "copies")
)


class Waiting(NamedTuple):
    """Entries that wait.

    :param entries: how many.
    :param oldest_ms: when the oldest was written of those that bear a time, milliseconds since 1970 by the host's
        clock; None: there is none.
    """

    entries: int
    oldest_ms: int | None

    def oldest_seconds(self, now: float) -> float | None:
        """Return for how many seconds the oldest has waited; None: there is none.

        :param now: seconds since 1970.
        """
        return None if self.oldest_ms is None else round(max(0.0, now - self.oldest_ms / 1000), 1)


class Summary(NamedTuple):
    """Everything in a journal.

    :param kinds: kind → what there is of it.
    :param signed_in: signed-in sessions that something waits for; those of users that were logged out everywhere are
        not known by number.
    :param visitors: the other sessions.
    :param bytes: of the file, what has not been moved into it yet included.
    """

    kinds: Mapping[str, Waiting]
    signed_in: int
    visitors: int
    bytes: int


def read_waiting(db: sqlite3.Connection) -> Waiting:
    """Return all that waits for a store, together. Quick, however much that is."""
    return together(_kind(db, kind) for kind in KINDS if kind != "copies")


def together(parts: Iterable[Waiting]) -> Waiting:
    """Return the sum, and the oldest of all."""
    entries, times = zip(*parts, strict=True)
    return Waiting(sum(entries), min((at_ms for at_ms in times if at_ms is not None), default=None))


def read_summary(db: sqlite3.Connection, bytes: int) -> Summary:
    """Return everything in the journal, in numbers."""
    sessions = dict(db.execute(_SESSIONS).fetchall())
    return Summary({kind: _kind(db, kind) for kind in KINDS}, sessions.get(1, 0), sessions.get(0, 0), bytes)


def _kind(db: sqlite3.Connection, kind: str) -> Waiting:
    [entries] = db.execute(f"SELECT count(*) FROM {kind}").fetchone()
    oldest = db.execute(_OLDEST[kind]).fetchone() if kind in _OLDEST else None
    return Waiting(entries, oldest[0] if oldest else None)


def read_session(db: sqlite3.Connection, digest: str, row: AuthRow | None) -> dict[str, Waiting]:
    """Return what waits for one session, by kind. For its user: what ends all sessions that are as old as this one.

    :param row: of the session; None: it has none.
    """
    values: dict[str, str | int | None] = {"digest": digest, "user_id": None, "created_ms": 0, "epoch": 0}
    if row is not None:
        values |= {"user_id": row.user_id, "created_ms": row.created_at, "epoch": row.user_epoch}
    return {kind: Waiting(*db.execute(sql, values).fetchone()) for kind, sql in _OF_SESSION.items()}


def find_sessions(db: sqlite3.Connection, beginning: str) -> set[str]:
    """Return the digests here with this beginning."""
    return {digest for (digest,) in db.execute(_BEGINNING, {"beginning": beginning, "length": len(beginning)})}
