"""Every alert there is: its severity, what users see and what to do. The table of the docs is made from it.

The name alone identifies an alert. Names and titles hold no numbers and no error texts, so that all messages of one
incident have the same key, whatever was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial


class Severity(StrEnum):
    """The urgency of an alert. Each severity can have an SNS topic of its own."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"

    @property
    def rank(self) -> int:
        """Return the rank: the higher, the worse."""
        return tuple(Severity).index(self)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One row of the table.

    :param name: part of the key by which receivers recognise an incident.
    :param title: one line for people.
    :param users_see: what users notice.
    :param to_do: what an operator does first.
    :param family: alerts of one family report the same trouble at different severities; only the worst one is sent.
    :param fires_after: seconds for which the condition must hold before the alert is sent.
    :param happens_once: it is an event, not a state: the alert is active at once.
    """

    name: str
    severity: Severity
    title: str
    users_see: str
    to_do: str
    family: str = ""
    fires_after: float = 5.0
    happens_once: bool = False


CALM = 300.0
"""Seconds after which an alert is over if no worker has seen its condition again."""

_event = partial(Alert, fires_after=0, happens_once=True)

_CHECK_REDIS = (
    "Run `flask langpont status`. Check state, events and engine log of the ElastiCache group, and the security groups."
)

REDIS_CONNECTION_FAILED = Alert(
    name="redis-connection-failed",
    severity=Severity.CRITICAL,
    title="Redis connection failed",
    users_see="Users stay signed in: the database is asked. Translations in progress come from this host's copies.",
    to_do=_CHECK_REDIS,
)
REDIS_WRITES_REFUSED = Alert(
    name="redis-writes-refused",
    severity=Severity.CRITICAL,
    title="Redis refuses writes",
    users_see="Pages work. Changes are kept on this host until Redis takes writes again.",
    to_do="Check memory and evictions of the primary, and whether its endpoint still names a node that was demoted.",
)
REPLICA_CONNECTION_FAILED = Alert(
    name="replica-connection-failed",
    severity=Severity.WARNING,
    title="Replica connection failed",
    users_see="Nothing, as long as the primary answers.",
    to_do=_CHECK_REDIS,
)
DATABASE_CONNECTION_FAILED = Alert(
    name="database-connection-failed",
    severity=Severity.CRITICAL,
    title="Session database connection failed",
    users_see="Sign-ins and new rights are refused (503). Signed-in users stay so for a limited time.",
    to_do="Run `flask langpont status`. Check state, connections and locks of the database.",
)
AUTH_FAILED = Alert(
    name="auth-failed",
    severity=Severity.CRITICAL,
    title="A session store refuses our credentials",
    users_see="The same as when that store does not answer.",
    to_do="Check whether a token was rotated, a certificate expired or rights changed. Waiting does not help.",
)
LEVEL_REPLICA = Alert(
    name="level-replica",
    severity=Severity.WARNING,
    title="Sessions are read-only",
    users_see="Pages work. Sign-ins and sign-outs are stored; other changes are kept on this host, or for one request.",
    to_do="See the alert of the store that failed.",
    family="level",
)
LEVEL_FALLBACK = Alert(
    name="level-fallback",
    severity=Severity.CRITICAL,
    title="Sessions run without Redis",
    users_see="The interface has its default settings; at level 3 translations and statistics are switched off.",
    to_do="See the alert of the store that failed. Level 3 begins when the local copies are too old.",
    family="level",
)
LEVEL_MINIMAL = Alert(
    name="level-minimal",
    severity=Severity.EMERGENCY,
    title="No session store answers",
    users_see="Sign-ins are refused. Users stay signed in for GRACE seconds; administrators are signed out at once.",
    to_do="Check the network between hosts and stores first: Redis and the database rarely fail together.",
    family="level",
)
DATA_LOST = _event(
    name="data-lost",
    severity=Severity.EMERGENCY,
    title="Redis lost session data",
    users_see="Users stay signed in. Translations in progress and settings may be gone.",
    to_do="Find out why: FLUSHALL or FLUSHDB, a restored snapshot, evictions.",
)
CLOCK = Alert(
    name="clock",
    severity=Severity.WARNING,
    title="Redis has another time than this host",
    users_see="Nothing at first. Of two changes the later one may be dropped, and sessions end too early or too late.",
    to_do="Keep the time of all hosts by NTP (chronyc tracking, timedatectl).",
)
DATABASE_WENT_BACK = _event(
    name="database-went-back",
    severity=Severity.EMERGENCY,
    title="The database lost commits",
    users_see="Rights that may have been withdrawn are gone. Sign-ins of the time that is lost are, too.",
    to_do="Find out why: a failover to a server that lagged, a restored backup. Other tables lack as much.",
)
SERVER_CHANGED = _event(
    name="server-changed",
    severity=Severity.INFO,
    title="Redis is served by another server",
    users_see="Nothing.",
    to_do="Nothing, if it was planned. Otherwise the events of the ElastiCache group say why.",
)
JOURNAL_FAILED = _event(
    name="journal-failed",
    severity=Severity.CRITICAL,
    title="The journal of this host cannot be used",
    users_see="Nothing now. What they did during the outage, even signing out, may be undone later.",
    to_do="Check free space and permissions of the disk that LANGPONT_SESSION_JOURNAL is on.",
)
CHANGES_GIVEN_UP = _event(
    name="changes-given-up",
    severity=Severity.WARNING,
    title="Changes of users were given up",
    users_see="What they changed in the outage is gone. All else goes on.",
    to_do="Look in the log of that host for `are given up`, and report what it says as a defect of the package.",
)
TEST = Alert(
    name="test",
    severity=Severity.INFO,
    title="Test message",
    users_see="Nothing.",
    to_do="Nothing. This message shows that alerts arrive.",
)

ALERTS = tuple(value for value in list(globals().values()) if isinstance(value, Alert) and value.name != TEST.name)
"""Every alert that an application can send by itself."""
