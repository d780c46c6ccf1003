"""Reads all facts, in an order in which no reading changes what is read after it."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from pathlib import Path

from flask import Flask

from ...policy.categories import AUTH
from ...policy.errors import StoreError
from ...policy.leases import INCIDENT_MARGIN_MS
from ...stores.backend import Backend
from ...stores.hosts import HostWord, HostWords
from ...stores.sql.tables import METADATA
from .facts import Application, Database, Facts
from .findings import DATABASE, SERVERS, Unknown
from .read_database import read_database
from .read_host import read_host
from .read_redis import PATIENCE, read_servers

_PAGE = 200
_MOST_SESSIONS, _TODAY_MS = 50, 86_400_000


_NOT_ASKED = Unknown("it was not asked")


def read(app: Flask, backend: Backend, needs: Set[str]) -> Facts:
    """Return the facts about an application. Leaves nothing on the servers, and makes no file.

    :param needs: those of :class:`.Check`; nothing else is asked.
    """
    settings = backend.settings
    application = Application(
        settings=settings,
        config={**app.config, "SECRET_KEY": app.secret_key or ""},
        is_debug=app.debug,
        is_testing=app.testing,
        at=time.time(),
    )
    host = read_host(Path(settings.journal) if settings.journal else None, settings.journal_max_bytes)
    servers = read_servers(backend) if SERVERS in needs else {}
    database: Database | Unknown = _NOT_ASKED
    if DATABASE in needs:
        database = read_database(backend.database)
    lost_commits: int | Unknown = _NOT_ASKED
    unclaimed: frozenset[str] | Unknown = _NOT_ASKED
    if DATABASE in needs and not isinstance(database, Unknown):
        lost_commits = _lost_commits(backend) if host.journal is not None and host.journal.is_there else 0
        if SERVERS in needs and len(database.tables) == len(METADATA.tables):
            unclaimed = _unclaimed(backend)
    hosts: Sequence[HostWord] | Unknown = _NOT_ASKED
    if SERVERS in needs:
        try:
            hosts = HostWords(backend.primary).read()
        except StoreError as error:
            hosts = Unknown(f"what hosts have left in Redis cannot be read: {error}")
    return Facts(
        application=application,
        servers=servers,
        homeless=backend.primary.homeless,
        database=database,
        host=host,
        lost_commits=lost_commits,
        unclaimed=unclaimed,
        hosts=hosts,
    )


def _unclaimed(backend: Backend) -> frozenset[str] | Unknown:
    """Return the names of keys that no feature names, in sessions of users that changed today; no values."""
    table = backend.table
    catching = {feature.category for feature in table.features.values() if "*" in feature.keys} - {AUTH}
    try:
        rows = backend.database.changed_since(_TODAY_MS, limit=_MOST_SESSIONS).rows
        wanted = [(row.digest, category) for row in rows if row.live for category in sorted(catching)]
        copies = backend.primary.copies(wanted, timeout=PATIENCE) if wanted else ()
    except StoreError as error:
        return Unknown(f"the sessions cannot be looked at: {error}")
    return frozenset(key for copy in copies for key in copy.fields if table.is_unclaimed(key))


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
