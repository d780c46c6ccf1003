"""People on all shards of a cluster: what happens to those of one shard, and what does not happen to the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from redis.crc import key_slot

from devservers.processes import wait_until
from tests.integration.behind import browser, sign_in, waiting
from tests.integration.conftest import parts

from .cluster_lab import SHARDS, Cluster


class Crowd:
    """Signed-in browsers, some on each shard, and what happened to them."""

    def __init__(self, app: Flask, cluster: Cluster, each: int = 2) -> None:
        self.app = app
        self.cluster = cluster
        self.of: dict[int, list[Any]] = {shard: [] for shard in range(SHARDS)}
        self.count = 0
        while any(len(there) < each for there in self.of.values()):
            one = sign_in(app, str(self.count), lang="jp", input_text="first")
            shard = cluster.home(key_slot(one.digest.encode()))
            self.count += 1
            if len(self.of[shard]) < each:
                one.user = str(self.count - 1)
                self.of[shard].append(one)

    @classmethod
    def of_others(cls, crowd: Crowd, app: Flask) -> Crowd:
        """The same people before another host."""
        there = cls(app, crowd.cluster, each=0)
        for shard, people in crowd.of.items():
            for one in people:
                other = browser(app, one.cookie)
                other.user = one.user
                there.of[shard].append(other)
        return there

    def look(self, shard: int) -> list[Any]:
        """Return the level and the text that each visitor of a shard gets, and check the user."""
        seen = []
        for one in self.of[shard]:
            who, text = one.get("/who"), one.get("/get/input_text")
            assert (who.status_code, text.status_code, who.json["user"]) == (200, 200, one.user)
            seen.append((who.json["level"], text.json["value"]))
        return seen

    def levels(self, shard: int) -> set[int]:
        """Return the levels that the visitors of a shard are at."""
        return {level for level, _ in self.look(shard)}

    def is_well(self) -> bool:
        """Return whether all users are at level 0 and nothing waits."""
        return all(self.levels(shard) == {0} for shard in range(SHARDS)) and not waiting(self.app)


@contextmanager
def at_work(crowd: Crowd) -> Iterator[dict[int, set[Any]]]:
    """All users read and write all the time, each in a thread. Yields shard → what was seen: :data:`FINE`, levels."""
    seen: dict[int, set[Any]] = {shard: set() for shard in range(SHARDS)}
    over = threading.Event()

    def work(shard: int, one: Any) -> None:
        mine, number = browser(crowd.app, one.cookie), 0
        while not over.wait(0.05):  # the others want to do something too
            number += 1
            written = mine.post("/set", json={"theme": f"{number}"})
            answer = mine.get("/who")
            seen[shard].add((written.status_code, answer.status_code, answer.json["user"] == one.user))
            seen[shard].add(answer.json["level"])

    everybody = [(shard, one) for shard, there in crowd.of.items() for one in there]
    threads = [threading.Thread(target=work, args=pair) for pair in everybody]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


FINE = (200, 200, True)
"""Both answers are no errors, and the user is the same."""


def shard_of(app: Flask, digest: str) -> str:
    """Return the shard on which the application takes a session to be."""
    return parts(app).health.locate(digest)


def identities(app: Flask) -> dict[str, str | None]:
    return {name: store.server_identity.identity for name, store in parts(app).backend.primary.endpoints.items()}


def counted(app: Flask, name: str) -> int:
    return parts(app).recorder.counters().get(name, 0)


def given_up(app: Flask, store: str) -> int:
    """Return how many calls of this worker's requests to a store got no answer."""
    series = parts(app).recorder.series().items()
    return sum(s.count for seen, s in series if (seen.source, seen.outcome) == (store, "unreachable"))


def has_canary(app: Flask, cluster: Cluster, shard: int) -> bool:
    """Return whether a shard has its canary."""
    for store in parts(app).backend.primary.endpoints:
        parts(app).monitor.suspect(store)
    return any(key.count(":") == 2 for key in cluster.keys("session:canary:{*}")[shard])


def wait_until_well(crowd: Crowd) -> None:
    wait_until(crowd.is_well, "level 0 for all users", pause=0.05)


def who(visitor: Any) -> Any:
    """The user of a browser, and the level."""
    return visitor.get("/who").json


def healthz(app: Flask) -> Any:
    return app.test_client().get("/healthz").json
