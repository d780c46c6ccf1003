"""``python -m benchmarks.memory``: what a session of 1 KB takes of a server's memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import redis

from devservers.servers import Valkey

from .contestants import Contestant, FlaskSession, OursWithoutNearCache
from .page import arguments, publish, table
from .scenarios import data_of

FULL, QUICK = 4000, 100
"""Sessions from which on it is measured, until there are twice as many."""

ROOMY = "hash-max-listpack-value"


def per_session(kind: type[Contestant], number: int, options: Sequence[str] = ()) -> float:
    """Return the bytes that a session takes: the mean while their number doubles, for the server's own tables grow in
    steps.

    Server and application are new: an application that knows sessions gives an emptied server back what it has of them.

    :param options: of the server.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="memory-")))
        valkey = stack.enter_context(Valkey(folder / "valkey", appendonly=False, extra=options))
        contestant = kind(valkey.url, folder)
        stack.callback(contestant.close)
        admin = stack.enter_context(valkey.client())
        contestant.begin(data_of("1 KB"))  # connects, and has the server know the scripts
        before, each = used(admin), []
        for there in range(1, 2 * number + 1):
            contestant.begin(data_of("1 KB"))
            if there >= number and there % (number // 4) == 0:
                each.append((used(admin) - before) / there)
        return fmean(each)


def used(admin: redis.Redis) -> int:
    """Return the bytes that a server has in use, without the buffers of connections: they shrink when they were idle
    for a while."""
    memory: Any = admin.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


def markdown(number: int) -> str:
    """Measure, and return the report."""
    found = {
        "one msgspec blob (Flask-Session)": per_session(FlaskSession, number),
        "three hashes (ours)": per_session(OursWithoutNearCache, number),
        f"… with `{ROOMY} 1024` on the server": per_session(OursWithoutNearCache, number, (f"--{ROOMY}", "1024")),
    }
    one_blob = next(iter(found.values()))
    return table(
        ["", "bytes", "ratio"], [[label, f"{each:.0f}", f"{each / one_blob:.2f}"] for label, each in found.items()]
    )


if __name__ == "__main__":
    options = arguments("benchmarks.memory", __doc__).parse_args()
    publish(markdown(QUICK if options.quick else FULL), options, "memory")
