"""Events that a search of random worlds must meet often enough to prove something."""

from __future__ import annotations

from collections import Counter

from .actions import EVENTS, REQUESTS

USUAL = 1000
"""Examples of the machine, and walks, that the numbers below are about."""

OF_SCHEDULES = {"rest", "kept", "shown", "unknown", "doubts", "former", "strange"}
"""What happens in kept schedules only."""

EVERYTHING = dict.fromkeys((*REQUESTS, *(EVENTS.keys() - OF_SCHEDULES), "tick"), (3, 30))
"""Every kind of request and event happens, and what follows from them does, too: see :data:`REACHED`."""

REACHED: dict[str, tuple[int, int]] = EVERYTHING | {
    "unread": (0, 30),  # of walks only: S11 holds with a journal that can be read
    "set_clock": (500, 15),
    "remember": (200, 15),
    "go_back": (150, 15),
    "disk": (300, 15),
    # servers and networks
    "another primary": (20, 100),
    "file primary started": (0, 30),
    "old primary started": (0, 30),
    "empty primary started": (0, 30),
    "flush": (20, 40),
    "restore": (100, 80),
    "cut": (250, 200),
    "database fails": (80, 150),
    "another server": (80, 500),
    "loss noticed": (100, 200),
    "records_set_aside": (0, 5),
    # workers and hosts
    "crash with a journal": (40, 20),
    "loss of a journal": (8, 8),
    "breaker opened": (1000, 3000),
    "late change": (6, 1),
    "said": (2000, 5000),
    # what is kept near
    "hit": (1, 1000),
    "late hit": (0, 15),
    # levels and verdicts
    "level 1": (200, 1000),
    "level 2": (50, 500),
    "level 3": (0, 150),
    "level 4": (80, 600),
    "valid by primary": (700, 5000),
    "valid by database": (300, 2000),
    "valid by local": (50, 700),
    "dead by primary": (3000, 10_000),
    "unverifiable by none": (150, 1000),
    # grants and revocations
    "grant refused": (40, 200),
    "ended meanwhile": (50, 3),
    "step-up True": (0, 120),
    "step-up False": (0, 3),
    "privileged": (0, 300),
    "revocation at level 0": (300, 600),
    "revocation at level 1": (50, 100),
    "revocation at level 2": (5, 50),
    "revocation at level 3": (0, 15),
    "revocation at level 4": (5, 50),
    "revocation of a user at level 0": (300, 120),
    "revocation of a user at level 1": (20, 20),
    "revocation of a user at level 2": (0, 10),
    "revocation of a user at level 3": (0, 4),
    "revocation of a user at level 4": (0, 3),
    "revocation waits": (80, 200),
    "revocation of a user waits": (100, 40),
    "many sessions of a user end": (20, 30),
    "chain of ids revoked": (0, 2),
    "ended: killed": (300, 1000),
    "ended: epoch": (40, 40),
    "ended: idle": (0, 8),
    # what comes home
    "repair all database ok": (40, 30),
    "extend_idle all primary ok": (0, 5),
    "merged_fields": (12, 80),
    "merge_conflicts": (0, 3),
    "merge_dropped": (15, 50),
}
"""What happens at least so often in the usual number of examples of the machine and of walks, by its name in
``World.census``: at most a third of what does, and nothing of what the one meets too rarely to count on. A search that
does not get there proves nothing."""


def missed(census: Counter[str], search: int, share: float) -> dict[str, int]:
    """Return the events that happened less often than required, and how often each did."""
    return {name: census[name] for name, least in REACHED.items() if census[name] < int(least[search] * share)}
