"""A browser before the simulated world: what it is sent while stores fail and answers overtake each other.

The applications are real up to their stores, and serve the requests of the search of all schedules
(tests/integration/cookie_search.py), each with a pause in its view.
"""

from __future__ import annotations

import random
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.build import State
from flask_langpont_session.extension import CONTEXT, EXTENSION, _context
from flask_langpont_session.policy.ids import digest_of
from tests.integration.cookie_search import SEARCHED, Exchange, add_views, is_users, sid_of

from .actions import do
from .invariants import Broken, Unchecked
from .sim_database import Tables
from .sim_redis import Cluster
from .walker import FAULTS, Dice
from .world import SLOTS, WORKERS, Worker, World

FAULTS_MET = ("database", "redis cut", "database cut", "failover", "restart", "freeze", "loss", "full")


class BrowsersWorld(World):
    """The world; no invariant watches its stores: what counts is what the browser is sent."""

    def _make_servers(self, tolerance_ms: int, skews_ms: tuple[int, int]) -> None:
        self.promises = unchecked = cast(Any, Unchecked())
        self.tables = Tables(self.clock, unchecked)
        self.cluster = Cluster(self.clock, unchecked, skews_ms)


class Asked(Exchange):
    """A request and its answer, which may be the documented 503."""

    status = ""

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status = status
        super()._start_response("200 OK", headers, exc_info)


@lru_cache
def application(name: str) -> Flask:
    """Return the application of a worker: it has the parts of the worker with this name."""
    app = Flask(name)
    app.secret_key = "not a secret, but as long as one has to be"
    app.session_interface = LangPontSession()
    add_views(app)
    return app


def serving(world: World, worker: Worker) -> Flask:
    """The application of a worker."""
    app = application(worker.name)
    monitor: Any = SimpleNamespace(ensure_started=lambda: None)
    state = State(world.settings, worker.backend, worker.repository, worker.health, world.recorder, monitor)
    app.extensions[EXTENSION], app.extensions[CONTEXT] = state, _context(app, state)
    return app


class Browser:
    """Sends requests with the cookie that it has, and takes what it is sent, in any order.

    :ivar users: id → the user that signed in under it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.cookie: str | None = None
        self.users: dict[str | None, str] = {}
        self._served: list[Asked] = []
        self._answered: list[Asked] = []

    def send(self, name: str, worker: Worker) -> None:
        """A request, served as far as the pause in its view."""
        exchange = Asked(name, serving(self.world, worker), self.cookie)
        exchange.begin(0)
        if exchange.status:  # refused before the pause
            self._answer(exchange)
        else:
            self._served.append(exchange)

    def serve(self, rng: random.Random) -> None:
        """Serve some request to its end."""
        if self._served:
            exchange = self._served.pop(rng.randrange(len(self._served)))
            exchange.finish(1)
            self._answer(exchange)

    def receive(self, rng: random.Random) -> None:
        """Let any one of the answers arrive."""
        if self._answered:
            answer = self._answered.pop(rng.randrange(len(self._answered))).answer
            self.cookie = self.cookie if answer is None else answer or None

    def _answer(self, exchange: Asked) -> None:
        kind, digest = exchange.kind, digest_of(exchange.sid) if exchange.sid else ""
        if not exchange.status.startswith("200") and not (kind.signs_in or kind.replaces_id):
            raise Broken("I13", f"{exchange}: {exchange.status}")
        if exchange.sid is None or kind.signs_in or kind.signs_out or kind.makes_permanent:
            pass
        elif kind.replaces_id:
            successor = self.world.tables.successors.get(digest)
            if exchange.answer and is_users(exchange.cookie) and digest_of(str(sid_of(exchange.answer))) != successor:
                raise Broken("I15", f"{exchange}: a cookie for an id that is not what the session is called now")
        elif exchange.answer is not None:
            raise Broken("I15", f"{exchange}: a cookie, though it began with one and changed nothing about it")
        if exchange.answer and kind.signs_in:
            self.users[sid_of(exchange.answer)] = kind.signs_in
        elif exchange.answer and exchange.sid in self.users:
            self.users[sid_of(exchange.answer)] = self.users[exchange.sid]
        if any(user not in (None, self.users.get(exchange.sid), kind.signs_in) for user in exchange.shown):
            raise Broken("I8", f"{exchange}: {exchange.shown} is shown")
        self._answered.append(exchange)


def browse(seed: int, length: int = 50) -> World:
    """Requests of one browser to several workers, and a few kinds of faults.

    :raises Broken: it was sent what it must not be sent.
    """
    rng = random.Random(seed)
    dice = Dice(rng, tuple(rng.sample(list(WORKERS), 2)), SLOTS[:1])
    faults = [choice for name in rng.sample(FAULTS_MET, 2) for choice in FAULTS[name]]
    world = BrowsersWorld()
    try:
        browser = Browser(world)
        browser.send("sign in", world.workers[dice.workers[0]])
        for _ in range(length):
            happens = rng.random()
            if happens < 0.3:
                browser.send(rng.choice(SEARCHED), world.workers[rng.choice(dice.workers)])
            elif happens < 0.6:
                browser.serve(rng)
            elif happens < 0.8:
                browser.receive(rng)
            elif happens < 0.9:
                do(world, rng.choice(("tick all", "pass 1000", "pass 11000", "recover")))
            else:
                [line] = rng.choices([choice for _, choice in faults], [weight for weight, _ in faults])
                for part in line(dice).split("; "):
                    do(world, part)
    finally:
        world.close()
    return world
