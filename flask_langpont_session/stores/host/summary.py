"""The journal in numbers, for operators. Reads only; no key, no value and no digest is in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...policy.rows import AuthRow


class Kind(NamedTuple):
    """A kind of entries: a table of the journal.

    :param sessions: the columns that name sessions; none: its entries are about users.
    :param at: SQL for when an entry was written, milliseconds by the host's clock; NULL: it bears no time.
    :param signed_in: SQL for whether it waits for a signed-in session; empty: it waits for no single session.
    """

    sessions: Sequence[str] = ("digest",)
    at: str = "NULL"
    signed_in: str = ""

    @property
    def of_session(self) -> str:
        """Return SQL for whether an entry is about a session, or ends all of its user that are as old as it is."""
        of_user = "user_id = :user_id AND (until_ms >= :created_ms OR epoch > :epoch)"
        return " OR ".join(f"{column} = :digest" for column in self.sessions) or of_user


KINDS: Mapping[str, Kind] = {
    "writes": Kind(at="at_ms", signed_in="kind <> 'a' AND NOT shadow"),
    "carries": Kind(("digest", "origin"), "at_ms", "kind <> 'a'"),
    "revocations": Kind(at="at_ms", signed_in="1"),
    "user_revocations": Kind((), "nullif(until_ms, 0)"),
    "pushes": Kind(signed_in="1"),
    "copies": Kind(),
}
"""Tables of entries. Copies wait for nothing: the workers of the host show them to users while Redis is away. Logging a
user out by an epoch that the database has raised bears no time."""

ALL = (*KINDS, "outages")
"""The tables of which a row makes requests look at the journal."""

NAMING = [(table, column) for table, kind in KINDS.items() for column in kind.sessions]
"""Each table, and each of its columns, that names sessions."""

_SESSIONS = f"""SELECT is_signed_in, count(*) FROM (
    {" UNION ".join(f"SELECT digest, {k.signed_in} AS is_signed_in FROM {t}" for t, k in KINDS.items() if k.signed_in)}
) GROUP BY is_signed_in"""

_BEGINNING = " UNION ".join(
    f"SELECT {column} FROM {table} WHERE substr({column}, 1, :length) = :beginning" for table, column in NAMING
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


def _kind(db: sqlite3.Connection, table: str) -> Waiting:
    at = KINDS[table].at
    oldest = f"SELECT {at} FROM {table} WHERE {at} IS NOT NULL ORDER BY rowid LIMIT 1"
    return Waiting(*db.execute(f"SELECT count(*), ({oldest}) FROM {table}").fetchone())


def read_session(db: sqlite3.Connection, digest: str, row: AuthRow | None) -> dict[str, Waiting]:
    """Return what waits for one session, by kind. For its user: what ends all sessions that are as old as this one.

    :param row: of the session; None: it has none.
    """
    values: dict[str, str | int | None] = {"digest": digest, "user_id": None, "created_ms": 0, "epoch": 0}
    if row is not None:
        values |= {"user_id": row.user_id, "created_ms": row.created_at, "epoch": row.user_epoch}
    sql = "SELECT count(*), min({}) FROM {} WHERE {}"
    return {
        table: Waiting(*db.execute(sql.format(kind.at, table, kind.of_session), values).fetchone())
        for table, kind in KINDS.items()
    }


def find_sessions(db: sqlite3.Connection, beginning: str) -> set[str]:
    """Return the digests here with this beginning."""
    return {digest for (digest,) in db.execute(_BEGINNING, {"beginning": beginning, "length": len(beginning)})}
