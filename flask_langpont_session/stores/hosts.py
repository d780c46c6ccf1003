"""The configuration of the hosts that share a Redis, as their workers leave it there, so that ``flask langpont doctor``
can compare them.

A hash ``{prefix}:hosts`` has a field for each host, and for each configuration that its workers have. No key that signs
cookies is in it: a keyed digest stands for each, which tells no more of the key than a cookie's signature does.
"""

from __future__ import annotations

import hmac
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ..policy.errors import StoreError
from ..policy.ids import base64url
from .backend import SessionStore

EVERY = 60.0
"""Seconds between two words of a worker."""

_STALE_MS = 180_000
"""Milliseconds after which a configuration that no worker has told again is over."""

_TTL_MS = 3_600_000

_TIMEOUT = 0.5
"""Seconds. No request waits for it."""

Keys = Sequence[str | bytes]
"""SECRET_KEY, and behind it SECRET_KEY_FALLBACKS."""


class HostWord(msgspec.Struct, frozen=True):
    """The configuration of the workers of one host.

    :param keys: stand for the keys whose cookies are accepted; the first one signs.
    :param settings: the name of a setting that is to be the same on all hosts → its value, as text.
    :param at_ms: when a worker told it last, milliseconds since 1970 by the clock of Redis.
    """

    host: str
    keys: tuple[str, ...]
    settings: Mapping[str, str]
    at_ms: int = 0


def word_of(settings: Mapping[str, str], keys: Keys) -> HostWord:
    """Return the configuration of this process."""
    names = tuple(_digest(key if isinstance(key, bytes) else key.encode()) for key in keys)
    return HostWord(socket.gethostname(), names, settings)


def _digest(key: bytes, message: bytes = b"flask-langpont-session.host") -> str:
    return base64url(hmac.digest(key, message, "sha256"))[:8]


class HostWords:
    """Tells the word of one worker, and finds those of all. No thread of its own.

    :param word: says the present one; None: there is none to be told.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        redis: SessionStore,
        word: Callable[[], HostWord | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._word = word
        self._clock = clock
        self._next = 0.0

    def attend(self) -> None:
        """Tell this worker's word, if it is time. Where that fails it is told a minute later: probes look at the
        server."""
        if self._clock() >= self._next and (word := self._word()) is not None:
            self._next = self._clock() + EVERY
            with suppress(StoreError):
                self.tell(word)

    def tell(self, word: HostWord) -> None:
        """Leave a word in Redis, and remove those that are over.

        :raises StoreError: Redis does not take it.
        """
        now_ms, there = self._there()
        over = [field for field, one in there.items() if not is_recent(one, now_ms)]
        told = msgspec.structs.replace(word, at_ms=now_ms)
        field = f"{word.host} {_digest(msgspec.json.encode(word))}"
        commands: list[tuple[Any, ...]] = [("HSET", self._key, field, msgspec.json.encode(told))]
        commands += [("HDEL", self._key, *over)] if over else []
        self._redis.run_commands([*commands, ("PEXPIRE", self._key, _TTL_MS)], timeout=_TIMEOUT)

    def read(self) -> tuple[HostWord, ...]:
        """Return the words of all hosts that have told theirs lately, by the hosts' names.

        :raises StoreError: Redis does not answer.
        """
        now_ms, there = self._there()
        words = [word for word in there.values() if word is not None and is_recent(word, now_ms)]
        return tuple(sorted(words, key=lambda word: (word.host, -word.at_ms)))

    @property
    def _key(self) -> str:
        return f"{self._redis.prefix}:hosts"

    def _there(self) -> tuple[int, dict[bytes, HostWord | None]]:
        """Return the clock of Redis in milliseconds, and field → word; None: another release has written it."""
        commands = [("HGETALL", self._key), ("TIME",)]
        found, (seconds, micros) = self._redis.run_commands(commands, timeout=_TIMEOUT)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return int(seconds) * 1000 + int(micros) // 1000, {field: _decoded(text) for field, text in pairs}


_decode = msgspec.json.Decoder(HostWord).decode


def _decoded(text: bytes) -> HostWord | None:
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        return None


def is_recent(word: HostWord | None, now_ms: int) -> bool:
    """Return whether a word was told lately."""
    return word is not None and now_ms - word.at_ms <= _STALE_MS
