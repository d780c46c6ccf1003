"""Keys that are answered without the data of their category."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..policy.categories import AUTH, AUTHENTICATED_AT, CSRF_FEATURE, KeyKind
from ..policy.health import DATABASE, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.loaded import Verdict
from ..policy.users import FLASK_LOGINS_FRESH, is_only_remembered
from .work import Work


class RememberCookie(NamedTuple):
    """Flask-Login's remember cookie: a sign-in that the request does not ask for.

    :param is_there: the request carries it.
    :param is_read: it is a GET, HEAD or OPTIONS: a page that a visitor may see as well.
    """

    is_there: bool = False
    is_read: bool = False


NO_COOKIE = RememberCookie()

REMEMBER, LET_BE = "_remember", "clear"
"""Flask-Login asks ``session.get("_remember") != "clear"`` before it signs a visitor in by the remember cookie."""


class SpecialKeys:
    """CSRF token, permanent flag, times of the session, and what lasts for the request only.

    :param cookie: says whether the request carries Flask-Login's remember cookie.
    """

    def __init__(self, work: Work, cookie: Callable[[], RememberCookie]) -> None:
        self._work = work
        self._ids = work.ids
        self._cookie = cookie
        self.transient: dict[str, Any] = {}
        self._meanwhile = ""  # the CSRF token that is shown while an old session cannot be taken over

    def get(self, key: str, kind: KeyKind) -> Any:
        """Return the value of a key.

        :raises KeyError: it has no value.
        """
        if kind is KeyKind.TRANSIENT:
            if key == REMEMBER and key not in self.transient and self._is_to_stay_visitor():
                return LET_BE
            return self.transient[key]
        if kind is KeyKind.PERMANENT:
            return self._ids.permanent
        return self.csrf_token(key) if kind is KeyKind.TOKEN else self._kept(key)

    def has(self, key: str, kind: KeyKind) -> bool:
        """Return whether a key has a value. Asking does not make a session."""
        if kind is KeyKind.TRANSIENT:
            return key in self.transient
        if kind is KeyKind.PERMANENT:
            return self._ids.permanent
        if kind is KeyKind.TOKEN:
            return self._ids.target is not None or self._ids.put_off is not None
        return key != AUTHENTICATED_AT and self._work.load().row is not None

    def set(self, key: str, kind: KeyKind, value: Any) -> None:
        """Set a key. A CSRF token cannot be given another value, nor what the package itself keeps of the session."""
        if kind is KeyKind.TRANSIENT:
            self.transient[key] = value
        elif kind is KeyKind.PERMANENT:
            self._ids.chosen_permanent = bool(value)
        elif kind is KeyKind.TOKEN:
            self.csrf_token(key)

    def delete(self, key: str, kind: KeyKind) -> None:
        """Remove a key; only the permanent flag, and what lasts for the request, can be removed.

        :raises KeyError: it lasts for the request only, and has no value.
        """
        if kind is KeyKind.TRANSIENT:
            del self.transient[key]
        elif kind is KeyKind.PERMANENT:
            self._ids.chosen_permanent = False

    def _is_to_stay_visitor(self) -> bool:
        """Return whether Flask-Login must not sign this request in by the remember cookie.

        While the database is known to be down, the sign-in is put off instead of refused: the visitor is anonymous for
        the moment, and the cookie stays. If the browser's session ended for a limit or on another device, the cookie
        goes: else the session would be back with the next page, and end another one for it.
        """
        cookie = self._cookie()
        if not cookie.is_there:
            return False
        if self._ids.put_off is not None or not self._ids.scope.can(DATABASE, WRITE):
            return cookie.is_read
        displaced = self._was_displaced()
        if displaced:
            self.transient[REMEMBER] = LET_BE  # which has Flask-Login delete the cookie
        return cookie.is_read if displaced is None else displaced

    def forget_user(self) -> None:
        """Have Flask-Login delete the remember cookie at a sign-out: it would sign the user in again with the next
        page."""
        if self._cookie().is_there:
            self.transient[REMEMBER] = LET_BE

    @property
    def is_by_remember_cookie(self) -> bool:
        """Return whether this request is signed in by the remember cookie instead of a password."""
        fresh = self._work.now.assigned.get(FLASK_LOGINS_FRESH)
        return self._cookie().is_there and fresh is not None and is_only_remembered({FLASK_LOGINS_FRESH: fresh})

    def _was_displaced(self) -> bool | None:
        """Return whether the session of the cookie ended for a limit or on another device; None: the database does not
        answer."""
        work, origin = self._work, self._ids.origin
        if origin is None or origin.kind != SIGNED_IN or work.load().verdict is not Verdict.DEAD:
            return False
        return work.repository.row_writes.was_displaced(origin.digest, self._ids.scope)

    def csrf_token(self, key: str) -> str:
        """Return the CSRF token, which is derived from the session id: nothing is stored, and it works at every level.
        Beside an old session it is the token of the old one, if that was taken over with one: forms of either are good
        for both."""
        if self._ids.target is None and (put_off := self._ids.put_off):
            self._meanwhile = put_off.token or self._meanwhile or self._work.context.mint(ANONYMOUS, False).csrf_token()
            return self._meanwhile  # without a cookie: else the old session would never be looked at again
        target = self._ids.target or self._ids.mint(ANONYMOUS)
        self._ids.wants_cookie = True
        if self._ids.old is not None and target is self._ids.origin and (token := self._token_brought_along(key)):
            return token
        if target is self._ids.identity.minted or target.kind == ANONYMOUS:
            return target.csrf_token()
        # A session that is dead or cannot be verified gets what an anonymous visitor would have, and no more.
        return target.csrf_token(shadow=self._work.load().verdict is not Verdict.VALID)

    def _token_brought_along(self, key: str) -> str | None:
        if self._work.load().verdict not in (Verdict.VALID, Verdict.ANONYMOUS) or key not in self._work.stored(AUTH):
            return None
        return str(self._work.decode(key))

    def bring_token(self, token: str) -> None:
        """Store the CSRF token of an old session, which is to be taken over with it."""
        for key in self._work.repository.table.features[CSRF_FEATURE].keys:
            self._work.now.assign(key, token, self._work.now.encode(key, token))

    def _kept(self, key: str) -> datetime:
        row = self._work.load().row
        if row is None or key == AUTHENTICATED_AT:
            raise KeyError(key)
        if key == "session_created":
            at_ms = row.created_at
        else:
            at_ms = row.idle_expires_at - self._ids.life.of(row.payload).idle_ms
        return datetime.fromtimestamp(at_ms / 1000, UTC)
