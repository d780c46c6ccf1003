"""One worker process: pages that read, append, count and clear, and what this worker counted, in a file.

``python -m tests.support.site.application`` serves until it is ended, or runs one command of its operator. It sees no
more of the package than any application does; :func:`known` and the functions at its end are the exceptions.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from flask import Blueprint, Flask, current_app, has_request_context, request
from flask.cli import ScriptInfo
from flask.typing import ResponseReturnValue
from werkzeug.serving import WSGIRequestHandler, make_server

from devservers.constants import extended
from flask_langpont_session import LangPontSession, events, session
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.ids import digest_of

from .browser import COOKIE

CONFIG, COUNTERS, PORT = "APPENDS_CONFIG", "APPENDS_COUNTERS", "APPENDS_PORT"
"""Environment variables: the configuration as JSON, the file for the counters, and the port."""

COMMAND, HOST, CLOCK, SECRET = "APPENDS_COMMAND", "APPENDS_HOST", "APPENDS_CLOCK", "APPENDS_SECRET"
"""More of them: the arguments of ``flask`` as JSON, in place of serving; the host's name; seconds by which its clock is
wrong; another SECRET_KEY."""

USER, ROLE = "_user_id", "user_role"
LIST, BLIND, TEXT, COUNT, LOOK = "translation_context", "source_lang", "input_text", "usage_count", "theme"
"""Keys of the default table: all but the last are of priority ``high`` and in one category; the last is ``medium``."""

DATA, THEME = "translation", "ui"
"""The category of all but the last, and that of the last."""

FEATURE = "translation_state"
"""To which the list and the texts belong."""

LOOK_FEATURE = "ui_settings"
"""To which the last one belongs."""

_TICK = 0.1
"""Seconds between two looks at the counters while no request comes: a thread of the package counts, too."""

pages = Blueprint("appends", __name__)


def create_app(config: Mapping[str, Any]) -> Flask:
    """Return an application with this configuration."""
    app = Flask("appends")
    app.config.update(config)
    if app.config.get("LANGPONT_SESSION_STATUS_PAGE"):
        app.config["LANGPONT_SESSION_STATUS_PAGE"] = lambda _: True  # in the environment there are no functions
    extended(app)
    app.register_blueprint(pages)
    return app


# -- pages -------------------------------------------------------------------------------------------------------------


def _about() -> dict[str, Any]:
    """Return the part that every page answers: where this request stands."""
    return {
        "pid": os.getpid(),
        "user": session.get(USER),
        "role": session.get(ROLE),
        "unverified": session.unverified,
        "available": session.available(FEATURE),
        "level": session.level,  # last: a store that fails when it is asked for the others makes it worse
    }


@pages.get("/look")
def look() -> ResponseReturnValue:
    """Answer everything that this worker shows of the session."""
    shown = {
        "list": session.get(LIST, []),
        "blind": session.get(BLIND),
        "text": session.get(TEXT),
        "count": session.get(COUNT, 0),
        "theme": session.get(LOOK),
        "theme_available": session.available(LOOK_FEATURE),
    }
    return shown | _about()


@pages.post("/append")
def append() -> ResponseReturnValue:
    """Read the list, and write it with one number more."""
    entries = [*session.get(LIST, []), int(request.form["entry"])]
    about = _about()  # what the page knows when it decides to write
    session[LIST] = entries
    return about | {"list": entries}


@pages.post("/set")
def set_blindly() -> ResponseReturnValue:
    """Set keys without having read them."""
    for key, value in request.form.items():
        session[key] = value
    return _about()


@pages.post("/count")
def count() -> ResponseReturnValue:
    """Add one."""
    return {"count": session.increment(COUNT)} | _about()


@pages.post("/clear")
def clear() -> ResponseReturnValue:
    """Forget everything."""
    about = _about()
    session.clear()
    return about


@pages.post("/regenerate")
def regenerate() -> ResponseReturnValue:
    """Give the session a new id."""
    session.regenerate()
    return _about()


@pages.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Sign in as ``user``."""
    session[USER] = request.form["user"]
    session[ROLE] = "role-0"
    return _about()


@pages.post("/role")
def role() -> ResponseReturnValue:
    """Give the user another role."""
    session[ROLE] = request.form["role"]
    return _about()


@pages.get("/fresh")
def fresh() -> ResponseReturnValue:
    """Answer the session as the database has it, and whether the database answered."""
    return {"fresh": session.fresh("auth")} | _about()


@pages.post("/everywhere")
def everywhere() -> ResponseReturnValue:
    """End all sessions of ``user``, as an operator does, without a session."""
    return {"durable": _langpont().revoke_user(request.form["user"]).durable} | _about()


@pages.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """Sign out, and answer where that is kept."""
    about = _about()
    session.pop(USER, None)
    return about | {"kept": session.flush()}


@pages.post("/compute")
def compute() -> ResponseReturnValue:
    """Keep this process busy for ``seconds``; say where the session stands then."""
    until = time.thread_time() + float(request.form["seconds"])
    while time.thread_time() < until:
        sum(range(1000))
    return _about()


@pages.get("/state")
def state() -> ResponseReturnValue:
    """Answer the state of this worker. No session is looked at."""
    inside = {"waiting": waiting(current_app), "gives_back": gives_back(current_app), "counters": counters(current_app)}
    return {"pid": os.getpid(), "status": _langpont().status()} | inside


@pages.get("/known/<digest>")
def known(digest: str) -> ResponseReturnValue:
    """Return what this worker finds of a session: in Redis, in its host's journal, among its own copies."""
    backend = state_of(current_app).backend
    found: dict[str, Any] = {}
    for name in backend.table.categories:
        [there] = backend.primary.copies([(digest, name)], timeout=1.0)
        if there.mark:
            wiped = backend.register.is_wiped_since(digest, name, there.version)
            meta = there.mark.decode(errors="replace").replace("\1", " ")
            found[f"finds {name} in Redis"] = f"{sorted(there.fields)}, {meta}, host has wiped it since: {wiped}"
        if own := backend.memory.category(digest, name):
            found[f"has a copy of {name}"] = f"{own.version} {sorted(own.fields)}"
    overlay = backend.journal.overlay(RecordRef(digest, "a"))
    waiting = {"writes": overlay.writes, "deltas": overlay.deltas, "wiped": overlay.wiped, "carried": overlay.carried}
    copies = {name: f"{copy.version} {sorted(copy.fields)}" for name, copy in overlay.copies.items()}
    journalled = {name: str(value) for name, value in waiting.items() if value}
    return found | ({"has in the journal": f"{journalled} copies {copies}"} if journalled or copies else {})


def _langpont() -> LangPontSession:
    interface = current_app.session_interface
    assert isinstance(interface, LangPontSession)
    return interface


# -- by the hundred ----------------------------------------------------------------------------------------------------


@pages.post("/many")
def many() -> ResponseReturnValue:
    """Make many requests inside this worker, of ``threads`` at once, each with a cookie (None: a visitor without one).

    JSON: ``cookies``, ``threads``, ``path`` and, for posts, ``form``. Answers a list of [status, body, cookie].
    """
    asked = request.get_json()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(asked.get("threads", 4)) as pool:
        return list(pool.map(lambda cookie: _one(app, asked, cookie), asked["cookies"]))


def _one(app: Flask, asked: Mapping[str, Any], cookie: str | None) -> tuple[int, Any, str | None]:
    client = app.test_client()
    if cookie:
        client.set_cookie(COOKIE, cookie)
    form = asked.get("form")
    answer = client.get(asked["path"]) if form is None else client.post(asked["path"], data=form)
    kept = client.get_cookie(COOKIE)
    return answer.status_code, answer.get_json(silent=True), kept.value if kept else None


# -- inside ------------------------------------------------------------------------------------------------------------


def waiting(app: Flask) -> int:
    """Return the entries in the host's journal that a store does not have yet; -1: the journal does not answer."""
    try:
        return state_of(app).backend.journal.waiting().entries
    except StoreError:
        return -1


def gives_back(app: Flask) -> bool:
    """Return whether this worker is still to give Redis back what that may lack, as each worker is that has just met
    it."""
    return state_of(app).monitor.recovery.gives_back


def counters(app: Flask) -> Mapping[str, int]:
    """Return the counts of this worker's recorder, by name."""
    return dict(state_of(app).recorder.counters())


class Report(NamedTuple):
    """A report of the package that something is not kept.

    :param at: monotonic seconds, which all processes of a machine share.
    :param session: the beginning of the digest that the request came with; empty: it was no request.
    """

    at: float
    session: str
    what: str
    cause: str
    category: str
    number: int


def note_reports(path: Path) -> None:
    """Write down what is reported, a line of JSON each."""
    lock = threading.Lock()

    def note(sender: Any, event: events.WritesNotKept) -> None:
        cookie = request.cookies.get(COOKIE, "") if has_request_context() else ""
        session_id = digest_of(cookie.split(".")[0])[:8] if cookie else ""
        report = Report(
            time.monotonic(), event.digest[:8] or session_id, event.what, event.cause, event.category, event.count
        )
        with lock, path.open("a") as file:
            file.write(json.dumps(report) + "\n")

    events.writes_not_kept.connect(note, weak=False)


def publish_counters(app: Flask, path: Path) -> None:
    """Write the counters after every request and ten times a second: what a killed worker has counted is kept."""
    lock = threading.Lock()
    written: dict[str, int] = {}

    def write() -> None:
        with lock:
            now = counters(app)
            if now != written:
                aside = path.with_suffix(".new")
                aside.write_text(json.dumps(now))
                aside.replace(path)
                written.clear()
                written.update(now)

    def tick() -> None:
        while True:
            time.sleep(_TICK)  # counters cannot be waited for
            write()

    whole = app.wsgi_app

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        # Before the first byte of the answer leaves: what it acknowledges may be covered by what is counted.
        answer = whole(environ, start_response)
        write()
        return answer

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]
    threading.Thread(target=tick, name="counters", daemon=True).start()


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def main() -> None:
    """Serve until this process is ended."""
    logging.basicConfig(format="%(asctime)s %(process)d %(message)s")
    logging.getLogger("flask_langpont_session").setLevel(logging.DEBUG)  # it is searched for secrets
    config = json.loads(os.environ[CONFIG])
    config["SECRET_KEY"] = os.environ.get(SECRET) or config["SECRET_KEY"]
    if name := os.environ.get(HOST):
        socket.gethostname = lambda: name
    if wrong := float(os.environ.get(CLOCK, 0)):
        right = time.time
        time.time = lambda: right() + wrong
    app = create_app(config)
    if command := os.environ.get(COMMAND):
        app.cli.main(json.loads(command), "flask", obj=ScriptInfo(create_app=lambda: app))
    counted = Path(os.environ[COUNTERS])
    publish_counters(app, counted)
    note_reports(counted.with_suffix(".reports"))
    make_server("127.0.0.1", int(os.environ[PORT]), app, threaded=True, request_handler=_Quiet).serve_forever()


if __name__ == "__main__":
    main()
