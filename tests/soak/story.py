"""One signed-in session, what was promised about it, and every way in which an answer can break a promise.

The promises are those of docs/guarantees.md that can be seen from outside; a finding names the invariant. Roles of a
session are numbered upwards, so that of two things a worker shows, one is always the newer. One person at a time uses a
session: what he is shown began after all that he was promised.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from flask_langpont_session.policy.ids import digest_of
from tests.stories.ledger import OUT, state_of
from tests.stories.visitor import COOKIE
from tests.support.site.browser import Answer, Browser

LAG = 4.0
"""Seconds beyond VERIFY_INTERVAL after which no worker may show a session that was signed out. Generous: a request
that has been waiting for a processor has already read what it shows."""

_REMEMBERED = 12
"""Answers that a finding quotes."""


@dataclass
class Story:
    """One session and what became of it.

    :param promised: its state by the last answer that was a success: a role's number, or ``OUT``.
    :param possible: states that requests without success may have brought it to since.
    """

    user: str
    browser: Browser
    verify_interval: float
    promised: int = 0
    possible: set[int] = field(default_factory=set)
    #: When and by which workers its end was promised.
    ended_at: float | None = None
    ended_on: set[int] = field(default_factory=set)
    #: Worker → the newest state it has shown.
    seen: dict[int, int] = field(default_factory=dict)
    #: How often a request tried to add one to its counter.
    increments: int = 0
    findings: list[str] = field(default_factory=list)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def __post_init__(self) -> None:
        self.browser = self.browser.twin()  # it keeps its id, whatever the browser is given afterwards

    @property
    def digest(self) -> str:
        """Return the digest under which the stores know the session."""
        return digest_of(self.browser.cookies[COOKIE].split(".")[0])

    @property
    def allowed(self) -> set[int]:
        """The states that agree with what was promised."""
        return {self.promised, *self.possible}

    def promise(self, state: int, answer: Answer) -> None:
        """A change was acknowledged."""
        self.promised, self.possible = state, set()
        if state == OUT:
            self.ended_at = answer.ended
            self.ended_on.add(answer.json["pid"])

    def saw(self, what: str, answer: Answer) -> None:
        """A worker showed the session by its own id: compare it with everything promised."""
        shown = answer.json
        pid, user = shown["pid"], shown["user"]
        state = None if shown["unverified"] else state_of(user, shown["role"])
        self.recent.append(
            f"{answer.began:.3f}–{answer.ended:.3f} {what} on {pid}, level {shown['level']}: {state}, "
            f"count {shown.get('count')} of {self.increments}, "
            f"promised {self.promised}, possible {sorted(self.possible)}"
        )
        if user not in (None, self.user):
            self.found("I8/I10: it shows another user")
        text = shown["text"]
        if text is not None and not text.startswith(f"{self.user}:"):
            self.found("I10: it shows another visitor's text")
        if shown.get("count", 0) > self.increments:
            self.found(f"an addition counted twice: {shown['count']} after {self.increments} at most")
        if user is not None:
            self._look_for_resurrection(pid, answer)
        if state is not None:
            self._compare(pid, state, exactly=shown.get("fresh", False))

    def _look_for_resurrection(self, pid: int, answer: Answer) -> None:
        if pid in self.ended_on:
            self.found("I5: signed in on the worker that acknowledged the sign-out")
        elif self.ended_at is not None and answer.began > self.ended_at + self.verify_interval + LAG:
            self.found(f"I1: signed in {answer.began - self.ended_at:.1f} s after the sign-out")

    def _compare(self, pid: int, state: int, *, exactly: bool) -> None:
        before = self.seen.setdefault(pid, state)
        if state < before:
            self.found(f"I4: this worker showed {before} before and {state} now")
        self.seen[pid] = max(before, state)
        if state > max(self.allowed):
            self.found("I6: logged out" if state == OUT else "I3: a role that was not asked for")
        elif exactly and state not in self.allowed:
            self.found(f"I2: a fresh read says {state}")

    def ends(self, states: set[int], row: bool | None) -> None:
        """All is healed: what each worker shows now, and whether the database calls it alive (None: no row)."""
        if len(states) != 1:
            self.found(f"I6: the workers disagree at the end: {sorted(states)}")
        elif not states <= self.allowed:
            self.found(f"I6: at the end {states}, promised {self.promised}, possible {sorted(self.possible)}")
        elif bool(row) != (OUT not in states):
            self.found(f"I6: the database says {row}, the workers show {sorted(states)}")

    def found(self, text: str) -> None:
        """Note what broke a promise, and what was answered before."""
        self.findings.append(f"{self.user}: {text}\n    " + "\n    ".join(self.recent))
