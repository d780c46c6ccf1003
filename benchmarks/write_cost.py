"""``python -m benchmarks.write_cost``: what a write costs the server while it tracks what others have read.

Plain connections switch CLIENT TRACKING on and read the keys of the sessions; then each session is changed once by this
package, so that the server has to tell those that hold it. Each session is held by one of the connections, or by all.
"""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import hiredis
import redis

from devservers.servers import Valkey

from .contestants import Contestant, Ours, OursWithoutNearCache
from .cores import pin
from .page import BENCHMARKS, table, write_into
from .scenarios import data_of

NAME = "write-cost"
CONNECTIONS = (0, 1, 16, 256)


@dataclass(frozen=True)
class Effort:
    """The amount of measuring."""

    rounds: int
    sessions: int


FULL, QUICK = Effort(11, 128), Effort(2, 20)


class Tracker:
    """A connection whose reads the server tracks.

    :ivar told: of how many keys it was told that they have changed.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader()
        self.told = 0
        self.ask("HELLO 3")
        self.ask("CLIENT TRACKING ON")

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def ask(self, question: str) -> object:
        """Send a command and return its reply; what the server says besides is counted."""
        self._socket.sendall(question.encode() + b"\r\n")
        while True:
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(65_536))
            elif isinstance(reply, hiredis.PushNotification):
                self.told += len(reply[1] or ())
            elif isinstance(reply, hiredis.ReplyError):
                raise reply
            else:
                return reply

    def hold(self, keys: Sequence[str]) -> None:
        """Have changes of these keys told."""
        for begin in range(0, len(keys), 500):  # the server takes 64 KB in a line
            self.ask(f"EXISTS {' '.join(keys[begin : begin + 500])}")


@dataclass
class Case:
    """So many connections, of which one holds each session, or all do.

    :param script: microseconds of each write script, as the server counts them, of each round; `cpu`: microseconds of
        the server's processor for each write, all in.
    """

    connections: int
    by_all: bool
    script: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class NotTold(Exception):
    """The server did not track what it should: there is nothing to report."""


class Bench:
    """The sessions, and what measures their changes.

    :param admin: a connection to the server.
    """

    def __init__(self, contestant: Contestant, admin: redis.Redis, effort: Effort) -> None:
        self._contestant, self._admin = contestant, admin
        self._cookies = [contestant.begin(data_of("1 KB")) for _ in range(effort.sessions)]
        self._keys: dict[str, list[str]] = {}
        for key in admin.scan_iter(count=1000):
            if tag := re.search(r"\{.+\}", key.decode()):
                self._keys.setdefault(tag[0], []).append(key.decode())
        self._numbers = count()

    def round(self, case: Case, trackers: Sequence[Tracker]) -> None:
        """Let the connections hold the sessions, then change each session once."""
        trackers = trackers[: case.connections]
        for number, tracker in enumerate(trackers):
            held = list(self._keys.values()) if case.by_all else list(self._keys.values())[number :: len(trackers)]
            tracker.hold([key for keys in held for key in keys])
            tracker.told = 0
        before = self._counters()
        for cookie in self._cookies:
            self._contestant.get("/change-one", cookie, f"theme-{next(self._numbers):09d}")
        scripts, in_scripts, cpu = (new - old for new, old in zip(self._counters(), before, strict=True))
        self._check(case, trackers, scripts)
        case.script.append(in_scripts / scripts)
        case.cpu.append(cpu * 1e6 / len(self._cookies))

    def _check(self, case: Case, trackers: Sequence[Tracker], scripts: float) -> None:
        for tracker in trackers:
            tracker.ask("PING")
        told, changes = sum(tracker.told for tracker in trackers), len(self._cookies)
        if scripts < changes:  # others run scripts as well, now and then
            raise NotTold(f"{changes} changes, but {scripts:g} scripts only")
        if told < changes * (len(trackers) if case.by_all else min(1, len(trackers))):
            raise NotTold(f"{changes} changes, but {len(trackers)} connections were told of {told} only")

    def _counters(self) -> tuple[float, float, float]:
        commands: Any = self._admin.info("commandstats")
        cpu: Any = self._admin.info("cpu")
        scripts = commands.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        return scripts["calls"], scripts["usec"], cpu["used_cpu_user"] + cpu["used_cpu_sys"]


def measure(effort: Effort, *, near: bool) -> list[Case]:
    """Measure all cases in every round."""
    cases = [Case(number, by_all) for number in CONNECTIONS for by_all in (False, True) if number > 1 or not by_all]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="write-cost-")))
        valkey = stack.enter_context(Valkey(folder / "valkey", appendonly=False))
        pin("apart", valkey.pid)
        kind = Ours if near else OursWithoutNearCache
        contestant = kind(valkey.url, f"sqlite:///{folder / 'sessions.sqlite3'}", folder / "ours")
        stack.callback(contestant.close)
        bench = Bench(contestant, stack.enter_context(redis.Redis.from_url(valkey.url)), effort)
        trackers = [stack.enter_context(closing(Tracker(valkey.port))) for _ in range(max(CONNECTIONS))]
        for case in cases:
            bench.round(Case(case.connections, case.by_all), trackers)  # compiles, connects
        for _ in range(effort.rounds):
            for case in cases:
                bench.round(case, trackers)
    return cases


def markdown(cases: Sequence[Case], *, near: bool) -> str:
    """Return the report."""
    by_kind = {(case.connections, case.by_all): case for case in cases}
    rows = [
        [str(number), *_cells(by_kind[number, False]), *_cells(by_kind.get((number, True)))] for number in CONNECTIONS
    ]
    head = (
        "tracking connections",
        "one holds each session: script, µs",
        "CPU, µs",
        "all hold each session: script, µs",
        "CPU, µs",
    )
    return f"The package that writes: near cache {'on' if near else 'off'}.\n\n{table(head, rows)}"


def _cells(case: Case | None) -> list[str]:
    # Many kernels count processor time in whole ticks: one round has few of them, all together have enough.
    return [f"{median(case.script):.1f}", f"{fmean(case.cpu):.1f}"] if case else ["–", "–"]


def main() -> None:
    """Print the report. :raises NotTold: there is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.write_cost", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--near-cache", choices=("on", "off"), default="on", help="of the package that writes")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md as well")
    options = parser.parse_args()
    near = options.near_cache == "on"
    text = markdown(measure(QUICK if options.quick else FULL, near=near), near=near)
    print(text)
    if options.write:
        write_into(BENCHMARKS, NAME, text)


if __name__ == "__main__":
    main()
