"""``/healthz``, ``/healthz/live``, ``/healthz/ready``: quick, without I/O, without ids, hosts, versions or error texts.

"Ready" is every process but one whose database has no tables yet.

200 at every level: all hosts share the stores, and a 503 would take every one of them out of the load balancer at
once. ``?fail_at=4`` makes it 503 from that level on, and ``?fail_at=logins`` while users cannot sign in, for monitors
that only read the status.

These routes give way to those of the application at the same path, whenever it adds them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, jsonify, request
from werkzeug.routing import Rule

from .policy.causes import cause_of
from .policy.errors import ErrorClass, words_of
from .policy.health import DATABASE, READ, WRITE
from .policy.levels import LEVELS
from .support.lag import PROCESS
from .support.logs import fields

if TYPE_CHECKING:
    from .build import State

log = logging.getLogger(__name__)

_FIRST_LOOK = 1.0
"""Seconds that the first question whether a process is ready waits, at most, for its first look at the stores."""

_STATUS = {0: "ok", 1: "degraded", 2: "degraded", 3: "degraded", 4: "critical"}

LOGINS = "logins"
"""Value of ``fail_at``: the page answers 503 where users cannot sign in."""


def health_report(state: State) -> dict[str, Any]:
    """Return the health of this process' session stores, as JSON-ready values; of several shards the worst one's
    level."""
    health, view = state.health, state.health.snapshot()
    level, lost = view.level, health.open_stores()
    waiting, memory = state.monitor.outages.waiting, state.backend.memory
    logins = view.can(DATABASE, WRITE)
    status = "degraded" if level == 0 and not logins else _STATUS[level]
    return {
        "status": status if state.monitor.has_looked else "starting",
        "level": level,
        "level_name": LEVELS[level],
        "since": datetime.fromtimestamp(state.health.since, UTC).isoformat(timespec="seconds"),
        "logins": logins,
        "database": "ok" if (error := health.error(DATABASE)) is None else words_of(error.error_class),
        "process_lag_ms": round(PROCESS.longest * 1000),
        "categories": {
            name: {f.name: state.settings.behaviour(f.priority, level) for f in state.settings.table.features_in(name)}
            for name in state.settings.table.categories
        },
        "stores": {
            store: {"read": (store, READ) not in lost, "write": (store, WRITE) not in lost}
            for store in sorted({store for store, _ in health.breakers})
        },
        "causes": {
            store: cause_of(error).word for store in sorted(health.lost_stores) if (error := health.error(store))
        },
        "remarks": [f"{store} {remark.word}" for store, remark in state.backend.remarks(time.time())],
        "shards": {
            "lost": len(health.lost_shards),
            "total": len(health.shards),
            "lost_share": round(health.lost_share, 4),  # of all sessions
        },
        "near_cache": {  # of this process
            "connections": state.backend.near_connections,
            "hits": state.recorder.counters().get("near_cache_hits", 0),
        },
        "memory": {"sessions": memory.sessions, "forgotten": memory.forgotten},  # of this process
        "journal": {  # of this host, as the monitor saw it last; null: it cannot be read, or nothing waits
            "waiting": waiting.entries if waiting else None,
            "oldest_seconds": waiting.oldest_seconds(time.time()) if waiting else None,
        },
    }


def fails(report: Mapping[str, Any], fail_at: str) -> bool:
    """Return whether a report is as bad as a monitor has asked for: a level, or :data:`LOGINS`."""
    if fail_at == LOGINS:
        return not report["logins"]
    return fail_at.isdecimal() and report["level"] >= int(fail_at)


def is_set_up(state: State) -> bool:
    """Return False if the database says that it has no tables, and this process has never seen them. No user could sign
    in: the deployment is not finished. If they disappear later, that is an outage, which all hosts have at once."""
    error = state.health.error(DATABASE)
    lacks_tables = error is not None and error.error_class is ErrorClass.NO_TABLES
    return state.backend.database.upkeep.had_tables or not lacks_tables


def health_blueprint(state_now: Callable[[], State]) -> Blueprint:
    """Return the pages; mounted at HEALTH_URL_PREFIX.

    :param state_now: says the parts of the current application.
    """
    pages = Blueprint("langpont_session_health", __name__)

    @pages.get("", strict_slashes=False)
    def health() -> Response:
        state = state_now()
        report = health_report(state)
        state.ensure_started()  # a process that serves nothing else must notice outages too
        response = _uncached(jsonify(report))
        if fails(report, request.args.get("fail_at", "")):
            response.status_code = 503
        return response

    @pages.get("/live")
    def live() -> Response:
        return _uncached(jsonify(status="ok"))

    @pages.get("/ready")
    def ready() -> Response:
        state = state_now()
        state.ensure_started()
        state.monitor.wait_for_first_look(_FIRST_LOOK)
        if is_set_up(state):
            return _uncached(jsonify(status="ok"))
        response = _uncached(jsonify(status=words_of(ErrorClass.NO_TABLES)))
        response.status_code = 503
        return response

    return pages


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@contextmanager
def yielding(app: Flask) -> Iterator[None]:
    """Have the routes that are added meanwhile yield to all others."""
    rule_class = app.url_rule_class
    app.url_rule_class = _YieldingRule
    try:
        yield
    finally:
        app.url_rule_class = rule_class
    for rule in app.url_map.iter_rules():
        if isinstance(rule, _YieldingRule):
            rule.yielded()  # what is there already comes first, and ours would never be asked


class _YieldingRule(Rule):
    """Matches no method for which the application has a route at this path. Werkzeug would take the first of two."""

    _offered: set[str] | None = None
    _is_told = False

    @property
    def methods(self) -> set[str] | None:
        if self.map is None or self._offered is None:  # not in a map yet
            return self._offered
        return self._offered - self.yielded()

    @methods.setter
    def methods(self, offered: set[str] | None) -> None:
        self._offered = offered

    def yielded(self) -> set[str]:
        """Return the methods for which the application has routes at this path. If that is more than OPTIONS, the log
        says so, once."""
        offered = self._offered or set()
        routes = [rule for rule in self.map.iter_rules() if self._is_at(rule)]
        taken = offered & set().union(*(rule.methods or offered for rule in routes))
        if taken - {"OPTIONS"} and not self._is_told:
            self._is_told = True
            log.warning(
                "the application has a route of its own at %s, which is served in place of the session's health page; "
                "set LANGPONT_SESSION_HEALTH_URL_PREFIX to another path, or to None",
                self.rule,
                extra=fields("health_page_hidden", path=self.rule),
            )
        return taken

    def _is_at(self, rule: Rule) -> bool:
        here, there = ((r.rule.rstrip("/"), r.subdomain, r.host) for r in (self, rule))
        return here == there and not (isinstance(rule, _YieldingRule) or rule.build_only or rule.websocket)
