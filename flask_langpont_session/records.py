"""The values that travel between the session, the repository and the stores. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .categories import AUTH
from .cookies import SessionId
from .leases import Life as Life
from .stores.base import AuthRow, CategoryChange, Fields

NO_FIELDS: Fields = {}


class Verdict(StrEnum):
    """What is known of a session's auth."""

    ANONYMOUS = "anonymous"  # kind a: there is nothing to know
    VALID = "valid"
    DEAD = "dead"
    UNVERIFIABLE = "unverifiable"  # nobody who may say so answers


@dataclass(slots=True)
class Loaded:
    """What a session's first touch found.

    :param fields: category → session key → encoded value, as this request may see it.
    :param versions: category → version Redis counted when last known; 0: nobody who answers has seen it.
    :param sources: category → store that answered.
    :param exceptions: feature → where its data is from instead (``journal``, ``default``).
    :param defaulted: keys that show a configured default because the table says so; never data.
    :param row: the auth row that was believed; None unless `verdict` is VALID.
    :param now_ms: the Redis clock before anything was read; 0: unknown.
    """

    verdict: Verdict
    fields: dict[str, Fields] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    exceptions: dict[str, str] = field(default_factory=dict)
    defaulted: set[str] = field(default_factory=set)
    row: AuthRow | None = None
    now_ms: int = 0

    @classmethod
    def judged(cls, verdict: Verdict, now_ms: int, row: AuthRow | None = None, source: str = "none") -> Loaded:
        """A session of kind u, with its auth category filled in and the others still missing."""
        loaded = cls(verdict, row=row, now_ms=now_ms)
        loaded.fields[AUTH] = row.payload if row else NO_FIELDS
        loaded.versions[AUTH] = row.version if row else 0
        loaded.sources[AUTH] = source
        return loaded

    @property
    def shadow(self) -> bool:
        """Whether the data is that of the anonymous shadow: the session itself is dead."""
        return self.verdict is Verdict.DEAD


@dataclass(slots=True)
class Plan:
    """What a save has to do.

    :param origin: the id whose records exist.
    :param target: the id the data is for; the same, a minted one, or None (nothing is kept).
    :param changes: category → what changed. For a minted target they are complete, carried data included.
    :param ends: the origin is to be revoked.
    :param grants: an auth change among `changes` needs the arbiter.
    :param permanence_changed: the life of the SQL row is to be set anew.
    """

    origin: SessionId | None
    target: SessionId | None
    life: Life
    loaded: Loaded | None = None
    changes: dict[str, CategoryChange] = field(default_factory=dict)
    ends: bool = False
    grants: bool = False
    permanence_changed: bool = False

    @property
    def is_new(self) -> bool:
        """Whether the target was minted in this request."""
        return self.target is not None and self.target is not self.origin

    @property
    def is_for_shadow(self) -> bool:
        """Whether the target is known to be dead, so that only its anonymous shadow can be written."""
        return self.loaded is not None and self.loaded.shadow and not self.is_new


@dataclass(frozen=True, slots=True)
class Saved:
    """How a save ended.

    :param stored: something that a later request can find was written somewhere.
    :param durable: the database knows of the revocation that was part of it (True if there was none).
    """

    stored: bool
    durable: bool = True


def apply_change(fields: Fields, change: CategoryChange) -> dict[str, bytes]:
    """The fields after a change."""
    after = {} if change.wipe else dict(fields)
    apply_writes(after, change.writes, change.increments)
    return after


def apply_writes(fields: dict[str, bytes], writes: Mapping[str, bytes | None], deltas: Mapping[str, int]) -> None:
    """Put values (None: remove) and additions over `fields`, in place."""
    for key, value in writes.items():
        if value is None:
            fields.pop(key, None)
        else:
            fields[key] = value
    for key, by in deltas.items():
        now = fields.get(key, b"0")
        if now.lstrip(b"-").isdigit():
            fields[key] = b"%d" % (int(now) + by)
