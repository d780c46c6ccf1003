"""Short notes that all hosts see: which of them has told an incident, and which see it still.

They are dead rows among the sessions, as the notes of sessions that were taken over are: nothing reads them but this,
and ``purge`` deletes what is left of them.
"""

from __future__ import annotations

from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .calls import Calls
from .engines import inserted
from .tables import SESSIONS, now_ms

_s = SESSIONS.c
_digest = sa.bindparam("key", type_=sa.String())
_name = sa.bindparam("name", type_=sa.String())
_holder = sa.bindparam("holder", type_=sa.Text())
_ends = now_ms() + sa.bindparam("ms", type_=sa.BigInteger())
_is_on = _s.absolute_expires_at > now_ms()

_INSERT = SESSIONS.insert().values(
    digest=_digest,
    user_id=_name,
    version=1,
    live=False,
    payload=_holder,
    user_epoch=0,
    created_at=now_ms(),
    updated_at=0,  # nothing follows from it: it is no change that Redis must be told
    idle_expires_at=now_ms(),
    absolute_expires_at=_ends,
)
_RENEW = SESSIONS.update().where(_s.digest == _digest).values(payload=_holder, absolute_expires_at=_ends)
_RENEW_OWN = _RENEW.where(sa.or_(_s.payload == _holder, sa.not_(_is_on)))
_END = SESSIONS.update().where(_s.digest == _digest, _is_on).values(absolute_expires_at=now_ms())
_HELD = sa.select(_s.digest).where(_s.digest == _digest, _is_on)
_MARKS = sa.select(_s.payload).where(_s.user_id == _name, _is_on)


class DatabaseNotes:
    """Notes in the database. All methods raise :class:`StoreError`, also when other calls than those of requests keep
    it busy; for threads beside the requests.

    :param calls: of the database.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def take(self, name: str, holder: str, seconds: float) -> bool:
        """Note a holder, unless there is another one. Return whether it holds the note from now on."""
        return self._note(_RENEW_OWN, f"@told {name}", None, holder, seconds)

    def is_held(self, name: str) -> bool:
        """Return whether a note has a holder."""
        return self._calls.read(lambda c: c.execute(_HELD, {"key": _short(f"@told {name}")}).first()) is not None

    def drop(self, name: str) -> None:
        """Forget the holder of a note."""
        self._end(f"@told {name}")

    def mark(self, name: str, holder: str, seconds: float) -> None:
        """Add a mark of a holder to a name: that host sees the incident."""
        self._note(_RENEW, f"@seen {name} {holder}", _group(name), holder, seconds)

    def unmark(self, name: str, holder: str) -> None:
        """End the mark of a holder."""
        self._end(f"@seen {name} {holder}")

    def marks(self, name: str) -> set[str]:
        """Return the holders whose marks a name has."""
        return self._calls.read(lambda c: set(c.execute(_MARKS, {"name": _group(name)}).scalars()))

    def _note(self, renew: sa.Update, note: str, group: str | None, holder: str, seconds: float) -> bool:
        values = {"key": _short(note), "name": group, "holder": holder, "ms": int(seconds * 1000)}

        def insert(connection: Connection) -> bool:
            connection.execute(_INSERT, values)
            return True

        def again(connection: Connection) -> bool:
            return bool(connection.execute(renew, values).rowcount)

        def work() -> bool:
            with self._calls.connections.writing() as connection:
                if again(connection):
                    return True
            return inserted(self._calls.connections, insert, again)  # where it is another one's, or another was first

        return self._calls.in_request(work, None)

    def _end(self, note: str) -> None:
        self._calls.write(lambda c: c.execute(_END, {"key": _short(note)}))


def _short(note: str) -> str:
    """Return the key of a note: as long as a session's digest, with a sign that no digest has."""
    return f"@{sha256(note.encode()).hexdigest()[:42]}"


def _group(name: str) -> str:
    return f"@seen {sha256(name.encode()).hexdigest()}"
