"""What a worker has read of records before: what it keeps, and for how long."""

from __future__ import annotations

from flask_langpont_session.policy.values import CategoryCopy, RecordRef
from flask_langpont_session.stores.redis.known import LARGEST_SHARE, KnownRecords
from flask_langpont_session.stores.redis.records import NOT_THERE, Known

UI = RecordRef("d", "a")


def record(mark: bytes, size: int = 1) -> Known:
    return Known(mark, CategoryCopy(1, {"key": b"x" * size}))


def test_what_was_read_is_known() -> None:
    known = KnownRecords()
    assert known.of(UI) == {}
    known.note(UI, {}, {"ui": record(b"1"), "translation": record(b"2")})
    assert known.of(UI) == {"ui": record(b"1"), "translation": record(b"2")}
    assert known.of(UI._replace(shadow=True)) == {}


def test_what_was_not_asked_for_stays_known() -> None:
    """Categories that are loaded on demand are read by themselves."""
    known = KnownRecords()
    known.note(UI, {}, {"ui": record(b"1")})
    known.note(UI, known.of(UI), {"translation": record(b"2")})
    known.note(UI, known.of(UI), {"ui": record(b"3")})
    assert known.of(UI) == {"ui": record(b"3"), "translation": record(b"2")}


def test_what_is_not_there_has_no_mark_and_is_not_kept() -> None:
    known = KnownRecords()
    known.note(UI, {}, {"ui": NOT_THERE})
    assert known.of(UI) == {}


def test_what_is_asked_for_stays_and_the_rest_goes() -> None:
    """Within bytes: two generations, and a session that is used moves to the younger one."""
    known = KnownRecords(100_000)
    used, unused = RecordRef("used", "a"), RecordRef("unused", "a")
    known.note(used, {}, {"ui": record(b"1")})
    known.note(unused, {}, {"ui": record(b"1")})
    for number in range(60):
        known.note(RecordRef(str(number), "a"), {}, {"ui": record(b"1", 2000)})
        assert known.of(used)
    assert known.of(unused) == {}


def test_one_session_that_is_written_again_and_again_takes_its_room_once() -> None:
    known = KnownRecords(100_000)
    other = RecordRef("other", "a")
    known.note(other, {}, {"ui": record(b"1")})
    for number in range(1000):
        known.note(UI, known.of(UI), {"ui": record(str(number).encode(), 2000)})
    assert known.of(other)


def test_what_is_too_large_is_not_kept() -> None:
    """Else one session would push all others out."""
    known = KnownRecords(100_000)
    known.note(UI, {}, {"ui": record(b"1", 100_000 // LARGEST_SHARE)})
    assert known.of(UI) == {}


def test_all_of_it_can_be_forgotten() -> None:
    known = KnownRecords()
    known.note(UI, {}, {"ui": record(b"1")})
    known.clear()
    assert known.of(UI) == {}
