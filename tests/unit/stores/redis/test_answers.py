"""Replies to reads, also where the reader has named the content that it has already; and replies to writes."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.policy.copies import CategoryCopy, Change
from flask_langpont_session.policy.rows import AuthEntry, AuthRow
from flask_langpont_session.stores.redis.auth_meta import AuthMeta, dead, live
from flask_langpont_session.stores.redis.auth_meta import said as said_by
from flask_langpont_session.stores.redis.records import Crossed, Written, answer, copy_of, write_fits, written
from tests.support.auth_records import packed

MINE = "m" * 43
UI = {"ui": CategoryCopy(5, {"lang": b"1"}, b"m" * 8 + b"how it is described")}


def meta(digest: str, author: str = "-------", lately: str = "") -> bytes:
    return f"{digest[:8]}{7:016}{7:016}000000{author}{5:07x}{1:04x}{lately}".encode()


def said(part: Any, known: Any = UI) -> Any:
    return answer(MINE, ("ui",), "a", [1, part, 0, -1], known)


def test_what_is_unchanged_is_what_the_reader_has() -> None:
    found = said(UI["ui"].mark)
    assert found.records["ui"] is UI["ui"]
    assert (found.damaged, found.foreign) == ((), ())


def test_that_nothing_changed_is_believed_of_the_own_session_only() -> None:
    """I11: a reply that was meant for another request says nothing of this one."""
    for part, known in ((b"t" + UI["ui"].mark[1:], UI), (UI["ui"].mark, {}), (b"garbled", UI)):
        with pytest.raises(Crossed):
            said(part, known)


def test_an_error_text_is_a_damaged_record_and_no_foreign_one() -> None:
    found = said(b"WRONGTYPE Operation against a key")
    assert (found.damaged, found.foreign) == (("ui",), ())


def test_that_nothing_is_there_is_dated_back() -> None:
    """By as much as clocks may differ: what the next primary writes is later all the same."""
    assert copy_of(MINE, "ui", [5_000, [], 0, -1]) == CategoryCopy(4_000_000, {})


def test_a_mark_names_one_content() -> None:
    """Two servers that were both the primary may give two writes the same stamp; the ids of the writes differ."""
    lately = "\1lang\1{}0000000000000007000000"
    marks = {
        said([b"@m", meta(MINE, lately=lately.format(write_id)), b"lang", b"1"]).records["ui"].mark
        for write_id in ("write.1", "write.2")
    }
    marks |= {
        said([b"@m", meta(MINE, author=author), b"lang", b"1"]).records["ui"].mark for author in ("first.1", "first.2")
    }
    assert len(marks) == 4
    assert {mark[:8] for mark in marks} == {b"m" * 8}


def test_a_mark_of_auth_changes_with_version_stamp_and_idle_expiry() -> None:
    """Nothing else of a live record changes without one of these."""
    marks = {auth(**changes).records["auth"].mark for changes in ({}, {"v": 4}, {"at": 6}, {"i": 8})}
    assert len(marks) == 4
    assert auth(live=0).records["auth"].mark == b""  # a tombstone is read as a whole


def auth(**changes: Any) -> Any:
    """The answer to a reader of an auth record."""
    said = {"d": MINE, "v": 3, "live": 1, "at": 5, "i": 9, "x": 9, "c": 1, "e": 0, **changes}
    meta = packed({f"@{name}": part for name, part in said.items()})
    return answer(MINE, ("auth",), "u", [1, [b"@m", meta.encode(), b"@u", b"7", b"_user_id", b'"7"'], 0, -1])


def test_an_auth_record_is_a_row_or_a_tombstone() -> None:
    row = auth(v=2**53, e=12, at=2**43, x=36**9 - 1).auth.row
    assert (row.user_id, row.version, row.user_epoch, row.absolute_expires_at) == ("7", 2**53, 12, 36**9 - 1)
    assert (row.idle_expires_at, row.created_at, row.read_at, row.payload) == (9, 1, 1, {"_user_id": b'"7"'})
    assert auth(at=2**43).auth.confirmed_ms == 2**43
    assert auth(live=0).auth == AuthEntry(None, in_database=True)
    assert auth(live=0, v=0).auth == AuthEntry(None, in_database=False)


@pytest.mark.parametrize(
    ("changes", "is_foreign"),
    [
        ({"d": "t" * 43}, True),
        ({"d": MINE[:7] + "t"}, True),
        ({"d": MINE[:10] + "t"}, False),  # in the place of which another one's may be: it is none of ours either
        ({"d": MINE[:10]}, False),
        ({"live": 2}, False),
        ({"live": ""}, False),
        ({"live": 0, "v": "x"}, False),
        ({"live": 0, "v": -1}, False),
        ({"at": "z" * 8}, False),
        ({"x": "X" * 9}, False),
        ({"v": 2**70}, False),
        ({"v": -1}, False),
        ({"v": "\u0663"}, False),
        ({"e": ""}, False),
        ({"e": "1 1"}, False),
    ],
    ids=str,
)
def test_a_damaged_auth_record_is_no_identity(changes: Any, is_foreign: bool) -> None:
    """I10, I11: whatever part of it is not as it must be."""
    found = auth(**changes)
    assert (found.auth, found.damaged) == (None, ("auth",))
    assert found.foreign == (("auth",) if is_foreign else ())


def test_a_row_that_nothing_sane_could_have_made_is_described_all_the_same() -> None:
    """A row that another program has written to the database must not fail where it is pushed."""
    far, low = 2**62, -(2**62)
    row = AuthRow(MINE, "7", low, True, {}, low, low, far, far, 0)
    assert said_by(MINE, live(row, low).encode()) == AuthMeta(True, 0, 0, 36**9 - 1, 36**9 - 1, 0, 0)
    assert said_by(MINE, dead(MINE, low).encode()) == AuthMeta(False, 0)
    assert said_by(MINE, dead(MINE, 2**63 - 1).encode()) == AuthMeta(False, 2**63 - 1)


def test_a_description_has_no_more_bytes_than_a_small_hash_may_have() -> None:
    """See hash-max-listpack-value."""
    row = AuthRow(MINE, "7" * 500, 999_999_999, True, {}, 99_999, 2**43, 2**43, 2**43, 0)
    assert len(live(row, 2**43)) <= 64


MOMENTS = b"1764300000000000", b"1764300000000001"
WRITTEN = b"written" + MOMENTS[0] + MINE[:8].encode() + MOMENTS[1] * 2 + b"000000write.10000008" + b"0001"


def test_a_write_answers_with_the_versions_before_and_after_it() -> None:
    """The answer is one text for one category, a list of texts for several; each has the new description of the
    record."""
    assert write_fits(WRITTEN, 2)
    ui = Change(int(MOMENTS[0]), int(MOMENTS[1]), WRITTEN[23:])
    assert written(WRITTEN, ("ui",)) == Written("written", {"ui": ui})
    assert write_fits([WRITTEN, WRITTEN], 3)
    assert written([WRITTEN, WRITTEN], ("ui", "other")) == Written("written", {"ui": ui, "other": ui})


@pytest.mark.parametrize(
    "reply",
    [
        [b"written"],
        [WRITTEN, WRITTEN],
        [WRITTEN, 2],
        WRITTEN[:46],
        WRITTEN.replace(MOMENTS[0], b"x" * 16),
        WRITTEN.replace(MOMENTS[1], b"x" * 16),
        WRITTEN.replace(b"written", b"pushed"),
        str(WRITTEN, "ascii"),
        None,
        [b"large", 2],
        [b"late"],
        b"written",
        [],
    ],
)
def test_nothing_else_is_the_answer_to_a_write_of_one_category(reply: Any) -> None:
    assert not write_fits(reply, 2)
