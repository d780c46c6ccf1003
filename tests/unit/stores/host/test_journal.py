"""The host's journal, on real files and with real processes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from devservers.processes import LONG
from flask_langpont_session.policy.changes import Basis, Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy, mark_of_copy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.host import journal as journal_module
from flask_langpont_session.stores.host.commit_counter import SIZE, CommitCounter
from flask_langpont_session.stores.host.entries import NOTHING, WIPED_FIELD, Overlay, PendingPush
from flask_langpont_session.stores.host.journal import Carry, Journal, journal_at
from flask_langpont_session.stores.host.limits import JournalLimits
from flask_langpont_session.stores.host.opening import DeletedJournal
from flask_langpont_session.support import files as private_file
from tests.support.clock import Clock
from tests.support.journals import (
    addition,
    blind_write,
    increment,
    questions,
    ref,
    write,
    write_fields,
    write_shadow,
)


def writer(journal: Journal) -> sqlite3.Connection:
    """The connection of the open journal that writes."""
    connection = journal.file.writer.connection
    assert connection is not None
    return connection


# What a session is told


@pytest.mark.parametrize(
    ("fill", "of"),
    [
        (lambda journal: write(journal, a=b"1"), "d"),
        (lambda journal: write_shadow(journal, a=b"1"), "d"),
        (lambda journal: increment(journal, 1), "d"),
        (lambda journal: journal.revocations.note("d"), "d"),
        (lambda journal: journal.queue_push("d"), "d"),
        (lambda journal: journal.carry(Carry("c", "d", "u", ["ui"])), "dc"),
        (lambda journal: journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(1, {}))]), "d"),
        (lambda journal: journal.board.announce_outage("primary"), ""),
        (lambda journal: journal.revocations.note_user("7", until_ms=1), "dcx"),
    ],
)
def test_it_is_known_of_which_sessions_it_has_anything(
    journal: Journal, fill: Callable[[Journal], None], of: str
) -> None:
    """The journal knows this of its own process and of another one; a user's logout everywhere may concern any
    session."""
    assert journal.is_empty() and all(map(journal.is_silent_about, "dcx"))
    fill(journal)
    assert not journal.is_empty()
    assert "".join(digest for digest in "dcx" if not journal.is_silent_about(digest)) == of
    assert journal.overlay(ref("x")) == NOTHING or of == "dcx"


def test_what_another_process_writes_is_known_at_once(durable: Journal, sibling: Journal) -> None:
    """A write of another process is known for its session alone, and so is its merge."""
    assert durable.is_silent_about("d")
    write(sibling, a=b"1")
    assert not durable.is_silent_about("d")
    assert durable.is_silent_about("x")
    sibling.forget_writes(sibling.pending_writes())
    assert durable.is_silent_about("d")


def test_copies_have_readers_in_an_outage_and_shortly_after_it(
    durable: Journal, sibling: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of the host announces the outage, or may announce it again soon; a copy that is left over has none."""
    sibling.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(1, {}))])
    assert not durable.has_readers()
    sibling.board.announce_outage("primary")
    assert durable.has_readers()
    sibling.board.outage_over("primary")
    assert durable.changed() and durable.has_readers()
    monkeypatch.setattr(journal_module, "LINGER", 0.0)
    assert not durable.has_readers()


@pytest.mark.parametrize(("sessions", "is_silent"), [(50, True), (51, False)])
def test_of_many_sessions_it_is_not_remembered(journal: Journal, sessions: int, is_silent: bool) -> None:
    """The others have to ask then."""
    for number in range(sessions):
        write(journal, f"d{number}", a=b"1")
    assert journal.is_silent_about("x") is is_silent
    assert not journal.is_silent_about("d0")
    assert journal.overlay(ref("x")) == NOTHING


def test_threads_that_look_at_the_same_moment_look_once(durable: Journal, sibling: Journal) -> None:
    """The others have waited for the connection, and find what the first one has seen."""
    write(sibling, a=b"1")
    looks: list[str] = []
    with durable.file.connected() as db:
        db.set_trace_callback(looks.append)
        threads = [threading.Thread(target=durable.is_silent_about, args=("x",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)  # they wait for the connection by now; should one not, it finds what is known
    for thread in threads:
        thread.join(LONG)
    assert sum("group_concat" in look for look in looks) == 1


def test_overlay_has_all_of_one_session_only(journal: Journal) -> None:
    """The overlay holds a session's writes, deletions, increments and copies, and those of no other."""
    copy = CategoryCopy(4, {"lang": b'"jp"'})
    write(journal, text=b'"\xe3\x81\x82"', gone=None)
    increment(journal, 2)
    journal.board.publish_copies([SharedCopy("d", "ui", copy), SharedCopy("other", "ui", copy)])
    write(journal, "other", text=b"1")
    assert journal.overlay(ref("d")) == Overlay(
        revoked=False,
        writes={"translation": {"text": b'"\xe3\x81\x82"', "gone": None}},
        deltas={"translation": {"n": [("added..", 2)]}},
        copies={"ui": copy},
    )


# Writes


def test_pending_writes_are_oldest_first(journal: Journal) -> None:
    """The field written longest ago comes first, and the limit cuts the newest off."""
    write(journal, a=b"1", b=b"1", c=b"1")
    write(journal, a=b"2")
    assert [entry.field for entry in journal.pending_writes()] == ["b", "c", "a"]
    assert [entry.field for entry in journal.pending_writes(limit=2)] == ["b", "c"]


def test_a_number_is_never_given_twice(journal: Journal) -> None:
    """Numbers grow even after everything was deleted, so that an old entry can never name a new write, or carry."""
    former: list[tuple[int, int]] = []
    for _ in range(2):
        write(journal, a=b"1")
        journal.carry(Carry("c", "d", "a", ["ui"]))
        [kept], [carry] = journal.pending_writes(), journal.pending_carries()
        assert former < [(kept.seq, carry.seq)]
        former = [(kept.seq, carry.seq)]
        for _ in range(2):
            journal.forget_writes([kept])
            journal.forget_carries([carry])


def test_all_of_a_request_is_kept_or_nothing(journal: Journal) -> None:
    """An addition to what is no number fails the call: nothing is kept, not even the entries before it."""
    write(journal, n=b'"x"')
    with pytest.raises(StoreError) as caught:
        journal.put([blind_write("a", b"1"), addition(1), blind_write("b", b"1")])
        journal.carry(Carry("c", "d", "u", ["ui"]))
    assert caught.value.error_class is ErrorClass.DATA
    assert journal.overlay(ref("d")).writes == {"translation": {"n": b'"x"'}}
    assert journal.counts()["carries"] == 0


def test_a_sum_beyond_64_bits_is_refused(journal: Journal) -> None:
    """An increment that no store could hold is an error of class DATA; what waited stays."""
    increment(journal, 2**62)
    with pytest.raises(StoreError) as caught:
        increment(journal, 2**62)
    assert caught.value.error_class is ErrorClass.DATA
    [kept] = journal.pending_writes()
    assert kept.delta == 2**62


# Data under a former id


@pytest.mark.parametrize("damage", ["operation = 'x'", "basis = 'x'", "operation = x'c1'"])
def test_a_damaged_entry_concerns_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """The damaged change is lost, which is logged; its session and the replay go on."""
    journal = journal_at(tmp_path / "journal")
    write(journal, a=b"1")
    write(journal, b=b"2")
    with closing(sqlite3.connect(tmp_path / "journal")) as file:
        file.execute(f"UPDATE writes SET {damage} WHERE field = 'a'")
        file.commit()
    assert journal.overlay(ref("d")).writes == {"translation": {"b": b"2"}}
    assert [entry.field for entry in journal.pending_writes()] == ["b"]
    assert journal.counts()["writes"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    journal.close()


@pytest.mark.parametrize("use", ["alone", "shrink"])
def test_a_lock_whose_file_cannot_be_used_is_an_error_of_the_journal(tmp_path: Path, use: str) -> None:
    """The error is like every other one of the journal: the replay and the monitor go on after it."""
    journal = journal_at(tmp_path / "journal", limits=JournalLimits(session_bytes=2**24))
    write(journal, a=b"1" * 5_000_000)
    journal.forget_writes(journal.pending_writes())
    lock = tmp_path / ("journal-gen" if use == "alone" else "journal-lock")
    lock.rename(tmp_path / "aside")
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError) as caught:
        if use == "shrink":
            journal.shrink()
        else:
            with journal.alone():
                raise AssertionError
    assert caught.value.store == "journal"
    journal.close()


def test_d34_a_deleted_file_is_noticed_also_if_it_was_missed_while_it_was_opened_anew(tmp_path: Path) -> None:
    """The monitor has a connection of its own, which finds no file at just that moment."""
    folder = tmp_path / "folder"
    journal = journal_at(folder / "journal")
    write(journal, a=b"1")
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="FileNotFound"):
        journal.file.shrink()
    folder.unlink()
    write(journal, b=b"1")
    with pytest.raises(DeletedJournal):
        journal.shrink()
    write(journal, c=b"1")
    assert not journal.shrink()
    journal.close()


def test_what_is_to_be_carried_is_kept_with_what_was_written(journal: Journal, clock: Clock) -> None:
    """Oldest first, with its categories in order; once it is done it is forgotten, and the other one stays."""
    journal.carry(Carry("old", "d", "u", ["ui", "translation"]))
    journal.put([blind_write("a", b"1")])
    journal.carry(Carry("older", "e", "a", ("ui",)))
    first, second = journal.pending_carries()
    assert (first.origin, first.digest, first.kind, first.categories) == ("old", "d", "u", ("ui", "translation"))
    assert (second.origin, second.digest, second.kind, second.categories) == ("older", "e", "a", ("ui",))
    assert journal.pending_carries(1) == [first]
    assert journal.pending_carries(after=first.seq) == [second]
    assert journal.counts() == {**dict.fromkeys(journal.counts(), 0), "writes": 1, "carries": 2}
    journal.forget_carries([first])
    assert journal.pending_carries() == [second]


def test_what_is_on_its_way_to_an_id_goes_on_to_the_next_one(journal: Journal) -> None:
    """The data goes behind what the next id has itself, and only what is carried on: a sign-out takes along no more
    than it names."""
    journal.carry(Carry("first", "second", "u", ["ui", "translation"]))
    journal.carry(Carry("second", "third", "a", ["ui"]))
    assert [(carry.origin, carry.digest, carry.kind, carry.categories) for carry in journal.pending_carries()] == [
        ("second", "third", "a", ("ui",)),
        ("first", "third", "a", ("ui",)),
    ]
    assert journal.overlay(ref("third")).carried == journal.overlay(ref("first")).carried == {"ui"}


def test_what_a_visitor_wiped_is_not_carried_on(journal: Journal) -> None:
    """Wiped data is carried on neither by this id nor by one before that; the data of that one goes all the same."""
    journal.carry(Carry("first", "second", "a", ["ui"], left_us=5))
    journal.put([replace(blind_write(WIPED_FIELD, digest="second"), category="ui", operation=Operation.WIPE)])
    journal.carry(Carry("second", "third", "a", ["ui"], left_us=7))
    assert journal.pending_carries() == []
    wipes = [(write.digest, write.moment) for write in journal.pending_writes() if write.operation is Operation.WIPE]
    assert sorted(wipes) == [("first", 5), ("second", 7)]


def test_what_was_written_under_another_id_comes_behind_what_is_brought_there_late(journal: Journal) -> None:
    """A value that was made without knowing the one before it is not kept, as if that had been there."""
    journal.put([blind_write("a", b"1", digest="old"), blind_write("b", b"1", digest="old")])
    unseen = replace(blind_write("a", b"2", digest="new"), basis=Basis.UNSEEN)
    journal.put([unseen, blind_write("b", b"2", digest="new")])
    [left_out], _ = journal.carry(Carry("old", "new", "a", [unseen.category]))
    assert (left_out.field, left_out.value) == ("a", b"2")
    assert journal.overlay(ref("new")).writes == {unseen.category: {"a": b"1", "b": b"2"}}
    assert journal.overlay(ref("old")).writes == {}


@pytest.mark.parametrize(("given_back", "stays"), [(100, True), (200, True), (250, False)])
def test_a_value_gives_way_to_what_may_be_later_than_what_it_was_made_from(
    journal: Journal, given_back: int, stays: bool
) -> None:
    """A copy of a record that Redis was given back is as old as what it was given, and a value that gives way to it
    under another id is counted."""
    new = "n" * 43
    made = replace(blind_write("a", b"2", digest="old"), basis=Basis.SEEN, moment=200, base=b"1")
    journal.put([made])
    copy = CategoryCopy(300, {"a": b"0"}, mark_of_copy(new, CategoryCopy(given_back, {})))
    shared = SharedCopy(new, made.category, copy)
    _, outdated = journal.carry(Carry("old", new, "a", [made.category]), lambda: [shared])
    assert journal.overlay(ref(new)).writes == ({made.category: {"a": b"2"}} if stays else {})
    assert outdated == ({} if stays else {(new, made.category, Basis.SEEN): 1})


@pytest.mark.parametrize(("written_us", "base"), [(199, b"0"), (200, None)])
def test_a_value_may_replace_an_older_one_of_a_copy(journal: Journal, written_us: int, base: bytes | None) -> None:
    """I25: a server that is given the copy back does not know when its fields were written. An addition stays as it
    is."""
    value = replace(blind_write("a", b"2"), moment=200)
    journal.put([value, addition(1)])
    mark = b"%8b%016d%016d000000write.1%011d" % (b"d", 300, written_us, 0)
    fields = {value.field: b"0", addition(1).field: b"3"}
    journal.board.publish_copies([SharedCopy(value.digest, value.category, CategoryCopy(300, fields, mark))])
    assert [(entry.value, entry.base) for entry in journal.pending_writes()] == [(b"2", base), (None, None)]


def test_what_is_written_behind_a_wipe_is_no_older_than_it(journal: Journal) -> None:
    """I20: the wipe waits by the clock of a server that was ahead. Whatever a value was made from, it stays."""
    wipe = replace(blind_write(WIPED_FIELD), operation=Operation.WIPE, moment=900)
    behind = [replace(blind_write("a", b"1"), moment=5), replace(blind_write("b", b"1"), basis=Basis.SEEN, moment=3)]
    journal.put([wipe, *behind])
    assert [(write.field, write.moment) for write in journal.pending_writes()] == [("@", 900), ("a", 900), ("b", 900)]


def test_an_id_that_was_given_up_shows_nothing(journal: Journal) -> None:
    """I20. What it had is still to be brought to the other one; an id that is left to run out shows what it has."""
    journal.carry(Carry("first", "second", "a", ["ui"], left_us=5))
    journal.carry(Carry("visitor", "user", "u", ["ui"]))
    assert journal.overlay(ref("first")).wiped == {"ui"}
    assert journal.overlay(ref("second")).wiped == journal.overlay(ref("visitor")).wiped == frozenset()


@pytest.mark.parametrize(("left_us", "later", "wipes"), [(5, "", ["first"]), (0, "", []), (5, "third", [])])
def test_what_a_former_id_had_is_to_be_wiped_when_all_of_it_was_brought(
    journal: Journal, clock: Clock, left_us: int, later: str, wipes: list[str]
) -> None:
    """I20. Not before: what is done again would take the wipe for what is to be brought. What goes on to a later id
    meanwhile is still to be brought there."""
    journal.carry(Carry("first", "second", "a", ["ui"], left_us))
    done = journal.pending_carries()
    if later:
        journal.carry(Carry("second", later, "a", ["ui"], left_us=7))
    clock.now += 1
    journal.put([replace(blind_write("a", digest="first"), category="ui")])  # late, by its former id
    journal.forget_carries(done)
    waiting = journal.pending_writes()
    assert [write.digest for write in waiting if write.operation is Operation.WIPE] == wipes
    assert "a" in [write.field for write in waiting]
    assert len(journal.pending_carries()) == (2 if later else 0)


# Revocations and pushes


def test_a_push_queued_again_outlives_the_older_one(journal: Journal) -> None:
    """Forgetting a push that was done does not forget one that was queued since."""
    journal.queue_push("a")
    journal.queue_push("b")
    done = journal.pending_pushes()
    journal.queue_push("a")
    for entry in done:
        journal.forget_push(entry)
    assert journal.pending_pushes() == [PendingPush(seq=3, digest="a")]


def test_a_push_says_of_which_version_it_is(journal: Journal) -> None:
    """The highest that was noted, for the workers that have an older row; forgotten with the push."""
    assert journal.overlay(ref("a")).version == 0
    for version in (4, 3, 0):
        journal.queue_push("a", version)
        assert journal.overlay(ref("a")).version == 4
    assert journal.overlay(ref("b")).version == 0
    for entry in journal.pending_pushes():
        journal.forget_push(entry)
    assert journal.overlay(ref("a")).version == 0


def test_a_push_is_seen_at_once_and_not_forced_to_the_disk(
    durable: Journal, sibling: Journal, forced: list[str]
) -> None:
    """The database has it for good; the siblings still hear of it without being told to look."""
    assert durable.is_empty() and sibling.is_empty()
    durable.queue_push("d", 7)
    assert forced == []
    assert not sibling.is_empty()
    assert sibling.overlay(ref("d")).version == 7
    durable.revocations.note("d")
    assert len(forced) == 1


def test_a_full_journal_still_takes_revocations(path: Path) -> None:
    """Above the limit new writes are refused whole; logouts, pushes and known fields are not."""
    journal = journal_at(path, limits=JournalLimits(entries=2))
    write(journal, a=b"1", b=b"1")
    additions: tuple[Callable[[], object], ...] = (
        lambda: write(journal, "e", a=b"1"),
        lambda: increment(journal, 1),
        lambda: journal.put([replace(blind_write("@", digest="e"), operation=Operation.WIPE)]),
    )
    for add in additions:
        with pytest.raises(StoreError) as caught:
            add()
        assert caught.value.error_class is ErrorClass.LOCAL
    journal.revocations.note("e")
    journal.revocations.note_user("7", until_ms=1)
    journal.queue_push("e")
    write(journal, a=b"2")
    assert journal.overlay(ref("d")).writes == {"translation": {"a": b"2", "b": b"1"}}
    journal.revocations.note("d")
    write(journal, "f", a=b"1", b=b"1")
    assert journal.counts()["writes"] == 2
    journal.close()


def test_what_adds_nothing_goes_on_where_there_is_more_than_may_be(path: Path) -> None:
    """After a limit was lowered, a field that waits can be written again, and nothing new be added."""
    journal = journal_at(path)
    write(journal, "d", a=b"1", b=b"1", c=b"1")
    journal.close()
    journal = journal_at(path, limits=JournalLimits(entries=2, bytes=500))
    write(journal, "d", a=b"2")
    assert [entry.value for entry in journal.pending_writes()] == [b"1", b"1", b"2"]
    with pytest.raises(StoreError, match="the most entries is reached"):
        write(journal, "d", e=b"1")
    journal.close()


# Several workers of one host


def test_an_empty_journal_is_not_read_again(durable: Journal) -> None:
    """While nothing writes, is_empty reads no table."""
    asked = questions(durable)
    assert durable.is_empty()
    assert asked == []


def test_changed_reports_the_commits_of_others_once(durable: Journal, sibling: Journal) -> None:
    """The first call says True, later ones only when another worker has committed since."""
    assert durable.changed()
    assert not durable.changed()
    durable.board.announce_outage("primary")
    assert not durable.changed()
    sibling.board.announce_outage("primary")
    assert durable.changed()
    assert not durable.changed()


def test_threads_of_one_worker_share_its_connections(durable: Journal) -> None:
    """Threads that write, read and ask at once neither fail nor lose a write."""
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(30):
                write_fields(durable, name, {f"f{number}": b"1"})
                assert not durable.is_empty()
                assert len(durable.overlay(ref(name)).writes["translation"]) == number + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"d{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert durable.counts()["writes"] == 120


# How a commit is noticed without asking


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_worker_that_writes_slowly_is_left_alone(durable: Journal, sibling: Journal) -> None:
    """While another process is in the middle of a write, "empty" is not kept, no reader waits, and its commit is
    noticed."""
    assert durable.is_empty()

    def write_slowly(db: sqlite3.Connection) -> None:
        assert durable.is_empty()
        began = time.monotonic()
        durable.changed()
        assert time.monotonic() - began < 5
        assert durable.is_empty()
        db.execute("INSERT INTO pushes (digest) VALUES ('d')")

    sibling.file.transaction(write_slowly)
    assert not durable.is_empty()


def test_a_late_end_does_not_hide_a_transaction_that_began_meanwhile(durable: Journal, path: Path) -> None:
    """A worker that is held up after its commit must not speak for the next one, which may die in its own."""
    durable.open()
    one, two = CommitCounter(path), CommitCounter(path)
    before = one.committed()
    first = one.begin()
    second = two.begin()
    one.end(first)
    assert one.committed() is two.committed() is None
    two.end(second)
    assert one.committed() == two.committed() != before
    one.end(first)
    assert one.committed() == two.committed() != before


def test_a_write_that_is_taken_back_leaves_nothing_behind(journal: Journal) -> None:
    """After a transaction that failed the journal is asked once, and then not any more."""
    assert journal.is_empty()
    increment(journal, 2**62)
    journal.forget_writes(journal.pending_writes())
    write(journal, n=b'"x"')
    with pytest.raises(StoreError):
        increment(journal, 1)
    journal.forget_writes(journal.pending_writes())
    assert journal.is_empty()
    asked = questions(journal)
    assert journal.is_empty()
    assert asked == []


def test_one_file_under_two_names_is_noticed(durable: Journal, path: Path) -> None:
    """A worker that knows the folder by a symbolic link shares what the others look at."""
    (path.parent / "link").symlink_to(path.parent)
    assert durable.is_empty()
    linked = journal_at(path.parent / "link" / path.name)
    linked.queue_push("d")
    assert not durable.is_empty()
    linked.close()


def test_the_numbers_begin_anew_at_their_end(path: Path) -> None:
    """After the last number of 32 bits comes 0, and commits are noticed as ever."""
    path.with_name(f"{path.name}-gen").write_bytes((b"\xff" * 8).ljust(SIZE, b"\0"))
    one, two = journal_at(path), journal_at(path)
    for _ in range(2):
        assert one.is_empty()
        two.queue_push("d")
        assert not one.is_empty()
        two.forget_push(two.pending_pushes()[0])
    one.close()
    two.close()


def test_a_file_that_is_made_twice_says_nothing_at_first(durable: Journal, path: Path) -> None:
    """A worker that finds the small file too short begins it anew. Of a transaction that is under way there it does not
    say that it is over: what was read before its commit is not kept."""
    durable.open()
    mine = CommitCounter(path)
    number = mine.begin()
    path.with_name(f"{path.name}-gen").write_bytes(b"")
    other = CommitCounter(path)
    assert other.committed() is None
    mine.end(number)
    assert other.committed() is mine.committed() is None
    other.end(other.begin())
    assert other.committed() == mine.committed() != None  # noqa: E711


def test_only_one_worker_is_alone(journal: Journal) -> None:
    """The second one is told so and does not wait; afterwards the next one is, also after an error."""
    with journal.alone() as first, journal.alone() as second:
        assert (first, second) == (True, False)
    with pytest.raises(StoreError), journal.alone():
        raise StoreError("primary", ErrorClass.UNREACHABLE, "Test")
    with journal.alone() as again:
        assert again


# Durability


def test_every_commit_is_forced_to_the_disk(durable: Journal, forced: list[str]) -> None:
    """The log that holds it is, before the call returns: a power failure loses no acknowledged write. SQLite itself
    forces the log before it copies from it, and the file before it writes the log anew."""
    for number in range(1, 4):
        durable.revocations.note(f"d{number}")
        assert forced == ["journal.sqlite-wal"] * number
    assert writer(durable).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer(durable).execute("PRAGMA synchronous").fetchone() == (1,)


# The file


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_only_the_owner_can_read_it(tmp_path: Path, umask: int) -> None:
    """The file and what lies beside it have mode 0600 whatever the umask; a folder made for it has 0700."""
    before = os.umask(umask)
    try:
        journal = journal_at(tmp_path / "instance" / "journal.sqlite")
        journal.revocations.note("d")
    finally:
        os.umask(before)
    files = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "instance").iterdir()}
    own = "journal.sqlite"
    names = [own, f"{own}-wal", f"{own}-shm", "journal.sqlite-gen", "journal.sqlite-lock"]
    assert files == dict.fromkeys(names, 0o600)
    assert (tmp_path / "instance").stat().st_mode & 0o777 == 0o700
    journal.close()


def test_no_thread_opens_a_file_while_another_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that made it closes it, and that would take the other thread's locks on it away."""
    entered, held = threading.Event(), threading.Event()

    def close(descriptor: int) -> None:
        entered.set()
        assert held.wait(LONG)
        os.close(descriptor)

    flags = {name: getattr(os, name) for name in ("O_CREAT", "O_EXCL", "O_RDWR")}
    monkeypatch.setattr(private_file, "os", SimpleNamespace(open=os.open, close=close, **flags))
    threads = [threading.Thread(target=private_file.create_private, args=(tmp_path / "file",)) for _ in range(2)]
    threads[0].start()
    assert entered.wait(LONG)
    threads[1].start()
    threads[1].join(0.1)
    assert threads[1].is_alive()
    held.set()
    for thread in threads:
        thread.join(LONG)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_open_finds_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """Opening fails at once, with the reason's name, when the place of the file cannot be used."""
    (tmp_path / "file").touch()
    for path, cause in (
        (tmp_path / "missing" / "folder" / "journal", "FileNotFoundError"),
        (tmp_path / "file" / "journal", "NotADirectoryError"),
        (tmp_path, f"{tmp_path.name} is not a regular file"),
    ):
        mode = tmp_path.stat().st_mode
        with pytest.raises(StoreError) as caught:
            journal_at(path).open()
        assert (caught.value.store, caught.value.error_class) == ("journal", ErrorClass.UNREACHABLE)
        assert caught.value.cause.startswith(cause)
        assert tmp_path.stat().st_mode == mode


def test_a_damaged_file_is_reported_and_left_alone(durable: Journal, path: Path) -> None:
    """A file that is no database is an error of class UNREACHABLE in every call, and keeps its content."""
    durable.open()
    path.write_bytes(b"not a database" * 100)
    for call in (durable.open, durable.is_empty, lambda: durable.revocations.note("d")):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.error_class is ErrorClass.UNREACHABLE
        assert caught.value.cause == "SQLITE_NOTADB"
    assert path.read_bytes() == b"not a database" * 100
    path.unlink()
    assert durable.is_empty(), "the same journal goes on with a new file"


def test_a_database_of_another_program_is_not_touched(durable: Journal, path: Path) -> None:
    """Another application's SQLite file is refused, and nothing of it is changed."""
    file = path.with_name(f"{path.name}-9")
    file.touch(mode=0o644)
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE accounts (id)")
    other.close()
    before = (file.read_bytes(), file.stat().st_mode)
    with pytest.raises(StoreError, match="not a journal"):
        durable.open()
    assert (file.read_bytes(), file.stat().st_mode) == before


@pytest.mark.parametrize(
    ("pragma", "cause"), [("max_page_count = 1", "SQLITE_FULL"), ("query_only = ON", "SQLITE_READONLY")]
)
def test_a_full_or_read_only_disk_refuses_writes(durable: Journal, pragma: str, cause: str) -> None:
    """Full and read-only are of class WRITE_REFUSED; nothing of the call is kept, and reads go on."""
    durable.revocations.note("before")
    writer(durable).execute(f"PRAGMA {pragma}")
    with pytest.raises(StoreError) as caught:
        write_fields(durable, "d", {f"field{number}": b"x" * 1000 for number in range(100)})
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.WRITE_REFUSED, cause)
    assert durable.overlay(ref("d")) == NOTHING
    assert durable.revocations.is_revoked("before")


def test_a_full_disk_closes_nothing(durable: Journal) -> None:
    """A file that is let go of on a full disk may find no room to be opened again, and it could not be read."""
    durable.revocations.note("before")
    assert not durable.is_empty()
    writes, reads = writer(durable), durable.file.reader.connection
    writes.execute("PRAGMA max_page_count = 1")
    for _ in range(2):
        with pytest.raises(StoreError, match="SQLITE_FULL"):
            write(durable, a=b"x" * 100_000)
        assert not durable.is_empty()
    assert (durable.file.writer.connection, durable.file.reader.connection) == (writes, reads)
    writes.execute("PRAGMA max_page_count = 1000")
    write(durable, a=b"x" * 100_000)
