"""Four workers under load while all three stores and the workers themselves fail by plan: every promise is kept.

``LANGPONT_SOAK_SECONDS`` is how long (30), ``LANGPONT_SOAK_SEED`` repeats what was drawn; ``make soak`` takes ten
minutes. A finding names the invariant of docs/guarantees.md, and quotes what the session's user was answered.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stories.ledger import state_of
from tests.stories.visitor import COOKIE, Visitor

from .logs import (
    look_at_the_log,
)
from .people import Crowd
from .schedule import LONG, deaths, faults_of, plan
from .site import VERIFY_INTERVAL, Site, soaking

SECONDS = float(os.environ.get("LANGPONT_SOAK_SECONDS", "30"))

LIMIT = 5.0
"""Seconds within which everything must be answered: less than the longest silence of a store, yet many times the
budget, because the machine may be busy."""

DEATH = 1.0
"""Seconds around the death of a worker in which a request may remain without an answer."""


@pytest.mark.real_time(
    "the client measures how long an answer takes, and on a busy machine the workers wait for the processor, too"
)
@pytest.mark.timeout(SECONDS * 2 + 240)
def test_no_promise_is_broken_by_any_mixture_of_faults(tmp_path: Path, say: Callable[[str], None]) -> None:
    """Random faults of three stores at once and killed workers; then all is healed, and every user is asked again."""
    seed = int(os.environ.get("LANGPONT_SOAK_SEED", secrets.randbelow(1_000_000)))
    say(f"soak: {SECONDS:g} s, LANGPONT_SOAK_SEED={seed}")
    with soaking(tmp_path) as site:
        with Crowd(site.web.url, seed, LIMIT, VERIFY_INTERVAL) as crowd:
            site.play(plan(seed, SECONDS), deaths(seed, SECONDS))
            recovery = site.heal()
        look_at_the_end(site, crowd)
        look_at_times(site, crowd)
        look_at_the_log(site.log(), crowd.secrets, crowd.found)
    say(f"{crowd.table()}\n{len(crowd.stories)} sessions; slowest {crowd.slowest:.2f} s; healed in {recovery:.2f} s")
    assert not crowd.all_findings(), report(site, crowd)
    assert_it_was_a_soak(site, crowd)


def look_at_the_end(site: Site, crowd: Crowd) -> None:
    """Every worker shows what the database says, and both are what was promised."""
    cookies = [f"{COOKIE}={story.browser.cookies[COOKIE]}" for story in crowd.stories]
    shown = [Visitor(url).whose(cookies) for url in site.web.doors().values()]
    rows = site.rows()
    for story, states in zip(crowd.stories, zip(*shown, strict=True), strict=True):
        story.ends({state_of(user, role) for user, role in states}, rows.get(story.digest))
    for pid, url in site.web.doors().items():
        levels = crowd.levels.setdefault(pid, set())
        if max(levels, default=0) == 0:
            crowd.found(f"worker {pid} has seen no outage: {levels}")
        if (level := Visitor(url).me()["level"]) != 0:
            crowd.found(f"worker {pid} is at level {level} at the end")
    if any(site.waiting().values()):
        crowd.found(f"I6: the journal is not empty: {site.waiting()}")


def look_at_times(site: Site, crowd: Crowd) -> None:
    """Check the findings that depend on what else happened at the time: missing answers, and grants while the
    database was silent."""
    for began, ended in crowd.unanswered:
        if not any(began - DEATH < death < ended + DEATH for death in site.deaths):
            crowd.found(f"no answer at {began:.3f}, and no worker had died")
    for began, ended in crowd.confirmed:
        if any(start < began and ended < end for start, end in site.silences):
            crowd.found(f"I2/I3: granted or confirmed at {began:.3f} while nothing reached the database")


def assert_it_was_a_soak(site: Site, crowd: Crowd) -> None:
    """Every kind of fault has bitten, and there was a request to suffer from it."""
    for store in site.servers:
        missed = [fault for fault in faults_of(store) if not site.bites[store, fault]]
        assert not missed, f"{store}: no request met {missed}"
    assert len(site.deaths) >= 2
    acknowledged = {what: crowd.counts[what, 200] for what in ("sign-in", "role", "sign-out", "everywhere", "fresh")}
    assert all(acknowledged.values()), acknowledged
    assert {2, 4} <= set().union(*crowd.levels.values()), crowd.levels


def report(site: Site, crowd: Crowd) -> str:
    """Return the findings and the faults of the soak as text."""
    diary = "\n".join(f"{start:.3f}–{end:.3f} {what}" for start, end, what in sorted(site.diary))
    return "\n".join(
        [f"seed {crowd.seed}", *sorted(crowd.all_findings(), key=len, reverse=True)[:20], "the faults were:", diary]
    )


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints, also when the test passes: to repeat a run, its seed is needed."""

    def show(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return show


def test_a_plan_has_every_fault_in_it_and_follows_from_its_seed() -> None:
    """Whatever the seed and the length: each kind of each store once at least, in order, within the time."""
    for seed, seconds in ((1, 20.0), (2, 45.0), (3, 600.0)):
        lanes = plan(seed, seconds)
        assert lanes == plan(seed, seconds)
        for store, episodes in lanes.items():
            assert {episode.fault for episode in episodes} == set(faults_of(store))
            ends = [episode.at + episode.seconds for episode in episodes]
            assert all(end <= later.at for end, later in zip(ends, episodes[1:], strict=False))
            assert ends[-1] <= seconds + 0.001
        assert len(deaths(seed, seconds)) >= 2
    assert plan(1, 45) != plan(2, 45)
    silences = [episode.seconds for episode in plan(1, 30)["database"] if episode.fault in LONG]
    assert min(silences) > LIMIT  # so that a request that waited to the end is found
