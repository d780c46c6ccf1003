"""The plan of faults, a function of the seed, and their causes."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.faults.proxy import HANG, REFUSE, RESET, STALL_REPLY, SWALLOW_REPLY, Fault, FaultProxy, delay, hold_request

from .actors import Crowd
from .browser import Browser
from .hosts import Stage, Worker

WAYS = (REFUSE, RESET, HANG, delay(0.3), STALL_REPLY, SWALLOW_REPLY, hold_request(0.5))
"""What happens between a worker and Redis. ``hang`` loses what is asked, ``swallow_reply`` what is answered."""

DATABASE_WAYS = (REFUSE, RESET, HANG)

LANES = ("redis", "server", "database", "worker")
"""The ways to Redis, its server, the ways to the database, the workers."""

LOSS = "loss"
"""One more way, which is not meant by default: Redis is emptied, or its replica takes its place without the last
second."""

LAG = 1.0
"""Seconds before a failover since which the replica was told nothing."""

COMPUTING = 6
"""Requests at once that keep a worker busy."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault.

    :param at: when it begins, in seconds since the first one may; `seconds`: how long it lasts.
    :param drawn: two numbers from 0 to 1, by which the workers are chosen that it meets.
    """

    at: float
    seconds: float
    kind: str
    drawn: tuple[float, float]


def plan(seed: int, seconds: float, *, replica: bool = False) -> dict[str, Sequence[Episode]]:
    """Return lane → its faults in their order. The lanes are independent of each other.

    :param replica: Redis has one.
    """
    losses = ["empty", "lag"] if replica else ["empty"]
    return {
        "redis": list(_lane(seed, "redis", seconds, [way.name for way in WAYS], (0.3, 1.5), (0.4, 2.5))),
        "server": list(_lane(seed, "server", seconds, ["freeze", "restart"], (4.0, 8.0), (0.4, 1.5))),
        "database": list(_lane(seed, "database", seconds, [w.name for w in DATABASE_WAYS], (3.0, 6.0), (0.4, 1.5))),
        "worker": list(_lane(seed, "worker", seconds, ["kill", "stop", "compute"], (1.5, 4.0), (0.3, 2.0))),
        LOSS: list(_lane(seed, LOSS, seconds, losses, (5.0, 12.0), (0.2, 1.0))),
    }


def _lane(
    seed: int, name: str, seconds: float, kinds: Sequence[str], pause: tuple[float, float], lasts: tuple[float, float]
) -> Iterator[Episode]:
    chance, at, left = random.Random(f"{seed}-{name}"), 0.0, list[str]()
    while True:
        at += chance.uniform(*pause)
        long = name == "redis" and chance.random() < 0.1
        length = chance.uniform(4.0, 5.0) if long else chance.uniform(*lasts)
        if at + length > seconds:
            return
        left = left or chance.sample(list(kinds), len(kinds))  # each kind comes before any comes again
        yield Episode(at, length, left.pop(), (chance.random(), chance.random()))
        at += length


@dataclass
class Play:
    """Carries out a plan.

    :param crowd: hears which workers are down.
    """

    stage: Stage
    crowd: Crowd
    workers: Sequence[Worker]
    #: "lane kind" → how often it was in force and, of those on the network, met anything.
    bites: Counter[str] = field(default_factory=Counter)
    diary: list[str] = field(default_factory=list)
    _server_is_busy: threading.Lock = field(default_factory=threading.Lock)

    def run(self, plan: dict[str, Sequence[Episode]]) -> None:
        """Return when all faults are over, and everything runs again."""
        began = time.monotonic()
        lanes: dict[str, Callable[[Episode], bool]] = {
            "redis": self._redis,
            "server": self._server,
            "database": self._database,
            "worker": self._worker,
            LOSS: self._loss,
        }
        with ThreadPoolExecutor(len(lanes)) as pool:
            playing = [pool.submit(self._play, began, lanes[name], plan[name], name) for name in plan]
            for each in playing:
                each.result()

    def _play(self, began: float, lane: Callable[[Episode], bool], episodes: Sequence[Episode], name: str) -> None:
        for episode in episodes:
            _last(began + episode.at - time.monotonic())
            start = time.monotonic() - began
            self.bites[f"{name} {episode.kind}"] += lane(episode)
            self.diary.append(f"{start:6.2f}–{time.monotonic() - began:6.2f} {name} {episode.kind}")

    # -- the ways ----------------------------------------------------------------------------------------------------

    def _met(self, episode: Episode) -> Sequence[Worker]:
        """Return the workers that the fault meets: all, those of one host, or one."""
        how_many, which = episode.drawn
        one = self.workers[int(which * len(self.workers))]
        if how_many < 0.45:
            return self.workers
        if how_many < 0.6:
            return [worker for worker in self.workers if worker.journal == one.journal]
        return [one]

    def _redis(self, episode: Episode) -> bool:
        fault = next(way for way in WAYS if way.name == episode.kind)
        return self._fail([worker.redis for worker in self._met(episode)], fault, episode.seconds)

    def _database(self, episode: Episode) -> bool:
        fault = next(way for way in DATABASE_WAYS if way.name == episode.kind)
        return self._fail([worker.database for worker in self._met(episode)], fault, episode.seconds)

    @staticmethod
    def _fail(proxies: Sequence[FaultProxy], fault: Fault, seconds: float) -> bool:
        """Impose a fault for some seconds. Return whether it met anything."""
        before = [proxy.hits[fault.name] for proxy in proxies]
        try:
            for proxy in proxies:
                proxy.impose(fault)
            _last(seconds)
        finally:
            for proxy in proxies:
                proxy.heal()
        return [proxy.hits[fault.name] for proxy in proxies] != before

    # -- processes ---------------------------------------------------------------------------------------------------

    def _server(self, episode: Episode) -> bool:
        with self._server_is_busy:
            redis = self.stage.redis
            if episode.kind == "freeze":
                redis.freeze()
                _last(episode.seconds)
                redis.thaw()
            else:
                redis.kill()
                _last(episode.seconds)
                redis.start()
        return True

    def _loss(self, episode: Episode) -> bool:
        with self._server_is_busy:
            if episode.kind == "lag":
                self.stage.cut_replication()
                _last(LAG)
                self.stage.fail_over(self.workers)
            else:
                with self.stage.redis.client() as client:
                    client.flushall()
        _last(episode.seconds)
        return True

    def _worker(self, episode: Episode) -> bool:
        worker = self.workers[int(episode.drawn[1] * len(self.workers))]
        getattr(self, f"_{episode.kind}")(worker, episode.seconds)
        return True

    def _kill(self, worker: Worker, seconds: float) -> None:
        self.crowd.down.add(worker)
        if not worker.running:
            self.crowd.errors.append(f"{worker.name} had ended by itself: {worker.log.read_text()[-500:]}")
        worker.kill()
        _last(seconds / 2)
        worker.start()
        self.crowd.down.discard(worker)

    @staticmethod
    def _stop(worker: Worker, seconds: float) -> None:
        worker.freeze()
        _last(seconds)
        worker.thaw()

    @staticmethod
    def _compute(worker: Worker, seconds: float) -> None:
        until = time.monotonic() + seconds

        def compute() -> None:
            while time.monotonic() < until:
                Browser(worker.url).send("/compute", seconds="0.1")

        threads = [threading.Thread(target=compute) for _ in range(COMPUTING)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _last(seconds: float) -> None:
    """Wait. How long a fault lasts, and when the next one begins, is drawn from the seed: there is no condition to wait
    for."""
    time.sleep(max(0.0, seconds))
