"""``python -m benchmarks.outages --detection``: how soon this package notices an outage, what that costs, and how soon
all is well again. One worker with four threads, four browsers that hardly pause."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from devservers.processes import wait_until
from tests.faults import proxy
from tests.support.site.browser import Answer, Browser

from ..page import say, table
from .faults import OUTAGES
from .flask_apps import LEVEL, LISTS, TOOK
from .stage import THREADS, TIMED, Stage, staged

DEAR = 0.05
"""Seconds from which on a request has paid for the outage; a healthy one takes a few milliseconds."""

PAUSE = 0.01
"""Seconds between two requests of one browser: they shall find the machine idle, not each other."""

_QUIET = 0.5
"""Seconds of load before an outage and after its end: what it costs is held against the former."""

_LASTS = 1.0
"""Seconds of an outage after it was noticed."""

_RATHER_OFTEN = 10
"""One request in so many writes, so that there is something to merge."""

_BY_NAME = {outage.name: outage for outage in OUTAGES}
_Causing = Callable[[Stage, list[str]], AbstractContextManager[None]]
Kind = tuple[str, _Causing, float]

KINDS: Sequence[Kind] = (
    ("connections refused", _BY_NAME["refused"].causing, 0.1),
    ("connections reset", _BY_NAME["reset"].causing, 0.1),
    ("something else answers", _BY_NAME["garbage"].causing, 0.1),
    ("hang (SIGSTOP)", _BY_NAME["hang"].causing, 0.35),
    ("black hole", lambda stage, proof: stage.proxy.failing(proxy.HANG), 0.35),
    ("every reply 0.3 s late", _BY_NAME["slow"].causing, 0.35),
    ("replies are lost", lambda stage, proof: stage.proxy.failing(proxy.SWALLOW_REPLY), 0.35),
)
"""Title, cause, and the goal for its detection in seconds."""


def _level(answer: Answer) -> int:
    return int(answer.headers.get(LEVEL, -1))


def _took(answer: Answer) -> float:
    """Return the seconds in the application, session and all."""
    return float(answer.headers.get(TOOK, "nan"))


class Stampede:
    """A context manager: as many browsers as the worker has threads ask again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Answer] = []
        self._over = threading.Event()

    def __enter__(self) -> Stampede:
        self._pool = ThreadPoolExecutor(THREADS)
        self._asking = [self._pool.submit(self._ask, number) for number in range(THREADS)]
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for asking in self._asking:
            asking.result()

    def _ask(self, number: int) -> None:
        browser = Browser(self.url)
        wait_until(lambda: browser.send("/sign-in", user=f"user-{number}").ok, "a sign-in")
        turn = 0
        while not self._over.wait(PAUSE):
            turn += 1
            if turn % _RATHER_OFTEN:
                self.seen.append(browser.get("/read"))
            else:
                self.seen.append(browser.send(f"/write/{list(LISTS)[1]}", number=str(turn % 7)))

    def until(self, condition: Callable[[int], bool], what: str) -> None:
        """Wait for an answer that began after now and was given at such a level."""
        now = time.monotonic()
        wait_until(lambda: any(s.began > now and condition(_level(s)) for s in self.seen[-200:]), what, pause=0.005)


@dataclass(frozen=True, slots=True)
class Measured:
    """One outage. Times in seconds.

    :param detected: from its beginning to the first answer of a degraded level.
    :param paid: how many requests took longer than :data:`DEAR` before that or were on their way then; `dearest`: the
        longest of all in the application.
    :param before: 99th percentile of the time in the application, of the requests before the outage. `after`: of those
        that began after the detection.
    :param recovered: from its end to the first answer of level 0 after which there was no other.
    """

    detected: float
    paid: int
    dearest: float
    before: float
    after: float
    errors: int
    recovered: float


def measure(stage: Stage, causing: _Causing) -> Measured:
    """Measure one outage."""
    [site] = stage.sites.values()
    with Stampede(site.url) as stampede:
        stampede.until(lambda level: level == 0, "level 0 before the outage")
        time.sleep(_QUIET)
        began = time.monotonic()
        with causing(stage, []):
            stampede.until(lambda level: level > 0, "a degraded level")
            time.sleep(_LASTS)  # how long it lasts is what the row is about
            healing = time.monotonic()
        stampede.until(lambda level: level == 0, "level 0 after the outage")
        time.sleep(_QUIET)
    seen = stampede.seen
    degraded = [s for s in seen if s.ended > began and _level(s) > 0]
    detected = min(s.ended for s in degraded)
    return Measured(
        detected=detected - began,
        paid=sum(_took(s) > DEAR for s in seen if s.ended > began and s.began <= detected),
        dearest=max(_took(s) for s in seen if s.ended > began),
        before=_p99(_took(s) for s in seen if s.ended < began),
        after=_p99(_took(s) for s in seen if detected < s.began < healing),
        errors=sum(s.status != 200 for s in seen),
        recovered=max(0.0, max(s.ended for s in degraded) - healing),
    )


def _p99(took: Iterable[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


def markdown(kinds: Sequence[Kind], times: int) -> str:
    """Measure these kinds of outage, each so often. Return a table: medians, and the worst in brackets."""
    rows = []
    with staged((TIMED,), workers=1) as stage:
        for title, causing, goal in kinds:
            found = []
            for turn in range(times):
                say(f"{title}, {turn + 1} of {times}")
                found.append(measure(stage, causing))
            rows.append([title, *_cells(goal, found)])
    head = ["outage", "detected, s", "goal", "requests that paid", "dearest, s", "p99 before / after, ms"]
    return table([*head, "level 0 after, s", "5xx"], rows)


def _cells(goal: float, found: Sequence[Measured]) -> list[str]:
    def both(values: Sequence[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} ({max(values):.{digits}f})"

    return [
        both([m.detected for m in found], 3),
        f"≤ {goal:g}",
        both([m.paid for m in found], 0),
        both([m.dearest for m in found], 3),
        f"{statistics.median(m.before * 1000 for m in found):.1f} / {both([m.after * 1000 for m in found], 1)}",
        both([m.recovered for m in found], 2),
        str(sum(m.errors for m in found)),
    ]
