"""Which user a value under one of USER_KEYS names: an id, or a dict that tells of the user."""

from __future__ import annotations

from typing import Any

_ID_CLAIMS = ("sub", "id")
"""Where a dict has the user's id: as OpenID Connect calls it, and as others do."""


def user_of(value: Any) -> str | None:
    """The user's id as text; None: the value names no user.

    Of a dict it is ``sub`` or ``id``, in the dict itself or in its ``userinfo``, where Authlib puts the claims into a
    token. A list names none.

    :param value: as it is read from a session.
    """
    if isinstance(value, dict):
        claims = value.get("userinfo", value)
        named = [claims.get(name) for name in _ID_CLAIMS] if isinstance(claims, dict) else []
        return next((str(name) for name in named if type(name) in (str, int) and name != ""), None)
    return None if value is None or isinstance(value, (list, tuple)) else str(value)


def is_nobody(value: Any) -> bool:
    """Whether a value says that there is no user: None, False, an empty text or dict. The number 0 may be an id."""
    return not value and (type(value) is bool or not isinstance(value, (int, float)))
