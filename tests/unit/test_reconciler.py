"""What the journal holds goes home: in which order, to whom, and what is dropped. A real journal, stores that note."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from flask_langpont_session.config import load_settings
from flask_langpont_session.metrics import Recorder
from flask_langpont_session.reconciler import _AT_ONCE, _BATCH, _PIPELINE, OLDEST_WRITE_MS, Reconciler
from flask_langpont_session.stores.base import AuthRow, CategoryCopy, Changes, ErrorClass, Position, StoreError
from flask_langpont_session.stores.journal import Journal
from flask_langpont_session.stores.journal_entries import Claim, Settlement
from flask_langpont_session.stores.local import LocalCopies
from flask_langpont_session.stores.redis_records import Answer, AuthEntry, Merged

A, B, C = "a" * 43, "b" * 43, "c" * 43
FAR = 4_000_000_000_000


def row(digest: str, **changes: Any) -> AuthRow:
    return replace(AuthRow(digest, "7", 3, True, {"_user_id": b'"7"'}, 0, 0, FAR, FAR, 1000), **changes)


class Stores:
    """Redis and the database: they note what they are told, in one list, and answer as they are set to."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.rows: dict[str, AuthRow] = {A: row(A), B: row(B)}
        self.fence = SimpleNamespace(identity="x", canary=None)
        self.entries: dict[str, AuthEntry] = {}
        self.changed: list[AuthRow] = []
        self.successors: dict[str, list[str]] = {}
        self.of_user: list[str] = []
        self.lost_races = 0
        self.pushed = "pushed"
        self.merged: Merged | StoreError = Merged("merged", 1, 0, 2)
        self.failing: set[str] = set()
        self.damaged: set[str] = set()

    def tell(self, *what: Any) -> None:
        about = {item for item in what if isinstance(item, str)}
        if about & self.failing:
            raise StoreError("primary", ErrorClass.UNREACHABLE, "Test")
        if about & self.damaged:
            raise StoreError("primary", ErrorClass.DATA, "Test")
        self.told.append(what)

    # Redis

    def time_ms(self, *, timeout: float) -> int:
        return 500

    def read(self, digest: str, lives_ms: Any, *, kind: str, timeout: float) -> Answer:
        copies = {category: CategoryCopy(2, {"text": b"1"}) for category in lives_ms if category != "auth"}
        return Answer(500, self.entries.get(digest), copies)

    def settle(self, rows: Any, dead: Any, categories: Any, *, stamp_ms: int, timeout: float) -> None:
        self.tell("settle", [row.digest for row, _ in rows], [digest for digest, _ in dead])

    def bury(self, digest: str, version: int, categories: Any, *, timeout: float) -> None:
        self.tell("bury", digest, version)

    def push(self, pushed: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        self.tell("push", pushed.digest, stamp_ms)
        return self.pushed

    def merge(
        self, digest: str, category: str, fields: Any, *, guard: str, life_ms: int, timeout: float, shadow: bool
    ) -> Merged:
        self.tell("merge", digest + (" shadow" if shadow else ""), category, guard, [f.name for f in fields])
        if isinstance(self.merged, StoreError):
            raise self.merged
        return self.merged

    # the database

    def kill(self, digest: str, *, timeout: float) -> int | None:
        self.tell("kill", digest)
        return 4

    def revoke(self, digest: str, *, timeout: float) -> list[tuple[str, int]]:
        dead = [(digest, self.kill(digest, timeout=timeout) or 0)]
        return dead + [(successor, 2) for successor in self.successors.get(digest, [])]

    def kill_user_until(
        self, user_id: str, until_ms: int, timeout: float, *, epoch: int, after: str, limit: int
    ) -> list[str]:
        self.tell("kill_user_until", user_id, until_ms, epoch, after)
        return [digest for digest in self.of_user if digest > after][:limit]

    def changed_since(self, ms_ago: int, after: Position | None, limit: int) -> Changes:
        self.tell("changed_since", after or ms_ago)
        begin = after[0] + 1 if after else 0
        part = self.changed[begin : begin + limit]
        return Changes(part, (begin + limit - 1, part[-1].digest) if len(part) == limit else None)

    def load(self, digest: str, *, idle_ms: int, idle_seen: int | None, timeout: float) -> AuthRow | None:
        if idle_seen is not None:
            self.tell("idle_seen", digest, idle_seen)
        return self.rows.get(digest)

    def update(self, digest: str, *, payload: Any, **rest: Any) -> AuthRow | None:
        self.tell("update", digest, payload)
        if self.lost_races:
            self.lost_races -= 1
            self.rows[digest] = replace(self.rows[digest], version=rest["seen"] + 1)
            return None
        self.rows[digest] = replace(self.rows[digest], payload=payload, version=rest["seen"] + 1)
        return self.rows[digest]


class Host:
    """One host after an outage."""

    def __init__(self, folder: Path) -> None:
        app = Flask("app", instance_path=str(folder))
        app.testing = True
        settings = load_settings(app)
        self.now = 1_000_000_000_000
        self.stores = Stores()
        self.journal = Journal(folder / "journal", clock=lambda: self.now / 1000)
        self.journal.open()
        self.recorder = Recorder()
        self.local = LocalCopies(10, 60)
        self.no_longer_in_use: list[str] = []
        self.changed: list[str] = []
        repository: Any = SimpleNamespace(
            journal=self.journal,
            primary=self.stores,
            database=self.stores,
            table=settings.table,
            settings=settings,
            local=self.local,
            recorder=self.recorder,
            life_of=lambda category, kind, life: 1000,
            no_longer_in_use=self.no_longer_in_use.append,
            row_changed=self.changed.append,
            health=SimpleNamespace(locate=lambda digest: ""),
            store=lambda name: self.stores,
        )
        self.reconciler = Reconciler(repository, now_ms=lambda: self.now)

    def write(self, digest: str, key: str, value: bytes | None = b"1", **more: Any) -> None:
        about: dict[str, Any] = {"kind": "u", "category": "translation", "base_version": 1, **more}
        self.journal.write(digest, changes={key: value}, base={key: b"0"}, **about)

    def add(self, digest: str, key: str, by: int = 1) -> None:
        self.journal.increment(digest, kind="u", category="translation", field=key, by=by)

    def run(self, *, redis: bool = True, database: bool = True) -> list[tuple[Any, ...]]:
        assert self.reconciler.run(redis=redis, database=database) is None
        return self.stores.told

    def told_about(self, what: str) -> list[tuple[Any, ...]]:
        """What the stores were told of one sort since the last time that somebody asked."""
        told, self.stores.told = [said[1:] for said in self.stores.told if said[0] == what], []
        return told

    def settled(self) -> tuple[list[str], list[str]]:
        """Of whom Redis was told since the last time that somebody asked: the living, and the dead."""
        told = self.told_about("settle")
        return [digest for live, _ in told for digest in live], [digest for _, dead in told for digest in dead]

    def waiting(self) -> dict[str, int]:
        """For a store; a copy of what came home is for the other workers."""
        return {name: count for name, count in self.journal.counts().items() if count and name != "copies"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.journal.close()


# -- order and destinations --------------------------------------------------------------------------------------------


def test_revocations_go_first_then_pushes_then_data(host: Host) -> None:
    """Whoever logged out is out before anything else is brought home."""
    host.write(B, "input_text")
    host.journal.queue_push(A)
    host.journal.revoke(C)
    assert [told[:2] for told in host.run()] == [
        ("kill", C), ("bury", C), ("push", A), ("push", B), ("merge", B),
    ]  # fmt: skip
    assert host.waiting() == {}


def test_a_tombstone_carries_the_version_of_the_database(host: Host) -> None:
    """The kill counts the row's version; the record in Redis says the same."""
    host.journal.revoke(A)
    assert host.run() == [("kill", A), ("bury", A, 4)]
    assert host.no_longer_in_use == [A]  # a command may have ended it, which counts nothing itself


def test_a_session_that_had_been_given_another_id_is_revoked_under_that_one_too(host: Host) -> None:
    """No worker of the host goes on believing what it was told of that one."""
    host.stores.successors[A] = [B]
    host.journal.revoke(A)
    assert host.run() == [("kill", A), ("bury", A, 4), ("bury", B, 1)]
    assert host.changed == [B]
    assert host.waiting() == {}


@pytest.mark.parametrize(
    ("redis", "database", "first", "then"),
    [
        (True, False, [("bury", A, 0)], [("kill", A)]),
        (False, True, [("kill", A)], [("bury", A, 1)]),
        (False, False, [], [("kill", A), ("bury", A, 4)]),
    ],
)
def test_a_revocation_waits_until_both_stores_have_it(
    host: Host, redis: bool, database: bool, first: list[Any], then: list[Any]
) -> None:
    """Each store hears of it once; the entry leaves the journal after the second."""
    host.journal.revoke(A)
    assert host.run(redis=redis, database=database) == first
    assert host.waiting() == {"revocations": 1}
    host.stores.told = []
    assert host.run() == then
    assert host.waiting() == {}


def test_a_push_needs_both_stores(host: Host) -> None:
    """What is to be pushed is what the database says now."""
    host.journal.queue_push(A)
    for redis, database in ((True, False), (False, True)):
        assert host.run(redis=redis, database=database) == []
        assert host.waiting() == {"pushes": 1}
    assert host.run() == [("push", A, 500)]


@pytest.mark.parametrize("change", [{"live": False}, {"absolute_expires_at": 1}])
def test_a_session_that_is_over_is_buried_instead_of_pushed(host: Host, change: dict[str, Any]) -> None:
    """A push is never a revival."""
    host.stores.rows[A] = row(A, **change)
    host.journal.queue_push(A)
    assert host.run() == [("bury", A, 3)]
    assert host.waiting() == {}


def test_nobody_is_buried_for_being_idle(host: Host) -> None:
    """S4: another host may know of a later use; the read that finds out decides."""
    host.stores.rows[A] = row(A, idle_expires_at=1)
    host.journal.queue_push(A)
    assert host.run() == []
    assert host.waiting() == {}


def test_a_use_that_only_redis_knows_is_made_good(host: Host) -> None:
    """S3: the idle expiry that was moved in Redis while the database was down is told to it."""
    host.stores.entries[A] = AuthEntry(row(A, idle_expires_at=9000), 400)
    host.journal.queue_push(A)
    assert host.run() == [("idle_seen", A, 9000), ("push", A, 500)]


def test_a_row_that_redis_knows_to_be_dead_is_killed(host: Host) -> None:
    """The tombstone is the newer word: nobody writes one for a session that lives."""
    host.stores.entries[A] = AuthEntry(None)
    host.journal.queue_push(A)
    assert host.run() == [("kill", A)]
    assert host.changed == [A]


def test_a_session_without_a_row_is_buried(host: Host) -> None:
    """Kind u without a row means dead."""
    host.journal.queue_push(C)
    assert host.run() == [("bury", C, 0)]


# -- log out everywhere ------------------------------------------------------------------------------------------------


def test_a_user_is_logged_out_by_time(host: Host) -> None:
    """S7, S8: what began until that moment dies, all of it is settled in Redis and here; the epoch is not touched."""
    host.stores.of_user = [A, B]
    host.journal.revoke_user("7", until_ms=123)
    assert host.run(database=False) == []
    assert host.waiting() == {"user_revocations": 1}
    assert host.run() == [
        ("kill_user_until", "7", 123, 0, ""),
        ("settle", [], [A, B]),
        ("kill_user_until", "7", 123, 0, B),
    ]
    assert host.local.is_dead(A)
    assert host.local.is_dead(B)
    assert host.changed == host.no_longer_in_use == [A, B]
    assert host.waiting() == {}


def test_without_redis_a_logged_out_user_is_told_to_the_database_once(host: Host) -> None:
    """It holds from then on; the tombstones follow when Redis is back."""
    host.stores.of_user = [f"{number:043}" for number in range(_BATCH + 1)]
    host.journal.revoke_user("7", until_ms=123)
    host.run(redis=False)
    assert [after for *_, after in host.told_about("kill_user_until")] == [
        "", host.stores.of_user[_BATCH - 1], host.stores.of_user[_BATCH],
    ]  # fmt: skip
    assert host.run(redis=False) == []
    assert host.waiting() == {"user_revocations": 1}
    host.run()
    assert host.settled()[1] == host.stores.of_user
    assert host.waiting() == {}


def test_a_user_whose_epoch_the_database_has_raised_is_settled_by_it(host: Host) -> None:
    """What a request had no time for: without Redis there is nothing to be done."""
    host.stores.of_user = [A, B]
    host.journal.revoke_user("7", epoch=4)
    assert host.run(redis=False) == []
    assert host.run(database=False) == []
    assert host.run() == [("kill_user_until", "7", 0, 4, ""), ("settle", [], [A, B]), ("kill_user_until", "7", 0, 4, B)]
    assert host.waiting() == {}


def test_a_user_with_many_rows_keeps_nobody_waiting(host: Host) -> None:
    """After some of them others have their turn, and then it goes on where it was; in another worker too."""
    host.stores.of_user = [f"{number:043}" for number in range(_AT_ONCE * _BATCH + 1)]
    host.journal.revoke_user("7", epoch=4)
    host.run()
    assert host.settled()[1] == host.stores.of_user[:-1]
    assert host.waiting() == {"user_revocations": 1}
    host.reconciler = Reconciler(host.reconciler._repository, now_ms=lambda: host.now)
    host.run()
    assert host.told_about("settle") == [([], host.stores.of_user[-1:])]
    assert host.waiting() == {}


def test_an_interrupted_user_goes_on_where_it_was(host: Host) -> None:
    """What Redis has not heard of is not left out."""
    host.stores.of_user = [f"{number:043}" for number in range(_BATCH + 1)]
    host.journal.revoke_user("7", epoch=4)
    host.stores.failing = {"settle"}
    assert host.reconciler.run(redis=True, database=True) is not None
    host.stores.failing = set()
    host.run()
    assert host.settled()[1] == host.stores.of_user


# -- what changed around an incident -----------------------------------------------------------------------------------


def test_what_changed_around_an_incident_is_brought_to_redis(host: Host) -> None:
    """Valid rows are pushed, ended ones buried, idle ones left to whoever reads them; a minute more than asked for."""
    dead = row(C, live=False)
    host.stores.changed = [row(A), row(B, idle_expires_at=1), dead]
    assert host.reconciler.settle_changes(5000)
    assert host.stores.told == [("changed_since", 65_000), ("settle", [A], [C])]
    assert host.local.is_dead(C)
    assert not host.local.is_dead(B)


def test_many_changed_rows_keep_nobody_waiting(host: Host) -> None:
    """After some of them others have their turn; then it goes on where it was, and each is brought home once."""
    host.stores.changed = [row(f"{number:043}") for number in range(_AT_ONCE * _PIPELINE + 1)]
    assert not host.reconciler.settle_changes(5000)
    sibling = Settlement("x ", since_ms=host.now - 5000, began_ms=host.now - 5000)
    assert host.journal.claim_settlement("sibling", sibling, 1000) is Claim.TAKEN  # meanwhile, too
    host.now += 1000
    assert host.reconciler.settle_changes(6000)
    assert host.settled()[0] == [r.digest for r in host.stores.changed]
    assert host.journal.claim_settlement("sibling", sibling, 1000) is Claim.DONE


def test_another_server_is_told_everything(host: Host) -> None:
    """In the middle of a round Redis was lost once more: what it was told before is lost with it."""
    host.stores.changed = [row(f"{number:043}") for number in range(_AT_ONCE * _PIPELINE + 1)]
    assert not host.reconciler.settle_changes(5000)
    host.told_about("settle")
    host.stores.fence.identity = "y"
    assert not host.reconciler.settle_changes(5000)
    assert host.reconciler.settle_changes(5000)
    assert host.settled()[0] == [r.digest for r in host.stores.changed]


def test_what_changed_is_brought_home_by_one_worker_of_a_host(host: Host) -> None:
    """While another is at it, it is not done; when that one is done, it is."""
    host.stores.changed = [row(A)]
    wanted = Settlement("x ", since_ms=host.now - 5000, began_ms=host.now - 5000)
    assert host.journal.claim_settlement("sibling", wanted, 1000) is Claim.MINE
    assert not host.reconciler.settle_changes(5000)
    host.journal.end_settlement("sibling", replace(wanted, began_ms=host.now))
    assert host.reconciler.settle_changes(5000)
    assert host.stores.told == []


def test_an_interrupted_round_is_given_back(host: Host) -> None:
    """Whoever comes next does it again."""
    host.stores.failing = {"settle"}
    host.stores.changed = [row(A)]
    with pytest.raises(StoreError):
        host.reconciler.settle_changes(5000)
    wanted = Settlement("x ", since_ms=host.now - 5000, began_ms=host.now - 5000)
    assert host.journal.claim_settlement("sibling", wanted, 1000) is Claim.MINE
    host.journal.end_settlement("sibling", None)
    host.stores.failing = set()
    assert host.reconciler.settle_changes(5000)
    assert host.stores.told[-1] == ("settle", [A], [])


def test_tombstones_that_only_this_host_answers_for_are_renewed(host: Host) -> None:
    """S6: the database has not heard of it, so Redis must not forget it."""
    host.journal.revoke(A, in_redis=True)
    host.journal.revoke(B, in_database=True)
    host.reconciler.renew_tombstones()
    assert host.stores.told == [("settle", [], [A])]
    assert host.waiting() == {"revocations": 2}


def test_all_tombstones_are_renewed_however_many_there_are(host: Host) -> None:
    """S6: the youngest as well as the oldest, and each once."""
    digests = [f"{number:043}" for number in range(3 * _PIPELINE + 1)]
    host.journal.revoke(*digests, in_redis=True)
    host.reconciler.renew_tombstones()
    assert host.settled()[1] == digests


# -- data --------------------------------------------------------------------------------------------------------------


def test_data_of_a_user_is_merged_when_the_session_is_verified(host: Host) -> None:
    """All fields of a category in one merge, under the guard of the living."""
    host.write(A, "input_text")
    host.write(A, "source_lang", None)
    host.add(A, "usage_count")
    host.write(A, "lang", category="ui")
    assert host.run() == [
        ("push", A, 500),
        ("merge", A, "translation", "alive", ["input_text", "source_lang", "usage_count"]),
        ("push", A, 500),
        ("merge", A, "ui", "alive", ["lang"]),
    ]
    assert host.recorder.counters() == {"merged_fields": 2, "merge_conflicts": 0}


def test_data_of_a_visitor_needs_no_database(host: Host) -> None:
    """Nor does the shadow of a dead session."""
    host.write(A, "input_text", kind="a")
    host.write(B, "input_text", kind="a", shadow=True)
    assert host.run(database=False) == [
        ("merge", A, "translation", "free", ["input_text"]),
        ("merge", f"{B} shadow", "translation", "free", ["input_text"]),
    ]


def test_data_of_a_user_waits_for_the_database(host: Host) -> None:
    """Nobody else can say whether the session lives."""
    host.write(A, "input_text")
    assert host.run(database=False) == []
    assert host.waiting() == {"writes": 1}


def test_data_of_a_session_that_is_over_is_dropped(host: Host) -> None:
    """Its record in Redis becomes a tombstone, and the loss is counted."""
    host.stores.rows[A] = row(A, live=False)
    host.write(A, "input_text")
    assert host.run() == [("bury", A, 3)]
    assert host.recorder.counters() == {"merge_dropped": 1}
    assert host.waiting() == {}


def test_data_is_dropped_when_redis_knows_of_the_end_first(host: Host) -> None:
    """The push found a tombstone: a revocation that the database has not heard of yet."""
    host.stores.pushed = "dead"
    host.write(A, "input_text")
    assert host.run() == [("push", A, 500)]
    assert host.recorder.counters() == {"merge_dropped": 1}


@pytest.mark.parametrize("status", ["dead", "gone"])
def test_a_merge_that_met_the_end_is_counted_as_dropped(host: Host, status: str) -> None:
    """The session ended between the verification and the merge."""
    host.stores.merged = Merged(status)
    host.write(A, "input_text")
    host.run()
    assert host.recorder.counters()["merge_dropped"] == 1
    assert host.waiting() == {}


@pytest.mark.parametrize(("age", "kept"), [(0, True), (OLDEST_WRITE_MS, True), (OLDEST_WRITE_MS + 1, False)])
def test_data_older_than_a_quarter_of_an_hour_is_dropped(host: Host, age: int, kept: bool) -> None:
    """The user has long seen something else. No store is asked about it."""
    host.write(A, "input_text", kind="a")
    host.now += age
    told = host.run()
    assert bool(told) == kept
    assert host.recorder.counters().get("merge_dropped", 0) == int(not kept)
    assert host.waiting() == {}


def test_old_and_young_data_of_one_category_are_told_apart(host: Host) -> None:
    """Only the old field is dropped; both leave the journal."""
    host.write(A, "input_text", kind="a")
    host.now += OLDEST_WRITE_MS + 1
    host.write(A, "source_lang", kind="a")
    assert host.run() == [("merge", A, "translation", "free", ["source_lang"])]
    assert host.waiting() == {}


def test_auth_goes_to_the_database_and_from_there_to_redis(host: Host) -> None:
    """Ordinary auth keys that were written while the database was down."""
    host.write(A, "daily_limit", b"5", category="auth", base_version=3)
    host.write(A, "session_token", None, category="auth", base_version=3)
    assert host.run() == [
        ("push", A, 500),
        ("update", A, {"_user_id": b'"7"', "daily_limit": b"5"}),
        ("push", A, 500),
    ]
    assert host.stores.rows[A].version == 4
    assert host.changed == [A]
    assert host.waiting() == {}


@pytest.mark.parametrize(
    ("seen", "base", "applied"),
    [(3, b"1", True), (2, b"1", False), (2, b"5", True), (2, None, False), (None, b"5", True)],
)
def test_auth_that_somebody_else_changed_is_a_conflict(
    host: Host, seen: int | None, base: bytes | None, applied: bool
) -> None:
    """As for all data: the row as the host saw it, or the field as the host saw it; else theirs stays, counted."""
    host.stores.rows[A] = row(A, payload={"daily_limit": b"5"})
    host.journal.write(
        A, kind="u", category="auth", changes={"daily_limit": b"9"}, base={"daily_limit": base}, base_version=seen
    )
    host.run()
    assert (host.stores.rows[A].payload["daily_limit"] == b"9") is applied
    assert host.recorder.counters() == {"merged_fields": int(applied), "merge_conflicts": int(not applied)}
    assert host.waiting() == {}


def test_auth_is_merged_again_when_somebody_was_faster(host: Host) -> None:
    """The compare-and-set lost: nothing is dropped for that."""
    host.stores.lost_races = 2
    host.stores.rows[A] = row(A, payload={"daily_limit": b"0"})
    host.write(A, "daily_limit", b"5", category="auth")
    host.run()
    assert host.stores.rows[A].payload == {"daily_limit": b"5"}
    assert host.waiting() == {}


@pytest.mark.parametrize("anew", [False, True], ids=["other fields", "the same field"])
def test_siblings_that_write_on_keep_nobody_at_it(host: Host, monkeypatch: pytest.MonkeyPatch, anew: bool) -> None:
    """What waited is home then; what they write meanwhile is for another run, however much that is."""
    merge, numbers = host.stores.merge, count()

    def meanwhile(*arguments: Any, **options: Any) -> Merged:
        host.write(A, "input_text" if anew else f"text_{next(numbers)}", b"2")
        return merge(*arguments, **options)

    for number in range(2 * _BATCH):
        host.write(A, f"field_{number}")
    host.write(A, "input_text", b"1")
    monkeypatch.setattr(host.stores, "merge", meanwhile)
    host.run()
    sent = {name for _, _, _, fields in host.told_about("merge") for name in fields}
    assert sent >= {"input_text", *(f"field_{number}" for number in range(2 * _BATCH))}
    assert host.waiting() == {"writes": 1}


# -- interruptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["kill", "bury", "push", "merge"])
def test_an_interrupted_run_loses_nothing(host: Host, failing: str) -> None:
    """The error goes to who called; the next run does what is left, and doing some of it again does no harm."""
    host.journal.revoke(C)
    host.journal.queue_push(A)
    host.write(B, "input_text")
    host.stores.failing = {failing, B}
    with pytest.raises(StoreError) if failing != "merge" else nullcontext():
        assert host.reconciler.run(redis=True, database=True)
    assert host.waiting()["writes"] == 1
    host.stores.failing = set()
    host.stores.told = []
    assert ("merge", B, "translation", "alive", ["input_text"]) in host.run()
    assert host.waiting() == {}


@pytest.mark.parametrize(
    ("error_class", "sent", "left"),
    [
        (ErrorClass.UNREACHABLE, True, ["input_text"]),
        (ErrorClass.UNREACHABLE, False, ["input_text", "usage_count"]),
        (ErrorClass.WRITE_REFUSED, False, ["input_text", "usage_count"]),
        (ErrorClass.BUSY, False, ["input_text", "usage_count"]),
    ],
)
def test_an_addition_is_repeated_only_if_it_cannot_have_happened(
    host: Host, error_class: ErrorClass, sent: bool, left: list[str]
) -> None:
    """With an unknown outcome one too few is possible, twice is not. Values are sent again in any case."""
    host.write(A, "input_text")
    host.add(A, "usage_count", 5)
    host.stores.merged = StoreError("primary", error_class, "Test", sent=sent)
    assert host.reconciler.run(redis=True, database=True) is host.stores.merged
    waiting = host.journal.pending_writes()
    assert [write.field for write in waiting] == left
    assert [write.delta for write in waiting if write.is_delta] == [5] * (len(left) - 1)


def test_an_addition_is_sent_by_one_worker_only(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers replay at the same time: who claims it first sends it, the other one sends the rest."""
    host.add(A, "usage_count")
    host.write(A, "input_text")
    waiting = host.journal.pending_writes()
    assert [host.journal.claim(write) for write in waiting if write.is_delta] == [True]  # the other worker was faster
    once = iter([waiting])
    monkeypatch.setattr(host.journal, "pending_writes", lambda limit, signed_in, after: next(once, []))
    assert host.run()[-1] == ("merge", A, "translation", "alive", ["input_text"])


def test_one_entry_that_fails_keeps_no_other_from_its_store(host: Host) -> None:
    """Its row may be locked by somebody. It is not forgotten, and who called hears of it."""
    for digest in (A, B, C):
        host.journal.revoke(digest)
    host.stores.failing = {B}
    error = host.reconciler.run(redis=True, database=True)
    assert error is not None
    assert error.error_class is ErrorClass.UNREACHABLE
    assert [entry.digest for entry in host.journal.pending_revocations()] == [B]
    assert [digest for digest, *_ in host.told_about("bury")] == [A, C]


def test_two_entries_that_fail_are_a_store_that_does_not_answer(host: Host) -> None:
    """Else every single one of them would be waited for."""
    for digest in (A, B, C):
        host.journal.revoke(digest)
    host.stores.failing = {A, B}
    with pytest.raises(StoreError):
        host.reconciler.run(redis=True, database=True)
    assert host.told_about("bury") == []


def test_entries_that_no_store_can_take_keep_no_other_from_it(host: Host) -> None:
    """An error of data says nothing about the store, however often it comes; one more of another sort is one."""
    host.journal.revoke(A, B)
    host.journal.revoke("d" * 43)
    host.journal.revoke(C)
    host.stores.damaged, host.stores.failing = {A, B}, {"d" * 43}
    error = host.reconciler.run(redis=True, database=True)
    assert error is not None
    assert error.error_class is ErrorClass.UNREACHABLE
    assert [digest for digest, *_ in host.told_about("bury")] == [C]
    assert host.waiting() == {"revocations": 3}


def test_what_is_journalled_during_the_run_goes_home_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on until nothing more can be brought home: requests still write while it runs."""
    late = iter(["source_lang"])
    merge = host.stores.merge

    def merge_and_write(*arguments: Any, **more: Any) -> Merged:
        for key in late:
            host.write(A, key, kind="a")
        return merge(*arguments, **more)

    monkeypatch.setattr(host.stores, "merge", merge_and_write)
    host.write(A, "input_text", kind="a")
    host.run()
    assert host.waiting() == {}


def test_more_than_one_batch_goes_home(host: Host) -> None:
    """An outage with many users is brought home in one run."""
    for number in range(600):
        host.journal.queue_push(f"{number:043}")
    assert len(host.run()) == 600
    assert host.waiting() == {}
