"""Every part of the protocol is there for something: without it, an invariant is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flask_langpont_session

from .ablations import ABLATIONS
from .schedules import KEPT, Kept
from .walker import broken_by

LOAD_BEARING = {
    "lease", "minimum version", "minimum versions that are forgotten", "stamp before the read", "an own question",
    "privileged roles",
    "connection identity", "identity of each connection", "role of the server", "canary", "the own digest",
    "dead absorbs", "tombstone instead of DEL", "local tombstone", "read repair", "epochs", "guard of writes",
    "compare-and-set in Redis", "compare-and-set in the database", "compare-and-set of a change of id",
    "journal", "journal of log out everywhere", "recovery", "rows changed since an incident",
    "push of what Redis missed", "additions are counted once", "late commands do nothing", "rights do not wait",
    "budget", "change ids of a host", "change id before the question", "silence", "the end of what vouches",
    "the read behind an own write", "change ids around an own write", "what was sent is not sent again",
    "a hit at level 0 only",
    "the journal before a hit", "lease of a hit", "touches that are due", "session limit",
    "displaced sessions are made known", "a proof by confirmation only", "a proof goes along", "a proof is noted",
    "shorter lives", "shorter idle times", "shorter idle times in Redis", "another id for a shorter life",
    "the version beside a wipe", "a busy journal may hold something", "a revocation before a change of id",
    "a revocation after a change of id", "an end behind a change of auth", "copies in an outage",
    "own writes in copies",
    "later versions of siblings", "copies are as old as their confirmation",
    "shared copies are as old as their confirmation",
    "delivered revocations are told again",
    "a last look at delivered revocations", "rights of both versions", "above the highest version",
    "a row that went back", "an epoch that was lost",
    "a clock that was set", "the quickest answer tells the time", "a proof that is yet to come",
    "a change keeps its life", "each entry apart", "revocations that the journal did not take",
    "log out everywhere that the journal did not take", "the end of a session is waited for at last",
    "newer copies stand", "what was given back is as old as the copy", "later versions than what was given back",
    "what no worker has any more is counted", "what was not given back is counted",
    "what was seen is there", "a loss is looked for before a merge",
    "a wipe of what was given back", "what was wiped is not shown", "a wipe is later than what its host has seen",
    "what waits was made from its own merge", "what waits is later than what is given back",
    "what was merged is there still", "what was merged is read back first",
    "what was merged and not read back is made from", "what was merged and lost since is made from",
    "a copy tells its host whose it is",
    "a wipe that its host knows is given back", "newer copies of other workers are given back",
    "each kind of sessions is given back",
    "what is written behind a wipe is no older",
    "what other workers know goes along", "a former id is wiped when all of it was brought",
    "what is lost on the way to another id is counted", "what another id does not get is counted",
    "the additions of a copy go along",
    "a loss is looked for", "all workers of a host give back", "what could not be read waits",
}  # fmt: skip
"""Parts without a mark of their own that the protocol cannot do without. What siblings overlay is S11."""


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_without_a_part_its_schedule_breaks_an_invariant(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function is replaced, and that very invariant is broken. With it, none is: ``test_schedules.py``."""
    [part] = [ablation for ablation in ABLATIONS if ablation.name == kept.part]
    monkeypatch.setattr(part.owner, part.function, part.without)
    broken = broken_by(kept.schedule)
    assert broken is not None
    assert broken[0] == kept.breaks


def test_every_part_has_a_schedule() -> None:
    """Each rule to which the page of rules gives a mark, and each load-bearing part without one."""
    names = [ablation.name for ablation in ABLATIONS]
    page = Path(flask_langpont_session.__file__).parents[1] / "docs" / "explanation" / "rules.md"
    text = page.read_text(encoding="utf-8")
    marks = set(re.findall(r"^\| (S\d+) \|", text, re.MULTILINE))
    assert len(marks) == 11
    assert marks | LOAD_BEARING <= set(names)
    assert set(names) == {kept.part for kept in KEPT}
    assert len(names) == len(set(names))
