"""Gunicorn with two workers under load; the primary is killed and comes back from its own AOF."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lab.servers import Lab

from .visitor import Visitor

WORKERS = 2
VISITORS = 6


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(workers=WORKERS) as running:
        yield running


@dataclass
class Load:
    """Visitors who read and write without a pause, and what they saw."""

    statuses: dict[int, int] = field(default_factory=dict)
    logouts: int = 0
    set_cookies: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)
    slowest: float = 0.0
    errors: list[BaseException] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, visitor: Visitor) -> None:
        try:
            number = 0
            while not self._stop.is_set():
                number += 1
                self._read(visitor)
                if number % 10 == 0:
                    self._write(visitor, number)
        except BaseException as error:
            self.errors.append(error)
        finally:
            visitor.close()

    def _read(self, visitor: Visitor) -> None:
        began = time.monotonic()
        answer = visitor.get("/whoami")
        took = time.monotonic() - began
        with self._lock:
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            self.set_cookies += len(answer.set_cookies)
            self.slowest = max(self.slowest, took)
            if answer.status == 200:
                self.logouts += answer.json["user"] is None
                self.seen.add((answer.json["pid"], answer.json["level"]))

    def _write(self, visitor: Visitor, number: int) -> None:
        answer = visitor.post("/language", lang="en" if number % 20 else "jp")
        with self._lock:
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, f"not seen: {what}; seen: {sorted(self.seen)}"
            time.sleep(0.02)

    def sees(self, level: int) -> None:
        """Wait until every worker answered at this level, from now on."""
        with self._lock:
            self.seen.clear()
        self.until(lambda: len({pid for pid, at in set(self.seen) if at == level}) == WORKERS, f"level {level}")

    def stop(self) -> None:
        self._stop.set()


def test_a_killed_primary_costs_no_error_and_no_login(lab: Lab) -> None:
    """SIGKILL, level 1 and 2 on every worker, restart from the AOF, level 0 on every worker: 0 5xx, 0 logouts."""
    visitors = [Visitor(lab.web.url) for _ in range(VISITORS)]
    for visitor in visitors:
        visitor.sign_in()
        visitor.post("/translate", source_lang="ja", target_lang="en", input_text="ありがとう")
    load = Load()
    threads = [threading.Thread(target=load.run, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        first_pid = lab.primary.pid
        load.sees(0)
        lab.primary.kill()
        load.sees(1)
        lab.replica.kill()
        load.sees(2)
        lab.primary.start()
        load.sees(0)
        lab.replica.start()
    finally:
        load.stop()
        for thread in threads:
            thread.join()
    assert not load.errors, load.errors
    assert lab.primary.pid != first_pid
    with lab.primary.client() as redis:
        assert redis.info("persistence")["aof_enabled"] == 1
        assert redis.info("stats")["total_commands_processed"] > 0
    assert set(load.statuses) <= {200, 303}, load.statuses
    assert load.logouts == 0
    assert load.set_cookies == 0
    for visitor in visitors:
        assert visitor.whoami()["user"] == "hanako"
        assert visitor.whoami()["history_length"] == 1
        visitor.close()
