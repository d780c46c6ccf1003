"""The checker of appended lists finds nothing where nothing fails."""

from __future__ import annotations

from pathlib import Path

from devservers.processes import wait_until
from tests.support.site.actors import Crowd
from tests.support.site.faults import Episode, Play, plan
from tests.support.site.run import run, running


def test_where_nothing_fails_nothing_is_found(tmp_path: Path) -> None:
    """The checker does not cry wolf."""
    found = run(tmp_path, seconds=2.0, seed=1, lanes=())
    assert not found.wrong, found.table()
    assert found.levels.keys() == {0} and found.acknowledged["append"] > 0


def test_redis_is_emptied_and_its_lagging_replica_takes_its_place(tmp_path: Path) -> None:
    """Both happen, all workers are led to the other server, and come home."""
    with running(tmp_path, hosts=2, workers=1, replica=True) as (stage, hosts):
        workers = [worker for host in hosts for worker in host.workers]
        before, browser = stage.redis, hosts[0].browser()
        assert browser.send("/append", entry="1").json["list"] == [1]
        stage.cut_replication()
        assert browser.send("/append", entry="2").json["list"] == [1, 2]
        play = Play(stage, Crowd(hosts, seed=1), workers)
        play.run({"loss": [Episode(0.0, 0.0, "lag", (0.0, 0.0)), Episode(0.0, 0.0, "empty", (0.0, 0.0))]})
        assert play.bites == {"loss lag": 1, "loss empty": 1}
        assert (stage.replica, stage.redis.replica_of) == (before, None)
        wait_until(lambda: all(worker.is_well() for worker in workers), "all well")
        assert browser.get("/look").ok


def test_losses_leave_the_other_faults_of_a_seed_as_they_are() -> None:
    """A run with a replica repeats one without."""
    with_replica, without = plan(1, 60.0, replica=True), plan(1, 60.0)
    assert {episode.kind for episode in with_replica.pop("loss")} == {"empty", "lag"}
    assert {episode.kind for episode in without.pop("loss")} == {"empty"}
    assert with_replica == without
