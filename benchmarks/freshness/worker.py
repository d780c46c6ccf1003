"""One of two processes, each an application of its own, that talk to each other by a pipe.

The writer changes a session and tells the reader by the pipe once it has the answer; the reader, which has read the
session before, then reads at once, and again until it sees the change. A pipe from the program says what either
shall do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from flask import Flask, request

from flask_langpont_session import LangPontSession, session
from flask_langpont_session.extension import state_of

from .. import near_cache
from ..measure import Reply, call, environ_for
from ..scenarios import VALUE

LONG = 30.0
"""Seconds after which something that has to happen is not expected any more."""

USER = "1207"
VISITOR = "-"


@dataclass
class Seen:
    """The reads of the reader.

    :param held: of how many changes its copy answered a read just before; 0 where there is no near cache.
    :param late: for each change of which the first read showed the old value: milliseconds from the word until the
        beginning of the first read that showed the new one.
    :param without: the same of those of which it showed neither, because the stores were not reached.
    :param never: changes that no read has shown.
    """

    rounds: int = 0
    held: int = 0
    late: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    never: int = 0

    def note(self, old: str, first: str, seconds: float | None) -> None:
        """Count one change, of which the first read showed this, and which was seen so late, or never."""
        self.rounds += 1
        if seconds is None:
            self.never += 1
        elif seconds:
            (self.late if first == old else self.without).append(seconds * 1000)


def lateness(read: Callable[[], str], new: str) -> tuple[str, float | None]:
    """Return what the first read shows, and the seconds until the beginning of the read that shows the new value; 0:
    that is the first one. None: no read showed it."""
    told = began = time.perf_counter()
    shown = first = read()
    while shown != new:
        began = time.perf_counter()
        if began - told > LONG:
            return first, None
        shown = read()
    return first, began - told


class Worker:
    """The application, and the way to the other process.

    :param program: the pipe from the program and to it.
    :param words: the pipe from the other process.
    :param to_other: the one to it.
    :param patience: seconds within which the near cache has to answer a read; 0: there is none.
    """

    def __init__(
        self, app: Flask, program: Connection, words: Connection, to_other: Connection, patience: float
    ) -> None:
        self._app, self._program, self._words, self._to_other = app, program, words, to_other
        self._patience = patience

    def sign_in(self) -> str:
        """Begin a session. Return its Cookie header."""
        cookie = self._get("/sign-in", "").cookie
        assert cookie is not None
        return cookie

    def write(self, cookie: str, rounds: int, first: int = 0, *, is_disturbed: bool = False) -> None:
        """Change a text of the session so many times.

        :param is_disturbed: say "held" before each change and wait for a word: something is done to the stores.
        """
        self._write(cookie, first)
        for number in range(first + 1, first + rounds + 1):
            self._tell("hold", "/read", cookie, _text(number - 1))
            self._hear()
            if is_disturbed:
                self._program.send("held")
                self._program.recv()
            self._write(cookie, number)
            self._tell("now", _text(number))
            self._hear()
        self._tell("end")

    def sign_out(self, rounds: int) -> None:
        """Begin and end so many sessions."""
        for _ in range(rounds):
            cookie = self.sign_in()
            self._tell("hold", "/user", cookie, USER)
            self._hear()
            self._get("/sign-out", cookie)
            self._tell("now", VISITOR)
            self._hear()
        self._tell("end")

    def read(self) -> Seen:
        """Read as the writer tells, until it says that it was all."""
        seen, environ, old = Seen(), dict[str, Any](), ""
        while (word := self._hear())[0] != "end":
            if word[0] == "hold":
                environ, old = environ_for(word[1], word[2]), word[3]
                self._await(environ, old)
                seen.held += self._is_near(environ)
            else:
                seen.note(old, *lateness(partial(self._body, environ), word[1]))
            self._tell("done")
        return seen

    def _is_near(self, environ: dict[str, Any]) -> bool:
        """Return whether a copy answers a read; a connection that was lost takes a moment to be there again."""
        until, is_hit = time.monotonic() + self._patience, False
        while not is_hit:
            before = near_cache.hits(self._app)
            self._body(environ)
            is_hit = near_cache.hits(self._app) > before
            if time.monotonic() > until:
                self._patience = 0.0  # it is off
                break
        return is_hit

    def _await(self, environ: dict[str, Any], expected: str) -> None:
        until = time.monotonic() + LONG
        while self._body(environ) != expected:
            assert time.monotonic() < until, f"{environ['PATH_INFO']} does not show {expected!r}"

    def _body(self, environ: dict[str, Any]) -> str:
        return call(self._app.wsgi_app, environ).body.decode()

    def _write(self, cookie: str, number: int) -> None:
        """Write until Redis has the change: what an outage keeps elsewhere is seen by others later, as the guarantees
        say."""
        until = time.monotonic() + LONG
        while not self._is_kept_by_redis(self._get("/write", cookie, _text(number))):
            assert time.monotonic() < until, "Redis takes no write"
            time.sleep(0.005)  # an outage is under way: asking without a pause would keep its end from being noticed

    def _is_kept_by_redis(self, reply: Reply) -> bool:
        state = state_of(self._app)
        return reply.body == b"0" and state.health.level == 0 and state.backend.journal.is_empty()

    def _get(self, path: str, cookie: str, value: object = None) -> Reply:
        reply = call(self._app.wsgi_app, {**environ_for(path, cookie), VALUE: value})
        assert reply.status == "200 OK", f"{path} answered {reply.status}"
        return reply

    def _tell(self, *words: str) -> None:
        self._to_other.send(words)

    def _hear(self) -> tuple[str, ...]:
        words: tuple[str, ...] = self._words.recv()
        return words


def _text(number: int) -> str:
    return f"text {number}"


def _application(settings: Mapping[str, Any]) -> Flask:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a key of the benchmarks, 32 bytes or more"
    app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
    LangPontSession(app)
    state_of(app).backend.database.upkeep.create_tables()

    @app.get("/sign-in")
    def sign_in() -> str:
        session.update(_user_id=USER, input_text="")
        return "signed in"

    @app.get("/sign-out")
    def sign_out() -> str:
        session.sign_out()
        return "signed out"

    @app.get("/write")
    def write() -> str:
        session["input_text"] = request.environ[VALUE]
        return str(session.level)

    @app.get("/read")
    def read() -> str:
        return str(session.get("input_text"))

    @app.get("/user")
    def user() -> str:
        return str(session.get("_user_id", VISITOR))

    return app


def work(program: Connection, settings: Mapping[str, Any], words: Connection, to_other: Connection) -> None:
    """Do what the program says, until it ends this process."""
    app = _application(settings)
    worker = Worker(app, program, words, to_other, 0.0 if settings["NEAR_CACHE"] == () else LONG)
    program.send("ready")
    while True:
        name, arguments = program.recv()
        program.send(getattr(worker, name)(**arguments))
