"""The two processes and the ways to make them change and read."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devservers.web import PROJECT
from flask_langpont_session.config.settings import PATIENCE

from .. import near_cache
from . import worker
from .worker import Seen


class Process:
    """One of the two.

    :param words: descriptors of the pipes from the other process and to it. They are closed here.
    """

    def __init__(self, settings: Mapping[str, Any], words: tuple[int, int]) -> None:
        command = [sys.executable, "-m", worker.__name__, json.dumps([settings, *words])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=words, text=True, cwd=PROJECT
        )
        for descriptor in words:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> None:
        """Let it do something, a method of :class:`~.worker.Worker`."""
        self.send([what, arguments])

    def send(self, line: object) -> None:
        """A line of JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What it says next. :raises RuntimeError: it has ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has ended; see above")
        return json.loads(line)

    @property
    def has_answered(self) -> bool:
        """Whether there is something to be read."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def close(self) -> None:
        """End it."""
        with self._process as process:
            process.kill()


@dataclass
class Two:
    """The two processes.

    :param tracks: the reader has a near cache, so the server tracks what it reads.
    """

    writer: Process
    reader: Process
    tracks: bool

    def writes(self, rounds: int) -> Seen:
        """So many changes of one session, each read at once."""
        return self._rounds("write", cookie=self.sign_in(), rounds=rounds)

    def sign_outs(self, rounds: int) -> Seen:
        """So many ends of sessions, each read at once."""
        return self._rounds("sign_out", rounds=rounds)

    def sign_in(self) -> str:
        """The Cookie header of a new session."""
        self.writer.ask("sign_in")
        cookie: str = self.writer.answer()
        return cookie

    def hold(self, cookie: str, number: int) -> None:
        """Return when the reader has read the session, before the change of that number, which waits for
        :meth:`change`."""
        self.reader.ask("read")
        self.writer.ask("write", cookie=cookie, rounds=1, first=2 * number, is_disturbed=True)
        assert self.writer.answer() == "held"

    def change(self) -> None:
        """Let the writer go on."""
        self.writer.send("go")

    @property
    def is_finished(self) -> bool:
        """Whether the reader has seen the change."""
        return self.writer.has_answered

    def finish(self) -> Seen:
        """Return when the reader has seen the change."""
        self.writer.answer()
        return Seen(**self.reader.answer())

    def _rounds(self, what: str, **arguments: Any) -> Seen:
        self.reader.ask("read")
        self.writer.ask(what, **arguments)
        return self.finish()


@contextmanager
def two(folder: Path, url: str, *, one_host: bool, near: bool) -> Iterator[Two]:
    """Start them on a server with this address.

    :param one_host: they have the same journal.
    :param near: use the near cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "REDIS_URL": url,
        "DATABASE_URL": f"sqlite:///{folder / 'sessions.sqlite3'}",
        # A server that is busy or was stopped for a moment is no outage here.
        **{name.upper(): value for name, value in PATIENCE.items()},
        **near_cache.setting(on=near),
    }
    with ExitStack() as stack:
        to_writer, to_reader = os.pipe(), os.pipe()
        made = []
        for name, words in (("reader", (to_reader[0], to_writer[1])), ("writer", (to_writer[0], to_reader[1]))):
            journal = folder / ("journal" if one_host else f"journal-{name}")
            made.append(Process({**settings, "JOURNAL": str(journal)}, words))
            stack.callback(made[-1].close)
        for process in made:
            assert process.answer() == "ready"
        reader, writer = made
        yield Two(writer, reader, tracks=near)


def together(found: Iterable[Seen]) -> Seen:
    """All of it."""
    total = Seen()
    for seen in found:
        total.rounds += seen.rounds
        total.held += seen.held
        total.late += seen.late
        total.without += seen.without
        total.never += seen.never
    return total
