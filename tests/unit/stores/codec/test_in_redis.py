"""Commands and replies of Redis: values are sealed and opened, and the description of a record is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.copies import CategoryCopy, RecordRef
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.codec.cipher import OVERHEAD
from flask_langpont_session.stores.codec.plain import PLAIN
from flask_langpont_session.stores.redis import auth_meta
from flask_langpont_session.stores.redis.commands import Commands, Guarded
from flask_langpont_session.stores.redis.records import (
    ABSENT,
    SINCE,
    Limits,
    Merge,
    MergeStep,
    Restore,
    answer,
    copy_of,
)
from tests.support.codecs import sealing

DIGEST, ANOTHER = "h" * 43, "i" * 43
VISITOR = RecordRef(DIGEST, "a")
MARKER = b'"marzipan"'
codec = sealing("ui", "auth")
commands = Commands("s", 60_000, codec)
said = Guarded(Limits(10, 1000, 60_000), 0, "1234567")
ROW = AuthRow(DIGEST, "7", 3, True, {"user_role": MARKER}, 0, 1000, 2000, 3000, 1000)
META = f"{DIGEST[:8]}{'0' * 15}1{'0' * 16}{'0' * 6}1234567{'0' * 11}".encode()


def reply(*flat: bytes) -> list[Any]:
    return [1, list(flat), 0, -1]


def sealed(field: str, version: int = 0, digest: str = DIGEST, category: str = "ui") -> bytes:
    return codec.value_to_store(digest, category, field, MARKER, version)


def test_no_command_has_a_value_in_it() -> None:
    """Neither a write nor a push, a merge or a restored copy has a plain value."""
    copy = CategoryCopy(7, {"lang": MARKER})
    steps = [
        MergeStep(Operation.SET, "lang", MARKER, SINCE, 1, MARKER),
        MergeStep(Operation.DELETE, "theme", b"", SINCE, 1, MARKER),
    ]
    for command in (
        commands.write(VISITOR, {"ui": CategoryChange(1, sets={"lang": MARKER})}, "free", said),
        commands.push(ROW, 1000, 1000),
        commands.merge(Merge(DIGEST, "ui", steps, "free", 1), said),
        commands.merge(Restore(DIGEST, "ui", copy, "free", 1), said),
    ):
        assert command.spelled_out is not None
        for packed in (command.packed, command.spelled_out()):
            assert MARKER not in packed and b"marzipan" not in packed
    plain = commands.write(VISITOR, {"cart": CategoryChange(1, sets={"lang": MARKER})}, "free", said)
    assert MARKER in plain.packed


def test_a_write_that_is_sent_again_is_the_same() -> None:
    """The sealed bytes that were sent are those that the journal keeps of the change."""
    change = CategoryChange(1, sets={"lang": MARKER}, deletes={"theme"}, increments={"n": 1})
    first = commands.write(VISITOR, {"ui": change}, "free", said).packed
    assert commands.write(VISITOR, {"ui": change}, "free", said).packed == first
    assert change.sets == {"lang": MARKER}
    assert codec.value_to_store(DIGEST, "ui", "lang", change.sets["lang"]) in first


def test_limits_are_those_of_plain_values() -> None:
    """The bytes that sealing adds to each field are added to the limit."""
    packed = commands.write(VISITOR, {"ui": CategoryChange(1, sets={"lang": MARKER})}, "free", said).packed
    head = said._replace(limits=said.limits._replace(bytes=1000 + 10 * OVERHEAD)).head("free", DIGEST)
    assert head.encode() in packed
    plain = commands.write(VISITOR, {"cart": CategoryChange(1, sets={"lang": MARKER})}, "free", said).packed
    assert said.head("free", DIGEST).encode() in plain


def test_a_record_of_a_category_is_opened() -> None:
    """Its description, and so its version, are what they are."""
    found = answer(DIGEST, ("ui",), "a", reply(b"@m", META, b"lang", sealed("lang"), b"theme", MARKER), codec=codec)
    assert found.damaged == ()
    assert found.records["ui"].version == 1
    assert found.records["ui"].fields["lang"] == MARKER
    assert codec.is_damaged(found.records["ui"].fields["theme"])
    copy = copy_of(DIGEST, "ui", reply(b"@m", META, b"lang", sealed("lang")), codec)
    assert (copy.fields, copy.mark) == ({"lang": MARKER}, META)


def test_a_row_is_opened_by_its_version() -> None:
    """A payload that was sealed for another version is not readable: then the database is asked."""
    meta = auth_meta.live(ROW, 1000).encode()
    for version, is_readable in ((3, True), (2, False), (0, False)):
        stored = sealed("user_role", version, category="auth")
        found = answer(DIGEST, ("auth",), "u", reply(b"@m", meta, b"@u", b"7", b"user_role", stored), codec=codec)
        assert found.auth is not None and found.auth.row is not None
        assert found.auth.is_readable is is_readable
        assert (found.auth.row.payload["user_role"] == MARKER) is is_readable
        assert found.auth.row.user_id == "7"


@pytest.mark.parametrize(
    "part",
    [
        [],
        [b"@m", b"nonsense", b"lang", b"x"],
        [b"@m", auth_meta.dead(DIGEST, 1).encode()],
        [b"\xff", b"\xff", b"@m", META],
        b"WRONGTYPE of another kind",
        [b"@m", META.replace(b"h", b"z"), b"lang", b"x"],
    ],
)
@pytest.mark.parametrize(("name", "kind"), [("ui", "a"), ("auth", "u"), ("auth", "a")])
def test_what_is_no_record_is_what_it_is_without_encryption(part: Any, name: str, kind: str) -> None:
    """Damaged, foreign, dead, or nothing."""
    plain, opened = (answer(DIGEST, (name,), kind, [1, part, 0, -1], codec=each) for each in (PLAIN, codec))
    assert (opened.damaged, opened.foreign) == (plain.damaged, plain.foreign)
    assert (opened.auth is None) == (plain.auth is None)


def test_what_comes_from_another_id_is_sealed_for_this_one() -> None:
    """Twice the same, so that what waits can be compared with what was brought."""
    found = answer(DIGEST, ("ui",), "a", reply(b"@m", META, b"lang", sealed("lang")), codec=codec).records["ui"]
    bring = Merge(ANOTHER, "ui", [MergeStep(Operation.SET, "lang", found.fields["lang"], ABSENT)], "free", 1)
    there = codec.value_to_store(ANOTHER, "ui", "lang", found.fields["lang"])
    assert there in commands.merge(bring, said).packed
    assert codec.value_from_store(ANOTHER, "ui", "lang", there) == MARKER
