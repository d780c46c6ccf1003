"""The ledger of one sign-in: what was promised about its rights and its end, and every answer that breaks that. Pure.

The promises are those of docs/guarantees.md that can be seen from outside; a finding names the invariant. Roles are
numbered upwards, so that of two things a worker shows one is always the newer. One request at a time uses a session:
what it is shown began after all that it was promised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from .browser import Answer

OUT = 1_000_000
"""The state of a session that was signed out; else the number of its role."""

LAG = 4.0
"""Seconds beyond VERIFY_INTERVAL after which no worker may show a session that was signed out. Generous: a request
that has been waiting for a processor has already read what it shows."""


KEPT = frozenset({"database", "redis", "journal"})
"""Where a sign-out is kept, by :meth:`.Session.flush`. One that is kept nowhere ends with its worker (I33)."""


def is_end(answer: Answer) -> bool:
    """Return whether an answer promises that sessions are over: a sign-out by its place, a log-out everywhere once the
    database has it."""
    return answer.ok and (answer.json.get("kept") in KEPT or answer.json.get("durable", False))


def state_of(user: str | None, role: str | None) -> int:
    """Return the state that user and role stand for."""
    return OUT if user is None else int(str(role).removeprefix("role-"))


@dataclass
class Account:
    """A user's session from its sign-in on, under whichever id.

    :param verify_interval: of the workers, in seconds.
    :ivar promised: its state by the last answer that was a success: a role's number, or ``OUT``.
    :ivar possible: states that requests without success may have brought it to since.
    :ivar ended_at: when its end was promised; `ended_on`: by which workers.
    :ivar seen: worker → the newest state it has shown.
    """

    user: str
    verify_interval: float
    promised: int = 0
    possible: set[int] = field(default_factory=set)
    ended_at: float | None = None
    ended_on: set[int] = field(default_factory=set)
    seen: dict[int, int] = field(default_factory=dict)

    @property
    def allowed(self) -> set[int]:
        """Return the states that agree with what was promised."""
        return {self.promised, *self.possible}

    def promise(self, state: int, answer: Answer) -> None:
        """Note a change that was acknowledged."""
        self.promised, self.possible = state, set()
        if state == OUT:
            self.ended_at = answer.ended
            self.ended_on.add(answer.json["pid"])

    def saw(self, answer: Answer) -> Iterator[str]:
        """Note what a worker shows of the session, and yield the promises that this breaks."""
        shown = answer.json
        pid, user = shown["pid"], shown["user"]
        if user not in (None, self.user):
            yield f"I8/I10: {self.user} is shown as {user}"
        elif user is not None and pid in self.ended_on:
            yield "I5: signed in on the worker that acknowledged the sign-out"
        elif user is not None and self.ended_at and answer.began > self.ended_at + self.verify_interval + LAG:
            yield f"I1: signed in {answer.began - self.ended_at:.1f} s after the sign-out"
        if not shown["unverified"]:
            yield from self._compare(pid, state_of(user, shown["role"]), exactly=shown.get("fresh", False))

    def _compare(self, pid: int, state: int, *, exactly: bool) -> Iterator[str]:
        before = self.seen.setdefault(pid, state)
        self.seen[pid] = max(before, state)
        if state < before:
            yield f"I4: this worker showed {before} before and {state} now"
        if state > max(self.allowed):
            yield "I6: logged out" if state == OUT else "I3: a role that was not asked for"
        elif exactly and state not in self.allowed:
            yield f"I2: a fresh read says {state}"

    def ends(self, states: Collection[int]) -> Iterator[str]:
        """Yield the promises that are broken when all is healed.

        :param states: what each worker shows then, and what the database says.
        """
        if len(set(states)) != 1:
            yield f"I6: workers and database disagree at the end: {sorted(states)}"
        elif not self.allowed.issuperset(states):
            yield f"I6: at the end {states}, promised {self.promised}, possible {sorted(self.possible)}"
