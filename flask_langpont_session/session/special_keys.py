"""Keys that are answered without the data of their category."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..policy.categories import AUTH, AUTHENTICATED_AT, CSRF_FEATURE
from ..policy.health import DATABASE, WRITE
from ..policy.ids import ANONYMOUS
from ..policy.records import Verdict
from .key_kinds import KeyKind
from .work import Work

REMEMBER, LET_BE = "_remember", "clear"
"""Flask-Login asks ``session.get("_remember") != "clear"`` before it signs a visitor in by the remember cookie."""


class SpecialKeys:
    """CSRF token, permanent flag, times of the session, and what lasts for the request only.

    :param is_remembered: whether this is a read (GET, HEAD …) that carries Flask-Login's remember cookie.
    """

    def __init__(self, work: Work, is_remembered: Callable[[], bool]) -> None:
        self._work = work
        self._ids = work.ids
        self._is_remembered = is_remembered
        self.transient: dict[str, Any] = {}
        self._meanwhile = ""  # the CSRF token that is shown while an old session cannot be taken over

    def get(self, key: str, kind: KeyKind) -> Any:
        """:raises KeyError: it has no value."""
        if kind is KeyKind.TRANSIENT:
            return LET_BE if self._puts_off_sign_in(key) else self.transient[key]
        if kind is KeyKind.PERMANENT:
            return self._ids.permanent
        return self.csrf_token(key) if kind is KeyKind.TOKEN else self._kept(key)

    def has(self, key: str, kind: KeyKind) -> bool:
        """Whether it has a value. Asking must not make a session."""
        if kind is KeyKind.TRANSIENT:
            return key in self.transient
        if kind is KeyKind.PERMANENT:
            return self._ids.permanent
        if kind is KeyKind.TOKEN:
            return self._ids.target is not None or self._ids.put_off is not None
        return key != AUTHENTICATED_AT and self._work.load().row is not None

    def set(self, key: str, kind: KeyKind, value: Any) -> None:
        """Give it a value. That of a CSRF token is what it is, and what the package keeps of the session stays."""
        if kind is KeyKind.TRANSIENT:
            self.transient[key] = value
        elif kind is KeyKind.PERMANENT:
            self._ids.chosen_permanent = bool(value)
        elif kind is KeyKind.TOKEN:
            self.csrf_token(key)

    def delete(self, key: str, kind: KeyKind) -> None:
        """:raises KeyError: it lasts for the request only, and has no value."""
        if kind is KeyKind.TRANSIENT:
            del self.transient[key]
        elif kind is KeyKind.PERMANENT:
            self._ids.chosen_permanent = False

    def _puts_off_sign_in(self, key: str) -> bool:
        """A remember cookie on a page is a sign-in that the request did not ask for.

        While the database is known to be down it is put off instead of refused: Flask-Login hears that this request is
        not to be signed in by it, the visitor is anonymous for now, and the cookie stays.
        """
        asked = key == REMEMBER and key not in self.transient
        return (
            asked
            and self._is_remembered()
            and (self._ids.put_off is not None or not self._ids.scope.can(DATABASE, WRITE))
        )

    def csrf_token(self, key: str) -> str:
        """Derived from the session id: nothing is stored, and it works at every level. While an old session is about,
        that of the old one, if it was taken over with one: forms of either are good for both."""
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
