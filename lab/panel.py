"""The outage lab beside the page: switches for the servers, the level, what every feature gets, and what AWS hears."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Blueprint, abort, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue

from example_app.session import live, logins, ui_language
from lab.control import ACTIONS, SERVERS, ask
from lab.texts import FEATURES, LEVELS, PANEL, STATES

lab = Blueprint("lab", __name__, url_prefix="/lab", template_folder="templates", static_folder="static")


@lab.app_context_processor
def panel_context() -> dict[str, Any]:
    """For ``beside.html``, which the example's page shows where it finds it: the panel and its texts."""
    return {"outage_panel": panel, "panel_texts": lambda: PANEL[ui_language()]}


@lab.post("/<server>/<action>")
def act(server: str, action: str) -> ResponseReturnValue:
    """Stop, start, freeze or thaw one of the servers; answers when that is done."""
    socket = _socket()
    if socket is None or server not in SERVERS or action not in ACTIONS:
        abort(404)
    try:
        answer = ask(socket, {"server": server, "action": action}, timeout=25.0)
    except OSError:
        abort(502, "The lab does not answer.")
    if "error" in answer:
        abort(502, answer["error"])
    if request.accept_mimetypes.best == "application/json":
        return panel()
    return redirect(url_for("pages.index", _anchor="lab"), 303)


@lab.get("/state")
def state() -> ResponseReturnValue:
    """What the panel shows, as JSON."""
    return panel()


def panel() -> dict[str, Any]:
    """Where things stand: level, servers and AWS (None without a lab) and one row per feature, with texts to show."""
    session = live()
    lang = ui_language()
    answer = _lab()
    return {
        "pid": os.getpid(),
        "level": session.level,
        "level_name": session.level_name,
        "level_text": LEVELS[lang][session.level],
        "logins": logins(),
        "servers": None if answer is None else _servers(answer.get("servers", {}), lang),
        "aws": None if answer is None else answer.get("aws"),
        "features": [asdict(row) | {"label": FEATURES[lang].get(row.feature)} for row in session.explain()],
    }


def _socket() -> Path | None:
    path = current_app.config.get("LAB_SOCKET")
    return Path(path) if path else None


def _lab() -> dict[str, Any] | None:
    """How the servers are and what AWS was sent; None without a lab, empty if it does not answer."""
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
