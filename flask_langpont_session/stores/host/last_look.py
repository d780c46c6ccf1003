"""The last look at the journal's file, kept in memory until a process of this host commits something."""

from __future__ import annotations

from typing import NamedTuple

from .commit_counter import CommitCounter
from .file import JournalFile

_MOST_NAMED = 50
"""Of how many entries of a kind it is remembered which sessions they are of."""

_OF_SESSIONS = " UNION ALL ".join(
    f"SELECT * FROM (SELECT {column} AS digest FROM {table} LIMIT {_MOST_NAMED + 1})"
    for table, column in (
        ("writes", "digest"), ("revocations", "digest"), ("pushes", "digest"), ("copies", "digest"),
        ("carries", "digest"), ("carries", "origin"),
    )
)  # fmt: skip

# In one row: the interpreter's lock is given up with each, and in a busy process other threads want it.
_LOOK = f"""SELECT EXISTS (SELECT 1 FROM outages), EXISTS (SELECT 1 FROM user_revocations),
    (SELECT count(*) || ifnull(',' || group_concat(digest), '') FROM ({_OF_SESSIONS}))"""


class Seen(NamedTuple):
    """The outcome of a look at the file.

    :param state: of the file then; None: it may have changed already.
    :param is_empty: whether there was nothing.
    :param named: the sessions of which there was anything; None: there are too many, or it concerns any session.
    """

    state: tuple[CommitCounter, bytes] | None
    is_empty: bool
    named: frozenset[str] | None


_NOTHING = Seen(None, False, None)


class LastLook:
    """Looks at the file again only after a commit. May be used from any thread; errors are those of the file."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        # One value, so that no thread sees half of it: when the file was last looked at, and what was seen.
        self._seen = _NOTHING
        self._others: object = None

    def seen(self, wait: float | None) -> Seen:
        """Return what there is at the moment. Costs about a microsecond if nothing was committed since."""
        state, known = self._file.state(), self._seen
        if state is not None and state == known.state:
            return known
        with self._file.connected(wait) as db:
            # The state is read first: a commit between the two reads makes the next call look again. Another thread may
            # have looked while this one waited for the connection.
            state, known = self._file.state(), self._seen
            if state is None or state != known.state:
                known = self._seen = _seen(state, *db.execute(_LOOK).fetchone())
                self._file.sides.something_waits = not known.is_empty
        return known

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


def _seen(state: tuple[CommitCounter, bytes] | None, outages: int, users: int, sessions: str) -> Seen:
    """:param sessions: how many entries of sessions there are, at least, and of which sessions."""
    number, *named = sessions.split(",")
    is_empty = not (outages or users or named)
    return Seen(state, is_empty, None if users or int(number) > _MOST_NAMED else frozenset(named))
