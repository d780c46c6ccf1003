"""Facts of a set-up in which nothing is wrong, to be told with a difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from flask_langpont_session.config.settings import Settings
from flask_langpont_session.ops.diagnosis.facts import (
    Clock,
    Column,
    Database,
    Facts,
    File,
    Host,
    Server,
    Transport,
)
from flask_langpont_session.stores.hosts import HostWord
from flask_langpont_session.stores.sql import tables as sql

KEY = "7f3c1e9a52b84d06f1ac93be5d72084613e8f5a9c0b7d2467e91afc3580db624"
SECURE = Transport(is_local=False, is_encrypted=True, checks_certificate=True, checks_name=True, has_credentials=True)

INFO = {
    "run_id": "a" * 40,
    "role": "master",
    "loading": "0",
    "master_replid": "c" * 40,
    "maxmemory": "1000000",
    "maxmemory_policy": "volatile-lru",
    "used_memory": "100000",
    "evicted_keys": "0",
    "aof_enabled": "1",
    "connected_slaves": "0",
}
OF_REPLICA = {
    **INFO,
    "run_id": "b" * 40,
    "role": "slave",
    "master_link_status": "up",
}


def server(name: str, **more: Any) -> Server:
    """A primary, or a replica of it."""
    values: dict[str, Any] = {
        "name": name,
        "took": 0.001,
        "connecting": 0.002,
        "clock": Clock(0.01, 0.002),
        "transport": SECURE,
        "info": INFO if name.startswith("primary") else OF_REPLICA,
        "user": "app",
        "missing": (),
        "near": "" if name.startswith("primary") else None,
    }
    return Server(**{**values, **more})


def columns(name: str) -> dict[str, Column]:
    """Return the columns of a table as the package makes them."""
    return {
        column.name: Column(length=getattr(column.type, "length", None)) for column in sql.METADATA.tables[name].columns
    }


def database(**more: Any) -> Database:
    values: dict[str, Any] = {
        "place": "postgresql, database 'shop' on db.example",
        "backend": "postgresql",
        "took": 0.001,
        "clock": Clock(-0.01, 0.002),
        "transport": SECURE,
        "tables": {name: columns(name) for name in sql.METADATA.tables},
        "indexes": {
            name: frozenset(tuple(column.name for column in index.columns) for index in table.indexes)
            for name, table in sql.METADATA.tables.items()
        },
        "refusal": None,
        "missing": (),
    }
    return Database(**{**values, **more})


def file(**more: Any) -> File:
    values: dict[str, Any] = {
        "path": "/var/lib/shop/journal.sqlite3",
        "is_absolute": True,
        "is_there": True,
        "owner": 1000,
        "mode": 0o600,
        "folder_owner": 1000,
        "folder_mode": 0o700,
        "size": 100_000,
        "free": 10**10,
        "file_system": "ext4",
    }
    return File(**{**values, **more})


CONFIG: dict[str, Any] = {
    "SECRET_KEY": KEY,
    "SECRET_KEY_FALLBACKS": [],
    "SESSION_COOKIE_NAME": "__Host-session",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
    "SESSION_COOKIE_DOMAIN": None,
    "DEBUG": False,
    "TESTING": False,
}
NOW = 1_790_000_000.0


def host(**more: Any) -> Host:
    return Host(**{"user": 1000, "journal": file(), "workers": (1000, 1000), **more})


WORD = HostWord("web-1", ("old",), {"GRACE": "300"}, 0)

GOOD = Facts(
    settings=Settings(environment="production"),
    config=CONFIG,
    at=NOW,
    servers={"primary": server("primary"), "replica": server("replica")},
    homeless=0,
    database=database(),
    host=host(),
    lost_commits=0,
    unclaimed=frozenset(),
    hosts=(WORD, msgspec.structs.replace(WORD, host="web-2")),
)


def with_host(**more: Any) -> Facts:
    """The same, with another second host."""
    return replace(GOOD, hosts=(WORD, msgspec.structs.replace(WORD, **{"host": "web-2", **more})))


def with_primary(**more: Any) -> Facts:
    """The same, with another primary."""
    return replace(GOOD, servers={**GOOD.servers, "primary": server("primary", **more)})


def with_info(**more: str) -> Facts:
    """The same, with a primary that says something else of itself."""
    return with_primary(info={**INFO, **more})


def with_replica(**more: str) -> Facts:
    """The same, with a replica that says something else of itself."""
    return replace(GOOD, servers={**GOOD.servers, "replica": server("replica", info={**OF_REPLICA, **more})})


def with_application(**more: Any) -> Facts:
    """The same, with another configuration: Flask's in capitals, and settings of ours."""
    own = {name: value for name, value in more.items() if not name.isupper()}
    config = {name: value for name, value in more.items() if name.isupper()}
    return replace(GOOD, settings=Settings(environment="production", **own), config=CONFIG | config)


def with_database(**more: Any) -> Facts:
    """The same, with another database."""
    return replace(GOOD, database=database(**more))


def with_journal(**more: Any) -> Facts:
    """The same, with another journal."""
    return replace(GOOD, host=host(journal=file(**more)))


def with_host_of(**more: Any) -> Facts:
    """The same, on another host."""
    return replace(GOOD, host=host(**more))
