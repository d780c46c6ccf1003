"""``python -m benchmarks.memory``: what a session of 1 KB takes of a server's memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import redis

from devservers.servers import Valkey

from .contestants import Contestant, FlaskSession, OursWithoutNearCache
from .page import BENCHMARKS, table, write_into
from .scenarios import data_of

NAME = "memory"
FULL, QUICK = 4000, 100
"""Sessions from which on it is measured, until there are twice as many."""

ROOMY = "hash-max-listpack-value"
Made = Callable[[str, Path], Contestant]


def per_session(made: Made, number: int, options: Sequence[str] = ()) -> float:
    """Return the bytes that a session takes: the mean while their number doubles, for the server's own tables grow in
    steps.

    Server and application are new: an application that knows sessions gives an emptied server back what it has of them.

    :param made: the contestant on a server, with a folder for its files.
    :param options: of the server.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="memory-")))
        valkey = stack.enter_context(Valkey(folder / "valkey", appendonly=False, extra=options))
        contestant = made(valkey.url, folder)
        stack.callback(contestant.close)
        admin = stack.enter_context(redis.Redis.from_url(valkey.url))
        contestant.begin(data_of("1 KB"))  # connects, and has the server know the scripts
        before, each = _used(admin), []
        for there in range(1, 2 * number + 1):
            contestant.begin(data_of("1 KB"))
            if there >= number and there % (number // 4) == 0:
                each.append((_used(admin) - before) / there)
        return fmean(each)


def _used(admin: redis.Redis) -> int:
    # Without the buffers of connections, which shrink when they were idle for a while.
    memory: Any = admin.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


def measure(number: int) -> dict[str, float]:
    """Return label → bytes per session."""

    def flask_session(url: str, folder: Path) -> Contestant:
        return FlaskSession(url)

    def ours(url: str, folder: Path) -> Contestant:
        return OursWithoutNearCache(url, f"sqlite:///{folder / 'sessions.sqlite3'}", folder / "ours")

    return {
        "one msgspec blob (Flask-Session)": per_session(flask_session, number),
        "three hashes (ours)": per_session(ours, number),
        f"… with `{ROOMY} 1024` on the server": per_session(ours, number, (f"--{ROOMY}", "1024")),
    }


def markdown(found: dict[str, float]) -> str:
    """Return the report."""
    one_blob = next(iter(found.values()))
    return table(
        ["", "bytes", "ratio"], [[label, f"{used:.0f}", f"{used / one_blob:.2f}"] for label, used in found.items()]
    )


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md as well")
    options = parser.parse_args()
    text = markdown(measure(QUICK if options.quick else FULL))
    print(text)
    if options.write:
        write_into(BENCHMARKS, NAME, text)


if __name__ == "__main__":
    main()
