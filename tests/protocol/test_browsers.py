"""Cookies that a browser gets while stores fail and answers overtake each other."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.cookie_ablations import ABLATIONS

from .browsers import browse
from .invariants import Broken

WALKS = 80


def test_no_answer_changes_a_cookie_that_it_must_not_change() -> None:
    """I8, I9, I13 and I15: whatever fails, and in whatever order answers arrive."""
    census: Counter[str] = Counter()
    for seed in range(WALKS):
        census += browse(seed).census
    assert min(census["grants_refused"], census["sessions_ended"], census["sessions_regenerated"]) > 10


@pytest.mark.parametrize("rule", ["C2", "C3-write", "C3-token"])
def test_without_a_rule_of_the_cookies_one_does(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """I15 is broken."""
    ablation = ABLATIONS[rule]
    whole = getattr(ablation.of, ablation.function)
    monkeypatch.setattr(ablation.of, ablation.function, ablation.without(whole))
    with pytest.raises(Broken, match="I15"):
        for seed in range(WALKS):
            browse(seed)
