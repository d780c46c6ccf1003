"""I31: no wall clock decides order or age on a host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.stores.host.entries import WIPED_FIELD, PendingWrite
from flask_langpont_session.stores.host.host_clock import HostClock, since_start, start_of_host
from flask_langpont_session.stores.host.journal import Journal, journal_at
from tests.support.journals import blind_write, ref

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
def machine(path: Path) -> Iterator[Machine]:
    journal = journal_at(path)
    journal.open()  # which makes the files beside it
    yield Machine(path)


@pytest.fixture
def journal(machine: Machine) -> Iterator[Journal]:
    journal = journal_at(machine.path, clock=machine.clock())
    yield journal
    journal.close()


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


# What the journal decides by it


def wipe() -> PendingWrite:
    return replace(blind_write("x"), operation=Operation.WIPE, field=WIPED_FIELD)


@pytest.mark.parametrize("step", STEPS)
def test_a_clear_takes_what_was_written_before_it(machine: Machine, journal: Journal, step: int) -> None:
    """D25: whatever becomes of the clock between the two."""
    journal.put([blind_write("a", b"1")])
    machine.passes(1)
    machine.wall += step
    journal.put([wipe()])
    assert journal.overlay(ref("d")).writes == {}
    assert journal.overlay(ref("d")).wiped == {"translation"}
    machine.wall -= step
    machine.passes(1)
    journal.put([blind_write("a", b"2")])
    assert journal.overlay(ref("d")).writes == {"translation": {"a": b"2"}}


@pytest.mark.parametrize("step", STEPS)
def test_a_shared_copy_has_the_age_that_it_has(machine: Machine, journal: Journal, step: int) -> None:
    copy = SharedCopy("d", "translation", CategoryCopy(5, {"a": b"1"}, began=5), age=20.0, kind="u")
    journal.board.publish_copies([copy])
    machine.wall += step
    machine.passes(10)
    [shared] = journal.board.shared_copies().values()
    assert shared.age == pytest.approx(30, abs=0.1)


def test_a_clock_that_jumps_undoes_a_clear(path: Path) -> None:
    """The ablation: with the wall clock in its place the tests above see what they are about."""
    now = [1_700_000_000.0]
    journal = journal_at(path, clock=lambda: now[0])
    journal.put([blind_write("a", b"1")])
    now[0] -= 10
    journal.put([wipe()])
    assert journal.overlay(ref("d")).writes == {"translation": {"a": b"1"}}
    journal.close()
