"""The mapping a view sees: lazy, typed, and aware of what it means when a user key is set or removed.

Nothing is read until a stored key is touched; then everything needed comes in one round trip. Values are decoded one
by one, when they are read. What changed is known by key; a change inside a list or dict is found at the save, by
comparing encodings. Setting a user key is a sign-in and gives the session a new id at once; removing one is a
sign-out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from flask.sessions import SessionMixin

from ..exceptions import ConfigError, Refused, UnreadableValue, UnsupportedValue
from ..policy.categories import AUTH, Feature, KeyKind
from ..policy.devices import clean_label
from ..policy.health import PRIMARY
from ..policy.ids import SIGNED_IN, SessionId
from ..policy.levels import LEVELS, Kept
from ..policy.loaded import Verdict
from ..policy.serializer import IMMUTABLE, INT_LIMIT, check_key, decode
from ..policy.users import authenticated_at, is_recent
from .auth_keys import AuthKeys
from .availability import explain, is_available
from .context import OldSession, SessionContext
from .freshness import fresh_row
from .saving import Saving
from .special_keys import SpecialKeys
from .values import CategoryView, FeatureReport
from .work import Work, place_of, places_of, readable_keys

if TYPE_CHECKING:
    from ..request.line import Seen

log = logging.getLogger(__name__)

NOT_READ: Any = object()
"""The cookie of the request was not read yet."""

NOT_LOOKED: Any = object()
"""The request has not asked for anything of its session."""

LONG_WAY: Any = object()
"""The straight line does not answer."""

LARGEST_STEP = 10**17
"""The largest step that the server adds to a number of 18 digits without leaving its 64 bits."""


def _look(session: Session, key: str) -> Seen | None:
    """Return what the straight line shows of a session; None: the stores must be asked, or do not keep such a key."""
    context = session.context
    if context.kind_of(key) is not KeyKind.STORED:
        return None
    origin = session.read_cookie()
    if origin is None:
        return None
    session.seen = context.repository.line.read(origin, context.life(origin.permanent))
    session.keys_read = []
    return session.seen


def _begin_work(session: Session) -> Work:
    """Begin the work of a request, which goes on from what the straight line has shown."""
    origin, seen = session.origin, session.seen
    if origin is NOT_READ:
        origin = session.read_cookie()
    work = session.begun = Work(session.context, session.request, origin)
    work.transient, work.is_closed, session.seen = session.transient, session.is_closed, None
    if seen is None:
        work.is_off_line = True
    elif seen is not NOT_LOOKED:
        work.loaded = seen
        work.now.read.update(session.keys_read)
    if origin is None and session.old is not None and not session.is_closed:
        work.take_over(session.old)
    return work


def _shown_on_line(context: SessionContext, seen: Seen, key: str) -> Any:
    """Return the value of a key from the straight line; :data:`LONG_WAY`: the straight line cannot answer for it.

    :raises KeyError: it has no value.
    """
    if seen.former or context.kind_of(key) is not KeyKind.STORED:
        return LONG_WAY
    found = seen.categories.get(context.repository.table.feature_of(key).category)
    if found is None:
        return LONG_WAY
    try:
        value = decode(found.shown[key])
    except UnreadableValue:
        return LONG_WAY
    if type(value) not in IMMUTABLE:
        return LONG_WAY
    seen.values[key] = value
    return value


def _not_countable(key: str, category: str) -> str:
    return (
        f"LANGPONT_SESSION_ENCRYPTED_CATEGORIES: Redis adds to a number that it can read, and {category!r}, the "
        f"category of {key!r}, is encrypted; name the other categories there, have the key in one that is not "
        f"encrypted, or assign session[{key!r}], of which two requests at once may lose one"
    )


class DictLike(SessionMixin):
    """A session that is no dict, but can be copied and joined with a dict like one.

    A copy, by whatever means, is a dict of what the session has now: nothing that is done with it reaches the session.
    """

    def copy(self) -> dict[str, Any]:
        """Return the session's present content as a dict."""
        return dict(self)

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(self.copy(), memo)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key, and return it with its value.

        :raises KeyError: the session is empty.
        """
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): the session is empty")

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        self.update(other)
        return self


class Session(DictLike):
    """One request's session.

    A mapping as Flask's own session is; beyond that it says where it stands (:attr:`level`, :attr:`fallback_mode`,
    :attr:`emergency_mode`, :attr:`unverified`) and can :meth:`increment`, :meth:`flush`, :meth:`regenerate` and
    :meth:`sign_out`.

    :param request: that the session is of; the context reads its cookies.
    :param old: the old session whose cookie the request carries as well; None: it carries none.
    :ivar origin: the session id in the request's cookie, once that was read.
    :ivar seen: what the straight line shows of the session; None: nothing, or the request has its own :attr:`work`.
    :ivar keys_read: of that.
    :ivar begun: the :attr:`work`, as soon as it has begun: most requests to a site touch no session, and most that do
        only read it.
    :ivar transient: keys that last for the request only.
    :ivar is_closed: the response is on its way: no old session is taken over any more.
    """

    accessed = False
    is_closed = False
    origin: SessionId | None = NOT_READ
    seen: Seen | None = NOT_LOOKED
    begun: Work | None = None
    keys_read: list[str]

    def __init__(self, context: SessionContext, request: Any, old: OldSession | None = None) -> None:
        self.context = context
        self.request = request
        self.old = old
        self.transient: dict[str, Any] = {}

    def read_cookie(self) -> SessionId | None:
        """Return the session id that the request's cookie brings; None: it brings none, or a forged one."""
        if self.origin is NOT_READ:
            self.origin = self.context.cookie(self.request)
        return self.origin

    @property
    def work(self) -> Work:
        """Return what the request knows of its session and has changed; for the interface."""
        return self.begun or _begin_work(self)

    @property
    def digest(self) -> str | None:
        """Return the name under which this session is stored, listed and revoked; None: it has no id yet."""
        target = self.work.target
        return target.digest if target else None

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Return whether no session id came with the request."""
        return self.work.cookies_id is None

    @property
    def ended(self) -> bool:
        """Return whether this request signed the session out."""
        return self.work.was_signed_out

    def __getitem__(self, key: str) -> Any:
        if not isinstance(key, str):
            raise KeyError(key)
        seen = _look(self, key) if self.seen is NOT_LOOKED else self.seen
        if seen is not None:
            self.keys_read.append(key)
            values = seen.values
            value = values[key] if key in values else _shown_on_line(self.context, seen, key)
            if value is not LONG_WAY:
                return value
        kind = self.context.kind_of(key)
        if kind is not KeyKind.STORED:
            return SpecialKeys(self).get(key, kind)
        work = self.work
        values = work.now.values
        return values[key] if key in values else work.value(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        kind = self.context.kind_of(key)
        return self.work.has(key) if kind is KeyKind.STORED else SpecialKeys(self).has(key, kind)

    def __iter__(self) -> Iterator[str]:
        # A value that cannot be read counts as absent here too: a loop must be able to look every key up.
        self.work.now.read_all = True
        return iter(readable_keys(self.work))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self.work.now.assigned) or len(self) > 0

    def __repr__(self) -> str:
        # No values: a session's repr ends up in logs and error pages.
        state = "not loaded" if self.work.loaded is None else self.work.loaded.verdict
        return f"<Session {state}, {len(self.work.now.assigned)} keys set>"

    def __setitem__(self, key: str, value: Any) -> None:
        key = check_key(key)
        kind = self.context.kind_of(key)
        if kind is not KeyKind.STORED:
            SpecialKeys(self).set(key, kind, value)
            return
        work = self.begun or _begin_work(self)
        category, now = self._feature_to_store(key).category, work.now
        encoded = now.encode_fitting(key, value, category, work.loaded)
        if work.is_closed:
            work.warn_if_closed(key)
        if category == AUTH and not AuthKeys(work).is_to_be_stored(key, value, encoded):
            now.values[key] = value
            return
        self.context.on_use(key)
        now.assign(key, value, encoded)

    def _feature_to_store(self, key: str) -> Feature:
        try:
            return self.context.repository.table.feature_of(key)
        except KeyError:
            raise UnsupportedValue(
                key, "no feature of LANGPONT_SESSION_CATEGORIES claims it, nor one of LANGPONT_SESSION_FEATURES"
            ) from None

    def __delitem__(self, key: str) -> None:
        kind = self.context.kind_of(key)
        if kind is KeyKind.STORED:
            AuthKeys(self.work).delete(key)
        else:
            SpecialKeys(self).delete(key, kind)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value, as of any mapping. Where the session is over or cannot be verified,
        removing a user key is a sign-out, too."""
        if key in self.work.repository.settings.user_key_patterns:
            self.work.load()
            if self.work.is_in_doubt:
                self.sign_out()
        return super().pop(key, *default)

    def clear(self) -> None:
        """Forget everything. For a signed-in session this is a sign-out; nothing is carried over."""
        self.work.warn_if_closed()
        AuthKeys(self.work).end(())

    def sign_out(self) -> None:
        """End the session for ever; what ``CARRY_ON_SIGN_OUT`` names lives on in a new anonymous one."""
        self.work.warn_if_closed()
        AuthKeys(self.work).sign_out()

    def regenerate(self) -> None:
        """Give the session a new id with the same data; the old id is dead afterwards.

        :raises GrantRefused: the session is signed in and the database does not answer.
        """
        self.work.warn_if_closed()
        AuthKeys(self.work).regenerate()

    def confirm(self) -> None:
        """Note that the user has just proved to be that user, for example by entering the password again
        (:attr:`authenticated_at`), and give the session a new id with the same data; the old id is dead afterwards.

        >>> if check_password(form["password"]): session.confirm()      # doctest: +SKIP

        It counts when it is saved, with the end of the request or by :meth:`flush`.

        :raises werkzeug.exceptions.Unauthorized: no user is signed in (401).
        :raises GrantRefused: the database does not answer. The old moment stays, and so does the old id.
        """
        self.work.warn_if_closed()
        AuthKeys(self.work).confirm()

    @property
    def authenticated_at(self) -> datetime | None:
        """Return the time when the user last proved to be that user, by signing in or by :meth:`confirm`; by the
        database's clock, with a zone. None: no user is signed in (or only since this request), or the time is not
        known: the session was taken over from before, or Flask-Login knows the user by a remember cookie only."""
        row = self.work.row
        at_ms = None if row is None else authenticated_at(row)
        return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)

    def increment(self, key: str, by: int = 1) -> int:
        """Add to a whole number. The server adds, so that no concurrent increment is lost.

        :param by: may be negative.
        :return: the value as this request sees it.
        :raises UnsupportedValue: the key holds something else than a whole number, or belongs to auth.
        :raises ConfigError: its category is encrypted.
        """
        if type(by) is not int:
            raise UnsupportedValue(key, f"an increment is a whole number, not {type(by).__name__}")
        if abs(by) > LARGEST_STEP:
            raise UnsupportedValue(key, f"an increment is at most {LARGEST_STEP}, either way")
        if self._feature_to_store(check_key(key)).category == AUTH:
            raise UnsupportedValue(key, "auth keys cannot be incremented; the database decides about them")
        category = place_of(self.work, key)
        if category in self.work.repository.settings.sealed_categories:
            raise ConfigError([_not_countable(key, category)], cannot="increment")
        now = self.get(key, 0)
        if type(now) is not int:
            raise UnsupportedValue(key, f"only whole numbers can be incremented, this is {type(now).__name__}")
        if not -INT_LIMIT < now + by < INT_LIMIT:
            raise UnsupportedValue(key, "a counter has 64 bits")
        if key in self.work.now.assigned or key in self.work.now.deleted:
            self[key] = now + by
        else:
            self.work.warn_if_closed(key)
            self.work.context.on_use(key)
            self.work.now.add(key, by, now + by)
        return now + by

    def flush(self) -> Kept | None:
        """Save now instead of at the end of the request, and say where the data is: for a view that must know before it
        goes on. What is changed afterwards is saved as ever; so may this be called again. Cookies are sent at the end.

        >>> if session.flush() == "nowhere": abort(503)      # doctest: +SKIP

        :return: where what this call saved is, of several categories the worst (:attr:`kept` has each): ``database``,
            ``redis``, ``journal`` (on this host, until the stores take it), or ``nowhere``: it ends with this request.
            None: there was nothing to save. A sign-out counts as a change of ``auth``.
        :raises Refused: a sign-in or change of rights, and the database does not answer (:class:`.GrantRefused`), or
            the user has too many sessions (:class:`.SessionLimitReached`). What was to be saved is taken back: the
            session is again what is stored.
        """
        work = self.work
        work.places = {}
        try:
            saved = None if work.is_unchanged else Saving(work).save()
        except Refused:
            work.take_back()
            raise
        return None if saved is None else Kept.worst(work.places.values())

    @property
    def kept(self) -> Mapping[str, Kept]:
        """Category → where the data is that the last :meth:`flush` saved of it."""
        return dict(self.work.places)

    def fresh(self, category: str = AUTH, *, max_age: float | None = None) -> bool:
        """Ask again, whatever was read before: from here on this request sees what the store that decides says now.

        For auth that store is the database, however young the lease: a change elsewhere that is durable is seen. While
        it does not answer, the rest of this request sees no user signed in (:attr:`unverified`). For other categories
        it is Redis. Changes that this request made itself stay.

        >>> if not session.fresh("auth"): abort(403)      # doctest: +SKIP

        :param category: ``auth``, or another category of the table.
        :param max_age: of auth: for how many seconds, at most, a sign-in or :meth:`confirm` counts; None: as long as
            the session lives.
        :return: for auth: whether the database says that this session is signed in (not yet, for a sign-in of this very
            request); for others: whether the primary answered.
        :raises KeyError: there is no such category.
        :raises GrantRefused: this request gave the session another id, and the database does not answer.
        """
        work = self.work
        name = work.repository.table.categories[category].name
        if name == AUTH:
            row = fresh_row(work)
            return row is not None and (max_age is None or is_recent(row, max_age))
        if work.origin is None or work.is_restarted or work.target is not work.origin:
            return True
        loaded = work.own_loaded()
        work.now.forget_read(name, work.stored_value)
        for place in places_of(work, name) - {AUTH}:
            work.repository.reads.load_more(work.origin, work.scope, work.life, loaded, place, fresh=True)
        return loaded.of(name).source == PRIMARY

    def category(self, name: str) -> CategoryView:
        """Return the keys of one category as a mapping of their own.

        :raises KeyError: there is no such category.
        """
        table = self.work.repository.table
        return CategoryView(self, table, table.categories[name].name)

    def available(self, feature: str) -> bool:
        """Return whether a feature can be used in this request: the table allows it at this level, and the session's
        data for it could be read. If not, a page can hide it, and what it writes may not last.

        :raises KeyError: there is no such feature.
        """
        return is_available(self.work, self.work.repository.table.features[feature])

    def explain(self) -> list[FeatureReport]:
        """Return for every feature what it gets in this request, and from which store."""
        return explain(self.work)

    @property
    def level(self) -> int:
        """Return the degradation level of this request, 0 (normal) to 4 (minimal)."""
        return self.work.scope.level

    @property
    def level_name(self) -> str:
        """Return the name of the level."""
        return LEVELS[self.level]

    @property
    def fallback_mode(self) -> bool:
        """Return whether this request is at a level above 0, and auth came from the database or from a local copy
        instead of Redis."""
        return self.level > 0 and self.work.load().of(AUTH).source in ("database", "local")

    @property
    def emergency_mode(self) -> bool:
        """Return whether neither Redis nor the database answers (level 4)."""
        return self.level == 4

    @property
    def unverified(self) -> bool:
        """Return whether no store could say if this session is signed in: it is shown as anonymous and kept as it
        is."""
        return self.work.unverified

    def was_displaced(self) -> bool:
        """Return whether this browser's session ended because its user signed in elsewhere, and may have only so many
        sessions (MAX_SESSIONS_PER_USER), or ended it on another device (:meth:`.LangPontSession.revoke_others`). True
        is said once, so that a page can tell the user. Asks the database, and only for a session that is over."""
        origin = self.work.origin
        if origin is None or origin.kind != SIGNED_IN or self.work.load().verdict is not Verdict.DEAD:
            return False
        return self.work.repository.saves.row_writes.take_displaced(origin.digest, self.work.scope)

    @property
    def label(self) -> str | None:
        """Return the label by which its user knows this session in the list of their devices; None: no label, or no
        user.

        Reading and setting the label asks the database, at once. A label is cut to 100 characters of one line; None, or
        nothing but blanks, removes it. In a request that signs a user in it goes with the sign-in. A visitor's is not
        kept.

        :raises LangPontSessionError: the database does not answer; the label is what it was.
        """
        work = self.work
        if work.signs_in and work.label is not None:
            return work.label
        row = work.known_row()
        return None if row is None else work.repository.devices.label(row.digest, work.scope)

    @label.setter
    def label(self, value: str | None) -> None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"a label is a text or None, not {type(value).__name__}")
        work, label = self.work, None if value is None else clean_label(value)
        work.label, row = label, work.known_row()
        if row is not None:
            work.repository.devices.set_label(row.digest, label, work.scope)

    @property
    def modified(self) -> bool:
        """Return whether a key was set or removed. Changes inside a value are found at the save, without this."""
        return self.work.is_modified

    @modified.setter
    def modified(self, value: bool) -> None:
        self.work.forced = value

    @property
    def permanent(self) -> bool:
        """Return whether the browser keeps the session when it is closed; stands in the cookie."""
        return self.work.permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.work.chosen_permanent = bool(value)
