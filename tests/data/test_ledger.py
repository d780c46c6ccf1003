"""The list-append checker's own eyes: every loss that is planted is found, and what is allowed is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.support.site.faults import DATABASE_WAYS, WAYS, plan
from tests.support.site.ledger import REPORT_LAG, Life, Wrongs


def shown(entries: Sequence[int] = (), *, level: int = 0, at: float = 0.0, **differently: Any) -> dict[str, Any]:
    """Return an answer of a worker, which was asked for at a moment and took a second."""
    values = {"level": level, "list": list(entries), "count": 0, "blind": None, "theme": None}
    return values | {"began": at, "ended": at + 1} | differently


@pytest.fixture
def life() -> Life:
    """1 was appended at level 0 and shown, 2 at level 0, 3 at level 2; 4 had no answer."""
    life = Life()
    life.appended(1, shown([1]))
    life.saw(shown([1]))
    life.appended(2, shown([1, 2]))
    life.read_back = {1}
    life.appended(3, None)
    life.possible, life.acknowledged = {4}, [1, 2, 3]
    return life


@pytest.mark.parametrize("entries", [[1, 2, 3], [1, 2, 3, 4]])
def test_what_was_acknowledged_is_there_and_what_was_not_may_be(life: Life, entries: list[int]) -> None:
    """Nothing is wrong."""
    assert life.verify(shown(entries)) == Wrongs()


@pytest.mark.parametrize(
    ("entries", "wrong"),
    [
        ([1, 2], {"lost": 1}),
        ([1, 3], {"firm_lost": 1}),
        ([2, 3], {"destroyed": 1}),
        ([], {"lost": 1, "firm_lost": 1, "destroyed": 1}),
        ([1, 2, 3, 9], {"foreign": 1}),
        ([1, 2, 3, 3], {"twice": 1}),
        ([1, 3, 2], {"disordered": 1}),
    ],
)
def test_a_list_that_is_wrong(life: Life, entries: list[int], wrong: dict[str, int]) -> None:
    """Each kind is told from the others."""
    assert life.verify(shown(entries)) == Wrongs(**wrong)


@pytest.mark.parametrize(
    ("reported", "left"),
    [
        (0, Wrongs(lost=1, firm_lost=2, destroyed=1, increments_lost=3, texts_lost=1)),
        (2, Wrongs(firm_lost=1, destroyed=1, texts_lost=1)),
        (9, Wrongs(destroyed=1)),
    ],
)
def test_what_was_reported_of_a_session_excuses_as_much(reported: int, left: Wrongs) -> None:
    """But for entries that an answer had shown. How many additions a report was for, it does not say."""
    found = Wrongs(lost=1, firm_lost=2, destroyed=1, increments_lost=3, texts_lost=1)
    assert found.excused(reported) == left


@pytest.mark.parametrize(
    ("said", "covered"),
    [
        ([], set()),
        ([11.0], set()),
        ([12.0], {2, 3}),
        ([21.0 + REPORT_LAG], {1, 2, 3}),
        ([22.0 + REPORT_LAG], {1}),
    ],
)
def test_a_report_covers_what_is_gone_with_one_value(said: list[float], covered: set[int]) -> None:
    """However many entries that has: those that no later answer showed, and that none has missed long before."""
    life = Life()
    life.appended(2, shown([2], at=5.0))
    life.saw(shown([2], at=10.0))
    life.appended(1, shown([2, 1], at=11.0))
    life.appended(3, shown([2, 1, 3], at=12.0))
    life.saw(shown([1], at=20.0))
    assert life.reported(said) == covered


def test_an_entry_without_an_answer_that_was_shown_must_stay(life: Life) -> None:
    """From then on an answer has shown it."""
    life.saw(shown([1, 2, 3, 4]))
    assert life.verify(shown([1, 2, 3])) == Wrongs(destroyed=1)


@pytest.mark.parametrize(
    ("count", "wrong"), [(1, {"increments_lost": 1}), (2, {}), (3, {}), (4, {"increments_twice": 1})]
)
def test_additions_lie_between_those_acknowledged_and_those_tried(count: int, wrong: dict[str, int]) -> None:
    """Two were acknowledged, and a third one had no answer."""
    life = Life()
    for answer in (shown(), shown(), None):
        life.added(answer)
    assert life.verify(shown(count=count)) == Wrongs(**wrong)


def test_the_last_text_that_was_acknowledged_or_a_later_one_without_an_answer_is_there() -> None:
    """An earlier one is not."""
    life = Life()
    for text, answer in (("a", shown()), ("b", None), ("c", shown()), ("d", None)):
        life.set_text(text, answer)
    verdicts = {text: life.verify(shown(blind=text)).texts_lost for text in ("a", "b", "c", "d", None)}
    assert verdicts == {"a": 1, "b": 1, "c": 0, "d": 0, None: 1}


def test_a_theme_that_was_shown_at_level_0_stays() -> None:
    """Before that it lasts for its request only, if that was in an outage."""
    life = Life()
    life.set_theme("dark")
    assert [life.verify(shown(theme=theme)).themes_lost for theme in (None, "dark")] == [0, 0]
    life.saw_theme("dark")
    assert [life.verify(shown(theme=theme)).themes_lost for theme in (None, "dark")] == [1, 0]


def test_only_what_a_counted_loss_covers_is_left_out() -> None:
    """Nothing covers what is there twice, comes back, or belongs to another list."""
    wrong = Wrongs(*range(1, 11))
    data = {"lost", "firm_lost", "destroyed", "increments_lost", "texts_lost"}
    assert wrong.but_for(data=False, theme=False) == wrong
    assert wrong.but_for(data=True, theme=False) == replace(wrong, **dict.fromkeys(data, 0))
    assert wrong.but_for(data=False, theme=True) == replace(wrong, themes_lost=0)


def test_after_a_wipe_without_an_answer_anything_may_be_there(life: Life) -> None:
    """But nothing twice, and nothing of another list."""
    life.is_uncertain()
    for entries in ([], [1, 2], [1, 2, 3, 4]):
        assert life.verify(shown(entries)) == Wrongs()
    assert life.verify(shown([1, 1])) == Wrongs(twice=1)


def test_a_plan_has_every_fault_in_it_and_follows_from_its_seed() -> None:
    """In order, and within the time."""
    for seed in range(5):
        lanes = plan(seed, 60)
        assert lanes == plan(seed, 60) != plan(seed + 1, 60)
        assert {episode.kind for episode in lanes["redis"]} == {way.name for way in WAYS}
        assert {episode.kind for episode in lanes["database"]} == {way.name for way in DATABASE_WAYS}
        assert {episode.kind for episode in lanes["server"]} == {"freeze", "restart"}
        assert {episode.kind for episode in lanes["worker"]} == {"kill", "stop", "compute"}
        for episodes in lanes.values():
            ends = [episode.at + episode.seconds for episode in episodes]
            assert all(end <= later.at for end, later in zip(ends, episodes[1:], strict=False))
            assert ends[-1] <= 60
