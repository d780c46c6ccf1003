"""``LangPontSession``: Flask's session interface, cookies on one side and the repository on the other.

The interface asks, it does not know: what is stored where is the repository's business, what changed is the session's.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, current_app, g, got_request_exception, has_app_context, has_request_context, request
from flask import session as current_session
from flask.sessions import SessionInterface, SessionMixin
from flask.wrappers import Request, Response

from .blueprint import health_blueprint, health_report, yielding
from .devices import device_reader
from .exceptions import LangPontSessionError, Refused, SessionLimitReached, SessionTooLarge, UnsupportedValue
from .metrics.recorder import BEGAN, Recorder, record_request
from .policy.categories import CSRF_FEATURE
from .policy.ids import SIGNED_IN, SessionId, is_digest
from .policy.leases import Life
from .policy.plans import Revoked
from .session.context import RememberCookie, SessionContext
from .session.cookies import CookieSigner, refusal_of, signer_for
from .session.mapping import NOT_LOOKED, NOT_READ, Session
from .session.saving import Saving
from .session.special_keys import SpecialKeys
from .session.values import SessionInfo
from .session.work import Work
from .support.logs import fields

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from .build import State
    from .config.settings import Settings
    from .request.repository import SessionRepository

log = logging.getLogger(__name__)

EXTENSION = "langpont_session"
CONTEXT = "langpont_session_context"
CALL_OFF = "langpont_session_call_off"
_SET, _DELETED = "set", "deleted"

applications: weakref.WeakSet[Flask] = weakref.WeakSet()
"""For which the extension is set up."""

_arranging = threading.Lock()


class _Tables:
    """A descriptor that imports the tables when it is first read: SQLAlchemy comes with the first application."""

    def __get__(self, _: object, owner: type) -> MetaData:
        from .stores.sql.tables import METADATA

        return METADATA


class LangPontSession(SessionInterface):
    """Flask sessions by category in Redis or Valkey, with auth mirrored to SQL.

    >>> app.session_interface = LangPontSession(app)      # doctest: +SKIP

    or ``LangPontSession().init_app(app)``, which sets the interface itself. Several applications may use one object.
    """

    metadata = _Tables()
    """The tables in the database, for an application that keeps them in its own chain of migrations."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Check the configuration, build the stores and install interface, hooks and health pages.

        Nothing is connected here: an application starts with every store down, and heals by itself.

        :raises ConfigError: with every mistake of the configuration.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(
                "LangPontSession is already set up for this application; use that object: app.session_interface"
            )
        state = arrange(app)
        app.session_interface = self
        got_request_exception.connect(_failed, app)
        if state.exporting is not None:
            state.exporting.install(app)
        _listen_to_flask_login(app)
        _offer_commands(app)
        if state.settings.health_url_prefix:
            pages = health_blueprint(state_of)
            if state.settings.status_page is not None:
                from .status import add_status_page  # not paid for without it

                add_status_page(pages, state_of)
            with yielding(app):
                app.register_blueprint(pages, url_prefix=state.settings.health_url_prefix)
        _advise(app)

    # -- Flask's contract ------------------------------------------------------------------------------------------

    def open_session(self, app: Flask, request: Request) -> Session | None:
        """Return a session that has looked at nothing yet; None without a SECRET_KEY, so that Flask explains it."""
        request.environ[BEGAN] = time.perf_counter()
        if not app.secret_key:  # which a class may have as an attribute, beside the configuration
            return None
        state = state_of(app)
        state.ensure_started()
        context: SessionContext = app.extensions[CONTEXT]
        return Session(context, request, None if state.adoption is None else state.adoption.of(request, context))

    def save_session(self, app: Flask, session: SessionMixin | None, response: Response) -> None:
        """Store what changed and send the cookie if it is due. Never raises for a store; may run twice."""
        if not isinstance(session, Session):
            return  # opening failed, or Flask made its null session
        repository = session.context.repository
        if session.begun is not None or _may_be_due(session, repository.settings):
            self._close(app, repository, session, response)
        elif session.seen is not NOT_LOOKED and session.seen is not None:
            _vary_on_cookie(response, is_private=session.seen.row is not None)
        elif session.accessed:
            _vary_on_cookie(response, is_private=False)
        session.is_closed = True
        if response.is_streamed and _is_still_to_be_made(response):
            _vary_on_stream(session, response)
        record_request(repository.recorder, session.request.environ, "ok")

    def _close(self, app: Flask, repository: SessionRepository, session: Session, response: Response) -> None:
        work = session.work
        try:
            is_stored = work.is_unchanged or self._save(app, session, work, response)
        finally:
            work.is_closed = True
        if not is_stored:
            return
        done = self._send_cookie(app, session, work, response)
        if session.old is not None and session.old.ends_with(session, done == _DELETED):
            done = self._delete_old_cookie(app, repository.settings, response)
        is_private = bool(done) or work.showed_auth
        if is_private or session.accessed:
            _vary_on_cookie(response, is_private=is_private)

    @staticmethod
    def _save(app: Flask, session: Session, work: Work, response: Response) -> bool:
        """Store the changes. Return False if that was refused, which the response says now."""
        began = time.perf_counter()
        try:
            saved = Saving(work).finish()
        except Refused as refused:
            _replace_response(response, _refusal(app, refused))
            if isinstance(refused, SessionLimitReached) and SpecialKeys(session).is_by_remember_cookie:
                _delete_remember_cookie(app, response)
            outcome = "refused"
        else:
            if saved is None:
                return True
            outcome = "ok" if saved.durable else "not_durable"
        work.repository.recorder.noting("request_save", "all", "none", outcome)(time.perf_counter() - began)
        return outcome != "refused"

    def _send_cookie(self, app: Flask, session: Session, work: Work, response: Response) -> str:
        """Send or delete the cookie. An unchanged id is not sent again, so that a late answer cannot undo a newer
        cookie (docs/guarantees.md).

        :return: what was done: it was :data:`_SET` or :data:`_DELETED`; empty: nothing.
        """
        target, is_flask_mode = work.target, work.repository.settings.cookie_resend == "flask"
        if not work.is_as_it_came:
            if target is not None and work.made is target:
                if work.is_worth_a_cookie:
                    return self._set_cookie(app, session, response, target)
                return self._delete_cookie(app, response) if session.ended else ""
            if session.ended:
                return self._delete_cookie(app, response)
        if is_flask_mode and session.modified and work.origin is not None and not session:
            return self._delete_cookie(app, response)  # Flask deletes that of a session that was modified to be empty
        if target is not None:
            is_due = self._is_due_in_flask if is_flask_mode else self._is_due
            if is_due(app, work, target):
                return self._set_cookie(app, session, response, target)
        return ""

    @staticmethod
    def _is_due(app: Flask, work: Work, target: SessionId) -> bool:
        if not work.permanence_changed:
            if target.kind == SIGNED_IN or not work.permanent:
                return False  # a user's lasts as long as the session can: a late renewal would undo a newer sign-in
            if time.time() - target.issued_at <= app.permanent_session_lifetime.total_seconds() / 10:
                return False
        return not work.is_in_doubt

    @staticmethod
    def _is_due_in_flask(app: Flask, work: Work, target: SessionId) -> bool:
        refresh = work.permanent and app.config["SESSION_REFRESH_EACH_REQUEST"]
        return (work.is_modified or refresh) and not work.is_in_doubt

    def _set_cookie(self, app: Flask, session: Session, response: Response, target: SessionId) -> str:
        signer = _signer(app)
        response.set_cookie(
            self.get_cookie_name(app),
            signer.dump(target, session.permanent, time.time()),
            expires=self.get_expiration_time(app, session),
            **self._attributes(app),
        )
        return _SET

    def _delete_cookie(self, app: Flask, response: Response) -> str:
        response.delete_cookie(self.get_cookie_name(app), **self._attributes(app))
        return _DELETED

    def _delete_old_cookie(self, app: Flask, settings: Settings, response: Response) -> str:
        attributes = self._attributes(app)
        if settings.adopt_cookie_domain is not None:
            attributes["domain"] = settings.adopt_cookie_domain
        response.delete_cookie(settings.adopt_cookie_name, **attributes)
        return _DELETED

    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        """Return when the cookie of a permanent session ends: a user's with the session, however much that is used
        until then, because it is not sent again; a visitor's as Flask's."""
        target = session.work.target if isinstance(session, Session) and session.permanent else None
        if target is not None and target.kind == SIGNED_IN:
            row = Saving(cast(Session, session).work).row_of(target.digest)
            if row is not None:
                return datetime.fromtimestamp(row.absolute_expires_at / 1000, UTC)
        return super().get_expiration_time(app, session)

    def _attributes(self, app: Flask) -> dict[str, Any]:
        """Return the cookie's attributes, the same on setting and on deleting: a browser ignores a deletion without
        them."""
        return {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app),
            "partitioned": self.get_cookie_partitioned(app),
        }

    # -- for operators ---------------------------------------------------------------------------------------------

    def sessions(self, user_id: object, app: Flask | None = None) -> list[SessionInfo]:
        """Return the sessions in which a user is signed in, oldest first. Works while Redis is down.

        :param user_id: the value of the first of USER_KEYS; compared as text.
        :raises LangPontSessionError: the database does not answer.
        """
        repository = state_of(app).repository
        found = repository.devices.of_user(str(user_id), _own_digest(repository), repository.begin())
        return [SessionInfo.of(one) for one in found]

    def all_sessions(
        self, *, active_since: datetime | None = None, after: str = "", limit: int = 100, app: Flask | None = None
    ) -> list[SessionInfo]:
        """Return a part of all sessions in which users are signed in, in the order of their digests. Works while Redis
        is down.

        >>> page = langpont.all_sessions()                      # doctest: +SKIP
        >>> page = langpont.all_sessions(after=page[-1].digest) # doctest: +SKIP

        :param active_since: only those that were in use since then, as exact as ``last_seen_at``.
        :param after: the digest that the part before ended with.
        :param limit: how many at most.
        :return: nothing: there are no more.
        :raises LangPontSessionError: the database does not answer.
        """
        found = state_of(app).repository.devices.all(_milliseconds(active_since), after, limit)
        return [SessionInfo.of(one) for one in found]

    def count_sessions(self, *, active_since: datetime | None = None, app: Flask | None = None) -> int:
        """Return how many sessions :meth:`all_sessions` has in all. The database looks at every row for that.

        :raises LangPontSessionError: the database does not answer.
        """
        return state_of(app).repository.devices.count(_milliseconds(active_since))

    def edit(self, digest: str, app: Flask | None = None) -> AbstractContextManager[Session]:
        """Read and change one session where no request of it is: in a job, a command, or on an admin page.

        >>> with langpont.edit(digest) as session: session["report"] = "ready"      # doctest: +SKIP

        It has the session's data as a request would see it, and stores what was changed when the block ends, by the
        same rules; nothing if the block raises. It is no use of the session, which ends as if it had not been looked
        at. Users and rights stay as they are: what needs another id or cookie raises :class:`OutsideRequest`.

        :param digest: as ``session.digest`` was in the view that began the job, or as :meth:`sessions` says it. A
            session that has been given another id since is found as well.
        :raises ValueError: that is no digest.
        :raises SessionNotFound: there is no such session, or it has ended, be it until the block ends.
        :raises LangPontSessionError: a store does not answer that has to say whether there is one.
        """
        from .session.outside import edited  # not paid for by workers that do not

        state = state_of(app)
        state.ensure_started()
        context: SessionContext = (app or current_app).extensions[CONTEXT]
        return edited(context, _checked_digest(digest))

    def revoke(self, digest: str, app: Flask | None = None) -> Revoked:
        """End one session for ever, whatever is down: what does not answer now is told later, by this host.

        It is not looked at whether it lived until now: `sessions` is 1.

        :param digest: as :meth:`sessions` and ``session.digest`` say it.
        :raises ValueError: that is no digest.
        """
        repository = state_of(app).repository
        durable = repository.revocations.revoke(_checked_digest(digest), repository.begin())
        return Revoked(durable=durable, sessions=1)

    def revoke_others(self, only: str | None = None) -> Revoked:
        """End the sessions of this request's user on other devices for ever. Its own one goes on; a request that signs
        the user in is saved first. The devices are told once, by ``session.was_displaced()``.

        >>> langpont.revoke_others(request.form["digest"])      # doctest: +SKIP

        :param only: end this one alone, by its digest. That of another user, or of no session, ends nothing.
        :return: how many are over, 0 for a visitor; `durable` as of :meth:`revoke`.
        :raises LangPontSessionError: the database does not answer: which there are is not known.
        """
        session = cast(Session, current_session._get_current_object())  # type: ignore[attr-defined]
        work = session.work
        if work.signs_in:
            session.flush()
        row = work.known_row()
        if row is None or row.user_id is None:
            return Revoked(durable=True, sessions=0)
        return work.repository.devices.revoke_others(row.user_id, row.digest, only, work.scope)

    def revoke_user(self, user_id: object, app: Flask | None = None) -> Revoked:
        """Log a user out everywhere: every session that began until now ends for ever.

        With the database down, this host and (for the sessions it knows) Redis hold it at once, the others as soon
        as the database answers.
        """
        repository = state_of(app).repository
        return repository.revocations.revoke_user(str(user_id), repository.begin())

    def status(self, app: Flask | None = None) -> dict[str, Any]:
        """Return what ``/healthz`` says. Needs an application context unless `app` is given."""
        return health_report(state_of(app))

    def create_tables(self, app: Flask | None = None) -> None:
        """Create the tables that are missing in the database. Waits for it as long as it takes.

        :raises LangPontSessionError: the database does not answer, or refuses.
        """
        state_of(app).backend.database.upkeep.create_tables()

    def close(self, app: Flask | None = None) -> None:
        """End an application before its process: publish and tell what is left, end the threads that run beside its
        requests, let go of connections and files. Waits for that, some seconds at most. May be called again.

        This need not be called: it happens by itself when the application is dropped, and when the process ends.
        """
        state_of(app).close()


class NotSetUp(LangPontSessionError, RuntimeError):
    """The application is without the extension."""


def state_of(app: Flask | None = None) -> State:
    """Return the parts of an application (of the current one by default).

    :raises NotSetUp: the extension was not set up for it.
    """
    app = app or current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        state: State = app.extensions[EXTENSION]
    except KeyError:
        raise NotSetUp("LangPontSession is not set up for this application; call init_app(app)") from None
    if state.scratch is None and app.testing:
        return _arranged_for_tests(app)
    return state


def _arranged_for_tests(app: Flask) -> State:
    """Return the parts made anew where TESTING was set after the extension, as Flask's own documentation does it."""
    with _arranging:
        state: State = app.extensions[EXTENSION]
        return arrange(app) if state.scratch is None else state


def arrange(app: Flask) -> State:
    """Make the parts of an application by its configuration as it is now, in place of those that it has, if any.

    :raises ConfigError: with every mistake of the configuration.
    """
    from .build import build, close_with  # the stores and their drivers: not before there is an application

    before: State | None = app.extensions.get(EXTENSION)
    state = build(app, None if before is None else before.recorder)
    app.extensions[EXTENSION] = state
    app.extensions[CONTEXT] = _context(app, state)
    if before is not None:
        app.extensions[CALL_OFF]()
        before.close()
    app.extensions[CALL_OFF] = close_with(app, state)
    applications.add(app)
    return state


def _offer_commands(app: Flask) -> None:
    """``flask`` finds them by the entry point, as far as the application is started by it: its test runner is not."""
    from .cli import langpont  # of which only commands have a use

    app.cli.commands.setdefault("langpont", langpont)


def _listen_to_flask_login(app: Flask) -> None:
    """``logout_user()`` removes only keys that it sees. A session that cannot be verified, or has another id by now,
    shows none, and ends too."""
    try:
        from flask_login import user_logged_out
    except ImportError:
        return

    user_logged_out.connect(_logged_out, app)


def _failed(sender: Flask, exception: BaseException, **_: Any) -> None:
    """Record the end of a request by an exception that the application does not handle. Flask may make a page of it."""
    recorder = state_of(sender).recorder
    record_request(recorder, request.environ, "error")
    if isinstance(exception, (SessionTooLarge, UnsupportedValue)):
        recorder.count("values_rejected")


def _logged_out(sender: Flask, **_: Any) -> None:
    session = current_session._get_current_object()  # type: ignore[attr-defined]
    if isinstance(session, Session) and session.work.is_in_doubt:
        session.sign_out()


def _confirm_to_flask_login(app: Flask) -> None:
    """Have it take the browser for that of the session as it looks now: if it looks like another one, the session is
    made stale again by each request, however often its user enters the password."""
    if has_request_context() and hasattr(app, "login_manager") and "_user_id" in current_session:
        from flask_login import confirm_login

        confirm_login()


def _checked_digest(digest: str) -> str:
    if not is_digest(digest):
        raise ValueError("a digest has 43 characters of A-Z, a-z, 0-9, - and _, as sessions() lists them")
    return digest


def _milliseconds(moment: datetime | None) -> int:
    """Return a moment in milliseconds since 1970; 0: none was given."""
    return 0 if moment is None else int(moment.timestamp() * 1000)


def _own_digest(repository: SessionRepository) -> str | None:
    """Return the digest of the session that came with the request; None: there is no request to this application, or it
    brought none."""
    session = current_session._get_current_object() if has_request_context() else None  # type: ignore[attr-defined]
    if not isinstance(session, Session) or session.context.repository is not repository:
        return None
    origin = session.work.origin
    return None if origin is None else origin.digest


def _may_be_due(session: Session, settings: Settings) -> bool:
    """Return whether a cookie may have to be sent for a session that the request has at most read."""
    is_flask_mode = settings.cookie_resend == "flask"
    origin = session.origin
    if origin is NOT_READ:
        if not (session.accessed or is_flask_mode):
            return False
        origin = session.read_cookie()
    if origin is None:
        return is_flask_mode and session.old is not None  # which may be taken over
    return origin.permanent and (is_flask_mode or origin.kind != SIGNED_IN)


def _vary_on_cookie(response: Response, *, is_private: bool) -> None:
    """Have caches keep the response for this cookie only: served to another browser, or served later, one that has a
    cookie would open a wrong or an old session.

    :param is_private: they shall not keep it at all (ASVS 14.3.2), unless a view that knows better has set its own.
    """
    # Looked for in the list itself: a fraction of what it costs to have each header's text taken apart.
    present = set(map(str.lower, dict(iter(response.headers))))
    if "vary" in present:
        response.vary.add("Cookie")
    else:
        response.headers.add("Vary", "Cookie")
    if is_private and "cache-control" not in present:
        response.headers.add("Cache-Control", "no-store")


def _is_still_to_be_made(response: Response) -> bool:
    """Return whether a streamed response may still look at the session: no file does, and none with a length."""
    return not response.direct_passthrough and "Content-Length" not in response.headers


def _vary_on_stream(session: Session, response: Response) -> None:
    """Say that a streamed response depends on the cookie: it may look at the session for the first time after its
    headers were sent. The cookie tells if the session may be a user's; no store is asked."""
    origin = session.work.origin if session.begun else session.read_cookie()
    _vary_on_cookie(response, is_private=origin is not None and origin.kind == SIGNED_IN)


def _refusal(app: Flask, refused: Refused) -> Response:
    """Return the 503 or 403 as the application's own error handler shows it, if it has one."""
    if has_request_context():
        try:
            return app.make_response(app.handle_user_exception(refused))
        except Exception:
            name = type(refused).__name__
            log.exception(
                "the application's handler of %s failed; the plain page is sent",
                name,
                extra=fields("error_handler_failed", error=name),
            )
    return app.response_class(refused.get_body(), refused.code, refused.get_headers())


def _replace_response(response: Response, page: Response) -> None:
    """Turn the response into another in place: raising here would run the save a second time."""
    response.status_code = page.status_code
    response.headers.clear()
    response.headers.extend(page.headers)
    response.headers["Cache-Control"] = "no-store"
    _vary_on_cookie(response, is_private=True)
    response.direct_passthrough = False
    response.set_data(page.get_data())


def _signer(app: Flask) -> CookieSigner:
    secret_key = app.secret_key
    assert secret_key is not None  # open_session gave no session without one
    return signer_for(secret_key, app.config["SECRET_KEY_FALLBACKS"])


def _read_cookie(app: Flask, recorder: Recorder, request: Request) -> SessionId | None:
    header = request.environ.get("HTTP_COOKIE")
    if not header:
        return None
    signer, name = _signer(app), app.session_interface.get_cookie_name(app)
    known = signer.known[name].get(header)
    if known is not None:
        return known
    values = request.cookies.getlist(name)
    if not values:
        return None
    if len(values) > 1:
        recorder.count("duplicate_cookies")
    found = signer.load(values)
    if found is None:
        recorder.count(f"cookies_refused_{refusal_of(values)}")
    elif len(values) == 1:
        signer.remember(name, header, found)
    return found


def _context(app: Flask, state: State) -> SessionContext:
    """Return the context of an application's sessions. Made once: its parts read Flask's keys when they are called."""
    from .config.explanations import KeyAdvice  # by now the settings have been imported

    its = cast(Flask, weakref.proxy(app))  # the application holds these: they must not hold it
    settings = state.settings

    @lru_cache(maxsize=64)
    def permanent_life(lifetime: timedelta) -> Life:
        """Return the same object for the same time: what was found out about a session's life is remembered by that
        object."""
        return settings.permanent_life(lifetime)

    def life(permanent: bool) -> Life:
        return permanent_life(its.permanent_session_lifetime) if permanent else settings.life

    return SessionContext(
        state.repository,
        cookie=partial(_read_cookie, its, state.recorder),
        mint=lambda kind, permanent: _signer(its).mint(kind, permanent=permanent, now=time.time()),
        life=life,
        on_new_id=lambda: _forget_csrf(state.settings),
        on_use=KeyAdvice(state.settings).note,
        remember_cookie=partial(_remember_cookie, its),
        device=device_reader(state.settings),
        on_confirm=lambda: _confirm_to_flask_login(its),
    )


def _remember_cookie(app: Flask, request: Request) -> RememberCookie:
    is_there = _name_of_remember_cookie(app) in request.cookies
    return RememberCookie(is_there, request.method in ("GET", "HEAD", "OPTIONS"))


def _name_of_remember_cookie(app: Flask) -> str:
    name: str = app.config.get("REMEMBER_COOKIE_NAME", "remember_token")  # Flask-Login's key and default
    return name


def _delete_remember_cookie(app: Flask, response: Response) -> None:
    """Delete the cookie as Flask-Login does. With the cookie every page would try to sign in, and be refused."""
    domain, path = app.config.get("REMEMBER_COOKIE_DOMAIN"), app.config.get("REMEMBER_COOKIE_PATH", "/")
    response.delete_cookie(_name_of_remember_cookie(app), domain=domain, path=path)


def _forget_csrf(settings: Settings) -> None:
    """Forget the token that Flask-WTF has cached in ``g``: a form in this response needs that of the new id."""
    feature = settings.table.features.get(CSRF_FEATURE)
    if feature and has_app_context():
        for key in feature.keys:
            g.pop(key, None)


def _advise(app: Flask) -> None:
    """Log one line at start about what Flask leaves open by default."""
    if not app.debug and not app.testing and app.secret_key and len(app.secret_key) < 32:
        log.warning(
            "SECRET_KEY is shorter than 32 characters; python -c 'import secrets; print(secrets.token_hex())'",
            extra=fields("secret_key_short"),
        )
    name = app.config["SESSION_COOKIE_NAME"]
    if not app.debug and not app.testing and not (app.config["SESSION_COOKIE_SECURE"] and name.startswith("__Host-")):
        log.info(
            "the session cookie is not protected as it could be: where the site is served by HTTPS, "
            "set SESSION_COOKIE_NAME = '__Host-session' and SESSION_COOKIE_SECURE = True",
            extra=fields("cookie_unprotected"),
        )
