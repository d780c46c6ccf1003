"""A few browsers at one system: some stay and read and write, some sign out while it is out of order.

A user who stays has one tab. A user who leaves has two: the second one goes on reading with the cookie of before, as an
open page or a thief would; a request of it may be on its way while the sign-out is.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.support.site.browser import Answer, Browser

from .flask_apps import LISTS
from .history import OLD_COOKIE, READ, SIGN_OUT, Event

PAUSE = (0.1, 0.2)
"""Seconds between two requests of one tab."""

TRIES, AGAIN = 2, 0.5
"""How often a user tries to sign out before going away, and after how many seconds again."""


@dataclass
class Load:
    """The browsers of one system.

    :param leaves: for each user who signs out: how many seconds after :meth:`outage` that is.
    """

    url: str
    seed: str
    stay: int
    leaves: tuple[float, ...]
    events: list[Event] = field(default_factory=list)
    _began: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _tabs: list[Future[None]] = field(default_factory=list)

    def start(self) -> None:
        """Sign all users in, all being well, and let them go on. :raises RuntimeError: one could not."""
        self._pool = ThreadPoolExecutor(self.stay + 2 * len(self.leaves))
        for number in range(self.stay):
            name = f"stays-{number}"
            self._tabs.append(self._pool.submit(self._stay, self._signed_in(name), name))
        for number, after in enumerate(self.leaves):
            name = f"leaves-{number}"
            browser = self._signed_in(name)
            self._tabs.append(self._pool.submit(self._old_cookie, browser.twin(), name))
            self._tabs.append(self._pool.submit(self._leave, browser, name, after))

    def outage(self) -> None:
        """Note that the outage begins now."""
        self._began.set()

    def stop(self) -> None:
        """Wait until every browser has had its last answer."""
        self._over.set()
        self._began.set()
        self._pool.shutdown()
        for tab in self._tabs:
            tab.result()  # raises what went wrong in a thread

    def _signed_in(self, name: str) -> Browser:
        browser = Browser(self.url)
        deadline = time.monotonic() + 30
        while not browser.send("/sign-in", user=name).ok:
            browser.cookies.clear()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.url}: no user can sign in, though all is well")
            time.sleep(0.2)
        return browser

    def _stay(self, browser: Browser, name: str) -> None:
        chance = random.Random(f"{self.seed}-{name}")
        number = 0
        while not self._pause(chance):
            number += 1
            what = chance.choice((READ, READ, *LISTS))
            if what == READ:
                self._note(name, READ, browser.get("/read"))
            else:
                self._note(name, what, browser.send(f"/write/{what}", number=str(number)), number)
        for _ in range(10):  # what is there in the end: a system that is out of order then is asked some more times
            if self._note(name, READ, browser.get("/read")):
                return
            time.sleep(0.5)

    def _old_cookie(self, browser: Browser, name: str) -> None:
        chance = random.Random(f"{self.seed}-{name}-old")
        while not self._pause(chance):
            self._note(name, OLD_COOKIE, browser.twin().get("/read"))

    def _leave(self, browser: Browser, name: str, after: float) -> None:
        chance = random.Random(f"{self.seed}-{name}")
        while not self._began.is_set():
            self._note(name, READ, browser.get("/read"))
            self._began.wait(chance.uniform(*PAUSE))
        self._over.wait(after)
        for _ in range(TRIES):
            if self._note(name, SIGN_OUT, browser.send("/sign-out")):
                return
            time.sleep(AGAIN)

    def _pause(self, chance: random.Random) -> bool:
        return self._over.wait(chance.uniform(*PAUSE))

    def _note(self, name: str, what: str, answer: Answer, number: int | None = None) -> bool:
        shown = answer.json if answer.ok else {}
        lists = {name: tuple(shown[name]) for name in LISTS} if shown else {}
        self.events.append(
            Event(name, what, answer.status, answer.began, answer.ended, shown.get("user"), number, lists)
        )
        return answer.ok
