"""What the reply to a read says, where the reader has said what it has already; and what a write can answer."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.policy.values import CategoryCopy
from flask_langpont_session.stores.redis.records import Change, Crossed, Known, Written, answer, write_fits, written

MINE = "m" * 43
UI = {"ui": Known("m" * 11 + "0123456789abcdef", CategoryCopy(5, {"lang": b"1"}))}


def meta(digest: str, author: str = "-------", lately: str = "") -> bytes:
    return f"{digest[:8]}{7:016}{7:016}000000{author}{5:07x}{1:04x}{lately}".encode()


def said(part: Any, known: Any = UI) -> Any:
    return answer(MINE, ("ui",), "a", [1, part, 0, -1], known)


def test_what_is_unchanged_is_what_the_reader_has() -> None:
    found = said(b"m" * 11)
    assert found.records["ui"] is UI["ui"]
    assert (found.damaged, found.foreign) == ((), ())


def test_that_nothing_changed_is_believed_of_the_own_session_only() -> None:
    """I11: a reply that was meant for another request says nothing of this one."""
    for part, known in ((b"t" * 11, UI), (b"m" * 11, {}), (b"garbled", UI)):
        with pytest.raises(Crossed):
            said(part, known)


def test_an_error_text_is_a_damaged_record_and_no_foreign_one() -> None:
    found = said(b"WRONGTYPE Operation against a key")
    assert (found.damaged, found.foreign) == (("ui",), ())


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
    assert {mark[:11] for mark in marks} == {"m" * 11}


def test_a_mark_of_auth_changes_with_version_stamp_and_idle_expiry() -> None:
    """Nothing else of a live record changes without one of these."""
    fields = {"@d": MINE, "@v": "3", "@live": "1", "@at": "5", "@i": "9", "@x": "9", "@c": "1", "@e": "0"}

    def known(**changes: str) -> Known:
        flat = [
            part.encode() for item in {**fields, **{f"@{k}": v for k, v in changes.items()}}.items() for part in item
        ]
        return answer(MINE, ("auth",), "u", [1, flat, 0, -1]).records["auth"]

    marks = {known(**changes).mark for changes in ({}, {"v": "4"}, {"at": "6"}, {"i": "8"})}
    assert len(marks) == 4
    assert known(live="0").mark == ""  # a tombstone is read as a whole


MOMENTS = b"1764300000000000", b"1764300000000001"


def test_a_write_answers_with_the_versions_before_and_after_it() -> None:
    assert write_fits([b"written", *MOMENTS], 2)
    assert written([b"written", *MOMENTS], ("ui",)) == Written("written", {"ui": Change(*map(int, MOMENTS))})
    assert write_fits([b"written", *MOMENTS, *MOMENTS], 3)


@pytest.mark.parametrize(
    "reply",
    [
        [b"written"],
        [b"written", *MOMENTS, *MOMENTS],
        [b"written", 1, 2],
        [b"written", MOMENTS[0], 2],
        [b"written", b"", b"".join(MOMENTS)],
        [b"written", MOMENTS[0], b"x" * 16],
        [b"written", MOMENTS[0], None],
        [b"large", 2],
        [b"late"],
        b"written",
        [],
    ],
)
def test_nothing_else_is_the_answer_to_a_write_of_one_category(reply: Any) -> None:
    assert not write_fits(reply, 2)
