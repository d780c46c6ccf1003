"""``python -m benchmarks.encryption``: what encryption adds to each value that is read from Redis or written there.

No server: an answer of Redis becomes a record, and a change becomes a command, with and without encryption. A record
has ten values of one size. The session is one that this worker knows already, or another one each time, whose key has
to be derived first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

from .page import BENCHMARKS, table, write_into

NAME = "encryption"
SIZES = (20, 1000, 10_000)
VALUES = 10

_CODECS = {"plain": PLAIN, "encrypted": SealingCodec(Cipher([bytes(range(200, 232))]), frozenset({"ui"}))}
_SAID = Guarded(Limits(256, 1_000_000, 60_000), 0, "1234567")
_SESSIONS = 10_000
"""More than are remembered."""


@dataclass(frozen=True)
class Effort:
    """The amount of measuring."""

    rounds: int
    calls: int


FULL, QUICK = Effort(21, 300), Effort(3, 5)


@dataclass
class Case:
    """One way to read or write.

    :param call: reads or writes all values of a record.
    :param took: microseconds of each value, of each round.
    """

    call: Callable[[], object]
    took: list[float] = field(default_factory=list)

    def round(self, calls: int) -> None:
        """Measure once."""
        began = process_time()
        for _ in range(calls):
            self.call()
        self.took.append((process_time() - began) / calls / VALUES * 1e6)


def _record(digest: str, fields: Mapping[str, bytes]) -> list[Any]:
    meta = f"{digest[:8]}{'0' * 15}1{'0' * 16}{'0' * 6}1234567{'0' * 11}".encode()
    return [1, [b"@m", meta, *(part for name, value in fields.items() for part in (name.encode(), value))], 0, -1]


def cases(size: int, digests: Sequence[str]) -> dict[tuple[str, str], Case]:
    """Return the cases: read and write, each plain and encrypted.

    :param size: bytes of a value.
    """
    fields = {f"key_{number}": b'"%b"' % (b"x" * (size - 2)) for number in range(VALUES)}
    records = {
        kind: cycle([(digest, _record(digest, codec.to_store(digest, "ui", fields))) for digest in digests])
        for kind, codec in _CODECS.items()
    }
    written = cycle(digests)
    commands = {kind: Commands("session", codec=codec) for kind, codec in _CODECS.items()}

    def read(kind: str) -> object:
        digest, record = next(records[kind])
        return answer(digest, ("ui",), "a", record, codec=_CODECS[kind])

    def write(kind: str) -> object:
        change = {"ui": CategoryChange(60_000, sets=dict(fields))}
        return commands[kind].write(RecordRef(next(written), "a"), change, "free", _SAID)

    return {
        ("read", "plain"): Case(lambda: read("plain")),
        ("read", "encrypted"): Case(lambda: read("encrypted")),
        ("written", "plain"): Case(lambda: write("plain")),
        ("written", "encrypted"): Case(lambda: write("encrypted")),
    }


def measure(size: int, effort: Effort, *, known: bool) -> dict[tuple[str, str], Case]:
    """Measure all cases in every round.

    :param known: the session is one that this worker knows.
    """
    digests = [f"{number:043}" for number in range(1 if known else min(_SESSIONS, effort.calls * 50))]
    found = cases(size, digests)
    for _ in range(effort.rounds):
        for case in found.values():
            case.round(effort.calls)
    return found


def markdown(effort: Effort) -> str:
    """Return the report."""
    rows = []
    for known in (True, False):
        for size in SIZES if known else SIZES[:1]:
            found = measure(size, effort, known=known)
            for way in ("read", "written"):
                plain, sealed = (found[way, kind].took for kind in ("plain", "encrypted"))
                figures = [f"{of(took):.1f}" for took in (plain, sealed) for of in (min, median)]
                rows.append([f"{size} bytes, {way}{'' if known else ', of a session not yet known'}", *figures])
    head = ("a value of", "plain: least, µs", "median", "encrypted: least, µs", "median")
    return table(head, rows)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encryption", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md as well")
    options = parser.parse_args()
    text = markdown(QUICK if options.quick else FULL)
    print(text)
    if options.write:
        write_into(BENCHMARKS, NAME, text)


if __name__ == "__main__":
    main()
