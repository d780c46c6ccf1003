"""Users and visitors, each sticky to one host and at either worker of it: they append, count, clear, come and go."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from .account import OUT, Account, is_end
from .browser import COOKIE, Answer, Browser
from .findings import Finding, short
from .hosts import Host, Worker
from .ledger import Life

USERS, VISITORS = 12, 4

PAUSE = 0.12
"""Seconds between two requests of one actor, on average."""

GRANTS = frozenset({"sign-in", "regenerate", "role"})
"""What may be refused with 503 while the database does not answer; nothing else may."""

SIGNED_IN = {
    "append": 52, "look": 14, "count": 12, "text": 8, "theme": 4, "regenerate": 3, "role": 5, "fresh": 4, "grave": 3,
    "sign-out": 1, "everywhere": 1,
}  # fmt: skip
SIGNED_OUT = {"append": 40, "look": 10, "count": 10, "text": 5, "sign-in": 30}
VISITOR = {"append": 52, "look": 14, "count": 12, "text": 8, "theme": 4, "regenerate": 3, "clear": 5}
"""What an actor does next, by weight."""


@dataclass(eq=False)
class Clear:
    """The entries that a visitor cleared, and whether one of them was shown again.

    :param session: the beginning of the digest that was asked with.
    :param asked: monotonic seconds.
    :param answered: monotonic seconds.
    """

    entries: frozenset[int]
    session: str
    asked: float
    answered: float
    undone: bool = False


@dataclass
class Crowd:
    """A context manager: the actors act while it is open, and what they do follows from the seed."""

    hosts: Sequence[Host]
    seed: int
    verify_interval: float = 1.0
    #: Session ids that must not stand in a log.
    secrets: set[str] = field(default_factory=set)
    down: set[Worker] = field(default_factory=set)
    #: (path, status) → how often.
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    #: Level → how often an answer was given at it.
    levels: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    #: Answers that showed a user as a stranger, but for those that said that it could not be verified.
    strangers: int = 0
    #: Sessions of which it is not known under which id they go on, or whether.
    abandoned: int = 0
    actors: list[Actor] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        for number in range(USERS + VISITORS):
            user = f"user-{number}" if number < USERS else None
            host = self.hosts[number % len(self.hosts)]
            name = user or f"visitor-{number}"
            self.actors.append(Actor(self, name, user, host, random.Random(f"{self.seed}-{number}")))
        self._pool = ThreadPoolExecutor(len(self.actors))
        self._acting = [self._pool.submit(actor.live, self._over) for actor in self.actors]
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for acting in self._acting:
            acting.result()  # raises what went wrong in a thread

    def note(self, path: str, answer: Answer) -> None:
        """Count an answer, and check what every answer must be like."""
        with self._lock:
            self.answers[path, answer.status] += 1
            if answer.ok:
                self.levels[answer.json["level"]] += 1
            elif answer.status != 0 and not (
                answer.status == 503 and path in GRANTS and "Retry-After" in answer.headers
            ):
                self.errors.append(f"{path} was answered {answer.status}")


def is_refusal(answer: Answer) -> bool:
    """Return whether a request was refused for the time being."""
    return answer.status == 503 and "Retry-After" in answer.headers


LOOKS = frozenset({"look", "fresh"})
"""Paths that are asked for and change nothing."""

_TOLD = ("level", "available", "user", "role", "count", "list", "kept")
"""What a history tells of an answer."""


def _short(value: Any) -> str:
    return f"…{value[-6:]} ({len(value)})" if isinstance(value, list) else str(value)


class Event(NamedTuple):
    """A request and its answer.

    :param at: seconds since the crowd began.
    :param session: the beginning of the digest that the browser has now.
    """

    at: float
    session: str
    text: str


class Actor:
    """One browser.

    :param name: as findings have it.
    :param user: the user that signs in with it; None: a visitor.
    """

    def __init__(self, crowd: Crowd, name: str, user: str | None, host: Host, chance: random.Random) -> None:
        self._crowd = crowd
        self.name = name
        self.user = user
        self.host = host
        self._chance = chance
        self.browser = Browser(host.workers[0].url)
        self.signed_in = False
        #: A grant was refused: it may have been made all the same.
        self.in_doubt = False
        self.life = Life()
        #: This one and those before it.
        self.lives = [self.life]
        self.clears: list[Clear] = []
        #: Browsers with the cookies of sessions that ended.
        self.graves: list[Browser] = []
        self.account: Account | None = None
        #: Accounts that ended, each with a browser that still has its cookie.
        self.ended: list[tuple[Account, Browser]] = []
        self.acknowledged = Counter[str]()
        self.history: list[Event] = []
        #: What is wrong; none: its history need not be told.
        self.wrong: list[Finding] = []
        self.notes: list[Finding] = []
        self._entries = 0

    @property
    def expected(self) -> str | None:
        """Return the user that every answer shows."""
        return self.user if self.signed_in else None

    def live(self, over: threading.Event) -> None:
        """Do one thing after another."""
        while not over.is_set():
            weights = VISITOR if self.user is None else SIGNED_IN if self.signed_in else SIGNED_OUT
            deed = self._chance.choices(list(weights), list(weights.values()))[0]
            getattr(self, f"_do_{deed.replace('-', '_')}")()
            over.wait(self._chance.uniform(0, 2 * PAUSE))  # as a person who reads the page

    # -- deeds -------------------------------------------------------------------------------------------------------

    def _do_append(self) -> None:
        self._entries += 1
        entry, life = self._entries, self.life
        shown = self._lasting(self._ask("append", entry=str(entry)))
        if self.life is life:
            life.appended(entry, shown)
        if shown is not None:
            self.acknowledged["append"] += 1
            self.look_for_cleared(shown["list"])

    def _do_look(self) -> None:
        shown = self._lasting(self._ask("look"))
        if shown is not None:
            self.life.saw(shown)
            if not str(shown["blind"] or self.name).removeprefix("text of ").startswith(self.name):
                self._broken(f"I10: shows another's text: {shown['blind']}")
            if shown["level"] == 0 and shown["theme_available"]:
                self.life.saw_theme(shown["theme"])
            self.look_for_cleared(shown["list"])

    def _do_count(self) -> None:
        life = self.life
        shown = self._lasting(self._ask("count"))
        if self.life is life:
            life.added(shown)
        self.acknowledged["count"] += shown is not None

    def _do_text(self) -> None:
        self._entries += 1
        life, text = self.life, f"text of {self.name}:{self._entries}"
        shown = self._lasting(self._ask("set", source_lang=text))
        if self.life is life:
            life.set_text(text, shown)

    def _do_theme(self) -> None:
        self._entries += 1
        self.life.set_theme(f"theme {self._entries}")
        self._ask("set", theme=f"theme {self._entries}")

    def _do_clear(self) -> None:
        asked, session = time.monotonic(), short(self.browser.cookie)
        answer = self._ask("clear")
        if not answer.ok:
            self.life.is_uncertain()
            return
        self.clears.append(Clear(frozenset(self.life.entries), session, asked, time.monotonic()))
        self._begin()

    def _do_regenerate(self) -> None:
        old = self.browser.twin()
        answer = self._ask("regenerate")
        if answer.ok and self.browser.cookie != old.cookie and old.cookie:
            self.graves.append(old)
        elif answer.status == 503:
            self.in_doubt = True
        elif not answer.ok:
            self._abandon()

    def _do_sign_in(self) -> None:
        old = self.browser.twin()
        answer = self._ask("sign-in", user=str(self.user))
        if answer.ok and self.browser.cookie != old.cookie:
            self.signed_in = True  # what the visitor had is carried, and left under the old id to run out
            self.account = Account(str(self.user), self._crowd.verify_interval)
            self._saw(self.account, answer)
        elif answer.status != 503:  # that is tried again, later
            self._abandon()

    def _do_sign_out(self) -> None:
        old = self.browser.twin()
        answer = self._ask("sign-out")
        if not is_end(answer):
            self._abandon()
            return
        if self.browser.cookie == old.cookie:
            self.browser.cookies.pop(COOKIE, None)
        themes = self.life.themes
        self._ends(old, answer)
        self.life.themes |= themes  # carried to an anonymous session, which has nothing else of it

    def _do_role(self) -> None:
        account = self.account
        assert account is not None
        role = max(account.allowed) + 1
        account.possible.add(role)
        answer = self._ask("role", role=f"role-{role}")
        if answer.ok and answer.json["user"] is not None and not answer.json["unverified"]:
            account.promise(role, answer)
        elif answer.ok and account is self.account:
            self._broken("I3: a role was granted to no user")

    def _do_fresh(self) -> None:
        self._ask("fresh")

    def _do_grave(self) -> None:
        for account, browser in self.ended[-3:]:
            worker, asked_at = self._worker(), time.monotonic()
            answer = browser.twin(worker.url).get("/look")
            self._crowd.note("look", answer)
            self._tell(worker, asked_at, "look again", answer, browser)
            if answer.ok:
                self._saw(account, answer, browser)

    def _do_everywhere(self) -> None:
        worker, asked_at = self._worker(), time.monotonic()
        answer = Browser(worker.url).send("/everywhere", user=str(self.user))
        self._crowd.note("everywhere", answer)
        self._tell(worker, asked_at, "everywhere", answer, self.browser)
        if is_end(answer):
            old = self.browser.twin()
            self.browser.cookies.clear()
            self._ends(old, answer)
        else:
            self._abandon()

    def _ends(self, old: Browser, answer: Answer) -> None:
        """The session was ended by this answer."""
        self.graves.append(old)
        if self.account is not None and not self.in_doubt:
            self.account.promise(OUT, answer)
            self.ended.append((self.account, old))
        self._forget_user()
        self._begin()

    # -- asking ------------------------------------------------------------------------------------------------------

    def _worker(self) -> Worker:
        up = [worker for worker in self.host.workers if worker not in self._crowd.down]
        return self._chance.choice(up or self.host.workers)

    def _ask(self, path: str, **form: str) -> Answer:
        worker, had_cookie, asked_at = self._worker(), self.browser.cookie is not None, time.monotonic()
        browser = self.browser.at(worker.url)
        answer = browser.get(f"/{path}") if path in LOOKS else browser.send(f"/{path}", **form)
        self._crowd.note(path, answer)
        self._look_at_cookies(path, answer, had_cookie=had_cookie)
        self._tell(worker, asked_at, " ".join([path, *form.values()]), answer)
        if answer.status == 0 and not had_cookie and path not in LOOKS:
            self._abandon()  # nothing leads to what it may have written
        if answer.ok and path != "sign-in":
            self._compare_user(answer.json)
            if self.account is not None and not self.in_doubt and path != "sign-out":
                self._saw(self.account, answer)
        return answer

    def _saw(self, account: Account, answer: Answer, browser: Browser | None = None) -> None:
        """Compare an answer with what was promised of an account.

        :param browser: that got the answer; None: the actor's own.
        """
        for text in account.saw(answer):
            self._broken(f"{text} (promised {account.promised}, possible {sorted(account.possible)})", browser)

    def _broken(self, text: str, browser: Browser | None = None) -> None:
        """Note that a promise is broken.

        :param browser: of the session; None: the actor's own.
        """
        self._crowd.errors.append(f"{self.name}: {text}")
        self.wrong.append(Finding(text, (browser or self.browser).cookie))

    def _look_at_cookies(self, path: str, answer: Answer, *, had_cookie: bool) -> None:
        """I9, I15: no answer sets two cookies, and one that changes nothing sets none."""
        number = len(answer.set_cookies)
        if number > (0 if had_cookie and path in LOOKS else 1):
            self._broken(f"I9/I15: {path} set {number} cookies")
        if self.browser.cookie:
            self._crowd.secrets.add(self.browser.cookie.split(".")[0])

    def _tell(self, worker: Worker, asked_at: float, what: str, answer: Answer, ended: Browser | None = None) -> None:
        """Note an answer for the history of its session.

        :param ended: the browser that got it, if its session is over; None: the actor's own.
        """
        asked, answered = asked_at - self._crowd.began, time.monotonic() - self._crowd.began
        shown = answer.json if answer.ok else {}
        told = ", ".join(f"{key} {_short(shown[key])}" for key in _TOLD if key in shown)
        session = short((ended or self.browser).cookie)
        text = f"{asked:6.2f}–{answered:6.2f} {worker.name} {what}: {answer.status} {told} [{session}]"
        self.history.append(Event(asked, session, text))
        if ended is None:
            self.life.sessions.add(session)

    def _lasting(self, answer: Answer) -> Mapping[str, Any] | None:
        """Return the answer's content, and its times, if it promises that what was written lasts, or that what it shows
        is stored; else None."""
        if not answer.ok:
            return None
        shown: Mapping[str, Any] = {**answer.json, "began": answer.began, "ended": answer.ended}
        return shown if shown["available"] and shown["user"] == self.expected else None

    def _compare_user(self, shown: Mapping[str, Any]) -> None:
        if shown["user"] not in (None, self.expected):
            self._crowd.errors.append(f"{self.user} is shown as {shown['user']}")
        if self.signed_in and shown["user"] is None and not shown["unverified"]:
            if self.in_doubt:
                self._abandon()
            else:
                self._crowd.strangers += 1
                self.notes.append(Finding(f"is shown as a stranger at level {shown['level']}", self.browser.cookie, []))

    def _abandon(self) -> None:
        """Give up the session: it is not known under which id it goes on, if at all."""
        self._crowd.abandoned += 1
        self.browser.cookies.clear()
        self._forget_user()
        self._begin()

    def _forget_user(self) -> None:
        self.signed_in, self.in_doubt, self.account = False, False, None

    def _begin(self) -> None:
        """Begin another list."""
        self.life = Life()
        self.lives.append(self.life)

    def look_for_cleared(self, entries: Sequence[int]) -> None:
        """Note the clears of which an entry is shown again."""
        for clear in self.clears:
            if not clear.undone and clear.entries.intersection(entries):
                clear.undone = True
                shown = sorted(clear.entries.intersection(entries))
                self.wrong.append(Finding(f"shows what was cleared: {shown}", self.browser.cookie, shown))
