"""Redis loses everything, and all users stay signed in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from flask import Flask

from devservers.servers import Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.session.cookies import CookieSigner
from flask_langpont_session.stores.sql.rows import Rows
from flask_langpont_session.stores.sql.tables import INSERT
from tests.integration.conftest import close

from .site import WORKERS, Site, wait_until_well
from .visitor import COOKIE, Visitor

T = TypeVar("T")
R = TypeVar("R")

LOGINS = 2_000
HOUR_MS = 3_600_000

AT_ONCE = 200
"""Logins that are put into Redis in one round trip."""

SAMPLE = 100
"""Logins per worker that are looked at before the fault and in it."""


class Login(NamedTuple):
    """A user who is signed in."""

    user: str
    digest: str
    cookie: str


def test_I6_thousands_of_logins_outlive_a_redis_that_comes_back_empty(site: Site) -> None:
    """kill -9, its file gone, an empty restart: the workers find every login again, each one those of another."""
    primary, doors = site.lab.primary, list(site.preloaded.doors().values())
    logins = sign_in(site, [f"user-{n}" for n in range(LOGINS)])
    shares = [logins[worker::WORKERS] for worker in range(WORKERS)]
    assert has_all(primary, logins)
    assert sum(on_each(doors, [share[:SAMPLE] for share in shares], kept)) == SAMPLE * WORKERS

    died = primary.pid
    primary.kill()
    shutil.rmtree(primary.folder / "appendonlydir")
    assert sum(on_each(doors, [share[:SAMPLE] for share in shares], kept)) == SAMPLE * WORKERS

    primary.start()
    assert primary.pid != died
    wait_until_well(site.preloaded)
    others = shares[1:] + shares[:1]
    assert sum(on_each(doors, others, kept)) == LOGINS
    assert has_all(primary, logins)


def on_each(doors: Sequence[str], shares: Sequence[T], work: Callable[[str, T], R]) -> list[R]:
    """All workers at once, each with its share."""
    with ThreadPoolExecutor(len(doors)) as pool:
        return list(pool.map(work, doors, shares))


def sign_in(site: Site, users: Sequence[str]) -> list[Login]:
    """Put the records of so many sign-ins into database and Redis, all at once, and return the logins with their
    cookies."""
    app = Flask("crowd")
    app.config.update(site.lab.configuration)
    LangPontSession(app)
    backend = state_of(app).backend
    signer = CookieSigner([app.config["SECRET_KEY"]])
    ids = [signer.mint(SIGNED_IN, permanent=False, now=time.time()) for _ in users]
    with backend.database.engine.begin() as connection:
        connection.execute(INSERT, [values_of(sid, user) for sid, user in zip(ids, users, strict=True)])
    stamp_ms = backend.endpoint("primary").time_ms(timeout=5)
    rows, reached = backend.database.changed_since(HOUR_MS)
    while reached is not None:
        part, reached = backend.database.changed_since(HOUR_MS, reached, limit=1000)
        rows += part
    assert len(rows) == len(users)
    for at in range(0, len(rows), AT_ONCE):
        some = [(row, HOUR_MS) for row in rows[at : at + AT_ONCE]]
        backend.primary.push_many(some, [], stamp_ms=stamp_ms, timeout=5)
    close(app)
    return [Login(user, sid.digest, f"{COOKIE}={signer.dump(sid)}") for sid, user in zip(ids, users, strict=True)]


def values_of(sid: SessionId, user: str) -> dict[str, object]:
    """Return the values of the row that a sign-in inserts."""
    fields = Rows().text("", {"_user_id": encode("_user_id", user)}, 1)
    return {"key": sid.digest, "user": user, "fields": fields, "idle_ms": HOUR_MS, "absolute_ms": HOUR_MS}


def kept(door: str, logins: Sequence[Login]) -> int:
    """Return how many of these logins this worker knows, each as the right user."""
    found = Visitor(door).whose([login.cookie for login in logins])
    return sum(login.user == user for login, (user, _) in zip(logins, found, strict=True))


def has_all(primary: Valkey, logins: Sequence[Login]) -> bool:
    """Return whether the primary has an auth record of every login."""
    with primary.client() as redis:
        keys = set(redis.scan_iter(match="session:auth:*", count=5000))
    return all(f"session:auth:{{{login.digest}}}" in keys for login in logins)
