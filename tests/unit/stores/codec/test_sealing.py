"""The sealing codec: seals for a place, opens, and knows by its text what a store has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_langpont_session.policy.serializer import decode, encode, is_readable
from tests.support.clock import Clock
from tests.support.codecs import sealing

DIGEST, ANOTHER = "h" * 43, "i" * 43
PLACE = DIGEST, "ui", "lang"
TEXT = b'"ja"'


ours = sealing("ui", "auth")


def test_what_was_read_goes_back_as_it_is() -> None:
    """The value is not sealed anew for a copy, the journal, or a server that has lost it."""
    stored = ours.value_to_store(*PLACE, TEXT)
    found = ours.value_from_store(*PLACE, stored)
    assert found == TEXT and stored != TEXT
    assert ours.value_to_store(*PLACE, found) is ours.base_to_store(*PLACE, found) is stored
    assert type(ours.value_to_store(*PLACE, found)) is bytes


def test_what_is_brought_to_another_id_is_sealed_for_it() -> None:
    """A value and the base of a change that waits, brought apart, are equal there as they were before."""
    found = ours.value_from_store(*PLACE, ours.value_to_store(*PLACE, TEXT))
    there = ours.value_to_store(ANOTHER, "ui", "lang", found)
    assert there == ours.base_to_store(ANOTHER, "ui", "lang", found)
    assert ours.value_from_store(ANOTHER, "ui", "lang", there) == TEXT
    assert ours.is_damaged(ours.value_from_store(*PLACE, there))
    assert ours.is_damaged(ours.value_from_store(ANOTHER, "ui", "lang", ours.value_to_store(*PLACE, found)))


def test_a_row_has_its_version() -> None:
    """A value that was sealed for one version of a row opens for no other, nor for a record without a version."""
    first = ours.value_to_store(DIGEST, "auth", "user_id", TEXT, 1)
    found = ours.value_from_store(DIGEST, "auth", "user_id", first, 1)
    second = ours.value_to_store(DIGEST, "auth", "user_id", found, 2)
    assert ours.value_from_store(DIGEST, "auth", "user_id", second, 2) == TEXT
    assert ours.is_damaged(ours.value_from_store(DIGEST, "auth", "user_id", first, 2))
    assert ours.is_damaged(ours.value_from_store(DIGEST, "auth", "user_id", second, 0))
    waiting = ours.base_to_store(DIGEST, "auth", "user_id", found)
    assert ours.value_from_store(DIGEST, "auth", "user_id", waiting) == TEXT


def test_a_change_is_sealed_once() -> None:
    """A change is sealed once however often it is sent: its text tells whether a server has it."""
    fields = {"lang": TEXT, "theme": b'"dark"'}
    once = ours.to_store_once(DIGEST, "ui", fields)
    assert fields == {"lang": TEXT, "theme": b'"dark"'}
    assert ours.to_store_once(DIGEST, "ui", fields) == ours.to_store(DIGEST, "ui", fields) == once
    assert ours.from_store(DIGEST, "ui", once) == fields
    ours.to_store_once(ANOTHER, "ui", fields)
    assert ours.from_store(ANOTHER, "ui", ours.to_store(ANOTHER, "ui", fields)) == fields


@pytest.mark.parametrize("stored", [TEXT, b"", b"1", b"\xa1", b"\xa1\0\0" + bytes(40), b"\0", b"\xff"])
def test_what_cannot_be_opened_is_a_damaged_value(stored: bytes) -> None:
    """The value counts as any that cannot be decoded; and it stays what it is wherever it goes."""
    found = ours.value_from_store(*PLACE, stored)
    assert ours.is_damaged(found) and not is_readable(found)
    assert ours.base_to_store(*PLACE, found) == stored
    again = ours.value_from_store(*PLACE, ours.value_to_store(*PLACE, found))
    assert ours.is_damaged(again) and not is_readable(again)
    brought = ours.value_from_store(ANOTHER, "ui", "lang", ours.value_to_store(ANOTHER, "ui", "lang", found))
    assert not is_readable(brought)


@given(st.binary(max_size=60))
def test_nothing_that_a_store_has_is_read_as_plain(stored: bytes) -> None:
    """Nothing in the place of a sealed value is read as plain, whatever it is."""
    assert not is_readable(ours.value_from_store(*PLACE, stored))


def test_other_categories_are_plain() -> None:
    """A category that is not encrypted gets plain values; sealed values from the time when it was encrypted are
    opened."""
    stored = ours.value_to_store(*PLACE, TEXT)
    partly = sealing("auth")
    assert partly.value_to_store(*PLACE, TEXT) == TEXT
    assert partly.value_from_store(*PLACE, TEXT) == TEXT
    found = partly.value_from_store(*PLACE, stored)
    assert found == TEXT
    assert partly.base_to_store(*PLACE, found) == stored
    assert partly.value_to_store(ANOTHER, "ui", "lang", found) == TEXT
    assert type(partly.value_to_store(ANOTHER, "ui", "lang", found)) is bytes
    assert ours.is_damaged(partly.value_from_store(ANOTHER, "ui", "lang", stored))


def test_a_switch_over_ends() -> None:
    """Plain values are read until then, and go out sealed; from then on they are damaged."""
    clock = Clock()
    switching = sealing("ui", plain_until=clock() + 60, clock=clock)
    found = switching.value_from_store(*PLACE, TEXT)
    assert found == TEXT == switching.base_to_store(*PLACE, found)
    assert ours.value_from_store(*PLACE, switching.value_to_store(*PLACE, found)) == TEXT
    fields = {"lang": found}
    switching.to_store_once(DIGEST, "ui", fields)
    assert ours.value_from_store(*PLACE, switching.value_to_store(*PLACE, fields["lang"])) == TEXT
    assert not ours.is_damaged(switching.value_from_store(*PLACE, switching.value_to_store(*PLACE, TEXT)))
    assert ours.is_damaged(switching.value_from_store(*PLACE, b"\xa1" + TEXT))
    clock.now += 60
    assert ours.is_damaged(switching.value_from_store(*PLACE, TEXT))


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), json, st.integers(0, 5), st.integers(0, 5))
def test_session_values_survive_every_way(field: str, value: object, first: int, second: int) -> None:
    """Values survive from version to version, from id to id and back."""
    encoded = encode(field, value)
    text = ours.value_to_store(DIGEST, "ui", field, encoded, first)
    for digest, version in ((DIGEST, second), (ANOTHER, first), (DIGEST, second)):
        found = ours.value_from_store(DIGEST, "ui", field, text, first)
        there = ours.value_to_store(digest, "ui", field, found, version)
        assert decode(ours.value_from_store(digest, "ui", field, there, version)) == decode(encoded)
