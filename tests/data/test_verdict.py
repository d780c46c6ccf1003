"""The verdict's own eyes: what the package has reported of a session is told from what is gone silently."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests.support.site.actors import Actor, Crowd
from tests.support.site.application import DATA, THEME, Report
from tests.support.site.browser import Answer, Browser
from tests.support.site.ledger import Life
from tests.support.site.verdict import Verdict, verdict

OURS = "ours1234"
"""The beginning of the digest of the session that this is about."""


CONFLICT = Report(15.0, OURS, "merge_conflicts", "written since", DATA, 1)
"""A report from between the last answer that showed the entries and the first one that lacked them."""


@dataclass
class Page(Browser):
    """A browser to which every worker shows the same."""

    shown: dict[str, Any] = field(default_factory=dict)

    def at(self, url: str) -> Self:
        """Return this one."""
        return self

    def get(self, path: str) -> Answer:
        """Return the page."""
        return Answer(200, json.dumps(self.shown))


def verified(folder: Path, reports: list[Report], *, is_over: bool) -> Verdict:
    """Return the verdict on a list of two entries, which were shown, and are gone.

    :param is_over: its session has ended.
    """
    empty: dict[str, Any] = {
        "level": 0,
        "user": None,
        "role": None,
        "list": [],
        "count": 0,
        "blind": None,
        "theme": None,
    }
    (folder / "counters-1.reports").write_text("".join(json.dumps(each) + "\n" for each in reports))
    worker: Any = SimpleNamespace(name="a1", url="http://a1", folder=folder, counters=dict)
    host: Any = SimpleNamespace(workers=[worker])
    crowd = Crowd([host], seed=1)
    actor = Actor(crowd, "visitor", None, host, random.Random(1))
    crowd.actors.append(actor)
    actor.life.sessions.add(OURS)
    actor.life.appended(1, empty | {"list": [1], "began": 5.0, "ended": 6.0})
    actor.life.appended(2, empty | {"list": [1, 2], "began": 7.0, "ended": 8.0})
    actor.life.saw(empty | {"list": [1, 2], "began": 10.0, "ended": 11.0})
    actor.life.saw(empty | {"began": 19.0, "ended": 20.0})
    if is_over:
        actor.life = Life()
        actor.lives.append(actor.life)
    else:
        actor.browser = Page(worker.url, {"session": "cookie"}, shown=empty)
    return verdict(crowd, [worker], {})


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize(
    ("reports", "is_told"),
    [
        ([CONFLICT], True),
        ([CONFLICT._replace(what="merge_dropped", cause="too old")], True),
        ([], False),
        ([CONFLICT._replace(session="another1")], False),
        ([CONFLICT._replace(session="")], False),
        ([CONFLICT._replace(category=THEME)], False),
        ([CONFLICT._replace(at=9.0)], False),
        ([CONFLICT._replace(at=60.0)], False),
        ([CONFLICT._replace(what="merge_dropped", cause="in doubt")], False),
        ([CONFLICT._replace(what="request_only_writes", cause="level 4")], False),
    ],
)
def test_only_a_report_about_this_very_list_covers_its_entries(
    tmp_path: Path, reports: list[Report], is_told: bool, is_over: bool
) -> None:
    """One report is about one value, whatever number of entries went with it; a silent loss is a broken promise, be the
    session over or not."""
    found = verified(tmp_path, reports, is_over=is_over)
    assert (found.ended_lacking if is_over else found.found.destroyed) == 2
    assert (found.ended_uncounted if is_over else found.uncounted.destroyed) == (0 if is_told else 2)
    assert bool(found.wrong) is not is_told
