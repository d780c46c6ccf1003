"""Promises that must always hold (docs/guarantees.md), checked against everything that was ever true in the database.

The checks know the stores from outside and the package by what it answers; no state of the package is believed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask_langpont_session.config.settings import Settings
from flask_langpont_session.policy.belief import DEGRADED_VERIFY_MS
from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import CategoryCopy, RecordRef
from flask_langpont_session.policy.errors import ErrorClass
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.leases import CLOCK_TOLERANCE_MS, LONGEST_UNCONFIRMED_MS
from flask_langpont_session.policy.loaded import Loaded, Verdict
from flask_langpont_session.policy.rows import AuthEntry, AuthRow, RowState
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.request.scope import RequestScope
from flask_langpont_session.stores.redis.near import Hit
from flask_langpont_session.stores.redis.server_identity import Canary

from .clock import Clock
from .sim_redis import (
    CONNECT_SECONDS,
    Cluster,
    Data,
    Key,
    Node,
    Past,
    Record,
    is_live,
    is_tombstone,
    known_of,
)
from .tasks import Task, Tasks

if TYPE_CHECKING:
    from .sim_connection import SimConnection
    from .sim_database import Tables

ADMIN = encode("role", "admin")

SMALL_MS = 50
"""What questions that are answered take in all; a millisecond each."""

WRITTEN_ONCE = {"source_lang", "theme"}
"""Keys whose values are never used twice, but for those of new sessions."""

LIST = "input_text"
"""The key of a list to which requests append numbers that were never used before."""


SILENCE_MS = 1000
"""For so long, at most, another host does not see a change (docs/guarantees.md)."""


def _content(known: CategoryCopy) -> tuple[Any, ...]:
    """Return the part of a record that a session shows."""
    return known.mark, known.fields, known.auth is not None and known.auth.row is None


def as_list(value: bytes | None) -> list[int]:
    """The numbers of such a list."""
    return [int(number) for number in re.findall(rb"\d+", value or b"")]


DIGEST = re.compile(r"[\w-]{43}")
SECRETS = ("sid-", "secret", "alice", "root", "admin", "dark", "light")
"""Parts of session ids, users and values in these worlds."""


class Broken(AssertionError):
    """An invariant does not hold.

    :param invariant: its id; ``merge`` for what is promised of data that waited in an outage.
    """

    def __init__(self, invariant: str, text: str) -> None:
        self.invariant = invariant
        super().__init__(f"{invariant}: {text}")


@dataclass
class WorkerView:
    """Facts that one worker process has been told so far.

    :param min_versions: digest → highest version it showed or wrote.
    :param signed_out: sessions that were signed out on it.
    :param users: user → when they were last logged out everywhere on it.
    :param incident_ms: when it last met another server than before, or could notice that data was lost.
    :param identity: of the primary it met last.
    :param losses: server → losses that it had a chance to notice.
    :param without_rights: digest → how many grants there had been when it showed the session without an
        administrator's, after the last one of them.
    """

    min_versions: dict[str, int] = field(default_factory=dict)
    without_rights: dict[str, int] = field(default_factory=dict)
    signed_out: set[str] = field(default_factory=set)
    users: dict[str, int] = field(default_factory=dict)
    incident_ms: int = 0
    identity: str | None = None
    losses: dict[str, int] = field(default_factory=dict)
    looks: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass
class HostView:
    """Promises that one host has made.

    :param revoked: sessions whose sign-out it accepted without the database.
    :param users: user → until when sessions are over, accepted without the database.
    :param ended: sessions that ended here, which the database knows.
    :param committed: digest → version of a change of rights that was made here.
    """

    revoked: set[str] = field(default_factory=set)
    users: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    committed: dict[str, int] = field(default_factory=dict)
    identity: str | None = None
    incident_ms: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    looks: dict[str, tuple[str, int]] = field(default_factory=dict)
    changed: dict[tuple[str, str], int] = field(default_factory=dict)
    """Server and session → how many changes that server had seen when a worker here was told that it changed it."""
    missing: dict[str, int] = field(default_factory=dict)
    """Revocations whose tombstone Redis lacked after a round of the monitor, and since when."""


@dataclass(frozen=True)
class Before:
    """The state when a request began, for promises that hold only for later requests."""

    began_ms: int
    min_version: int
    signed_out: bool
    revoked_here: bool
    untold: bool
    level: int
    database: bool
    without_rights: int | None


class Promises:
    """Watches everything, and remembers what must hold from then on.

    :param skew_ms: how far two clocks may be apart.
    """

    def __init__(self, settings: Settings, clock: Clock, tasks: Tasks, skew_ms: int) -> None:
        self.settings = settings
        self.skew_ms = skew_ms
        self.limited = settings.privileged_idle_timeout is not None
        self.terms = settings.lease_terms
        self.clock = clock
        self.tasks = tasks
        self.tables: Tables
        self.cluster: Cluster
        self.broken: list[Broken] = []
        self.census: Counter[str] = Counter()
        """What has happened how often, so that a search can show where it has been."""
        self.workers: dict[str, WorkerView] = defaultdict(WorkerView)
        self.hosts: dict[str, HostView] = defaultdict(HostView)
        self.signed_in: set[str] = set()
        """Digests of kind u that were ever given out."""
        self.revoked: set[str] = set()
        """Sessions whose revocation has begun; what they are called later is revoked, too."""
        self.replaced: set[str] = set()
        """Ids whose replacement by other ones has begun."""
        self.users_revoked: dict[str, int] = {}
        self.increments: dict[str, int] = defaultdict(int)
        self.appended: dict[str, set[int]] = defaultdict(set)
        """Session → what requests were told is kept."""
        self.last: dict[str, bytes] = {}
        """Session → the value of a key that was set last, without being read."""
        self.themes: dict[str, bytes] = {}
        """Session → likewise, of a key that workers with different tables write to different categories."""
        self.counted: dict[str, int] = defaultdict(int)
        """Session → what was added, as requests were told."""
        self.cleared: dict[str, set[int]] = {}
        """Session → what was there when a visitor cleared it."""
        self.written: dict[str, set[int]] = defaultdict(set)
        """Session → every number that a request tried to append, or that any server ever had."""
        self.is_calm = True
        """Whether no two requests have overlapped so far, and no worker or host was lost: then nothing may be
        missing."""
        self.told: set[str] = set()
        """Sessions for which a Redis server was given a tombstone."""
        self.over_at: dict[bytes, int] = {}
        """Value that was never used before → when the request that wrote it was over."""
        self.stored_at: dict[bytes, int] = {}
        """The same → when Redis had it first."""
        self.proven: dict[str, int] = {}
        """Session → when a password was entered last, by the database's clock."""
        self.grants: Counter[str] = Counter()
        """Session → how often its user was made an administrator."""
        self.granted: dict[str, int] = {}
        """Session → the highest version at which that was done."""
        self.kept: dict[str, tuple[int, object]] = {}
        """Sessions whose idle expiry a Redis server was told: until when, and that server's data then."""

    def violate(self, invariant: str, text: str) -> None:
        """Note that an invariant does not hold; raised when the action ends, where no code can catch it."""
        self.broken.append(Broken(invariant, f"{text} [at {self.clock.now_ms - 1_700_000_000_000} ms]"))

    # -- the stores ------------------------------------------------------------------------------------------------

    def row_changes(self, before: AuthRow | None, after: AuthRow) -> None:
        """A row is written: never revived, never an older version."""
        self.census["late change"] += self.tasks.is_late
        self._lives_no_longer(after.payload, after.live, after.idle_expires_at, self.clock.now_ms)
        longest = self.settings.privileged_absolute_timeout if ADMIN in after.payload.values() else None
        if after.live and longest and after.absolute_expires_at > after.created_at + longest * 1000:
            self.violate("I28", "a row may live longer in all than its rights allow")
        if before is None:
            self.proven[after.digest] = self.clock.now_ms
            most = self.settings.max_sessions_per_user
            others = len([row for row in self.tables.valid_of(after.user_id) if row.digest != after.digest])
            if isinstance(most, int) and others >= most and after.digest not in self.tables.successors.values():
                self.violate("I26", f"a user has {others + 1} sessions, of {most} that are allowed")
            return
        if after.live and not before.live:
            self.violate("I1", "a dead row lives again")
        if after.version < before.version:
            self.violate("I1", f"version {before.version} becomes {after.version}")
        if after.version == before.version and (after.payload, after.live) != (before.payload, before.live):
            self.violate("I1", "a row changed under the same version")
        task = self.tasks.current
        changed = [key for key in after.payload if after.payload[key] != before.payload.get(key)]
        if any(self._is_right(key) for key in changed) and not (task is not None and task.notes.get("rights")):
            self.violate("I4", f"{changed} were granted by a request that grants nothing")
        if ADMIN in after.payload.values() and ADMIN not in before.payload.values():
            self.grants[after.digest] += 1
            self.granted[after.digest] = max(after.version, self.granted.get(after.digest, 0))

    def _lives_no_longer(self, payload: Mapping[str, Any], live: bool, idle_expires_at: int, now_ms: int) -> None:
        """Check that a privileged session is written with no longer idle time than its rights allow (I28)."""
        if live and ADMIN in payload.values() and self.limited:
            self.census["privileged"] += 1
            if idle_expires_at > now_ms + (self.settings.privileged_idle_timeout or 0) * 1000 + self.skew_ms:
                self.violate("I28", f"a privileged session may be idle for {idle_expires_at - now_ms} ms")

    def is_granted(self, digest: str, began_ms: int, max_age_ms: int, *, granted: bool) -> None:
        """A request learned from the database whether a password was entered not long ago (I27)."""
        self.census[f"step-up {granted}"] += 1
        age_ms = began_ms - self.proven[digest]
        if granted and age_ms > max_age_ms:
            self.violate("I27", f"a password that was entered {age_ms} ms ago counts")
        if not granted and self.clock.now_ms - self.proven[digest] <= max_age_ms:
            self.violate("I27", f"a password that was entered {age_ms} ms ago does not count")

    def row_goes_on(self, old: AuthRow, new: AuthRow) -> None:
        """A session goes on under another id: with the rights that it has now, not with those it had once."""
        task = self.tasks.current
        if task is None or not task.notes.get("confirms"):
            self.proven[new.digest] = self.proven[old.digest]
        if task is not None and task.notes.get("rights"):
            return
        rights = ({key: value for key, value in row.payload.items() if self._is_right(key)} for row in (old, new))
        before, after = rights
        if before != after:
            self.violate("I4", f"a session goes on under another id with {sorted(after)} it did not have any more")

    # -- all workers -----------------------------------------------------------------------------------------------

    def lost(self, store: str, cause: str) -> None:
        """A worker does not use a store any more, for an error of some class."""
        self.census["breaker opened"] += 1
        if cause in ("data", "local", "topology"):
            self.violate("I11", f"the {store} is lost because of an error ({cause}) that says nothing about it")

    def took(self, ms: int) -> None:
        """A request was served without a pause, in so much time. What it takes to connect is not cut to what is left
        of the budget, so that the last connection may come on top of it."""
        if ms > self.settings.request_budget * 1000 + CONNECT_SECONDS * 1000 + SMALL_MS:
            self.violate("I12", f"a request waited {ms} ms")

    def raised(self, error: Exception) -> None:
        """A request ended in an error."""
        self.violate("I13", f"a request ended in {error!r}")

    def said(self, text: str) -> None:
        """The package logged something, or told the application of it."""
        self.census["said"] += 1
        if text.startswith("DatabaseWentBack") and not self.tables.has_gone_back:
            self.violate("I34", "the database is said to have gone back, and did not")
        if any(secret in text for secret in SECRETS) or DIGEST.search(text):
            self.violate("I14", f"{text!r} was said")

    def _is_right(self, key: str) -> bool:
        return key in self.settings.user_key_patterns or key in self.settings.privilege_key_patterns

    def row_ends(self, row: AuthRow, reason: str) -> None:
        """A live row ceases to be valid: a request must have wanted it."""
        self.census["ended: " + reason] += 1
        if reason == "limit":  # the request that ends it does not know which ones it will be
            self.replaces(row.digest)
            return
        if self._is_given_up(row.digest) or reason == "idle" or self.tasks.is_late:
            return
        if self.tasks.current is not None and self.tasks.current.notes.get("user") == row.user_id:
            return
        if row.created_at > self.users_revoked.get(row.user_id or "", -1) + self.skew_ms:
            self.violate("I6", f"a session was ended that was not revoked ({reason})")

    def row_ends_by_idleness(self, row: AuthRow, idle_seen: int) -> None:
        """No session is ended that Redis knows to be in use (S1), or about which Redis did not answer (S4)."""
        primary = self.cluster.primary
        now = self.tables.now_ms
        until, data = self.kept.get(row.digest, (0, None))
        if data != primary.lineage or until <= now + self.skew_ms or self.tasks.is_late:
            return
        notes = self.tasks.current.notes if self.tasks.current else {}
        told = notes.get("idle_of", {}).get(row.digest)
        if told is None:
            self.violate("I6", "a session was ended for idleness though Redis did not answer")
        elif told == (primary, until):
            self.violate("I6", "a session was ended for idleness though Redis had said that it is in use")
        elif told[0] is primary and told[1] < until and notes.get("kept_before", {}).get(row.digest) == until:
            self.violate("I6", "a session was ended for idleness though Redis had been told that it is in use")

    def redis_changes(self, node: Node, key: Key, before: Record | None, after: Record | None) -> None:
        """A hash is written: a tombstone stays, and nothing is written beside one."""
        self.census["late change"] += self.tasks.is_late
        said = after.auth if after is not None and key.category == AUTH and not key.shadow else None
        if after is not None and said is not None and said.is_live:
            self._lives_no_longer(after.data, True, said.idle_expires_at, self.clock.now_ms)
            self._keep(key.digest, said.idle_expires_at, node.lineage)
            if before is not None and before.auth is not None and before.auth.is_live:
                self._keep(key.digest, before.auth.idle_expires_at, node.lineage)
                is_believed = before.auth.stamp <= node.clock.now_ms + CLOCK_TOLERANCE_MS
                was, now = (before.auth.version, before.auth.stamp * is_believed), (said.version, said.stamp)
                if now < was:
                    self.violate("I4", f"Redis goes back from version and stamp {was} to {now}")
        if key.category == AUTH and not key.shadow and is_tombstone(after):
            self.told.add(key.digest)
        if key.category == AUTH and not key.shadow and is_tombstone(before) and not is_tombstone(after):
            self.violate("I7", "a tombstone was " + ("removed" if after is None else "overwritten"))
        if key.category in ("translation", "ui", "data") and after is not None:
            self._stores(before.data if before else {}, after.data)
        if key.category == "translation" and not key.shadow:
            self._keeps_entries(key.digest, before, after)
        is_touch = before is not None and after is not None and before.fields == after.fields
        if key.category in (AUTH, "canary", "probe") or key.shadow or after is None or is_touch:
            return
        if key.digest in self.signed_in:
            auth = node.own(Key(AUTH, key.digest))
            is_new = self.tasks.current is not None and self.tasks.current.notes.get("new") == key.digest
            if is_tombstone(auth):
                self.violate("I7", f"{key.category} of a dead session was written")
            elif auth is None and not is_new:
                self.violate("I7", f"{key.category} was written for a session that Redis does not know")

    def _stores(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Check that a merge replaces no value that was written after the outage."""
        merges = self.tasks.current is not None and self.tasks.current.notes.get("tick")
        for name in WRITTEN_ONCE & after.keys():
            value, replaced = after[name], before.get(name, b"")
            since = self.over_at.get(replaced, self.stored_at.get(replaced, 0))
            is_older = self.over_at.get(value, self.clock.now_ms) + self.skew_ms < since
            if merges and replaced != value and is_older and self.cluster.is_whole:
                self.violate("merge", f"{name}: a value replaced one that was written later")
            self.stored_at.setdefault(value, self.clock.now_ms)

    def _keeps_entries(self, digest: str, before: Record | None, after: Record | None) -> None:
        """Check that neither a merge after an outage nor a late command removes entries of a list (I16, I17)."""
        was = set(as_list(before.data.get(LIST))) if before else set()
        if after is None:
            return  # the session is over
        now = set(as_list(after.data.get(LIST)))
        self.written[digest] |= now
        merges = self.tasks.current is not None and self.tasks.current.notes.get("tick")
        gone = was - now - self.cleared.get(digest, set())
        if merges and gone and self.is_calm and self.cluster.is_whole:
            self.violate("I16", f"a merge has destroyed {len(gone)} entries of a list")
        if self.tasks.is_late and gone:
            self.violate("I16", "a command that arrived late has destroyed entries of a list")

    def has_appended(self, task: Task, digest: str, known: Iterable[int], number: int) -> None:
        """A request was told that its entry is kept."""
        self.appended[digest].add(number)
        self.written[digest] |= {*known, number}

    def has_set(self, digest: str, change: CategoryChange) -> None:
        """A request was told that its change of ``translation`` is kept."""
        self.counted[digest] += sum(change.increments.values())
        if "source_lang" in change.sets:
            self.last[digest] = change.sets["source_lang"]

    def carries(self, origin: str, target: str) -> None:
        """A session takes what it has along to another id, what the request cannot read included."""
        self.counted[target] = self.counted[origin]
        self.appended[target] |= self.appended[origin]
        self.last |= {target: self.last[origin]} if origin in self.last else {}

    def leaves(self, origin: str, target: str) -> None:
        """A visitor gives up an id: what is under it may go."""
        self.written[target] |= self.written[origin]
        if origin in self.cleared:
            self.cleared[target] = set(self.cleared[origin])
        self.cleared.setdefault(origin, set()).update(self.written[origin])

    def clears(self, digest: str) -> None:
        """A visitor begins to clear its session."""
        self.cleared.setdefault(digest, set())

    def has_cleared(self, task: Task, digest: str) -> None:
        """A visitor was told that everything is gone."""
        if self.is_calm:
            self.cleared[digest] |= self.written[digest]

    def _keep(self, digest: str, until: int, data: object) -> None:
        known = self.kept.get(digest)
        if known is None or known[1] != data or known[0] < until:
            self.kept[digest] = until, data

    def forgets(self, digest: str) -> None:
        """Forget what a server was told of a session: its record there is lost."""
        self.kept.pop(digest, None)
        for host in self.hosts.values():
            host.committed.pop(digest, None)

    def answered(self, connection: SimConnection, digest: str, entry: AuthEntry | None) -> None:
        """Note with the request that asked what a server answered about a session."""
        task = self.tasks.current
        if task is None:
            return
        node = connection.node
        task.notes["node"], task.notes["identity"] = node, connection.identity
        if entry is not None and entry.row is None:
            task.notes["tombstone"] = True
        if ":master:" not in connection.identity:
            return  # what a replica does not know says nothing
        idle = entry.row.idle_expires_at if entry is not None and entry.row is not None else 0
        task.notes.setdefault("idle_of", {})[digest] = (node, idle)
        task.notes.setdefault("kept_before", {})[digest] = self.kept.get(digest, (0, None))[0]

    # -- what is kept near -----------------------------------------------------------------------------------------

    def changed(self, host: str, node: Node, digest: str, number: int) -> None:
        """A worker was told that it has changed a session."""
        changed = self.hosts[host].changed
        changed[node.name, digest] = max(number, changed.get((node.name, digest), 0))

    def hit(self, host: str, node: Node, ref: RecordRef, lives_ms: Mapping[str, int], hit: Hit) -> None:
        """A worker knew a session without asking: it is as good as the server's answer of a moment ago, and on the host
        that changed it, as good as that of now."""
        self.census["hit"] += 1
        if self.tasks.current is not None:
            self.tasks.current.notes["hit"] = True
        now, changed = self.clock.now_ms, self.hosts[host].changed.get((node.name, ref.digest), 0)
        for name, life in lives_ms.items():
            key = Key(name, ref.digest, ref.shadow)
            shown = _content(hit.copy.records[name])
            past = node.history(key)
            there = [
                number for number, each in enumerate(past) if _content(known_of(key, ref.kind, each.record)) == shown
            ]
            last = past[there[-1]].record if there else None
            if not there:
                self.violate("near", f"{name} is shown as it never was")
            elif last is not None and last.expires_at is not None and last.expires_at <= now:
                self.violate("near", f"{name} is shown that is not there any more")
            elif there[-1] + 1 < len(past):
                self._is_recent(name, past[there[-1] + 1], now, changed)
            else:
                self._is_not_due(name, node, key, past[-1], life)

    def _is_recent(self, name: str, next_one: Past, now: int, changed: int) -> None:
        """Check that data which is shown was replaced only just now, and by no change of this host."""
        self.census["late hit"] += 1
        if now - next_one.at_ms > SILENCE_MS:
            self.violate("near", f"{name} is shown as it was {now - next_one.at_ms} ms ago")
        if next_one.number <= changed:
            self.violate("near", f"{name} is shown as it was before a change by this host")

    def _is_not_due(self, name: str, node: Node, key: Key, past: Past, life: int) -> None:
        record = past.record
        if record is None or record.expires_at is None or is_tombstone(record):
            return
        left = record.expires_at - self.clock.now_ms
        is_touched = node.is_primary and not node.refuses_writes and len(record.fields) > 1
        if is_touched and life > 0 and left < life * 0.75:
            self.violate("near", f"{name} is shown whose life is due to be extended")

    # -- incidents -------------------------------------------------------------------------------------------------

    def connected(self, worker: str, host: str, node: Node) -> None:
        """A worker made a connection to the server behind the name ``primary``."""
        view, shared = self.workers[worker], self.hosts[host]
        if view.identity == node.identity:
            return
        is_first, view.identity = view.identity is None, node.identity
        if is_first and shared.identity == node.identity:
            view.incident_ms, view.losses, view.looks = shared.incident_ms, dict(shared.losses), dict(shared.looks)
            return
        view.incident_ms = self.clock.now_ms
        self.census["another server"] += not is_first
        self._share(view, shared)

    def looked(self, worker: str, host: str, node: Node, found: Canary) -> None:
        """A worker looked at the canary of a server: it must notice what was lost there since its last look."""
        view = self.workers[worker]
        lost = self.cluster.losses[node.name]
        if node.name in view.looks and view.losses.get(node.name, 0) < lost:
            view.incident_ms = self.clock.now_ms
            self.census["loss noticed"] += 1
        view.losses[node.name] = lost
        view.looks[node.name] = (found.canary_id, found.number)
        self._share(view, self.hosts[host])

    @staticmethod
    def _share(view: WorkerView, host: HostView) -> None:
        host.identity, host.incident_ms = view.identity, max(view.incident_ms, host.incident_ms)
        host.losses, host.looks = dict(view.losses), dict(view.looks)

    def loses(self, node: Node, data: Data) -> bool:
        """Return whether canaries can show that a server's data is replaced by older data."""
        left = data.get(Key("canary", ""))
        looks = [view.looks[node.name] for view in self.workers.values() if node.name in view.looks]
        if left is None:
            return True
        canary_id, number = left.data["generation"].decode(), int(left.data["number"])
        return all(canary_id != seen[0] or number < seen[1] for seen in looks)

    # -- requests --------------------------------------------------------------------------------------------------

    def before(self, worker: str, host: str, sid: SessionId, scope: RequestScope) -> Before:
        """Return what is known before a request looks at a session."""
        row = self.tables.row(sid.digest)
        if self.tasks.current is not None:
            self.tasks.current.notes["hit"] = False
        promised = self.hosts[host]
        user = row.user_id or "" if row else ""
        created_at = row.created_at if row else 0
        over = created_at <= promised.users.get(user, -1)
        mine = self.workers[worker]
        return Before(
            began_ms=self.clock.now_ms,
            min_version=mine.min_versions.get(sid.digest, 0),
            signed_out=sid.digest in mine.signed_out or created_at <= mine.users.get(user, -1),
            revoked_here=(sid.digest in promised.revoked or over)
            and not self.tables.is_ended(sid.digest)
            and sid.digest not in self.tables.revived,
            untold=sid.digest in promised.ended - self.told,
            level=scope.level,
            database=scope.can(DATABASE, READ),
            without_rights=mine.without_rights.get(sid.digest),
        )

    def loaded(
        self, task: Task, worker: str, sid: SessionId, before: Before, loaded: Loaded, scope: RequestScope, fresh: bool
    ) -> None:
        """A request was told what is known of a session."""
        self.census[f"{loaded.verdict} by {loaded.of(AUTH).source}"] += 1
        self.census[f"level {scope.level}"] += 1
        if before.level and task.notes.get("hit"):
            self.violate("near", "in an outage a store was not asked")
        if sid.kind != SIGNED_IN:
            self._no_identity(loaded)
            return
        if loaded.verdict is Verdict.VALID:
            self._shown(task, worker, sid.digest, before, loaded, scope, fresh)
            return
        self._no_identity(loaded)
        if loaded.verdict is Verdict.ANONYMOUS:
            self.violate("I9", "a signed-in session was called anonymous")
        if loaded.verdict is Verdict.DEAD and not self._may_be_dead(sid.digest):
            self.violate("I9", "a session that lives was called dead")
        if loaded.verdict is Verdict.UNVERIFIABLE and self._was_all_well(task, before, scope):
            self.violate("I9", "a session was called unverifiable while everything answered")

    def _was_all_well(self, task: Task, before: Before, scope: RequestScope) -> bool:
        on_primary = task.notes.get("node") is self.cluster.primary
        healthy = before.level == 0 and before.database and scope.can(DATABASE, READ)
        return on_primary and healthy and not task.failures

    def _may_be_dead(self, digest: str) -> bool:
        row = self.tables.row(digest)
        if row is None or self.tables.is_ended(digest) or self._is_given_up(digest):
            return True
        until = self.users_revoked.get(row.user_id or "", -1)
        return row.created_at <= until + self.skew_ms

    def _is_given_up(self, digest: str) -> bool:
        return digest in self.replaced or any(digest in self.tables.ids_of(first) for first in self.revoked)

    def _no_identity(self, loaded: Loaded) -> None:
        shown = loaded.of(AUTH).shown
        wrong = [key for key in shown if self._is_right(key)]
        if wrong or loaded.row is not None:
            self.violate("I8", f"{loaded.verdict} shows {wrong}")

    def _shown(
        self, task: Task, worker: str, digest: str, before: Before, loaded: Loaded, scope: RequestScope, fresh: bool
    ) -> None:
        row = loaded.row
        assert row is not None
        if before.signed_out:
            self.violate("I5", "a session that was signed out on this worker is shown")
        if before.revoked_here:
            self.violate("S11", "a session is shown whose revocation waits in this host's journal")
        if before.untold:
            self.violate("S11", "a session is shown that ended on this host, which Redis does not know")
        if task.notes.get("tombstone"):
            self.violate("S6", "a session is shown although Redis answered with its tombstone")
        if row.version < before.min_version:
            self.violate("I4", f"version {row.version} is shown after {before.min_version}")
        self._is_its_own(digest, row)
        self._is_not_withdrawn(worker, before, row)
        self._overlay_is_ordinary(row, loaded)
        self._in_time(task, before, row, loaded, scope)
        self._backed(task, worker, before, row, loaded, scope, fresh)
        min_versions = self.workers[worker].min_versions
        min_versions[digest] = max(min_versions.get(digest, 0), row.version)

    def _is_not_withdrawn(self, worker: str, before: Before, row: AuthRow) -> None:
        """A worker that has shown a session without a right shows it with that right only when it was granted since.

        A row from before the last grant, which a worker may believe for a while, tells of no withdrawal.
        """
        digest, grants = row.digest, self.grants[row.digest]
        if ADMIN not in row.payload.values():
            if row.version >= self.granted.get(digest, 0):
                self.workers[worker].without_rights[digest] = grants
        elif before.without_rights == grants:
            self.violate("I4", "a right is shown that was withdrawn, and not granted again")

    def _is_its_own(self, digest: str, row: AuthRow) -> None:
        if self.tables.payloads.get((digest, row.version)) == row.payload:
            return
        if row.payload in self.tables.payloads.values():
            self.violate("I10", "what is shown belongs to another session")
        else:
            self.violate("I3", f"what is shown as version {row.version} never was in the database")

    def _overlay_is_ordinary(self, row: AuthRow, loaded: Loaded) -> None:
        shown = loaded.of(AUTH).shown
        for key in {*shown, *row.payload}:
            if self._is_right(key) and shown.get(key) != row.payload.get(key):
                self.violate("I8", f"{key} is shown otherwise than the database had it")

    def _in_time(self, task: Task, before: Before, row: AuthRow, loaded: Loaded, scope: RequestScope) -> None:
        ends = min(row.idle_expires_at, row.absolute_expires_at)
        if ends <= before.began_ms - self.skew_ms:
            self.violate("I3", "a session is shown after its time")
        idle_ms = self.settings.life.of(row.payload).idle_ms
        promised = min(before.began_ms + idle_ms * 3 // 4 - self.skew_ms, row.absolute_expires_at)
        by_a_store = loaded.of(AUTH).source in (PRIMARY, DATABASE)
        all_well = not task.failures and before.level == 0 and scope.can(DATABASE, READ)
        if by_a_store and all_well and ends < promised:
            self.violate("I6", "a session in use would end before three quarters of the idle time")

    def _backed(
        self, task: Task, worker: str, before: Before, row: AuthRow, loaded: Loaded, scope: RequestScope, fresh: bool
    ) -> None:
        ended = self.tables.ended_at(row.digest, row.version)
        failed = [error_class for store, error_class in task.failures if store == DATABASE]
        asked = scope.can(DATABASE, READ) and not failed
        if fresh:
            if not asked or DATABASE not in task.answered:
                self.violate("I2", "a fresh read was granted without the database")
            if ended is not None and ended < before.began_ms:
                self.violate("I2", "a fresh read shows what had ended before it began")
        if ended is None:
            return
        age = before.began_ms - ended
        if asked:
            bound = max(self.terms.verify_ms, DEGRADED_VERIFY_MS if scope.level or before.level else 0)
            if age > bound + self.skew_ms:
                self.violate("I3", f"what ended {age} ms ago is shown while the database answers")
            return
        is_privileged = ADMIN in row.payload.values()
        view = self.workers[worker]
        identity = str(task.notes.get("identity"))
        unbroken = ended >= view.incident_ms and identity == view.identity and ":master:" in identity
        busy = ErrorClass.LOCAL in failed
        by_redis = loaded.of(AUTH).source == PRIMARY
        carried = by_redis and unbroken and not is_privileged and not busy
        bound = LONGEST_UNCONFIRMED_MS if carried else max(self.terms.verify_ms, self.terms.grace_ms)
        if age > bound + self.skew_ms:
            self.violate("I3", f"what ended {age} ms ago is shown without the database (bound {bound} ms)")

    # -- writes ----------------------------------------------------------------------------------------------------

    def wrote(self, worker: str, digest: str, version: int) -> None:
        """A worker was told that the database took its change."""
        min_versions = self.workers[worker].min_versions
        min_versions[digest] = max(min_versions.get(digest, 0), version)

    def has_changed(self, worker: str, digest: str, version: int) -> None:
        """A worker was told that its change of rights is made; it may be to a session that has ended meanwhile."""
        row = self.tables.row(digest)
        if row is not None and row.state is RowState.VALID:
            self.wrote(worker, digest, version)

    def has_written(self, values: Iterable[bytes]) -> None:
        """A request that wrote these values is over."""
        self.over_at.update(dict.fromkeys(values, self.clock.now_ms))

    def has_committed(self, host: str, digest: str, version: int) -> None:
        """A host was told that the database has a change of rights, at least in this version."""
        committed = self.hosts[host].committed
        committed[digest] = max(version, committed.get(digest, 0))

    def revokes(self, digest: str) -> None:
        """The end of a session begins."""
        self.revoked.add(digest)

    def has_revoked(self, worker: str, host: str, digest: str, durable: bool) -> None:
        """A worker was told that a session is over."""
        self.workers[worker].signed_out.add(digest)
        if not durable:
            self.census["revocation waits"] += 1
            self.hosts[host].revoked.add(digest)
            return
        ids = self.tables.ids_of(digest)
        self.workers[worker].signed_out.update(ids)
        self.census["chain of ids revoked"] += len(ids) > 2
        self._have_ended(host, ids)
        if not all(map(self.tables.is_ended, ids)):
            self.violate("I1", "a revocation was called durable that the database does not have")

    def has_told_redis(self, task: Task, digest: str, *, could: bool) -> None:
        """A session was ended by a request, whatever else it waited for. `could`: it might write to the primary."""
        primary, key = self.cluster.primary, Key(AUTH, digest)
        has_failed = any(store == PRIMARY for store, _ in task.failures)
        # It may have told a server that was the primary before.
        is_told = has_failed or any(is_tombstone(node.get(key)) for node in (primary, self.cluster.replica))
        if could and PRIMARY in task.answered and is_live(primary.get(key)) and not is_told:
            self.violate("I1", "a Redis that answers was not told of the end of a session")

    def replaces(self, digest: str) -> None:
        """A session begins to get another id, or another session begins in its place."""
        self.replaced.add(digest)

    def _have_ended(self, host: str, digests: Iterable[str]) -> None:
        """The database knows it, and this host must not show them while Redis does not."""
        self.hosts[host].ended.update(digests)

    def has_replaced(self, worker: str, host: str, digest: str) -> None:
        """A worker was told that it is done, or that the session has ended meanwhile: its id is over in any case."""
        self.workers[worker].signed_out.add(digest)
        self._have_ended(host, [digest])
        row = self.tables.row(digest)
        if row is not None and row.state is RowState.VALID:
            self.violate("I1", "an id was called replaced that still is valid")

    def has_displaced(self, worker: str, host: str, digest: str) -> None:
        """A worker was told that a session began, for which others of its user may have ended."""
        for ended in self.tables.displaced.get(digest, ()):
            self.has_replaced(worker, host, ended)

    def revokes_user(self, user: str) -> None:
        """A "log out everywhere" of a user begins."""
        self.users_revoked[user] = self.clock.now_ms

    def has_revoked_user(self, worker: str, host: str, user: str, until_ms: int, durable: bool) -> None:
        """A worker was told that all sessions of a user are over which began until that moment."""
        self.users_revoked[user] = self.clock.now_ms
        self.workers[worker].users[user] = until_ms
        over = [digest for digest in self.tables.of_user(user) if self.tables.rows[digest].created_at <= until_ms]
        if not durable:
            self.census["revocation of a user waits"] += 1
            users = self.hosts[host].users
            users[user] = max(until_ms, users.get(user, 0))
            return
        self.census["many sessions of a user end"] += len(over) > 2
        self._have_ended(host, over)
        if not all(map(self.tables.is_ended, over)):
            self.violate("I1", "a user was called logged out everywhere who is not, in the database")

    def refused(self, task: Task, before_database: bool, scope: RequestScope, digest: str | None) -> None:
        """A grant was refused. That is right for a session that is not valid any more, by its idle time too: a request
        that began before may not say that it was not used since."""
        self.census["grant refused"] += 1
        row = None if digest is None else self.tables.row(digest)
        gone = digest is not None and (row is None or row.state is not RowState.VALID)
        # It was withdrawn meanwhile what this request takes to be there still: giving it back takes another id.
        was_withdrawn = bool(self.limited and task.notes.get("rights") and row and ADMIN not in row.payload.values())
        gone = gone or was_withdrawn
        if before_database and not task.failures and not gone and scope.can(DATABASE, READ):
            self.violate("I13", "a grant was refused while the database answers")

    def ticked(self, task: Task, host: str, pending: Iterable[str], redis_answers: bool) -> None:
        """A monitor's round is over: what only this host knows must not be missing in Redis for long (S6)."""
        missing = self.hosts[host].missing
        if not redis_answers or any(store == PRIMARY for store, _ in task.failures):
            return
        waiting = set(pending)
        for digest in waiting:
            if is_tombstone(self.cluster.primary.get(Key(AUTH, digest))):
                missing.pop(digest, None)
                continue
            since = missing.setdefault(digest, self.clock.now_ms)
            if self.clock.now_ms - since > self.terms.verify_ms + self.terms.grace_ms:
                self.violate("S6", "a revocation that waits for the database has no tombstone in Redis")
        for digest in missing.keys() - waiting:
            missing.pop(digest, None)


class Unchecked:
    """A stand-in for the promises, for checks of something else than what the stores and the package do."""

    def __init__(self) -> None:
        self.broken: list[Exception] = []
        self.census: Counter[str] = Counter()
        self.signed_in: set[str] = set()
        self.increments: dict[str, int] = defaultdict(int)
        self.counted: dict[str, int] = defaultdict(int)
        self.appended: dict[str, set[int]] = defaultdict(set)
        self.last: dict[str, bytes] = {}
        self.themes: dict[str, bytes] = {}
        self.cleared: dict[str, set[int]] = {}
        self.is_calm = False
        self.workers: dict[str, Any] = {}
        self.hosts: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None

    def raised(self, error: Exception) -> None:
        """A request ended in an error."""
        raise error
