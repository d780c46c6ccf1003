"""The stores behind the package's back: what they hold, what others do to them, and time that passes in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import sqlalchemy as sa
from flask import Flask

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import METADATA
from tests.support.auth_records import move_back, says

from .conftest import cookie_of, parts, redis_store
from .mariadb import MariaDB

NO_LIMITS = {
    "postgresql": "?connect_timeout=3600&keepalives=0&tcp_user_timeout=0",
    "mariadb": "?connect_timeout=3600&read_timeout=3600",
}
"""For URLs: the drivers' own limits are taken away, so that what ends a wait is ours."""

_TIMES = ("created_at", "updated_at", "idle_expires_at", "absolute_expires_at")


def sign_in(app: Flask, user: str = "7", **data: Any) -> Any:
    """A browser signed in as `user`, with its `cookie` and `digest`; this worker has a lease on its session."""
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post(f"/login/{user}"))
    client.digest = digest(client.cookie)
    if data:
        client.post("/set", json=data)
    assert client.get("/who").json["user"] == user
    return client


def browser(app: Flask, cookie: str) -> Any:
    """Return another browser that sends the same cookie."""
    client: Any = app.test_client()
    client.set_cookie("session", cookie)
    return client


def who(app: Flask, client: Any, page: str = "/who") -> str | None:
    """The user that a worker takes a browser for, which it sends no cookie."""
    response = browser(app, client.cookie).get(page)
    assert response.status_code == 200
    assert cookie_of(response) is None
    user: str | None = response.json["user"]
    return user


@contextmanager
def resting(*apps: Flask) -> Iterator[None]:
    """No monitor looks at the stores meanwhile, so that what requests and the test do is all that happens."""
    with ExitStack() as stack:
        for app in apps:
            stack.enter_context(parts(app).monitor.paused())
        yield


def digest(cookie: str | None) -> str:
    """Return the name under which the session of a cookie is stored."""
    return digest_of((cookie or "").split(".")[0])


def stored(server: Valkey, category: str, cookie: str | None) -> dict[str, str]:
    """Return the fields that Redis has of the session of a cookie, without the package's own."""
    return {name: value for name, value in entry(server, digest(cookie), category).items() if not name.startswith("@")}


def row_of(app: Flask, cookie: str | None) -> Any:
    """The row of the session of a cookie."""
    return parts(app).backend.database.load(digest(cookie))


def row(app: Flask, name: str) -> Mapping[str, Any]:
    """Return the row that the database has of a session."""
    with _engine(app).connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM langpont_sessions WHERE digest = :name"), {"name": name})
        return dict(found.mappings().one())


def key(name: str | None, category: str = "auth") -> str:
    """Return the key of a session's category in Redis."""
    return f"session:{category}:{{{name}}}"


def entry(server: Valkey, name: str, category: str = "auth") -> dict[str, str]:
    """Return what Redis has of a session, the package's own fields too: see :func:`tests.support.auth_records.says`."""
    with server.client() as client:
        return says(client, key(name, category))


def _engine(app: Flask) -> sa.Engine:
    """Connections of our own: those of the application may have died with the server."""
    return sa.create_engine(parts(app).settings.database_url or "", poolclass=sa.NullPool)


def elsewhere(app: Flask) -> Database:
    """The database of an application as another host uses it. To be closed."""
    url = parts(app).settings.database_url or ""
    return Database(make_engine(url, LONG), timeout=LONG)


def age_row(app: Flask, name: str, ms: int, *columns: str) -> None:
    """Time passes in the database: the moments of a row move back.

    :param columns: only these.
    """
    moved = ", ".join(f"{column} = {column} - :ms" for column in columns or _TIMES)
    with _engine(app).begin() as connection:
        connection.execute(
            sa.text(f"UPDATE langpont_sessions SET {moved} WHERE digest = :name"), {"name": name, "ms": ms}
        )


def age_entry(server: Valkey, name: str, ms: int, *fields: str) -> None:
    """Time passes in Redis: the moments of an auth record move back.

    :param fields: only these; of all that are there otherwise.
    """
    with server.client() as client:
        move_back(client, key(name), ms, *fields)


def pass_time(app: Flask, server: Valkey, name: str, ms: int) -> None:
    """Time passes for one session, in the database, in Redis and for this worker's view of Redis."""
    age_row(app, name, ms)
    age_entry(server, name, ms)
    redis_store(app).server_identity.trust_since_ms -= ms


def now_ms(server: Valkey) -> int:
    """The clock of a Redis server."""
    with server.client() as client:
        seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def run_id(server: Valkey) -> str:
    """The name of this run of a Redis server: new after every start."""
    with server.client() as client:
        info: Any = client.info("server")
        return str(info["run_id"])


def questions(app: Flask) -> int:
    """Return how often this worker has asked the database about existing sessions, with or without an answer."""
    return sum(series.count for seen, series in parts(app).recorder.series().items() if seen.name == "verify")


def outcomes(app: Flask, store: str) -> set[str]:
    """Return the outcomes of calls of this worker's requests to a store: ``ok``, or an error class."""
    return {seen.outcome for seen in parts(app).recorder.series() if seen.source == store}


def waiting(app: Flask) -> int:
    """Return the number of entries in the host's journal that wait for a store."""
    return parts(app).backend.journal.waiting().entries


def is_home(app: Flask) -> bool:
    """Every breaker closed, and nothing waiting in the journal any more."""
    return not parts(app).health.open_stores() and not waiting(app)


def wait_for_level(app: Flask, level: int) -> None:
    """Wait until this worker knows that it is at this level."""
    wait_until(lambda: parts(app).health.level == level, f"level {level}")


def wait_until_home(*apps: Flask) -> None:
    """Wait until everything is as it was before the outage."""
    wait_until(lambda: all(map(is_home, apps)), "everything home")


def wait_until_lost(app: Flask, store: str) -> None:
    """Wait until this worker knows that a store is down."""
    wait_until(
        lambda: {(store, "read"), (store, "write")} <= parts(app).health.open_stores(),
        f"{store} known to be lost",
    )


def emptied(server: Postgres | MariaDB) -> str:
    """The address of a database that runs and has no tables yet."""
    server.start()
    engine = sa.create_engine(server.url)
    METADATA.drop_all(engine)
    engine.dispose()
    return server.url
