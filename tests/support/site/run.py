"""One run: hosts, a crowd and faults; then all is healed, and the verdict."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from devservers.processes import wait_until
from tests.faults.proxy import REFUSE

from .actors import Crowd
from .faults import LANES, LOSS, Play, plan
from .findings import explained
from .hosts import LONG, Host, Stage, Worker, staged
from .verdict import Verdict, count_undone, look_in_a_last_outage, verdict

VERIFY_INTERVAL = 1

SETTINGS: dict[str, Any] = {"HEALTH_INTERVAL": 0.5, "VERIFY_INTERVAL": VERIFY_INTERVAL, "GRACE": 3}
"""Of all workers; what is not named has its default."""

PATIENT: dict[str, Any] = {
    "REDIS_TIMEOUT": 3.0,
    "DATABASE_TIMEOUT": 3.0,
    "REQUEST_BUDGET": 6.0,
}
"""Where nothing shall fail: a busy machine that lets a store wait is no fault."""

SMALL = {"MEMORY_BYTES": 100_000}
"""Of the first worker of each host: it serves more sessions than it keeps copies of."""

AGING: dict[str, Any] = {"LOCAL_CACHE_TTL": 3}
"""The second host's, unless Redis loses data: an outage of three seconds is one of level 3 there. What is older than
that is not given back to an emptied Redis either."""

HEALING = 120.0
"""Seconds from the end of all faults within which every worker must be well and every journal empty."""


@contextmanager
def running(
    folder: Path, hosts: int, workers: int, *, patient: bool = False, replica: bool = False, losses: bool = False
) -> Iterator[tuple[Stage, list[Host]]]:
    """Start the stores and the hosts, all well.

    :param losses: Redis will lose data.
    """
    with staged(folder, replica=replica) as stage, ExitStack() as ends:
        made = []
        for number in range(hosts):
            settings = SETTINGS | (AGING if number == 1 and not losses else {}) | (PATIENT if patient else {})
            made.append(ends.enter_context(stage.host("abcdefgh"[number], workers, each=[SMALL], **settings)))
        yield stage, made


def run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    hosts: int = 2,
    workers: int = 2,
    lanes: Collection[str] = LANES,
    replica: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Verdict:
    """Return the verdict after so many seconds of random faults.

    :param lanes: what may fail; nothing: the stores have time, and nothing may be lost.
    :param replica: Redis has one.
    :param say: is told what goes on.
    """
    with running(folder, hosts, workers, patient=not lanes, replica=replica, losses=LOSS in lanes) as (stage, made):
        every_worker = [worker for host in made for worker in host.workers]
        with Crowd(made, seed, VERIFY_INTERVAL) as crowd:
            play = Play(stage, crowd, every_worker)
            began = time.monotonic()
            play.run(
                {lane: episodes for lane, episodes in plan(seed, seconds, replica=replica).items() if lane in lanes}
            )
            time.sleep(max(0.0, began + seconds - time.monotonic()))  # the load goes on for as long as was asked
        healed = _heal(stage, every_worker)
        say("\n".join(sorted(play.diary)))
        if healed is None:
            waiting = [(worker.name, worker.level, worker.waiting) for worker in every_worker]
            crowd.errors.append(f"not healed within {HEALING:g} s: {waiting}")
        say(f"healed after {healed} s; answers: {dict(crowd.answers)}")
        time.sleep(1.5 * VERIFY_INTERVAL)  # no lease from before is left: what is shown then is what is stored
        made_verdict = verdict(crowd, every_worker, play.bites)
        showing = _last_outage(crowd, every_worker, made_verdict.wrong)
        if showing:
            made_verdict.wrong.append(f"{showing} times an ended id showed data in the next outage")
        if more := count_undone(made_verdict, crowd, every_worker):
            made_verdict.wrong.append(f"{more} clears were undone in the next outage")
        made_verdict.wrong += _broken_by_logs(every_worker, crowd.secrets)
        for way in [way for worker in every_worker for way in worker.ways_to_redis]:
            way.heal()  # what is wrong is looked up there
        for actor in crowd.actors:
            for finding in (*actor.wrong, *actor.notes):
                say(f"-- {actor.name} --")
                say("\n".join(explained(finding, actor, every_worker, crowd.began)))
        return made_verdict


def _broken_by_logs(workers: Sequence[Worker], secrets: Collection[str]) -> Iterator[str]:
    """Yield what must not stand in a worker's log: session ids, values, errors that nothing expects."""
    for worker in workers:
        log = worker.log.read_text(errors="replace")
        if any(secret in log for secret in secrets) or re.search(r"text of \S+:\d+", log):
            yield f"I14: a session id or a value stands in the log of {worker.name}"
        if trace := re.search(r"Traceback|met an error it does not know", log):
            yield f"an unexpected error in the log: {log[max(0, trace.start() - 500) : trace.end() + 3000]}"


def _heal(stage: Stage, workers: Sequence[Worker]) -> float | None:
    """Have everything run. Return the seconds until all is well; None: not in time."""
    began = time.monotonic()
    stage.redis.start()
    if stage.replica is not None:
        stage.replica.start()
    for worker in workers:
        worker.redis.heal()
        worker.database.heal()
        worker.start()
    try:
        wait_until(lambda: all(worker.is_well() for worker in workers), "all well", HEALING, pause=0.05)
    except TimeoutError:
        return None
    return round(time.monotonic() - began, 2)


def _last_outage(crowd: Crowd, workers: Sequence[Worker], wrong: list[str]) -> int:
    """Take Redis away once more. Return how many ended sessions show data then, and note cleared values that come back.

    :param wrong: is told which workers do not notice that.
    """
    for worker in workers:
        for way in worker.ways_to_redis:
            way.impose(REFUSE)
    try:
        wait_until(lambda: all(worker.level >= 2 for worker in workers), "an outage", LONG, pause=0.02)
    except TimeoutError:
        wrong += [f"{each.name} notices no outage: {each.state()['status']}" for each in workers if each.level < 2]
    return look_in_a_last_outage(crowd, [worker for worker in workers if worker.level >= 2])
