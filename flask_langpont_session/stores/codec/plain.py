"""The codec of an application without encryption, and what is asked of every codec.

Redis, the database and the journal ask it where values leave the process and where they come back. Nothing else in the
package knows what a store has of them.
"""

from __future__ import annotations

from ...policy.changes import Fields


class Codec:
    """Values as they are.

    Everywhere, `version` is that of the row that a value is part of; 0: it is part of none.

    :cvar overhead: bytes by which a stored value is longer.
    """

    overhead = 0

    def seals(self, category: str) -> bool:
        """Return whether the values of a category are encrypted."""
        return False

    def to_store(self, digest: str, category: str, fields: Fields, version: int = 0) -> Fields:
        """Return what a store gets of some values."""
        return fields

    def from_store(self, digest: str, category: str, stored: Fields, version: int = 0) -> Fields:
        """Return the values that a store has. One that cannot be opened is no encoding of any."""
        return stored

    def to_store_once(self, digest: str, category: str, fields: dict[str, bytes]) -> Fields:
        """Return what a store gets of changed values, which remember it in place: however often they are sent or kept,
        the text is the same. By that text it is told whether a store has them."""
        return fields

    def row_to_store(self, digest: str, payload: Fields, version: int) -> Fields:
        """Return what the database gets of a row's payload: JSON for each value."""
        return payload

    def row_from_store(self, digest: str, stored: Fields, version: int, *, live: bool) -> Fields | None:
        """Return the payload that the database has; None: one of its values was not written for this row and
        version."""
        return stored

    def value_to_store(self, digest: str, category: str, field: str, value: bytes) -> bytes:
        """Return what a store gets of one value that is part of no row."""
        return value

    def base_to_store(self, digest: str, category: str, field: str, value: bytes) -> bytes:
        """Return what a store had of a value, to be compared with what it has."""
        return value

    def value_from_store(self, digest: str, category: str, field: str, stored: bytes) -> bytes:
        """Return one value as :meth:`from_store` does."""
        return stored

    def is_damaged(self, value: bytes | None) -> bool:
        """Return whether a value could not be opened."""
        return False

    def lacks_key_of(self, value: bytes | None) -> bool:
        """Return whether a value that was opened is sealed by a key that this process does not have."""
        return False


PLAIN = Codec()
