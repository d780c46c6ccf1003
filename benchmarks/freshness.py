"""``python -m benchmarks.freshness``: is what one process reads as new as what another one was told is written?

Two processes, each an application of its own on one real server. The writer tells the reader by a pipe when it has the
answer to its change, and the reader, which has just read the session, reads it at once. A read that shows the old value
is stale; the reader then asks again and again until it sees the new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from devservers.processes import wait_until
from devservers.valkey import Valkey
from tests.faults.matrix_servers import CLASSES, ENGINES, Pair, calls, cut_off, info
from tests.faults.proxy import FaultProxy

from .freshness_pair import LONG, Seen, Two, two
from .network import Network
from .page import arguments, machine, publish, say, table

DELAY = 0.00025
"""Seconds that the network takes in each direction."""

IDLE = 1.5
"""Seconds without a request: longer than a near cache trusts a connection that says nothing."""


class NotDisturbed(Exception):
    """The disturbance that a row claims did not happen: there is nothing to report."""


def _must(condition: object, what: str) -> None:
    if not condition:
        raise NotDisturbed(f"not seen: {what}")


# -- disturbances, between the reader's copy and the writer's change ---------------------------------------------------


@dataclass
class Scene:
    """The processes and servers that can be disturbed.

    :param servers: of which the primary is in use.
    :param endpoint: before the primary. None: the processes connect to it directly.
    """

    two: Two
    servers: Pair
    endpoint: FaultProxy | None = None

    def changed(self) -> Seen:
        """Let the change happen."""
        self.two.change()
        return self.two.finish()


def _all_killed(scene: Scene, idle: float = 0.0) -> tuple[Seen, str]:
    time.sleep(idle)  # how long there was no request is what the row is about
    tracked = len(_tracked(scene.servers.primary))
    _must(tracked, "a connection that is tracked")
    _must(cut_off(scene.servers.primary) > tracked, "the end of all connections")
    return scene.changed(), f"the server closed connections, {tracked} of them tracked"


def _reader_killed(scene: Scene) -> tuple[Seen, str]:
    reader = psutil.Process(scene.two.reader.pid)
    ports = {connection.laddr.port for connection in reader.net_connections("tcp") if connection.laddr}
    victims = [one for one in _tracked(scene.servers.primary) if int(one["addr"].rpartition(":")[2]) in ports]
    with scene.servers.primary.client() as admin:
        killed = sum(int(admin.client_kill_filter(_id=client["id"])) for client in victims)
    _must(killed and killed == len(victims), "a tracked connection of the reader to kill")
    return scene.changed(), "the server closed the reader's tracked connections by their ids"


def _tracked(server: Valkey) -> list[Mapping[str, str]]:
    with server.client() as admin:
        clients: Any = admin.client_list()
    return [client for client in clients if "t" in client["flags"]]


def _frozen(scene: Scene, seconds: float) -> tuple[Seen, str]:
    server = scene.servers.primary
    server.freeze()
    try:
        process = psutil.Process(server.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "a stopped process")
        scene.two.change()
        time.sleep(seconds)  # how long it is stopped is what the row is about
        _must(not scene.two.writer.has_answered, "a writer that waits for a server that is stopped")
    finally:
        server.thaw()
    return scene.two.finish(), "the process was stopped, and the writer had no answer until it went on"


def _flushed(scene: Scene) -> tuple[Seen, str]:
    with scene.servers.primary.client() as admin:
        before = admin.dbsize()
        admin.flushall()
        _must(before and not admin.dbsize(), "an empty server that had data")
    return scene.changed(), "the server had keys before, and none after"


def _failed_over(scene: Scene, *, closes: bool) -> tuple[Seen, str]:
    assert scene.endpoint is not None
    servers = scene.servers
    servers.catch_up()
    old, new = servers.primary, servers.replica
    connected = scene.endpoint.connections
    with new.client() as admin:
        admin.execute_command("REPLICAOF", "NO", "ONE")
    with old.client() as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", str(new.port))
    scene.endpoint.lead_to(new.port)
    if closes:
        scene.endpoint.drop_connections()
    _must(connected, "connections by way of the endpoint")
    _must([info(one, "replication")["role"] for one in (old, new)] == ["slave", "master"], "servers with other roles")
    scripts = calls(new, "evalsha")
    seen = scene.changed()
    _must(calls(new, "evalsha") > scripts, "scripts on the new primary")
    servers.primary, servers.replica = new, old
    wait_until(lambda: info(old, "replication")["master_link_status"] == "up", "a replica of the new primary", LONG)
    return seen, "the servers changed roles, the new primary ran scripts"


@dataclass(frozen=True)
class Disturbance:
    """One row for each server and placement.

    :param done: does it, lets the change happen, and returns what the reader has seen, and the proof.
    :param times: how often it is repeated in a full run.
    :param by_endpoint: it needs an endpoint.
    """

    title: str
    done: Callable[[Scene], tuple[Seen, str]]
    times: int = 50
    by_endpoint: bool = False


DISTURBANCES = (
    Disturbance("all connections are killed (CLIENT KILL TYPE normal)", _all_killed),
    Disturbance(f"all connections are killed after {IDLE:g} s without a request", partial(_all_killed, idle=IDLE), 10),
    Disturbance("the reader's connections are killed (CLIENT KILL ID)", _reader_killed),
    Disturbance("the server is stopped for 0.3 s (SIGSTOP, SIGCONT)", partial(_frozen, seconds=0.3), 20),
    Disturbance("the server is stopped for 1.5 s", partial(_frozen, seconds=1.5), 5),
    Disturbance("FLUSHALL", _flushed, 10),
    Disturbance("failover, connections are closed", partial(_failed_over, closes=True), 10, by_endpoint=True),
    Disturbance(
        "failover, connections stay with the demoted server", partial(_failed_over, closes=False), 10, by_endpoint=True
    ),
)


# -- rows --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effort:
    """The number of repetitions.

    :param times: of each disturbance, at most.
    :param places: where the two processes are → whether they have the same journal.
    """

    writes: int
    sign_outs: int
    disturbances: Sequence[Disturbance]
    times: int
    engines: Sequence[str]
    places: Mapping[str, bool]


FULL = Effort(10_000, 1_000, DISTURBANCES, 50, ENGINES, {"one host": True, "two hosts": False})
QUICK = Effort(20, 5, (DISTURBANCES[0], DISTURBANCES[-1]), 1, ENGINES[:1], {"one host": True})


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

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        seen, stale = self.seen, len(self.seen.late) + self.seen.never
        promised = "–"
        if self.promised is not None:
            promised = f"{self.promised}, " + ("kept" if stale <= self.promised else "**broken**")
        late = _spread(seen.late) + (f"; **{seen.never} never**" if seen.never else "")
        without = f"{len(seen.without)}: {_spread(seen.without)}" if seen.without else "0"
        return [self.title, self.server, str(seen.rounds), str(seen.held), str(stale), promised, late, without]


def _spread(found: Sequence[float]) -> str:
    if not found:
        return "–"
    ordered = sorted(found)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"{p50:.2f} / {p99:.2f} / {ordered[-1]:.2f}"


@dataclass(frozen=True)
class Run:
    """The common part of all rows."""

    folder: Path
    effort: Effort

    def rows(self) -> Iterator[Row]:
        """Yield all rows. :raises NotDisturbed: there is nothing to report."""
        for engine in self.effort.engines:
            with CLASSES[engine](self.folder / engine, appendonly=False) as server:
                yield from self._undisturbed(engine, server)
            yield self._threaded(engine)
            with Pair.running(engine, self.folder / f"{engine}-pair") as pair:
                yield from self._disturbed(engine, pair)

    def _undisturbed(self, engine: str, server: Valkey) -> Iterator[Row]:
        for place, one_host in self.effort.places.items():
            with two(self._new_folder("two"), server.url, one_host=one_host) as pair:
                yield from self._both(engine, place, pair, promised=0 if one_host else None)
        with ExitStack() as stack:
            network = stack.enter_context(Network(self._new_folder("network"), server.port, DELAY))
            pair = stack.enter_context(two(self._new_folder("two"), network.instead_of(server.url), one_host=False))
            between = f"{DELAY * 1000:g} ms of network each way"
            proof = f"a PING takes {network.round_trip() * 1000:.2f} ms there and back"
            yield from self._both(engine, f"two hosts, {between}", pair, proof=(between, proof))

    def _both(self, engine: str, place: str, pair: Two, **more: Any) -> Iterator[Row]:
        yield Row(f"write, {place}", engine, pair.writes(self.effort.writes), **more)
        yield Row(f"sign-out, {place}", engine, pair.sign_outs(self.effort.sign_outs), **more)

    def _threaded(self, engine: str) -> Row:
        """Return the row with threads for I/O. Valkey uses them for as few connections only if it is told to."""
        options = ["--io-threads", "2", *(["--io-threads-always-active", "yes"] if engine == "valkey" else [])]
        server = CLASSES[engine](self._new_folder(f"{engine}-threads"), appendonly=False, extra=options)
        with server, two(self._new_folder("two"), server.url, one_host=False) as pair:
            before = info(server, "stats")["io_threaded_writes_processed"]
            seen = pair.writes(self.effort.writes)
            by_threads = int(info(server, "stats")["io_threaded_writes_processed"]) - int(before)
        _must(by_threads, "answers that the server's I/O threads have sent")
        proof = ("io-threads 2", f"I/O threads sent {by_threads} answers")
        return Row("write, two hosts, io-threads 2", engine, seen, proof=proof)

    def _disturbed(self, engine: str, servers: Pair) -> Iterator[Row]:
        for place, one_host in self.effort.places.items():
            for by_endpoint in (False, True):
                with FaultProxy("127.0.0.1", servers.primary.port) as endpoint:
                    url = endpoint.instead_of(servers.primary.url) if by_endpoint else servers.primary.url
                    with two(self._new_folder("two"), url, one_host=one_host) as pair:
                        for disturbance in self.effort.disturbances:
                            if disturbance.by_endpoint == by_endpoint:
                                yield self._repeated(engine, place, disturbance, Scene(pair, servers, endpoint))

    def _repeated(self, engine: str, place: str, disturbance: Disturbance, scene: Scene) -> Row:
        found, proof = Seen(), ""
        cookie = scene.two.sign_in()
        for number in range(min(disturbance.times, self.effort.times)):
            scene.two.hold(cookie, number)
            seen, proof = disturbance.done(scene)
            found += seen
        return Row(f"{disturbance.title}, {place}", engine, found, proof=(disturbance.title, proof))

    def _new_folder(self, name: str) -> Path:
        return self.folder / f"{name}-{len(list(self.folder.iterdir()))}"


def markdown(effort: Effort) -> str:
    """Measure, and return the report, whatever is promised."""
    rows = []
    with TemporaryDirectory(prefix="freshness-") as name:
        for row in Run(Path(name), effort).rows():
            rows.append(row)
            say(f"{row.server}: {row.title}")
    ms = "{}, ms: p50 / p99 / max"
    head = ("", "server", "changes", "held by a copy", "stale", "promised", ms.format("late"), ms.format("neither"))
    proofs = {f"{row.proof[0]}, {row.server}": row.proof[1] for row in rows if row.proof}
    return "\n".join(
        [
            machine("loopback; near cache on", "flask", "redis", "hiredis", "sqlalchemy"),
            "",
            table(head, [row.cells() for row in rows]),
            "That each case was there:",
            "",
            *(f"- {title}: {proof}." for title, proof in proofs.items()),
        ]
    )


if __name__ == "__main__":
    options = arguments("benchmarks.freshness", __doc__).parse_args()
    publish(markdown(QUICK if options.quick else FULL), options, "freshness")
