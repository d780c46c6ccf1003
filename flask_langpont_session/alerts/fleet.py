"""The incidents as the hosts of an application know them together: an outage that all of them see is told once, and
called off when none of them sees it any more.

That is noted in the database and in Redis, in each that answers: of an outage of one the other one knows. Notes end by
themselves, so that a host that is gone holds nothing up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..policy.errors import StoreError
from ..support.logs import fields

if TYPE_CHECKING:
    from ..metrics.session_index import Redis

log = logging.getLogger(__name__)

CLAIM = 60.0
"""Seconds for which a host has claimed to tell an incident, unless it says that it has told it."""

HELD = 14_400.0
"""Seconds for which the others know that a host has told an incident, unless one that sees it says so again."""

MARK = 60.0
"""Seconds after which a host that does not say so any more does not see an incident any more."""

MUTE = "mute"
"""Name of the note that no message is to be sent."""

_TIMEOUT = 0.5
_FORGOTTEN_MS = 2 * 86_400_000
"""Marks of which none was made for so long go away together."""


class Notes(Protocol):
    """Short notes that all hosts see, in one store. All methods may raise :class:`StoreError`."""

    def take(self, name: str, holder: str, seconds: float) -> bool:
        """Note a holder, unless there is another one. Return whether the holder is this one from now on."""

    def is_held(self, name: str) -> bool:
        """Return whether there is a holder."""

    def drop(self, name: str) -> None:
        """Forget the holder."""

    def mark(self, name: str, holder: str, seconds: float) -> None:
        """Add a holder to those that see the incident."""

    def unmark(self, name: str, holder: str) -> None:
        """Remove a holder from those that see the incident."""

    def marks(self, name: str) -> set[str]:
        """Return the holders that see the incident."""


class Store(NamedTuple):
    """A store with the hosts' notes.

    :param is_up: whether requests use it at the moment.
    """

    notes: Notes
    is_up: Callable[[], bool]


class Say(Enum):
    """The decision about a message."""

    TELL = auto()
    """This host tells it."""
    WAIT = auto()
    """Another host has told it, or sees the condition still."""
    DROP = auto()
    """Another host has called it off."""
    UNKNOWN = auto()
    """No store answers."""


class Fleet:
    """Decides with the hosts' notes which host tells an incident. All names are those by which receivers know an
    incident.

    :param stores: in the same order on all hosts: of two that ask at a time, one is the first in all of them.
    """

    def __init__(self, stores: Sequence[Store] = ()) -> None:
        self._stores = stores

    def on_firing(self, name: str, host: str) -> Say:
        """Decide whether this host is to tell an incident."""

        def claim(notes: Notes) -> bool:
            notes.mark(name, host, MARK)
            return notes.take(name, host, CLAIM)

        answered = False
        for is_granted in self._ask(claim):
            if not is_granted:
                return Say.WAIT
            answered = True
        return Say.TELL if answered else Say.UNKNOWN

    def go_on(self, name: str, host: str, held: float) -> None:
        """Note that this host sees an incident, and for how long no other one needs to tell it: not at all (0), if it
        has not said that it would; :data:`CLAIM` seconds, if it tries to; :data:`HELD`, if it was told."""

        def note(notes: Notes) -> None:
            notes.mark(name, host, MARK)
            if held:
                notes.take(name, host, held)

        for _ in self._ask(note):
            pass

    def on_resolved(self, name: str, host: str) -> Say:
        """Decide whether this host, which sees an incident no longer, is to call it off."""

        def others(notes: Notes) -> set[str]:
            notes.unmark(name, host)
            return notes.marks(name)

        found = list(self._ask(others))
        if not found:
            return Say.UNKNOWN
        if any(found):
            return Say.WAIT
        if not (held := list(self._ask(lambda notes: notes.is_held(name)))):
            return Say.UNKNOWN
        if not any(held):
            return Say.DROP
        if not (granted := list(self._ask(lambda notes: notes.take(_end_of(name), host, CLAIM)))):
            return Say.UNKNOWN
        return Say.TELL if all(granted) else Say.WAIT

    def called_off(self, name: str) -> None:
        """Note that this host has called an incident off: no other one needs to."""

        def forget(notes: Notes) -> None:
            notes.drop(name)
            notes.drop(_end_of(name))

        for _ in self._ask(forget):
            pass

    def is_muted(self) -> bool:
        """Return whether operators want no messages now."""
        return any(self._ask(lambda notes: bool(notes.marks(MUTE))))

    def mute(self, seconds: float) -> int:
        """Have no messages sent for so many seconds; 0: have them sent. Return how many stores have noted it."""

        def note(notes: Notes) -> None:
            notes.mark(MUTE, MUTE, seconds) if seconds else notes.unmark(MUTE, MUTE)

        return len(list(self._ask(note)))

    def _ask(self, question: Callable[[Notes], Any]) -> Iterable[Any]:
        """Yield the answers of the stores that give any."""
        for store in self._stores:
            if not store.is_up():
                continue
            try:
                answer = question(store.notes)
            except StoreError as error:
                log.debug(
                    "a store does not say what other hosts know of alerts: %s",
                    error,
                    extra=fields("alert_notes_unread", **error.log_data),
                )
                continue
            yield answer


def _end_of(name: str) -> str:
    """Return the name of the note that the host which calls an incident off holds."""
    return f"{name} is over"


class RedisNotes:
    """Notes in Redis: a key for each holder, a hash for marks. Only commands that requests need, too.

    :param clock: seconds since 1970; of hosts whose clocks differ, marks end sooner or later by that.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock

    def _key(self, name: str, what: str) -> str:
        return f"{self._redis.prefix}:alerts:{{{sha256(name.encode()).hexdigest()[:32]}}}:{what}"

    def _run(self, *commands: tuple[Any, ...]) -> list[Any]:
        return self._redis.run_commands(commands, timeout=_TIMEOUT)

    def take(self, name: str, holder: str, seconds: float) -> bool:
        """See :class:`Notes`."""
        key, ms = self._key(name, "told"), int(seconds * 1000)
        is_new, there = self._run(("SET", key, holder, "NX", "PX", ms), ("GET", key))
        if is_new:
            return True
        if there is None or bytes(there) != holder.encode():
            return False
        self._run(("PEXPIRE", key, ms))
        return True

    def is_held(self, name: str) -> bool:
        """See :class:`Notes`."""
        return self._run(("GET", self._key(name, "told"))) != [None]

    def drop(self, name: str) -> None:
        """See :class:`Notes`."""
        self._run(("DEL", self._key(name, "told")))

    def mark(self, name: str, holder: str, seconds: float) -> None:
        """See :class:`Notes`."""
        key, ends = self._key(name, "seen"), self._clock() + seconds
        self._run(("HSET", key, holder, str(ends)), ("PEXPIRE", key, _FORGOTTEN_MS))

    def unmark(self, name: str, holder: str) -> None:
        """See :class:`Notes`."""
        self._run(("HDEL", self._key(name, "seen"), holder))

    def marks(self, name: str) -> set[str]:
        """See :class:`Notes`."""
        [found] = self._run(("HGETALL", self._key(name, "seen")))
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        now = self._clock()
        return {bytes(holder).decode() for holder, ends in pairs if _number(ends) > now}


def _number(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
