"""One process of a host publishes for all: what the others leave is added up without loss, and goes out once."""

from __future__ import annotations

from pathlib import Path

from flask_langpont_session.metrics.recorder import Reader, Recorder, Standing
from flask_langpont_session.ops.exporters import catalogue
from flask_langpont_session.ops.exporters.figures import Figure, Figures, decode, encode, figures, together
from flask_langpont_session.ops.exporters.publisher import Publisher
from flask_langpont_session.support.host import HostWork

OPERATIONS, HEARTBEAT = Figure(catalogue.OPERATIONS.name), Figure(catalogue.HEARTBEAT.name)
LATENCY = Figure(catalogue.OPERATION_LATENCY.name, "Operation", "read")


class Worker:
    """One process, as far as this is concerned.

    :ivar published: what it has published, one after the other.
    """

    def __init__(self, folder: Path | None) -> None:
        self.recorder = Recorder()
        self.host = HostWork(folder, "metrics", 180)
        self.published: list[Figures] = []
        self.ends = False
        reader = Reader(self.recorder, lambda: 0)
        self.publisher = Publisher(
            lambda: figures(reader.take()), self.host, [self.published.append], lambda: self.ends
        )

    def work(self, *milliseconds: int) -> None:
        """Ask Redis so many times, and let an interval pass."""
        for duration in milliseconds:
            self.recorder.observe("load", "all", "primary", "ok", duration / 1000)
        self.publisher.publish()


def test_figures_of_processes_are_as_if_each_had_published_its_own(tmp_path: Path) -> None:
    """Values and how often each was there: so every statistic stays what it was."""
    first, second, third = (Worker(tmp_path / "work") for _ in range(3))
    first.work()
    second.work(1, 2)
    third.work(2, 2, 9)
    first.work(1)
    assert second.published == third.published == []
    [_, found] = first.published
    assert found[HEARTBEAT] == {1: 3}
    assert found[OPERATIONS] == {1: 1, 2: 1, 3: 1}
    assert found[LATENCY] == {1: 2, 2: 3, 9: 1}
    first.work()
    assert first.published[-1][HEARTBEAT] == {1: 1}


def test_what_cannot_be_left_is_published_by_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    workers = [Worker(tmp_path / "work"), Worker(None)]
    for worker in workers:
        worker.work(1)
        worker.work(2)
        assert [found[LATENCY] for found in worker.published] == [{1: 1}, {2: 1}]


def test_the_last_figures_of_processes_that_end_together_are_published(tmp_path: Path) -> None:
    """The one that leads ends first, and hands on."""
    first, second = Worker(tmp_path / "work"), Worker(tmp_path / "work")
    first.work()
    second.work(1)
    first.ends = second.ends = True
    first.work()
    assert first.published[-1][LATENCY] == {1: 1}
    second.work(2)
    assert [found[LATENCY] for found in second.published] == [{2: 1}]
    assert Worker(tmp_path / "work").host.lead()


def test_figures_survive_the_way_to_another_process() -> None:
    """Figures that this release does not know are left out; what cannot be read is nothing."""
    recorder = Recorder()
    recorder.observe("load", "all", "primary", "unreachable", 0.5)
    recorder.count("sessions_created", 7)
    found = figures(Reader(recorder, lambda: 2, lambda: Standing(active=3)).take())
    assert decode(encode(found)) == found
    assert decode(encode({**found, Figure("Newer"): {1: 1}})) == found
    assert decode(b"nonsense") == decode(b"[[7]]") == {}
    assert together([found, {}]) == found
