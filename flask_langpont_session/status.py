"""``/healthz/status``: this process' view of the stores, and its last hour. Off unless STATUS_PAGE names the function
that says which requests may see it.

Like the other health pages it asks no store and looks at no session: in an outage it is as quick as ever.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flask import Blueprint, Response, abort, request
from werkzeug.exceptions import HTTPException

from .blueprint import health_report
from .config.explanations import LEVEL_MEANS, in_use, what_it_gets
from .config.settings import Settings
from .ops.diagnosis.read_host import file_at
from .ops.status_page import page
from .ops.status_page.facts import Facts, FeatureNow, Store
from .policy.causes import Cause, cause_of
from .policy.errors import role_of
from .policy.health import READ, REPLICA, WRITE, Health
from .stores.host.opening import path_of
from .support.logs import fields

if TYPE_CHECKING:
    from .build import State

log = logging.getLogger(__name__)


def add_status_page(pages: Blueprint, state_now: Callable[[], State]) -> None:
    """Put the page among the health pages.

    :param state_now: says the parts of the current application.
    """

    @pages.get("/status")
    def status() -> Response:
        state = state_now()
        _refuse_unless_allowed(state.settings)
        state.ensure_started()
        span = _span(state, request.args.get("minutes", default=0, type=int) * 60.0)
        repeats = request.args.get("every", type=int) == page.EVERY
        response = _private(page.render(status_facts(state, span)._replace(repeats=repeats)), "text/html")
        if repeats:
            response.headers["Refresh"] = str(page.EVERY)
        response.headers["Content-Security-Policy"] = page.POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    @pages.get("/status.css")
    def status_style() -> Response:
        _refuse_unless_allowed(state_now().settings)
        return _private(page.STYLE, "text/css")


def _span(state: State, asked: float) -> float:
    """Return the seconds that the charts show: those asked for; else as few as show all that a process remembers, so
    that the charts of a young one are not empty.

    :param asked: seconds; not among the choices: none is asked for.
    """
    if asked in page.SPANS:
        return asked
    assert state.history is not None
    age = time.time() - state.history.began
    return min((span for span in page.SPANS if age <= span), default=max(page.SPANS))


def _refuse_unless_allowed(settings: Settings) -> None:
    """Answer as if there were no such page, unless the application says that this request may see it."""
    try:
        allowed = settings.status_page is not None and settings.status_page(request)
    except HTTPException:  # by abort(): its own way to refuse
        raise
    except Exception:  # whatever the application raises: the page stays closed
        log.exception(
            "LANGPONT_SESSION_STATUS_PAGE failed; the status page is refused", extra=fields("status_page_failed")
        )
        allowed = False
    if not isinstance(allowed, bool):
        found = type(allowed).__name__
        log.warning(
            "LANGPONT_SESSION_STATUS_PAGE returned %s, not True or False; the status page is refused",
            found,
            extra=fields("status_page_unusable", returned=found),
        )
    if allowed is not True:
        abort(404)


def _private(text: str, kind: str) -> Response:
    response = Response(text, content_type=f"{kind}; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def status_facts(state: State, span: float) -> Facts:
    """Return the facts for the page.

    :param state: of an application with a status page: it remembers the last hour.
    :param span: seconds that the charts show.
    """
    history, waiting, now = state.history, state.monitor.outages.waiting, time.time()
    assert history is not None
    history.look(None if waiting is None else waiting.entries)
    report, journal = health_report(state), state.backend.journal.file.path
    return Facts(
        now=now,
        report=report,
        since=state.health.since,
        means=LEVEL_MEANS[report["level"]],
        features=list(_features(state.settings, report["level"])),
        stores=list(_stores(state.health, report["stores"], now, list(state.backend.remarks(now)))),
        pid=os.getpid(),
        host=socket.gethostname(),
        began=history.began,
        budget=state.settings.request_budget,
        no_room=None if journal is None else file_at(path_of(journal)).lack,
        span=span,
        slices=history.slices(now - span),
        changes=history.changes(now - span),
    )


def _features(settings: Settings, level: int) -> Iterator[FeatureNow]:
    for feature in in_use(settings.table):
        gets = settings.behaviour(feature.priority, level)
        yield FeatureNow(feature.name, feature.category, feature.priority, gets, what_it_gets(gets, level))


def _stores(
    health: Health, used: Mapping[str, Mapping[str, bool]], now: float, remarks: Sequence[tuple[str, Cause]]
) -> Iterator[Store]:
    for name, ways in used.items():
        opened = [at for way in ways if (at := health.breakers[name, way].opened_at) is not None]
        error = health.error(name)
        yield Store(
            name,
            reads=ways[READ],
            writes=None if role_of(name) == REPLICA else ways[WRITE],
            cause=None if error is None else cause_of(error),
            since=now - (health.clock() - min(opened)) if opened else None,
            remarks=[remark for store, remark in remarks if store == name],
        )
