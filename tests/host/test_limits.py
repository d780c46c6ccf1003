"""Limits of the journal, shares of visitors and users in it, and that its file gets small again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flask_langpont_session.policy.changes import Basis, Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.host.entries import WIPED_FIELD
from flask_langpont_session.stores.host.journal import Carry, Journal, journal_at
from flask_langpont_session.stores.host.limits import JournalLimits
from flask_langpont_session.support.files import beside
from tests.support.entries import addition, value
from tests.support.journal_process import output, process

MEGABYTE = 1_048_576
PLENTY = 10**9
NOTHING = ", ".join(f"{part}{unit} = 0" for part in ("", "visitor_", "copy_") for unit in ("entries", "bytes"))


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., Journal]]:
    """A journal with limits; what is not said is plenty."""
    journals: list[Journal] = []

    def make(**limits: float) -> Journal:
        plenty: dict[str, float] = dict.fromkeys(("entries", "bytes", "session_entries", "session_bytes"), PLENTY)
        journals.append(journal_at(path, limits=JournalLimits(**{**plenty, **limits})))  # type: ignore[arg-type]
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


def write(journal: Journal, digest: str, *, kind: str = "u", shadow: bool = False, **changes: bytes | None) -> None:
    journal.put([value(digest, name, text, kind=kind, shadow=shadow) for name, text in changes.items()])


def publish(journal: Journal, digest: str, value: bytes = b"1") -> int:
    """Share a copy; whether it is left out."""
    return journal.board.publish_copies([SharedCopy(digest, "ui", CategoryCopy(1, {"a": value}))]).left_out


def is_full(add: Callable[[], object]) -> str:
    """Return the limit by which an entry is refused."""
    with pytest.raises(StoreError) as caught:
        add()
    assert caught.value.error_class is ErrorClass.LOCAL
    return caught.value.cause


def fill(add: Callable[[int], object]) -> tuple[str, int]:
    """Add until it is refused: by which limit, and how many were taken."""
    for number in range(100_000):
        try:
            add(number)
        except StoreError as error:
            assert error.error_class is ErrorClass.LOCAL
            return error.cause, number
    raise AssertionError


def in_use(path: Path) -> int:
    """Bytes of the database that are not free, with what only its log has yet."""
    with closing(sqlite3.connect(path)) as file:
        pages, free, size = (
            file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


# Of whom


def test_visitors_cannot_crowd_out_users(make: Callable[..., Journal]) -> None:
    """D7, I23: strangers fill their share and no more, in any form; what users write is kept, and known keys too."""
    journal = make(entries=100, visitor_share=0.5)
    write(journal, "user", text=b"1")
    assert fill(lambda n: write(journal, f"stranger{n}", kind="a", a=b"1")) == ("the share of visitors is reached", 50)
    assert is_full(lambda: write(journal, "user", shadow=True, a=b"1")) == "the share of visitors is reached"
    counting = [addition("e", "n", 1, kind="a")]
    assert is_full(lambda: journal.put(counting)) == "the share of visitors is reached"
    write(journal, "stranger0", kind="a", a=b"2")
    assert [publish(journal, f"c{number}") for number in range(200)] == [0] * 200  # copies are limited in bytes
    assert fill(lambda n: write(journal, f"user{n}", a=b"1")) == ("the most entries is reached", 49)
    write(journal, "user", text=b"2")
    journal.revocations.note("someone")
    journal.forget_writes(journal.pending_writes(10))
    write(journal, "user", other=b"2")


def test_the_ids_that_visitors_give_up_are_part_of_their_share(make: Callable[..., Journal]) -> None:
    """I23: each change of an id in an outage waits here. A change of a user's id has the room of users."""
    journal = make(entries=100, visitor_share=0.5)
    taken = fill(lambda n: journal.carry(Carry(f"old{n}", f"new{n}", "a", ["ui"], 1)))
    assert taken == ("the share of visitors is reached", 50)
    assert fill(lambda n: journal.carry(Carry(f"was{n}", f"is{n}", "u", ["ui"])))[1] == 50
    journal.forget_carries(journal.pending_carries())
    journal.forget_writes(journal.pending_writes())  # the wipes of these ids
    journal.carry(Carry("old", "new", "a", ["ui"]))


def test_visitors_cannot_crowd_out_users_by_size(make: Callable[..., Journal], path: Path) -> None:
    """D7: twenty megabytes of posts by strangers, a limit of four: users' writes are kept, the file stays below it."""
    journal = make(bytes=4 * MEGABYTE, visitor_share=0.5)
    refused = set()
    for number in range(400):
        try:
            write(journal, f"stranger{number}", kind="a", text=b"x" * 50_000)
        except StoreError as error:
            refused.add(error.cause)
        if number % 40 == 0:
            write(journal, f"user{number}", text=b"x" * 50_000)
    assert refused == {"the share of visitors is reached"}
    assert sum(entry.kind == "u" for entry in journal.pending_writes()) == 10
    assert in_use(path) <= 4 * MEGABYTE


@pytest.mark.parametrize("size", [1, 100, 1500, 2100, 3900, 4200, 9000, 50_000])
def test_the_file_is_no_larger_than_the_limit(make: Callable[..., Journal], path: Path, size: int) -> None:
    """The file keeps to its limit whatever the size of the values, also where many were taken out again in between."""
    journal, rng = make(bytes=MEGABYTE), random.Random(size)
    for _ in range(2):
        cause, taken = fill(lambda n: write(journal, f"{rng.random()}{n:050}", text=b"x" * size, more=b"1"))
        assert cause == "JOURNAL_MAX_BYTES is reached"
        assert taken > 0
        assert in_use(path) <= MEGABYTE
        waiting = journal.pending_writes(10_000)
        journal.forget_writes(rng.sample(waiting, len(waiting) // 2))


def test_copies_take_a_quarter(make: Callable[..., Journal], path: Path) -> None:
    """Copies get at most a quarter of the journal's bytes; what does not fit is left out."""
    journal = make(bytes=MEGABYTE)
    assert {publish(journal, f"{n:064}", b"x" * 3000) for n in range(100)} == {0, 1}
    assert in_use(path) <= MEGABYTE / 4 + 100_000


def test_one_session_cannot_take_it_all(make: Callable[..., Journal]) -> None:
    """The number of a session's keys is limited, and their size; its shadow counts for itself, and a write that
    makes less of it is taken."""
    journal = make(session_entries=3, session_bytes=1000)
    write(journal, "d", a=b"1", b=b"1")
    assert is_full(lambda: write(journal, "d", c=b"1", e=b"1")) == "the most entries of a session is reached"
    assert journal.counts()["writes"] == 2
    write(journal, "d", shadow=True, c=b"1", e=b"1")
    write(journal, "d", a=b"x" * 990, b=None)
    assert is_full(lambda: write(journal, "d", b=b"x" * 100)) == "the most bytes of a session is reached"
    assert is_full(lambda: write(journal, "d", a=b"x" * 1000)) == "the most bytes of a session is reached"
    write(journal, "d", a=b"x" * 980)
    write(journal, "e", a=b"x" * 990)
    journal = make(session_bytes=10)
    write(journal, "d", a=b"x" * 900)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_counted_is_what_is_there(make: Callable[..., Journal], path: Path, seed: int) -> None:
    """After anything that can happen to entries the kept sums are those of the rows."""
    journal, rng = make(), random.Random(seed)

    def digest() -> str:
        return rng.choice("abc")

    def copy() -> SharedCopy:
        return SharedCopy(digest(), "ui", CategoryCopy(rng.randrange(9), {"n": b"1" * rng.randrange(50)}), age=9.0)

    steps: list[Callable[[], object]] = [
        lambda: write(
            journal, digest(), kind=rng.choice("au"), shadow=rng.random() < 0.3, n=b"1" * rng.randrange(1, 9), m=b"\xff"
        ),
        lambda: journal.put([addition(digest(), "n", 1, kind=rng.choice("au"), token=f"added.{rng.randrange(3)}")]),
        lambda: journal.put([value(digest(), "n", b"2", basis=Basis.SEEN, moment=5, base=b"12", doubts="write.1 ")]),
        lambda: journal.put([value(digest(), WIPED_FIELD, None, kind=rng.choice("au"), operation=Operation.WIPE)]),
        lambda: journal.board.publish_copies([copy(), copy()]),
        lambda: journal.mark_sent(dict.fromkeys(journal.pending_writes(2), "write.2"), {"a": 9}),
        lambda: journal.forget_writes(journal.pending_writes(1), [copy()]),
        lambda: journal.revocations.note(rng.choice("xyz"), in_database=True, in_redis=True),
        journal.board.clear_copies,
    ]
    for _ in range(60):
        rng.choice(steps)()
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        kept = file.execute("SELECT * FROM size").fetchall()
        file.execute("BEGIN")
        for table in ("writes", "copies"):
            file.execute(f"CREATE TEMP TABLE saved_{table} AS SELECT * FROM {table}")
            file.execute(f"DELETE FROM {table}")
        file.execute(f"UPDATE size SET {NOTHING}")
        for table in ("writes", "copies"):
            columns = ", ".join(row[1] for row in file.execute(f"PRAGMA table_info({table})"))
            file.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM saved_{table}")
        assert file.execute("SELECT * FROM size").fetchall() == kept
        file.execute("ROLLBACK")


# The file gets small again


def test_an_emptied_file_shrinks(make: Callable[..., Journal], path: Path) -> None:
    """D7: portion by portion; what is left is as it was, and other processes read and write on."""
    journal = make()
    for number in range(80):
        write(journal, f"d{number}", text=b"x" * 100_000)
    write(journal, "stays", text=b"1")
    journal.forget_writes(journal.pending_writes(80))
    reading = """
        print("ready", flush=True)
        for number in range(200):
            assert journal.overlay(ref("stays")).writes
            journal.queue_push(str(number), wait=20)
    """
    worker = process(reading, path)
    assert worker.stdout and worker.stdout.readline() == "ready\n"
    calls = 0
    while journal.shrink():  # as often as the other one lets it
        calls += 1
    output(worker)
    while journal.shrink():  # of what it wrote
        pass
    assert calls > 3
    assert path.stat().st_size < 2 * MEGABYTE
    assert [entry.digest for entry in journal.pending_writes()] == ["stays"]
    assert len(journal.pending_pushes()) == 200
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_small_file_shrinks_too(make: Callable[..., Journal], path: Path) -> None:
    """A small file shrinks although its log is short."""
    journal = make()
    for number in range(12):
        write(journal, f"d{number}", text=b"x" * 100_000)
    journal.close()  # which copies to the file what the log has
    assert path.stat().st_size > MEGABYTE
    journal.forget_writes(journal.pending_writes())
    calls = 0
    while journal.shrink():
        calls += 1
        assert calls < 10
    assert path.stat().st_size < MEGABYTE


def test_a_file_that_is_in_use_is_not_made_smaller(make: Callable[..., Journal], path: Path) -> None:
    """Only free pages that outnumber the others are worth it; asking costs no writing."""
    journal = make()
    for number in range(40):
        write(journal, f"d{number}", text=b"x" * 100_000)
    journal.forget_writes(journal.pending_writes(10))
    assert not journal.shrink()  # which copies to it what the log has
    before = path.stat().st_mtime_ns, path.stat().st_size
    assert not journal.shrink()
    assert (path.stat().st_mtime_ns, path.stat().st_size) == before
    assert path.stat().st_size > 4_000_000


def test_a_file_that_nothing_was_written_to_is_not_looked_through_again(make: Callable[..., Journal]) -> None:
    """An idle worker asks all the time. What is written without changing any answer to requests counts, too."""
    journal, asked = make(), list[str]()
    write(journal, "d", text=b"x")
    journal.shrink()
    connection = journal.file.sides.shrink.connection
    assert connection is not None
    connection.set_trace_callback(asked.append)
    journal.shrink()
    assert asked == ["PRAGMA data_version"]
    journal.file.aside(lambda db: db.execute("INSERT INTO delivered VALUES ('d', 1)"))
    journal.shrink()
    assert len(asked) > 2


def test_the_log_does_not_grow_without_end(make: Callable[..., Journal], path: Path) -> None:
    """The log stays small however much is written and taken out again."""
    journal = make()
    for number in range(200):
        write(journal, f"d{number}", text=b"x" * 200_000)
        journal.forget_writes(journal.pending_writes())
    assert beside(path, "wal").stat().st_size < 20 * MEGABYTE
    assert path.stat().st_size < 4 * MEGABYTE


def test_a_journal_in_memory_has_limits_too() -> None:
    """A journal in memory keeps to its limits, and may be told to shrink, to no use."""
    journal = journal_at(None, limits=JournalLimits(entries=2))
    assert fill(lambda n: write(journal, f"d{n}", a=b"1")) == ("the most entries is reached", 2)
    assert not journal.shrink()
    journal.close()
