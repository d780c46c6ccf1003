"""One session, looked at through every worker's own door without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

from devservers.processes import wait_until
from tests.support.site.browser import NO_ANSWER

from .visitor import Visitor

PAUSE = 0.03
"""Seconds between two looks at one worker: they leave the machine to what is looked at."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The answer of one worker."""

    status: int
    shown: Mapping[str, Any]
    set_cookies: int


@dataclass
class Watch:
    """A context manager: it looks while it is open.

    :param visitor: whose session it is; the cookies as they are now.
    :param doors: process id → address of the workers.
    """

    visitor: Visitor
    doors: Mapping[int, str]
    _sights: dict[int, list[Sight]] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.visitor = self.visitor.twin()

    def __enter__(self) -> Self:
        self.follow(self.doors)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def follow(self, doors: Mapping[int, str]) -> None:
        """Look at more workers."""
        for pid, url in doors.items():
            sights = self._sights[pid] = []
            thread = threading.Thread(target=self._look, args=(self.visitor.twin(url), sights))
            self._threads.append(thread)
            thread.start()

    def _look(self, visitor: Visitor, sights: list[Sight]) -> None:
        while not self._stop.wait(PAUSE):
            answer = visitor.get("/me")
            if answer.status == NO_ANSWER:  # the worker was killed; those that still have to be seen `sees` names
                return
            shown = answer.json if answer.status == 200 else {}
            sights.append(Sight(answer.status, shown, len(answer.set_cookies)))

    def sees(self, *, on: Mapping[int, str] | None = None, **expected: object) -> None:
        """Wait until every worker (of `on`) has shown this, from now on."""
        begin = {pid: len(self._sights[pid]) for pid in (self._sights if on is None else on)}

        def shown(sight: Sight) -> bool:
            return all(sight.shown.get(name, ...) == value for name, value in expected.items())

        def all_have_shown() -> bool:
            return all(any(map(shown, self._sights[pid][at:])) for pid, at in begin.items())

        self._until(all_have_shown, f"{expected} on each of {sorted(begin)}")

    def goes_on(self, looks: int = 10) -> None:
        """Wait until every worker that lives was looked at so many times more."""
        lengths = {pid: len(sights) for pid, sights in self._sights.items() if self._is_followed(pid)}
        self._until(lambda: all(len(self._sights[pid]) >= n + looks for pid, n in lengths.items()), "more sights")

    def _is_followed(self, pid: int) -> bool:
        return self._threads[list(self._sights).index(pid)].is_alive()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, what, pause=0.01)
        except TimeoutError as error:
            last = {pid: sights[-1] if sights else None for pid, sights in self._sights.items()}
            raise AssertionError(f"{error}; last seen: {last}") from None

    # -- what was seen ---------------------------------------------------------------------------------------------

    def courses(self, name: str, *, on: Iterable[int] | None = None) -> list[list[Any]]:
        """Return the values of one item on the workers (of `on`) in their order, repetitions left out.

        Each course once: a single one means that it was the same on every worker. An answer that says that the session
        could not be verified is left out.
        """
        courses: list[list[Any]] = []
        for pid in self._sights if on is None else on:
            sights = [sight.shown for sight in self._sights[pid] if sight.status == 200]
            known = [shown[name] for shown in sights if not shown["unverified"]]
            course = [value for value, _ in groupby(known)]
            if course not in courses:
                courses.append(course)
        return courses

    def latest(self, pids: Iterable[int]) -> list[Sight]:
        """The newest sight of each of some workers."""
        return [self._sights[pid][-1] for pid in pids]

    def statuses(self) -> set[int]:
        """All that were answered."""
        return {sight.status for sights in self._sights.values() for sight in sights}

    def set_cookies(self) -> int:
        """Return how many cookies the answers set."""
        return sum(sight.set_cookies for sights in self._sights.values() for sight in sights)
