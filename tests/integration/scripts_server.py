"""A server for the scripts, a store that runs them, and the session that they work on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis.connection import BlockingConnectionPool

from devservers.processes import spawn
from devservers.servers import Valkey
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link, Reports
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from tests.support.programs import required

DIGEST = "d" * 43
VISITOR, USER = RecordRef(DIGEST, "a"), RecordRef(DIGEST, "u")


LIFE = 60_000


EMPTY = 30_000


class Redis(Valkey):
    """The system's redis-server, driven as Valkey is."""

    def _launch(self) -> subprocess.Popen[bytes]:
        return spawn([required("redis-server"), *self._options(), *self._extra], log=self.log)


def made(program: str, folder: Path) -> Valkey:
    """``valkey`` or ``redis``, not started yet."""
    if program == "redis":
        required("redis-server")
    return (Redis if program == "redis" else Valkey)(folder, appendonly=False)


@contextmanager
def store_on(url: str, *, reports: Reports | None = None, **options: Any) -> Iterator[RedisStore]:
    """A store with connections of its own to a server.

    :param options: of the pool, by redis-py's names.
    """
    server_identity = ServerIdentity()
    pool = BlockingConnectionPool.from_url(url, protocol=3, redis_connect_func=server_identity.introduce, **options)
    link = Link("primary", pool, server_identity=server_identity, reports=reports or Reports())
    store = RedisStore(Endpoint(link, prefix="session"))
    yield store
    store.forget_connections()


@contextmanager
def without(raw: Any, *rights: str) -> Iterator[None]:
    """Rights are taken from the user of all clients."""
    raw.execute_command("ACL", "SETUSER", "default", *(f"-{right}" for right in rights))
    try:
        yield
    finally:
        raw.execute_command("ACL", "SETUSER", "default", *(f"+{right}" for right in rights))


def key(category: str, shadow: bool = False) -> str:
    return f"session:{category}:{{{DIGEST}}}{':anon' if shadow else ''}"
