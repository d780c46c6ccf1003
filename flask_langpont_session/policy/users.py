"""The user of a session, and the moment of the last proof of being that user: a sign-in, or a password entered
again."""

from __future__ import annotations

from typing import Any

from .categories import AUTHENTICATED_AT, KeyPatterns
from .changes import Fields
from .leases import CLOCK_TOLERANCE_MS
from .rows import AuthRow

_ID_CLAIMS = ("sub", "id")
"""The keys of a dict that may have the user's id: as OpenID Connect calls it, and as others do."""


def user_of(value: Any) -> str | None:
    """Return the user's id as text; None: the value names no user.

    Of a dict it is ``sub`` or ``id``, in the dict itself or in its ``userinfo``, where Authlib puts the claims into a
    token. A list names none.

    :param value: as it is read from a session.
    """
    if isinstance(value, dict):
        claims = value.get("userinfo", value)
        named = [claims.get(name) for name in _ID_CLAIMS] if isinstance(claims, dict) else []
        return next((str(name) for name in named if type(name) in (str, int) and name != ""), None)
    return None if value is None or isinstance(value, (list, tuple)) else str(value)


def means_no_user(value: Any) -> bool:
    """Return whether a value names no user: None, False, an empty text or dict. The number 0 may be an id."""
    return not value and (type(value) is bool or not isinstance(value, (int, float)))


FLASK_LOGINS_FRESH = "_fresh"
"""Flask-Login's key: False where its remember cookie signed the user in, or where the browser looks like another one.
"""

_FALSE = b"false"


def noted(payload: Fields, at_ms: int) -> dict[str, bytes]:
    """Return a row's data with the moment of the last proof. Without one, the session's beginning counts.

    :param at_ms: milliseconds since 1970 by the database's clock; 0: not known.
    """
    return {**payload, AUTHENTICATED_AT: b"%d" % at_ms}


def is_only_remembered(payload: Fields) -> bool:
    """Return whether Flask-Login knows the user by a remember cookie only."""
    return payload.get(FLASK_LOGINS_FRESH) == _FALSE


def authenticated_at(row: AuthRow) -> int | None:
    """Return when the user last gave proof, milliseconds since 1970 by the database's clock; None: that is not known,
    or the user was only remembered."""
    said = row.payload.get(AUTHENTICATED_AT, b"%d" % row.created_at)
    at_ms = int(said) if said.isdigit() else 0
    return None if at_ms == 0 or is_only_remembered(row.payload) else at_ms


def is_recent(row: AuthRow, max_age: float) -> bool:
    """Return whether the last proof was at most so many seconds before the database read the row. A moment that is yet
    to come, because the database's clock was set back, is not known to be recent."""
    at_ms = authenticated_at(row)
    return at_ms is not None and -CLOCK_TOLERANCE_MS <= row.read_at - at_ms <= max_age * 1000


def narrowed(row: AuthRow, known: AuthRow | None, users: KeyPatterns, rights: KeyPatterns) -> dict[str, bytes]:
    """Return what stays of a row of which a later version is known that the database has lost: nothing is granted.

    Users and rights are what both versions have, all other keys those of the row: no other store writes into it.

    :param row: as the database has it.
    :param known: the later version; None: no more is known of it than that there was one, so that no right is left.
    :param users: USER_KEYS. The user of an id is always the same.
    :param rights: PRIVILEGE_KEYS.
    """
    if known is None:
        return noted({key: value for key, value in row.payload.items() if key in users or key not in rights}, 0)
    kept = {
        key: value
        for key, value in row.payload.items()
        if not (key in users or key in rights) or known.payload.get(key) == value
    }
    return noted(kept, min(authenticated_at(row) or 0, authenticated_at(known) or 0))
