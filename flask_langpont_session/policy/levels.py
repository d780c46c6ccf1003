"""The decision table: the levels of an outage, and what each priority gets at each level.

This file may not do I/O, read a clock or know of a store: it knows four facts and three tables. Argue with a cell here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from .categories import Priority

LEVELS: Mapping[int, str] = {
    0: "normal",  # the primary takes reads and writes
    1: "replica",  # writes fail; the primary or a replica answers reads
    2: "local_cache",  # no Redis answers, and the local copies are still young
    3: "database",  # no Redis answers, and the local copies have aged out
    4: "minimal",  # neither Redis nor the database answers
}


class Behaviour(StrEnum):
    """A cell of the decision table: what a feature gets at a level."""

    PRIMARY = "primary"
    DATABASE_FALLBACK = "database_fallback"
    LOCAL_CACHE_FALLBACK = "local_cache_fallback"
    DEFAULT_VALUE = "default_value"
    DISABLE_FEATURE = "disable_feature"
    EMERGENCY_MODE = "emergency_mode"


class Shown(StrEnum):
    """The source of what a feature shows while no Redis answers."""

    NOTHING = "nothing"
    COPY = "copy"  # what this host has kept of it
    DEFAULT = "default"  # what DEFAULTS says, or nothing


class Kept(StrEnum):
    """The place where saved data is. The later, the worse."""

    DATABASE = "database"  # for good
    REDIS = "redis"  # where it belongs; as durable as that server
    JOURNAL = "journal"  # on this host's disk, until Redis takes it: see docs/guarantees.md
    NOWHERE = "nowhere"  # it ends with this request

    @classmethod
    def worst(cls, places: Iterable[Kept]) -> Kept | None:
        """Return the worst of several places; None: there are none."""
        return max(places, key=tuple(cls).index, default=None)


class Effect(NamedTuple):
    """The effect of a behaviour on a feature outside of auth.

    :param shown: while no Redis answers.
    :param written: where it is kept what a request writes.
    :param is_available: what ``Session.available()`` says, as far as it is known what the session has of the feature.
    """

    shown: Shown
    written: Kept
    is_available: bool = True


_B = Behaviour

EFFECTS: Mapping[Behaviour, Effect] = {
    _B.PRIMARY: Effect(Shown.NOTHING, Kept.REDIS),
    _B.LOCAL_CACHE_FALLBACK: Effect(Shown.COPY, Kept.JOURNAL),
    _B.DEFAULT_VALUE: Effect(Shown.DEFAULT, Kept.NOWHERE),
    _B.DISABLE_FEATURE: Effect(Shown.DEFAULT, Kept.NOWHERE, is_available=False),
}
"""The effects of all behaviours but those of critical features, which follow from the rules of leases."""

AS_COPY = frozenset(behaviour for behaviour, effect in EFFECTS.items() if effect.shown is Shown.COPY)
AS_DEFAULT = frozenset(behaviour for behaviour, effect in EFFECTS.items() if effect.shown is Shown.DEFAULT)
WAITING = frozenset(behaviour for behaviour, effect in EFFECTS.items() if effect.written is Kept.JOURNAL)
LOSING = frozenset(behaviour for behaviour, effect in EFFECTS.items() if effect.written is Kept.NOWHERE)
"""The behaviours by which a change ends with its request."""

Row = Mapping[int, Behaviour]

BEHAVIOURS: Mapping[Priority, Row] = {
    Priority.CRITICAL: {0: _B.PRIMARY, 1: _B.DATABASE_FALLBACK, 2: _B.DATABASE_FALLBACK,
                        3: _B.DATABASE_FALLBACK, 4: _B.EMERGENCY_MODE},
    Priority.HIGH:     {0: _B.PRIMARY, 1: _B.LOCAL_CACHE_FALLBACK, 2: _B.LOCAL_CACHE_FALLBACK,
                        3: _B.DISABLE_FEATURE, 4: _B.DISABLE_FEATURE},
    Priority.MEDIUM:   {0: _B.PRIMARY, 1: _B.DEFAULT_VALUE, 2: _B.DEFAULT_VALUE,
                        3: _B.DISABLE_FEATURE, 4: _B.DISABLE_FEATURE},
    Priority.LOW:      {0: _B.PRIMARY, 1: _B.DEFAULT_VALUE, 2: _B.DEFAULT_VALUE,
                        3: _B.DISABLE_FEATURE, 4: _B.DISABLE_FEATURE},
}  # fmt: skip

ALLOWED: Mapping[Priority, frozenset[Behaviour]] = {
    # Anything else for critical would show an identity that nothing confirmed.
    Priority.CRITICAL: frozenset({_B.PRIMARY, _B.DATABASE_FALLBACK, _B.EMERGENCY_MODE}),
    **{
        priority: frozenset({_B.PRIMARY, _B.LOCAL_CACHE_FALLBACK, _B.DEFAULT_VALUE, _B.DISABLE_FEATURE})
        for priority in (Priority.HIGH, Priority.MEDIUM, Priority.LOW)
    },
}


def level(*, reads: bool, writes: bool, database: bool, outage_age: float, local_ttl: float) -> int:
    """Return the degradation level.

    :param reads: some Redis (the primary or a replica) answers reads.
    :param writes: the primary takes writes.
    :param database: the database answers.
    :param outage_age: seconds since Redis last answered reads.
    :param local_ttl: seconds a local copy may be used.
    """
    if reads:
        return 0 if writes else 1
    if not database:
        return 4
    return 2 if outage_age < local_ttl else 3


def build_behaviours(configured: Mapping[str, Mapping[Any, str]]) -> tuple[Mapping[Priority, Row], list[str]]:
    """Return the default table with the configured cells put over it.

    :param configured: priority → level → behaviour; only the cells that differ. A level is a number, also as text (as
        JSON has it), or its name.
    :return: the table, and one sentence for every mistake.
    """
    table: dict[Priority, dict[int, Behaviour]] = {priority: dict(row) for priority, row in BEHAVIOURS.items()}
    problems: list[str] = []
    for priority, row in configured.items():
        if not isinstance(row, Mapping):
            problems.append(f"BEHAVIOURS[{priority!r}]: a mapping of level → behaviour")
            continue
        for named, behaviour in row.items():
            if problem := _cell_problem(priority, named, behaviour):
                problems.append(problem)
            else:
                table[Priority(priority)][_LEVEL_OF.get(named, named)] = Behaviour(behaviour)
    return table, problems


_LEVEL_OF: Mapping[object, int] = {name: level for level, word in LEVELS.items() for name in (str(level), word)}


def _cell_problem(priority: str, named: Any, behaviour: str) -> str | None:
    cell = f"BEHAVIOURS[{priority!r}][{named!r}]"
    if priority not in list(Priority):
        return f"{cell}: unknown priority; use one of {', '.join(Priority)}"
    if _LEVEL_OF.get(named, named) not in LEVELS:
        known = ", ".join(f"{number} ({word})" for number, word in LEVELS.items())
        return f"{cell}: unknown level; use one of {known}"
    if behaviour not in ALLOWED[Priority(priority)]:
        allowed = ", ".join(sorted(ALLOWED[Priority(priority)]))
        return f"{cell}: {behaviour!r} is not possible for {priority}; use one of {allowed}"
    return None
