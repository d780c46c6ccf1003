"""Session values between the process, where they are plain, and the stores, where they are sealed.

A store's value is opened when it arrives, and goes on as :class:`Opened`: the plain encoding, which remembers what the
store has. So what is given back, shared or compared with what a store has is that very text, and nothing else in the
package need know of it. What goes out passes :meth:`Values.wire`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from typing import Any

from ..exceptions import UnreadableValue
from ..policy.values import Fields
from ..support.logs import Once, fields
from .cipher import FORMAT, Cipher, UnknownKey

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
"""What a value begins with that cannot be opened. No JSON does: it is damaged, as any value that cannot be decoded."""


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


class Values:
    """Which categories are encrypted, and how their values go out and come in.

    :param categories: that are. Of others what is sealed is opened as well, and what is written is plain.
    :param plain_until: until then what is plain is read in encrypted categories, too, seconds since 1970.
    :param clock: seconds since 1970.
    """

    def __init__(
        self, cipher: Cipher, categories: Container[str], *, plain_until: float, clock: Callable[[], float]
    ) -> None:
        self._cipher = cipher
        self._categories = categories
        self._plain_until = plain_until
        self._clock = clock
        self._once = Once(_SILENCE, clock)

    def are_sealed(self, category: str) -> bool:
        """Whether the values of a category are encrypted."""
        return category in self._categories

    def wire(self, digest: str, category: str, field: str, value: bytes, version: int = 0) -> bytes:
        """What a store gets of a value.

        :param version: of the row that it is part of; 0: it is part of none.
        """
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

    def base(self, digest: str, category: str, field: str, value: bytes) -> bytes:
        """What a store had of a value, to be compared with what it has."""
        if type(value) is Opened and value.place[0] == digest and not value.place[1]:
            return value.stored
        return self.wire(digest, category, field, value)

    def seal_once(self, digest: str, category: str, fields: dict[str, bytes]) -> None:
        """Seal values in place. However often they are sent, or kept, it is the same text: by that it is told whether
        a store has it."""
        for field, value in fields.items():
            text = self.wire(digest, category, field, value)
            if type(value) is not Opened or value.stored is not text:
                fields[field] = _opened(value, text, digest, 0)

    def open(self, digest: str, category: str, field: str, stored: bytes, version: int = 0) -> bytes:
        """The value that a store has. One that cannot be opened is no encoding of any."""
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

    # Both may be mistakes of the configuration, by which users are signed out without a sign of why.

    def _tell_of_plain(self, category: str) -> None:
        if self._once.is_due("plain"):
            log.warning(
                _PLAIN, category, _SILENCE, extra=fields("value_not_encrypted", category=category, silence=_SILENCE)
            )

    def _tell_of_key(self, category: str) -> None:
        if self._once.is_due("key"):
            log.warning(_NO_KEY, category, _SILENCE, extra=fields("key_not_there", category=category, silence=_SILENCE))

    def lack_the_key_of(self, value: bytes | None) -> bool:
        """Whether a value that was opened is sealed by a key that this process does not have."""
        return type(value) is Opened and self._cipher.lacks_the_key_of(value.stored)

    def wires(self, digest: str, category: str, fields: Fields, version: int = 0) -> dict[str, bytes]:
        """:meth:`wire` of each."""
        return {field: self.wire(digest, category, field, value, version) for field, value in fields.items()}

    def opened(self, digest: str, category: str, fields: Mapping[str, Any], version: int = 0) -> dict[str, bytes]:
        """:meth:`open` of each."""
        return {field: self.open(digest, category, field, stored, version) for field, stored in fields.items()}


def is_damaged(value: bytes | None) -> bool:
    """Whether a value could not be opened."""
    return value is not None and value[:1] == _UNREADABLE
