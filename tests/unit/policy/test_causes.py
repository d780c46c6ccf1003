"""The cures for each error of a store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flask_langpont_session.policy.causes import cause_of
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, REPLICA

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
U, B, W, A, N = (
    ErrorClass.UNREACHABLE,
    ErrorClass.BUSY,
    ErrorClass.WRITE_REFUSED,
    ErrorClass.IDENTITY_REFUSED,
    ErrorClass.NO_TABLES,
)

CURES = [
    ("primary", U, "ConnectionError", "LANGPONT_SESSION_REDIS_URL is right (host, port, redis:// or rediss://), that"),
    ("replica:2", U, "ConnectionError", "check that LANGPONT_SESSION_REPLICA_URL is right"),
    ("primary", U, "is no cluster", "write redis:// or rediss:// in LANGPONT_SESSION_REDIS_URL, in place of"),
    ("replica", U, "is a node of a cluster", "write redis+cluster:// or rediss+cluster:// in LANGPONT_SESSION_REPLICA"),
    ("primary", U, "has no database of that number", "correct the number at the end of LANGPONT_SESSION_REDIS_URL"),
    ("primary", U, "InvalidResponse", "its server speaks TLS: write rediss://"),
    ("primary", U, "TimeoutError", "or says rediss:// of a server without TLS"),
    ("primary", U, "no answer within 250 ms", "its server hangs, is busy (SLOWLOG GET"),
    ("replica", U, "Promoted", "have LANGPONT_SESSION_REPLICA_URL name the reader endpoint, or leave it out"),
    ("replica", U, "TimeoutError", "or LANGPONT_SESSION_REPLICA_URL is not its address"),
    ("primary", B, "BusyLoadingError", "wait: it reads its data"),
    ("primary", W, "ReadOnlyError", "it is a replica: promote it (`REPLICAOF NO ONE`)"),
    ("primary:1", W, "OutOfMemoryError", "its memory is full: raise maxmemory"),
    ("primary", W, "ResponseError", "MISCONF"),
    ("primary", A, "wrong password or user", "correct the password or user in LANGPONT_SESSION_REDIS_URL"),
    ("replica", A, "certificate: expired", "renew the certificate of its server"),
    ("primary", A, "right: +hset is missing", "redis-rights"),
    (
        "database",
        U,
        "OperationalError",
        "check that LANGPONT_SESSION_DATABASE_URL is right, and owner and mode of its file",
    ),
    ("database", U, "NoFreeSlot", "look for long transactions and locks"),
    ("database", B, "has no connection left", "max_connections"),
    ("database", W, "SQLITE_BUSY", "`fuser /var/lib/shop.sqlite3`"),
    ("database", W, "SQLITE_READONLY_DBMOVED", "may not write /var/lib/shop.sqlite3"),
    ("database", W, "SQLITE_FULL", "make room on the disk of /var/lib/shop.sqlite3"),
    ("database", W, "ReadOnlySqlTransaction", "name the writer endpoint"),
    ("database", W, "ReadOnlySqlTransaction", "its user's role has default_transaction_read_only"),
    ("database", W, "LockNotAvailable", "find the transaction that locks its tables"),
    ("database", W, "OperationalError 1205", "find the transaction that locks its tables"),
    ("database", W, "OperationalError 1290", "name the writer endpoint"),
    ("database", A, "InvalidPassword", "correct the password or user in LANGPONT_SESSION_DATABASE_URL"),
    ("database", N, "langpont_users is not there", "look for the tables before empty ones are made"),
    ("journal", U, "TimeoutError", "check that LANGPONT_SESSION_JOURNAL is right, and owner and mode of its file"),
]


@pytest.mark.parametrize(("store", "error_class", "cause", "says"), CURES)
def test_each_cause_has_its_own_cure(store: str, error_class: ErrorClass, cause: str, says: str) -> None:
    """The cure names the setting or the file that it is about."""
    cure = cause_of(StoreError(store, error_class, cause), "/var/lib/shop.sqlite3")
    assert says in cure.does
    assert not re.search(r"[{}]", cure.does)


def test_every_section_is_on_the_page() -> None:
    """The page has every section to which a cure sends its reader."""
    there = set(re.findall(r"^### (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    stores = (PRIMARY, REPLICA, DATABASE, "journal")
    causes = {cause for _, _, cause, _ in CURES}
    errors = [StoreError(store, kind, cause) for store in stores for kind in ErrorClass for cause in causes]
    assert {cause_of(error).section for error in errors} <= there
