"""People who sign in, get other roles and sign out without a pause, and a ledger of what they were promised.

An answer of 200 to such a request is a promise. Roles of a session are numbered upwards, so that of two things a
worker shows, one is always the newer.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.site.browser import NO_ANSWER, Answer

from .visitor import Visitor

OUT = 1_000_000
"""The state of a session that was signed out; else the number of its role."""

CHANGES = ("sign-in", "role", "sign-out")

MOST_CHANGES = 4
"""Role changes of one session at most."""

STAYS = 0.4
"""The share of sessions that are not signed out."""


@dataclass
class Story:
    """One session and what became of it.

    :param promised: its state by the last answer that was a 200.
    :param tried: its state if requests that were not answered with 200 did their work all the same.
    """

    user: str
    visitor: Visitor
    promised: int = 0
    tried: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    went_back: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def allowed(self) -> set[int]:
        """The states that agree with what was promised; what was only tried may have happened, too."""
        return {self.promised, self.tried}

    def saw(self, shown: Mapping[str, Any]) -> None:
        """A worker showed it. Newer than before is right, older than before is a privilege shown again."""
        if shown["unverified"]:
            return
        state = state_of(shown["user"], shown["role"])
        before = self.seen.setdefault(shown["pid"], state)
        if state < before:
            self.went_back.append((shown["pid"], before, state))
        self.seen[shown["pid"]] = max(before, state)


def state_of(user: str | None, role: str | None) -> int:
    """The state that user and role stand for."""
    return OUT if user is None else int(str(role).removeprefix("role-"))


@dataclass
class Load:
    """A context manager: people come and go while it is open.

    :param url: of the host.
    :param people: at a time.
    """

    url: str
    people: int
    stories: list[Story] = field(default_factory=list)
    #: Phase, and what was promised in it, or the class of status.
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: float = 0.0
    phase: str = "before"
    #: Phase, worker, and the level at which it answered.
    levels: set[tuple[str, int, int]] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.people)
        self._people = [self._pool.submit(self._live, random.Random(number), number) for number in range(self.people)]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for person in self._people:
            person.result()  # raises what went wrong in a thread

    def promised(self, phase: str) -> int:
        """Return how many auth changes were acknowledged in a phase."""
        return sum(self.counts[phase, what] for what in CHANGES)

    def workers(self, phase: str, levels: Collection[int]) -> set[int]:
        """Process ids of the workers that answered at one of these levels in a phase."""
        return {pid for at, pid, level in self.levels.copy() if at == phase and level in levels}

    def failures(self) -> dict[tuple[str, str], int]:
        """Answers that were no 200, by phase and class of status."""
        return {key: count for key, count in self.counts.items() if key[1] not in (*CHANGES, "read")}

    def table(self) -> str:
        """Return a table of acknowledged changes and failures of each phase."""
        phases = list(dict.fromkeys(phase for phase, _ in self.counts))
        columns = [*CHANGES, "read", "5xx", "no answer"]
        lines = [f"{'':14}" + "".join(f"{column:>11}" for column in columns)]
        lines += [f"{phase:14}" + "".join(f"{self.counts[phase, c]:11,}" for c in columns) for phase in phases]
        return "\n".join(lines)

    def _live(self, chance: random.Random, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            story = Story(f"user-{number}-{turn}", Visitor(self.url))
            if self._do(story, "sign-in", 0, user=story.user, role="role-0"):
                self.stories.append(story)
                self._go_on(story, chance)

    def _go_on(self, story: Story, chance: random.Random) -> None:
        for role in range(1, chance.randint(0, MOST_CHANGES) + 1):
            self._do(story, "role", role, role=f"role-{role}")
            self._read(story)
        if chance.random() > STAYS:
            self._do(story, "sign-out", OUT)
            self._read(story)

    def _do(self, story: Story, what: str, state: int, **form: str) -> bool:
        """Ask for a change. Whether it was promised."""
        story.tried = state
        browser = story.visitor if what == "sign-in" else story.visitor.twin()  # the story keeps its first cookie
        answer = self._ask(lambda: browser.send(f"/{what}", **form), what)
        if answer is None:
            return False
        story.promised = state
        story.saw(answer.json)
        return True

    def _read(self, story: Story) -> None:
        answer = self._ask(lambda: story.visitor.get("/me"), "read")
        if answer is not None:
            story.saw(answer.json)

    def _ask(self, request: Callable[[], Answer], what: str) -> Answer | None:
        phase, answer = self.phase, request()
        outcome = {200: what, NO_ANSWER: "no answer"}.get(answer.status, f"{answer.status // 100}xx")
        with self._lock:
            self.counts[phase, outcome] += 1
            self.slowest = max(self.slowest, answer.seconds)
            if outcome == what:
                self.levels.add((phase, answer.json["pid"], answer.json["level"]))
        return answer if outcome == what else None
