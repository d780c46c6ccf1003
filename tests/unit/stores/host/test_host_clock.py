"""I31: no wall clock decides order or age on a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from flask_langpont_session.stores.host.host_clock import HostClock, since_start, start_of_host
from flask_langpont_session.stores.host.journal import journal_at

STEPS = [sign * seconds for seconds in (10, 3_600, 86_400) for sign in (1, -1)]
"""Seconds by which a clock is set."""

pytestmark = pytest.mark.usefixtures("patient_journal")


@dataclass
class Machine:
    """One host: its clocks, which pass together but for what the wall clock is set by."""

    path: Path
    wall: float = 1_700_000_000.0
    since: float = 1000.0
    start: bytes = b"one"

    def clock(self) -> HostClock:
        """Return that of a process."""
        return HostClock(self.path, lambda: self.wall, lambda: self.since, self.start)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.since += seconds

    def restart(self) -> None:
        self.start, self.since = self.start + b"'", 10.0


@pytest.fixture
def machine(path: Path) -> Machine:
    journal_at(path).open()  # which makes the files beside it
    return Machine(path)


@pytest.mark.parametrize("step", STEPS)
def test_it_goes_on_when_the_wall_clock_is_set(machine: Machine, step: int) -> None:
    """The clock goes on by the time that has passed; in a process that starts later as well."""
    one = machine.clock()
    began = one()
    machine.passes(30)
    machine.wall += step
    assert [round(clock() - began, 3) for clock in (one, machine.clock())] == [30, 30]


@pytest.mark.parametrize("step", STEPS)
def test_an_earlier_start_is_older(machine: Machine, step: int) -> None:
    """Across starts the wall clock counts, but never so that something became older than what came before it."""
    one = machine.clock()
    one()
    machine.passes(0.9)
    last = one()
    machine.restart()
    machine.wall += step
    now = machine.clock()()
    assert now > last
    assert (now - last == pytest.approx(step, abs=2)) == (step > 0)


def test_a_process_that_looked_at_the_time_before_it_waited_for_the_file_takes_nothing_back(machine: Machine) -> None:
    """Another one may have noted a later time meanwhile."""
    machine.passes(60)
    last = machine.clock()()
    machine.passes(-30)  # when that process looked
    machine.clock()()
    machine.restart()
    machine.wall -= 3_600
    assert machine.clock()() > last


def test_what_cannot_be_shared_is_told_by_each_process_for_itself(path: Path) -> None:
    """A clock without its file does not jump either, and no command makes the file where workers have made none."""
    machine = Machine(path)
    one = machine.clock()
    began = one()
    machine.passes(5)
    machine.wall -= 3_600
    assert one() - began == pytest.approx(5)
    assert list(path.parent.iterdir()) == []


def test_the_system_names_its_start_and_says_how_long_it_was(tmp_path: Path) -> None:
    assert len(start_of_host()) in (0, 16)
    assert 0 < since_start() <= since_start()


def test_it_is_shown_as_the_wall_clock_has_it(machine: Machine) -> None:
    """The clock shows the time of the wall clock, which an operator compares with a watch."""
    clock = machine.clock()
    at_ms = int(clock() * 1000)
    machine.passes(7)
    machine.wall += 3_600
    assert machine.wall * 1000 - clock.shown(at_ms) == pytest.approx(7_000, abs=2)
