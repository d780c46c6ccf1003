"""Nothing that overlapping requests of one browser can do breaks a rule of the cookies: schedule by schedule is tried.

The complete search, of two requests and of three, takes about twenty minutes and runs when asked for
(COOKIE_SEARCH=complete); else a part of it, the same every time.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

import pytest
from flask import Flask

from devservers.servers import Valkey

from .conftest import MakeApp, parts
from .cookie_search import (
    BEGIN,
    BEGINNINGS,
    CONFIG,
    FINISH,
    RECEIVE,
    SEARCHED,
    SEND,
    Case,
    Execution,
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

PART = 499
"""One of so many cases of three requests is tried. A prime, so that it meets every schedule and every group."""

PART_OF_TWO = 5
"""One of so many cases of two requests is tried, which meets every pair from every beginning."""

WORKERS = 2


def is_complete() -> bool:
    """Return whether every schedule is wanted."""
    return os.environ.get("COOKIE_SEARCH") == "complete"


@pytest.fixture
def workers(make_app: MakeApp) -> list[Flask]:
    return [make_app(**CONFIG) for _ in range(WORKERS)]


def nothing_is_broken(workers: list[Flask], primary: Valkey, wanted: Iterable[Case]) -> None:
    """Try the schedules, and show the first ones that break something."""
    with primary.client() as redis:
        found = list(search(World(workers, redis), wanted))
    assert [parts(app).health.level for app in workers] == [0] * WORKERS
    assert not found, "\n".join([f"{len(found)} times", *map(str, found[:5])])


def part_of_two(beginning: str) -> Iterable[Case]:
    """Return schedules of two requests: another part of them for each beginning."""
    first = list(BEGINNINGS).index(beginning)
    return itertools.islice(cases([beginning], TWO), first, None, PART_OF_TWO)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_two_overlapping_requests(workers: list[Flask], primary: Valkey, beginning: str) -> None:
    """C1 to C4, I5 to I8 and I15: every pair of kinds, in many orders of sending, serving and answering."""
    nothing_is_broken(workers, primary, cases([beginning], TWO) if is_complete() else part_of_two(beginning))


@pytest.mark.timeout(7200)
def test_three_overlapping_requests(workers: list[Flask], primary: Valkey) -> None:
    """The kinds that can get into each other's way, three at a time."""
    wanted = itertools.islice(cases(BEGINNINGS, THREE), 0, None, 1 if is_complete() else PART)
    nothing_is_broken(workers, primary, wanted)


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


def test_the_parts_that_are_tried_meet_everything() -> None:
    """Every beginning, every kind and every way to overlap is in the parts of the search that always run."""
    for beginning in BEGINNINGS:
        part = list(part_of_two(beginning))
        assert {case.names for case in part} == set(TWO)
        assert {case.execution for case in part} == set(schedules(2))
    part = list(itertools.islice(cases(BEGINNINGS, THREE), 0, None, PART))
    assert {case.beginning for case in part} == set(BEGINNINGS)
    assert {case.names for case in part} == set(THREE)
    assert {case.execution for case in part} == set(schedules(3))
