"""Keys that are answered without the data of their category."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..exceptions import OutsideRequest
from ..policy.categories import AUTH, AUTHENTICATED_AT, CSRF_FEATURE, KeyKind
from ..policy.health import DATABASE, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.loaded import Verdict
from ..policy.serializer import encode
from ..policy.users import FLASK_LOGINS_FRESH, is_only_remembered
from .context import RememberCookie
from .work import Work

if TYPE_CHECKING:
    from .mapping import Session

REMEMBER, LET_BE = "_remember", "clear"
"""Flask-Login asks ``session.get("_remember") != "clear"`` before it signs a visitor in by the remember cookie."""


def _remember_cookie(of: Session | Work) -> RememberCookie:
    return of.context.remember_cookie(of.request)


def forget_user(work: Work) -> None:
    """Have Flask-Login delete the remember cookie at a sign-out: it would sign the user in again with the next
    page."""
    if _remember_cookie(work).is_there:
        work.transient[REMEMBER] = LET_BE


class SpecialKeys:
    """CSRF token, permanent flag, times of the session, and what lasts for the request only."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def _work(self) -> Work:
        return self._session.work

    def get(self, key: str, kind: KeyKind) -> Any:
        """Return the value of a key.

        :raises KeyError: it has no value.
        """
        if kind is KeyKind.TRANSIENT:
            if key == REMEMBER and key not in self._session.transient and self._is_to_stay_visitor():
                return LET_BE
            return self._session.transient[key]
        if kind is KeyKind.PERMANENT:
            return self._work.permanent
        return self.csrf_token(key) if kind is KeyKind.TOKEN else self._kept(key)

    def has(self, key: str, kind: KeyKind) -> bool:
        """Return whether a key has a value. Asking does not make a session."""
        if kind is KeyKind.TRANSIENT:
            return key in self._session.transient
        if kind is KeyKind.PERMANENT:
            return self._work.permanent
        if kind is KeyKind.TOKEN:
            return self._work.target is not None or self._work.put_off is not None
        return key != AUTHENTICATED_AT and self._work.load().row is not None

    def set(self, key: str, kind: KeyKind, value: Any) -> None:
        """Set a key. A CSRF token cannot be given another value, nor what the package itself keeps of the session."""
        if kind is KeyKind.TRANSIENT:
            self._session.transient[key] = value
        elif kind is KeyKind.PERMANENT:
            self._work.chosen_permanent = bool(value)
        elif kind is KeyKind.TOKEN:
            self.csrf_token(key)

    def delete(self, key: str, kind: KeyKind) -> None:
        """Remove a key; only the permanent flag, and what lasts for the request, can be removed.

        :raises KeyError: it lasts for the request only, and has no value.
        """
        if kind is KeyKind.TRANSIENT:
            del self._session.transient[key]
        elif kind is KeyKind.PERMANENT:
            self._work.chosen_permanent = False

    def _is_to_stay_visitor(self) -> bool:
        """Return whether Flask-Login must not sign this request in by the remember cookie.

        While the database is known to be down, the sign-in is put off instead of refused: the visitor is anonymous for
        the moment, and the cookie stays. If the browser's session ended for a limit or on another device, the cookie
        goes: else the session would be back with the next page, and end another one for it.
        """
        cookie = _remember_cookie(self._session)
        if not cookie.is_there:
            return False
        if self._work.put_off is not None or not self._work.scope.can(DATABASE, WRITE):
            return cookie.is_read
        displaced = self._was_displaced()
        if displaced:
            self._session.transient[REMEMBER] = LET_BE  # which has Flask-Login delete the cookie
        return cookie.is_read if displaced is None else displaced

    @property
    def is_by_remember_cookie(self) -> bool:
        """Return whether this request is signed in by the remember cookie instead of a password."""
        fresh = self._work.now.assigned.get(FLASK_LOGINS_FRESH)
        is_remembered = fresh is not None and is_only_remembered({FLASK_LOGINS_FRESH: fresh})
        return is_remembered and _remember_cookie(self._session).is_there

    def _was_displaced(self) -> bool | None:
        """Return whether the session of the cookie ended for a limit or on another device; None: the database does not
        answer."""
        work, origin = self._work, self._work.origin
        if origin is None or origin.kind != SIGNED_IN or work.load().verdict is not Verdict.DEAD:
            return False
        return work.repository.saves.row_writes.was_displaced(origin.digest, self._work.scope)

    def csrf_token(self, key: str) -> str:
        """Return the CSRF token, which is derived from the session id: nothing is stored, and it works at every level.
        Beside an old session it is the token of the old one, if that was taken over with one: forms of either are good
        for both."""
        work = self._work
        if work.context.is_outside:
            raise OutsideRequest("have a CSRF token, which is derived from the id in its cookie")
        if work.target is None and (put_off := work.put_off):
            if not work.token_meanwhile:  # without a cookie: else the old session would never be looked at again
                work.token_meanwhile = put_off.token or work.context.mint(ANONYMOUS, False).csrf_token()
            return work.token_meanwhile
        target = work.target or work.give_id(ANONYMOUS)
        work.wants_cookie = True
        if self._session.old is not None and target is work.origin and (token := self._token_brought_along(key)):
            return token
        if target is work.minted or target.kind == ANONYMOUS:
            return target.csrf_token()
        # A session that is dead or cannot be verified gets what an anonymous visitor would have, and no more.
        return target.csrf_token(shadow=work.load().verdict is not Verdict.VALID)

    def _token_brought_along(self, key: str) -> str | None:
        if self._work.load().verdict not in (Verdict.VALID, Verdict.ANONYMOUS) or key not in self._work.stored(AUTH):
            return None
        return str(self._work.decode(key))

    def bring_token(self, token: str) -> None:
        """Store the CSRF token of an old session, which is to be taken over with it."""
        for key in self._work.repository.table.features[CSRF_FEATURE].keys:
            self._work.now.assign(key, token, encode(key, token))

    def _kept(self, key: str) -> datetime:
        row = self._work.load().row
        if row is None or key == AUTHENTICATED_AT:
            raise KeyError(key)
        if key == "session_created":
            at_ms = row.created_at
        else:
            at_ms = row.idle_expires_at - self._work.life.of(row.payload).idle_ms
        return datetime.fromtimestamp(at_ms / 1000, UTC)
