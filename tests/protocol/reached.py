"""Events that a search of random worlds must meet often enough to prove something."""

from __future__ import annotations

from collections import Counter

from .actions import EVENTS, REQUESTS

USUAL = 1000
"""Walks that the numbers below are about."""

OF_SCHEDULES = {"rest", "kept", "left", "shown", "unknown", "doubts", "former", "strange", "until_merged"}
"""What happens in kept schedules only."""

EVERYTHING = dict.fromkeys((*REQUESTS, *(EVENTS.keys() - OF_SCHEDULES), "tick"), 30)
"""Every kind of request and event happens, and what follows from them does, too: see :data:`REACHED`."""

REACHED: dict[str, int] = EVERYTHING | {
    "set_clock": 15,
    "remember": 15,
    "go_back": 15,
    "disk": 15,
    # servers and networks
    "another primary": 100,
    "file primary started": 30,
    "old primary started": 30,
    "empty primary started": 30,
    "flush": 36,
    "restore": 80,
    "cut": 130,
    "database fails": 110,
    "another server": 500,
    "loss noticed": 170,
    "records_set_aside": 3,
    # workers and hosts
    "crash with a journal": 10,
    "loss of a journal": 8,
    "breaker opened": 1400,
    "late change": 1,
    "said": 5000,
    # what is kept near
    "hit": 750,
    "late hit": 12,
    # levels and verdicts
    "level 1": 600,
    "level 2": 500,
    "level 3": 150,
    "level 4": 130,
    "valid by primary": 5000,
    "valid by database": 2000,
    "valid by local": 650,
    "dead by primary": 10_000,
    "unverifiable by none": 600,
    # grants and revocations
    "grant refused": 150,
    "ended meanwhile": 3,
    "step-up True": 120,
    "step-up False": 3,
    "privileged": 300,
    "revocation at level 0": 600,
    "revocation at level 1": 100,
    "revocation at level 2": 50,
    "revocation at level 3": 15,
    "revocation at level 4": 5,
    "revocation of a user at level 0": 120,
    "revocation of a user at level 1": 20,
    "revocation of a user at level 2": 10,
    "revocation of a user at level 3": 4,
    "revocation waits": 200,
    "revocation of a user waits": 40,
    "many sessions of a user end": 30,
    "chain of ids revoked": 2,
    "ended: killed": 1000,
    "ended: epoch": 40,
    "ended: idle": 8,
    # what comes home
    "repair all database ok": 30,
    "extend_idle all primary ok": 5,
    "merged_fields": 80,
    "merge_conflicts": 3,
    "merge_dropped": 50,
}
"""What happens at least so often in the usual number of walks, by its name in ``World.census``: at most a third of what
does, and nothing that is met too rarely to count on. A search that does not get there proves nothing."""


def missed(census: Counter[str], share: float) -> dict[str, int]:
    """Return the events that happened less often than required, and how often each did."""
    return {name: census[name] for name, least in REACHED.items() if census[name] < int(least * share)}
