"""The decision table, cell by cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.config.explanations import AT_LEVEL_1, WHAT_IT_GETS
from flask_langpont_session.policy.categories import Priority
from flask_langpont_session.policy.levels import (
    ALLOWED,
    BEHAVIOURS,
    EFFECTS,
    LEVELS,
    Behaviour,
    Kept,
    build_behaviours,
)

ROOT = Path(__file__).parents[3]

TABLE = """
critical  primary  database_fallback     database_fallback     database_fallback  emergency_mode
high      primary  local_cache_fallback  local_cache_fallback  disable_feature    disable_feature
medium    primary  default_value         default_value         disable_feature    disable_feature
low       primary  default_value         default_value         disable_feature    disable_feature
"""


def test_the_table_is_the_one_of_the_design() -> None:
    """All 20 cells, written down a second time so that an accidental change of one is seen."""
    rows = [line.split() for line in TABLE.split("\n") if line]
    assert {priority: cells for priority, *cells in rows} == {
        priority: [row[at] for at in LEVELS] for priority, row in BEHAVIOURS.items()
    }


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md"])
def test_the_pages_show_the_table(page: str) -> None:
    """All its rows, as the code has them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for priority, row in BEHAVIOURS.items():
        assert f"| {' | '.join([priority, *(row[at] for at in LEVELS)])} |" in text


def test_every_behaviour_is_explained() -> None:
    """Each behaviour is explained by the page on the configuration, and by `flask langpont explain` and the log,
    which say it of a key."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    described = text.partition("A behaviour is one of\n\n")[2].partition("\n\n")[0]
    assert re.findall(r"^- `(\w+)`", described, re.MULTILINE) == list(Behaviour)
    assert list(WHAT_IT_GETS) == list(Behaviour)
    told = [*WHAT_IT_GETS.items(), *AT_LEVEL_1.items()]
    for said, effect in ((said, EFFECTS[each]) for each, said in told if each in EFFECTS):
        places = {Kept.JOURNAL: "journal and is merged", Kept.NOWHERE: "gone with the request"}
        assert [place for place, words in places.items() if words in said] == [p for p in places if p is effect.written]
        assert ("available() is False" in said) == (not effect.is_available)
    assert AT_LEVEL_1.keys() == EFFECTS.keys() - {Behaviour.PRIMARY}


@pytest.mark.parametrize("priority", [priority for priority in Priority if priority is not Priority.CRITICAL])
def test_every_behaviour_outside_of_auth_has_its_effect(priority: Priority) -> None:
    """Each behaviour has an effect: what is shown, where writes are kept, and whether the feature can be used."""
    assert EFFECTS.keys() == ALLOWED[priority]


def test_every_behaviour_has_a_colour_on_the_status_page() -> None:
    """All but the one of level 0, when nothing is wrong."""
    css = (ROOT / "flask_langpont_session" / "ops" / "status_page" / "templates" / "status.css").read_text(
        encoding="utf-8"
    )
    assert set(re.findall(r"\.(\w+) td:last-child[ ,]", css)) == set(Behaviour) - {Behaviour.PRIMARY}


@pytest.mark.parametrize("at", [2, "2", "local_cache"])
def test_one_cell_can_be_configured_and_the_others_stay(at: Any) -> None:
    """BEHAVIOURS names only what differs."""
    table, problems = build_behaviours({"medium": {at: "local_cache_fallback"}})
    assert problems == []
    assert table[Priority.MEDIUM][2] == "local_cache_fallback"
    assert table[Priority.MEDIUM][1] == "default_value"
    assert BEHAVIOURS[Priority.MEDIUM][2] == "default_value"


@pytest.mark.parametrize("behaviour", ["local_cache_fallback", "default_value", "disable_feature"])
def test_critical_never_shows_what_nothing_confirmed(behaviour: str) -> None:
    """A table that would serve a default identity is a configuration error."""
    for at in LEVELS:
        [problem] = build_behaviours({"critical": {at: behaviour}})[1]
        assert "critical" in problem


def test_every_default_cell_is_an_allowed_one() -> None:
    """The defaults obey the rule they are checked against."""
    assert all(cell in ALLOWED[priority] for priority, row in BEHAVIOURS.items() for cell in row.values())
