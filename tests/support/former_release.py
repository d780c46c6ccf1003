"""The release before this one, as it was installed: a wheel beside the tests, and journals in its form."""

from __future__ import annotations

import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flask_langpont_session.stores.host.opening import SCHEMA, SCHEMA_VERSION

_WHEELS = Path(__file__).parents[1] / "releases"


def unpack(folder: Path) -> Path:
    """Put the former release into a folder, which is to be the first in PYTHONPATH."""
    [wheel] = _WHEELS.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return the variables with which a process loads the package from a folder, wherever it is started."""
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


@contextmanager
def held(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection as a worker of the former release has it, to a file that is made if need be."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            path.chmod(0o600)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            for statement in SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("SELECT count(*) FROM writes").fetchone()  # what has read nothing yet has no lock
        yield db


def make(path: Path, *statements: str, form: int = SCHEMA_VERSION) -> None:
    """Make a journal in a form, with rows that these statements insert, as its worker leaves it behind."""
    with held(path) as db:
        for statement in statements:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {form}")


def make_older(path: Path) -> None:
    """Make a journal in a form that this release does not know any more."""
    make(path, REVOCATION, form=SCHEMA_VERSION - 1)


def damage(path: Path) -> None:
    """Put a file in the place of a journal that is no database."""
    path.write_bytes(b"not a database" * 100)
    path.chmod(0o600)


REVOCATION = "INSERT INTO revocations (digest, at_ms, in_database, in_redis) VALUES ('ended', 1, FALSE, FALSE)"
"""A worker of the former release has signed out the session ``ended``."""
