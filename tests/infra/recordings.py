"""Pages for Prometheus, recorded while real servers fail: an application, its users, and a look every 15 seconds.

The seconds between two looks are Prometheus' alone: users do what they do in them, and the next look follows at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, session
from prometheus_client import CollectorRegistry

from benchmarks.outages.faults import OUTAGES
from benchmarks.outages.stage import Stage
from devservers.constants import extended
from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.extension import state_of
from tests.faults.proxy import REFUSE, FaultProxy
from tests.infra.promtool import joined

CALM, DURING, AFTER = 8, 20, 36
"""Looks before an outage, in it, and until long after it: two minutes, five, and nine."""

VISITS = 4
"""After so many looks users do something again: a quiet site."""

PATIENT = {"REDIS_TIMEOUT": 3.0, "DATABASE_TIMEOUT": 3.0, "REQUEST_BUDGET": 6.0}
"""A busy machine that lets a store wait is no fault of the store."""

HASTY = {"REDIS_TIMEOUT": 0.2}
"""For outages in which no answer comes."""


class Servers:
    """Redis with a replica and PostgreSQL, each behind a proxy that fails on request."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        redis = ends.enter_context(Valkey(folder / "redis"))
        database = ends.enter_context(Postgres(folder / "database"))
        self.replica = ends.enter_context(Valkey(folder / "replica", replica_of=redis))
        self.before_redis = ends.enter_context(FaultProxy("127.0.0.1", redis.port))
        self.before_replica = ends.enter_context(FaultProxy("127.0.0.1", self.replica.port))
        self.before_database = ends.enter_context(FaultProxy("127.0.0.1", database.port))
        self.stage = Stage(folder, redis, database, self.before_redis, {})


Cause = Callable[[Servers], AbstractContextManager[Any]]


def of_report(name: str) -> tuple[str, Cause]:
    """An outage of ``benchmarks.outages``, which proves itself that it was there: its title, and how it is caused."""
    [outage] = [outage for outage in OUTAGES if outage.name == name]
    return outage.title, lambda servers: outage.causing(servers.stage, [])


def refused(*proxies: str) -> Cause:
    """Connections to these are refused."""

    @contextmanager
    def cause(servers: Servers) -> Iterator[None]:
        with ExitStack() as ends:
            for name in proxies:
                proxy = getattr(servers, name)
                before = proxy.hits[REFUSE.name]
                ends.enter_context(proxy.failing(REFUSE))
                assert proxy.hits[REFUSE.name] > before, "the fault never happened"
            yield

    return cause


@dataclass(frozen=True)
class Outage:
    """One kind, and what is to be told of it.

    :param title: as infra/monitoring/outages.md has it.
    :param cause: see :data:`Cause`.
    :param shows: the beginnings of lines of the page that show that it has begun, without ``langpont_session_``.
    :param fires: the alerts that fire at its end, and no others at any time before.
    :param afterwards: those that fire besides when it is over, for some minutes.
    :param replica: whether the site has one.
    :param config: settings of the extension, without the prefix.
    :param ends: the line that shows that it is over, besides.
    :param plan: looks while all is well, looks in the outage, in turn.
    :param ages: seconds that it has lasted already when it begins.
    """

    title: str
    cause: Cause
    shows: Sequence[str]
    fires: frozenset[str]
    afterwards: frozenset[str] = frozenset()
    replica: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    ends: str = "degradation_level 0.0"
    plan: Sequence[int] = (CALM, DURING, AFTER)
    ages: float = 0.0


def _outages() -> dict[str, Outage]:
    redis, database = 'store_up{backend="primary",way="read"} 0.0', 'store_up{backend="database",way="read"} 0.0'
    without_redis = frozenset({"LangPontRedisDown", "LangPontWithoutRedis"})
    lost = partial(Outage, shows=(redis, "degradation_level 2.0"), fires=without_redis)
    refusing = partial(
        Outage,
        shows=('store_up{backend="primary",way="write"} 0.0', "degradation_level 1.0"),
        fires=frozenset({"LangPontRedisRefusesWrites", "LangPontOnReplica"}),
    )
    away = refused("before_redis")
    return {
        **{name: lost(*of_report(name)) for name in ("refused", "aof", "reset", "garbage")},
        "empty": lost(*of_report("empty"), ends="data_losses_total 1.0", afterwards=frozenset({"LangPontDataLost"})),
        **{name: lost(*of_report(name), config=HASTY) for name in ("hang", "slow")},
        **{name: refusing(*of_report(name)) for name in ("readonly", "oom")},
        "flush": Outage(*of_report("flush"), ("data_losses_total 1.0",), frozenset({"LangPontDataLost"})),
        "half an hour": lost(
            "Redis is away for more than half an hour", away, shows=(redis, "degradation_level 3.0"), ages=1900
        ),
        "with a replica": Outage(
            "Redis is away, and a replica answers",
            away,
            (redis, "degradation_level 1.0"),
            frozenset({"LangPontRedisDown", "LangPontOnReplica"}),
            replica=True,
        ),
        "replica": Outage(
            "the replica is away",
            refused("before_replica"),
            ('store_up{backend="replica",way="read"} 0.0', "degradation_level 0.0"),
            frozenset({"LangPontReplicaDown"}),
            replica=True,
        ),
        "database": Outage(
            "the database is away",
            refused("before_database"),
            (database, "degradation_level 0.0"),
            frozenset({"LangPontDatabaseDown", "LangPontGrantsRefused"}),
        ),
        "both": Outage(
            "Redis and the database are away",
            refused("before_redis", "before_database"),
            (redis, database, "degradation_level 4.0"),
            frozenset({"LangPontRedisDown", "LangPontDatabaseDown", "LangPontWithoutStores", "LangPontGrantsRefused"}),
        ),
        "full journal": lost(
            "Redis is away, and the journal is full",
            away,
            config={"JOURNAL_MAX_BYTES": 4 * 2_684},
            fires=without_redis | {"LangPontWritesLost"},
        ),
        # A look falls into a second by chance only; what matters is that one does not wake a person.
        "a second": lost("Redis is away for a second", away, plan=(CALM, 1, AFTER), fires=frozenset()),
        "comes and goes": lost(
            "Redis comes and goes every 45 seconds",
            away,
            plan=(CALM, *((3, 3) * 4), 3, AFTER),
            fires=frozenset({"LangPontWithoutRedis"}),
        ),
        "nothing": Outage("nothing", lambda servers: nullcontext(), ("degradation_level 0.0",), frozenset()),
    }


RECORDED = _outages()


class Site:
    """An application whose page is looked at.

    :param folder: for its journal.
    :param more: settings besides those of the outage.
    """

    def __init__(self, folder: Path, servers: Servers, outage: Outage, **more: Any) -> None:
        self.pages: list[str] = []
        self._servers = servers
        self._outage = outage
        self._requests = 0
        self._app = app = Flask("shop", instance_path=str(folder))
        stage = servers.stage
        settings: dict[str, Any] = {
            "REDIS_URL": servers.before_redis.instead_of(stage.redis.url),
            "DATABASE_URL": servers.before_database.instead_of(stage.database.url),
            "JOURNAL": str(folder / "journal.sqlite3"),
            "HEALTH_INTERVAL": 0.2,
            "METRICS": ["prometheus"],
            "METRICS_URL": "/metrics",
            "METRICS_REGISTRY": CollectorRegistry(),
            **PATIENT,
            **outage.config,
            **more,
        }
        if outage.replica:
            settings["REPLICA_URL"] = servers.before_replica.instead_of(servers.replica.url)
        app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes", TESTING=True)
        app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
        extended(app)
        state_of(app).backend.database.upkeep.create_tables()
        app.post("/sign-in")(self._sign_in)
        app.post("/sign-out")(_sign_out)
        app.post("/write")(self._write)
        app.get("/read")(lambda: str(session.get("draft")))
        self._user = app.test_client()

    def close(self) -> None:
        """End what it runs."""
        state_of(self._app).close()

    def _sign_in(self) -> str:
        session["_user_id"] = "7"
        return "hello"

    def _write(self) -> str:
        session[f"draft {self._requests}"] = "text"
        session["lang"] = "jp"
        return "kept"

    def play(self) -> dict[str, list[float | None]]:
        """Look at the page as the plan says; the series that it has shown."""
        self._ask("POST", "/sign-in")
        self._await_health()
        for number, looks in enumerate(self._outage.plan):
            if number % 2:
                with self._outage.cause(self._servers):
                    self._look(looks, *self._outage.shows)
                self._await_health()
            else:
                self._look(looks, self._outage.ends if number else "degradation_level 0.0")
        return joined(self.pages)

    def _await_health(self) -> None:
        def is_well() -> bool:
            self._requests += 1
            has_looked = '"status":"ok"' in self._app.test_client().get("/healthz").text
            return has_looked and _is_well(self._page())

        wait_until(is_well, "health")

    def _look(self, looks: int, *shown: str) -> None:
        if self._outage.ages and len(shown) > 1:
            self._age()
        while looks > 0:
            same = min(looks, VISITS)
            self._note(self._page_that_shows(shown), same)
            looks -= same

    def _note(self, page: str, looks: int) -> None:
        self.pages += [page] * looks

    def _page_that_shows(self, lines: Sequence[str]) -> str:
        """Let users come until the page shows these lines, and return it. A busy machine may do without a store for
        a moment: that is no part of a plan."""
        page = ""

        def is_shown() -> bool:
            nonlocal page
            self._visit()
            page = self._page()
            return {f"langpont_session_{line}" for line in lines} <= set(page.splitlines())

        wait_until(is_shown, f"a page that shows {lines}")
        return page

    def _age(self) -> None:
        health = state_of(self._app).health

        def is_lost() -> bool:
            self._visit()
            return health.level == 2

        wait_until(is_lost, "the outage")
        health.age_outage(self._outage.ages)

    def _visit(self) -> None:
        """Make the requests of users between two looks."""
        self._ask("GET", "/read")
        self._ask("POST", "/write")
        other = self._app.test_client()
        for path in ("/sign-in", "/sign-out"):
            self._requests += 1
            other.post(path)

    def _ask(self, method: str, path: str) -> None:
        self._requests += 1
        self._user.open(path, method=method)

    def _page(self) -> str:
        """Return the page once everything that was done before is on it."""
        done, text = self._requests, ""

        def is_up_to_date() -> bool:
            nonlocal text
            self._requests += 1
            text = self._app.test_client().get("/metrics").text
            return _requests(text) >= done

        wait_until(is_up_to_date, "a page that shows all requests")
        return text


def _sign_out() -> str:
    session.clear()
    return "bye"


def _requests(page: str) -> float:
    return sum(values(page, "operations_total", operation="request"))


def _is_well(page: str) -> bool:
    [waiting] = values(page, "journal_waiting")
    return values(page, "degradation_level") == [0] and all(values(page, "store_up")) and waiting == 0


def values(page: str, name: str, **labels: str) -> list[float]:
    """Return the values of one metric's series that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = re.findall(rf"^langpont_session_{name}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
    return [float(value) for found, value in lines if all(label in found for label in wanted)]
