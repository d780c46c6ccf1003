"""The events of the package, as frozen values that are sent by signals.

Every event is sent by its own :mod:`blinker` signal with the Flask application as sender and ``event=`` the value.
Values carry names, numbers and digests shortened for logs, never session ids, keys' values or driver texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from blinker import Namespace

_signals = Namespace()

level_changed = _signals.signal("level-changed")
store_lost = _signals.signal("store-lost")
store_recovered = _signals.signal("store-recovered")
server_changed = _signals.signal("server-changed")
data_lost = _signals.signal("data-lost")
database_went_back = _signals.signal("database-went-back")
value_rejected = _signals.signal("value-rejected")
record_set_aside = _signals.signal("record-set-aside")
grant_refused = _signals.signal("grant-refused")
signed_in = _signals.signal("signed-in")
id_changed = _signals.signal("id-changed")
confirmed = _signals.signal("confirmed")
session_revoked = _signals.signal("session-revoked")
user_revoked = _signals.signal("user-revoked")
journal_failed = _signals.signal("journal-failed")
writes_not_kept = _signals.signal("writes-not-kept")
changes_given_up = _signals.signal("changes-given-up")

ALL = tuple(_signals.values())
"""Every signal of the package."""


@dataclass(frozen=True, slots=True)
class LevelChanged:
    """The degradation level of this process moved."""

    old: int
    new: int


@dataclass(frozen=True, slots=True)
class StoreLost:
    """A breaker opened. `cause` is an error class."""

    store: str
    direction: str
    cause: str


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """A breaker closed again; `seconds` it was open."""

    store: str
    direction: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """An endpoint is served by another server process than before: a restart or a failover."""

    store: str


@dataclass(frozen=True, slots=True)
class DataLost:
    """A server lost data behind its connections: it was emptied, or restored from an older copy."""

    store: str


@dataclass(frozen=True, slots=True)
class DatabaseWentBack:
    """The database lacks commits that it had confirmed: a failover to a server that lagged, or a restored backup. What
    was known of them is made good.

    :param commits: how many were found just now.
    """

    commits: int


@dataclass(frozen=True, slots=True)
class ValueRejected:
    """A change of a session could not be stored; the old data was kept. `key`: the session key to blame, if any."""

    category: str
    key: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class RecordSetAside:
    """A record in a store was not one of ours (wrong type, broken metadata, foreign digest) and was moved away."""

    store: str
    category: str


@dataclass(frozen=True, slots=True)
class GrantWasRefused:
    """A sign-in or change of rights was answered 503 because the database did not answer."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A signed-in session began.

    :param adopted: by taking over a session from before, not by a sign-in.
    """

    digest: str
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class IdChanged:
    """A signed-in session goes on under another id; the one before is dead.

    :param before: its digest until now.
    :param confirmed: because its user entered a password again; :class:`Confirmed` follows.
    """

    digest: str
    before: str
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The user of a session has entered a password again: a step-up."""

    digest: str


class EndedBy(StrEnum):
    """Causes by which a session ends."""

    USER = "user"
    """A sign-out, another sign-in in the same browser, or the same user on another device."""
    APPLICATION = "application"
    """``langpont.revoke()`` or ``revoke_user()``."""
    OPERATOR = "operator"
    """``flask langpont sessions revoke``."""
    LIMIT = "limit"
    """Its user signed in elsewhere, and may have only so many sessions."""
    EXPIRY = "expiry"
    """It was not used for too long, or its life in all is used up."""


@dataclass(frozen=True, slots=True)
class SessionRevoked:
    """A signed-in session ended. It is told once, of a session that lived until then: as the database says; while that
    does not answer, as far as the worker knows.

    That it ended by its time is told when a request finds it so: of a session whose cookie no browser sends any more,
    never; of one whose life in all is used up, by each worker that asks the database.

    :param durable: the database knows it; else it waits in this host's journal.
    :param cause: by what.
    """

    digest: str
    durable: bool
    cause: EndedBy = EndedBy.USER


@dataclass(frozen=True, slots=True)
class UserRevoked:
    """A user was logged out everywhere. :class:`SessionRevoked` tells of the sessions, of up to 200.

    :param sessions: how many living ones ended, as far as is known.
    :param durable: the database knows it; else it waits in this host's journal.
    """

    sessions: int
    durable: bool
    cause: EndedBy


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """This host's journal refused, and the request went on without it: what it should have kept is not safe.

    :param cause: SQLite's or the system's name of the error, for example ``SQLITE_FULL``, or the limit that is reached.
    """

    cause: str


@dataclass(frozen=True, slots=True)
class WritesNotKept:
    """Changes of sessions that an outage cost.

    :param what: one of the words of :class:`~flask_langpont_session.metrics.losses.Loss`: ``writes_lost``,
        ``merge_conflicts``, ``merge_dropped`` or ``request_only_writes``.
    :param cause: one of the words of :class:`~flask_langpont_session.metrics.losses.Cause`, for example
        ``written since``.
    :param category: the session category that the keys belong to.
    :param count: how many keys that are.
    :param digest: the first characters of the session's digest; empty: it is the request's own, or there are several.
    """

    what: str
    cause: str
    category: str
    count: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ChangesGivenUp:
    """Changes of one session that waited in this host's journal were taken out of it: bringing them to a store failed
    in a way that the package does not know, and all else had to go on. :class:`WritesNotKept` counts them.

    :param digest: the first characters of the session's digest.
    :param count: how many changes that are.
    :param cause: the name of the Python exception.
    :param of_user: the session is signed in.
    """

    digest: str
    count: int
    cause: str
    of_user: bool


def short(digest: str) -> str:
    """Return a digest as it may stand in logs: enough to find a session, nothing to use."""
    return digest[:8]
