"""Reads all facts, in an order in which no reading changes what is read after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, TypeVar

from flask import Flask

from ...policy.categories import AUTH
from ...policy.errors import StoreError
from ...policy.health import DATABASE
from ...policy.leases import INCIDENT_MARGIN_MS
from ...stores.backend import Backend
from ...stores.hosts import HostWords
from ...stores.sql.tables import METADATA
from .facts import SERVERS, Database, Facts
from .findings import Unknown
from .read_database import read_database
from .read_host import read_host
from .read_redis import PATIENCE, read_servers

T = TypeVar("T")

_PAGE = 200
_MOST_SESSIONS, _TODAY_MS = 50, 86_400_000


def read(app: Flask, backend: Backend, needs: Set[str]) -> Facts:
    """Return the facts about an application. Leaves nothing on the servers, and makes no file.

    :param needs: those of :class:`.Check`; nothing else is asked.
    """
    settings, found = backend.settings, dict[str, Any]()
    host = read_host(Path(settings.journal) if settings.journal else None)
    if SERVERS in needs:
        found = {"servers": read_servers(backend), "homeless": backend.primary.homeless}
        found["hosts"] = _or_unknown(
            "what hosts have left in Redis", lambda _: HostWords(backend.primary).read(), backend
        )
    if DATABASE in needs:
        database = found["database"] = read_database(backend.database)
        if isinstance(database, Database):
            is_there = host.journal is not None and host.journal.is_there
            found["lost_commits"] = _or_unknown("revocations", _lost_commits, backend) if is_there else 0
            if SERVERS in needs and len(database.tables) == len(METADATA.tables):
                found["unclaimed"] = _or_unknown("sessions", _unclaimed, backend)
                found["absent"] = _or_unknown("sessions", _absent, backend)
    config = {**app.config, "SECRET_KEY": app.secret_key or ""}
    return Facts(settings=settings, config=config, at=time.time(), host=host, **found)


def _or_unknown(what: str, read: Callable[[Backend], T], backend: Backend) -> T | Unknown:
    """Return what is read of the stores, or that it cannot be."""
    try:
        return read(backend)
    except StoreError as error:
        return Unknown(f"{what} cannot be read: {error}")


def _unclaimed(backend: Backend) -> frozenset[str]:
    """Return the names of keys that no feature names, in sessions of users that changed today; no values."""
    table = backend.table
    catching = {feature.category for feature in table.features.values() if "*" in feature.keys} - {AUTH}
    rows = backend.database.changed_since(_TODAY_MS, limit=_MOST_SESSIONS).rows
    wanted = [(row.digest, category) for row in rows if row.live for category in sorted(catching)]
    copies = backend.primary.copies(wanted, timeout=PATIENCE) if wanted else ()
    return frozenset(key for copy in copies for key in copy.fields if table.is_unclaimed(key))


def _absent(backend: Backend) -> int:
    """Return how many sessions of users that changed today Redis has nothing of."""
    rows = backend.database.changed_since(_TODAY_MS, limit=_MOST_SESSIONS).rows
    answers = backend.primary.auths([row.digest for row in rows if row.live and row.user_id], timeout=PATIENCE)
    return sum(answer.auth is None for answer in answers)


def _lost_commits(backend: Backend) -> int:
    """Return how many revocations the database lacks, of those that this host has delivered."""
    lost, after = 0, ""
    while page := backend.journal.revocations.delivered(_PAGE, after=after):
        rows = backend.database.load_many(page, PATIENCE).rows.values()
        lost += sum(row.lives_on(INCIDENT_MARGIN_MS) for row in rows)
        after = page[-1]
    return lost
