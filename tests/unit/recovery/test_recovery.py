"""Replay of the journal: in which order, to which store, and what is dropped. A real journal; stores that note what
they are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from flask_langpont_session.events import ChangesGivenUp, WritesNotKept
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.metrics.reports import Reports
from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.changes import Basis, Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import AuthEntry, AuthRow, ChangedRows, EndedSession, Found, Position
from flask_langpont_session.recovery import steps
from flask_langpont_session.recovery.recovery import Progress, Recovery
from flask_langpont_session.recovery.steps import AT_ONCE, BATCH, PIPELINE, Reach
from flask_langpont_session.stores.backend import Backend
from flask_langpont_session.stores.host.entries import WIPED_FIELD, PendingWrite, put_carry, take_carry_back
from flask_langpont_session.stores.host.journal import LINGER, Carry, journal_at
from flask_langpont_session.stores.host.opening import full
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.records import (
    ABSENT,
    SINCE,
    TIME,
    Answer,
    Limits,
    Merge,
    Merged,
    MergeStep,
    Outcome,
)
from tests.support.fakes import settings_in
from tests.support.journals import ref
from tests.support.known import content, known

SETTINGS = settings_in(Path(__file__).with_name("no-files"))
A, B, C, D = "a" * 43, "b" * 43, "c" * 43, "d" * 43
FAR = 4_000_000_000_000
OLDEST_MS = 1_800_000
"""LOCAL_CACHE_TTL."""

APPLIED, CONFLICT = Outcome.APPLIED, Outcome.CONFLICT


def row(digest: str, **changes: Any) -> AuthRow:
    return replace(AuthRow(digest, "7", 3, True, {"_user_id": b'"7"'}, 0, 0, FAR, FAR, 1000), **changes)


META = b"%b" + b"%016d%016d%06d*wiped*%011d" % (9, 1, 0, 0)
"""How the record of a category is described."""

MERGED = b"%b" + b"%016d%016d%06d*begun*%011d" % (9, 9, 0, 0)
"""The same after a merge: any of its fields may have been written just now."""


class Stores:
    """Redis and the database: they note what they are told, in one list, and answer as they are set to."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.rows: dict[str, AuthRow] = {A: row(A), B: row(B)}
        self.server_identity = SimpleNamespace(identity="x", canary=None)
        self.endpoints: dict[str, Any] = {}
        self.entries: dict[str, AuthEntry] = {}
        self.changed: list[AuthRow] = []
        self.of_user: list[str] = []
        self.lost_races = 0
        self.pushed = "pushed"
        self.answers: dict[str, Merged | StoreError] = {}
        self.meanwhile: Callable[[], object] = lambda: None
        self.during_update: Callable[[], object] = lambda: None
        self.unanswered: StoreError | None = None
        self.merges: list[Merge] = []
        self.write_ids: list[str] = []
        self.there: dict[str, dict[str, dict[str, bytes]]] = {}
        self.given_back = 0
        self.lately = b""
        self.clock_ms = 700
        self.failing: set[str] = set()
        self.failing_to_refresh = False
        self.version = 9
        self.damaged: set[str] = set()
        self.unreadable: set[str] = set()
        self.renamed_now: set[str] = set()
        self.tombstones: list[tuple[str, Sequence[str]]] = []
        self.surprising: set[str] = set()

    def tell(self, *what: Any) -> None:
        self.check(*what)
        self.told.append(what)

    def check(self, *what: Any) -> None:
        about = {item for item in what if isinstance(item, str)}
        if about & self.surprising:
            raise KeyError("what no one has thought of")
        if about & self.failing:
            raise StoreError("primary", ErrorClass.UNREACHABLE, "Test")
        if about & self.damaged:
            raise StoreError("primary", ErrorClass.DATA, "Test")

    # Redis

    def time_ms(self, *, timeout: float) -> int:
        return 500

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        return self.clock_ms

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]:
        return [Answer(500, {AUTH: CategoryCopy(1, {}, auth=self.entries.get(digest))}) for digest in digests]

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        """Return copies of the data under a former id, and for other ids the data after a merge."""
        self.tell("copies")
        if self.failing_to_refresh and C not in dict(wanted):
            raise StoreError("primary", ErrorClass.UNREACHABLE, "Test")
        return [
            CategoryCopy(
                self.version,
                self.there[digest].get(name, {}) if digest in self.there else {"text": digest[:1].encode()},
                self._mark(digest, name),
                given_back=self.given_back,
            )
            for digest, name in wanted
        ]

    def _mark(self, digest: str, name: str) -> bytes:
        if digest not in self.there:
            return MERGED % digest[:8].encode()
        return META % digest[:8].encode() + self.lately if name in self.there[digest] else b""

    def push_many(self, what: Any, categories: Any, *, stamp_ms: int, timeout: float) -> None:
        """All of them or, if one is failing, none."""
        told = [
            ("write_tombstone", of, number) if isinstance(of, str) else ("push", of.digest, stamp_ms)
            for of, number in what
        ]
        for call in told:
            self.check(*call)
        for call in told:
            self.tell(*call)
        for name, digest, _ in told:
            if name == "write_tombstone":
                self.tombstones.append((digest, categories))
            elif self.answers.get(digest) == Merged("gone"):
                del self.answers[digest]

    def merge_all(
        self, merges: Sequence[Merge], *, limits: Limits, timeout: float, write_id: str
    ) -> list[Merged | StoreError]:
        """Each is applied, but for what is set in `answers` for its digest."""
        self.meanwhile()
        for merge in merges:
            name = merge.digest + (" shadow" if merge.shadow else "")
            self.tell("merge", name, merge.category, merge.guard, [step.name for step in merge.steps])
        self.merges += merges
        self.write_ids.append(write_id)
        if self.unanswered is not None:
            raise self.unanswered
        return [
            self.answers.get(merge.digest) or Merged("merged", 9, (APPLIED,) * len(merge.steps)) for merge in merges
        ]

    # the database

    def kill(self, digest: str, *, timeout: float) -> int | None:
        self.tell("kill", digest)
        return 4

    def revoke_many(self, digests: Sequence[str], *, timeout: float) -> list[EndedSession]:
        for digest in digests:
            self.check("kill", digest)
        return [EndedSession(digest, self.kill(digest, timeout=timeout) or 0, lived=True) for digest in digests]

    def load_many(self, digests: Sequence[str], *, timeout: float) -> Found:
        rows = {digest: self.rows[digest] for digest in digests if digest in self.rows}
        return Found(rows, frozenset(digests) & self.unreadable)

    def renamed(self, digests: Sequence[str], ms: int, *, timeout: float) -> set[str]:
        self.tell("renamed", digests, ms)
        return self.renamed_now.intersection(digests)

    def kill_user_until(
        self, user_id: str, until_ms: int, timeout: float, *, epoch: int, after: str, limit: int
    ) -> list[str]:
        self.tell("kill_user_until", user_id, until_ms, epoch, after)
        return [digest for digest in self.of_user if digest > after][:limit]

    def changed_since(self, ms_ago: int, after: Position | None, limit: int) -> ChangedRows:
        self.tell("changed_since", after or ms_ago)
        begin = after[0] + 1 if after else 0
        part = self.changed[begin : begin + limit]
        return ChangedRows(part, (begin + limit - 1, part[-1].digest) if len(part) == limit else None)

    def load(self, digest: str, *, idle_seen: int | None, timeout: float) -> AuthRow | None:
        if idle_seen is not None:
            self.tell("idle_seen", digest, idle_seen)
        return self.rows.get(digest)

    def update(self, digest: str, *, payload: Any, **rest: Any) -> AuthRow | None:
        self.tell("update", digest, payload)
        self.during_update()
        if self.lost_races:
            self.lost_races -= 1
            self.rows[digest] = replace(self.rows[digest], version=rest["seen"] + 1)
            return None
        self.rows[digest] = replace(self.rows[digest], payload=payload, version=rest["seen"] + 1)
        return self.rows[digest]


class Host:
    """One host after an outage."""

    def __init__(self) -> None:
        self.now = 1_000_000_000_000
        self.seconds = 0.0
        self.stores = Stores()
        self.journal = journal_at(None, clock=lambda: self.now / 1000)
        self.journal.open()
        self.recorder = Recorder()
        self.memory = Memory(ttl=60)
        self.lost: list[Any] = []
        self.no_longer_in_use: list[str] = []
        self.changed: list[str] = []
        self.wiped: list[tuple[str, str, int]] = []
        backend: Any = SimpleNamespace(
            journal=self.journal,
            board=self.journal.board,
            primary=self.stores,
            database=self.stores,
            table=SETTINGS.table,
            settings=SETTINGS,
            limits=Limits(9, 999, 9),
            memory=self.memory,
            recorder=self.recorder,
            reports=Reports(
                self.recorder,
                lambda signal, event: self.lost.append(event),
                cast(Any, SimpleNamespace(ended=self.no_longer_in_use.append)),
            ),
            life_of_kept=lambda category, kind: 1000,
            row_changed=self.changed.append,
            register=SimpleNamespace(
                note_wipe=lambda digest, category, version: self.wiped.append((digest, category, version)),
                note_version=self.journal.board.register.note_version,
                latest_version=self.journal.board.register.latest_version,
                is_wiped_since=self.journal.board.register.is_wiped_since,
            ),
            health=SimpleNamespace(locate=lambda digest: ""),
            clock=lambda: self.seconds,
            endpoint=lambda name: self.stores,
            look_for_loss=lambda store, timeout: None,
            lacks={},
            near_connections=0,
        )
        backend.is_over = partial(Backend.is_over, backend)
        self.backend = backend
        self.begin_anew()

    def begin_anew(self) -> None:
        """Let another worker go on."""
        self.recovery = Recovery(self.backend, now_ms=lambda: self.now, clock=lambda: self.seconds)
        self.resync = self.recovery.steps.resync

    def recovered(self) -> None:
        """A store is in use again."""
        self.recovery.recovered("replica", 0.0)

    def write(self, digest: str, key: str, value: bytes | None = b"1", **more: Any) -> None:
        """A change that was made from version 1, in which the key was absent; None: a deletion."""
        operation = Operation.DELETE if value is None else Operation.SET
        seen = {"basis": Basis.SEEN, "moment": 1}
        self.put(digest, key, operation, value=value, **{**seen, **more})

    def add(self, digest: str, key: str, by: int = 1, **more: Any) -> None:
        self.put(digest, key, Operation.ADD, delta=by, **{"token": "added.1", **more})

    def wipe(self, digest: str, **more: Any) -> None:
        self.put(digest, WIPED_FIELD, Operation.WIPE, **more)

    def put(self, digest: str, key: str, operation: Operation, **more: Any) -> None:
        about: dict[str, Any] = {"kind": "u", "category": "translation", **more}
        self.journal.put([PendingWrite(digest=digest, field=key, operation=operation, **about)])

    def losses(self) -> dict[tuple[str, str, str], int]:
        """Return the losses that were counted, and check that each was sent: (what, cause, category) → how many."""
        counted = {(what, cause, name): count for (what, cause, name), count in self.recorder.losses().items()}
        sent = [event for event in self.lost if isinstance(event, WritesNotKept)]
        assert sum(counted.values()) == sum(event.count for event in sent)
        assert counted.keys() == {(event.what, event.cause, event.category) for event in sent}
        return counted

    def run(self, *, redis: bool = True, database: bool = True) -> list[tuple[Any, ...]]:
        assert self.replay(redis=redis, database=database).left is None
        return self.stores.told

    def replay(self, *, redis: bool = True, database: bool = True, seconds: float = 10.0) -> Progress:
        """Send what waits to the stores that answer."""
        reach = Reach(frozenset({""} if redis else ()), database)
        return self.recovery.run(self.recovery.steps.journal, reach, seconds)

    def renew_tombstones(self) -> None:
        """Renew all tombstones, in slices that end after one round trip."""
        renewal, reach = self.recovery.steps.renewal, Reach(frozenset({""}), True)
        renewal.begin()
        while not self.recovery.run([renewal], reach, 0.0).is_through:
            pass

    def told_about(self, what: str) -> list[tuple[Any, ...]]:
        """Return the calls of one kind that the stores got, and forget all calls so far."""
        told, self.stores.told = [said[1:] for said in self.stores.told if said[0] == what], []
        return told

    def pushed(self) -> tuple[list[str], list[str]]:
        """Digests that Redis was told of since the last call: of the living, and of the dead."""
        told, self.stores.told = self.stores.told, []
        return [said[1] for said in told if said[0] == "push"], [
            said[1] for said in told if said[0] == "write_tombstone"
        ]

    def waiting(self) -> dict[str, int]:
        """Return the number of entries that wait for a store, by kind. A copy of what was merged is for the other
        workers."""
        return {name: count for name, count in self.journal.counts().items() if count and name != "copies"}


@pytest.fixture
def host() -> Iterator[Host]:
    """Yield a host whose journal is in memory, which is a real journal, too."""
    host = Host()
    yield host
    host.journal.close()


# -- order and destinations --------------------------------------------------------------------------------------------


def test_revocations_go_first_then_carries_then_pushes_then_data(host: Host) -> None:
    """I29: a user who logged out is out before anything else is replayed. What a former id leaves to another stays
    behind the tombstone until it was carried."""
    host.write(B, "input_text")
    host.journal.queue_push(A)
    host.journal.revocations.note(C)
    host.journal.carry(Carry(C, A, "u", ["ui", "translation"]))
    host.stores.there[C] = {"ui": {"lang": b"1"}}
    assert [told[:2] for told in host.run()] == [
        ("kill", C), ("write_tombstone", C), ("copies",), ("merge", A), ("copies",), ("push", A), ("merge", B),
        ("copies",), ("write_tombstone", C),
    ]  # fmt: skip
    assert host.stores.tombstones == [(C, ("auth",)), (C, tuple(host.backend.table.categories))]
    assert host.waiting() == {}


@pytest.mark.parametrize(
    ("redis", "database", "first", "then"),
    [
        (True, False, [("write_tombstone", A, 0)], [("kill", A)]),
        (False, True, [("kill", A)], [("write_tombstone", A, 1)]),
        (False, False, [], [("kill", A), ("write_tombstone", A, 4)]),
    ],
)
def test_a_revocation_waits_until_both_stores_have_it(
    host: Host, redis: bool, database: bool, first: list[Any], then: list[Any]
) -> None:
    """Each store is told once; the entry leaves the journal after the second."""
    host.journal.revocations.note(A)
    assert host.run(redis=redis, database=database) == first
    assert host.waiting() == {"revocations": 1}
    host.stores.told = []
    assert host.run() == then
    assert host.waiting() == {}
    assert A in host.no_longer_in_use  # a command may have ended it, which counts nothing itself


PUSHED, TOMBSTONE = ("push", A, 500), ("write_tombstone", A, 3)
USED_LATER = AuthEntry(row(A, idle_expires_at=9000), 400)


@pytest.mark.parametrize(
    ("rows", "in_redis", "told"),
    [
        ({A: row(A)}, None, [PUSHED]),
        ({A: row(A, live=False)}, None, [TOMBSTONE]),  # a push is never a revival
        ({A: row(A, absolute_expires_at=1)}, None, [TOMBSTONE]),
        ({A: row(A, idle_expires_at=1)}, None, []),  # S4: another host may know of a later use
        # S3: the idle expiry that was moved in Redis while the database was down is told to it.
        ({A: row(A, idle_expires_at=8000)}, USED_LATER, [("idle_seen", A, 9000), PUSHED]),
        ({A: row(A)}, AuthEntry(None), [("kill", A)]),  # the tombstone is the newer word
        ({}, None, [("write_tombstone", A, 0)]),  # kind u without a row means dead
    ],
    ids=["valid", "dead", "expired", "idle", "used later", "dead in Redis", "without a row"],
)
def test_a_push_brings_redis_what_the_database_says_by_now(
    host: Host, rows: dict[str, AuthRow], in_redis: AuthEntry | None, told: list[Any]
) -> None:
    """It needs both stores."""
    host.stores.rows = rows
    if in_redis is not None:
        host.stores.entries[A] = in_redis
    host.journal.queue_push(A)
    for redis, database in ((True, False), (False, True)):
        assert host.run(redis=redis, database=database) == []
        assert host.waiting() == {"pushes": 1}
    assert host.run() == told
    assert host.waiting() == {}
    assert host.changed == ([A] if told == [("kill", A)] else [])


# -- log out everywhere ------------------------------------------------------------------------------------------------


def test_without_redis_a_logged_out_user_is_told_to_the_database_once(host: Host) -> None:
    """It holds from then on; the tombstones follow when Redis is back."""
    host.stores.of_user = [f"{number:043}" for number in range(BATCH + 1)]
    host.journal.revocations.note_user("7", until_ms=123)
    host.run(redis=False)
    assert [after for *_, after in host.told_about("kill_user_until")] == [
        "", host.stores.of_user[BATCH - 1], host.stores.of_user[BATCH],
    ]  # fmt: skip
    assert host.run(redis=False) == []
    assert host.waiting() == {"user_revocations": 1}
    host.run()
    assert host.pushed()[1] == host.stores.of_user
    assert host.waiting() == {}


def test_a_user_with_many_rows_keeps_no_other_work_waiting(host: Host) -> None:
    """After some of them others have their turn, and then it goes on where it was; in another worker too."""
    host.stores.of_user = [f"{number:043}" for number in range(AT_ONCE * BATCH + 1)]
    host.journal.revocations.note_user("7", epoch=4)
    host.run()
    assert host.pushed()[1] == host.stores.of_user[:-1]
    assert host.waiting() == {"user_revocations": 1}
    host.begin_anew()
    host.run()
    assert host.pushed() == ([], host.stores.of_user[-1:])
    assert host.waiting() == {}


def test_an_interrupted_user_goes_on_where_it_was(host: Host) -> None:
    """Sessions that Redis has not been told of are not left out."""
    host.stores.of_user = [f"{number:043}" for number in range(BATCH + 1)]
    host.journal.revocations.note_user("7", epoch=4)
    host.stores.failing = {"write_tombstone", "push"}
    assert host.replay().left is not None
    host.stores.failing = set()
    host.run()
    assert host.pushed()[1] == host.stores.of_user


# -- what changed around an incident -----------------------------------------------------------------------------------


def test_what_changed_around_an_incident_is_brought_to_redis(host: Host) -> None:
    """Valid rows are pushed, ended ones get tombstones, idle ones wait to be read; a minute more than asked for."""
    dead = row(C, live=False)
    host.stores.changed = [row(A), row(B, idle_expires_at=1), dead]
    assert host.resync.push_changes(5000)
    assert host.stores.told == [("changed_since", 65_000), ("push", A, 500), ("write_tombstone", C, 3)]
    assert host.memory.ended.is_dead(C)
    assert not host.memory.ended.is_dead(B)


def test_many_changed_rows_keep_no_other_work_waiting(host: Host) -> None:
    """After some of them others have their turn; then it goes on where it was, in any worker, and each is pushed once.
    A worker that noticed the incident a little earlier needs no round of its own."""
    host.stores.changed = [row(f"{number:043}") for number in range(AT_ONCE * PIPELINE + 1)]
    assert not host.resync.push_changes(5000)
    host.begin_anew()
    host.now += 1000
    assert host.resync.push_changes(30_000)
    assert host.pushed()[0] == [r.digest for r in host.stores.changed]
    assert host.resync.push_changes(30_000) and host.pushed() == ([], [])
    assert not host.resync.push_changes(90_000) and host.pushed()[0], "this is longer ago than what was done"


def test_what_changed_is_pushed_by_one_worker_at_a_time(host: Host) -> None:
    """While another one is at it, it waits; one that hangs is passed over."""
    host.stores.changed = [row(A)]
    with host.journal.alone():
        for host.seconds in (1.0, 6.9):
            assert not host.resync.push_changes(5000)
        host.seconds = 7.0
        assert host.resync.push_changes(5000)
    assert host.pushed()[0] == [A]


@pytest.mark.parametrize("has_journal", [True, False])
def test_an_interrupted_round_goes_on_where_it_was(
    host: Host, monkeypatch: pytest.MonkeyPatch, has_journal: bool
) -> None:
    """Each worker does it for itself where the journal cannot be used."""
    host.stores.changed = [row(f"{number:043}") for number in range(AT_ONCE * PIPELINE + 1)]
    if not has_journal:
        unusable = Mock(side_effect=StoreError("journal", ErrorClass.UNREACHABLE, "Test"))
        for owner, name in (
            (host.journal.file, "alone"),
            (host.journal.file, "connected"),
            (host.journal.file, "aside"),
        ):
            monkeypatch.setattr(owner, name, unusable)
    assert not host.resync.push_changes(5000)
    host.stores.failing = {"push"}
    with pytest.raises(StoreError):
        host.resync.push_changes(5000)
    host.stores.failing = set()
    assert host.resync.push_changes(5000)
    assert host.pushed()[0] == [r.digest for r in host.stores.changed]


def test_all_tombstones_that_only_this_host_answers_for_are_renewed(host: Host) -> None:
    """S6: the database does not know of them, so Redis must not forget them: the youngest as well as the oldest."""
    digests = [f"{number:043}" for number in range(3 * PIPELINE + 1)]
    host.journal.revocations.note(*digests, in_redis=True)
    host.journal.revocations.note(B, in_database=True)
    host.renew_tombstones()
    assert host.stores.told == [("write_tombstone", digest, 0) for digest in digests]
    assert host.waiting() == {"revocations": len(digests) + 1}


# -- data --------------------------------------------------------------------------------------------------------------


def test_data_is_merged_by_category_in_the_order_in_which_it_was_acknowledged(host: Host) -> None:
    """All of a category in one merge, and all merges in one round trip; of a user under the guard of the living."""
    host.write(A, "input_text")
    host.write(A, "lang", category="ui")
    host.write(A, "source_lang", None)
    host.add(A, "usage_count")
    host.write(B, "input_text", kind="a")
    host.write(A, "input_text", kind="a", shadow=True)
    assert host.run() == [
        ("merge", A, "translation", "alive", ["input_text", "source_lang", "usage_count"]),
        ("merge", A, "ui", "alive", ["lang"]),
        ("merge", B, "translation", "free", ["input_text"]),
        ("merge", f"{A} shadow", "translation", "free", ["input_text"]),
        ("copies",),
    ]
    assert len(host.stores.write_ids) == 1
    assert host.recorder.counters() == {"merged_fields": 6}
    assert host.losses() == {}
    assert host.waiting() == {}


def test_each_entry_becomes_the_step_that_its_basis_says(host: Host) -> None:
    """Values by what they were made from, additions under their id, wipes by their time; doubts go with them."""
    host.wipe(A, category="ui", moment=5, acknowledged=4)
    host.write(A, "seen", b"1", moment=5, base=b"0", acknowledged=6)
    host.write(A, "absent", b"1", moment=5, base=None)
    host.write(A, "blind", b"1", moment=7, base=None, basis=Basis.BLIND, doubts="write.1 ")
    host.write(A, "unseen", b"1", moment=8, base=None, basis=Basis.UNSEEN)
    host.write(A, "gone", None, moment=9, base=b"0")
    host.add(A, "n", 3, acknowledged=7)
    host.add(A, "m", 4, token="write.2", is_sent=True, moment=8)
    host.add(A, "o", 5, token="write.3", is_sent=True, moment=0)  # its sending knew no clock
    host.run()
    wiped, steps = (merge.steps for merge in host.stores.merges)
    assert wiped == [MergeStep(Operation.WIPE, WIPED_FIELD, b"", TIME, 5, acknowledged=4)]
    assert steps == [
        MergeStep(Operation.SET, "seen", b"1", SINCE, 5, b"0", acknowledged=6),
        MergeStep(Operation.SET, "absent", b"1", SINCE, 5),
        MergeStep(Operation.SET, "blind", b"1", TIME, 7, None, "write.1 "),
        MergeStep(Operation.SET, "unseen", b"1", ABSENT, 8),
        MergeStep(Operation.DELETE, "gone", b"", SINCE, 9, b"0"),
        MergeStep(Operation.ADD, "n", 3, "added.1", 0, acknowledged=7),  # never sent before: it cannot be in doubt
        MergeStep(Operation.ADD, "m", 4, "write.2", 8),
        MergeStep(Operation.ADD, "o", 5, "write.3", 1),  # 0 would say that it was never sent
    ]


@pytest.mark.parametrize("database", [True, False])
def test_data_that_redis_can_decide_about_needs_no_database(host: Host, database: bool) -> None:
    """Data of a visitor, of a shadow, and of a user whom Redis knows to be signed in is merged without the database;
    auth of a visitor or a shadow is such data, too."""
    for category in ("translation", "auth"):
        host.write(A, "input_text", kind="a", category=category)
        host.write(B, "input_text", kind="a", shadow=True, category=category)
    host.write(B, "input_text")
    assert [told[:2] for told in host.run(database=database)] == [
        ("merge", A), ("merge", f"{B} shadow"), ("merge", A), ("merge", f"{B} shadow"), ("merge", B), ("copies",),
    ]  # fmt: skip
    assert host.waiting() == {}


@dataclass(frozen=True)
class Met:
    """The situation in which a session's changes are merged.

    :param reply: of Redis.
    :param becomes: of the changes: ``merged``; ``waits``; ``raises``, which waits too; or why they are dropped.
    :param database: whether it answers.
    :param session: what else is known of the session.
    :param is_renamed: whether it was given another id just now: the request may be about to note where its data goes.
    """

    reply: Merged | StoreError
    becomes: str
    database: bool = True
    session: str = "a live row"
    is_renamed: bool = False


def refused(error_class: ErrorClass) -> StoreError:
    return StoreError("primary", error_class, "Test", sent=False)


GONE, DEAD, OVER = Merged("gone"), Merged("dead"), "session over"

MET = [
    Met(GONE, "merged"),  # Redis has lost it, and the database says that it lives: its record is pushed before
    Met(GONE, "waits", database=False),  # nothing else can say whether it lives
    *(Met(GONE, OVER, session=session) for session in ("a dead row", "no row", "a tombstone")),
    Met(GONE, "waits", session="a dead row", is_renamed=True),
    Met(GONE, "refused", session="a damaged row"),
    Met(DEAD, OVER),
    Met(DEAD, "waits", is_renamed=True),
    Met(DEAD, "waits", database=False),  # Redis alone does not know whether its data is about to go to another id
    *(Met(Merged("late"), "raises", database=database) for database in (True, False)),
    *(Met(refused(one), "refused") for one in (ErrorClass.DATA, ErrorClass.LOCAL)),  # it would be for ever
    *(Met(refused(one), "raises") for one in (ErrorClass.WRITE_REFUSED, ErrorClass.BUSY, ErrorClass.TOPOLOGY)),
]


@pytest.mark.parametrize("met", MET, ids=lambda met: f"{met.reply}, {met.session}, {met.database}: {met.becomes}")
def test_what_becomes_of_changes_that_redis_did_not_take(host: Host, met: Met) -> None:
    """Changes that Redis refuses wait or are dropped; those of another session are merged in any case. Waiting
    changes are merged when Redis takes them."""
    host.stores.answers[A] = met.reply
    host.stores.renamed_now = {A} if met.is_renamed else set()
    host.stores.rows = {"a live row": {A: row(A)}, "a dead row": {A: row(A, live=False)}}.get(met.session, {})
    host.stores.unreadable = {A} if met.session == "a damaged row" else set()
    if met.session == "a tombstone":
        host.stores.entries[A] = AuthEntry(None)
    host.write(A, "input_text")
    host.add(A, "usage_count")
    host.write(B, "input_text", kind="a")
    with pytest.raises(StoreError) if met.becomes == "raises" else nullcontext():
        host.run(database=met.database)
    waiting = [(entry.digest, entry.field) for entry in host.journal.pending_writes()]
    assert waiting == [(A, "input_text"), (A, "usage_count")] * (met.becomes in ("waits", "raises"))
    is_dropped = met.becomes in (OVER, "refused")
    assert host.losses() == ({("merge_dropped", met.becomes, "translation"): 2} if is_dropped else {})
    assert (("renamed", [A], 30_000) in host.stores.told) is (met.database and (met.is_renamed or met.becomes == OVER))
    host.stores.answers.clear()
    host.run()
    assert host.waiting() == {}
    assert len(host.losses()) == is_dropped


@pytest.mark.parametrize(
    ("outcome", "what", "cause"),
    [
        (Outcome.CONFLICT, "merge_conflicts", "written since"),
        (Outcome.LARGE, "merge_dropped", "large"),
        (Outcome.IN_DOUBT, "merge_dropped", "in doubt"),
        (Outcome.NO_NUMBER, "merge_dropped", "no number"),
    ],
)
def test_what_a_merge_leaves_out_is_counted_by_its_cause(host: Host, outcome: Outcome, what: str, cause: str) -> None:
    """I19: and sent as an event, with its category."""
    host.stores.answers[A] = Merged("merged", 9, (APPLIED, outcome, outcome))
    for key in ("a", "b", "c"):
        host.write(A, key, category="ui")
    host.run()
    assert host.recorder.counters() == {"merged_fields": 1, what: 2}
    assert host.losses() == {(what, cause, "ui"): 2}
    assert host.waiting() == {}


# -- age ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "sent"),
    [(0, ["*wiped", "old", "young"]), (OLDEST_MS, ["*wiped", "old", "young"]), (OLDEST_MS + 1, ["*wiped", "young"])],
)
def test_what_waited_for_longer_than_a_copy_is_shown_is_dropped(host: Host, age: int, sent: list[str]) -> None:
    """Field by field. But a wipe holds however long it waited (I20), and no worker of the host gives Redis back what
    was there before."""
    host.wipe(A, kind="a")
    host.write(A, "old", kind="a")
    host.now += age
    host.write(A, "young", kind="a")
    host.recovered()
    host.run()
    assert [step.name for step in host.stores.merges[0].steps] == [WIPED_FIELD, *sent[1:]]
    assert host.wiped == [(A, "translation", 9)]
    assert host.losses() == ({} if "old" in sent else {("merge_dropped", "too old", "translation"): 1})
    assert host.waiting() == {}


def test_how_long_something_waited_is_counted_until_the_recovery(host: Host) -> None:
    """I22: however long the replay takes, and however often it is interrupted, nothing becomes too old by it."""
    host.write(A, "input_text", kind="a")
    host.now += OLDEST_MS
    host.recovered()
    host.stores.unanswered = lost()
    with pytest.raises(StoreError):
        host.run()
    host.now += 10 * OLDEST_MS
    host.recovered()
    host.stores.unanswered, host.stores.told = None, []
    assert host.run()[0][:2] == ("merge", A)
    host.write(B, "input_text", kind="a")
    host.now += OLDEST_MS + 1
    host.recovered()
    host.run()
    assert host.losses() == {("merge_dropped", "too old", "translation"): 1}


# -- data under a former id --------------------------------------------------------------------------------------------


def carried(host: Host, kind: str = "u") -> None:
    host.journal.carry(Carry(C, A, kind, ["ui", "translation"]))
    host.stores.there[C] = {"ui": {"lang": b"1", "theme": b"2"}}


@pytest.mark.parametrize("kind", ["u", "a"])
def test_what_lies_under_a_former_id_is_brought_to_the_present_one(host: Host, kind: str) -> None:
    """Data of the former id goes only where the new id has none: whatever was written under the new id was written
    later, and what waits there does not lose against it."""
    carried(host, kind)
    host.run()
    [merge] = host.stores.merges
    assert (merge.digest, merge.category, merge.guard) == (A, "ui", "alive" if kind == "u" else "free")
    assert [(step.operation, step.name, step.value) for step in merge.steps] == [
        (Operation.RECORD, "", META % C[:8].encode()), (Operation.SET, "lang", b"1"), (Operation.SET, "theme", b"2"),
    ]  # fmt: skip
    assert {(step.mode, step.acknowledged) for step in merge.steps[1:]} == {(ABSENT, 1)}
    assert host.waiting() == {}


@pytest.mark.parametrize(("is_lost", "version"), [(True, 5), (False, 5), (False, 9)])
def test_what_the_host_knew_is_brought_where_redis_has_lost_it(host: Host, is_lost: bool, version: int) -> None:
    """A shard that comes back empty, for example. What it has is newer than what the host knew, or as new: its record
    says which writes are in it."""
    known = [SharedCopy(A, "ui", CategoryCopy(version, {"lang": b"known"}))]
    host.journal.carry(Carry(C, A, "u", ["ui"]), lambda: known)
    host.stores.there = {C: {} if is_lost else {"ui": {"lang": b"there"}}}
    host.run()
    [merge] = host.stores.merges
    assert [(step.name, step.value, step.mode) for step in merge.steps if step.operation is Operation.SET] == [
        ("lang", b"known" if is_lost else b"there", ABSENT)
    ]
    assert host.waiting() == {}


@pytest.mark.parametrize(("has_room", "left"), [(True, 0), (False, 1)], ids=["for deletions", "for nothing"])
def test_what_is_merged_and_finds_no_room_to_be_taken_out_is_not_merged_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, has_room: bool, left: int
) -> None:
    """I33: copies for siblings are left out then; where not even a deletion has room, this worker remembers it."""
    forget = host.journal.forget_writes

    def without_room(entries: Any, copies: Any, **more: Any) -> Any:
        if copies or not has_room:
            raise full()
        return forget(entries, copies, **more)

    host.write(A, "input_text")
    with monkeypatch.context() as patch:
        patch.setattr(host.journal, "forget_writes", without_room)
        host.run()
    assert (len(host.stores.merges), host.journal.counts()["writes"]) == (1, left)
    host.run()
    assert (len(host.stores.merges), host.waiting()) == (1, {})


def test_what_cannot_be_taken_out_for_another_reason_ends_the_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_IOERR")

    monkeypatch.setattr(host.journal, "forget_writes", refuse)
    host.write(A, "input_text")
    with pytest.raises(StoreError, match="SQLITE_IOERR"):
        host.run()


def test_no_worker_of_the_host_goes_by_a_copy_from_before_a_merge(host: Host) -> None:
    """I17: when the next outage begins."""
    host.memory.put_category(B, "translation", known(CategoryCopy(5, {})))
    host.write(B, "text")
    carried(host)
    host.stores.answers = {digest: Merged("merged", 9_000, (APPLIED,)) for digest in (A, B)}
    host.stores.version = 9_000
    host.run()
    is_outdated = host.journal.board.register.is_outdated
    assert is_outdated(B, "translation", 8_000)
    assert is_outdated(A, "ui", 8_000)
    assert not is_outdated(A, "ui", 9_000)
    copy = host.memory.category(B, "translation")
    assert copy is not None
    assert copy.version == 9_000


@pytest.mark.parametrize(("status", "sent"), [("merged", [8_000]), ("less", [8_000, 0])])
def test_a_merge_says_what_this_host_has_seen(host: Host, status: str, sent: list[int]) -> None:
    """I32: a server that has less has lost it, or it has run out: if no loss is found, it is merged all the same."""
    host.journal.board.register.note_version(A, "translation", 8_000)
    host.write(A, "text")
    host.stores.answers[A] = Merged(status)
    host.stores.version = 8_000
    with suppress(StoreError):  # it is not there yet
        host.replay()
    assert [merge.since for merge in host.stores.merges][: len(sent)] == sent


@pytest.mark.parametrize("what", ["change", "carry"])
def test_what_was_merged_waits_on_until_it_is_read_back(host: Host, what: str) -> None:
    """I25: a server that is lost right after a merge may take it along, and no other memory has it yet."""
    if what == "change":
        host.write(B, "text")
    else:
        carried(host)
    host.stores.failing_to_refresh = True
    waits = host.waiting()
    if what == "change":
        with pytest.raises(StoreError):
            host.replay()
    else:
        assert host.replay().left is not None
    assert host.waiting() == waits
    host.stores.failing_to_refresh = False
    host.run()
    assert host.waiting() == {}
    assert host.losses() == {}


def test_an_id_that_was_given_up_is_given_up_again_where_its_wipe_was_lost(host: Host) -> None:
    """I20: by a server that fell back to before it."""
    host.journal.carry(Carry(C, A, "a", ["ui"], left_us=5_000))
    host.stores.answers = {C: Merged("merged", 10, (APPLIED,))}  # and what is there then is of version 9
    with pytest.raises(StoreError):
        host.replay()
    assert host.waiting() == {"writes": 1}
    host.stores.version = 10
    host.run()
    assert host.waiting() == {}
    assert host.wiped == [(C, "ui", 10)]


def test_what_the_copy_of_a_carry_outdates_is_counted(host: Host) -> None:
    """A value that waits for the new id was made from less than is there by now: it is not merged, and that is said."""
    host.write(A, "text")
    carried(host)
    host.stores.there[C] = {"translation": {"text": b"2"}}
    host.run()
    assert host.losses() == {("merge_conflicts", "written since", "translation"): 1}
    assert host.waiting() == {}


def test_what_the_host_knew_of_a_former_id_is_brought_with_the_record_of_an_earlier_one(host: Host) -> None:
    """Redis has never known the later one. Without the record what waits would be a conflict with what is brought."""
    host.journal.board.announce_outage("primary")
    host.journal.board.publish_copies([SharedCopy(A, "ui", CategoryCopy(5, {"lang": b"1"}), kind="u")])
    host.stores.there = {C: {"ui": {"lang": b"1", "theme": b"2"}}, B: {}}
    host.journal.carry(Carry(C, B, "u", ["ui"]))
    host.journal.carry(Carry(B, A, "u", ["ui"]))
    host.run()
    assert [(merge.digest, [(step.operation, step.name) for step in merge.steps]) for merge in host.stores.merges] == [
        (A, [(Operation.RECORD, ""), (Operation.SET, "lang")]),
        (A, [(Operation.RECORD, ""), (Operation.SET, "lang"), (Operation.SET, "theme")]),
    ]


@pytest.mark.parametrize(
    ("given_back", "lately", "brought"),
    [
        (0, b"", {"lang": b"1", "theme": b"2"}),
        (5, b"", {"lang": b"1", "theme": b"2"}),
        (4, b"", {"lang": b"9"}),
        (4, b"\1theme\1write.1%016d%06x" % (6, 0), {"lang": b"9", "theme": b"2"}),
        (4, b"\1theme\1write.1%016d%06x" % (5, 0), {"lang": b"9"}),
    ],
)
def test_what_redis_was_given_back_of_a_former_id_may_be_older_than_what_the_host_knew(
    host: Host, given_back: int, lately: bytes, brought: dict[str, bytes]
) -> None:
    """I32: what was written there since is later than both."""
    host.journal.board.announce_outage("primary")
    host.journal.carry(Carry(C, A, "u", ["ui"]))
    host.journal.board.publish_copies([SharedCopy(A, "ui", CategoryCopy(5, {"lang": b"9"}), kind="u")])
    host.stores.there[C] = {"ui": {"lang": b"1", "theme": b"2"}}
    host.stores.given_back, host.stores.lately = given_back, lately
    host.run()
    assert {step.name: step.value for step in host.stores.merges[0].steps[1:]} == brought


@pytest.mark.parametrize(("seen_us", "is_lost"), [(4_000_000, True), (3_999_000, False)])
def test_what_has_run_out_under_a_former_id_is_no_loss(host: Host, seen_us: int, is_lost: bool) -> None:
    """It was to live for a second."""
    host.stores.clock_ms = 5000
    host.journal.board.register.note_version(C, "ui", seen_us)
    host.journal.carry(Carry(C, A, "u", ["ui"]))
    host.stores.there = {C: {}, A: {"ui": {}}}
    host.run()
    assert host.losses() == ({("writes_lost", "lost by redis", "ui"): 1} if is_lost else {})


def test_what_goes_on_from_where_it_is_brought_goes_on_afterwards(host: Host) -> None:
    """Two requests gave a session another id at once, and one has taken that back: the session kept its id."""

    def put(db: Any) -> None:
        codec = host.journal.codec
        for carry in (Carry(C, B, "u", ["ui"]), Carry(B, D, "u", ["ui"]), Carry(B, A, "u", ["ui"])):
            put_carry(db, carry, now_ms=host.now, codec=codec)
        take_carry_back(db, Carry(B, D, "u", ["ui"]), codec)

    host.journal.file.transaction(put)
    host.stores.there = {C: {"ui": {"lang": b"1"}}, B: {"ui": {"lang": b"1"}}}
    host.run()
    assert [merge.digest for merge in host.stores.merges] == [B, A]
    assert len(host.stores.write_ids) == 2


def test_that_nothing_is_there_behind_a_carry_may_be_since_a_loss(host: Host) -> None:
    """I32: what this worker keeps of it began from nothing then, and says nothing of what was there before."""
    host.journal.carry(Carry(C, A, "u", ["ui"]))
    host.stores.there = {C: {}, A: {}}
    host.run()
    copy = host.memory.category(A, "ui")
    assert copy is not None
    assert (copy.fields, copy.began) == ({}, host.stores.version)


def test_a_worker_that_announces_nothing_new_has_no_outage_any_more(host: Host) -> None:
    """The copies are there for siblings that are in an outage, and this one was killed in its own."""
    copies, board = host.recovery.steps.copies, host.journal.board
    board.announce_outage("primary")
    board.publish_copies([SharedCopy(A, "ui", CategoryCopy(5, {"lang": b"1"}), kind="u")])
    for is_there in (True, False):
        copies.clear()
        assert bool(board.shared_copies()) is is_there
        host.seconds += LINGER
        host.now += round(LINGER * 1000)


@pytest.mark.parametrize(
    ("outcome", "loss"),
    [
        (Outcome.CONFLICT, ("merge_conflicts", "written since", "ui")),
        (Outcome.LARGE, ("merge_dropped", "large", "ui")),
    ],
)
def test_what_the_present_id_does_not_get_is_counted(host: Host, outcome: Outcome, loss: tuple[str, str, str]) -> None:
    """Another host has written to it. What a later former id had in place of an earlier one is no loss."""
    host.stores.there = {C: {"ui": {"lang": b"1"}}, B: {"ui": {"lang": b"2"}}}
    host.journal.carry(Carry(C, B, "u", ["ui"]))
    host.journal.carry(Carry(B, A, "u", ["ui"]))
    host.stores.answers[A] = Merged("merged", 9, (APPLIED, outcome))
    host.run()
    assert host.losses() == {loss: 1}


@pytest.mark.parametrize("is_renamed", [True, False], ids=["renamed just now", "ended"])
@pytest.mark.parametrize("status", ["late", "gone", "dead"])
@pytest.mark.parametrize("database", [True, False])
def test_a_carry_that_was_not_made_waits_unless_the_session_is_over(
    host: Host, status: str, database: bool, is_renamed: bool
) -> None:
    """A session that Redis has lost is pushed before. Of one that was given another id just now the journal is about to
    be told where its data goes."""
    carried(host)
    host.stores.answers[A] = Merged(status)
    host.stores.renamed_now = {A} if is_renamed else set()
    host.run(database=database)
    is_over = status == "dead" and database and not is_renamed
    is_done = is_over or (status == "gone" and database)
    assert host.waiting() == ({} if is_done else {"carries": 1})
    causes = {("merge_dropped", "session over", name): 1 for name in ("ui", "translation")}
    assert host.losses() == (causes if is_over else {})
    host.stores.answers.clear()
    host.run()
    assert host.waiting() == {}


@pytest.mark.parametrize("failing", ["copies", "merge"])
def test_a_carry_that_was_interrupted_is_made_again(host: Host, failing: str) -> None:
    """Doing it twice loses nothing."""
    carried(host)
    host.stores.failing = {failing}
    assert host.replay().left is not None
    assert host.waiting() == {"carries": 1}
    host.stores.failing = set()
    host.run()
    assert host.waiting() == {}


@pytest.mark.parametrize("database", [True, False])
def test_what_is_being_carried_stays_behind_its_tombstone_and_is_not_overtaken(host: Host, database: bool) -> None:
    """I29: the end of the former id waits for nothing; its data stays until it was brought, and what waits for the
    present one comes behind it. The tombstone is sent once, however often the carry is tried."""
    carried(host)
    host.journal.revocations.note(C, in_database=True)
    host.write(A, "input_text", category="ui")
    host.stores.answers[A] = Merged("late")
    host.run(database=database)
    assert {merge.digest for merge in host.stores.merges} == {A}
    assert host.stores.tombstones == [(C, ("auth",))]
    assert host.waiting() == {"carries": 1, "revocations": 1, "writes": 1}
    host.run(database=database)
    assert host.stores.tombstones == [(C, ("auth",))]
    host.stores.answers.clear()
    host.stores.told.clear()
    told = [told[:2] for told in host.run()]
    assert told.index(("merge", A)) < told.index(("write_tombstone", C))
    assert host.stores.tombstones[1:] == [(C, tuple(host.backend.table.categories))]
    assert [step.name for step in host.stores.merges[-1].steps] == ["input_text"]
    assert host.waiting() == {}


def test_of_what_is_still_being_carried_no_copy_is_published(host: Host) -> None:
    """Changes wait that were made from data yet to come; a copy without that data would make them look outdated."""
    host.journal.carry(Carry(C, A, "u", ["ui"]))
    host.stores.there = {C: {"ui": {"lang": b"1"}}, A: {}}
    host.journal.carry(Carry(A, B, "u", ["ui"]))
    host.write(B, "lang", b"2", base=b"1", category="ui")
    host.stores.answers[B] = Merged("late")
    host.run()
    assert host.journal.overlay(ref(B)).copies == {}
    assert host.waiting() == {"carries": 1, "writes": 1}


@pytest.mark.parametrize("left_us", [0, 5])
def test_the_host_keeps_nothing_of_a_former_id_that_was_given_up(host: Host, left_us: int) -> None:
    """I20: what a worker shared before would be shown in the next outage, and given back to a Redis that lost data."""
    host.journal.board.announce_outage("primary")
    host.journal.board.publish_copies([SharedCopy(C, "ui", CategoryCopy(5, {"lang": b"1"}), kind="a")])
    host.journal.carry(Carry(C, A, "a", ["ui"], left_us))
    host.stores.there[C] = {"ui": {"lang": b"1"}}
    host.stores.meanwhile = lambda: host.stores.there.update({C: {"ui": {}}})
    host.run()
    assert host.journal.overlay(ref(C)).copies["ui"].fields == ({} if left_us else {"lang": b"1"})


# -- what is given up -------------------------------------------------------------------------------------------------


def fails(*arguments: Any, **options: Any) -> Any:
    raise KeyError("what no one has thought of")


def give_up(host: Host) -> list[ChangesGivenUp]:
    return [event for event in host.lost if isinstance(event, ChangesGivenUp)]


@pytest.mark.parametrize("kind", ["a", "u"])
def test_i29_a_change_that_nothing_can_handle_is_given_up_and_the_next_one_goes_on(host: Host, kind: str) -> None:
    """It is counted, told once, and told whether it was a user's."""
    host.stores.surprising = {C}
    for digest in (A, C, B):
        host.write(digest, "input_text", kind=kind)
    host.write(C, "source_lang", kind=kind)
    host.run()
    assert {merge.digest for merge in host.stores.merges} == {A, B}
    assert host.losses() == {("merge_dropped", "given up", "translation"): 2}
    assert give_up(host) == [ChangesGivenUp(C[:8], 2, "KeyError", of_user=kind == "u")]
    assert host.waiting() == {}


def test_i29_ordinary_auth_that_nothing_can_handle_is_given_up(host: Host) -> None:
    host.stores.during_update = fails
    host.write(A, "daily_limit", category="auth", moment=3)
    host.write(B, "input_text")
    host.run()
    assert host.losses() == {("merge_dropped", "given up", "auth"): 1}
    assert [merge.digest for merge in host.stores.merges] == [B]


def test_i29_a_carry_that_nothing_can_handle_is_given_up_and_its_former_id_ends(host: Host) -> None:
    """The data of the former id goes then: it waits for nothing any more."""
    host.journal.carry(Carry(C, A, "u", ["ui"]))
    host.journal.carry(Carry(D, B, "u", ["ui"]))
    host.stores.there = {C: {"ui": {"lang": b"1"}}, D: {"ui": {"lang": b"1"}}}
    host.journal.revocations.note(C, in_database=True)
    host.stores.surprising = {A}
    host.run()
    assert {merge.digest for merge in host.stores.merges} == {B}
    assert host.losses() == {("merge_dropped", "given up", "ui"): 1}
    assert give_up(host) == [ChangesGivenUp(A[:8], 1, "KeyError", of_user=True)]
    assert host.stores.tombstones[-1] == (C, tuple(host.backend.table.categories))
    assert host.waiting() == {}


def test_i29_what_a_carry_was_to_bring_stays_under_the_former_id_if_that_is_given_up(host: Host) -> None:
    """A visitor's: it is nowhere else."""
    host.journal.carry(Carry(C, A, "a", ["ui"], left_us=5_000))
    host.stores.there = {C: {"ui": {"lang": b"1"}}}
    host.stores.surprising = {A}
    host.run()
    assert len(give_up(host)) == 1
    assert host.stores.merges == []
    assert host.waiting() == {}


@pytest.mark.parametrize("of_user", [True, False])
def test_i29_a_revocation_that_nothing_can_handle_stays_and_all_else_goes_on(
    host: Host, of_user: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is for ever, so it is tried for ever. The log says so once."""
    if of_user:
        host.journal.revocations.note_user("8", until_ms=5)
        host.stores.surprising = {"8"}
    else:
        host.journal.revocations.note(C)
        host.stores.surprising = {C}
    host.journal.revocations.note(A)
    host.write(B, "input_text")
    for _ in range(3):
        host.run()
    assert host.stores.tombstones == [(A, tuple(host.backend.table.categories))]
    assert [merge.digest for merge in host.stores.merges] == [B]
    assert host.waiting() == {"user_revocations" if of_user else "revocations": 1}
    assert caplog.text.count("a step of the recovery failed with KeyError") == 1
    host.stores.surprising = set()
    host.run()
    assert host.waiting() == {}


def test_i29_a_kind_that_cannot_be_read_keeps_no_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.journal.revocations.note(A)
    host.write(B, "input_text")
    monkeypatch.setattr(host.journal, "pending_pushes", fails)
    host.run()
    assert host.waiting() == {}


@pytest.mark.parametrize(
    ("table", "damage", "category"),
    [
        ("writes", "operation = 'x'", "translation"),
        ("writes", "operation = 'x', category = 'y'", "unknown"),
        ("carries", "categories = x'00'", "unknown"),
    ],
)
def test_d34_a_damaged_entry_is_counted_when_it_is_removed(
    host: Host, table: str, damage: str, category: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is counted as a loss, even if the changed category cannot be read."""
    host.write(A, "input_text")
    host.journal.carry(Carry(C, B, "u", ["ui"]))
    host.journal.file.transaction(lambda db: db.execute(f"UPDATE {table} SET {damage}"))
    host.run()
    assert host.losses() == {("merge_dropped", "damaged entry", category): 1}
    assert caplog.text.count("1 damaged entries are removed from the journal") == 1
    assert host.waiting() == {}


# -- a reply that was lost ---------------------------------------------------------------------------------------------


def lost() -> StoreError:
    return StoreError("primary", ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True)


def test_what_was_sent_is_sent_again_and_known_by_the_id_of_its_first_sending(host: Host) -> None:
    """Values name the write by which Redis may have them; additions keep their id, and the moment of their sending."""
    host.wipe(A)
    host.write(A, "input_text", b"2", basis=Basis.BLIND)
    host.add(A, "usage_count", 5)
    host.add(A, "usage_count", 6, token="added.2")
    host.stores.unanswered = lost()
    with pytest.raises(StoreError) as caught:
        host.run()
    assert caught.value is host.stores.unanswered
    assert host.losses() == {}
    host.add(A, "usage_count", 7, token="added.3")
    host.stores.unanswered, host.stores.clock_ms = None, 900
    host.run()
    first, second = host.stores.write_ids
    assert first != second
    [before, after] = [merge.steps for merge in host.stores.merges]
    assert [step.doubts for step in before] == ["", "", ""]
    assert [(step.operation, step.doubts) for step in after[:2]] == [
        (Operation.WIPE, f"{first} "), (Operation.SET, f"{first} "),
    ]  # fmt: skip
    assert [(step.value, step.mode, step.moment) for step in after[2:]] == [
        (11, "added.1", 700_000), (7, "added.3", 0),
    ]  # fmt: skip
    assert host.waiting() == {}


def test_what_fails_for_long_is_sent_under_one_id(host: Host) -> None:
    """Else an entry would grow with each try, and so would what is sent and searched."""
    host.write(A, "input_text", b"2")
    host.write(A, "source_lang", b"3", doubts="write.0 ")
    host.stores.unanswered = lost()
    for _ in range(20):
        with pytest.raises(StoreError):
            host.run()
    assert {merge.write_id for merge in host.stores.merges} == {"write.0"}
    assert {entry.doubts for entry in host.journal.pending_writes()} == {"write.0 "}


@pytest.mark.parametrize("what", ["value", "addition"])
def test_what_is_changed_before_it_is_sent_is_not_sent_as_it_was(
    host: Host, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A request was faster than the sending: the old value would look like another host's newer one, and an addition
    that has grown would be taken for made. Both are sent as they are now."""

    def change(by: int) -> None:
        if what == "value":
            host.write(A, "key", b"%d" % by)
        else:
            host.add(A, "key", by)

    mark_sent, changes = host.journal.mark_sent, iter([2])

    def late(*arguments: Any) -> Any:
        for by in changes:
            change(by)
        return mark_sent(*arguments)

    change(1)
    host.write(A, "other")
    monkeypatch.setattr(host.journal, "mark_sent", late)
    host.run()
    sent = [step.value for merge in host.stores.merges for step in merge.steps if step.name == "key"]
    assert sent == [b"2" if what == "value" else 3]
    assert host.waiting() == {}


# -- what the other workers see ----------------------------------------------------------------------------------------


def test_what_was_merged_is_shown_to_all_workers(host: Host) -> None:
    """To those that cannot reach Redis by the journal, in the place of the entries, and if this worker ends; to this
    one by its own copy."""
    host.seconds = 60  # since the recovery
    host.write(A, "input_text")
    host.write(A, "input_text", kind="a", shadow=True)
    host.run()
    copy = CategoryCopy(9, {"text": b"a"})
    assert content(host.memory.category(A, "translation")) == copy
    assert host.journal.overlay(ref(A)).copies == {"translation": copy}
    assert host.waiting() == {}


# -- auth --------------------------------------------------------------------------------------------------------------


def test_auth_goes_to_the_database_and_from_there_to_redis(host: Host) -> None:
    """Ordinary auth keys that were written while the database was down."""
    host.write(A, "daily_limit", b"5", category="auth", moment=3)
    host.write(A, "session_token", None, category="auth", moment=3)
    assert host.run() == [
        ("push", A, 500),
        ("update", A, {"_user_id": b'"7"', "daily_limit": b"5"}),
        ("push", A, 500),
    ]
    assert host.stores.rows[A].version == 4
    assert host.changed == [A]
    assert host.waiting() == {}


@pytest.mark.parametrize(("field", "value"), [("user_role", b'"admin"'), ("_user_id", b'"8"'), ("user_role", None)])
def test_a_forged_entry_changes_no_user_and_no_right(host: Host, field: str, value: bytes | None) -> None:
    """This package lets none wait here, so that an entry which has one was put there by another program."""
    host.stores.rows[A] = row(A, payload={"_user_id": b'"7"', "user_role": b'"editor"'})
    host.write(A, field, value, category="auth", moment=3)
    host.write(A, "daily_limit", b"5", category="auth", moment=3)
    host.run()
    assert host.stores.rows[A].payload == {"_user_id": b'"7"', "user_role": b'"editor"', "daily_limit": b"5"}
    assert (host.losses(), host.waiting()) == ({("merge_conflicts", "written since", "auth"): 1}, {})


@pytest.mark.parametrize(
    ("seen", "base", "lost_races", "applied"),
    [
        *((3, b"1", 0, True), (2, b"1", 0, False), (2, b"5", 0, True), (2, None, 0, False), (2, b"9", 0, False)),
        *((0, b"5", 0, True), (0, b"5", 2, True), (3, b"1", 2, False)),  # another one was faster: once more
    ],
)
def test_auth_that_was_changed_elsewhere_is_a_conflict(
    host: Host, seen: int, base: bytes | None, lost_races: int, applied: bool
) -> None:
    """Auth is compared like all data: the row or the field must be as the host saw it; else the other change stays,
    and the conflict is counted."""
    host.stores.rows[A] = row(A, payload={"daily_limit": b"5"})
    host.stores.lost_races = lost_races
    host.write(A, "daily_limit", b"9", category="auth", moment=seen, base=base)
    host.run()
    assert (host.stores.rows[A].payload["daily_limit"] == b"9") is applied
    assert host.recorder.counters()["merged_fields"] == int(applied)
    assert host.losses() == ({} if applied else {("merge_conflicts", "written since", "auth"): 1})
    assert host.waiting() == {}


def test_what_waits_for_the_database_keeps_nothing_from_redis(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis gets its changes, however much waits for the database, and however old that is."""
    monkeypatch.setattr(steps, "PIPELINE", 20)
    for number in range(21):
        host.write(f"{number:043}", "daily_limit", category="auth")
    host.write(A, "input_text", kind="a")
    assert host.run(database=False)[0] == ("merge", A, "translation", "free", ["input_text"])
    assert host.waiting() == {"writes": 21}


def test_what_is_written_again_during_its_merge_was_made_from_what_was_merged(host: Host) -> None:
    """The base of the new entry is the merged value, also where Redis does not remember that: it has lost the
    record, or the session has another id by now."""
    host.write(A, "text", b"2", base=b"1")
    merge_all = host.stores.merge_all

    def slow(*arguments: Any, **options: Any) -> Any:
        host.stores.merge_all = merge_all  # type: ignore[method-assign]
        replies = merge_all(*arguments, **options)
        host.write(A, "text", b"3", base=b"2")
        return replies

    host.stores.merge_all = slow  # type: ignore[method-assign]
    host.replay(seconds=0)
    [waiting] = host.journal.pending_writes()
    assert (waiting.value, waiting.base, waiting.moment) == (b"3", b"2", 1)


def test_auth_that_is_written_again_during_its_update_is_no_conflict_with_itself(host: Host) -> None:
    """A locked database takes its time; what is written meanwhile was made from what is on its way."""
    host.stores.rows[A] = row(A, payload={"daily_limit": b"0"})
    host.write(A, "daily_limit", b"1", category="auth", moment=3, base=b"0")
    values = [b"2"]

    def meanwhile() -> None:
        while values:
            host.write(A, "daily_limit", values.pop(), category="auth", moment=3, base=b"0")

    host.stores.during_update = meanwhile
    host.run()
    host.run()
    assert host.stores.rows[A].payload == {"daily_limit": b"2"}
    assert (host.waiting(), host.losses()) == ({}, {})


@pytest.mark.parametrize("anew", [False, True], ids=["other fields", "the same field"])
def test_siblings_that_write_on_do_not_prolong_a_run(host: Host, anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All entries from before the run are merged; what siblings write meanwhile is for another run, however much
    that is."""
    batch, numbers = 20, count()
    monkeypatch.setattr(steps, "PIPELINE", batch)

    def meanwhile() -> None:
        host.seconds += 1.0
        host.write(A, "input_text" if anew else f"text_{next(numbers)}", b"2")

    for number in range(2 * batch):
        host.write(A, f"field_{number}")
    host.write(A, "input_text", b"1")
    host.stores.meanwhile = meanwhile
    host.run()
    sent = {name for _, _, _, fields in host.told_about("merge") for name in fields}
    assert sent >= {"input_text", *(f"field_{number}" for number in range(2 * batch))}
    assert host.waiting() == {"writes": 1}


# -- interruptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["kill", "write_tombstone", "push", "merge"])
def test_an_interrupted_run_loses_nothing(host: Host, failing: str) -> None:
    """The error goes to the caller; the next run does what is left, and doing some of it again does no harm."""
    host.journal.revocations.note(C)
    host.journal.queue_push(A)
    host.write(B, "input_text")
    host.stores.failing = {failing, B}
    with pytest.raises(StoreError):
        host.run()
    assert host.waiting()["writes"] == 1
    host.stores.failing = set()
    host.stores.told = []
    assert ("merge", B, "translation", "alive", ["input_text"]) in host.run()
    assert host.waiting() == {}


@pytest.mark.parametrize(
    ("failing", "damaged", "stays"),
    [({B}, set(), [B]), ({A, B}, set(), None), ({B}, {A, D}, [A, B, D])],
    ids=["one", "two are a store that does not answer", "an error of data says nothing about the store"],
)
def test_entries_that_fail_keep_no_other_from_its_store(
    host: Host, failing: set[str], damaged: set[str], stays: list[str] | None
) -> None:
    """A row may be locked. It is not forgotten, and the caller is told. Else every single one would be waited for.

    :param stays: those that wait still; None: all, and nothing was told.
    """
    everything = [A, B, D, C]
    for digest in everything:
        host.journal.revocations.note(digest)
    host.stores.failing, host.stores.damaged = failing, damaged
    if stays is None:
        with pytest.raises(StoreError):
            host.replay()
    else:
        error = host.replay().left
        assert error is not None and error.error_class is ErrorClass.UNREACHABLE
    waiting = [entry.digest for entry in host.journal.revocations.pending()]
    assert waiting == (everything if stays is None else stays)
    assert [digest for digest, *_ in host.told_about("write_tombstone")] == [d for d in everything if d not in waiting]
