"""Every alert there is: when it burns, how bad that is, what users see and what to do. The docs' table is made of it.

An alert is told by its name alone: names and titles hold no numbers and no error texts, so that every message of one
incident has the same key, whatever the measured value is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How urgent it is. Each severity can have an SNS topic of its own."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"

    @property
    def rank(self) -> int:
        """The higher, the worse."""
        return tuple(Severity).index(self)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One row.

    :param name: part of the key by which receivers recognise an incident.
    :param title: one line for people.
    :param condition: when it burns, for the docs.
    :param users_see: what visitors notice of it.
    :param to_do: what an operator does first.
    :param family: alerts of one family are the same trouble at different severities; the worse one silences the other.
    :param fires_after: seconds for which the condition must hold.
    :param heals_after: seconds without the condition, on every worker of the host, after which it is over.
    :param happens_once: it is an event, not a state: it burns at once and is over when it did not happen again.
    """

    name: str
    severity: Severity
    title: str
    condition: str
    users_see: str
    to_do: str
    family: str = ""
    fires_after: float = 5.0
    heals_after: float = 30.0
    happens_once: bool = False


SLOW_WARNING_MS, SLOW_CRITICAL_MS = 50, 100
"""Milliseconds."""

LATENCY_WINDOW = 30.0
"""Seconds of operations that are looked at together."""

QUIET = 300.0
"""Seconds after which what happened once counts as over."""

_CHECK_REDIS = "`flask langpont status`; state, events and engine log of the ElastiCache group; security groups."

REDIS_CONNECTION_FAILED = Alert(
    name="redis-connection-failed",
    severity=Severity.CRITICAL,
    title="Redis connection failed",
    condition="the breaker of the primary is open",
    users_see="Signed-in users stay signed in, by the database. Translations go on from this host's copies.",
    to_do=_CHECK_REDIS,
)
REDIS_WRITES_REFUSED = Alert(
    name="redis-writes-refused",
    severity=Severity.CRITICAL,
    title="Redis refuses writes",
    condition="the primary answers reads and refuses writes (read-only after a failover, out of memory)",
    users_see="Pages work. What users enter waits on this host until Redis takes writes again.",
    to_do="Memory and evictions of the primary; whether its endpoint still names the node that was demoted.",
)
REPLICA_CONNECTION_FAILED = Alert(
    name="replica-connection-failed",
    severity=Severity.WARNING,
    title="Replica connection failed",
    condition="the breaker of the replica is open",
    users_see="Nothing, as long as the primary answers.",
    to_do=_CHECK_REDIS,
)
DATABASE_CONNECTION_FAILED = Alert(
    name="database-connection-failed",
    severity=Severity.CRITICAL,
    title="Session database connection failed",
    condition="the breaker of the database is open",
    users_see="Nobody can sign in or get other rights (503). Who is signed in goes on, for a limited time.",
    to_do="`flask langpont status`; state, connections and locks of the database.",
)
AUTH_FAILED = Alert(
    name="auth-failed",
    severity=Severity.CRITICAL,
    title="A session store refuses our credentials",
    condition="a breaker is open because a password, token, right or certificate was refused; one alert per store",
    users_see="The same as when that store does not answer.",
    to_do="Whether the token was rotated, the user's rights changed or a certificate expired. Waiting does not help.",
)
LEVEL_REPLICA = Alert(
    name="level-replica",
    severity=Severity.WARNING,
    title="Sessions are read-only",
    condition="level 1 or worse",
    users_see="Pages work. Changes other than signing in and out wait on this host or last for one request.",
    to_do="See the alert of the store that failed.",
    family="level",
)
LEVEL_FALLBACK = Alert(
    name="level-fallback",
    severity=Severity.CRITICAL,
    title="Sessions run without Redis",
    condition="level 2 or worse",
    users_see="Default settings in the interface; at level 3 translations and statistics are switched off.",
    to_do="See the alert of the store that failed. Level 3 comes when the local copies have aged out.",
    family="level",
)
LEVEL_MINIMAL = Alert(
    name="level-minimal",
    severity=Severity.EMERGENCY,
    title="No session store answers",
    condition="level 4",
    users_see="Nobody can sign in. Who is signed in stays so for GRACE seconds, administrators not at all.",
    to_do="The network between hosts and stores first: Redis and the database rarely fail together.",
    family="level",
)
LATENCY_HIGH = Alert(
    name="latency-high",
    severity=Severity.WARNING,
    title="Session operations are slow",
    condition=f"over {LATENCY_WINDOW:g} s, p95 of the primary's answers is above {SLOW_WARNING_MS} ms",
    users_see="Pages are slower by that time.",
    to_do="Slow log and engine CPU of the primary; load of this host; whether Redis is in the same zone.",
    family="latency",
    fires_after=60,
    heals_after=60,
)
LATENCY_CRITICAL = Alert(
    name="latency-critical",
    severity=Severity.CRITICAL,
    title="Session operations are very slow",
    condition=f"over {LATENCY_WINDOW:g} s, p95 of the primary's answers is above {SLOW_CRITICAL_MS} ms",
    users_see="Pages are slower by that time. Soon requests give Redis up and go on without it.",
    to_do=LATENCY_HIGH.to_do,
    family="latency",
    fires_after=60,
    heals_after=60,
)
DATA_LOST = Alert(
    name="data-lost",
    severity=Severity.EMERGENCY,
    title="Redis lost session data",
    condition="a server was emptied, or restored from an older copy, behind its connections",
    users_see="Users stay signed in. Translations in progress and settings may be gone.",
    to_do="Who flushed or restored it; evictions; whether snapshots are restored on purpose.",
    fires_after=0,
    heals_after=QUIET,
    happens_once=True,
)
SERVER_CHANGED = Alert(
    name="server-changed",
    severity=Severity.INFO,
    title="Redis is served by another server",
    condition="an endpoint is served by another server process than before: a restart or a failover",
    users_see="Nothing.",
    to_do="Nothing, if it was planned. Else the events of the ElastiCache group say why.",
    fires_after=0,
    heals_after=QUIET,
    happens_once=True,
)
JOURNAL_FAILED = Alert(
    name="journal-failed",
    severity=Severity.CRITICAL,
    title="The journal of this host cannot be used",
    condition="a request went on without writing to the journal what it should keep",
    users_see="Nothing now. What they did during the outage, signing out included, may be undone later.",
    to_do="Room and rights of the disk that LANGPONT_SESSION_JOURNAL is on.",
    fires_after=0,
    heals_after=QUIET,
    happens_once=True,
)
TEST = Alert(
    name="test",
    severity=Severity.INFO,
    title="Test message",
    condition="`flask langpont alert-test`",
    users_see="Nothing.",
    to_do="Nothing. This message shows that alerts arrive.",
)

ALERTS = tuple(value for value in list(globals().values()) if isinstance(value, Alert) and value.name != TEST.name)
"""Every alert that an application can send by itself."""


def alert_lines() -> list[str]:
    """The table as Markdown, one line each."""
    heads = ["alert", "severity", "burns when", "for", "over after", "what users see", "what to do"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for alert in ALERTS:
        after = "at once" if alert.happens_once else f"{alert.fires_after:g} s"
        lines.append(
            _row(
                [f"`{alert.name}`", alert.severity, alert.condition, after, f"{alert.heals_after:g} s",
                 alert.users_see, alert.to_do]
            )
        )  # fmt: skip
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
