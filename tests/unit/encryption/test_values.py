"""What goes out is sealed for its place, what comes in is opened, and what a store has is known by its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_langpont_session.encryption.cipher import Cipher
from flask_langpont_session.encryption.values import Values, is_damaged
from flask_langpont_session.policy.serializer import decode, encode, is_readable
from tests.support.clock import Clock

KEY, OTHER_KEY = bytes(range(200, 232)), bytes(range(100, 132))
DIGEST, ANOTHER = "h" * 43, "i" * 43
PLACE = DIGEST, "ui", "lang"
TEXT = b'"ja"'


def values(*categories: str, key: bytes = KEY, plain_until: float = 0.0, clock: Clock | None = None) -> Values:
    return Values(Cipher([key]), frozenset(categories), plain_until=plain_until, clock=clock or Clock())


ours = values("ui", "auth")


def test_what_was_read_goes_back_as_it_is() -> None:
    """To a copy, to the journal, to a server that has lost it: it is not sealed anew."""
    stored = ours.wire(*PLACE, TEXT)
    found = ours.open(*PLACE, stored)
    assert found == TEXT and stored != TEXT
    assert ours.wire(*PLACE, found) is ours.base(*PLACE, found) is stored
    assert type(ours.wire(*PLACE, found)) is bytes


def test_what_is_brought_to_another_id_is_sealed_for_it() -> None:
    """A value and the base of a change that waits, brought apart, are equal there as they were before."""
    found = ours.open(*PLACE, ours.wire(*PLACE, TEXT))
    there = ours.wire(ANOTHER, "ui", "lang", found)
    assert there == ours.base(ANOTHER, "ui", "lang", found)
    assert ours.open(ANOTHER, "ui", "lang", there) == TEXT
    assert is_damaged(ours.open(*PLACE, there))
    assert is_damaged(ours.open(ANOTHER, "ui", "lang", ours.wire(*PLACE, found)))


def test_a_row_has_its_version() -> None:
    """What belongs to one version of a row belongs to no other, nor to a record that has none."""
    first = ours.wire(DIGEST, "auth", "user_id", TEXT, 1)
    found = ours.open(DIGEST, "auth", "user_id", first, 1)
    second = ours.wire(DIGEST, "auth", "user_id", found, 2)
    assert ours.open(DIGEST, "auth", "user_id", second, 2) == TEXT
    assert is_damaged(ours.open(DIGEST, "auth", "user_id", first, 2))
    assert is_damaged(ours.open(DIGEST, "auth", "user_id", second, 0))
    waiting = ours.base(DIGEST, "auth", "user_id", found)
    assert ours.open(DIGEST, "auth", "user_id", waiting) == TEXT


def test_a_change_is_sealed_once() -> None:
    """However often it is sent: by its text it is told whether a server has it."""
    fields = {"lang": TEXT, "theme": b'"dark"'}
    ours.seal_once(DIGEST, "ui", fields)
    once = ours.wires(DIGEST, "ui", fields)
    assert fields == {"lang": TEXT, "theme": b'"dark"'}
    ours.seal_once(DIGEST, "ui", fields)
    assert ours.wires(DIGEST, "ui", fields) == once
    assert ours.opened(DIGEST, "ui", once) == fields
    ours.seal_once(ANOTHER, "ui", fields)
    assert ours.opened(ANOTHER, "ui", ours.wires(ANOTHER, "ui", fields)) == fields


@pytest.mark.parametrize("stored", [TEXT, b"", b"1", b"\xa1", b"\xa1\0\0" + bytes(40), b"\0", b"\xff"])
def test_what_cannot_be_opened_is_a_damaged_value(stored: bytes) -> None:
    """As any that cannot be decoded; and it stays what it is wherever it goes."""
    found = ours.open(*PLACE, stored)
    assert is_damaged(found) and not is_readable(found)
    assert ours.base(*PLACE, found) == stored
    again = ours.open(*PLACE, ours.wire(*PLACE, found))
    assert is_damaged(again) and not is_readable(again)
    brought = ours.open(ANOTHER, "ui", "lang", ours.wire(ANOTHER, "ui", "lang", found))
    assert not is_readable(brought)


@given(st.binary(max_size=60))
def test_nothing_that_a_store_has_is_read_as_plain(stored: bytes) -> None:
    """Whatever stands there in the place of a sealed value."""
    assert not is_readable(ours.open(*PLACE, stored))


def test_a_value_sealed_by_another_key_is_damaged() -> None:
    """As after a key was taken out of the list too early."""
    assert is_damaged(values("ui").open(*PLACE, values("ui", key=OTHER_KEY).wire(*PLACE, TEXT)))


def test_other_categories_are_plain() -> None:
    """What one of them has that is sealed, of the time when it was encrypted, is opened."""
    stored = ours.wire(*PLACE, TEXT)
    partly = values("auth")
    assert partly.wire(*PLACE, TEXT) == TEXT
    assert partly.open(*PLACE, TEXT) == TEXT
    found = partly.open(*PLACE, stored)
    assert found == TEXT
    assert partly.base(*PLACE, found) == stored
    assert partly.wire(ANOTHER, "ui", "lang", found) == TEXT
    assert type(partly.wire(ANOTHER, "ui", "lang", found)) is bytes
    assert is_damaged(partly.open(ANOTHER, "ui", "lang", stored))


def test_a_switch_over_ends() -> None:
    """Until then what is plain is read, and goes out sealed; from then on it is damaged."""
    clock = Clock()
    switching = values("ui", plain_until=clock() + 60, clock=clock)
    found = switching.open(*PLACE, TEXT)
    assert found == TEXT == switching.base(*PLACE, found)
    assert ours.open(*PLACE, switching.wire(*PLACE, found)) == TEXT
    fields = {"lang": found}
    switching.seal_once(DIGEST, "ui", fields)
    assert ours.open(*PLACE, switching.wire(*PLACE, fields["lang"])) == TEXT
    assert not is_damaged(switching.open(*PLACE, switching.wire(*PLACE, TEXT)))
    assert is_damaged(switching.open(*PLACE, b"\xa1" + TEXT))
    clock.now += 60
    assert is_damaged(switching.open(*PLACE, TEXT))


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), json, st.integers(0, 5), st.integers(0, 5))
def test_session_values_survive_every_way(field: str, value: object, first: int, second: int) -> None:
    """From version to version, from id to id and back."""
    encoded = encode(field, value)
    text = ours.wire(DIGEST, "ui", field, encoded, first)
    for digest, version in ((DIGEST, second), (ANOTHER, first), (DIGEST, second)):
        found = ours.open(DIGEST, "ui", field, text, first)
        there = ours.wire(digest, "ui", field, found, version)
        assert decode(ours.open(digest, "ui", field, there, version)) == decode(encoded)
