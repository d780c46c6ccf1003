"""``python -m benchmarks.freshness``: is what one process reads as new as what another one was told is written?

Two processes, each an application of its own on one real server. The writer tells the reader by a pipe when it has the
answer to its change, and the reader, which has just read the session, reads it at once. A read that shows the old value
is stale; the reader then asks again and again until it sees the new one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from devservers.valkey import Valkey
from tests.faults.matrix_servers import CLASSES, ENGINES, Pair, info
from tests.faults.proxy import FaultProxy

from .. import near_cache
from ..network import Network
from ..page import BENCHMARKS, table, write_into
from .disturbances import DISTURBANCES, Disturbance, NotDisturbed, Scene
from .stage import Two, together, two
from .worker import Seen

NAME = "freshness"
DELAY = 0.00025
"""Seconds that the network takes in each direction."""


@dataclass(frozen=True)
class Effort:
    """The number of repetitions.

    :param disturbances: what is done to the server; `times`: of each, at most.
    :param engines: the servers.
    :param places: where the processes are; with a network between they are on two hosts in any case.
    """

    writes: int
    sign_outs: int
    disturbances: Sequence[Disturbance]
    times: int
    engines: Sequence[str]
    places: Mapping[str, bool]


ONE_HOST, TWO_HOSTS = "one host", "two hosts"
PLACES: Mapping[str, bool] = {ONE_HOST: True, TWO_HOSTS: False}
"""Where the two processes are → whether they have the same journal."""

FULL = Effort(10_000, 1_000, DISTURBANCES, 50, ENGINES, PLACES)
QUICK = Effort(20, 5, (DISTURBANCES[0], DISTURBANCES[-1]), 1, ENGINES[:1], {ONE_HOST: True})


@dataclass(frozen=True)
class Row:
    """The findings of one case.

    :param promised: how many stale reads there may be. None: the guarantees give no number.
    :param proof: what the case is about, and what shows that it was there.
    """

    title: str
    server: str
    seen: Seen
    promised: int | None = None
    proof: tuple[str, str] | None = None


@dataclass(frozen=True)
class Results:
    """Everything one run found. :param machine: machine and versions, in a sentence."""

    machine: str
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """The common part of all rows."""

    folder: Path
    effort: Effort
    near: bool

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        for engine in self.effort.engines:
            with CLASSES[engine](self.folder / engine, appendonly=False) as server:
                yield from self._undisturbed(engine, server)
            yield self._threaded(engine)
            with Pair.running(engine, self.folder / f"{engine}-pair") as pair:
                yield from self._disturbed(engine, pair)

    def _undisturbed(self, engine: str, server: Valkey) -> Iterator[Row]:
        for place, one_host in self.effort.places.items():
            with self._two(server.url, one_host=one_host) as pair:
                yield from self._both(engine, place, pair, promised=0 if one_host else None)
        with ExitStack() as stack:
            network = stack.enter_context(Network(self._new_folder("network"), server.port, DELAY))
            pair = stack.enter_context(self._two(network.instead_of(server.url), one_host=False))
            between = f"{DELAY * 1000:g} ms of network each way"
            proof = f"a PING takes {network.round_trip() * 1000:.2f} ms there and back"
            for row in self._both(engine, f"{TWO_HOSTS}, {between}", pair):
                yield replace(row, proof=(between, proof))

    def _both(self, engine: str, place: str, pair: Two, promised: int | None = None) -> Iterator[Row]:
        yield Row(f"write, {place}", engine, pair.writes(self.effort.writes), promised)
        yield Row(f"sign-out, {place}", engine, pair.sign_outs(self.effort.sign_outs), promised)

    def _threaded(self, engine: str) -> Row:
        """Return the row with threads for I/O. Valkey uses them for as few connections only if it is told to."""
        options = ["--io-threads", "2", *(["--io-threads-always-active", "yes"] if engine == "valkey" else [])]
        server = CLASSES[engine](self._new_folder(f"{engine}-threads"), appendonly=False, extra=options)
        with server, self._two(server.url, one_host=False) as pair:
            before = _written_by_threads(server)
            seen = pair.writes(self.effort.writes)
            by_threads = _written_by_threads(server) - before
        if not by_threads:
            raise NotDisturbed("not seen: answers that the server's I/O threads have sent")
        title = "io-threads 2"
        proof = f"I/O threads sent {by_threads} answers"
        return Row(f"write, {TWO_HOSTS}, {title}", engine, seen, proof=(title, proof))

    def _disturbed(self, engine: str, servers: Pair) -> Iterator[Row]:
        for place, one_host in self.effort.places.items():
            with self._two(servers.primary.url, one_host=one_host) as pair:
                for disturbance in self.effort.disturbances:
                    if not disturbance.by_endpoint:
                        yield self._repeated(engine, place, disturbance, Scene(pair, servers))
            with FaultProxy("127.0.0.1", servers.primary.port) as endpoint:
                url = endpoint.instead_of(servers.primary.url)
                with self._two(url, one_host=one_host) as pair:
                    for disturbance in self.effort.disturbances:
                        if disturbance.by_endpoint:
                            yield self._repeated(engine, place, disturbance, Scene(pair, servers, endpoint))

    def _repeated(self, engine: str, place: str, disturbance: Disturbance, scene: Scene) -> Row:
        found, proof = [], ""
        cookie = scene.two.sign_in()
        for number in range(min(disturbance.times, self.effort.times)):
            scene.two.hold(cookie, number)
            seen, proof = disturbance.done(scene)
            found.append(seen)
        return Row(f"{disturbance.title}, {place}", engine, together(found), proof=(disturbance.title, proof))

    def _two(self, url: str, *, one_host: bool) -> AbstractContextManager[Two]:
        return two(self._new_folder("two"), url, one_host=one_host, near=self.near)

    def _new_folder(self, name: str) -> Path:
        return self.folder / f"{name}-{len(list(self.folder.iterdir()))}"


def _written_by_threads(server: Valkey) -> int:
    return int(info(server, "stats")["io_threaded_writes_processed"])


_MS = "{}, ms: p50 / p99 / max"


def markdown(results: Results) -> str:
    """Return the report."""
    head = ("", "server", "changes", "held by a copy", "stale", "promised", _MS.format("late"), _MS.format("neither"))
    proofs = {f"{row.proof[0]}, {row.server}": row.proof[1] for row in results.rows if row.proof}
    return "\n".join(
        [
            results.machine,
            "",
            table(head, [_cells(row) for row in results.rows]),
            "That each case was there:",
            "",
            *(f"- {title}: {proof}." for title, proof in proofs.items()),
        ]
    )


def _cells(row: Row) -> list[str]:
    seen = row.seen
    stale = len(seen.late) + seen.never
    held = near_cache.NONE if not seen.held else str(seen.held)
    promised = "–"
    if row.promised is not None:
        promised = f"{row.promised}, " + ("kept" if stale <= row.promised else "**broken**")
    never = f"; **{seen.never} never**" if seen.never else ""
    without = f"{len(seen.without)}: {_spread(seen.without)}" if seen.without else "0"
    return [row.title, row.server, str(seen.rounds), held, str(stale), promised, _spread(seen.late) + never, without]


def _spread(found: Sequence[float]) -> str:
    if not found:
        return "–"
    ordered = sorted(found)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"{p50:.2f} / {p99:.2f} / {ordered[-1]:.2f}"


def _machine(near: bool) -> str:
    cache = f"near cache {'on' if near else 'off'}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("flask", "redis", "hiredis", "sqlalchemy"))
    return f"{os.cpu_count()} cores, loopback; {cache}. Python {platform.python_version()}, {packages}."


def _say(text: str) -> None:
    print(f"\r{text:<90}\r", end="", file=sys.stderr, flush=True)


def run(effort: Effort, *, near: bool) -> Results:
    """Measure. :raises NotDisturbed: there is nothing to report."""
    with TemporaryDirectory(prefix="freshness-") as name:
        results = Results(_machine(near))
        for row in Run(Path(name), effort, near).rows():
            results.rows.append(row)
            _say(f"{row.server}: {row.title}")
        _say("")
        return results


def main() -> None:
    """Print the report, whatever is promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freshness", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--near-cache", choices=("on", "off"), default="on")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md as well")
    options = parser.parse_args()
    results = run(QUICK if options.quick else FULL, near=options.near_cache == "on")
    text = markdown(results)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    if options.write:
        write_into(BENCHMARKS, NAME, text)


if __name__ == "__main__":
    main()
