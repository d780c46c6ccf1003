"""How many sessions a user may have at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..config.settings import Settings
from ..policy.values import Limit

log = logging.getLogger(__name__)


class UnknownLimit(Exception):
    """The application's callable did not say."""


def limit_of(user_id: str | None, settings: Settings) -> Limit | None:
    """What MAX_SESSIONS_PER_USER and ON_LIMIT say of a user; None: there is no limit, as for rights without a user.

    :raises UnknownLimit: MAX_SESSIONS_PER_USER is a callable, and raised, or returned what is no number of sessions.
        It is logged. What is not known is not taken for no limit.
    """
    most = settings.max_sessions_per_user
    if most is None or user_id is None:
        return None
    if callable(most):
        most = _asked(most, user_id)
    return None if most is None else Limit(most, settings.on_limit == "end_oldest")


def _asked(ask: Callable[[str], int | None], user_id: str) -> int | None:
    try:
        most = ask(user_id)
    except Exception as error:
        log.exception("LANGPONT_SESSION_MAX_SESSIONS_PER_USER failed; the sign-in is refused")
        raise UnknownLimit from error
    if most is None or (type(most) is int and most >= 1):
        return most
    log.error(
        "LANGPONT_SESSION_MAX_SESSIONS_PER_USER returned %s, not a whole number from 1, or None for no limit; "
        "the sign-in is refused",
        most if type(most) is int else f"a value of type {type(most).__name__}",
    )
    raise UnknownLimit
