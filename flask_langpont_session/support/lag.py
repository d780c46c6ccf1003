"""The lateness of this process: the time in which it wanted to go on and had no turn, because another thread held the
interpreter's lock or another process the processor.

A store that answers at once looks slow to a process that does not come to read the answer. So all waits for stores end
by a :class:`Deadline`, which moves on when this process was late, and their time is taken net of its lateness. That is
measured by a thread that sleeps for a moment again and again and notes how late it wakes. There is one per process; it
rests while nothing is waited for, and looking whether there is something to do is no reason to wake it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Self
from weakref import WeakSet

from .forks import renew_in_children
from .threads import start_daemon

TICK = 0.01
"""Seconds that the measuring thread sleeps at a time."""

REST = 1.0
"""Seconds that it measures from the beginning of a wait, twice as many if that may last longer; then it rests. Also how
long a figure is remembered for :attr:`Lag.longest`."""

LATE = 0.2
"""A process is late that missed more than this share of the time in question: what it waited for may be well."""

ON_TIME = 0.95
"""The pace of a process whose waits do not go on after their time, as a rule."""

LEAST_WAIT = 0.005
"""Seconds. With less left than this nothing is asked any more: it could not answer in time."""

MORE, TIMES = 1.0, 5
"""By how much a wait of a late process goes on, once: at most so many seconds, and so many times what it was given. It
is more than it was late: a thread may have to wait for its turn longer than the one that measures; and often the whole
host is late, on which what is waited for has to run, too."""


class Wait(float):
    """Seconds that a call may wait for its answer.

    :param whole: seconds for everything, a connection that has to be made first included.
    """

    __slots__ = ("whole",)

    whole: float

    def __new__(cls, seconds: float, whole: float) -> Self:
        """Both in seconds."""
        wait = super().__new__(cls, seconds)
        wait.whole = whole
        return wait


class Lag:
    """The lateness of one process. Usable from any thread; a forked child begins at nought, with a thread of its own.

    :param clock: monotonic seconds.
    :param sleep: what the thread sleeps with; None: ``time.sleep``, which gevent may exchange after this was made.
    :ivar overtimes: waits that went on after their time because this process was late. The monitor looks at the stores
        then, instead of waiting for them to end.
    :ivar on_overtime: events that are set then.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] | None = None
    ) -> None:
        self.clock = clock
        self._sleep = sleep
        self._begin()
        renew_in_children(self, Lag._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._runs = False
        self._wanted_at = -math.inf  # when the last wait began
        self._wanted_for_long_at = -math.inf  # when the last one began that may last longer than REST
        self.overtimes = 0
        self.on_overtime: WeakSet[threading.Event] = WeakSet()
        # Seconds late until the last tick, and when the next one is due (infinity: the thread rests). One tuple, so
        # that a reader never sees the one without the other.
        self._state = 0.0, math.inf
        self._longest = 0.0, 0.0  # of the period before, and of this one
        self._began = (0.0, 0.0), (0.0, 0.0)  # when they began, and the seconds late by then

    def attend(self, now: float, until: float = 0.0) -> float:
        """Measure from now on, for a while. Called by everything that begins to wait.

        :param now: of :attr:`clock`.
        :param until: when the wait may end at the latest.
        :return: what :meth:`late` says.
        """
        self._wanted_at = now
        if until > now + REST:
            self._wanted_for_long_at = now
        late, due = self._state
        if due == math.inf:
            self._start()
        return late if now <= due else late + now - due

    def _start(self) -> None:
        with self._lock:
            if self._state[1] < math.inf:
                return
            is_new, self._runs = not self._runs, True
            now, late = self.clock(), self._state[0]
            self._began = (now, late), (now, late)
            self._state = late, now + TICK
            self._wake.set()
        # Without the lock: the start of a thread waits for it.
        if is_new and start_daemon("langpont-session-lag", self._run) is None:  # the next wait tries again
            self._runs, self._state = False, (late, math.inf)

    def overtime(self) -> None:
        """Note that a wait goes on after its time."""
        self.overtimes += 1
        for event in tuple(self.on_overtime):
            event.set()

    def late(self, now: float | None = None) -> float:
        """Return the seconds that this process has been late since it began. Only the difference between two calls
        means something: the part of the time between them that did not count.

        :param now: of :attr:`clock`, if it is at hand.
        """
        late, due = self._state
        if now is None:
            now = self.clock()
        return late if now <= due else late + now - due

    def passed(self) -> float:
        """Return the time of this process: seconds that do not pass while it is late. Only differences mean
        something."""
        now = self.clock()
        return now - self.late(now)

    @property
    def rests(self) -> bool:
        """Return whether nothing has been waited for in the last second."""
        return self._state[1] == math.inf

    @property
    def longest(self) -> float:
        """Return the longest lateness of the last one or two seconds, in seconds. 0 while nothing is waited for."""
        due = self._state[1]
        return max(*self._longest, self.clock() - due if due < math.inf else 0.0)

    def is_late(self, seconds: float, since: float) -> bool:
        """Return whether this process, and not what it waited for, may be the reason why a wait was in vain. One thread
        may wait for its turn much longer than another: the last second or two count, too.

        :param seconds: that were waited.
        :param since: what :meth:`late` said before that.
        """
        return self.late() - since > seconds * LATE or self.is_behind

    @property
    def is_behind(self) -> bool:
        """Return whether this process was late in the last second or two."""
        return self.pace < 1 - LATE

    @property
    def pace(self) -> float:
        """Return the share of the last one or two seconds that passed for this process: 1 while it is never late."""
        now, (began, late) = self.clock(), self._began[0]
        if self._state[1] == math.inf or now - began < TICK:
            return 1.0
        return 1 - max(0.0, self.late(now) - late) / (now - began)

    def with_overtime(self, seconds: float) -> float:
        """Return the seconds to give a wait so that it is over after `seconds` even where it goes on because this
        process is late. Such a wait may end early, so that nothing follows from it by itself."""
        return seconds if self.pace > ON_TIME else seconds / (1 + TIMES)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self.tick():
                pass

    def tick(self) -> bool:
        """Sleep for a moment and note how late this is. Public so that tests can drive it.

        :return: False: the thread may rest.
        """
        late, due = self._state
        (self._sleep or time.sleep)(max(0.0, due - self.clock()))
        now = self.clock()
        self._longest = self._longest[0], max(self._longest[1], now - due)
        late += max(0.0, now - due)
        self._state = late, now + TICK
        if now >= self._began[1][0] + REST:
            self._longest = self._longest[1], 0.0
            self._began = self._began[1], (now, late)
        wanted_at = self._wanted_at
        if now < max(wanted_at + REST, self._wanted_for_long_at + 2 * REST):
            return True
        self._longest, self._state = (0.0, 0.0), (late, math.inf)
        if self._wanted_at != wanted_at:  # said just before that: it was not seen that the thread rests
            self._start()
        return False


PROCESS = Lag()
"""The lag of this process."""

NEVER = Lag()
"""The lag of a process that is never late, for clocks that are told the time: nothing waits by it."""


def of(clock: Callable[[], float]) -> Lag:
    """Return the lag that goes with a clock."""
    return PROCESS if clock is PROCESS.clock else NEVER


class Deadline:
    """The end of a wait. It moves on, once, if this process was late meanwhile.

    :param at: when the wait ends if this process is not late, by :attr:`Lag.clock`.
    :param attends: whether the lateness is measured for this wait. If not, it moves on by what is measured for others.
    :ivar at: when it ends, as far as is known.
    """

    __slots__ = ("_began", "_is_extended", "_lag", "_late", "at")

    def __init__(self, at: float, lag: Lag | None = None, *, attends: bool = True) -> None:
        self._lag = PROCESS if lag is None else lag
        self.renew(at, attends=attends)

    def renew(self, at: float, *, attends: bool = True) -> None:
        """Begin another wait."""
        self.at = at
        self._began = began = self._lag.clock()
        self._late = self._lag.attend(began, at) if attends else self._lag.late(began)
        self._is_extended = False

    @classmethod
    def after(cls, seconds: float, lag: Lag | None = None, *, attends: bool = True) -> Deadline:
        """Return the end of a wait that begins now."""
        return cls((PROCESS if lag is None else lag).clock() + seconds, lag, attends=attends)

    @property
    def late(self) -> float:
        """Return the seconds that this process was late since the wait began."""
        return max(0.0, self._lag.late() - self._late)

    def left(self) -> float:
        """Return the seconds that are left, at least; not more than 0: the wait is over."""
        now = self._lag.clock()
        left = self.at - now
        if left > 0 or self._is_extended or not self._lag.is_late(now - self._began, self._late):
            return left
        self._is_extended = True
        self._lag.overtime()
        more = min(MORE, TIMES * max(0.0, self.at - self._began))
        self.at = now + more
        return more

    def wait(self, attempt: Callable[[float], bool]) -> bool:
        """Wait for something, and look once more when the time is over: it may have come while this process was late.

        :param attempt: waits so many seconds, and says whether what is waited for has come; with 0 it only looks.
        :return: whether it has come.
        """
        if attempt(max(0.0, self.at - self._lag.clock())):
            return True
        while (left := self.left()) > 0:
            if attempt(left):
                return True
        return attempt(0.0)


def no_answer(seconds: float, late: float) -> str:
    """Return a sentence, for people, that there was no answer in time.

    :param seconds: that were waited for an answer, as it was meant.
    :param late: seconds that this process was late meanwhile.
    """
    said = f"no answer within {seconds * 1000:.0f} ms"
    return f"{said} (this process was late by {late * 1000:.0f} ms)" if late >= 0.001 else said
