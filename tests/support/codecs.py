"""Codecs that seal, for tests."""

from __future__ import annotations

from collections.abc import Callable

from flask_langpont_session.stores.codec.cipher import Cipher
from flask_langpont_session.stores.codec.sealing import SealingCodec

KEY, OTHER_KEY = bytes(range(200, 232)), bytes(range(100, 132))


def sealing(
    *categories: str, key: bytes = KEY, plain_until: float = 0.0, clock: Callable[[], float] = lambda: 1000.0
) -> SealingCodec:
    """Return a codec that seals these categories."""
    return SealingCodec(Cipher([key]), frozenset(categories), plain_until=plain_until, clock=clock)


class _All:
    def __contains__(self, category: object) -> bool:
        return True


SEALING = SealingCodec(Cipher([KEY]), _All())
"""One that seals every category."""
