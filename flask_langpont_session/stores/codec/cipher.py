"""One value, sealed: AES-256-GCM, so that what was changed, or was put in another place, cannot be opened.

A sealed value is ``0xA1``, two bytes that name the key, a nonce of 12 bytes, the ciphertext, and a tag of 16 bytes. The
first byte begins no JSON, which is what a plain value is; another layout than this would have another one there.

Each session has a key of its own, derived from that of the setting by HKDF-Expand (RFC 5869) with the digest as info.
Two values of one key must not have the same nonce. Nonces are random, and one key is good for 2³² of them (NIST SP
800-38D, 8.3): with one key for a site that is a number which a busy one writes in weeks; of one session no one writes
so many. What is sealed is bound to its place besides: as associated data it has the digest, the category, the version
and the field. What has no version has 0.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ...exceptions import UnreadableValue
from .keys import KEY_BYTES, key_id

FORMAT = b"\xa1"

_NONCE, _TAG = 12, 16
_HEAD = len(FORMAT) + 2
OVERHEAD = _HEAD + _NONCE + _TAG
"""Bytes by which a sealed value is longer."""

_SESSIONS = 4096
"""Sessions whose derived keys are remembered: deriving one takes longer than to open a value."""

_VALUES, _CARRIED = b"flask-langpont-session values\0", b"flask-langpont-session carried values\0"


class UnknownKey(UnreadableValue):
    """A value is sealed by a key that this process does not have."""


class Cipher:
    """Seals and opens values. Usable from any thread, and in forked children.

    :param keys: of 32 random bytes each, newest first. The first one seals, all of them open.
    :param random: gives so many random bytes.
    """

    def __init__(self, keys: Sequence[bytes], *, random: Callable[[int], bytes] = os.urandom) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"keys of {KEY_BYTES} bytes, at least one")
        self._keys = {key_id(key): key for key in reversed(keys)}
        self._newest = key_id(keys[0])
        self._head = FORMAT + self._newest
        self._nonces = _expanded(keys[0], _CARRIED)
        self._random = random
        self._of_session = lru_cache(_SESSIONS)(self._derived)

    def __repr__(self) -> str:
        return f"<Cipher with {len(self._keys)} keys>"

    def _derived(self, key: bytes, digest: str) -> AESGCM:
        return AESGCM(_expanded(self._keys[key], _VALUES + digest.encode()))

    def seal(self, digest: str, category: str, field: str, value: bytes, version: int = 0) -> bytes:
        """Return a value sealed for its place; each time another text.

        :param digest: of the session.
        :param version: of the row that it is part of; 0: it is part of none.
        """
        return self._sealed(self._random(_NONCE), digest, category, field, value, version)

    def seal_again(
        self, digest: str, category: str, field: str, value: bytes, version: int = 0, *, before: bytes
    ) -> bytes:
        """Return a value for its place that was sealed for another. It is the same text wherever that is done: parts of
        a session that are brought to another id at different times can be compared there as before.

        The nonce is pseudo-random and follows from all that makes this text: it is another one for any other.

        :param before: as it was sealed for the other place.
        """
        place = _place(digest, category, field, version)
        nonce = hmac.digest(self._nonces, len(before).to_bytes(8, "big") + before + place, "sha256")[:_NONCE]
        return self._sealed(nonce, digest, category, field, value, version)

    def _sealed(self, nonce: bytes, digest: str, category: str, field: str, value: bytes, version: int) -> bytes:
        head = self._head
        place = _place(digest, category, field, version)
        return head + nonce + self._of_session(self._newest, digest).encrypt(nonce, value, head + place)

    def lacks_the_key_of(self, sealed: bytes) -> bool:
        """Return whether a value names a key, and none of the cipher's keys has that name."""
        return sealed[:1] == FORMAT and len(sealed) >= OVERHEAD and sealed[len(FORMAT) : _HEAD] not in self._keys

    def open(self, digest: str, category: str, field: str, sealed: bytes, version: int = 0) -> bytes:
        """Return the value that was sealed for this place.

        :raises UnreadableValue: it was not, or it was changed.
        :raises UnknownKey: it was, by none of the keys.
        """
        head = sealed[:_HEAD]
        if head[:1] != FORMAT or len(sealed) < OVERHEAD:
            raise UnreadableValue("not encrypted, or cut off")
        if self.lacks_the_key_of(sealed):
            raise UnknownKey("encrypted by a key that is not in ENCRYPTION_KEYS")
        of_session = self._of_session(head[1:], digest)
        nonce, text = sealed[_HEAD : _HEAD + _NONCE], sealed[_HEAD + _NONCE :]
        try:
            return of_session.decrypt(nonce, text, head + _place(digest, category, field, version))
        except InvalidTag:
            reason = "damaged, or encrypted for another session, category, key or version"
        # Outside the handler: nothing of what was tried hangs on the error.
        raise UnreadableValue(reason)


def _place(digest: str, category: str, field: str, version: int) -> bytes:
    """Return the associated data of a place. It is unambiguous: only a field may have a NUL in it."""
    return f"{digest}\0{category}\0{version}\0{field}".encode()


def _expanded(key: bytes, info: bytes) -> bytes:
    """Return the first block of HKDF-Expand, which is all of a key of 32 bytes."""
    return hmac.digest(key, info + b"\x01", "sha256")
