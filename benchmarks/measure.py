"""The ways of measuring: blocks of requests in interleaved rounds, the server's counters, threads."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from threading import Barrier
from time import perf_counter_ns
from typing import Any

import redis

from .contestants import Contestant
from .page import say
from .scenarios import VALUE, Scenario, bytes_of, data_of
from .wsgi import Environ, call, environ_for

# -- time ----------------------------------------------------------------------------------------------------------


@dataclass
class Lane:
    """One contestant in one scenario.

    :param rounds: the median call of each round, nanoseconds.
    :param bodies: what its requests of one round were answered; the same in every round, else `steady` is False.
    :param after: all of the session's data as a later request sees it.
    """

    contestant: Contestant
    scenario: Scenario
    cookie: str = ""
    rounds: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    after: bytes = b""
    steady: bool = True

    @property
    def microseconds(self) -> float:
        """Return the median of the rounds."""
        return median(self.rounds) / 1000

    def begin(self) -> None:
        """Store the session that the requests find."""
        if not self.scenario.visitor:
            self.cookie = self.contestant.begin(data_of(self.scenario.size))

    def run(self, calls: int, warm_up: int) -> None:
        """Run one round."""
        app = self.contestant.app.wsgi_app
        environs = [self.environ(number) for number in range(warm_up + calls)]
        times, replies = [], []
        for environ in environs:
            began = perf_counter_ns()
            reply = call(app, environ)
            times.append(perf_counter_ns() - began)
            replies.append(reply)
        self.rounds.append(median(times[warm_up:]))
        self._note([reply.status.encode() + reply.body for reply in replies])

    def environ(self, number: int) -> Environ:
        """Return the environ of one request; a visitor's session is stored for it first."""
        cookie = self.cookie
        if self.scenario.visitor:
            cookie = self.contestant.begin(data_of(self.scenario.size, "translation", "ui"))
        return {**environ_for(self.scenario.path, cookie), VALUE: f"theme-{number:03d}"}

    def _note(self, bodies: list[bytes]) -> None:
        if self.bodies and bodies != self.bodies:
            self.steady = False
        self.bodies = bodies

    def check(self) -> None:
        """Make one more request, and look what the next one finds: the change must have been stored."""
        environ = self.environ(7)
        reply = call(self.contestant.app.wsgi_app, environ)
        self.after = self.contestant.get("/read-all", reply.cookie or environ["HTTP_COOKIE"]).body

    def agrees_with(self, other: Lane) -> bool:
        """Return whether both did the same work: equal bodies in every round, and equal sessions afterwards."""
        same = (self.bodies, self.after) == (other.bodies, other.after)
        return same and self.steady and other.steady


def fits(contestant: Contestant, scenario: Scenario) -> bool:
    """Return whether the scenario's session can be kept by the contestant at all."""
    size = sum(bytes_of(scenario.size, name) for name in ("auth", "translation", "ui"))
    return contestant.limit is None or size <= contestant.limit


def run_rounds(lanes: Sequence[Lane], rounds: int, calls: int) -> None:
    """Run all lanes in every round, so that whatever else the machine does hits all of them alike."""
    for lane in lanes:
        lane.begin()
        lane.run(3, 0)  # connects, compiles, verifies
        lane.rounds.clear()
        lane.bodies.clear()
    with _no_collection():
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for lane in _rotated(lanes, number):
                lane.run(calls // 4 if lane.scenario.visitor else calls, warm_up=2)
    for lane in lanes:
        lane.check()


def _rotated(lanes: Sequence[Lane], number: int) -> list[Lane]:
    """Scenario by scenario; no contestant always runs behind the same neighbour's leftovers in the caches."""
    by_scenario: dict[str, list[Lane]] = {}
    for lane in lanes:
        by_scenario.setdefault(lane.scenario.name, []).append(lane)
    turned = []
    for group in by_scenario.values():
        first = number % len(group)
        turned += group[first:] + group[:first]
    return turned


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


# -- traffic -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """The cost of one request on the wire, by the server's own counters.

    :param commands: that the client sent; those within a script are not its own.
    """

    round_trips: float
    commands: float
    bytes_out: float
    bytes_in: float


def traffic(lane: Lane, admin: redis.Redis, calls: int = 20) -> Traffic:
    """Return the traffic of a request, from the counters before and after some requests."""
    environs = [lane.environ(number) for number in range(calls)]
    nothing = _counted(admin, lambda: None)
    total = _counted(admin, lambda: [call(lane.contestant.app.wsgi_app, environ) for environ in environs])
    spent = {name: (total[name] - nothing.get(name, 0)) / calls for name in total}
    sent = {name: round(value, 1) for name, value in spent.items() if name.startswith("cmdstat_") and value >= 0.05}
    scripts = {name: value for name, value in sent.items() if name.startswith("cmdstat_eval")}
    # A large request takes the server several reads, a large reply several writes; never both for one round trip.
    trips = min(spent["total_reads_processed"], spent["total_writes_processed"])
    commands = sum((scripts or sent).values())
    return Traffic(round(trips, 1), commands, spent["total_net_input_bytes"], spent["total_net_output_bytes"])


def _counted(admin: redis.Redis, action: Callable[[], object]) -> dict[str, float]:
    before = _counters(admin)
    action()
    return {name: value - before.get(name, 0) for name, value in _counters(admin).items()}


def _counters(admin: redis.Redis) -> Mapping[str, float]:
    stats: Any = admin.info("stats")
    commands: Any = admin.info("commandstats")
    counted = {name: value for name, value in stats.items() if name.startswith("total_")}
    return counted | {name: entry["calls"] for name, entry in commands.items()}


# -- lost updates --------------------------------------------------------------------------------------------------


def lost_updates(contestant: Contestant, requests: int) -> int:
    """Return how many of so many parallel requests, each setting another key of one session, left nothing behind."""
    cookie = contestant.begin(data_of("1 KB"))
    keys = [f"mark_{number:02d}" for number in range(requests)]
    contestant.meeting.barrier = Barrier(requests)
    with ThreadPoolExecutor(requests) as pool:
        list(pool.map(lambda key: contestant.get("/mark", cookie, key), keys))
    found = contestant.get("/read-all", cookie).body.decode()
    return sum(f'"{key}"' not in found for key in keys)
