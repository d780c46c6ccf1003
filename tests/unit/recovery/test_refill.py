"""Giving back what Redis lost while some of its shards do not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from flask_langpont_session.policy.values import CategoryCopy, ErrorClass, SharedCopy, StoreError
from flask_langpont_session.recovery.giving_back import Refill
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.stores.redis.records import Merged, Restore

COPY = CategoryCopy(5, {"lang": b'"ja"'})

TTL = 60
"""Seconds that copies are kept."""


class Shards:
    """The primary and its health: some shards. A session lies on that which its digest begins with, if it is there."""

    def __init__(self) -> None:
        self.shards: tuple[str, ...] = ("a", "b")
        self.dead: set[str] = set()
        self.given: set[str] = set()
        self.wiped: set[str] = set()
        # What other workers have published, by number, and how often that cannot be read.
        self.published: dict[int, SharedCopy] = {}
        self.unreadable = 0
        self.now = 0.0

    def locate(self, digest: str) -> str:
        return digest[0] if digest[0] in self.shards else ""

    def shared_copies(self, limit: int, after: int) -> Mapping[int, SharedCopy]:
        """The host's journal."""
        if self.unreadable:
            self.unreadable -= 1
            raise StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_BUSY")
        return {number: copy for number, copy in self.published.items() if number > after}

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Any]:
        return []

    def merge_all(self, wanted: Sequence[Restore], **_: Any) -> list[Merged]:
        if self.dead & {self.locate(restore.digest) for restore in wanted}:
            raise StoreError("primary", ErrorClass.UNREACHABLE, "ConnectionError")
        self.given |= {restore.digest for restore in wanted}
        return [Merged("merged")] * len(wanted)


@pytest.fixture
def shards() -> Shards:
    return Shards()


@pytest.fixture
def refill(shards: Shards) -> Refill:
    """Of a worker that holds copies of visitors' sessions on two shards, both of which lost all."""
    held = [SharedCopy(digest, "ui", COPY, kind="a") for digest in ("a1", "a2", "b1", "b2")]
    backend: Any = SimpleNamespace(
        memory=SimpleNamespace(held=lambda: held, category=lambda digest, name: None),
        health=shards,
        board=shards,
        primary=shards,
        clock=lambda: shards.now,
        settings=SimpleNamespace(life=None, local_cache_ttl=TTL),
        life_of_kept=lambda category, kind: 1_000_000,
        limits=None,
        register=SimpleNamespace(
            is_wiped_since=lambda digest, *_: digest in shards.wiped, latest_version=lambda digest, category: 0
        ),
    )
    no_pushes: Any = None  # no user is signed in
    made = Refill(backend, no_pushes)
    made.ask_for("a", 0)
    made.ask_for("b", 0)
    return made


def run(refill: Refill, *shards: str) -> None:
    """As the thread does it, with the shards that requests use."""
    reach = Reach(frozenset(shards), True)
    if refill.is_due(reach):
        for batch in refill.pending(reach):
            refill.send(batch, reach)


def test_a_shard_that_fails_meanwhile_keeps_no_other_waiting(shards: Shards, refill: Refill) -> None:
    """The others are given theirs at once, and it is given its own when it answers, however long that takes."""
    shards.dead = {"b"}
    with pytest.raises(StoreError):
        run(refill, "a", "b")
    for _ in range(50):
        run(refill, "a")
    assert shards.given == {"a1", "a2"}
    assert refill.is_wanted
    shards.dead = set()
    run(refill, "a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert not refill.is_wanted


def test_what_was_left_before_the_loss_was_noticed_is_given_back(shards: Shards, refill: Refill) -> None:
    """What was tried together with it, too. Tries may follow each other faster than a breaker opens."""
    shards.dead = {"b"}
    for _ in range(50):
        with suppress(StoreError):
            run(refill, "a", "b")
    run(refill, "a", "b")
    assert not refill.is_wanted, "as far as is known that shard is well, and refuses these"
    run(refill, "a")
    shards.dead = set()
    run(refill, "a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert not refill.is_wanted


def test_what_was_wiped_since_is_not_given_back(shards: Shards, refill: Refill) -> None:
    """A worker that does not know of it still has the older copy."""
    shards.wiped = {"a1"}
    run(refill, "a", "b")
    assert shards.given == {"a2", "b1", "b2"}


def test_what_no_shard_has_is_given_to_those_that_have_it_afterwards(shards: Shards, refill: Refill) -> None:
    """Slots of a cluster that were given to no shard, and then to another shard."""
    shards.dead = {"", "b"}
    with pytest.raises(StoreError):
        run(refill, "a", "b")
    shards.shards = ("", "a")
    run(refill, "a")
    assert shards.given == {"a1", "a2"}
    shards.shards, shards.dead = ("a", "b"), set()
    run(refill, "a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert not refill.is_wanted


def test_a_journal_that_does_not_answer_once_costs_no_copy(shards: Shards, refill: Refill) -> None:
    """What this worker has does not wait for it, and what only other workers have is read the next time."""
    shards.published = {7: SharedCopy("a7", "ui", COPY, kind="a"), 8: SharedCopy("b8", "ui", COPY, kind="a")}
    shards.unreadable = 1
    with pytest.raises(StoreError):
        run(refill, "a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert refill.is_wanted
    run(refill, "a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2", "a7", "b8"}
    assert not refill.is_wanted


def test_what_no_worker_used_within_the_life_of_copies_is_not_given_back(shards: Shards, refill: Refill) -> None:
    """I20: nothing is left by then that tells of a wipe. It may have waited in the journal, or here."""
    shards.published = {
        7: SharedCopy("a7", "ui", COPY, age=TTL - 1, kind="a"),
        8: SharedCopy("a8", "ui", COPY, age=TTL, kind="a"),
    }
    shards.dead = {"b"}
    with pytest.raises(StoreError):
        run(refill, "a", "b")
    run(refill, "a")
    assert shards.given == {"a1", "a2", "a7"}
    shards.dead, shards.now = set(), float(TTL)
    refill.ask_for("a", 0)
    run(refill, "a", "b")
    assert shards.given == {"a1", "a2", "a7", "b1", "b2"}, "these are as new as they were when the worker was asked"


def test_what_could_not_be_given_back_in_time_is_left(shards: Shards, refill: Refill) -> None:
    """A batch is tried again for as long as its shard is thought to answer."""
    shards.dead = {"a", "b"}
    with pytest.raises(StoreError):
        run(refill, "a", "b")
    shards.dead, shards.now = set(), float(TTL)
    run(refill, "a", "b")
    assert shards.given == set()
    assert not refill.is_wanted
