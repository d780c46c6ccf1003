"""People at a soak: they sign in, read, write, count, get other roles, sign out, and are logged out everywhere.

Each has one name and two browsers, and does one thing at a time; what each does follows from the seed.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from tests.stories.ledger import OUT
from tests.stories.visitor import COOKIE
from tests.support.site.browser import NO_ANSWER, Answer, Browser

from .story import Story

PEOPLE = 6

PAUSE = 0.03
"""Seconds between two requests of one person, on average."""

REFUSED = 0.2
"""Seconds that a user waits who was refused a sign-in."""

GRANTS = frozenset({"sign-in", "role"})
"""What may be refused with 503 and Retry-After while the database does not answer; nothing else may."""

DEEDS = {"read": 44, "text": 14, "count": 10, "role": 9, "fresh": 5, "sign-out": 6, "everywhere": 2, "grave": 10}
"""What a signed-in user does next, by weight. ``grave``: an old cookie of his is tried."""

MOST_ROLES = 6
"""Changes of role of one session."""


@dataclass
class Crowd:
    """A context manager: people come and go while it is open.

    :param url: of the host.
    :param limit: seconds within which everything must be answered.
    :param verify_interval: of the application, in seconds.
    """

    url: str
    seed: int
    limit: float
    verify_interval: float
    stories: list[Story] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    #: (what was asked for, status) → how often.
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    #: Worker → the levels at which it answered.
    levels: dict[int, set[int]] = field(default_factory=dict)
    #: When grants were acknowledged: began, ended. Likewise fresh reads that were answered with yes.
    confirmed: list[tuple[float, float]] = field(default_factory=list)
    #: When requests had no answer.
    unanswered: list[tuple[float, float]] = field(default_factory=list)
    slowest: float = 0.0
    #: Everything that must not stand in a log.
    secrets: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(PEOPLE)
        people = [Person(self, f"person-{number}", random.Random(f"{self.seed}-{number}")) for number in range(PEOPLE)]
        self._people = [self._pool.submit(person.live, self._over) for person in people]
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for person in self._people:
            person.result()  # raises what went wrong in a thread

    def check(self, what: str, request: Callable[[], Answer]) -> Answer:
        """Ask for something, and look at what every answer must be like."""
        answer = request()
        with self._lock:
            self.counts[what, answer.status] += 1
            if answer.status == NO_ANSWER:
                self.unanswered.append((answer.began, answer.ended))
                return answer
            self.slowest = max(self.slowest, answer.seconds)
            if answer.ok:
                shown = answer.json
                self.levels.setdefault(shown["pid"], set()).add(shown["level"])
                if what in GRANTS or shown.get("fresh"):
                    self.confirmed.append((answer.began, answer.ended))
        if answer.seconds > self.limit:
            self.found(f"I12: {what} took {answer.seconds:.2f} s, from {answer.began:.3f} on")
        refused = answer.status == 503 and what in GRANTS and "Retry-After" in answer.headers
        if not answer.ok and not refused:
            self.found(f"I13: {what} was answered {answer.status} at {answer.began:.3f}")
        return answer

    def found(self, text: str) -> None:
        """Note what broke a promise."""
        self.findings.append(text)

    def all_findings(self) -> list[str]:
        """Return all findings, those of the sessions too."""
        return [*self.findings, *(text for story in self.stories for text in story.findings)]

    def table(self) -> str:
        """Return how often each action got each status."""
        return ", ".join(f"{what} {status}: {count}" for (what, status), count in sorted(self.counts.items()))


class Person:
    """One user with two browsers."""

    def __init__(self, crowd: Crowd, user: str, chance: random.Random) -> None:
        self._crowd = crowd
        self._user = user
        self._chance = chance
        self._browsers = [Browser(crowd.url), Browser(crowd.url)]
        #: Of each browser: the session in which it is signed in, as far as its user knows.
        self._stories: list[Story | None] = [None, None]
        self._graves: list[Story] = []
        #: Of each browser: the session that was ended elsewhere, whose cookie it still has.
        self._left_with: list[Story | None] = [None, None]
        self._texts = 0

    def live(self, over: threading.Event) -> None:
        """Do one thing after another."""
        while not over.is_set():
            number = self._chance.randrange(2)
            story = self._stories[number]
            if story is None:
                self._come(number)
            else:
                deed = self._chance.choices(list(DEEDS), list(DEEDS.values()))[0]
                getattr(self, f"_do_{deed.replace('-', '_')}")(number, story)
            time.sleep(self._chance.uniform(0, 2 * PAUSE))

    # -- without a session -------------------------------------------------------------------------------------------

    def _come(self, number: int) -> None:
        browser = self._browsers[number]
        if self._chance.random() < 0.3:
            had_cookie = bool(browser.cookies)
            answer = self._ask("anonymous text", lambda: browser.send("/text", text=self._text()))
            self._expect_cookies("anonymous text", answer, 0 if had_cookie else None)
            if answer.ok:
                self._came_without_a_user(number, answer)
        else:
            self._sign_in(number)

    def _came_without_a_user(self, number: int, answer: Answer) -> None:
        left = self._left_with[number]
        if left is not None:
            left.saw("anonymous text", answer)
        elif answer.json["user"] is not None:
            self._crowd.found(f"I8: {self._user} is signed in without having signed in")

    def _sign_in(self, number: int) -> None:
        browser = self._browsers[number]
        had_cookie = bool(browser.cookies)
        answer = self._ask("sign-in", lambda: browser.send("/sign-in", user=self._user, role="role-0"))
        # The page that says no has a form, whose CSRF token is a reason for a visitor's first cookie.
        self._expect_cookies("sign-in", answer, 1 if answer.ok else 0 if had_cookie else None)
        if answer.status == 503:
            time.sleep(REFUSED)
        if answer.ok:
            left, self._left_with[number] = self._left_with[number], None
            # A worker that does not know of the end yet carries the counter over.
            counted = left.increments if left is not None else 0
            story = Story(self._user, browser, self._crowd.verify_interval, increments=counted)
            story.saw("sign-in", answer)
            self._stories[number] = story
            self._crowd.stories.append(story)
            self._crowd.secrets |= {browser.cookies[COOKIE].split(".")[0], story.digest}

    # -- signed in ---------------------------------------------------------------------------------------------------

    def _do_read(self, number: int, story: Story) -> None:
        self._look("read", story, lambda: story.browser.get("/all-of-me"))

    def _do_fresh(self, number: int, story: Story) -> None:
        self._look("fresh", story, lambda: story.browser.get("/fresh"))

    def _do_grave(self, number: int, story: Story) -> None:
        if self._graves:
            self._do_read(number, self._chance.choice(self._graves[-3:]))

    def _look(self, what: str, story: Story, request: Callable[[], Answer]) -> Answer:
        answer = self._ask(what, request)
        self._expect_cookies(what, answer, 0)
        if answer.ok:
            story.saw(what, answer)
        return answer

    def _do_text(self, number: int, story: Story) -> None:
        self._look("text", story, lambda: story.browser.send("/text", text=self._text()))

    def _do_count(self, number: int, story: Story) -> None:
        story.increments += 1
        self._look("count", story, lambda: story.browser.send("/count"))

    def _do_role(self, number: int, story: Story) -> None:
        role = max(story.allowed) + 1
        if role > MOST_ROLES:
            return
        story.possible.add(role)
        answer = self._ask("role", lambda: story.browser.send("/role", role=f"role-{role}"))
        self._expect_cookies("role", answer, 0)
        if answer.ok:
            self._granted(role, story, answer)

    def _granted(self, role: int, story: Story, answer: Answer) -> None:
        shown = answer.json
        if shown["unverified"] or shown["user"] is None:
            story.found(f"a role was granted to no user: unverified {shown['unverified']}, user {shown['user']}")
            return
        story.promise(role, answer)
        story.saw("role", answer)

    def _do_sign_out(self, number: int, story: Story) -> None:
        browser = self._browsers[number]
        story.possible.add(OUT)
        answer = self._ask("sign-out", lambda: browser.send("/sign-out"))
        self._expect_cookies("sign-out", answer, 1 if answer.ok else 0)
        if answer.ok:
            story.promise(OUT, answer)
        else:
            browser.cookies.clear()
        self._write_tombstone(number)

    def _do_everywhere(self, number: int, story: Story) -> None:
        hit = [(at, found) for at, found in enumerate(self._stories) if found is not None]
        for _, each in hit:
            each.possible.add(OUT)
        answer = self._ask("everywhere", lambda: story.browser.send("/everywhere", user=self._user))
        self._expect_cookies("everywhere", answer, 0)
        for at, each in hit:
            if answer.ok:
                each.promise(OUT, answer)
                self._left_with[at] = each
            else:
                self._browsers[at].cookies.clear()
            self._write_tombstone(at)

    def _write_tombstone(self, number: int) -> None:
        story = self._stories[number]
        assert story is not None
        self._graves.append(story)
        self._stories[number] = None

    # -- asking ------------------------------------------------------------------------------------------------------

    def _text(self) -> str:
        self._texts += 1
        return f"{self._user}:{self._texts}"

    def _ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        return self._crowd.check(what, request)

    def _expect_cookies(self, what: str, answer: Answer, expected: int | None) -> None:
        """None: one, or none at all."""
        number = len(answer.set_cookies)
        if answer.status != NO_ANSWER and (number > 1 if expected is None else number != expected):
            self._crowd.found(f"I9/I15: {what} set {number} cookies instead of {expected} at {answer.began:.3f}")
