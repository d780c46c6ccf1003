"""Ablations of the cookies' rules: without one, the search finds what that rule is for. C1 to C4, and what must hold
besides.

Each rule is taken away by replacing one function of the package.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest

from devservers.servers import Valkey

from .conftest import MakeApp
from .cookie_ablations import (
    ABLATIONS,
)
from .cookie_search import BEGINNINGS, CONFIG, PROPERTIES, SEARCHED, Case, World, cases, search

KINDS = ("read", "slow write", "form", "sign in another", "sign out", "clear", "regenerate")

BEGUN = ("visitor", "user", "signed out elsewhere")

STRIDE = 41
"""Cases beside each other are alike. In strides, all kinds are met early."""


def wanted() -> Iterable[Case]:
    """Enough to see what each of the rules is for."""
    every = list(cases(BEGUN, list(itertools.combinations_with_replacement(KINDS, 2))))
    return itertools.chain.from_iterable(every[first::STRIDE] for first in range(STRIDE))


@pytest.fixture
def world(make_app: MakeApp, primary: Valkey) -> Iterator[World]:
    with primary.client() as redis:
        apps = [make_app(**CONFIG) for _ in range(2)]
        for app in apps:
            app.testing = False  # where an error of the application's would hide what is broken
        yield World(apps, redis)


def test_with_all_rules_nothing_is_broken() -> None:
    """The control: the whole package passes in the same cases, which ``test_cookie_search.py`` tries among others."""
    assert set(KINDS) <= set(SEARCHED)
    assert set(BEGUN) <= set(BEGINNINGS)


@pytest.mark.parametrize("rule", ABLATIONS)
def test_without_a_rule_the_search_finds_what_it_is_for(
    world: World, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """C1 to C4: one function replaced, and the properties that rest on it do not hold."""
    ablation = ABLATIONS[rule]
    whole = getattr(ablation.of, ablation.function)
    monkeypatch.setattr(ablation.of, ablation.function, ablation.without(whole))
    broken = set()
    for violation in search(world, wanted()):
        broken.add(violation.property)
        if broken >= ablation.breaks:
            return
    pytest.fail(f"without {rule} the search found only {sorted(broken)} broken, not {sorted(ablation.breaks)}")


def test_every_property_has_an_ablation() -> None:
    """A property that nothing breaks would say nothing."""
    assert set().union(*(ablation.breaks for ablation in ABLATIONS.values())) == set(PROPERTIES)
