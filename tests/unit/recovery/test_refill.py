"""Giving back what Redis lost while some of its shards do not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from flask_langpont_session.metrics.losses import Losses
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.recovery.giving_back import LossCount, Refill
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.stores.redis.records import Merged, Restore

COPY = CategoryCopy(5, {"lang": b'"ja"'})

TTL = 60
"""Seconds that copies are kept."""


class Shards:
    """The primary and its health: some shards. A session lies on that which its digest begins with, if it is there.

    :ivar refill: of a worker that holds copies of visitors' sessions on two shards, both of which lost all.
    """

    def __init__(self) -> None:
        self.shards: tuple[str, ...] = ("a", "b")
        self.dead: set[str] = set()
        self.given: set[str] = set()
        self.sent: list[Restore] = []
        # Session → the version at which the host has wiped it.
        self.wiped: dict[str, int] = {}
        # What other workers have published, by number, and how often that cannot be read.
        self.published: dict[int, SharedCopy] = {}
        self.unreadable = 0
        self.now = 0.0
        # The latest version that the host has seen of each category.
        self.latest = 0
        self.life_ms = 1_000_000
        # How Redis describes what it has; of a session that is over: nothing.
        self.mark = b"described"
        self.recorder = Recorder()
        held = [SharedCopy(digest, "ui", COPY, kind="a") for digest in ("a1", "a2", "b1", "b2")]
        backend: Any = SimpleNamespace(
            memory=SimpleNamespace(
                held=lambda: held,
                category=lambda digest, name: next((copy.copy for copy in held if copy.digest == digest), None),
            ),
            health=self,
            board=self,
            primary=self,
            clock=lambda: self.now,
            settings=SimpleNamespace(life=None, local_cache_ttl=TTL),
            life_of_kept=lambda category, kind: self.life_ms,
            limits=None,
            register=SimpleNamespace(
                is_wiped_since=lambda digest, _, version: self.wiped.get(digest, 0) > version,
                wiped_version=lambda digest, _: self.wiped.get(digest, 0),
                latest_version=lambda digest, category: self.latest,
            ),
            lacks={},
            journal=SimpleNamespace(pending_carries=lambda limit, after: []),
            reports=SimpleNamespace(losses=Losses(self.recorder, lambda *event: None), shared=lambda *copies: None),
        )
        no_pushes: Any = None  # no user is signed in
        self.refill = Refill(backend, no_pushes)
        self.loss_count = LossCount(backend, self.refill)
        for shard in self.shards:
            self.refill.ask_for(shard, 0)

    def run(self, *shards: str) -> None:
        """Give back what is due, as the thread does, with the shards that requests use."""
        reach = Reach(frozenset(shards), True, self.locate)
        if self.refill.is_due(reach):
            for batch in self.refill.pending(reach):
                self.refill.send(batch, reach)

    def interrupted(self, *shards: str) -> None:
        """The same; a store does not answer."""
        with pytest.raises(StoreError):
            self.run(*shards)

    def locate(self, digest: str) -> str:
        return digest[0] if digest[0] in self.shards else ""

    def shared_copies(self, limit: int, after: int) -> Mapping[int, SharedCopy]:
        """The host's journal."""
        if self.unreadable:
            self.unreadable -= 1
            raise StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_BUSY")
        return {number: copy for number, copy in self.published.items() if number > after}

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Any]:
        ended: Any = SimpleNamespace(auth=SimpleNamespace(row=None))
        return [ended] * len(digests)

    def publish_copies(self, copies: Sequence[SharedCopy]) -> Sequence[SharedCopy]:
        return copies

    def merge_all(self, wanted: Sequence[Restore], **_: Any) -> list[Merged]:
        if self.dead & {self.locate(restore.digest) for restore in wanted}:
            raise StoreError("primary", ErrorClass.UNREACHABLE, "ConnectionError")
        self.given |= {restore.digest for restore in wanted}
        self.sent += wanted
        return [Merged("merged", restore.copy.version) for restore in wanted]

    def estimated_ms(self, digest: str, at: float) -> int:
        return 1

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]:
        return [CategoryCopy(COPY.version, {}, mark=self.mark)] * len(wanted)


@pytest.fixture
def shards() -> Shards:
    return Shards()


def test_a_shard_that_fails_meanwhile_keeps_no_other_waiting(shards: Shards) -> None:
    """The others are given theirs at once, and it is given its own when it answers, however long that takes."""
    shards.dead = {"b"}
    shards.interrupted("a", "b")
    for _ in range(50):
        shards.run("a")
    assert shards.given == {"a1", "a2"}
    assert shards.refill.is_wanted
    shards.dead = set()
    shards.run("a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert not shards.refill.is_wanted


def test_what_was_left_before_the_loss_was_noticed_is_given_back(shards: Shards) -> None:
    """Data that was tried before the loss was noticed is given back, also if tries follow each other faster than a
    breaker opens."""
    shards.dead = {"b"}
    for _ in range(50):
        with suppress(StoreError):
            shards.run("a", "b")
    shards.run("a", "b")
    assert not shards.refill.is_wanted, "as far as is known that shard is well, and refuses these"
    shards.run("a")
    shards.dead = set()
    shards.run("a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert not shards.refill.is_wanted


def test_what_no_worker_has_any_more_is_counted_once(shards: Shards) -> None:
    """However often this worker's older copies are given back, as when Redis is emptied again meanwhile."""
    shards.latest = COPY.version + 1
    for _ in range(2):
        shards.refill.ask_for("a", 0)
        shards.run("a")
    for doubts in shards.loss_count.pending(Reach(frozenset("a"), True)):
        shards.loss_count.send(doubts, Reach(frozenset("a"), True))
    assert shards.recorder.counters() == {"writes_lost": 2}, "one of each session"


def test_what_no_shard_has_is_given_to_those_that_have_it_afterwards(shards: Shards) -> None:
    """Slots of a cluster that were given to no shard, and then to another shard."""
    shards.dead = {"", "b"}
    shards.interrupted("a", "b")
    shards.shards = ("", "a")
    shards.run("a")
    assert shards.given == {"a1", "a2"}
    shards.shards, shards.dead = ("a", "b"), set()
    shards.run("a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert not shards.refill.is_wanted


def test_a_journal_that_does_not_answer_once_costs_no_copy(shards: Shards) -> None:
    """Copies of this worker do not wait for the journal, and those that only other workers have are read the next
    time."""
    shards.published = {7: SharedCopy("a7", "ui", COPY, kind="a"), 8: SharedCopy("b8", "ui", COPY, kind="a")}
    shards.unreadable = 1
    shards.interrupted("a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2"}
    assert shards.refill.is_wanted
    shards.run("a", "b")
    assert shards.given == {"a1", "a2", "b1", "b2", "a7", "b8"}
    assert not shards.refill.is_wanted


def test_what_no_worker_used_within_the_life_of_copies_is_not_given_back(shards: Shards) -> None:
    """I20: nothing is left by then that tells of a wipe. It may have waited in the journal, or here."""
    shards.published = {
        7: SharedCopy("a7", "ui", COPY, age=TTL - 1, kind="a"),
        8: SharedCopy("a8", "ui", COPY, age=TTL, kind="a"),
    }
    shards.dead = {"b"}
    shards.interrupted("a", "b")
    shards.run("a")
    assert shards.given == {"a1", "a2", "a7"}
    shards.dead, shards.now = set(), float(TTL)
    shards.refill.ask_for("a", 0)
    shards.run("a", "b")
    assert shards.given == {"a1", "a2", "a7", "b1", "b2"}, "these are as new as they were when the worker was asked"


def test_a_wipe_is_given_back_before_a_copy_that_says_nothing_of_what_was_there_before(shards: Shards) -> None:
    """As one that another worker has published: by itself it deletes nothing."""
    later = COPY._replace(version=COPY.version + 3, began=COPY.version + 3)
    shards.published = {7: SharedCopy("a1", "ui", later, kind="a")}
    shards.wiped = {"a1": COPY.version + 2}
    shards.run("a")
    assert [(restore.copy.version, restore.is_partial) for restore in shards.sent if restore.digest == "a1"] == [
        (COPY.version + 2, False),  # in place of this worker's own
        (COPY.version + 2, False),
        (COPY.version + 3, True),
    ]


def test_what_has_run_out_is_not_given_back_and_the_rest_lives_as_long_as_it_was_to(shards: Shards) -> None:
    """With a life of 0 it would live as long as its session."""
    shards.life_ms = 10_000
    shards.published = {n: SharedCopy(f"a{n}", "ui", COPY, age=n, kind="a") for n in (7, 10, 12)}
    shards.run("a")
    lives = {restore.digest: restore.life_ms for restore in shards.sent}
    assert lives == {"a1": 10_000, "a2": 10_000, "a7": 3000}


def test_what_redis_knows_to_be_over_is_not_given_back(shards: Shards) -> None:
    """It has the tombstone of the session."""
    shards.published = {7: SharedCopy("a7", "ui", COPY, kind="u")}
    shards.run("a")
    assert shards.given == {"a1", "a2"}


def test_of_a_session_that_is_over_nothing_is_counted(shards: Shards) -> None:
    """It has no data any more, and lacks none."""
    shards.latest, shards.mark = COPY.version + 1, b""
    shards.run("a")
    for doubts in shards.loss_count.pending(Reach(frozenset("a"), True)):
        shards.loss_count.send(doubts, Reach(frozenset("a"), True))
    assert shards.recorder.counters() == {}


def test_what_began_after_the_first_of_two_losses_is_a_part(shards: Shards) -> None:
    """Redis loses data again before all was given back: it had everything before the first loss only."""
    shards.run("a", "b")
    shards.published = {7: SharedCopy("a7", "ui", COPY._replace(began=7), kind="a")}
    shards.refill.ask_for("a", 5)
    shards.refill.ask_for("a", 9)
    shards.run("a")
    assert [restore.is_partial for restore in shards.sent if restore.digest == "a7"] == [True]


@pytest.mark.parametrize(("newer_by", "is_given"), [(-1, False), (0, False), (1, True)])
def test_what_another_worker_has_is_given_back_where_this_one_has_less(
    shards: Shards, newer_by: int, is_given: bool
) -> None:
    """The other one may have ended."""
    theirs = COPY._replace(version=COPY.version + newer_by)
    shards.published = {7: SharedCopy("a1", "ui", theirs, kind="a")}
    shards.run("a")
    given = [restore.copy for restore in shards.sent if restore.digest == "a1"]
    assert given == [COPY, theirs] if is_given else [COPY]


def test_what_could_not_be_given_back_in_time_is_left(shards: Shards) -> None:
    """A batch is tried again for as long as its shard is thought to answer."""
    shards.dead = {"a", "b"}
    shards.interrupted("a", "b")
    shards.dead, shards.now = set(), float(TTL)
    shards.run("a", "b")
    assert shards.given == set()
    assert not shards.refill.is_wanted
