"""The sessions and users that have ended, in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.host.entries import NOTHING, Overlay, PendingUserRevocation
from flask_langpont_session.stores.host.journal import Journal
from tests.support.clock import Clock
from tests.support.journals import blind_write, increment, questions, ref, write, write_shadow


def test_a_revocation_forgets_what_was_to_be_written(journal: Journal) -> None:
    """A revocation deletes the session's writes and copies, but not those of its shadow or of others."""
    for digest in ("d", "other"):
        write(journal, digest, a=b"1")
        journal.board.publish_copies([SharedCopy(digest, "ui", CategoryCopy(1, {}))])
    write_shadow(journal, a=b"1")
    journal.revocations.note("d")
    assert journal.overlay(ref("d")) == Overlay(True, {}, {}, {})
    assert journal.overlay(ref("d", shadow=True)).writes == {"translation": {"a": b"1"}}
    assert journal.overlay(ref("other")).writes
    assert journal.overlay(ref("other")).copies


def test_many_revocations_are_one_write(durable: Journal) -> None:
    """A request that logs a user out everywhere waits once for the disk, not once for each session."""
    asked = questions(durable)
    durable.revocations.note("b", "a", "c", in_redis=True)
    assert asked.count("COMMIT") == 1
    assert [(e.digest, e.in_database, e.in_redis) for e in durable.revocations.pending()] == [
        (digest, False, True) for digest in "bac"
    ]


def test_revocations_are_read_part_by_part(journal: Journal) -> None:
    """The next part begins after the last number of the one before, whatever was done meanwhile."""
    journal.revocations.note("a", "b", "c", "d")
    first = journal.revocations.pending(2)
    journal.revocations.mark_done("a", in_database=True, in_redis=True)
    second = journal.revocations.pending(2, after=first[-1].seq)
    assert [entry.digest for entry in (*first, *second)] == ["a", "b", "c", "d"]
    assert journal.revocations.pending(2, after=second[-1].seq) == []


def test_a_revoked_session_absorbs_later_writes(journal: Journal) -> None:
    """After a revocation nothing can be kept for the session any more, except for its shadow."""
    journal.revocations.note("d")
    write(journal, a=b"1")
    increment(journal, 1)
    journal.put([replace(blind_write("@"), operation=Operation.WIPE)])
    journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(9, {}))])
    write_shadow(journal, a=b"2")
    assert journal.overlay(ref("d")) == Overlay(True, {}, {}, {})
    assert journal.overlay(ref("d", shadow=True)).writes == {"translation": {"a": b"2"}}


def test_a_revocation_stays_until_both_stores_have_it(journal: Journal) -> None:
    """The entry leaves the journal only when the database and Redis have the revocation."""
    journal.revocations.note("d")
    journal.revocations.mark_done("d", in_database=True)
    (entry,) = journal.revocations.pending()
    assert (entry.in_database, entry.in_redis, entry.at_ms) == (True, False, 1_000_000)
    assert journal.revocations.is_revoked("d")
    journal.revocations.mark_done("d", in_redis=True)
    assert not journal.revocations.is_revoked("d")
    assert journal.is_empty()


def test_revoking_again_keeps_the_time_and_the_tombstone(journal: Journal, clock: Clock) -> None:
    """A second revocation keeps the first one's time, and that Redis has the tombstone."""
    journal.revocations.note("d", in_redis=True)
    clock.now += 9
    journal.revocations.note("d")
    (entry,) = journal.revocations.pending()
    assert (entry.in_database, entry.in_redis, entry.at_ms) == (False, True, 1_000_000)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_sign_out_waits_for_the_database_though_that_knows_of_a_change_of_id(
    journal: Journal, is_first: bool
) -> None:
    """After the change of id the session goes on: only the replay ends that, whichever of the two is noted first."""
    if is_first:
        journal.revocations.note("d", in_redis=True)
    journal.revocations.note("d", in_database=True)
    if not is_first:
        journal.revocations.note("d", in_redis=True)
    (entry,) = journal.revocations.pending()
    assert (entry.in_database, entry.in_redis) == (False, True)
    journal.revocations.mark_done("d", in_database=True)
    assert journal.is_empty()


def logged_out(journal: Journal) -> dict[str, int]:
    return {entry.user_id: entry.until_ms for entry in journal.revocations.pending_users()}


def test_every_overlay_names_all_users(journal: Journal) -> None:
    """Whose session it is only its record can say, so every session and shadow is told of every user."""
    journal.revocations.note_user("7", until_ms=5)
    journal.revocations.note_user("8", until_ms=6)
    assert journal.overlay(ref("d")) == Overlay(False, {}, {}, {}, users={"7": 5, "8": 6})
    assert journal.overlay(ref("d", shadow=True)).users == {"7": 5, "8": 6}
    for entry in journal.revocations.pending_users():
        journal.revocations.forget_user(entry)
    assert journal.overlay(ref("d")) == NOTHING
    assert journal.is_empty()


def test_users_are_oldest_first(journal: Journal) -> None:
    """The user who was noted longest ago comes first, and the limit cuts the newest off."""
    for user in ("b", "a", "c", "b"):
        journal.revocations.note_user(user, until_ms=1)
    assert [entry.user_id for entry in journal.revocations.pending_users()] == ["a", "c", "b"]
    assert journal.revocations.pending_users(limit=1) == [PendingUserRevocation(seq=2, user_id="a", until_ms=1)]
    assert journal.counts()["user_revocations"] == 3


def test_a_forgotten_user_can_be_noted_again(journal: Journal) -> None:
    """Once it is forgotten an earlier time counts too, and the old entry does not name the new one."""
    journal.revocations.note_user("7", until_ms=9)
    [done] = journal.revocations.pending_users()
    journal.revocations.forget_user(done)
    journal.revocations.note_user("7", until_ms=5)
    journal.revocations.forget_user(done)
    assert logged_out(journal) == {"7": 5}


def test_a_user_whom_the_database_knows_waits_for_redis_only(journal: Journal) -> None:
    """The epoch ends all that there is: no time is needed. Every session is told of it."""
    journal.revocations.note_user("8", until_ms=5)
    journal.revocations.note_user("7", epoch=3)
    assert [entry.user_id for entry in journal.revocations.pending_users(redis=False)] == ["8"]
    assert journal.revocations.pending_users()[1] == PendingUserRevocation(2, "7", 0, epoch=3, in_database=True)
    overlay = journal.overlay(ref("d"))
    assert (overlay.users, overlay.epochs) == ({"7": 0, "8": 5}, {"7": 3})


FULL = StoreError("journal", ErrorClass.WRITE_REFUSED, "SQLITE_FULL")


@contextmanager
def full(journal: Journal, error: StoreError = FULL) -> Iterator[None]:
    """Let the journal's disk take nothing meanwhile."""

    def refuse(*arguments: object, **options: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.file, "transaction", refuse)
        yield


@pytest.mark.parametrize("first", [(True, False), (False, True)], ids=["database", "redis"])
def test_i33_what_the_journal_does_not_take_is_held_until_both_stores_have_it(
    journal: Journal, first: tuple[bool, bool]
) -> None:
    """And what could not be noted of its own entries is known. Of several notes that which waits for the database
    counts; what Redis has it has, whichever says so."""
    queue = journal.revocations
    queue.note("there")
    with full(journal):
        for in_database in (True, False):
            with pytest.raises(StoreError):
                queue.note("d", in_database=in_database, in_redis=first[1])
        queue.mark_done("there", in_database=first[0], in_redis=first[1])
        [there], [held] = queue.pending(), queue.held.pending()
        assert (there.digest, there.in_database, there.in_redis) == ("there", *first)
        assert (held.digest, held.in_database, held.in_redis) == ("d", False, first[1])
        with pytest.raises(StoreError):
            queue.write_held()
        assert queue.has_held
        queue.held.mark_done("d", in_database=True, in_redis=True)
        assert queue.held.pending() == []
    queue.mark_done("there", in_database=True, in_redis=True)
    assert queue.pending() == []


def test_i33_what_each_store_has_is_known_without_room_for_it(journal: Journal) -> None:
    """One store after the other; from then on the entry waits for nothing."""
    queue = journal.revocations
    queue.note("d")
    with full(journal):
        queue.mark_done("d", in_database=True)
        queue.mark_done("d", in_redis=True)
        [entry] = queue.pending()
        assert (entry.in_database, entry.in_redis) == (True, True)
    queue.write_held()
    assert queue.pending() == []


@pytest.mark.parametrize("why", [{"timed_out": True}, {"sent": True}], ids=str)
def test_i33_a_revocation_that_may_be_in_the_file_is_held(journal: Journal, why: dict[str, bool]) -> None:
    """It may come there late, or never, or be lost by the disk. Once it is there it is one entry."""
    queue, error = journal.revocations, StoreError("journal", ErrorClass.UNREACHABLE, "Test", **why)
    with full(journal, error), pytest.raises(StoreError):
        queue.note("d")
    assert [entry.digest for entry in queue.held.pending()] == ["d"]
    queue.note("d")
    queue.write_held()
    assert ([entry.digest for entry in queue.pending()], queue.has_held) == (["d"], False)


def test_i34_only_delivered_revocations_are_told_again(journal: Journal) -> None:
    """Another worker may have been faster, and the stores have got them from it by now."""
    journal.revocations.note_delivered("d", "e")
    journal.revocations.keep_delivered()
    assert journal.revocations.tell_again(["d"]) == 1
    assert journal.revocations.tell_again(["d", "e"]) == 1
    assert [entry.digest for entry in journal.revocations.pending()] == ["d", "e"]


@pytest.mark.parametrize(
    ("notes", "kept"),
    [
        ([(5, 0), (9, 0)], (9, 0, False)),
        ([(5, 0), (4, 0)], (5, 0, False)),
        ([(0, 2), (0, 3)], (0, 3, True)),
        ([(5, 0), (0, 2)], (0, 2, True)),  # an epoch that was raised ends whatever began before
        ([(0, 2), (5, 0)], (5, 2, False)),  # the database does not know of a time that was noted after its epoch
        ([(5, 0), (0, 3), (4, 0)], (4, 3, False)),
        ([(5, 0), (0, 3), (4, 0), (0, 2)], (0, 3, True)),
    ],
)
@pytest.mark.parametrize("has_room", [True, False], ids=["taken at once", "taken late"])
def test_i33_of_what_is_noted_of_a_user_what_ends_most_counts(
    journal: Journal, notes: list[tuple[int, int]], kept: tuple[int, int, bool], has_room: bool
) -> None:
    """It is one entry, also of notes for which the journal had no room."""
    with nullcontext() if has_room else full(journal):
        for until_ms, epoch in notes:
            with nullcontext() if has_room else pytest.raises(StoreError):
                journal.revocations.note_user("7", until_ms=until_ms, epoch=epoch)
    journal.revocations.write_held()
    [user] = journal.revocations.pending_users()
    assert (user.until_ms, user.epoch, user.in_database) == kept


def test_how_far_a_user_is_outlives_the_worker(durable: Journal, sibling: Journal) -> None:
    """Another one goes on there; unless the user was noted again, which begins anew."""
    durable.revocations.note_user("7", epoch=3)
    [entry] = durable.revocations.pending_users()
    durable.revocations.advance_user(replace(entry, reached="k"))
    assert sibling.revocations.pending_users() == [replace(entry, reached="k")]
    sibling.revocations.note_user("7", epoch=4)
    durable.revocations.advance_user(replace(entry, reached="m"))
    assert [entry.reached for entry in sibling.revocations.pending_users()] == [""]


def test_a_logged_out_user_takes_no_single_session_along(journal: Journal) -> None:
    """The journal does not know when a session began: its waiting changes stay, and so does its revocation."""
    write(journal, a=b"1")
    journal.revocations.note("e")
    journal.revocations.note_user("7", until_ms=2**62)
    assert journal.overlay(ref("d")).writes == {"translation": {"a": b"1"}}
    assert journal.revocations.is_revoked("e")
    assert not journal.revocations.is_revoked("d")
