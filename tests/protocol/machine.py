"""The world as a state machine of Hypothesis: each kind of action and fault is a rule.

``python -m tests.protocol.machine EXAMPLES`` prints what has happened in so many worlds, as JSON. It fails if a promise
was broken.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from .actions import REQUESTS, do
from .invariants import Broken
from .walker import GOES_BACK, LABELS, ORDER, STEPS, Schedule, shrink
from .world import PROFILES, SERVERS, SLOTS, USERS, WORKERS, World, simulated

workers = st.sampled_from(list(WORKERS))
slots = st.sampled_from(SLOTS[:2])
users = st.sampled_from(USERS)
labels = st.sampled_from(LABELS[:2])
stepped = st.sampled_from(("", "", *(f"{label}: " for label in LABELS[:2])))
"""Some requests run through; the others stop at every store."""

OVERLAPPING = (
    *(f"{name} {{worker}} {{slot}}" for name in REQUESTS if name not in ("sign_in", "revoke_user")),
    *(f"sign_in {{worker}} {user} {{slot}}" for user in USERS),
    *(f"revoke_user {{worker}} {user}" for user in USERS),
)
"""Every request, to be filled in with the worker that serves it and the browser."""

SERVER_FAULTS = (
    "kill {}", "start {} file", "start {} old", "start {} empty", "freeze {}", "thaw {}", "full {} on", "full {} off",
)  # fmt: skip
CLOCKS = (("h0", STEPS), ("h1", STEPS), ("primary", STEPS[::2]), ("replica", STEPS[::2]))
"""By how much which clock is set. Those of servers forward only: for how long a session lives is checked by them."""
ROLE_CHANGES = ("fail_over", "demote", "stale_names h0", "stale_names h1", "new_names", "replicate 1", "replicate all")


def any_of(*lines: str) -> st.SearchStrategy[str]:
    """Draw one of these lines."""
    return st.sampled_from(lines)


class WorldMachine(RuleBasedStateMachine):
    """Rules let something happen; what must hold is checked by :func:`~.actions.do` after each."""

    census: ClassVar[Counter[str]] = Counter()
    """What has happened in all worlds so far, see ``Promises.census``."""

    world: World
    profile: str
    lines: list[str]

    @initialize(profile=st.sampled_from(list(PROFILES)), is_near=st.sampled_from((True, True, False)))
    def begin(self, profile: str, is_near: bool) -> None:
        """A world in which a user is signed in."""
        self.world, self.profile, self.lines = World(profile), profile, []
        if is_near:
            self._do("near")
        self._do("sign_in w0 alice s0")

    def teardown(self) -> None:
        """Heal everything at the end: then all must agree (I6)."""
        if hasattr(self, "world"):
            try:
                if not self.world.promises.broken:
                    self._do("heal")
            finally:
                self.census.update(self.world.census)
                self.world.close()

    def _do(self, line: str) -> None:
        self.lines.append(line)
        try:
            do(self.world, line)
        except Broken as broken:
            small = shrink(Schedule(self.profile, tuple(self.lines)), broken.invariant)
            raise AssertionError(f"{broken} ({ORDER})\n{small}") from None

    # -- requests --------------------------------------------------------------------------------------------------

    @rule(label=stepped, worker=workers, slot=slots, name=st.sampled_from(("read", "read", "read_old", "fresh")))
    def looks(self, label: str, worker: str, slot: str, name: str) -> None:
        """A user looks at a page."""
        self._do(f"{label}{name} {worker} {slot}")

    @rule(label=stepped, worker=workers, user=users, slot=slots)
    def signs_in(self, label: str, worker: str, user: str, slot: str) -> None:
        """A user signs in."""
        self._do(f"{label}sign_in {worker} {user} {slot}")

    @rule(label=stepped, worker=workers, slot=slots, name=st.sampled_from(("sign_out", "revoke", "revoke_first")))
    def ends(self, label: str, worker: str, slot: str, name: str) -> None:
        """A user signs out, or is signed out."""
        self._do(f"{label}{name} {worker} {slot}")

    @rule(label=stepped, worker=workers, user=users)
    def ends_everywhere(self, label: str, worker: str, user: str) -> None:
        """A user is logged out everywhere."""
        self._do(f"{label}revoke_user {worker} {user}")

    @rule(label=stepped, worker=workers, slot=slots, name=st.sampled_from(("grant", "withdraw", "note")))
    def changes_auth(self, label: str, worker: str, slot: str, name: str) -> None:
        """Rights come and go."""
        self._do(f"{label}{name} {worker} {slot}")

    @rule(
        label=stepped,
        worker=workers,
        slot=slots,
        name=st.sampled_from(("write", "append", "clear", "blind", "add", "visit")),
    )
    def changes_data(self, label: str, worker: str, slot: str, name: str) -> None:
        """A user works."""
        self._do(f"{label}{name} {worker} {slot}")

    @rule(label=stepped, worker=workers, slot=slots, name=st.sampled_from(("renew", "renew", "confirm", "secure")))
    def renews(self, label: str, worker: str, slot: str, name: str) -> None:
        """A session gets another id, for its own sake or because a password was entered; or something asks for that."""
        self._do(f"{label}{name} {worker} {slot}")

    @rule(label=stepped, worker=workers)
    def looks_around(self, label: str, worker: str) -> None:
        """A monitor makes its round."""
        self._do(f"{label}tick {worker}")

    @rule()
    def all_look_around(self) -> None:
        """All monitors make theirs."""
        self._do("tick all")

    @rule()
    def recovers(self) -> None:
        """The monitors have time."""
        self._do("recover")

    @precondition(lambda self: self.world.under_way)
    @rule(label=labels, hows=st.lists(st.sampled_from(("step", "step", "step", "finish", "give_up")), min_size=1))
    def goes_on(self, label: str, hows: list[str]) -> None:
        """A request under way goes on."""
        for how in hows:
            if label in self.world.under_way:
                self._do(f"{how} {label}")

    @rule(
        first=any_of(*OVERLAPPING), second=any_of(*OVERLAPPING), worker=workers, other=workers, slot=slots,
        stops=st.integers(0, 7), end=any_of("finish c", "give_up c", "give_up c; arrive 0", "step c"),
    )  # fmt: skip
    def overlap(self, first: str, second: str, worker: str, other: str, slot: str, stops: int, end: str) -> None:
        """A request is somewhere on its way while another one of the same session comes and goes."""
        self._do(f"c: {first.format(worker=worker, slot=slot)}")
        for _ in range(stops):
            self._do("step c")
        self._do(second.format(worker=other, slot=slot))
        for line in end.split("; "):
            self._do(line)

    @precondition(lambda self: self.world.is_near)
    @rule(worker=workers, slot=slots, late=st.booleans(), change=any_of(*OVERLAPPING), other=workers)
    def changes_what_is_kept(self, worker: str, slot: str, late: bool, change: str, other: str) -> None:
        """Let another worker change a session that a worker keeps, while invalidations to that worker may be late."""
        self._do(f"read {worker} {slot}")
        self._do(f"tick {worker}")
        self._do(f"read {worker} {slot}")
        if late:
            self._do(f"hold {worker}")
        self._do(change.format(worker=other, slot=slot))
        self._do(f"read {worker} {slot}")
        self._do(f"deliver {worker}")

    @rule(worker=workers, other=workers, slot=slots, stops=st.integers(1, 5), end=any_of("sign_out", "revoke"))
    def ends_under_its_old_id(self, worker: str, other: str, slot: str, stops: int, end: str) -> None:
        """A session ends while a request is about to give it another id."""
        self._do(f"sign_in {other} alice {slot}")
        self._do(f"c: renew {worker} {slot}")
        for _ in range(stops):
            self._do("step c")
        self._do(f"{end} {other} {slot}")
        self._do("finish c")

    @precondition(lambda self: self.world.tasks.late)
    @rule(number=st.integers(0, 3))
    def arrives(self, number: int) -> None:
        """A question arrives that no caller waits for any more."""
        self._do(f"arrive {number}")

    @rule(ms=st.sampled_from((100, 1000, 3000, 6000, 11_000, 31_000, 130_000, 3_700_000)))
    def waits(self, ms: int) -> None:
        """Time passes."""
        self._do(f"pass {ms}")

    # -- faults ----------------------------------------------------------------------------------------------------

    @rule(line=any_of("database down", "database hung", "database up", *(f"busy {worker} 2" for worker in WORKERS)))
    def database(self, line: str) -> None:
        """The database fails, or comes back, or has no slot free."""
        self._do(line)

    @rule(line=any_of(*(fault.format(name) for fault in SERVER_FAULTS for name in ("primary", "replica"))))
    def server(self, line: str) -> None:
        """A server fails or comes back; with it the data on its disk, older data, or none."""
        self._do(line)

    @rule(line=any_of(*ROLE_CHANGES))
    def roles(self, line: str) -> None:
        """Make another server the primary, or let a worker learn of it."""
        self._do(line)

    @rule(line=any_of("save", "save", "restore", "restore", "flush", "misplace s0"))
    def loses_data(self, line: str) -> None:
        """Data is lost behind the connections."""
        self._do(line)

    @rule(line=any_of("join_all", *(f"cut {end} {server}" for end in (*WORKERS, "h0", "h1") for server in SERVERS)))
    def network(self, line: str) -> None:
        """Cut the network somewhere, or make it whole again."""
        self._do(line)

    @rule(
        line=any_of(*(f"{what} {worker}" for what in ("crash", "hang_up") for worker in WORKERS), "lose h0", "lose h1")
    )
    def dies(self, line: str) -> None:
        """A worker dies, or a host with its journal, or a connection."""
        self._do(line)

    @rule(line=any_of(*(f"set_clock {name} {step}" for name, steps in CLOCKS for step in steps)))
    def clocks(self, line: str) -> None:
        """The clock of a host or a server is set."""
        self._do(line)

    @rule(line=any_of(*(f"disk {host} {state}" for host in ("h0", "h1") for state in ("tight", "free"))))
    def disks(self, line: str) -> None:
        """The disk of a host is full, or has room again."""
        self._do(line)

    @rule(line=any_of("remember", "remember", GOES_BACK))
    def database_goes_back(self, line: str) -> None:
        """The database is told to remember how it is, and goes back to that after an outage."""
        for each in line.split("; "):
            self._do(each)


def main(examples: int) -> None:
    """Let Hypothesis look for a broken promise, always in the same worlds."""
    with simulated():
        run_state_machine_as_test(
            WorldMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],  # the machine shrinks what it finds itself, which is faster
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(json.dumps(WorldMachine.census))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
