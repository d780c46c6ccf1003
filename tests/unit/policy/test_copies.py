"""Records as a server describes them, and what is known of one after a write."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import (
    NOT_THERE,
    CategoryCopy,
    Change,
    Damaged,
    Foreign,
    described,
    may_be_later,
    rewritten,
    written_at,
    written_over,
)

DIGEST, OTHER = "d" * 43, "e" * 43


def meta(stamp: int, horizon: int = 1, author: bytes = b"write.1", own: str = DIGEST) -> bytes:
    return own[:8].encode() + b"%016d%016d000000%b00000080001" % (stamp, horizon, author)


@pytest.mark.parametrize(
    ("author", "given_back", "began"),
    [(b"write.1", 0, 4), (b"*wiped*", 0, 0), (b"-------", 0, 0), (b"*copied", 4, 0), (b"*part**", 4, 4)],
)
def test_a_record_says_how_it_began(author: bytes, given_back: int, began: int) -> None:
    """By a write, from a wipe, or as a copy that was given back; a part of one may have begun by a write."""
    copy = described(DIGEST, meta(9, 4, author), {"text": b"1"})
    assert (copy.version, copy.given_back, copy.began) == (9, given_back, began)


@pytest.mark.parametrize(("said", "error"), [(meta(9, own=OTHER), Foreign), (b"x", Damaged), (b"d" * 64, Damaged)])
def test_what_describes_no_record_of_the_session_is_refused(said: bytes, error: type[Exception]) -> None:
    with pytest.raises(Damaged) as caught:
        described(DIGEST, said, {})
    assert caught.type is error


BASE = CategoryCopy(4, {"text": b"1", "lang": b"2"}, meta(4), began=1)
SET = CategoryChange(0, sets={"text": b"9"})
WIPE = CategoryChange(0, sets={"text": b"9"}, wipe=True)
ADD = CategoryChange(0, sets={"text": b"9"}, increments={"n": 1})


@pytest.mark.parametrize(
    ("change", "before", "kept", "own"),
    [
        (SET, 4, {"text": b"9", "lang": b"2"}, 9),
        (SET, 5, None, 4),  # another write came between
        (WIPE, 5, {"text": b"9"}, 4),
        (ADD, 4, None, 9),  # the server adds
    ],
)
def test_what_is_known_after_a_write(
    change: CategoryChange, before: int, kept: dict[str, bytes] | None, own: int
) -> None:
    """A record of a server is known as a whole, or not at all; a copy takes the version of a write that found it."""
    version = Change(before, 9, meta(9))
    after = rewritten(DIGEST, BASE, change, version)
    assert after == NOT_THERE if kept is None else (after.version, after.fields) == (9, kept)
    assert written_over(DIGEST, BASE, change, version).version == own


@pytest.mark.parametrize(
    ("said", "version", "is_later", "at"),
    [
        (meta(10_000, 9_000), 8_999, True, 9_000),
        (meta(10_000, 9_000), 9_000, False, 9_000),
        (meta(9_000) + b"\1text\1other.10000000000007000000001", 8_000, False, 6_000),
        (meta(9_000) + b"\1text\1other.10000000000007000000000", 7_000, False, 7_000),
        (meta(9_000)[:-3] + b"xyz\1text\1other.1000000000000700000000x", 7_000, False, 0),
        (meta(10_000, 9_000).replace(b"000000write", b"000001write"), 8_999, True, 8_000),  # acknowledged before
        (b"d" * 64, 10**15, True, 0),  # damaged: nothing is known of it
    ],
)
def test_when_a_field_was_written(said: bytes, version: int, is_later: bool, at: int) -> None:
    """A field that the description does not note is not later than its horizon."""
    assert (may_be_later(said, "text", version), written_at(said, "text")) == (is_later, at)


def test_a_field_is_looked_for_as_it_is_noted() -> None:
    """A separator in its name stands there as another one."""
    assert written_at(meta(1) + b"\1a\2b\1author.%016d000000" % 7, "a\1b") == 7
