"""One set of real servers for all systems, and each system as gunicorn with two workers of four threads."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from devservers.processes import spawn
from devservers.servers import Postgres, ServerError, Valkey
from devservers.web import PROJECT, WebServer
from flask_langpont_session.stores.sql.tables import METADATA
from tests.faults.proxy import FaultProxy
from tests.support.site.browser import Browser

from . import flask_apps

WORKERS, THREADS = 2, 4


@dataclass(frozen=True)
class System:
    """One way to keep sessions.

    :param application: where gunicorn finds it.
    :param packages: whose versions the report names.
    :param configured: how, in a sentence of the report.
    """

    name: str
    application: str
    packages: Sequence[str]
    configured: str
    prepare: Callable[[Stage], None] = lambda stage: None


@dataclass
class Stage:
    """The running servers and systems.

    :param proxy: before the Redis of all systems; the database is reached directly.
    :param sites: system → its gunicorn.
    """

    folder: Path
    redis: Valkey
    database: Postgres
    proxy: FaultProxy
    sites: dict[str, WebServer]

    def environment(self, name: str) -> Mapping[str, str]:
        """Return the environment of a system's processes."""
        return os.environ | {
            flask_apps.REDIS_URL: self.proxy.instead_of(self.redis.url),
            flask_apps.DATABASE_URL: self.database.url,
            flask_apps.JOURNAL: str(self.folder / name / "journal.sqlite3"),
        }


def _langpont_tables(stage: Stage) -> None:
    engine = sa.create_engine(stage.database.url)
    METADATA.create_all(engine)
    engine.dispose()


def _django_tables(stage: Stage) -> None:
    log = stage.folder / "migrate.log"
    command = [sys.executable, "-m", "benchmarks.outages.django_app"]
    if spawn(command, log=log, cwd=PROJECT, env=stage.environment(DJANGO.name)).wait() != 0:
        raise ServerError(f"Django's migration failed: {log.read_text(errors='replace')[-2000:]}")


def _by(factory: Callable[[], object]) -> str:
    return f"{factory.__module__}:{factory.__name__}()"


LANGPONT = System(
    "flask_langpont_session",
    _by(flask_apps.create_langpont),
    ("flask-langpont-session", "flask"),
    "every setting but the addresses has its default (a request waits at most 0.3 s for all stores together)",
    _langpont_tables,
)
FLASK_SESSION = System(
    "Flask-Session",
    _by(flask_apps.create_flask_session),
    ("flask-session", "cachelib", "msgspec"),
    "`SESSION_TYPE = 'redis'` and `Redis.from_url(…)` as its documentation has it (such a client tries nothing again), "
    "with `socket_timeout` and `socket_connect_timeout` of 1 s; `regenerate()` at sign-in; everything else by default",
)
DJANGO = System(
    "Django cached_db",
    "benchmarks.outages.django_app:create_app()",
    ("django",),
    "`cached_db` over Django's `RedisCache` with both time-outs at 1 s, and PostgreSQL with persistent connections, "
    "health checks and `connect_timeout` 1 s; `cycle_key()` at sign-in, `flush()` at sign-out",
    _django_tables,
)
SYSTEMS = (LANGPONT, FLASK_SESSION, DJANGO)
TIMED = replace(LANGPONT, application=_by(flask_apps.create_timed))


@contextmanager
def staged(systems: Sequence[System], workers: int = WORKERS) -> Iterator[Stage]:
    """Start the servers, and the systems on them; end all of it afterwards."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(TemporaryDirectory(prefix="outages-")))
        redis = ends.enter_context(Valkey(folder / "redis"))
        database = ends.enter_context(Postgres(folder / "database"))
        proxy = ends.enter_context(FaultProxy("127.0.0.1", redis.port))
        stage = Stage(folder, redis, database, proxy, {})
        for system in systems:
            system.prepare(stage)
            site = stage.sites[system.name] = WebServer(
                folder / system.name,
                workers=workers,
                threads=THREADS,
                preload=False,
                env=stage.environment(system.name),
                application=system.application,
            )
            ends.callback(site.kill)
            site.start()
        yield stage


class BodiesDiffer(Exception):
    """The systems do not do the same, so nothing of them may be compared."""


def compare_bodies(stage: Stage) -> int:
    """Let one visitor do the same at every system, all being well. Return how many bodies were equal.

    :raises BodiesDiffer: one was not.
    """
    user = f"user-{secrets.token_hex(4)}"
    found = {name: _scope(Browser(site.url), user) for name, site in stage.sites.items()}
    [first, *others] = found.values()
    for name, bodies in found.items():
        if bodies != first:
            raise BodiesDiffer(f"{name} answered {bodies}, {next(iter(found))} answered {first}")
    return len(first) * (len(others) + 1)


def _scope(browser: Browser, user: str) -> list[object]:
    answers = [browser.get("/read"), browser.send("/sign-in", user=user), browser.get("/read")]
    for number in (1, 2):
        answers += [browser.send(f"/write/{what}", number=str(number)) for what in flask_apps.LISTS]
    answers += [browser.get("/read"), browser.send("/sign-out"), browser.get("/read")]
    return [(answer.status, answer.json if answer.ok else None) for answer in answers]
