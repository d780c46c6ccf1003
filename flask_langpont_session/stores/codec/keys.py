"""The keys of ENCRYPTION_KEYS: what a person may write, and what is no key. No message quotes one."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error
from collections.abc import Sequence
from hashlib import sha256
from string import printable
from typing import Any

KEY_BYTES = 32
"""AES-256."""

NEW_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"

SAMPLE = "aCJ2z3kMe3fTz5VTQwX0p1vYt0yq7v2mXo9v3rJ8s5E"
"""The key that docs/how-to/encrypt.md shows, which is refused: it protects nothing."""

_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9_+/-]{43}=?")

_FEWEST_DIFFERENT = 16
"""Different bytes in a key. Of random keys less than one in 10¹³ has fewer."""


class BadKey(ValueError):
    """A value is no key. The text says why, without quoting it."""


def read_key(given: Any) -> bytes:
    """Return the key that a person has written.

    :param given: 32 bytes, or their text in base64 (43 characters, of either alphabet) or in hexadecimal (64).
    :raises BadKey: it is something else, or was made by a person instead of a random generator.
    """
    key = bytes(given) if isinstance(given, (bytes, bytearray)) else _from_text(given)
    if len(key) != KEY_BYTES:
        raise BadKey(f"{len(key)} bytes, not {KEY_BYTES}")
    if len(set(key)) < _FEWEST_DIFFERENT:
        raise BadKey(f"only {len(set(key))} different bytes: it is not random")
    if set(key) <= set(printable.encode()):
        raise BadKey("all of its bytes are characters: a password is not random, a key has to be")
    return key


def _from_text(given: Any) -> bytes:
    if not isinstance(given, str):
        raise BadKey(f"text or bytes, not {type(given).__name__}")
    if given != given.strip():
        raise BadKey("blanks or an end of a line around it, as in what is read from a file; .strip() that")
    if _HEX.fullmatch(given):
        return bytes.fromhex(given)
    if not _BASE64.fullmatch(given):
        raise BadKey(
            f"a text of {len(given)} characters; a key is 43 of base64 (A-Z, a-z, 0-9, - and _, as they are printed by "
            "secrets.token_urlsafe(32)) or 64 of hexadecimal"
        )
    try:
        return urlsafe_b64decode(given.rstrip("=").replace("+", "-").replace("/", "_") + "=")
    except Error:
        raise BadKey("not base64") from None


def key_id(key: bytes) -> bytes:
    """Return two bytes by which a value names the key that it is sealed with. They say nothing of the key that helps to
    find it."""
    return sha256(b"flask-langpont-session key id\0" + key).digest()[:2]


def problems_of(given: Sequence[Any], also: Sequence[Any] = ()) -> list[str]:
    """Return what is wrong with a list of keys, newest first: one sentence for each problem.

    :param also: secrets that serve another purpose, such as SECRET_KEY.
    """
    problems, seen = [], dict[bytes, int]()
    others = {_bytes_of(secret) for secret in also}
    for number, text in enumerate(given):
        try:
            key = read_key(text)
        except BadKey as error:
            problems.append(f"key {number + 1}: {error}; {NEW_KEY}")
            continue
        if {key, _bytes_of(text)} & others:
            problems.append(f"key {number + 1}: it signs cookies already; each purpose has a key of its own; {NEW_KEY}")
        if key_id(key) in seen:
            problems.append(f"keys {seen[key_id(key)] + 1} and {number + 1} are the same, or look so; leave one out")
        seen.setdefault(key_id(key), number)
    return problems


def _bytes_of(secret: Any) -> bytes:
    return secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else bytes(secret)
