"""Until when a Redis that may have less counts as having less: what a host has of a session stands until all its living
workers have given back what they have.

Another server, one that was emptied, a replica that was promoted: for a moment some worker of the host knows more than
that server. So each worker tells the others with which servers it is through, in a file that it holds as long as it
lives. Until all of them are, reads show the host's newer copies, and what is written waits in the journal.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence

from ..policy.health import PRIMARY
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.values import StoreError, shard_of
from ..stores.backend import Backend, Lack
from ..stores.host.forms import is_there
from ..stores.host.group_commit import is_busy
from ..stores.host.presence import Presence
from .calls import TIMEOUT, ask_journal
from .refill import CLOCKS_APART_US, Refill

PATIENCE = 10.0
"""Seconds for which another worker is waited for that lives and does not say that it is through."""

_KINDS = (ANONYMOUS, SIGNED_IN)

_NOT_THROUGH = ""
"""Said by a worker of a server to which it has still to give something back."""

Place = tuple[str, str]
"""A shard, and a kind of sessions."""


class GivingBack:
    """One worker's part in that.

    :param clock: monotonic seconds.
    :ivar refill: gives back what this worker has.
    :ivar presence: tells the other workers.
    """

    def __init__(self, backend: Backend, refill: Refill, clock: Callable[[], float]) -> None:
        self._backend = backend
        self.refill = refill
        self._clock = clock
        self.presence = Presence(backend.journal.file.path, backend.board.words)
        self.reset()

    def reset(self) -> None:
        """Begin with nothing, as after a fork."""
        self._lock = threading.Lock()
        self._backend.lacks.clear()
        self._overdue: set[Place] = set()
        self._said: Mapping[str, str] | None = None

    def end(self) -> None:
        """Leave the workers of the host: no other one waits for this one, and no file is held. Never raises."""
        with self._lock:
            self.presence.end()
            self._said = None

    def join(self) -> None:
        """Be one of the workers that the others of the host wait for, before this one has anything to give back."""
        self._tell({})

    def begin(self, shard: str, well_until_ms: int) -> None:
        """From now on a shard may have less than this host. Usable from any thread, and does not block.

        :param well_until_ms: by its clock, when it is known to have had everything; 0: it is not known.
        """
        if not (well_until_ms or self._may_lack(shard)):
            return
        well_us = max(0, well_until_ms * 1000 - CLOCKS_APART_US)
        for kind in _KINDS:
            before = self._backend.lacks.get((shard, kind))
            well_us = min(well_us, before.well_until_us) if before else well_us
            self._backend.lacks[shard, kind] = Lack(self._clock(), well_us)

    def _may_lack(self, shard: str) -> bool:
        """Return whether this host may know of anything that the shard lacks, though this worker has never found all
        well: not if the other workers are through with the very server that it meets."""
        locate = self._backend.health.locate
        if any(locate(copy.digest) == shard for copy in self._backend.memory.live_categories()):
            return True
        path, mark = self._backend.journal.file.path, self._mark_of(shard)
        try:
            if others := self.presence.others():
                words = map(_words, others)
                return any(not word.get(_name(shard, kind), mark).startswith(mark) for word in words for kind in _KINDS)
            # A command that only looks makes no journal.
            return (path is None or is_there(path)) and not self._backend.journal.is_empty(0.0)
        except StoreError as error:
            # Workers that start open it at this moment, and what waits in it is laid over what Redis has in any case.
            return not is_busy(error)

    def go_on(self) -> None:
        """Tell the other workers with which servers this one is through, and end what all of them are through with."""
        marks = self._marks()
        places = [(shard, kind) for shard in marks for kind in _KINDS]
        done = {_name(*place): _NOT_THROUGH if self._waits(place) else marks[place[0]] for place in places}
        is_news, lacks = self._tell(done), self._backend.lacks
        # In an empty journal no worker has announced that Redis lost anything, and nothing waits to be merged.
        if not is_news and not lacks and not self._overdue and ask_journal(self._backend.journal.is_empty, "replay"):
            return
        others = ask_journal(self.presence.others, "replay")
        words = None if others is None else list(map(_words, others))
        for place in {*lacks, *self._overdue, *places}:
            self._look_at(place, done.get(_name(*place)) or None, words)
            if words and self._is_behind(place, marks.get(place[0]), words):
                lacks[place] = Lack(self._clock(), 0)

    def _waits(self, place: Place) -> bool:
        """Return whether this worker has still to give something back that a shard may lack."""
        return (place in self._backend.lacks or place in self._overdue) and self.refill.waits_for(*place)

    def _look_at(self, place: Place, mark: str | None, words: Sequence[Mapping[str, str]] | None) -> None:
        """End it if all workers of the host are through with the server that this one knows, and after a time also if
        only this one is.

        :param mark: names the server, if this worker is through with it.
        :param words: of the other workers; None: they cannot be read.
        """
        lacks, name = self._backend.lacks, _name(*place)
        is_known = place[0] in self._backend.health.shards
        if not is_known or (mark and words is not None and all(word.get(name) == mark for word in words)):
            lacks.pop(place, None)
            self._overdue.discard(place)
        elif place in lacks and mark and self._clock() >= lacks[place].since + PATIENCE:
            del lacks[place]
            self._overdue.add(place)

    def _is_behind(self, place: Place, mark: str | None, words: Sequence[Mapping[str, str]]) -> bool:
        """Return whether another worker knows of a loss that this one does not know of. One that has said nothing of a
        server has not looked at it yet.

        :param mark: names the server that this worker knows.
        """
        is_noted = place in self._backend.lacks or place in self._overdue
        return bool(mark) and not is_noted and any(word.get(_name(*place), mark) != mark for word in words)

    def holds(self, shards: frozenset[str], database: bool) -> bool:
        """Return whether changes of sessions have to wait, because something is to be given back before them.

        :param shards: those that answer; `database`: it answers, without which those of users wait in any case.
        """
        self.go_on()
        return any(shard in shards and (database or kind == ANONYMOUS) for shard, kind in list(self._backend.lacks))

    def holds_now(self, shards: frozenset[str], database: bool) -> bool:
        """The same of what was read from the journal just now, after a look whether a shard lost data: a worker must
        not merge what another one has kept because it had noticed that.

        :raises StoreError: one does not answer.
        """
        for shard in shards:
            self._backend.look_for_loss(PRIMARY + shard, TIMEOUT)
        return self.holds(shards, database)

    @property
    def is_overdue(self) -> bool:
        """Return whether a worker was waited for in vain that may still have something to give back."""
        return bool(self._overdue)

    def _marks(self) -> Mapping[str, str]:
        """Shard → which server it is, and since which loss, of those at which this worker has looked."""
        shards = map(shard_of, self._backend.primary.endpoints)
        return {shard: mark for shard in shards if not (mark := self._mark_of(shard)).endswith(" ")}

    def _mark_of(self, shard: str) -> str:
        """The same of one; it ends with a space if this worker has not looked yet since which loss."""
        known = self._backend.primary.endpoints[PRIMARY + shard].server_identity
        return f"{known.identity} {known.canary.canary_id if known.canary else ''}"

    def _tell(self, done: Mapping[str, str]) -> bool:
        """Tell the other workers what this one is through with, if that is news, and return whether it was told."""
        with self._lock:
            is_news = done != self._said
            is_told = bool(is_news and ask_journal(lambda: self.presence.say(json.dumps(done)), "replay"))
            if is_told:
                self._said = done
            return is_told


def _name(shard: str, kind: str) -> str:
    return f"{shard} {kind}"


def _words(word: str) -> Mapping[str, str]:
    """Return what a worker has said; nothing yet, if it is saying it at this moment."""
    try:
        said = json.loads(word)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
