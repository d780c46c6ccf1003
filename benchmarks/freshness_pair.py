"""Two processes, each an application of its own, that talk to each other by pipes.

The writer changes a session and tells the reader once it has the answer; the reader, which has read the session before,
then reads at once, and again until it sees the change. A pipe from the program says what either shall do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flask import request

from flask_langpont_session import session
from flask_langpont_session.extension import state_of

from .contestants import Ours
from .scenarios import VALUE
from .workers import Process, pipe
from .wsgi import Environ, Reply, call, environ_for

LONG = 30.0
"""Seconds after which something that has to happen is not expected any more."""

USER, VISITOR = "1207", "-"


@dataclass
class Seen:
    """The reads of the reader.

    :param held: of how many changes its copy answered a read just before.
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

    def __iadd__(self, other: Seen) -> Seen:
        for name, found in vars(other).items():
            setattr(self, name, getattr(self, name) + found)
        return self


# -- in the processes --------------------------------------------------------------------------------------------------


def application(redis_url: str, folder: Path, database_url: str) -> Ours:
    """Return the application of one process."""
    made = Ours(redis_url, folder, database_url)

    @made.app.get("/sign-out")
    def sign_out() -> str:
        session.sign_out()
        return "signed out"

    @made.app.get("/write")
    def write() -> str:
        session["input_text"] = request.environ[VALUE]
        return str(session.level)

    @made.app.get("/read")
    def read() -> str:
        return str(session.get("input_text"))

    @made.app.get("/user")
    def user() -> str:
        return str(session.get("_user_id", VISITOR))

    return made


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
    :param other: the one to it.
    """

    def __init__(self, made: Ours, program: Connection, words: Connection, other: Connection) -> None:
        self._made, self._program, self._words, self._other = made, program, words, other
        self._state = state_of(made.app)

    def sign_in(self) -> str:
        """Begin a session. Return its Cookie header."""
        return self._made.begin({"_user_id": USER, "input_text": ""})

    def write(self, cookie: str, rounds: int, first: int = 0, *, is_disturbed: bool = False) -> None:
        """Change a text of the session so many times.

        :param is_disturbed: say "held" before each change and wait for a word: something is done to the stores.
        """
        self._write(cookie, first)
        for number in range(first + 1, first + rounds + 1):
            self._tell("hold", "/read", cookie, _text(number - 1))
            if is_disturbed:
                self._program.send("held")
                self._program.recv()
            self._write(cookie, number)
            self._tell("now", _text(number))
        self._tell("end")

    def sign_out(self, rounds: int) -> None:
        """Begin and end so many sessions."""
        for _ in range(rounds):
            cookie = self.sign_in()
            self._tell("hold", "/user", cookie, USER)
            self._made.get("/sign-out", cookie)
            self._tell("now", VISITOR)
        self._tell("end")

    def read(self) -> Seen:
        """Read as the writer tells, until it says that it was all."""
        seen, environ, old, word = Seen(), Environ(), "", [""]
        while word[0] != "end":
            word = self._words.recv()
            if word[0] == "hold":
                environ, old = environ_for(word[1], word[2]), word[3]
                self._until(lambda: self._body(environ) == old, f"{old} at {environ['PATH_INFO']}")  # noqa: B023
                self._until(lambda: self._is_hit(environ), "a near cache")  # noqa: B023
                seen.held += 1
            elif word[0] == "now":
                seen.note(old, *lateness(partial(self._body, environ), word[1]))
            self._other.send("done")
        return seen

    def _is_hit(self, environ: Environ) -> bool:
        """Return whether the near cache answers a read; a connection that was lost takes a moment to be there again."""
        before = self._hits()
        self._body(environ)
        return self._hits() > before

    def _hits(self) -> int:
        return self._state.recorder.counters().get("near_cache_hits", 0)

    def _body(self, environ: Environ) -> str:
        return call(self._made.app.wsgi_app, environ).body.decode()

    def _write(self, cookie: str, number: int) -> None:
        """Write until Redis has the change: what an outage keeps elsewhere is seen by others later, as the guarantees
        say."""
        self._until(lambda: self._is_kept_by_redis(self._made.get("/write", cookie, _text(number))), "a kept write")

    def _is_kept_by_redis(self, reply: Reply) -> bool:
        return reply.body == b"0" and self._state.health.level == 0 and self._state.backend.journal.is_empty()

    @staticmethod
    def _until(condition: Callable[[], bool], what: str) -> None:
        """Ask until the condition is met, at first every 5 ms. While a session is written faster than its host merges
        what waits of it, each write waits as well: the pauses grow, up to a third of a second."""
        until, pause = time.monotonic() + LONG, 0.005
        while not condition():
            assert time.monotonic() < until, f"not within {LONG:g} s: {what}"
            time.sleep(pause)  # the host merges what waits in such a pause, so no fixed one fits a busy machine
            pause = min(2 * pause, 0.32)

    def _tell(self, *words: str) -> None:
        """Tell the reader, and wait until it has done it."""
        self._other.send(words)
        self._words.recv()


def _text(number: int) -> str:
    return f"text {number}"


def work(
    program: Connection, redis_url: str, folder: Path, database_url: str, words: Connection, other: Connection
) -> None:
    """Do what the program says, until it ends this process."""
    worker = Worker(application(redis_url, folder, database_url), program, words, other)
    program.send("ready")
    while True:
        name, arguments = program.recv()
        program.send(getattr(worker, name)(**arguments))


# -- in the program ----------------------------------------------------------------------------------------------------


@dataclass
class Two:
    """The two processes."""

    writer: Process
    reader: Process

    def sign_in(self) -> str:
        """Return the Cookie header of a new session."""
        self.writer.send(("sign_in", {}))
        cookie: str = self.writer.answer()
        return cookie

    def writes(self, rounds: int) -> Seen:
        """Make so many changes of one session, each read at once."""
        return self._rounds("write", cookie=self.sign_in(), rounds=rounds)

    def sign_outs(self, rounds: int) -> Seen:
        """Make so many ends of sessions, each read at once."""
        return self._rounds("sign_out", rounds=rounds)

    def hold(self, cookie: str, number: int) -> None:
        """Return when the reader has read the session, before the change of that number, which waits for
        :meth:`change`."""
        self.reader.send(("read", {}))
        self.writer.send(("write", {"cookie": cookie, "rounds": 1, "first": 2 * number, "is_disturbed": True}))
        assert self.writer.answer() == "held"

    def change(self) -> None:
        """Let the writer go on."""
        self.writer.send("go")

    def finish(self) -> Seen:
        """Return when the reader has seen the change."""
        self.writer.answer()
        seen: Seen = self.reader.answer()
        return seen

    def _rounds(self, what: str, **arguments: Any) -> Seen:
        self.reader.send(("read", {}))
        self.writer.send((what, arguments))
        return self.finish()


@contextmanager
def two(folder: Path, redis_url: str, *, one_host: bool) -> Iterator[Two]:
    """Start them on a server with this address.

    :param one_host: they have the same journal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{folder / 'sessions.sqlite3'}"
    with ExitStack() as stack:
        to_writer, to_reader = pipe(), pipe()
        made = []
        for name, words in (("reader", (to_reader[0], to_writer[1])), ("writer", (to_writer[0], to_reader[1]))):
            own = folder / ("host" if one_host else name)
            made.append(Process(work, redis_url, own, database, *words))
            stack.callback(made[-1].kill)
        for end in (*to_writer, *to_reader):
            end.close()
        for process in made:
            assert process.answer() == "ready"
        reader, writer = made
        yield Two(writer, reader)
