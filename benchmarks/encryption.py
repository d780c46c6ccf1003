"""``python -m benchmarks.encryption``: what encryption adds to each value that is read from Redis or written there.

No server: an answer of Redis becomes a record, and a change becomes a command, with and without encryption. A record
has ten values of one size. The session is one that this worker knows already, or another one each time, whose key has
to be derived first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from statistics import median
from time import process_time
from typing import Any

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.stores.codec.cipher import Cipher
from flask_langpont_session.stores.codec.plain import PLAIN
from flask_langpont_session.stores.codec.sealing import SealingCodec
from flask_langpont_session.stores.redis.commands import Commands, Guarded
from flask_langpont_session.stores.redis.records import Limits, answer

from .page import arguments, publish, table

SIZES = (20, 1000, 10_000)
VALUES = 10

FULL, QUICK = (21, 300), (3, 5)
"""Rounds, and calls in each."""

_CODECS = (PLAIN, SealingCodec(Cipher([bytes(range(200, 232))]), frozenset({"ui"})))
_SAID = Guarded(Limits(256, 1_000_000, 60_000), 0, "1234567")
_SESSIONS = 10_000
"""More than are remembered."""

Case = Callable[[], object]


def _record(digest: str, fields: Mapping[str, bytes]) -> list[Any]:
    meta = f"{digest[:8]}{'0' * 15}1{'0' * 16}{'0' * 6}1234567{'0' * 11}".encode()
    return [1, [b"@m", meta, *(part for name, value in fields.items() for part in (name.encode(), value))], 0, -1]


def reads(size: int, digests: Sequence[str]) -> list[Case]:
    """Return what reads a record of values of this size: plain, and encrypted."""
    fields = {f"key_{number}": b'"%b"' % (b"x" * (size - 2)) for number in range(VALUES)}

    def case(codec: Any) -> Case:
        records = cycle([(digest, _record(digest, codec.to_store(digest, "ui", fields))) for digest in digests])

        def read() -> object:
            digest, record = next(records)
            return answer(digest, ("ui",), "a", record, codec=codec)

        return read

    return [case(codec) for codec in _CODECS]


def writes(size: int, digests: Sequence[str]) -> list[Case]:
    """Return what makes a command of values of this size: plain, and encrypted."""
    fields = {f"key_{number}": b'"%b"' % (b"x" * (size - 2)) for number in range(VALUES)}

    def case(codec: Any) -> Case:
        commands, written = Commands("session", codec=codec), cycle(digests)
        return lambda: commands.write(
            RecordRef(next(written), "a"), {"ui": CategoryChange(60_000, sets=dict(fields))}, "free", _SAID
        )

    return [case(codec) for codec in _CODECS]


def timed(cases: Sequence[Case], rounds: int, calls: int) -> list[list[float]]:
    """Return the microseconds that each case takes for a value, of each round; the cases take turns."""
    took: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, found in zip(cases, took, strict=True):
            began = process_time()
            for _ in range(calls):
                case()
            found.append((process_time() - began) / calls / VALUES * 1e6)
    return took


def rows(rounds: int, calls: int) -> Iterator[list[str]]:
    """Measure, and yield the rows of the table."""
    for sessions, note in ((1, ""), (min(_SESSIONS, calls * 50), ", of a session not yet known")):
        digests = [f"{number:043}" for number in range(sessions)]
        for size in SIZES if sessions == 1 else SIZES[:1]:
            for way, cases in (("read", reads(size, digests)), ("written", writes(size, digests))):
                figures = [f"{of(took):.1f}" for took in timed(cases, rounds, calls) for of in (min, median)]
                yield [f"{size} bytes, {way}{note}", *figures]


if __name__ == "__main__":
    options = arguments("benchmarks.encryption", __doc__).parse_args()
    head = ("a value of", "plain: least, µs", "median", "encrypted: least, µs", "median")
    publish(table(head, rows(*(QUICK if options.quick else FULL))), options, "encryption")
