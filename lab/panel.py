"""The outage lab beside the page: switches for the servers, the meaning of each level, the visitor's losses, charts of
each worker, a tour, and the messages that AWS gets."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, abort, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user

from example_app.session import live, logins, ui_language
from flask_langpont_session.extension import state_of
from flask_langpont_session.ops.status_page.charts import HEIGHT, charts
from flask_langpont_session.policy.levels import LEVELS as NAMES
from flask_langpont_session.status import status_facts
from lab.control import ACTIONS, SERVERS, ask
from lab.texts import CHARTS, FEATURES, LEGENDS, LEVELS, NOW, PANEL, STATES

lab = Blueprint("lab", __name__, url_prefix="/lab", template_folder="templates", static_folder="static")

SPAN = 120.0
"""Seconds that the charts show."""

SHOWN = (
    *("authentication", "translation_state", "usage_tracking", "language_preference", "ui_settings", "flash_messages"),
    "csrf_protection",
)
"""Features of which the example application has keys."""


@lab.app_context_processor
def panel_context() -> dict[str, Any]:
    """Return the variables of ``beside.html`` and ``beside_top.html``, which the example's page shows where it finds
    them."""
    return {"outage_panel": panel, "panel_texts": lambda: PANEL[ui_language()], "outage_level": lambda: live().level}


@lab.post("/<server>/<action>")
def act(server: str, action: str) -> ResponseReturnValue:
    """Stop, start, freeze or thaw one of the servers; answers when that is done."""
    if server not in SERVERS or action not in ACTIONS:
        abort(404)
    return _do({"server": server, "action": action})


@lab.post("/copies/age")
def age() -> ResponseReturnValue:
    """Have the workers take their local copies for too old."""
    return _do({"action": "age"})


def _do(question: Mapping[str, str]) -> ResponseReturnValue:
    socket = _socket()
    if socket is None:
        abort(404)
    try:
        answer = ask(socket, question, timeout=25.0)
    except OSError:
        abort(502, "The lab does not answer.")
    if "error" in answer:
        abort(502, answer["error"])
    if request.accept_mimetypes.best == "application/json":
        return panel()
    return redirect(url_for("pages.index", _anchor="lab"), 303)


@lab.get("/state")
def state() -> ResponseReturnValue:
    """Answer the content of the panel, as JSON."""
    return panel()


def panel() -> dict[str, Any]:
    """Return the content of the panel: level, servers and AWS (None without a lab) and one row per feature, with texts
    to show."""
    answer = _lab()
    if answer and answer.get("aged"):
        _take_copies_for_old()
    lang, level = ui_language(), live().level
    return {
        "pid": os.getpid(),
        "level": level,
        "level_name": live().level_name,
        "levels": list(zip(NAMES.values(), LEVELS[lang], strict=True)),
        "level_text": LEVELS[lang][level],
        "logins": logins(),
        "step": _step(level),
        "servers": None if answer is None else _servers(answer.get("servers", {}), lang),
        "aws": None if answer is None else answer.get("aws"),
        "features": list(_features(lang)),
        "charts": _charts(lang),
    }


def _take_copies_for_old() -> None:
    health = state_of().health
    if health.level == 2:
        health.age_outage(state_of().settings.local_cache_ttl)


def _step(level: int) -> int:
    """Return the step of the tour that comes next, 0 to 4."""
    return min(level + 1, 4) if level or current_user.is_authenticated else 0


def _features(lang: str) -> Iterator[dict[str, Any]]:
    """Yield for each feature what the visitor has of it now."""
    texts = NOW[lang]
    for row in live().explain():
        if row.feature not in SHOWN:
            continue
        if row.source == "request":
            now = texts["request"]
        elif row.category == "auth" and row.behaviour in ("primary", "database_fallback") and not logins():
            now = texts["no_database"]
        elif row.behaviour == "local_cache_fallback" and not row.available:
            now = texts["no_copy"]
        else:
            now = texts.get(f"level_{live().level}_{row.behaviour}", texts[row.behaviour])
        yield {
            "feature": row.feature,
            "category": row.category,
            "label": FEATURES[lang].get(row.feature),
            "priority": row.priority,
            "behaviour": row.behaviour,
            "source": row.source,
            "available": row.available,
            "now": now,
        }


def _charts(lang: str) -> str:
    """Return the charts of this worker, as HTML."""
    facts = status_facts(state_of(), SPAN)
    return render_template(
        "charts.html",
        facts=facts,
        charts=charts(facts),
        height=HEIGHT,
        titles=CHARTS[lang],
        legends=LEGENDS[lang],
        texts=PANEL[lang],
    )


def _socket() -> Path | None:
    path = current_app.config.get("LAB_SOCKET")
    return Path(path) if path else None


def _lab() -> dict[str, Any] | None:
    """Return the state of the servers and what AWS was sent; None without a lab, empty if it does not answer."""
    socket = _socket()
    if socket is None:
        return None
    try:
        return ask(socket, {"action": "state"}, timeout=1.0)
    except OSError:
        return {}


def _servers(states: Mapping[str, str], lang: str) -> list[dict[str, str]]:
    known = {name: states.get(name, "unknown") for name in SERVERS}
    return [{"name": name, "state": state, "text": STATES[lang][state]} for name, state in known.items()]
