"""Random schedules from a seed, and the shrinking of those that break a promise.

A walk is in one of several moods: which faults it may meet, and how often requests overlap. Faults that need each
other (an outage of the database, then a failover) meet more often when few others are about.

    python -m tests.protocol.walker 2000            # that many walks; what breaks is printed, shrunk

The package keeps names of stores in sets, whose order is another one in each process: with what breaks goes that order.
``PYTHONHASHSEED`` of 0, 1, 2, 5, 8 and 12 gives each of the six.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flask_langpont_session.policy.health import DATABASE, PRIMARY, REPLICA

from .actions import REQUESTS, do
from .invariants import Broken
from .world import PROFILES, SLOTS, USERS, WORKERS, World, simulated


@dataclass(frozen=True)
class Dice:
    """The choices from which a walk draws.

    :param workers: those that take part; fewer meet more often. So it is with slots.
    """

    rng: random.Random
    workers: tuple[str, ...]
    slots: tuple[str, ...]


Choice = Callable[[Dice], str]

LABELS = "abcd"

ORDER = " ".join({PRIMARY, REPLICA, DATABASE})
"""In which order this process looks at a set of stores."""


def _of(*values: str) -> Choice:
    return lambda dice: dice.rng.choice(values)


def _worker(dice: Dice) -> str:
    return dice.rng.choice(dice.workers)


def _slot(dice: Dice) -> str:
    return dice.rng.choice(dice.slots)


_user = _of(*USERS)
_server = _of("primary", "replica")
STEPS = ("10000", "-10000", "3600000", "-3600000", "86400000", "-86400000")
"""By which a clock is set: ten seconds, an hour, and a day."""


def _request(name: str, *arguments: Choice) -> Choice:
    def line(dice: Dice) -> str:
        label = f"{dice.rng.choice(LABELS)}: " if dice.rng.random() < 0.25 else ""
        return label + " ".join([name, *(argument(dice) for argument in arguments)])

    return line


def _event(name: str, *arguments: Choice) -> Choice:
    return lambda dice: " ".join([name, *(argument(dice) for argument in arguments)])


def _any_request(dice: Dice) -> str:
    name = dice.rng.choice(list(REQUESTS))
    if name == "revoke_user":
        return f"{name} {_worker(dice)} {_user(dice)}"
    return " ".join([name, _worker(dice), *([_user(dice)] if name == "sign_in" else []), dice.slots[0]])


def _overlap(dice: Dice) -> str:
    """Return a request that is somewhere on its way while another one of the same session comes and goes."""
    stops = ["step a"] * dice.rng.randint(0, 7)
    end = dice.rng.choice(("finish a", "give_up a", "give_up a; arrive 0", "step a"))
    return "; ".join([f"a: {_any_request(dice)}", *stops, _any_request(dice), end])


ALWAYS: tuple[tuple[int, Choice], ...] = (
    (20, _request("read", _worker, _slot)),
    (2, _request("read_old", _worker, _slot)),
    (3, _request("fresh", _worker, _slot)),
    (6, _request("sign_in", _worker, _user, _slot)),
    (4, _request("sign_out", _worker, _slot)),
    (2, _request("revoke", _worker, _slot)),
    (2, _request("revoke_first", _worker, _slot)),
    (2, _request("revoke_user", _worker, _user)),
    (3, _request("grant", _worker, _slot)),
    (3, _request("withdraw", _worker, _slot)),
    (2, _request("note", _worker, _slot)),
    (2, _request("write", _worker, _slot)),
    (6, _request("append", _worker, _slot)),
    (1, _request("clear", _worker, _slot)),
    (1, _request("blind", _worker, _slot)),
    (1, _request("add", _worker, _slot)),
    (3, _request("renew", _worker, _slot)),
    (2, _request("confirm", _worker, _slot)),
    (2, _request("secure", _worker, _slot)),
    (1, _request("visit", _worker, _slot)),
    (6, _request("tick", _worker)),
    (8, _event("tick", _of("all"))),
    (5, _event("recover")),
    (6, _event("pass", _of("100", "1000", "3000"))),
    (4, _event("pass", _of("6000", "11000", "20000"))),
    (16, _event("step", _of(*LABELS))),
    (3, _event("finish", _of(*LABELS))),
    (3, _event("replicate", _of("1", "all"))),
    (3, _overlap),
)

_NEEDED = (0, 3)
"""A user must sign in, and a user must look."""

GOES_BACK = "database down; pass 6000; tick all; pass 6000; tick all; go_back; database up"
"""No failover and no restore of a backup is without an outage. All workers notice it."""

FAULTS: dict[str, tuple[tuple[int, Choice], ...]] = {
    "database": ((3, _event("database", _of("down", "hung"))), (3, _event("database", _of("up")))),
    "busy": ((2, _event("busy", _worker, _of("1", "2"))),),
    "busy journal": ((3, _event("unread", _of("h0", "h1"), _of("1", "2"))),),
    "database cut": ((2, _event("cut", _of(*WORKERS, "h0", "h1"), _of("D"))), (2, _event("join_all"))),
    "redis cut": ((2, _event("cut", _of(*WORKERS, "h0", "h1"), _of("A", "B"))), (2, _event("join_all"))),
    "failover": ((2, _event("fail_over")), (1, _event("demote"))),
    "stale names": (
        (1, _event("stale_names", _of("h0", "h1"))),
        (2, _event("fail_over")),
        (1, _event("demote")),
        (1, _event("new_names")),
    ),
    "restart": (
        (2, _event("kill", _server)),
        (3, _event("start", _server, _of("file", "old", "empty"))),
        (2, _event("kill primary; start primary", _of("file", "old", "empty"))),
        (1, _event("save")),
    ),
    "no redis": (
        (2, _event("freeze primary; freeze replica")),
        (2, _event("pass 70000")),
        (1, _event("thaw primary; thaw replica")),
    ),
    "freeze": ((2, _event("freeze", _server)), (2, _event("thaw", _server))),
    "loss": ((1, _event("flush")), (2, _event("save")), (2, _event("restore"))),
    "full": ((1, _event("full", _server, _of("on"))), (1, _event("full", _server, _of("off")))),
    "timeouts": ((4, _event("give_up", _of(*LABELS))), (2, _event("arrive", _of("0", "1")))),
    "crash": ((2, _event("crash", _worker)),),
    "misplaced": ((2, _event("misplace", _slot)),),
    "host": ((3, _event("lose", _of("h0", "h1"))),),
    "clocks of hosts": ((2, _event("set_clock", _of("h0", "h1"), _of(*STEPS))),),
    "clocks of servers": ((2, _event("set_clock", _server, _of(*STEPS[::2]))),),
    "a database that goes back": ((2, _event("remember")), (1, _event(GOES_BACK))),
    "disk": ((2, _event("disk", _of("h0", "h1"), _of("tight"))), (2, _event("disk", _of("h0", "h1"), _of("free")))),
    "long waits": ((2, _event("pass", _of("45000", "100000", "600000", "3700000"))),),
}


@dataclass(frozen=True)
class Schedule:
    """A list of actions, and the profile of settings under which they happen."""

    profile: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"profile {self.profile}", *self.lines])


def parse(text: str) -> Schedule:
    """A schedule from its text; ``3 x step b`` stands for three lines, and what stands behind ``#`` is for readers."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    parts = [line.partition(" x ") for line in lines if line]
    lines = [line for first, x, rest in parts for line in ([rest] * int(first) if x else [first])]
    profile = "short"
    if lines and lines[0].startswith("profile "):
        profile = lines.pop(0).removeprefix("profile ")
    return Schedule(profile, tuple(lines))


def _alone(choice: Choice) -> Choice:
    return lambda dice: "; ".join(line.rpartition(": ")[2] for line in choice(dice).split("; "))


def generate(seed: int, length: int = 80) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    moods = rng.sample(sorted(FAULTS), rng.choice((1, 2, 2, 3, 4)))
    # Some of what can always happen does not, each time something else: the rest meets more often.
    usual = [choice for number, choice in enumerate(ALWAYS) if number in _NEEDED or rng.random() < 0.6]
    if rng.random() < 0.4:  # no request overlaps another one: then every entry of a list must be accounted for
        usual = [(weight, _alone(choice)) for weight, choice in usual]
    choices = [*usual, *(choice for mood in moods for choice in FAULTS[mood])]
    dice = Dice(rng, tuple(rng.sample(list(WORKERS), rng.choice((2, 2, 3, 4)))), SLOTS[: rng.choice((1, 1, 2))])
    profile = rng.choices(list(PROFILES), (4, 3, 1, 1, 1, 2, 2, 3))[0]
    picked = rng.choices([line for _, line in choices], [weight for weight, _ in choices], k=length)
    first = f"sign_in {_worker(dice)} {_user(dice)} s0" if rng.random() < 0.7 else f"visit {_worker(dice)} s0"
    lines = "; ".join([first, *(line(dice) for line in picked), "heal"])
    found = lines.split("; ")
    return Schedule(profile, tuple(_near(dice, found) if rng.random() < 2 / 3 else found))


_WHERE = _of(*WORKERS, "h0", "h1")
NEAR: tuple[tuple[int, Choice], ...] = (
    (4, _event("tick", _of("all"))),
    (2, _event("hold", _WHERE)),
    (2, _event("deliver", _WHERE)),
    (1, _event("hang_up", _worker)),
    (2, _event("pass", _of("100", "900"))),
)
"""What is about messages of a server of what has changed."""


def _near(dice: Dice, lines: Sequence[str]) -> list[str]:
    """The same with what was read kept near. A session is looked at several times in a row."""
    found = ["near"]
    for line in lines[:-1]:
        found.append(line)
        if line.startswith("read ") and dice.rng.random() < 0.7:
            found.append(line)
        if dice.rng.random() < 0.2:
            [choice] = dice.rng.choices([each for _, each in NEAR], [weight for weight, _ in NEAR])
            found.append(choice(dice))
    return [*found, lines[-1]]


def broken_by(schedule: Schedule, census: Counter[str] | None = None) -> tuple[str, int, str] | None:
    """The invariant that a schedule breaks, by which of its lines, and how; None: it breaks none.

    :param census: what has happened is added to it, see ``World.census``.
    """
    world = World(schedule.profile)
    done = 0
    try:
        for line in schedule.lines:
            do(world, line)
            done += 1
    except Broken as broken:
        return broken.invariant, done, str(broken)
    finally:
        if census is not None:
            census.update(world.census)
        world.close()
    return None


def shrink(schedule: Schedule, invariant: str) -> Schedule:
    """A schedule of few lines that breaks the same invariant."""

    def breaks(lines: Sequence[str]) -> bool:
        found = broken_by(Schedule(schedule.profile, tuple(lines)))
        return found is not None and found[0] == invariant

    found = broken_by(schedule)
    lines = list(schedule.lines[: found[1] + 1] if found else schedule.lines)
    size = max(1, len(lines) // 2)
    while size:
        for start in _starts(lines, size):
            if start < len(lines):
                fewer = lines[:start] + lines[start + size :]
                if breaks(fewer):
                    lines = fewer
        size //= 2
    before = -1
    while before != len(lines):  # single lines once more, until none can go
        before = len(lines)
        for start in _starts(lines, 1):
            fewer = lines[:start] + lines[start + 1 :]
            if breaks(fewer):
                lines = fewer
    return Schedule(schedule.profile, tuple(lines))


def _starts(lines: Sequence[str], size: int) -> Iterator[int]:
    return iter(range(len(lines) - size, -1, -size))


def main(arguments: Sequence[str]) -> int:
    """RequestScope; what breaks is printed."""
    count, first = int(arguments[0]) if arguments else 1000, int(arguments[1]) if len(arguments) > 1 else 0
    wrong = 0
    with simulated():
        for seed in range(first, first + count):
            schedule = generate(seed)
            found = broken_by(schedule)
            if found is not None:
                wrong += 1
                small = shrink(schedule, found[0])
                result = broken_by(small)
                sys.stdout.write(f"--- seed {seed}, {ORDER}: {result and result[2]}\n{small}\n")
    sys.stdout.write(f"{count} walks, {wrong} broken\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
