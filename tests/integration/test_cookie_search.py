"""Nothing that overlapping requests of one browser can do breaks a rule of the cookies: all schedules are tried.

Two requests are tried completely. Of three the complete search takes about twenty minutes and runs when asked for
(COOKIE_SEARCH=complete); else a part of it, the same every time.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

import pytest

from devservers.servers import Valkey

from .conftest import MakeApp, parts
from .cookie_search import (
    BEGIN,
    BEGINNINGS,
    CONFIG,
    FINISH,
    PROPERTIES,
    RECEIVE,
    SEARCHED,
    SEND,
    Case,
    Execution,
    Violation,
    World,
    cases,
    schedules,
    search,
)

TWO = tuple(itertools.combinations_with_replacement(SEARCHED, 2))

THREE = tuple(
    itertools.combinations_with_replacement(
        ("write", "slow write", "form", "sign in", "sign in another", "sign out", "regenerate"), 3
    )
)

PART = 211
"""One of so many cases of three requests is tried. A prime, so that it meets every schedule and every group."""

WORKERS = 2


@pytest.fixture(scope="module")
def tried() -> dict[str, list[Violation]]:
    """What the searches of this module found: each runs once, and each of the properties is a test of its own."""
    return {}


class Search:
    """Runs a search, unless that was done."""

    def __init__(self, tried: dict[str, list[Violation]], make_app: MakeApp, primary: Valkey) -> None:
        self._tried = tried
        self._make_app = make_app
        self._primary = primary

    def __call__(self, name: str, wanted: Iterable[Case]) -> list[Violation]:
        if name not in self._tried:
            self._tried[name] = self._search(wanted)
        return self._tried[name]

    def _search(self, wanted: Iterable[Case]) -> list[Violation]:
        workers = [self._make_app(**CONFIG) for _ in range(WORKERS)]
        with self._primary.client() as redis:
            found = list(search(World(workers, redis), wanted))
        assert [parts(app).health.level for app in workers] == [0] * WORKERS
        return found


@pytest.fixture
def found(tried: dict[str, list[Violation]], make_app: MakeApp, primary: Valkey) -> Search:
    return Search(tried, make_app, primary)


def complaint(violations: list[Violation]) -> str:
    """The first schedules that break something, in words."""
    return "\n".join([f"{len(violations)} times", *map(str, violations[:5])])


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("name", PROPERTIES)
def test_two_overlapping_requests(found: Search, beginning: str, name: str) -> None:
    """Every pair of kinds, in every order of sending, beginning, finishing and answering."""
    broken = [violation for violation in found(beginning, cases([beginning], TWO)) if violation.property == name]
    assert not broken, complaint(broken)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", PROPERTIES)
def test_three_overlapping_requests(found: Search, name: str) -> None:
    """The kinds that can get into each other's way, three at a time."""
    step = 1 if os.environ.get("COOKIE_SEARCH") == "complete" else PART
    wanted = itertools.islice(cases(BEGINNINGS, THREE), 0, None, step)
    broken = [violation for violation in found("three", wanted) if violation.property == name]
    assert not broken, complaint(broken)


def test_no_schedule_of_two_requests_is_left_out() -> None:
    """Every order of their eight moments in which they overlap is one of those that are tried."""
    steps = (SEND, BEGIN, FINISH, RECEIVE)
    every = set()
    for turns in set(itertools.permutations([0, 1] * 4)):
        moments = [(steps[turns[:at].count(number)], number) for at, number in enumerate(turns)]
        answered = {n: moments.index((RECEIVE, n)) for n in (0, 1)}
        sent = {n: moments.index((SEND, n)) for n in (0, 1)}
        if answered[0] < sent[1] or answered[1] < sent[0]:
            continue
        served = tuple(moment for moment in moments if moment[0] in (BEGIN, FINISH))
        every.add((Execution(served, ((), ())), tuple(sorted(answered, key=answered.__getitem__))))
    tried = {(execution, order) for execution, arrivals in schedules(2).items() for order in arrivals}
    assert tried == every
    assert len(tried) == 12


def test_the_part_of_three_requests_meets_everything() -> None:
    """Every beginning, every kind and every way to overlap is in the part of the search that always runs."""
    part = list(itertools.islice(cases(BEGINNINGS, THREE), 0, None, PART))
    assert {case.beginning for case in part} == set(BEGINNINGS)
    assert {case.names for case in part} == set(THREE)
    assert {case.execution for case in part} == set(schedules(3))
