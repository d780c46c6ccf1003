"""The two processes and the ways to make them change and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask_langpont_session.config.settings import PATIENCE

from .. import near_cache
from ..workers import Process, pipe
from .worker import Seen, work


@dataclass
class Two:
    """The two processes.

    :param tracks: the reader has a near cache, so the server tracks what it reads.
    """

    writer: Process
    reader: Process
    tracks: bool

    def writes(self, rounds: int) -> Seen:
        """Make so many changes of one session, each read at once."""
        return self._rounds("write", cookie=self.sign_in(), rounds=rounds)

    def sign_outs(self, rounds: int) -> Seen:
        """Make so many ends of sessions, each read at once."""
        return self._rounds("sign_out", rounds=rounds)

    def sign_in(self) -> str:
        """Return the Cookie header of a new session."""
        self.writer.send(("sign_in", {}))
        cookie: str = self.writer.answer()
        return cookie

    def hold(self, cookie: str, number: int) -> None:
        """Return when the reader has read the session, before the change of that number, which waits for
        :meth:`change`."""
        self.reader.send(("read", {}))
        self.writer.send(("write", {"cookie": cookie, "rounds": 1, "first": 2 * number, "is_disturbed": True}))
        assert self.writer.answer() == "held"

    def change(self) -> None:
        """Let the writer go on."""
        self.writer.send("go")

    @property
    def is_finished(self) -> bool:
        """Return whether the reader has seen the change."""
        return self.writer.has_answered

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
        to_writer, to_reader = pipe(), pipe()
        made = []
        for name, words in (("reader", (to_reader[0], to_writer[1])), ("writer", (to_writer[0], to_reader[1]))):
            journal = folder / ("journal" if one_host else f"journal-{name}")
            made.append(Process(work, {**settings, "JOURNAL": str(journal)}, *words))
            stack.callback(made[-1].kill)
        for end in (*to_writer, *to_reader):
            end.close()
        for process in made:
            assert process.answer() == "ready"
        reader, writer = made
        yield Two(writer, reader, tracks=near)


def together(found: Iterable[Seen]) -> Seen:
    """Add results up."""
    total = Seen()
    for seen in found:
        total.rounds += seen.rounds
        total.held += seen.held
        total.late += seen.late
        total.without += seen.without
        total.never += seen.never
    return total
