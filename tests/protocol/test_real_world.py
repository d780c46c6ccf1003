"""The package on real servers is told, and leaves in the stores, what the simulation says it is told and leaves.

Failovers, lost and old data, killed servers and broken networks are real here; the simulated world is the oracle.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence

import pytest

from devservers.servers import Postgres, Valkey
from flask_langpont_session.policy.categories import AUTH

from . import actions
from .ablations import ABLATIONS
from .actions import do
from .real_world import RealWorld, Servers
from .schedules import KEPT, Kept
from .tasks import Path
from .walker import Schedule
from .world import WORKERS, World

ASKED_FOR = os.environ.get("LANGPONT_REAL_SCHEDULES")
GENERATED, LENGTH = int(ASKED_FOR or "8"), 14

LONGEST_MS = 8000
"""Time does not pass in real stores: schedules that need more than this would be told otherwise."""

SIMULATION_ONLY = {
    "freeze", "thaw", "give_up", "arrive", "busy", "misplace", "start primary old", "database hung", "near",
    "set_clock primary 86400000",
}  # fmt: skip
"""Waiting for time-outs and slots, replies that are lost, records that got lost, the disk of another day, messages
that are late, and a server's clock that is set."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    a, b, postgres = (tmp_path_factory.mktemp(name) for name in ("a", "b", "postgres"))
    with (
        Valkey(a) as one,
        Valkey(b) as other,
        Postgres(postgres) as database,
        Servers({"A": one, "B": other}, database) as servers,
    ):
        yield servers


def simulated_time(lines: tuple[str, ...]) -> int:
    """Milliseconds that a schedule lets pass."""
    passes = [int(line.split()[1]) for line in lines if line.startswith("pass ")]
    return sum(passes) + 4000 * lines.count("recover")


def is_for_real_servers(schedule: Schedule) -> bool:
    """Return whether a schedule needs nothing that only a simulation can do quickly."""
    verbs = {line.split()[0] for line in schedule.lines} | set(schedule.lines)
    return simulated_time(schedule.lines) <= LONGEST_MS and not verbs & SIMULATION_ONLY


def events(kept: Kept) -> set[str]:
    """Return what a schedule asks of servers and networks: its requests and whether others come between, its faults and
    where they are, and the invariant that it is about."""
    found = {kept.breaks}
    for line in kept.schedule.lines:
        label, _, rest = line.rpartition(": ")
        name = rest.split()[0]
        found.add(f"{bool(label)} {name}" if name in actions.REQUESTS else rest)
    return found


def few_with_all_events(kept: Sequence[Kept]) -> list[Kept]:
    """Return schedules that have between them every event of all."""
    chosen: list[Kept] = []
    while left := set[str]().union(*map(events, kept)).difference(*map(events, chosen)):
        chosen.append(max(kept, key=lambda one: len(events(one) & left)))
    return chosen


REAL = [kept for kept in KEPT if is_for_real_servers(kept.schedule)]
CHOSEN = REAL if ASKED_FOR else few_with_all_events(REAL)


REQUESTS = (
    "read", "read", "read_old", "fresh", "sign_out", "revoke", "revoke_first", "grant", "withdraw", "note", "write",
    "renew",
)  # fmt: skip
FAULTS = (
    "database down", "database up", "kill primary", "start primary file", "start primary empty", "fail_over", "demote",
    "flush", "save", "restore", "full primary on", "full primary off", "cut h0 D", "cut h1 A", "cut h1 B", "join_all",
    "lose h1",
)  # fmt: skip


def generated(seed: int) -> Schedule:
    """Requests, and now and then a fault or the end of all faults."""
    rng = random.Random(seed)
    workers = rng.sample(("w0", "w1", "w2", "w3"), 2)
    lines = [f"sign_in {workers[0]} alice s0", f"read {workers[1]} s0", "tick all", "save"]
    while len(lines) < LENGTH:
        name, worker = rng.choice((*REQUESTS, "sign_in", "revoke_user", "fault", "fault", "fault")), rng.choice(workers)
        user = rng.choice(("alice", "root"))
        lines.append(
            rng.choice(FAULTS) if name == "fault"
            else f"sign_in {worker} {user} s0" if name == "sign_in"
            else f"revoke_user {worker} {user}" if name == "revoke_user"
            else f"{name} {worker} s0"
        )  # fmt: skip
        if rng.random() < 0.1 and lines.count("recover") < LONGEST_MS // 4000:
            lines.append("recover")
    return Schedule("exact", (*lines, "heal"))


def agree(schedule: Schedule, servers: Servers) -> None:
    """Run a schedule in both worlds, line by line, and compare; at last every worker is asked."""
    looks = [f"{look} {worker} s0" for worker in WORKERS for look in ("read", "fresh")]
    profile = "exact" if schedule.profile == "short" else schedule.profile  # real clocks agree
    one, other = World(profile), None
    try:
        one.cut_path = Path.BROKEN
        other = RealWorld(profile, servers)
        for number, line in enumerate([*schedule.lines, *looks]):
            line = "rest" if line == "heal" else line
            if line.startswith(("kept", "left")):  # looks at simulated servers; what real ones have is compared below
                continue
            for world in (one, other):
                do(world, line)
                if not world.under_way:
                    do(world, "replicate all")
            where = f"after line {number} of\n{schedule}\n"
            assert one.told == other.told, where
            assert {digest: (row.version, row.live) for digest, row in one.tables.rows.items()} == other.rows(), where
            assert records(one) == other.records(), where
    finally:
        one.close()
        if other is not None:
            other.close()


def records(world: World) -> dict[str, tuple[bool, int]]:
    """See ``RealWorld.records``."""
    primary = world.cluster.primary
    if not primary.alive:
        return {}
    found = {key.digest: primary.get(key) for key in primary.data if key.category == AUTH and not key.shadow}
    said = {digest: record.auth for digest, record in found.items() if record and record.auth}  # a visitor's is none
    return {digest: (auth.is_live, auth.version if auth.is_live else 0) for digest, auth in said.items()}


def test_a_difference_is_noticed(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation that leaves no tombstones is not what real servers do."""
    [guarded] = [kept for kept in REAL if kept.part == "guard of writes"]
    [deletes] = [ablation for ablation in ABLATIONS if ablation.name == "tombstone instead of DEL"]
    monkeypatch.setattr(deletes.owner, deletes.function, deletes.without)
    with pytest.raises(AssertionError, match="after line 5 of"):
        agree(guarded.schedule, servers)


@pytest.mark.parametrize("kept", CHOSEN, ids=str)
def test_a_kept_schedule_goes_as_simulated(kept: Kept, servers: Servers) -> None:
    """Servers and simulation agree on a kept schedule, but for times, which only the simulation checks."""
    agree(kept.schedule, servers)


@pytest.mark.parametrize("seed", range(GENERATED))
def test_a_random_schedule_goes_as_simulated(seed: int, servers: Servers) -> None:
    """A session, its requests and whatever happens to the stores meanwhile."""
    agree(generated(seed), servers)
