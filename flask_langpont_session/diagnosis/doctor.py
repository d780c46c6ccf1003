"""Reads all facts, in an order in which no reading changes what is read after it."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from flask import Flask

from ..policy.categories import AUTH
from ..policy.errors import StoreError
from ..policy.leases import INCIDENT_MARGIN_MS
from ..stores.backend import Backend
from ..stores.sql.tables import METADATA
from .facts import Database, Facts, Unclaimed
from .findings import DATABASE, SERVERS, SESSIONS, Unknown
from .read_application import read_application
from .read_database import read_database
from .read_host import read_host
from .read_redis import PATIENCE, read_servers

_MOST_SESSIONS = 50
_TODAY_MS = 86_400_000
_PAGE = 200


_NOT_ASKED = Unknown("it was not asked")


def read(app: Flask, backend: Backend, needs: Set[str]) -> Facts:
    """Return the facts about an application. Leaves nothing on the servers, and makes no file.

    :param needs: those of :class:`.Check`; nothing else is asked.
    """
    settings = backend.settings
    application = read_application(app, settings)
    host = read_host(Path(settings.journal) if settings.journal else None, settings.journal_max_bytes)
    servers = read_servers(backend) if SERVERS in needs else {}
    database: Database | Unknown = _NOT_ASKED
    if needs & {DATABASE, SESSIONS}:
        database = read_database(backend.database, is_own_engine=settings.database_engine is None)
    unclaimed: Unclaimed | Unknown = _NOT_ASKED
    if SESSIONS in needs:
        has_tables = not isinstance(database, Unknown) and len(database.tables) == len(METADATA.tables)
        unclaimed = _unclaimed(backend) if has_tables else Unknown("the database says of no session that it is there")
    lost_commits: int | Unknown = _NOT_ASKED
    if DATABASE in needs and not isinstance(database, Unknown):
        lost_commits = _lost_commits(backend) if host.journal is not None and host.journal.is_there else 0
    return Facts(
        application=application,
        servers=servers,
        homeless=backend.primary.homeless,
        database=database,
        host=host,
        unclaimed=unclaimed,
        lost_commits=lost_commits,
    )


def _lost_commits(backend: Backend) -> int | Unknown:
    """Return how many revocations the database lacks, of those that this host has delivered."""
    lost, after = 0, ""
    try:
        while page := backend.journal.revocations.delivered(_PAGE, after=after):
            rows = backend.database.load_many(page, PATIENCE).rows.values()
            lost += sum(row.lives_on(INCIDENT_MARGIN_MS) for row in rows)
            after = page[-1]
    except StoreError as error:
        return Unknown(f"the revocations cannot be looked at: {error}")
    return lost


def _unclaimed(backend: Backend) -> Unclaimed | Unknown:
    """Return the names of unclaimed keys in sessions of users that changed today; values are not looked at."""
    table, keys = backend.table, set[str]()
    catching = [feature.category for feature in table.features.values() if "*" in feature.keys]
    try:
        changed = backend.database.changed_since(_TODAY_MS, limit=_MOST_SESSIONS)
        rows = [row for row in changed.rows if row.live]
        wanted = [(row.digest, category) for row in rows for category in catching if category != AUTH]
        for copy in backend.primary.copies(wanted, timeout=PATIENCE) if wanted else ():
            keys.update(copy.fields)
    except StoreError as error:
        return Unknown(f"the sessions cannot be looked at: {error}")
    return Unclaimed(len(rows), tuple(sorted(key for key in keys if table.is_unclaimed(key))))
