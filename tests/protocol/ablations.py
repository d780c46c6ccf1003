"""The load-bearing parts of the protocol, each with what it is without that part: one function is replaced.

Of a script a part of its text is replaced.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from flask_langpont_session import events
from flask_langpont_session.policy import belief, copies, errors, leases, users
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.ids import ANONYMOUS
from flask_langpont_session.policy.loaded import Loaded, Verdict
from flask_langpont_session.policy.plans import Plan, Saved
from flask_langpont_session.policy.rows import AuthEntry, AuthRow, EndedSession, RowState
from flask_langpont_session.recovery import giving_back, merges, recovery, rows, steps
from flask_langpont_session.recovery import revocations as missed
from flask_langpont_session.request import (
    fallback,
    former,
    journal_writer,
    line,
    reads,
    repository,
    revocations,
    scope,
    verifier,
    writes,
)
from flask_langpont_session.stores import backend
from flask_langpont_session.stores.host import entries, host_clock, journal, presence, register
from flask_langpont_session.stores.host.revocation_queue import RevocationQueue
from flask_langpont_session.stores.memory import ended, memory
from flask_langpont_session.stores.redis import lane, near, records, server_identity

from . import sim_commands, sim_database


@dataclass(frozen=True)
class Ablation:
    """One part taken away.

    :param name: as in docs/guarantees.md where it has a mark there.
    :param owner: the module or class that has the function.
    :param function: its name.
    :param without: what stands there instead.
    """

    name: str
    owner: Any
    function: str
    without: Any


def _script(name: str, *edits: tuple[str, str]) -> Ablation:
    """Return the ablation of a part of a script.

    :param edits: a text that stands there, and what stands in its place.
    """
    return Ablation(name, sim_commands, "EDITS", tuple((old.encode(), new.encode()) for old, new in edits))


def _nothing(*arguments: Any, **options: Any) -> None:
    return None


def _lease_for_ever(copy: belief.Sighting, life: leases.Life, terms: leases.LeaseTerms) -> bool:
    is_in_time = copy.now_ms < min(copy.row.idle_expires_at, copy.row.absolute_expires_at)
    return copy.is_current and copy.is_unbroken and is_in_time and not life.is_extension_due(copy.row, copy.now_ms)


def _never_another_server(
    self: server_identity.ServerIdentity, identity: str | None, *, now_ms: int, is_primary: bool
) -> server_identity.Server:
    self.server = server_identity.Server(identity, is_primary)
    return self.server


def _trusts_every_connection(self: server_identity.ServerIdentity, server: server_identity.Server) -> int:
    return self.trust_since_ms


def _stamps_after_the_read(
    self: verifier.Verifier, row: AuthRow, scope: Any, life: leases.Life, stamp_ms: int
) -> str | None:
    primary: Any = self._primary
    after = primary.endpoint.time_ms(timeout=0.2)
    return _push(self, row, scope, life, after)


_push = verifier.Verifier._push


def _update_whatever_the_version(self: sim_database.SimDatabase, digest: str, *, seen: int, **rest: Any) -> Any:
    row = self.tables.rows.get(digest)
    return _update(self, digest, seen=row.version if row else seen, **rest)


_update = sim_database.SimDatabase.update


def _regenerate_whatever_the_version(self: sim_database.SimDatabase, digest: str, *, seen: int, **rest: Any) -> Any:
    row = self.tables.rows.get(digest)
    return _regenerate(self, digest, seen=row.version if row else seen, **rest)


_regenerate = sim_database.SimDatabase.regenerate


def _revoked_once(
    self: RevocationQueue, digest: str, *, in_database: bool = False, in_redis: bool = False, **waits: Any
) -> None:
    if self.is_revoked(digest):
        self.mark_done(digest, in_database=in_database, in_redis=in_redis)
    else:
        _note(self, digest, in_database=in_database, in_redis=in_redis)


_note = RevocationQueue.note


def _known_by_any_word(self: RevocationQueue, digest: str, *, in_database: bool = False, **more: Any) -> None:
    _note(self, digest, in_database=in_database, **more)
    self.mark_done(digest, in_database=in_database)


def _forgets_the_dead(self: memory.Memory, digest: str) -> None:
    self.forget(digest)


def _no_overlay(self: journal_writer.JournalWriter, ref: RecordRef, scope: Any = None) -> Any:
    return entries.NOTHING


def _redis_knows_no_use(answer: records.Answer) -> int | None:
    return 0 if answer.by_primary else None


def _silence_is_an_answer(answer: records.Answer) -> int:
    row = answer.auth.row if answer.auth else None
    return row.idle_expires_at if row else 0


def _replays_nothing(self: recovery.Recovery, steps: Any, *arguments: Any) -> recovery.Progress:
    return recovery.Progress() if steps is self.steps.journal else _run(self, steps, *arguments)


_run = recovery.Recovery.run


def _fails_together(self: recovery.Recovery, step: Any, entries: Any, reach: Any, error: Exception, left: Any) -> Any:
    raise error


def _shares_first(backend: Any, forget: Any, copies: Any) -> None:
    backend.board.publish_copies(copies)
    forget(())


def _sends_nothing(*arguments: Any) -> bool:
    return False


def _keeps_nothing(*arguments: Any) -> Any:
    return [], set()


_refresh = merges.MergedCopies.refresh


def _takes_less(self: merges.MergedCopies, merged: Any) -> Any:
    return _refresh(self, {place: (kind, 0) for place, (kind, _) in merged.items()})


_wiped_at = entries._wiped_at


def _wiped_long_ago(*place: Any) -> int | None:
    return None if _wiped_at(*place) is None else 0


_kept = merges.Carries._kept


def _wipes_at_once(self: merges.Carries, done: Any, versions: Any) -> Any:
    kept = _kept(self, done, versions)
    for entry in done:
        at = entry.left_us
        wipe = records.MergeStep(Operation.WIPE, entries.WIPED_FIELD, b"", records.TIME, at, acknowledged=at)
        names = entry.categories
        self._merge_all(
            [merges.merge_of(self._backend, entry.origin, name, ANONYMOUS, [wipe], "free") for name in names]
        )
    return kept


def _whether_or_not_it_is_read(self: merges.MergedCopies, merged: Any) -> Any:
    try:
        return _refresh(self, merged)
    except errors.StoreError:
        return _keeps_nothing()


_note_merged = journal.Journal.note_merged


def _what_could_not_be_read(self: journal.Journal, versions: Any) -> None:
    if sys.exc_info()[0]:
        _note_merged(self, versions)


def _unless_it_has_one(self: giving_back.Refill, copy: Any) -> bool:
    is_due = bool(copy.kind) and self._backend.health.locate(copy.digest) in self._begun
    return is_due and self._backend.memory.category(copy.digest, copy.category) is None


def _by_the_clock_alone(self: Any, digest: str, names: Any, now_us: int) -> int:
    return now_us


def _ends_the_idle(self: rows.Resync, ms_ago: int, shards: Any) -> bool:
    backend = self._backend
    for row in backend.database.changed_since(ms_ago + leases.INCIDENT_MARGIN_MS).rows:
        if row.state is not RowState.VALID:
            backend.primary.push_many(
                [(row.digest, row.version)], tuple(backend.table.categories), stamp_ms=0, timeout=2.0
            )
    return _push_changes(self, ms_ago, shards)


_push_changes = rows.Resync.push_changes


def _new_workers_trust(self: server_identity.ServerIdentity, identity: str | None, known: Any, now_ms: int) -> bool:
    _takes_over(self, identity, known, now_ms)
    return True


_takes_over = server_identity.ServerIdentity._takes_over


def _raises_the_epoch(
    self: sim_database.SimDatabase, user_id: str, until_ms: int, timeout: Any = None, *, epoch: int = 0, **part: Any
) -> list[str]:
    epoch = epoch or self.kill_user(user_id, timeout)
    return _kill_user_until(self, user_id, until_ms, timeout, epoch=epoch, **part)


def _only_the_living(self: sim_database.SimDatabase, user_id: str, *arguments: Any, **part: Any) -> list[str]:
    living = [digest for digest in self.tables.of_user(user_id) if self.tables.rows[digest].live]
    return [digest for digest in _kill_user_until(self, user_id, *arguments, **part) if digest in living]


_kill_user_until = sim_database.SimDatabase.kill_user_until


def _only_smaller_numbers(self: server_identity.ServerIdentity, canary: server_identity.Canary) -> bool:
    known = self.canary
    if known is not None and known.canary_id != canary.canary_id and canary.number > 1:
        self.canary = canary  # another worker's new canary
        return False
    return _saw(self, canary)


_saw = server_identity.ServerIdentity.saw


def _ignores_the_canary(self: server_identity.ServerIdentity, canary: server_identity.Canary) -> bool:
    return False


def _no_min_version(self: ended.Ended, digest: str) -> int:
    return 0


def _ends_when_it_must(row: AuthRow, confirmed_ms: int, life: leases.Life, terms: leases.LeaseTerms) -> int:
    ends = min(confirmed_ms + terms.verify_ms + 1, row.idle_expires_at, row.absolute_expires_at)
    return ends if terms.verify_ms > 0 else 0


def _any_server_is_primary(self: records.Answer) -> bool:
    return self.source != "none"


def _unverifiable_is_dead(verdict: Verdict, now_ms: int, row: AuthRow | None = None, source: str = "none") -> Loaded:
    return _verified(Verdict.DEAD if verdict is Verdict.UNVERIFIABLE else verdict, now_ms, row, source)


_verified = Loaded.verified


def _fresh_is_not(self: verifier.Verifier, digest: str, scope: Any, life: Any, reply: Any, **more: Any) -> Any:
    return _verify(self, digest, scope, life, reply)


_verify = verifier.Verifier.verify


def _silence_is_a_yes(self: revocations.Revocations, *arguments: Any, **by: Any) -> list[EndedSession]:
    return _revoke_in_database(self, *arguments, **by) or []


_revoke_in_database = revocations.Revocations._revoke_in_database


def _rights_may_wait(self: repository.SessionRepository, *arguments: Any, **options: Any) -> None:
    def save(plan: Plan, scope: Any) -> Saved:
        plan.grants = False
        return strictly(plan, scope)

    _repository(self, *arguments, **options)
    strictly, self.saves.save = self.saves.save, save  # type: ignore[method-assign]
    self.reads._ordinary = dict  # type: ignore[assignment]  # what lies over a read is filtered, too: both are off


_repository = repository.SessionRepository.__init__


def _says_what_it_said_before(
    self: sim_database.SimDatabase,
    digest: str,
    *,
    life: leases.Life | None = None,
    idle_seen: int | None = None,
    timeout: float | None = None,
) -> AuthRow | None:
    said: dict[str, AuthRow | None] = self.__dict__.setdefault("said", {})
    if life is not None and life.is_use and digest in said:
        return said[digest]

    def effect() -> AuthRow | None:
        said[digest] = self._load(digest, life, idle_seen)
        return said[digest]

    return self._ask(timeout, effect)


def _whosever_it_is(found: Any, digest: str, now_ms: int, codec: Any) -> copies.CategoryCopy:
    ours = dict(zip(found[::2], found[1::2], strict=True))
    if b"@m" in ours:
        ours[b"@m"] = digest[:11].encode() + ours[b"@m"][11:]
    return _auth([part for field in ours.items() for part in field], digest, now_ms, codec)


_auth = records._auth


def _waits_for_nothing(self: scope.RequestScope, error: Any, direction: str, operation: str, took: float) -> None:
    _failed(self, error, direction, operation, 0.0)


_failed = scope.RequestScope._failed


def _waits_if_it_is_read(self: journal_writer.JournalWriter, ref: RecordRef, names: Any, scope: Any = None) -> bool:
    overlay = self.overlay(ref, scope)
    return any(map(overlay.has_writes, names))


def _by_this_releases_table(backend: Any, digest: str, category: str, kind: str, *arguments: Any) -> Any:
    return _merge_of(backend, digest, backend.table.categories[category].name, kind, *arguments)


_merge_of = merges.merge_of


def _builds_on_what_was_shown(
    self: memory.Memory, digest: str, category: str, change: Any, version: Any, *, found: Any = None, **more: Any
) -> None:
    found = found and found._replace(version=version.before)
    _write(self, digest, category, change, version, found=found, **more)


_write = memory.Memory.write


def _kept_as_is_found_out(self: journal_writer.JournalWriter, plan: Plan, *arguments: Any, **options: Any) -> bool:
    return _journal_keep(self, replace(plan, level=options["scope"].level), *arguments, **options)


_journal_keep = journal_writer.JournalWriter.keep


def _looked_up_late(self: near.NearCache, reading: near.Reading, answer: records.Answer, server: Any) -> None:
    change_id = self.change_ids.of(reading.ref.digest)
    assert change_id is not None
    reading.change_id = change_id
    _keep(self, reading, answer, server)


def _never_touches(self: near.NearCache, reading: near.Reading, answer: records.Answer, server: Any) -> None:
    _keep(self, reading, answer._replace(due_ms=-1), server)


_keep = near.NearCache.keep


def _sends_again(self: writes.CategoryWrites, plan: Plan, *arguments: Any) -> bool:
    plan.sent = None
    return _save_categories(self, plan, *arguments)


_save_categories = writes.CategoryWrites.save


def _copies_stay(self: lane.Lane) -> None:
    self._named = None
    self.asked_at = float("-inf")


def _any_change_id(self: register.Register, digest: str, before: register.ChangeId = None) -> register.ChangeId:
    _change(self, digest, before)
    return self.of(digest)


_change = register.Register.change


def _finds_in_outages(self: line.Line, sid: Any, life: Any, view: Any = None, names: Any = ()) -> Any:
    return _line_read(self, sid, life, SimpleNamespace(level=0), names)  # type: ignore[arg-type]


_line_read = line.Line.read


def _says_nothing(journal: Any, digest: str) -> bool:
    return True


def _hits_for_ever(self: verifier.Verifier, life: leases.Life, hit: near.Hit) -> tuple[AuthRow, float] | None:
    auth = hit.copy.records["auth"].auth
    return (auth.row, math.inf) if auth and auth.row else None


def _however_old(self: memory.Memory, digest: str, category: str) -> Any:
    entry = self.entry(digest)
    held = entry.held.get(category) if entry else None
    return (entry.records[category], held) if entry and held else None


def _shared_however_old(db: Any, ref: RecordRef, copies_since_ms: int, codec: Any) -> Any:
    return _read_overlay(db, ref, 0, codec)


_read_overlay = entries.read_overlay


_extend_idle = verifier.Verifier._extend_idle


def _idle_as_any(self: verifier.Verifier, row: AuthRow, scope: Any, life: leases.Life) -> None:
    _extend_idle(self, row, scope, leases.Life(life.idle_ms, life.absolute_ms))


_expiry_of_use = leases.Life.expiry_of_use


def _used_as_any(self: leases.Life, row: AuthRow) -> int:
    return _expiry_of_use(replace(self, privileges=None), row)


_renamed = writes.RowWrites._renamed


def _every_change_of_id_is_a_proof(self: Any, row: AuthRow, digest: str, payload: Any, plan: Plan, scope: Any) -> Any:
    return _renamed(self, row, digest, payload, replace(plan, confirms=True), scope)


def _written_always(self: writes.CategoryWrites, plan: Plan, digest: str, scope: Any, changes: Any) -> bool:
    self._send(RecordRef(digest, ANONYMOUS, shadow=True), changes, scope, guard="free")
    return True


def _the_next_version(self: sim_database.SimDatabase, digest: str, *, seen: int, version: int, **rest: Any) -> bool:
    return _raise_version(self, digest, seen=seen, version=seen + 1, **rest)


_raise_version = sim_database.SimDatabase.raise_version


def _sends_what_is_unseen(
    self: writes.CategoryWrites, ref: RecordRef, changes: Any, scope: Any, *, is_new: bool = False
) -> bool:
    seen = {name: replace(change, unseen=frozenset()) for name, change in changes.items()}
    return _must_wait(self, ref, seen, scope, is_new=is_new)


_must_wait = writes.CategoryWrites._must_wait


def _nothing_is_nothing(self: reads.Reads, ref: RecordRef, category: str, answer: Any, overlay: Any) -> bool:
    has_some = bool(answer.records[category].version)
    return has_some and _is_behind(self, ref, category, answer, overlay)


_is_behind = reads.Reads._is_behind


def _the_last_answer_tells_the_time(self: ended.DatabaseClock, read_at: int, asked_at: float) -> None:
    self._ahead_ms = read_at - (self._since() - self._clock() + asked_at) * 1000


def _gives_back_as_whole(*parts: Any) -> records.Restore:
    return records.Restore(*parts[:5])


def _holds_nothing(self: giving_back.GivingBack, *arguments: Any) -> bool:
    self.go_on()
    self.holds_session = lambda *arguments: False  # type: ignore[method-assign]
    return False


ABLATIONS: tuple[Ablation, ...] = (
    Ablation("lease", belief.Sighting, "is_leased", _lease_for_ever),
    Ablation("connection identity", server_identity.ServerIdentity, "observe", _never_another_server),
    Ablation("identity of each connection", server_identity.ServerIdentity, "trust_since", _trusts_every_connection),
    Ablation("role of the server", records.Answer, "by_primary", property(_any_server_is_primary)),
    Ablation("canary", server_identity.ServerIdentity, "saw", _ignores_the_canary),
    Ablation("minimum version", ended.Ended, "min_version", _no_min_version),
    Ablation("minimum versions that are forgotten", ended.Ended, "evicted_at", property(lambda self: float("-inf"))),
    Ablation("stamp before the read", verifier.Verifier, "_push", _stamps_after_the_read),
    Ablation("journal", journal_writer.JournalWriter, "revoke", _nothing),
    Ablation("journal of log out everywhere", journal_writer.JournalWriter, "revoke_user", _nothing),
    Ablation("recovery", recovery.Recovery, "run", _replays_nothing),
    Ablation("rows changed since an incident", rows.Resync, "push_changes", lambda *arguments: True),
    Ablation("read repair", verifier.Verifier, "_repair", _nothing),
    _script(
        "dead absorbs",
        (
            "return string.sub(meta, 12) == 'D0' and 'dead' or 'ended'",
            "stamp, later, version = 0, 0, tonumber(string.sub(meta, 13))",
        ),
    ),
    _script("a push says which tombstone it met", ("string.sub(meta, 12) == 'D0' and 'dead' or 'ended'", "'dead'")),
    _script(
        "tombstone instead of DEL",
        (
            "local old, gone = redis.pcall('HGETALL'",
            "redis.call('DEL', KEYS[1]) do return 'buried' end\nlocal old, gone = redis.pcall('HGETALL'",
        ),
    ),
    Ablation("local tombstone", memory.Memory, "kill", _forgets_the_dead),
    _script("guard of writes", ("if sub(head, 12, 12) ~= 'F' then", "if false then")),
    _script("compare-and-set in Redis", ("if version > new or (version == new and is_newer) then", "if false then")),
    Ablation("compare-and-set in the database", sim_database.SimDatabase, "update", _update_whatever_the_version),
    Ablation(
        "compare-and-set of a change of id",
        sim_database.SimDatabase,
        "regenerate",
        _regenerate_whatever_the_version,
    ),
    Ablation("revocations follow a change of id", sim_database.SimDatabase, "_ids_of", lambda self, name: [name]),
    Ablation("log out everywhere follows a change of id", sim_database.Tables, "go_on_as", lambda self, digests: []),
    Ablation("what a change of id leaves", AuthEntry, "in_database", property(lambda entry: False)),
    Ablation("a revocation after a change of id", RevocationQueue, "note", _revoked_once),
    Ablation("a revocation before a change of id", RevocationQueue, "note", _known_by_any_word),
    Ablation("privileged roles", belief.Situation, "is_privileged", lambda self, row: False),
    Ablation("unverifiable is not dead", Loaded, "verified", staticmethod(_unverifiable_is_dead)),
    Ablation("fresh", verifier.Verifier, "verify", _fresh_is_not),
    Ablation("durable is what the database has", revocations.Revocations, "_revoke_in_database", _silence_is_a_yes),
    Ablation("epochs", sim_database.Tables, "raise_epoch", lambda self, user_id: self.epoch(user_id) + 1),
    Ablation("rights do not wait", repository.SessionRepository, "__init__", _rights_may_wait),
    Ablation("an own question", sim_database.SimDatabase, "load", _says_what_it_said_before),
    Ablation("the own digest", records, "_auth", _whosever_it_is),
    Ablation("classes of errors", errors.StoreError, "concerns_health", property(lambda error: True)),
    Ablation("budget", scope.RequestScope, "_failed", _waits_for_nothing),
    Ablation("the end of a session is waited for at last", scope.RequestScope, "spare_some", _nothing),
    Ablation("what may fail", scope.RequestScope, "attempt", scope.RequestScope.ask),
    Ablation("short digests", events, "short", lambda digest: digest),
    Ablation("push of what Redis missed", journal_writer.JournalWriter, "queue_push", _nothing),
    _script(
        "what could not be read is not replaced",
        ("return is_ours or not (now_there or author or since)", "return true"),
    ),
    _script(
        "what was written since is not replaced",
        ("return since == false or is_as_then or (since == nil and not now_there)", "return true"),
    ),
    _script(
        "written since: the field, not its category",
        (
            "local function written_since(name, moment, by_time, doubtful)",
            "local function written_since(name, moment)\n  do return tonumber(record.stamp) > moment end",
        ),
    ),
    Ablation("session limit", writes, "limit_of", lambda user_id, settings: None),
    Ablation("displaced sessions are made known", revocations.Revocations, "displaced", _nothing),
    Ablation("a proof by confirmation only", writes.RowWrites, "_renamed", _every_change_of_id_is_a_proof),
    Ablation("a proof goes along", writes, "AUTHENTICATED_AT", "none of these"),
    Ablation("a proof is noted", writes, "noted", lambda payload, at_ms: payload),
    Ablation("shorter lives", leases.Life, "of", lambda self, payload: self),
    Ablation("shorter idle times", leases.Life, "expiry_of_use", _used_as_any),
    Ablation("shorter idle times in Redis", verifier.Verifier, "_extend_idle", _idle_as_any),
    Ablation("another id for a shorter life", writes, "begins_to_live_shorter", lambda life, before, after: False),
    Ablation("one order", journal_writer.JournalWriter, "has_writes", lambda *arguments, **more: False),
    Ablation("a busy journal may hold something", journal_writer.JournalWriter, "has_writes", _waits_if_it_is_read),
    Ablation("levels that keep nothing", journal_writer.JournalWriter, "_outlives_request", lambda *arguments: True),
    Ablation("the level that was told", journal_writer.JournalWriter, "keep", _kept_as_is_found_out),
    Ablation("the version beside a wipe", memory.Memory, "write", _builds_on_what_was_shown),
    Ablation("I31", host_clock.HostClock, "__call__", lambda self: self._wall()),
    _script("wipes are merged", ("if operation == 'wipe' then", "if operation == 'wipe' then do return APPLIED end")),
    Ablation("keys are looked for where they were", former, "former_in", lambda *arguments: None),
    Ablation("the later written one counts", former, "_is_later_at", lambda *arguments: True),
    Ablation("a former place does not always count", former, "_is_later_at", lambda *arguments: False),
    Ablation("what was lost is given back", giving_back.GivingBack, "begin", _nothing),
    Ablation("copies in an outage", memory.Memory, "category", _nothing),
    Ablation("own writes in copies", fallback.Fallback, "remember_write", _nothing),
    Ablation("later versions of siblings", register.Register, "is_outdated", lambda *arguments: False),
    Ablation("copies are as old as their confirmation", memory.Memory, "_copy", _however_old),
    Ablation("shared copies are as old as their confirmation", journal, "read_overlay", _shared_however_old),
    Ablation("the worker that merged something keeps it", merges.MergedCopies, "refresh", _keeps_nothing),
    Ablation("what waits was made from its own merge", entries, "is_written_by", lambda *arguments: False),
    Ablation("each kind of sessions is given back", giving_back.GivingBack, "holds_session", lambda *arguments: False),
    Ablation("what was merged is there still", merges.MergedCopies, "refresh", _takes_less),
    Ablation("what was merged is read back first", merges.MergedCopies, "refresh", _whether_or_not_it_is_read),
    Ablation("what was merged and not read back is made from", journal.Journal, "note_merged", _nothing),
    Ablation("what was merged and lost since is made from", journal.Journal, "note_merged", _what_could_not_be_read),
    Ablation("what waits is later than what is given back", entries, "written_at", lambda meta, name: sys.maxsize),
    Ablation("a copy tells its host whose it is", giving_back.Refill, "_tell_whose_it_is", _nothing),
    Ablation("a wipe that its host knows is given back", register.Register, "wiped_version", lambda *arguments: 0),
    Ablation("newer copies of other workers are given back", giving_back.Refill, "_is_of_others", _unless_it_has_one),
    Ablation(
        "a wipe is later than what its host has seen", journal_writer.JournalWriter, "_as_of", _by_the_clock_alone
    ),
    _script(
        "a wipe of what was given back",
        ("local is_of_copy = since == nil and", "local is_of_copy = false and"),
    ),
    Ablation("what was wiped is not shown", fallback.Fallback, "_unless_wiped", lambda self, ref, name, there: there),
    Ablation("what is written behind a wipe is no older", entries, "_wiped_at", _wiped_long_ago),
    Ablation("what other workers know goes along", steps, "take_along", _nothing),
    Ablation("a former id is wiped when all of it was brought", merges.Carries, "_kept", _wipes_at_once),
    Ablation("what is lost on the way to another id is counted", merges.Carries, "_lost", lambda self, done: ()),
    Ablation("what another id does not get is counted", merges.Carries, "_note_outcomes", _nothing),
    Ablation("the additions of a copy go along", merges, "mark_of_copy", lambda digest, copy: b""),
    Ablation("what began after a loss is a part", giving_back, "Restore", _gives_back_as_whole),
    Ablation("newer copies stand", backend.Backend, "lack_of", lambda self, ref: None),
    Ablation("a record that began after a loss is a part", fallback.Fallback, "_is_whole", lambda *arguments: True),
    Ablation("what was given back is as old as the copy", copies, "given_back_as_of", lambda meta: 0),
    Ablation("a loss is looked for", reads.Reads, "_seem_lost", lambda *arguments: []),
    Ablation("later versions than what was given back", fallback.Fallback, "has_seen_more", lambda *arguments: False),
    Ablation("additions wait for what is given back", giving_back.GivingBack, "holds", _holds_nothing),
    Ablation("what no worker has any more is counted", giving_back.LossCount, "send", _sends_nothing),
    Ablation("what was not given back is counted", reads.Reads, "_count_lost", _nothing),
    Ablation("a loss is looked for before a merge", giving_back.GivingBack, "holds_now", giving_back.GivingBack.holds),
    _script(
        "what was seen is there",
        ("if record.stamp < sub(form, 20, 35) then", "if false then"),
        ("or stamp < sub(form, 20, 35) or", "or"),
        ("if record.stamp < ARGV[3] then", "if false then"),
    ),
    Ablation("all workers of a host give back", presence.Presence, "others", lambda self: []),
    Ablation("additions to nothing are in doubt", giving_back.GivingBack, "is_overdue", property(lambda self: False)),
    Ablation("what could not be read waits", writes.CategoryWrites, "_must_wait", _sends_what_is_unseen),
    Ablation("what a replica lacks is unknown", reads.Reads, "_is_behind", _nothing_is_nothing),
    _script("additions are counted once", ("if is_counted(counted, mode) then", "if false then")),
    _script("late commands do nothing", ("if sub(head, 32, 47) < now then", "if false then")),
    Ablation("change ids of a host", register.Register, "of", lambda self, digest: register.NEVER),
    Ablation("change id before the question", near.NearCache, "keep", _looked_up_late),
    Ablation("silence", near, "SILENCE", float("inf")),
    Ablation("the end of what vouches", lane.Lane, "_forget", _copies_stay),
    _script("the read behind an own write", ("if sub(head, 20, 20) == '1' then", "if false then")),
    Ablation("change ids around an own write", register.Register, "change", _any_change_id),
    Ablation("what was sent is not sent again", writes.CategoryWrites, "save", _sends_again),
    Ablation("a hit at level 0 only", line.Line, "read", _finds_in_outages),
    Ablation("the journal before a hit", line, "is_untouched", _says_nothing),
    Ablation("lease of a hit", verifier.Verifier, "leased", _hits_for_ever),
    Ablation("touches that are due", near.NearCache, "keep", _never_touches),
    Ablation("a proof that is yet to come", users, "CLOCK_TOLERANCE_MS", 1 << 40),
    Ablation("the quickest answer tells the time", ended.DatabaseClock, "note", _the_last_answer_tells_the_time),
    Ablation("a clock that was set", server_identity.ServerIdentity, "clock_was_set", _nothing),
    Ablation("a change keeps its life", merges, "merge_of", _by_this_releases_table),
    Ablation("each entry apart", recovery.Recovery, "_one_by_one", _fails_together),
    Ablation("revocations that the journal did not take", RevocationQueue, "_hold", _nothing),
    Ablation("log out everywhere that the journal did not take", RevocationQueue, "_hold", _nothing),
    Ablation("an end behind a change of auth", writes.CategoryWrites, "_write_shadow", _written_always),
    Ablation("delivered revocations are told again", missed.DeliveredRevocations, "suspect", _nothing),
    Ablation("what a carry became has the room of its entry", merges, "_take_out", _shares_first),
    Ablation(
        "a last look at delivered revocations",
        missed.DeliveredRevocations,
        "is_last_look_due",
        property(lambda self: False),
    ),
    Ablation("rights of both versions", verifier, "narrowed", lambda row, later, users, rights: dict(row.payload)),
    Ablation("above the highest version", sim_database.SimDatabase, "raise_version", _the_next_version),
    Ablation("a row that went back", verifier.Verifier, "gone_back", lambda self, row, version, known, scope: row),
    Ablation("an epoch that was lost", verifier.Verifier, "has_lost_epoch", lambda self, row, scope: False),
    Ablation("S1", verifier, "_idle_seen", _redis_knows_no_use),
    Ablation("S2", belief, "lease_ends", _ends_when_it_must),
    _script("S3", ("if ARGV[2] ~= '1' and later > idle then", "if false then")),
    Ablation("S4", verifier, "_idle_seen", _silence_is_an_answer),
    Ablation("S4 of the recovery", rows.Resync, "push_changes", _ends_the_idle),
    Ablation("S5", server_identity.ServerIdentity, "_takes_over", _new_workers_trust),
    Ablation("S6", missed.Renewal, "send", _sends_nothing),
    Ablation("S7", sim_database.SimDatabase, "kill_user_until", _raises_the_epoch),
    Ablation("S8", sim_database.SimDatabase, "kill_user_until", _only_the_living),
    Ablation("S9", server_identity.ServerIdentity, "saw", _only_smaller_numbers),
    Ablation("S10", belief.Situation, "is_busy", False),
    Ablation("S11", journal_writer.JournalWriter, "overlay", _no_overlay),
)
