"""Keys of every form, and refusals of what is none, in sentences that quote nothing."""

from __future__ import annotations

import secrets
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_langpont_session.stores.codec.keys import BadKey, key_id, problems_of, read_key

KEY = bytes(range(200, 232))
OTHER = bytes(range(100, 132))


@pytest.mark.parametrize(
    "given",
    [
        KEY,
        bytearray(KEY),
        KEY.hex(),
        KEY.hex().upper(),
        urlsafe_b64encode(KEY).decode(),
        urlsafe_b64encode(KEY).decode().rstrip("="),
        b64encode(KEY).decode(),
        b64encode(KEY).decode().rstrip("="),
    ],
)
def test_a_key_is_read_in_every_form(given: Any) -> None:
    """A key may be bytes, base64 in both alphabets with and without padding, or hexadecimal."""
    assert read_key(given) == KEY


def test_what_the_command_prints_is_a_key() -> None:
    """The messages tell people to run it."""
    assert len(read_key(secrets.token_urlsafe(32))) == 32
    assert problems_of([secrets.token_urlsafe(32), secrets.token_hex(32), secrets.token_bytes(32)]) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "text or bytes, not NoneType"),
        (7, "text or bytes, not int"),
        ("", "a text of 0 characters"),
        ("correct horse battery staple", "a text of 28 characters"),
        (KEY.hex()[:-1], "a text of 63 characters"),
        (b"short", "5 bytes, not 32"),
        (KEY + b"x", "33 bytes, not 32"),
        (bytes(32), "only 1 different bytes"),
        ("00" * 32, "only 1 different bytes"),
        (b"the quick brown fox jumps over a", "all of its bytes are characters"),
        (b64encode(b"the quick brown fox jumps over a").decode(), "all of its bytes are characters"),
        (b"429834705cb3232b9d6d43c2b16ee8d2", "different bytes|are characters"),
        ("é" * 43, "a text of 43 characters"),
        (urlsafe_b64encode(KEY).decode() + "\n", r"an end of a line around it.*strip\(\)"),
    ],
)
def test_what_is_no_key_is_told_without_being_quoted(given: Any, why: str) -> None:
    """The error names the reason: a wrong length, a text that a person made up, or no text at all."""
    with pytest.raises(BadKey, match=why) as caught:
        read_key(given)
    assert not given or str(given) not in str(caught.value)


@given(st.binary(min_size=32, max_size=32) | st.text(max_size=70))
def test_no_message_has_any_part_of_what_was_given(given: bytes | str) -> None:
    """The message quotes nothing, whatever was given: a key that is nearly right is still a secret."""
    shown = "".join(problems_of([given]))
    parts = [given[at : at + 12] for at in range(max(1, len(given) - 11))]
    assert not any(str(part) in shown for part in parts if len(part) == 12)


def test_a_list_of_keys_is_looked_at_as_a_whole() -> None:
    """The same key in another form, and a key that is another secret of the application."""
    [same] = problems_of([KEY, OTHER, KEY.hex()])
    assert same.startswith("keys 1 and 3 are the same")
    [signs] = problems_of([OTHER, KEY.hex()], also=[KEY.hex()])
    assert signs.startswith("key 2: it signs cookies already")
    assert problems_of([KEY], also=[KEY]) != [] == problems_of([KEY], also=["another", b"one"])
    assert len(problems_of(["", 1, bytes(32)])) == 3


def test_the_id_of_a_key_does_not_tell_the_key() -> None:
    """It stands in front of every value."""
    assert len(key_id(KEY)) == 2
    assert key_id(KEY) != key_id(OTHER)
    assert key_id(KEY) not in KEY
