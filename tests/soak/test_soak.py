"""Users and visitors over two hosts while everything fails: nothing acknowledged is destroyed, or lost unsaid.

``LANGPONT_SOAK_SECONDS`` is how long (20), ``LANGPONT_SOAK_SEED`` what is drawn, which is the same in each run without
it; ``make soak`` takes ten minutes and a seed of the moment. benchmarks/results/data-in-outages.md has figures.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from devservers.processes import wait_until
from tests.support.site.actors import Crowd
from tests.support.site.faults import Episode, Play, plan
from tests.support.site.run import HEALING, run, running

SECONDS = float(os.environ.get("LANGPONT_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("LANGPONT_SOAK_SEED", "1"))


@pytest.mark.timeout(SECONDS * 2 + HEALING + 240)
def test_no_promise_is_broken_by_any_mixture_of_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """I1–I6, I9, I13–I20: as ``python -m benchmarks.appends`` does it."""
    diary: list[str] = []
    found = run(tmp_path, seconds=SECONDS, seed=SEED, say=diary.append)
    with capsys.disabled():
        sys.stdout.write(f"\nsoak: {SECONDS:g} s, LANGPONT_SOAK_SEED={SEED}\n{found.table()}\n")
    assert not found.wrong, "\n".join([found.table(), *diary])
    assert found.acknowledged["append"] > SECONDS, "hardly anything was acknowledged: that proves nothing"
    assert {0, 2} <= found.levels.keys()
    lanes = {name.split()[0] for name, number in found.faults.items() if number}
    assert lanes >= {"redis", "server", "database", "worker"}, found.faults


def test_where_nothing_fails_nothing_is_found(tmp_path: Path) -> None:
    """The checker does not cry wolf."""
    found = run(tmp_path, seconds=2.0, seed=1, lanes=())
    assert not found.wrong, found.table()
    assert found.levels.keys() == {0} and found.acknowledged["append"] > 0


def test_redis_is_emptied_and_its_lagging_replica_takes_its_place(tmp_path: Path) -> None:
    """Both happen, all workers are led to the other server, and come home. I1, I4: of what the other server has missed
    no role and no sign-out is undone."""
    with running(tmp_path, hosts=2, workers=1, replica=True) as (stage, hosts):
        workers = [worker for host in hosts for worker in host.workers]
        before, browser, user, leaver = stage.redis, *(hosts[0].browser() for _ in range(3))
        assert browser.send("/append", entry="1").json["list"] == [1]
        assert user.send("/sign-in", user="ann").ok and leaver.send("/sign-in", user="bob").ok
        left = leaver.twin()
        stage.cut_replication()
        assert browser.send("/append", entry="2").json["list"] == [1, 2]
        assert user.send("/role", role="role-1").ok and leaver.send("/sign-out").ok
        play = Play(stage, Crowd(hosts, seed=1), workers)
        play.run({"loss": [Episode(0.0, 0.0, "lag", (0.0, 0.0)), Episode(0.0, 0.0, "empty", (0.0, 0.0))]})
        assert play.bites == {"loss lag": 1, "loss empty": 1}
        assert (stage.replica, stage.redis.replica_of) == (before, None)
        wait_until(lambda: all(worker.is_well() for worker in workers), "all well")
        assert browser.get("/look").ok
        for worker in workers:
            assert user.at(worker.url).get("/look").json["role"] == "role-1"
            assert left.twin(worker.url).get("/look").json["user"] is None


def test_losses_leave_the_other_faults_of_a_seed_as_they_are() -> None:
    """A run with a replica repeats one without."""
    with_replica, without = plan(1, 60.0, replica=True), plan(1, 60.0)
    assert {episode.kind for episode in with_replica.pop("loss")} == {"empty", "lag"}
    assert {episode.kind for episode in without.pop("loss")} == {"empty"}
    assert with_replica == without
