"""Takes over the sessions that an application had before: Flask's signed cookie, and Flask-Session's record in Redis.

Once per browser: a request that comes without a session id of ours, but with the cookie of an old session, goes on
under a new id, with the old session's user and data. The old cookie and record stay as they are, for workers that still
use them, until this browser signs out here, or another user signs in.

Nothing that ended here begins again by its old cookie: a signed-in session's new id follows from the old session, and
the database notes in the same transaction that this one was taken over, for as long as it could be used. So requests
of one browser that come at the same time find one session, and an answer that was lost costs nothing.

While a store is needed that does not answer, nothing is taken over: the request shows a visitor, gets no cookie, and
the next one tries again.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.wrappers import Request
from itsdangerous import BadData, BadSignature, Signer, URLSafeTimedSerializer, want_bytes

from ..config.settings import Settings
from ..exceptions import SessionValueError
from ..policy.categories import AUTH, CSRF_FEATURE, PERMANENT
from ..policy.errors import ErrorClass, StoreError
from ..policy.health import DATABASE, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId, digest_of
from ..policy.leases import Life
from ..policy.loaded import Verdict
from ..policy.plans import Note
from ..policy.users import means_no_user, user_of
from ..request.repository import SessionRepository
from ..request.scope import RequestScope
from ..session.context import Adopted, SessionContext
from ..session.mapping import Session
from ..session.saving import Saving
from ..session.special_keys import SpecialKeys
from ..stores.redis.store import RedisStore
from ..support.lag import Wait
from ..support.logs import fields
from .old_records import NotReadable, read

log = logging.getLogger(__name__)

_MOST_COOKIES = 4
"""Cookies of the old name that are looked at: several have that name where they differ in path or domain."""

_LONGEST_COOKIE = 8192
"""Characters. Browsers keep half of that."""

_SID = re.compile(r"[\w-]{16,256}", re.ASCII)
"""The form of Flask-Session's ids: it alone keeps a cookie that is not signed from naming other keys of that Redis."""

_ID = b"flask-langpont-session.adopted\0"

_PAUSE = 1.0
"""Seconds for which an old store that did not answer is not asked again, so that not every request waits for it."""


class Old(NamedTuple):
    """An old session.

    :param name: what tells it from all others. It may have another user later.
    :param values: session key → value.
    :param is_shared: whether two browsers may have the same one: cookies of visitors with the same data, of the same
        second, are the same.
    """

    name: str
    values: Mapping[Any, Any]
    is_shared: bool


class BroughtAlong:
    """The cookies of old sessions that one request came with.

    :param context: what new sessions are made with.
    """

    def __init__(self, adoption: Adoption, cookies: Sequence[str], context: SessionContext) -> None:
        self._adoption = adoption
        self._cookies = cookies
        self._context = context

    def take_over(self) -> Adopted | None:
        """Take the old session over. Called once, for a request that has no session id.

        :return: None: there is none that could be; the request is that of a new visitor.
        """
        scope = self._context.repository.begin()
        try:
            old = self._adoption.find(self._cookies, scope)
            return old and self._adoption.adopt(old, self._context, scope)
        except StoreError:
            return Adopted(None, scope)

    def ends_with(self, session: Session, is_gone: bool) -> bool:
        """End the old session if the user has signed out in this request, or another one has signed in.

        :param is_gone: whether the session's own cookie goes: the next request would begin with the old one again.
        :return: whether the cookies are to go.
        """
        is_over = is_gone or session.ended or (session.work.signed_in_anew and self._is_anothers(session))
        if is_over:
            self._adoption.end(self._cookies, session.work.scope)
        return is_over

    def _is_anothers(self, session: Session) -> bool:
        try:
            old = self._adoption.find(self._cookies, session.work.scope)
        except StoreError:
            return True
        if old is None or not self._adoption.is_signed_in(old):
            return False
        users = self._adoption.users_of(old)
        return not users or any(user_of(session.get(key)) != user_of(value) for key, value in users.items())


class Source(Protocol):
    """One kind of old sessions."""

    def read(self, cookie: str, scope: RequestScope) -> Old | None:
        """Return the old session of a cookie; None: there is none of this kind, it is forged, or too old.

        :raises StoreError: a store does not answer.
        """

    def end(self, cookie: str, scope: RequestScope) -> None:
        """End the old session for old workers, too, as far as it is not all in the cookie."""

    def close(self) -> None:
        """Let go of connections."""


class FlaskCookie:
    """Flask's own sessions: all in the cookie, signed."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def read(self, cookie: str, scope: RequestScope) -> Old | None:
        serializer: URLSafeTimedSerializer | None = SecureCookieSessionInterface().get_signing_serializer(self._app)
        if serializer is None:
            return None
        try:
            values = serializer.loads(cookie, max_age=int(self._app.permanent_session_lifetime.total_seconds()))
        except (BadData, ValueError):
            return None
        return Old(f"flask-cookie\0{cookie}", values, is_shared=True) if type(values) is dict else None

    def end(self, cookie: str, scope: RequestScope) -> None:
        """Do nothing: the session goes with its cookie."""

    def close(self) -> None:
        """Do nothing: there are no connections."""


class FlaskSessionRecord:
    """Sessions of Flask-Session: an id in the cookie, the data in Redis.

    :param store: that Redis.
    :param timeout: seconds that a request waits for one answer of it.
    :param prefix: of its keys.
    :param signed: whether its cookies are signed.
    :param pickled: whether records in pickle form are read.
    """

    def __init__(
        self, app: Flask, store: RedisStore, *, timeout: float, prefix: str, signed: bool, pickled: bool
    ) -> None:
        self._app = app
        self._store = store
        self._timeout = timeout
        self._prefix = prefix
        self._signed = signed
        self._pickled = pickled
        self._not_before = 0.0

    def read(self, cookie: str, scope: RequestScope) -> Old | None:
        sid = self._sid(cookie)
        record = None if sid is None else self._ask("GET", sid, scope)
        if not record:
            return None
        try:
            values = read(record, pickled=self._pickled)
        except NotReadable as error:
            log.warning(
                "a record of Flask-Session is not taken over: %s",
                error,
                extra=fields("old_record_unreadable", cause=str(error)),
            )
            return None
        return Old(f"flask-session\0{sid}", values, is_shared=False)

    def end(self, cookie: str, scope: RequestScope) -> None:
        sid = self._sid(cookie)
        if sid is not None:
            try:
                self._ask("DEL", sid, scope)
            except StoreError:
                log.warning(
                    "the old record of a session that was signed out stays in the Redis of the old sessions",
                    extra=fields("old_record_stays"),
                )

    def close(self) -> None:
        self._store.forget_connections()

    def _sid(self, cookie: str) -> str | None:
        sid = cookie
        if self._signed:
            keys = [*(self._app.config["SECRET_KEY_FALLBACKS"] or ()), self._app.secret_key or ""]
            try:
                sid = Signer(keys, salt="flask-session", key_derivation="hmac").unsign(cookie).decode()
            except (BadSignature, ValueError):
                return None
        return sid if _SID.fullmatch(sid) else None

    def _ask(self, command: str, sid: str, scope: RequestScope) -> Any:
        """Run a command on a record of the old store.

        :raises StoreError: no answer; not for a value that is no record, which counts as none.
        """
        if time.monotonic() < self._not_before:
            raise scope.gave_up(self._store.name, "DidNotAnswer")

        def ask(left: float) -> Any:
            wait = Wait(min(left, self._timeout), left)
            return self._store.run_commands([(command, f"{self._prefix}{sid}")], timeout=wait)[0]

        try:
            return scope.note(ask)
        except StoreError as error:
            if error.error_class is ErrorClass.DATA:
                return None  # what has that name is no record
            self._not_before = time.monotonic() + _PAUSE
            log.warning(
                "the Redis of the old sessions does not answer (%s); they are taken over later",
                error.why,
                extra=fields("old_redis_lost", **error.log_data),
            )
            raise


class Adoption:
    """Takes over the old sessions of one application.

    :param app: asked for its keys whenever they are needed.
    """

    def __init__(
        self, app: Flask, settings: Settings, repository: SessionRepository, sources: Sequence[Source]
    ) -> None:
        self._app = app
        self._settings = settings
        self._repository = repository
        self._sources = sources

    def of(self, request: Request, context: SessionContext) -> BroughtAlong | None:
        """Return the old sessions' cookies of a request; None: it has none.

        :param context: what new sessions are made with.
        """
        values = request.cookies.getlist(self._settings.adopt_cookie_name)
        cookies = [value for value in values if 0 < len(value) <= _LONGEST_COOKIE][:_MOST_COOKIES]
        return BroughtAlong(self, cookies, context) if cookies else None

    def find(self, cookies: Sequence[str], scope: RequestScope) -> Old | None:
        """Return the first old session that one of the cookies is of.

        :raises StoreError: the old store does not answer.
        """
        for cookie in cookies:
            for source in self._sources:
                if old := source.read(cookie, scope):
                    return old
        return None

    def adopt(self, old: Old, context: SessionContext, scope: RequestScope) -> Adopted | None:
        """Continue an old session under a new id; None: there is nothing in it, or it is over.

        :raises StoreError: the database does not answer.
        """
        later = Adopted(None, scope, self._token_of(old))
        if self.is_signed_in(old) and not scope.can(DATABASE, WRITE):
            return later
        plan = Saving(self._new_session(old, context, scope).work).plan()
        if plan is None or plan.target is None:
            return None
        saved = self._repository.saves.adopt(plan, self._note(old), scope)
        if saved.stored:
            return Adopted(plan.target, scope)
        return self._as_it_is_now(plan.target, plan.life, later) if saved.ended else later

    def _as_it_is_now(self, sid: SessionId, life: Life, later: Adopted) -> Adopted | None:
        """Return the outcome for a session that was taken over before: by another request of the same browser, or by
        one whose answer was lost. It may have ended since."""
        verdict = self._repository.reads.load(sid, later.scope, life).verdict
        if verdict is Verdict.VALID:
            return Adopted(sid, later.scope)
        return later if verdict is Verdict.UNVERIFIABLE else None

    def end(self, cookies: Sequence[str], scope: RequestScope) -> None:
        """End the old sessions of these cookies: here and, as far as that is possible, for old workers."""
        for cookie in cookies:
            for source in self._sources:
                with suppress(StoreError):  # then its cookie goes, and that is all that can be done now
                    self._end(cookie, source, scope)

    def _end(self, cookie: str, source: Source, scope: RequestScope) -> None:
        old = source.read(cookie, scope)
        if old is None:
            return
        if self.is_signed_in(old):
            self._repository.saves.row_writes.never_adopt(self._note(old), scope)
        source.end(cookie, scope)

    def close(self) -> None:
        """Let go of connections to old stores."""
        for source in self._sources:
            source.close()

    def is_signed_in(self, old: Old) -> bool:
        """Return whether an old session names a user, or gives rights."""
        rights = self._settings.privilege_key_patterns
        return bool(self.users_of(old)) or any(
            value for key, value in old.values.items() if isinstance(key, str) and key in rights
        )

    def users_of(self, old: Old) -> dict[str, Any]:
        """Return the user keys of an old session, with their values."""
        values = {key: old.values.get(key) for key in self._settings.user_keys}
        return {key: value for key, value in values.items() if not means_no_user(value)}

    def _note(self, old: Old) -> Note:
        life_ms = int(self._app.permanent_session_lifetime.total_seconds() * 1000)
        return Note(digest_of(self._whole_name(old, SIGNED_IN)), max(1, life_ms))

    def _whole_name(self, old: Old, kind: str) -> str:
        """Return the old session's name with its user, because Flask-Session keeps the id when another one signs in;
        where the user has no name, with all its values, of which any may tell one user from another. And with the kind,
        which an id of ours never changes."""
        users = {key: user_of(value) for key, value in self.users_of(old).items()}
        if kind == SIGNED_IN:
            return f"{kind}\0{old.name}\0{users if users and all(users.values()) else old.values}"
        return f"{kind}\0{old.name}"

    def _token_of(self, old: Old) -> str | None:
        feature = self._settings.table.features.get(CSRF_FEATURE)
        tokens = [old.values.get(key) for key in feature.keys] if feature else []
        return next((token for token in tokens if isinstance(token, str)), None)

    def _new_session(self, old: Old, context: SessionContext, scope: RequestScope) -> Session:
        """Return a session with the old one's content. Nothing is stored yet; values that cannot be stored are
        reported."""

        def mint(kind: str, permanent: bool) -> SessionId:
            sid = context.mint(kind, permanent)
            if kind == ANONYMOUS and old.is_shared:
                return sid
            return replace(sid, sid=self._derived_id(old, kind))

        def begin() -> Session:
            session = Session(replace(context, cookie=lambda request: None, mint=mint), None)
            session.work.way = scope
            return session

        session = begin()
        if not self._fill(session, old, lambda key: True):
            # Without the user nothing that belongs to the user is taken along.
            session = begin()
            self._fill(session, old, lambda key: self._category_of(key) != AUTH)
        return session

    def _fill(self, session: Session, old: Old, is_wanted: Callable[[Any], bool]) -> bool:
        """Put the values of an old session into a new one. Return whether the users could be stored."""
        session.permanent = bool(old.values.get(PERMANENT))
        users = [key for key in old.values if key in self._settings.user_keys]
        for key in (*users, *(key for key in old.values if key not in users)):
            if not is_wanted(key):
                continue
            try:
                session[key] = old.values[key]
            except SessionValueError as error:
                category, why = self._category_of(key) or "none", f"old session: {error.reason}"
                self._repository.backend.reports.rejected(category, str(key), why, is_mistake=False)
                if key in users:
                    return False
        if token := self._token_of(old):
            SpecialKeys(session).bring_token(token)
        return True

    def _category_of(self, key: Any) -> str | None:
        table = self._settings.table
        return table.feature_of(key).category if isinstance(key, str) and key in table else None

    def _derived_id(self, old: Old, kind: str) -> str:
        """Return an id that is the same for each request of a browser, and as good as random without the secret key."""
        key, name = want_bytes(self._app.secret_key or b""), self._whole_name(old, kind).encode()
        digest = hmac.new(key, _ID + name, sha256).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
