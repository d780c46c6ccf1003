"""Redis or Valkey: one hash per category, all of one session in one cluster slot, every change one script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

from ...policy.categories import AUTH
from ...policy.changes import CategoryChange
from ...policy.copies import NO_RECORDS, CategoryCopy, RecordRef
from ...policy.errors import ErrorClass, StoreError
from ...policy.ids import ANONYMOUS, SIGNED_IN
from ...policy.leases import TOMBSTONE_MS
from ...policy.rows import AuthRow
from ..codec.plain import PLAIN, Codec
from ..memory.memory import Memory
from . import records
from .commands import CLOCK, WRITE, Command, Commands, Guarded, plain
from .endpoint import Endpoint
from .lane import ChangeIds
from .link import is_refusal
from .near import Reading
from .records import Answer, Crossed, Limits, Merge, Merged, Restore, Written, answer, merged, written
from .server_identity import Server


class RedisStore:
    """The sessions in one server.

    :param endpoint: the server.
    :param tombstone_ms: the life of a tombstone.
    :param memory: of this worker: what it has read before need not be sent again.
    :param change_ids: where it is noted for the other workers of this host which sessions were changed.
    :param codec: of the values.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tombstone_ms: int = TOMBSTONE_MS,
        memory: Memory | None = None,
        change_ids: ChangeIds | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        self.endpoint = endpoint
        self.link = endpoint.link
        self.name = endpoint.name
        self.prefix = endpoint.prefix
        self.server_identity = endpoint.server_identity
        self.near = endpoint.near
        self.commands = Commands(self.prefix, tombstone_ms, codec)
        self._codec = codec
        self.key = self.commands.key
        self.memory = memory or Memory()
        self._change_ids = change_ids

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Return the servers with a health of their own, by name: here there is one."""
        return {self.name: self.endpoint}

    def find_shards(self, timeout: float) -> None:
        """Do nothing: a single server has no shards to be found."""

    homeless = 0
    """Slots of a cluster that no shard has."""

    def announcing(self, command: bytes) -> RedisStore:
        """Return the same store, where a command stands before each other one. It keeps nothing near."""
        store = copy(self)
        store.link, store.near = self.link.announcing(command), None
        return store

    def read(self, ref: RecordRef, lives_ms: Mapping[str, int], *, timeout: float, anew: bool = False) -> Answer:
        """Load categories in one round trip.

        :param ref: with the kind ``u`` the auth hash is a record of a signed-in session, else plain fields.
        :param lives_ms: category → the life to extend it to when a quarter has passed (0: leave it).
        :param timeout: seconds to wait for the reply.
        :param anew: have all of it sent, also what this worker has read before.
        :raises StoreError: the server did not answer.
        """
        names = tuple(lives_ms)
        entry = None if anew or ref.shadow else self.memory.opened(ref.digest)
        known = NO_RECORDS if entry is None else entry.records
        answers: list[Answer] = []
        command = self.commands.read(ref, lives_ms, known)
        asked_at = self.server_identity.clock()
        near = self.near
        reading: Reading | None = None

        def understand(replies: Sequence[Any], server: Server) -> bool:
            try:
                found = answer(ref.digest, names, ref.kind, replies[0], known, self._codec)
            except Crossed:
                raise StoreError(self.name, ErrorClass.DATA, "CrossedReply") from None
            self.server_identity.note_clock(server, found.now_ms, asked_at)
            trusted = self.server_identity.trust_since(server)
            answers.append(found._replace(is_primary=server.is_primary, trust_since_ms=trusted))
            if near and reading:
                near.keep(reading, answers[-1], server)
            return not found.foreign

        reading = near.reading(ref, lives_ms) if near else None
        try:
            self.link.run([command], timeout, understand, source=reading)
        finally:
            if reading:
                reading.end()
        if answers[-1].is_primary:
            self.memory.note(ref, answers[-1].records)
        return answers[-1]

    def home_of(self, digest: str) -> RedisStore | None:
        """Return the store that has a session, and may have it for as long as is known; None: there is none."""
        return self

    def write(
        self,
        ref: RecordRef,
        changes: Mapping[str, CategoryChange],
        *,
        guard: str,
        limits: Limits,
        timeout: float,
        write_id: str,
        push: tuple[AuthRow, int] | None = None,
        push_life_ms: int = 0,
        push_exact: bool = False,
    ) -> Written:
        """Write changed fields, and before them the auth record if there is one to push: one round trip.

        What arrives at the server after `timeout` does nothing, as far as its clock is known here.

        :param guard: ``free``, ``alive`` or ``new``, see ``record.lua``.
        :param write_id: see :func:`.new_write_id`.
        :param push: the row the database confirmed, and the stamp (Redis clock, ms) of that confirmation.
        :param push_exact: the row's idle expiry counts even if an earlier one was later.
        :raises StoreError: the server did not answer (outcome unknown) or refused to write.
        """
        before = [self.commands.push(*push, push_life_ms, exact=push_exact)] if push else []
        if not changes:
            [reply] = self._change((ref.digest,), lambda deadline_ms: before, timeout)
            return Written("dead" if reply in records.TOMBSTONES else "written")

        def commands(deadline_ms: int) -> list[Command]:
            return [*before, self.commands.write(ref, changes, guard, Guarded(limits, deadline_ms, write_id))]

        replies = self._change((ref.digest,), commands, timeout)
        if push and replies[0] in records.TOMBSTONES:
            return Written("dead")
        done = written(replies[-1], tuple(changes))
        assert done is not None  # it fits
        return done

    def write_near(
        self,
        digest: str,
        changes: Mapping[str, CategoryChange],
        guard: str,
        limits: Limits,
        until: float,
        write_id: str,
    ) -> Written | None:
        """Write as :meth:`write` does, over the connection by which the session is kept near, so that it stays there.

        The server tells a connection nothing of what it has changed itself, and forgets that it had read the key. So
        the write ends with a read of it, see ``guard.lua``: no other write comes between, and the next one is told.

        :param until: monotonic seconds.
        :return: None: nothing was written, or that connection is in use.
        :raises StoreError: what became of it is not known.
        """
        if (near := self.near) is None or (lane := near.lane_of(digest)) is None:
            return None
        if (connection := lane.take()) is None:
            return None
        done, give_back, is_kept, entry = None, lane.close, False, self.memory.entry(digest)
        try:
            said = Guarded(limits, self.server_identity.estimated_ms(until), write_id, bool(entry and entry.near))
            packed = WRITE.packed(*self.commands.writes(digest, changes, guard, said))
            done = self.link.over(connection, packed, changes, until)
            give_back = lane.give_back
        finally:
            try:  # whatever came of it
                copies = lane.copies(entry)
                change_id = near.change_ids.change(digest, copies[0].change_id if copies else None)
                if done is not None and change_id is not None:
                    is_kept = self.memory.rewrite(digest, entry, copies, changes, done, change_id)
            finally:  # also when a signal handler or a greenlet's end raises here
                if not is_kept:
                    lane.drop(digest)
                give_back(connection)
        return done

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        """Put a row into its auth hash by compare-and-set. Return the answer of ``push.lua``."""
        command = self.commands.push(row, stamp_ms, life_ms)
        [reply] = self._change((row.digest,), lambda deadline_ms: [command], timeout)
        return str(reply, "ascii")

    def push_many(
        self, what: Sequence[tuple[AuthRow | str, int]], categories: Sequence[str], *, stamp_ms: int, timeout: float
    ) -> Sequence[Any]:
        """Push rows and write tombstones of dead sessions, all in one round trip. Return the answers.

        :param what: a row and its life in milliseconds, or a digest and the version of the dead row.
        :param categories: in whose place a tombstone is.
        :param stamp_ms: the Redis clock before the database was asked for the rows.
        """
        commands = [
            self.commands.tombstone(of, number, categories)
            if isinstance(of, str)
            else self.commands.push(of, stamp_ms, number)
            for of, number in what
        ]
        digests = [of if isinstance(of, str) else of.digest for of, _ in what]
        return self._change(digests, lambda deadline_ms: commands, timeout)

    def extend_idle(self, digest: str, idle_ms: int, *, timeout: float) -> int:
        """Move the idle expiry of a live auth record to `idle_ms` from now, never past its absolute expiry.

        :return: the expiry, ms since 1970; 0: there is none to be moved.
        """
        command = self.commands.extend_idle(digest, idle_ms)
        [moved] = self._change((digest,), lambda deadline_ms: [command], timeout)
        return int(moved)

    def merge_all(
        self, merges: Sequence[Merge | Restore], *, limits: Limits, timeout: float, write_id: str
    ) -> list[Merged | StoreError]:
        """Bring what a host kept into its categories, all in one round trip. What arrives at the server after
        `timeout` does nothing, as far as its clock is known here.

        :param write_id: see :func:`.new_write_id`.
        :return: what became of each; of one that the server refused, why. Additions among what was refused were not
            made.
        :raises StoreError: the server did not answer: what became of any is unknown.
        """

        def commands(deadline_ms: int) -> list[Command]:
            said = Guarded(limits, deadline_ms, write_id)
            return [self.commands.merge(merge, said) for merge in merges]

        digests = [merge.digest for merge in merges]
        replies = self._change(digests, commands, timeout, refusals=True)
        return [self.link.translated(each, sent=False) if is_refusal(each) else merged(each) for each in replies]

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        """Return categories as they are, all in one round trip. A category that is not there is empty as of now.

        :param wanted: digest and category of each.
        """
        replies = self.link.run(
            [self.commands.read(RecordRef(digest, ANONYMOUS), {name: 0}) for digest, name in wanted], timeout
        )
        pairs = zip(wanted, replies, strict=True)
        return [records.copy_of(digest, name, reply, self._codec) for (digest, name), reply in pairs]

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]:
        """Return the auth records of signed-in sessions, all in one round trip; no life is extended."""
        replies = self.link.run(
            [self.commands.read(RecordRef(digest, SIGNED_IN), {AUTH: 0}) for digest in digests], timeout
        )
        found = zip(digests, replies, strict=True)
        return [answer(digest, (AUTH,), SIGNED_IN, reply, codec=self._codec) for digest, reply in found]

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        """Return the clock of the server that has a session, see :meth:`ServerIdentity.estimated_ms`."""
        return self.server_identity.estimated_ms(at, latest=latest)

    def quarantine(self, ref: RecordRef, category: str, *, timeout: float, only_foreign: bool = False) -> None:
        """Move a damaged record out of the way.

        :param only_foreign: only if the record itself names another session, not just the reply that was read.
        """
        command = self.commands.quarantine(ref, category, only_foreign=only_foreign)
        self._change((ref.digest,), lambda deadline_ms: [command], timeout)

    def _change(
        self,
        digests: Sequence[str],
        commands: Callable[[int], list[Command]],
        timeout: float,
        *,
        refusals: bool = False,
    ) -> list[Any]:
        """Change sessions, and note for the other workers of this host that they were changed, whatever came of it.

        A server answers the clients that get something from it at a time in any order. With a question in front, whose
        answer is sent first, those that keep a session are told of the change before its writer has its answer, nearly
        always: of 3,000 there were 103 that were not, and none then.
        """
        change_ids = self._change_ids
        if not digests:
            return []
        if change_ids is None:
            return self.link.run_in_time(commands, timeout, refusals=refusals)

        def all_commands(deadline_ms: int) -> list[Command]:
            return [CLOCK, *commands(deadline_ms)]

        try:
            return self.link.run_in_time(all_commands, timeout, refusals=refusals)[1:]
        finally:
            for digest in digests:
                change_ids.change(digest)

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        """Run plain commands, all on keys of one cluster slot, in one round trip; for what no session depends on."""
        return self.link.run([plain(*command, fits=_is_no_error) for command in commands], timeout)

    def forget_connections(self) -> None:
        """See :meth:`.Link.forget_connections`."""
        self.link.forget_connections()


def _is_no_error(reply: Any) -> bool:
    return not is_refusal(reply)
