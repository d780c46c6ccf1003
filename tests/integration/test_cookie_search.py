"""Nothing that overlapping requests of one browser can do breaks a rule of the cookies: schedule by schedule is tried.

Without one of the rules the search finds what that rule is for: C1 to C4, and what must hold besides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from flask import Flask

from devservers.servers import Valkey

from .conftest import MakeApp, parts
from .cookie_ablations import ABLATIONS
from .cookie_search import BEGINNINGS, CONFIG, PROPERTIES, SEARCHED, Case, World, cases, schedules, search

TWO = tuple(itertools.combinations_with_replacement(SEARCHED, 2))

PART_OF_TWO = 19
"""One of so many cases of two requests is tried, which meets every way to overlap from every beginning."""

WORKERS = 2


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
    first = 3 * list(BEGINNINGS).index(beginning)
    return itertools.islice(cases([beginning], TWO), first, None, PART_OF_TWO)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_two_overlapping_requests(workers: list[Flask], primary: Valkey, beginning: str) -> None:
    """C1, C2, C3, C4, I5 to I8 and I15: every pair of kinds, in many orders of sending, serving and answering."""
    nothing_is_broken(workers, primary, part_of_two(beginning))


def test_the_parts_that_are_tried_meet_everything() -> None:
    """Every beginning, every pair of kinds and every way to overlap is in the parts of the search that run."""
    assert sum(map(len, schedules(2).values())) == 12, "two requests overlap in so many ways"
    parts = {beginning: list(part_of_two(beginning)) for beginning in BEGINNINGS}
    for part in parts.values():
        assert {name for case in part for name in case.names} == set(SEARCHED)
        assert {case.execution for case in part} == set(schedules(2))
    assert {case.names for part in parts.values() for case in part} == set(TWO)


# -- without a rule ----------------------------------------------------------------------------------------------------

KINDS = ("read", "slow write", "form", "sign in another", "sign out", "clear", "regenerate")

BEGUN = ("visitor", "user", "signed out elsewhere")

STRIDE = 41
"""Cases beside each other are alike. In strides, all kinds are met early."""


def wanted() -> Iterable[Case]:
    """Enough to see what each of the rules is for."""
    every = list(cases(BEGUN, list(itertools.combinations_with_replacement(KINDS, 2))))
    return itertools.chain.from_iterable(every[first::STRIDE] for first in range(STRIDE))


@pytest.mark.parametrize("rule", ABLATIONS)
def test_without_a_rule_the_search_finds_what_it_is_for(
    workers: list[Flask], primary: Valkey, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """C1 to C4: one function replaced, and the properties that rest on it do not hold."""
    ablation = ABLATIONS[rule]
    whole = getattr(ablation.of, ablation.function)
    monkeypatch.setattr(ablation.of, ablation.function, ablation.without(whole))
    for app in workers:
        app.testing = False  # where an error of the application's would hide what is broken
    broken = set()
    with primary.client() as redis:
        for violation in search(World(workers, redis), wanted()):
            broken.add(violation.property)
            if broken >= ablation.breaks:
                return
    pytest.fail(f"without {rule} the search found only {sorted(broken)} broken, not {sorted(ablation.breaks)}")


def test_every_property_has_an_ablation() -> None:
    """A property that nothing breaks would say nothing."""
    assert set().union(*(ablation.breaks for ablation in ABLATIONS.values())) == set(PROPERTIES)
