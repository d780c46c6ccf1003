"""One session, looked at through every worker's own door without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

from devservers.processes import wait_until
from tests.support.site.browser import NO_ANSWER, Browser
from tests.support.site.hosts import Worker

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

    :param browser: whose session it is; the cookies as they are now.
    """

    browser: Browser
    workers: Sequence[Worker]
    _sights: dict[str, list[Sight]] = field(default_factory=dict)
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.browser = self.browser.twin()

    def __enter__(self) -> Self:
        self.follow(*self.workers)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads.values():
            thread.join()

    def follow(self, *workers: Worker) -> None:
        """Look at more workers."""
        for worker in workers:
            if worker.name in self._threads:  # it was killed, and runs again
                self._threads[worker.name].join()
            sights = self._sights[worker.name] = []
            thread = threading.Thread(target=self._look, args=(self.browser.twin(worker.url), sights))
            self._threads[worker.name] = thread
            thread.start()

    def _look(self, browser: Browser, sights: list[Sight]) -> None:
        while not self._stop.wait(PAUSE):
            answer = browser.get("/look")
            if answer.status == NO_ANSWER:  # the worker was killed; those that still have to be seen `sees` names
                return
            shown = answer.json if answer.status == 200 else {}
            sights.append(Sight(answer.status, shown, len(answer.set_cookies)))

    def sees(self, *, on: Sequence[Worker] = (), **expected: object) -> None:
        """Wait until every worker (of `on`) has shown this, from now on."""
        begin = {name: len(self._sights[name]) for name in self._names(on)}

        def shown(sight: Sight) -> bool:
            return all(sight.shown.get(name, ...) == value for name, value in expected.items())

        def all_have_shown() -> bool:
            return all(any(map(shown, self._sights[name][at:])) for name, at in begin.items())

        self._until(all_have_shown, f"{expected} on each of {sorted(begin)}")

    def goes_on(self, looks: int = 10) -> None:
        """Wait until every worker that lives was looked at so many times more."""
        followed = [sights for name, sights in self._sights.items() if self._threads[name].is_alive()]
        lengths = [(sights, len(sights)) for sights in followed]
        self._until(lambda: all(len(sights) >= n + looks for sights, n in lengths), "more sights")

    def _names(self, workers: Sequence[Worker]) -> list[str]:
        return [worker.name for worker in workers] or list(self._sights)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, what, pause=0.01)
        except TimeoutError as error:
            last = {name: sights[-1] if sights else None for name, sights in self._sights.items()}
            raise AssertionError(f"{error}; last seen: {last}") from None

    # -- what was seen ---------------------------------------------------------------------------------------------

    def courses(self, name: str, *, on: Sequence[Worker] = ()) -> list[list[Any]]:
        """Return the values of one item on the workers (of `on`) in their order, repetitions left out.

        Each course once: a single one means that it was the same on every worker. An answer that says that the session
        could not be verified is left out.
        """
        courses: list[list[Any]] = []
        for worker in self._names(on):
            sights = [sight.shown for sight in self._sights[worker] if sight.status == 200]
            known = [shown[name] for shown in sights if not shown["unverified"]]
            course = [value for value, _ in groupby(known)]
            if course not in courses:
                courses.append(course)
        return courses

    def statuses(self) -> set[int]:
        """All that were answered."""
        return {sight.status for sights in self._sights.values() for sight in sights}

    def set_cookies(self) -> int:
        """Return how many cookies the answers set."""
        return sum(sight.set_cookies for sights in self._sights.values() for sight in sights)
