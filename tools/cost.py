"""The cost of the session for a request, in bytecodes: ``python -m tools.cost``.

Bytecodes are counted that the thread of a request runs, libraries included, beyond what the same request runs with a
session that is a plain dict. The count is the same however busy the machine is, so a test can hold it
(``tests/integration/test_cost.py``). The application is the plainest that there is: one server, SQLite, a signed-in
user whose session this process keeps near.

Calls of the system are counted by strace, where there is one, in the same way.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median_low
from types import FrameType
from typing import Any, TypeVar

from flask import Flask, Request, Response, session
from flask.sessions import SessionInterface, SessionMixin

from devservers.constants import extended
from devservers.processes import wait_until
from devservers.valkey import Valkey

T = TypeVar("T")

GOALS: Mapping[str, int] = {
    "read one": 800, "read all": 1900, "change one": 1900, "read + change": 2800, "sign-in": 9000,
}  # fmt: skip
"""Bytecodes that a request should cost at most."""

CALLS: Mapping[str, int] = {"read one": 3, "read all": 3, "change one": 9, "read + change": 12}
"""Calls of the system that a request should make at most."""

_TRIES = 25
"""Requests of which the median counts: now and then one has more to do, such as asking the server after a silence."""


class Bytecodes:
    """Counts what each request of an application runs in its thread.

    :ivar number: of the last one.
    """

    def __init__(self, app: Flask) -> None:
        self.number = 0
        self._serve, app.wsgi_app = app.wsgi_app, self._counted  # type: ignore[method-assign]

    def _counted(self, environ: Any, start_response: Any) -> Any:
        self.number = 0
        sys.settrace(self._enter)
        try:
            return self._serve(environ, start_response)
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._count

    def _count(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        self.number += event == "opcode"
        return self._count


class _Marks:
    """Marks the requests of an application in what strace writes."""

    number = 0

    def __init__(self, app: Flask) -> None:
        self._serve, app.wsgi_app = app.wsgi_app, self._marked  # type: ignore[method-assign]

    def _marked(self, environ: Any, start_response: Any) -> Any:
        _mark(environ["PATH_INFO"])
        try:
            return self._serve(environ, start_response)
        finally:
            _mark("/end")


def _mark(path: str) -> None:
    with suppress(OSError):
        os.readlink(f"/mark{path}")


class _PlainSession(dict[str, Any], SessionMixin):
    """A session that costs no more than every session does."""


class _PlainInterface(SessionInterface):
    def __init__(self) -> None:
        self._kept = _PlainSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return self._kept

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        return None


def costs() -> dict[str, int]:
    """Return the bytecodes of each kind of request, by the names of :data:`GOALS`."""
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        return costs_on(server)


def costs_on(server: Valkey) -> dict[str, int]:
    """Return the bytecodes of each kind of request, with a server that runs already."""
    plain = Flask(__name__)
    plain.session_interface = _PlainInterface()
    add_views(plain)
    bare = _costs_of(plain)
    with application(REDIS_URL=server.url) as app:
        add_views(app)
        return {name: number - bare[name] for name, number in _costs_of(app, server).items()}


def system_calls() -> dict[str, int] | None:
    """Return the calls of the system that each kind of request makes in its thread, but for locks and memory; None:
    there is no strace here, or it may not look at a process."""
    strace, numbers = shutil.which("strace"), defaultdict[str, list[int]](list)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace")
        command = [str(strace), "-qq", "-e", "trace=%file,%desc,%network,getrandom,getpid", "-o", str(trace)]
        marked = [*command, sys.executable, "-m", "tools.cost", "--marked"]
        if not strace or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            return None
        subprocess.run(marked, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
        for request in re.split(r'.*"/mark/(?=[a-z])', trace.read_text())[1:]:
            calls = re.findall(r"^(?!mmap)\w+\(", request, re.MULTILINE)
            numbers[request.partition("/")[0]].append(len(calls))
    # The fewest: where the machine is busy, a reply that is not there yet is waited for by one call more.
    return {name: min(numbers[path]) for name, path in paths()}


@contextmanager
def application(**settings: Any) -> Iterator[Flask]:
    """Yield the plainest application, with SQLite and without views.

    :param settings: without their prefix.
    """
    with tempfile.TemporaryDirectory() as folder:
        app = Flask(__name__, instance_path=folder)
        app.config.update(TESTING=True, SECRET_KEY="x" * 40)
        app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
        extension = extended(app)
        extension.create_tables(app)
        yield app
        extension.close(app)


def once_near(server: Valkey, read: Callable[[], T]) -> T:
    """Read a session until the server need not be asked for it, and return what the last read came to."""
    found: list[T] = []

    def asked_nothing() -> bool:
        client.config_resetstat()
        found.append(read())
        return "cmdstat_evalsha" not in client.info("commandstats")

    with server.client() as client:
        wait_until(asked_nothing, "requests that need not ask", 60)
    return found[-1]


def add_views(app: Flask) -> None:
    """Add the views whose requests are counted."""

    @app.get("/read-one/<_>")
    def read_one(_: str) -> str:
        return str(session.get("lang"))

    @app.get("/read-all/<_>")
    def read_all(_: str) -> str:
        return str(len(dict(session)))

    @app.get("/change-one/<value>")
    def change_one(value: str) -> str:
        session["lang"] = value
        return ""

    @app.get("/read-change/<value>")
    def read_and_change(value: str) -> str:
        before = session.get("lang")
        session["lang"] = value
        return str(before)

    @app.get("/sign-in/<value>")
    def sign_in(value: str) -> str:
        session["_user_id"] = value
        session["_fresh"] = True
        return ""


def paths() -> Iterator[tuple[str, str]]:
    """Yield the name of each kind of request, and where its path begins."""
    return zip(GOALS, ("read-one", "read-all", "change-one", "read-change", "sign-in"), strict=True)


def _costs_of(
    app: Flask, server: Valkey | None = None, count: Callable[[Flask], Bytecodes | _Marks] = Bytecodes
) -> dict[str, int]:
    """Return the median of some requests of each kind. A user signs in with a browser that has no session."""
    browser = app.test_client()
    browser.get("/sign-in/0")
    browser.get("/change-one/en")
    if server is not None:
        once_near(server, lambda: browser.get("/read-one/0"))
    counted = count(app)

    def cost(path: str, value: int) -> int:
        by = app.test_client() if path == "sign-in" else browser
        browser.get("/read-one/0")  # what the request before has changed is near again
        answer = by.get(f"/{path}/{value}")
        assert answer.status_code == 200, answer.text
        return counted.number

    return {name: median_low(cost(path, value) for value in range(_TRIES)) for name, path in paths()}


def main() -> None:
    if sys.argv[1:] == ["--marked"]:
        with (
            tempfile.TemporaryDirectory() as folder,
            Valkey(Path(folder)) as server,
            application(REDIS_URL=server.url) as app,
        ):
            add_views(app)
            _costs_of(app, server, _Marks)
        return
    print("| request | bytecodes | goal | system calls | goal |\n| --- | --- | --- | --- | --- |")
    found, calls = costs(), system_calls() or {}
    for name, number in found.items():
        print(f"| {name} | {number} | {GOALS[name]} | {calls.get(name, '?')} | {CALLS.get(name, '–')} |")
    print(f"\n    {sys.version_info[:2]}: {tuple(found.values())},  # of BUDGET in tests/integration/test_cost.py")


if __name__ == "__main__":
    main()
