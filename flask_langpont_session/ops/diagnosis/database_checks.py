"""Checks of the database."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.schema import CreateIndex

from ... import migrations
from ...config.checks import PREFIX
from ...policy.causes import cause_of
from ...stores.sql import tables as sql
from ...stores.sql.errors import BRING_BACK
from .facts import Column, Database, Facts
from .findings import CannotTell, Look, failure, known, warning
from .redis_checks import transport_findings


def _missing_tables(database: Database) -> list[str]:
    return [name for name in sql.METADATA.tables if name not in database.tables]


def _want_all_tables(database: Database) -> None:
    if missing := _missing_tables(database):
        raise CannotTell(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, see tables")


def tables(database: Database, facts: Facts) -> Look:
    if missing := _missing_tables(database):
        yield failure(f"missing: {', '.join(missing)}", BRING_BACK)
    return f"{', '.join(database.tables)} in {database.place}"


def wrong_columns(name: str, there: dict[str, Column]) -> Iterator[str]:
    """Yield how a table differs from the one that this release makes."""
    wanted = sql.METADATA.tables[name].columns
    for column in wanted:
        found = there.get(column.name)
        length = getattr(column.type, "length", None)
        if found is None:
            yield f"{name}.{column.name} is missing"
        elif found.is_wide is False:
            yield f"{name}.{column.name} has no room for milliseconds since 1970 (BIGINT)"
        elif length and found.length is not None and found.length < length:
            yield f"{name}.{column.name} holds {found.length} characters, not {length}"
        elif found.collation is not None and not _tells_apart(column.name, found.collation):
            yield f"{name}.{column.name} takes different texts for the same ({found.collation})"
    yield from (f"{name}.{other} is not known here" for other in there if other not in wanted)


def _tells_apart(column: str, collation: str) -> bool:
    """Return whether a column's collation takes no two texts for the same, by its name, which in MySQL says so. Users
    may differ by a space at the end."""
    if column == "user_id":
        return collation in (sql.NO_PAD, sql.NO_PAD_OF_MYSQL)
    return collation.endswith("_bin")


def schema(database: Database, facts: Facts) -> Look:
    found = [line for name, columns in database.tables.items() for line in wrong_columns(name, dict(columns))]
    newer = [line for line in found if line.endswith("is not known here")]
    wrong = [line for line in found if line not in newer]
    version = migrations.versions()[-1]
    if wrong:
        cure = f"bring the tables to {version} (flask_langpont_session.migrations); see docs/databases.md"
        yield failure("; ".join(wrong), cure)
    if newer:
        cure = "upgrade flask-langpont-session on this host; or drop the column, if it is not a newer release's"
        yield warning("; ".join(newer), cure)
    _want_all_tables(database)
    return f"version {version[1:].lstrip('0')}"


def indexes(database: Database, facts: Facts) -> Look:
    wanted = [
        index
        for name, table in sql.METADATA.tables.items()
        if name in database.tables
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if not any(  # some index begins with these columns
            columns[: len(index.columns)] == tuple(column.name for column in index.columns)
            for columns in database.indexes.get(name, ())
        )
    ]
    if wanted:
        # Without it PostgreSQL lets no user sign in until the index is made.
        how = "INDEX CONCURRENTLY" if database.backend == "postgresql" else "INDEX"
        cure = "; ".join(str(CreateIndex(index)).strip().replace("INDEX", how, 1) for index in wanted)
        yield warning(f"missing: {', '.join(str(index.name) for index in wanted)}", cure)
    _want_all_tables(database)
    return "all there"


def database_writes(database: Database, facts: Facts) -> Look:
    _want_all_tables(database)
    if refusal := database.refusal:
        cure = cause_of(refusal, database.file.path if database.file else None)
        yield failure(f"it takes no writes: {refusal.why}; sign-ins are refused (503)", str(cure))
    return "it takes writes"


def database_rights(database: Database, facts: Facts) -> Look:
    if missing := known(database.missing):
        cure = "GRANT SELECT, INSERT, UPDATE, DELETE ON langpont_sessions, langpont_users TO the user"
        yield failure(f"its user lacks {', '.join(missing)}", cure)
    return "its user may do what is needed"


def database_tls(database: Database, facts: Facts) -> Look:
    if database.backend == "sqlite":
        return "a file of this host"
    how = "?sslmode=verify-full&sslrootcert=…" if database.backend == "postgresql" else "the driver's ssl_… options"
    cure = f"{how} in {PREFIX}DATABASE_URL"
    return (yield from transport_findings(known(database.transport), facts.at, cure, cure))


def lost_commits(database: Database, facts: Facts) -> Look:
    if lost := known(facts.lost_commits):
        cure = "docs/operations.md, database-went-back; running workers tell it again"
        yield failure(f"it lacks {lost} revocations that this host had told it", cure)
    return "it has what this host has told it"
