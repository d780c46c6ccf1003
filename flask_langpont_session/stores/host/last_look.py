"""The last look at the journal's file, kept in memory until a process of this host commits something."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from .commit_counter import CommitCounter
from .file import JournalFile
from .summary import NAMING

_MOST_NAMED = 50
"""The most entries of a kind whose sessions are remembered by name."""

_OF_SESSIONS = " UNION ALL ".join(
    f"SELECT * FROM (SELECT {column} AS digest FROM {table} LIMIT {_MOST_NAMED + 1})" for table, column in NAMING
)

# In one row: the interpreter's lock is given up with each, and in a busy process other threads want it.
_LOOK = f"""SELECT EXISTS (SELECT 1 FROM outages), EXISTS (SELECT 1 FROM user_revocations),
    (SELECT count(*) || ifnull(',' || group_concat(digest), '') FROM ({_OF_SESSIONS}))"""


class Look(NamedTuple):
    """The outcome of a look at the file.

    :param counter: of commits, and `word`: what it said then; None: the file may have changed already.
    :param is_empty: whether there was nothing.
    :param named: the sessions of which there was anything; None: there are too many, or it concerns any session.
    """

    counter: CommitCounter | None
    word: bytes
    is_empty: bool
    named: frozenset[str] | None


_NOTHING = Look(None, b"", False, None)


class LastLook:
    """Looks at the file again only after a commit. May be used from any thread; errors are those of the file."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        # One value, so that no thread sees half of it: when the file was last looked at, and what was seen.
        self._seen = _NOTHING
        self._others: object = None

    def seen(self, wait: float | None) -> Look:
        """Return what there is at the moment. Costs about a microsecond if nothing was committed since."""
        if self._is_current(known := self._seen):
            return known
        with self._file.connected(wait) as db:
            # The counter is read first: a commit between the two reads makes the next call look again. Another thread
            # may have looked while this one waited for the connection.
            counter, word = self._file.counter, None
            with suppress(OSError):
                word = None if counter is None else counter.committed()
            if not self._is_current(known := self._seen):
                known = self._seen = _seen(
                    None if word is None else counter, word or b"", *db.execute(_LOOK).fetchone()
                )
        return known

    def is_silent_about(self, digest: str, wait: float | None = None) -> bool:
        """Return whether the journal has nothing of this session. While much waits, False: an overlay tells.

        Costs about a microsecond. While a few sessions have something here, the requests of all others do not wait for
        the connection.
        """
        known = self._seen
        if not self._is_current(known):
            known = self.seen(wait)
        return known.named is not None and digest not in known.named

    def was_empty(self) -> bool:
        """Return whether there was nothing at the last look."""
        return self._seen.is_empty

    def _is_current(self, known: Look) -> bool:
        """Return whether nothing was committed since a look, and the file is not opened anew. Takes no lock."""
        counter = known.counter
        try:
            return counter is not None and counter is self._file.counter and counter.word() == known.word
        except OSError:
            return False

    def changed(self) -> bool:
        """Return whether another process committed anything since the last call. True at the first call."""
        before, self._others = self._others, self._file.others_state()
        if self._others != before:
            # A program that takes the counter's file away, or writes without it (an older release during an upgrade,
            # the sqlite3 program), is noticed now, if not at once.
            self.forget()
        return self._others != before

    def forget(self) -> None:
        """Have the next call look again."""
        self._seen = _NOTHING


def _seen(counter: CommitCounter | None, word: bytes, outages: int, users: int, sessions: str) -> Look:
    """:param sessions: how many entries of sessions there are, at least, and of which sessions."""
    number, *named = sessions.split(",")
    are_named = not users and int(number) <= _MOST_NAMED
    return Look(counter, word, not (outages or users or named), frozenset(named) if are_named else None)
