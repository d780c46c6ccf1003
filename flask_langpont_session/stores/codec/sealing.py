"""The codec of an application that encrypts: in the process values are plain, in the stores they are sealed.

A store's value is opened when it arrives, and goes on as :class:`Opened`: the plain encoding, which remembers what the
store has. So what is given back, shared or compared with what a store has is that very text, and nothing else in the
package need know of it. The scripts and the journal compare values and move them, and read none: to them they are
sealed texts.
"""

from __future__ import annotations

import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Container
from contextlib import suppress

from ...exceptions import UnreadableValue
from ...policy.categories import AUTH
from ...policy.changes import Fields
from ...support.logs import Once, fields
from .cipher import FORMAT, OVERHEAD, Cipher, UnknownKey
from .plain import Codec

log = logging.getLogger(__name__)

_SILENCE = 600.0
"""Seconds, in which the same is not logged again."""

_NO_KEY = (
    "values of category %r are encrypted by a key that is not in LANGPONT_SESSION_ENCRYPTION_KEYS: they count as "
    "damaged, and users whom they name are not shown as signed in. Put that key at the end of the list, until all that "
    "it has encrypted is gone (docs/how-to/encrypt.md). (Logged once in %d s.)"
)
_PLAIN = (
    "values of category %r are not encrypted, and LANGPONT_SESSION_ENCRYPTED_CATEGORIES has it: they count as damaged, "
    "and users whom they name are not shown as signed in. If there are sessions of before, or workers that do not "
    "encrypt yet, set LANGPONT_SESSION_ENCRYPTION_SWITCH_OVER to when they have ended (docs/how-to/encrypt.md). "
    "(Logged once in %d s.)"
)

_UNREADABLE = b"\0"
"""The beginning of a value that cannot be opened. No JSON begins so: it counts as damaged."""


class Opened(bytes):
    """An encoded value as this process knows it.

    :ivar stored: what a store has of it.
    :ivar place: the digest and the version that this is sealed for.
    """

    stored: bytes
    place: tuple[str, int]


def _opened(plain: bytes, stored: bytes, digest: str, version: int) -> Opened:
    value = Opened(plain)
    value.stored, value.place = stored, (digest, version)
    return value


_BEGIN, _END = b'{"@sealed":"', b'"}'
"""Around the base64 of a sealed value in the database, whose payloads are JSON. No plain value looks so: the serializer
wraps an application's dict whose only key begins with "@"."""


class SealingCodec(Codec):
    """Values of some categories are encrypted.

    :param categories: that are encrypted. Of others what is sealed is opened as well, and what is written is plain.
    :param plain_until: until then what is plain is read in encrypted categories, too, seconds since 1970.
    :param clock: seconds since 1970.
    """

    overhead = OVERHEAD

    def __init__(
        self,
        cipher: Cipher,
        categories: Container[str],
        *,
        plain_until: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cipher = cipher
        self._categories = categories
        self._plain_until = plain_until
        self._clock = clock
        self._once = Once(_SILENCE, clock)

    def seals(self, category: str) -> bool:
        return category in self._categories

    def to_store(self, digest: str, category: str, fields: Fields, version: int = 0) -> dict[str, bytes]:
        return {field: self.value_to_store(digest, category, field, value, version) for field, value in fields.items()}

    def from_store(self, digest: str, category: str, stored: Fields, version: int = 0) -> dict[str, bytes]:
        return {
            # What describes a record is no value.
            field: text if field[:1] == "@" else self.value_from_store(digest, category, field, text, version)
            for field, text in stored.items()
        }

    def to_store_once(self, digest: str, category: str, fields: dict[str, bytes]) -> Fields:
        texts = self.to_store(digest, category, fields)
        for field, value in fields.items():
            if type(value) is not Opened or value.stored is not texts[field]:
                fields[field] = _opened(value, texts[field], digest, 0)
        return texts

    # A row's values belong to its version: each change of it writes the whole payload, at a version that is known
    # before, as by compare-and-set it is one more than that of the row before. So none of an older one can be put back
    # beside them.

    def row_to_store(self, digest: str, payload: Fields, version: int) -> Fields:
        sealed = self.to_store(digest, AUTH, payload, version)
        return {key: _json_of(value) for key, value in sealed.items()}

    def row_from_store(self, digest: str, stored: Fields, version: int, *, live: bool) -> Fields | None:
        texts = {key: _from_json(value) for key, value in stored.items()}
        # What ended a row has raised its version, and left its payload.
        for written_at in (version,) if live else (version - 1, version):
            payload = self.from_store(digest, AUTH, texts, written_at)
            if not any(map(self.is_damaged, payload.values())):
                return payload
        return None

    def value_to_store(self, digest: str, category: str, field: str, value: bytes, version: int = 0) -> bytes:
        is_encrypted = category in self._categories
        if type(value) is not Opened:
            return self._cipher.seal(digest, category, field, value, version) if is_encrypted else bytes(value)
        is_sealed = value.stored[:1] == FORMAT
        if value.place == (digest, version) and (is_sealed or not is_encrypted):
            return value.stored
        if not is_encrypted:
            return bytes(value)
        if is_sealed:
            return self._cipher.seal_again(digest, category, field, value, version, before=value.stored)
        return self._cipher.seal(digest, category, field, value, version)

    def base_to_store(self, digest: str, category: str, field: str, value: bytes) -> bytes:
        if type(value) is Opened and value.place[0] == digest and not value.place[1]:
            return value.stored
        return self.value_to_store(digest, category, field, value)

    def value_from_store(self, digest: str, category: str, field: str, stored: bytes, version: int = 0) -> bytes:
        if type(stored) is not bytes:  # SQLite keeps what it is given in a column of any type
            stored = FORMAT
        try:
            if stored[:1] == FORMAT:
                return _opened(self._cipher.open(digest, category, field, stored, version), stored, digest, version)
            if category not in self._categories or self._clock() < self._plain_until:
                return _opened(stored, stored, digest, version)
            self._tell_of_plain(category)
        except UnknownKey:
            self._tell_of_key(category)
        except UnreadableValue:
            pass
        return _opened(_UNREADABLE + stored, stored, digest, version)

    def is_damaged(self, value: bytes | None) -> bool:
        return value is not None and value[:1] == _UNREADABLE

    def lacks_key_of(self, value: bytes | None) -> bool:
        return type(value) is Opened and self._cipher.lacks_the_key_of(value.stored)

    # Both may be mistakes of the configuration, by which users are signed out without a sign of why.

    def _tell_of_plain(self, category: str) -> None:
        if self._once.is_due("plain"):
            log.warning(
                _PLAIN, category, _SILENCE, extra=fields("value_not_encrypted", category=category, silence=_SILENCE)
            )

    def _tell_of_key(self, category: str) -> None:
        if self._once.is_due("key"):
            log.warning(_NO_KEY, category, _SILENCE, extra=fields("key_not_there", category=category, silence=_SILENCE))


def _json_of(value: bytes) -> bytes:
    return _BEGIN + b64encode(value) + _END if value[:1] == FORMAT else value


def _from_json(value: bytes) -> bytes:
    if not (value.startswith(_BEGIN) and value.endswith(_END)):
        return value
    with suppress(ValueError):
        return b64decode(value[len(_BEGIN) : -len(_END)], validate=True)
    return FORMAT  # and nothing behind it
