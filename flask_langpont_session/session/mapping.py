"""The mapping a view sees: lazy, typed, and aware of what it means when a user key is set or removed.

Nothing is read until a stored key is touched; then everything needed comes in one round trip. Values are decoded one
by one, when they are read. What changed is known by key; a change inside a list or dict is found at the save, by
comparing encodings. Setting a user key is a sign-in and gives the session a new id at once; removing one is a
sign-out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from flask.sessions import SessionMixin

from ..exceptions import GrantRefused, UnreadableValue, UnsupportedValue
from ..policy.categories import (
    AUTH,
    CSRF_FEATURE,
    DURABLE_FEATURE,
    KEPT_BY_THE_PACKAGE,
    OAUTH_FEATURE,
    PERMANENT,
    Feature,
)
from ..policy.health import DATABASE, PRIMARY, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.levels import LEVELS, Behaviour
from ..policy.records import NO_FIELDS, Kept, Life, Loaded, Plan, Saved, Verdict, apply_change
from ..policy.serializer import INT_LIMIT, check_key, decode
from ..policy.users import is_nobody, user_of
from ..policy.values import CategoryChange, Fields
from ..request.repository import SessionRepository
from ..request.scope import RequestScope
from .changes import Carried, Changes
from .identity import NOT_READ, Identity, State
from .values import CategoryView, FeatureReport

log = logging.getLogger(__name__)

REMEMBER, LET_BE = "_remember", "clear"
"""Flask-Login asks ``session.get("_remember") != "clear"`` before it signs a visitor in by the remember cookie."""

LONGEST_USER_ID = 255
"""Characters; the width of the column that sessions are found by."""

LARGEST_STEP = 10**17
"""What the server adds to a number of 18 digits without leaving its 64 bits."""

_MISSING: Any = object()


def _checked_user(key: str, value: Any) -> str | None:
    user = user_of(value)
    if user is not None and (len(user) > LONGEST_USER_ID or "\0" in user):
        raise UnsupportedValue(key, f"a user id has at most {LONGEST_USER_ID} characters, none of them NUL")
    return user


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the extension gives the sessions of an application, instead of them knowing Flask.

    :param mint: makes a session id of a kind (``a``/``u``) with a permanent flag.
    :param life: the life of a session by its permanent flag.
    :param on_new_id: called when a new id replaced the old one (Flask-WTF's cached token must go).
    :param on_use: called with each key that is given a value.
    """

    repository: SessionRepository
    mint: Callable[[str, bool], SessionId]
    life: Callable[[bool], Life]
    on_new_id: Callable[[], None]
    on_use: Callable[[str], None]


class Adopted(NamedTuple):
    """What became of an old session that came with a request.

    :param sid: under which it goes on; None: it cannot be taken over yet, because a store does not answer.
    :param scope: the request's way through the stores, which may have used up some of its time.
    :param token: the CSRF token that forms of the old session have, if one is known.
    """

    sid: SessionId | None
    scope: RequestScope
    token: str | None = None


class OldSession(Protocol):
    """What a request brings along of sessions that the application had before."""

    def take_over(self) -> Adopted | None:
        """Have it go on under an id of ours. Asked once, of a request without one. None: there is nothing to do so."""

    def ends_with(self, session: Session, is_gone: bool) -> bool:
        """Have it be over, if this request ended what it went on as. Whether its cookies are to go.

        :param is_gone: whether the session's own cookie goes.
        """


class Session(SessionMixin):
    """One request's session.

    A mapping as Flask's own session is; beyond that it says where it stands (:attr:`level`, :attr:`fallback_mode`,
    :attr:`emergency_mode`, :attr:`unverified`) and can :meth:`increment`, :meth:`flush`, :meth:`regenerate` and
    :meth:`sign_out`.

    :param cookie: reads the session id from the request's cookie; called once, when it is first needed.
    :param is_remembered: whether this is a read (GET, HEAD …) that carries Flask-Login's remember cookie.
    :param old: the old session whose cookie the request carries as well; None: it carries none.
    :param scope: this request's way through the stores, if it is on it already.
    """

    accessed = False

    def __init__(
        self,
        context: SessionContext,
        cookie: Callable[[], SessionId | None],
        is_remembered: Callable[[], bool] = lambda: False,
        old: OldSession | None = None,
        scope: RequestScope | None = None,
    ) -> None:
        self._context = context
        self._repository = context.repository
        self._cookie = cookie
        self._is_remembered = is_remembered
        self.old = old
        self._identity = Identity()
        # The id of an old session that was taken over in this request; whether there is one that could not be, and the
        # CSRF token that is shown meanwhile.
        self._adopted: SessionId | None = None
        self._is_put_off = False
        self._token_meanwhile: str | None = None
        self._permanent: bool | None = None
        self._loaded: Loaded | None = None
        self._scope = scope
        self._changes: Changes | None = None
        self._transient: dict[str, Any] = {}
        self._grants = False
        # At a sign-in: the users of the session before, and what was carried over from it.
        self._taken_from: tuple[Mapping[str, str | None], Carried] = {}, {}
        self._forced = False
        self._saved = False
        # Once a save has stored this session under another id: what of it has been read, and the permanent flag as it
        # was saved.
        self._before: Loaded | None = None
        self._saved_permanent: bool | None = None
        self._places: Mapping[str, Kept] = {}
        self._wants_cookie = False
        self._was_stored = False

    # -- identity --------------------------------------------------------------------------------------------------

    @property
    def origin(self) -> SessionId | None:
        """The session id whose records this request works with: the one that came with it, if its signature is good;
        after a save under another id, that one."""
        identity = self._identity
        if identity.origin is NOT_READ:
            identity.origin = self._cookie()
            if identity.origin is None and self.old is not None and not self._saved:
                self._take_over(self.old.take_over())
        return identity.origin

    def _take_over(self, adopted: Adopted | None) -> None:
        """From here on it is as if the request had come with the id of the old session that was taken over."""
        if adopted is None:
            return
        if adopted.sid is None:
            self._scope = adopted.scope
            self._is_put_off, self._token_meanwhile = True, adopted.token
        else:
            self._scope = adopted.scope.to(adopted.sid.digest)
            self._adopted, self._was_stored = adopted.sid, True
            self._identity.stand_in(adopted.sid)

    @property
    def digest(self) -> str | None:
        """The name under which this session is stored, listed and revoked; None: it has no id yet."""
        return self.target.digest if self.target else None

    @property
    def minted(self) -> SessionId | None:
        """The session id made in this request, if one was."""
        identity = self._identity
        return identity.minted or (identity.origin if identity.has_moved else None)

    @property
    def target(self) -> SessionId | None:
        """The session id this request's data belongs to."""
        identity = self._identity
        return identity.minted or (None if identity.is_signed_out else self.origin)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether no session id came with the request."""
        return self._cookies_id is None

    @property
    def _cookies_id(self) -> SessionId | None:
        """The session id that came with the request."""
        return self._identity.came_with if self._identity.has_moved else self.origin

    @property
    def ended(self) -> bool:
        """Whether this request signed the session out."""
        return self._identity.was_signed_out

    @property
    def is_in_shadow(self) -> bool:
        """Whether this request learned that its id is dead, and works with the anonymous shadow of it."""
        return self.target is self.origin and self._loaded is not None and self._loaded.shadow

    @property
    def is_in_doubt(self) -> bool:
        """Whether this request learned that its id is dead or cannot be verified; its cookie is left as it is."""
        verdict = self._loaded.verdict if self._loaded and self.target is self.origin else None
        return verdict in (Verdict.DEAD, Verdict.UNVERIFIABLE)

    @property
    def showed_auth(self) -> bool:
        """Whether this response may show what only the signed-in user should see."""
        signed_in_now = self.minted is not None and self.minted.kind == SIGNED_IN
        return signed_in_now or bool(self._identity.row or (self._loaded and self._loaded.row))

    @property
    def is_worth_a_cookie(self) -> bool:
        """Whether the minted id leads anywhere: to stored data, to a user, or to a CSRF token that was given out."""
        signs_in = self.minted is not None and self.minted.kind == SIGNED_IN
        return self._was_stored or self._wants_cookie or signs_in

    @property
    def signed_in_anew(self) -> bool:
        """Whether this request signed a user in, other than by taking over an old session."""
        minted = self.minted
        return minted is not None and minted.kind == SIGNED_IN and minted is not self._adopted

    def _mint(self, kind: str) -> SessionId:
        sid = self._repository.placed(lambda: self._context.mint(kind, self.permanent))
        self._identity.mint(sid)
        self._wants_cookie = False  # a token that was given out is of the id before
        self._context.on_new_id()
        return sid

    @property
    def _kind(self) -> str:
        """``u`` only for a session that is, or may be, signed in: a dead one is anonymous."""
        target = self.target
        if target is None or target is self._identity.minted:
            return target.kind if target else ANONYMOUS
        return ANONYMOUS if self._load().shadow else target.kind

    # -- loading ---------------------------------------------------------------------------------------------------

    @property
    def scope(self) -> RequestScope:
        """This request's way through the stores."""
        if self._scope is None:
            origin = self.origin  # which may be found on a way through the stores
            self._scope = self._scope or self._repository.begin(digest=origin.digest if origin else None)
        return self._scope

    @property
    def life(self) -> Life:
        """How long this session lives."""
        return self._context.life(self.permanent)

    @property
    def _now(self) -> Changes:
        """What this request changed so far. Made when first needed: most requests to a site touch no session."""
        if self._changes is None:
            settings = self._repository.settings
            limits = (settings.max_category_bytes, settings.max_fields, settings.max_depth)
            self._changes = Changes(settings.table, limits, self._repository.reject)
        return self._changes

    def _load(self) -> Loaded:
        if self._loaded is None:
            identity = self._identity
            origin = None if identity.is_restarted or identity.is_signed_out else self.origin
            known = origin and self._repository.load(origin, self.scope, self.life)
            self._loaded = known or Loaded(Verdict.UNVERIFIABLE if self._is_put_off else Verdict.ANONYMOUS)
            before, self._before = self._before, None
            if before is not None and not self._loaded.shadow:
                self._loaded.keep_from(before, before.fields.keys() - {AUTH})
        return self._loaded

    def _stored(self, category: str) -> Fields:
        """The stored fields of one category as far as this request may see them."""
        loaded = self._load()
        if category not in loaded.fields and not self._identity.is_restarted and self.origin:
            self._repository.load_more(self.origin, self.scope, self.life, loaded, category)
        return loaded.fields.get(category, NO_FIELDS)

    def _feature_of(self, key: str) -> Feature:
        return self._repository.table.feature_of(key)

    def _is_unknown(self, key: str) -> bool:
        """Whether the stores may have a value of a key that this request could not read."""
        return self._loaded is not None and self._loaded.is_unknown(self._feature_of(key), key)

    # -- the mapping: reading --------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if not isinstance(key, str):
            raise KeyError(key)
        values = self._now.values
        if key in values:
            return values[key]
        special = self._special(key)
        if special is not _MISSING:
            return special
        if key in self._now.deleted:
            raise KeyError(key)
        self._now.read.add(key)
        value = values[key] = self._decode(key)
        return value

    def _decode(self, key: str) -> Any:
        raw = self._now.assigned.get(key) or self._stored(self._feature_of(key).category)[key]
        try:
            return decode(raw)
        except UnreadableValue:
            # One damaged value is no reason to fail a page: it reads as absent, and writing it again heals it.
            self._repository.recorder.count("unreadable_values")
            log.warning("session key %r holds a value that cannot be read; it counts as absent", key)
            raise KeyError(key) from None

    def _special(self, key: str) -> Any:
        """Keys that are answered without their category's data; _MISSING for all others."""
        if key in self._repository.settings.transient_key_patterns:
            return LET_BE if self._puts_off_sign_in(key) else self._transient[key]
        if key == PERMANENT:
            return self.permanent
        if self._is_derived(key):
            return self._csrf_token(key)
        if key in KEPT_BY_THE_PACKAGE:
            return self._kept(key)
        return _MISSING

    def _puts_off_sign_in(self, key: str) -> bool:
        """A remember cookie on a page is a sign-in that the request did not ask for.

        While the database is known to be down it is put off instead of refused: Flask-Login hears that this request is
        not to be signed in by it, the visitor is anonymous for now, and the cookie stays.
        """
        asked = key == REMEMBER and key not in self._transient
        return asked and self._is_remembered() and (self._is_put_off or not self.scope.can(DATABASE, WRITE))

    def _is_derived(self, key: str) -> bool:
        feature = self._repository.table.features.get(CSRF_FEATURE)
        return feature is not None and key in feature.keys

    def _csrf_token(self, key: str) -> str:
        """Derived from the session id: nothing is stored, and it works at every level. While an old session is about,
        that of the old one, if it was taken over with one: forms of either are good for both."""
        if self.target is None and self._is_put_off:
            self._token_meanwhile = self._token_meanwhile or self._context.mint(ANONYMOUS, False).csrf_token()
            return self._token_meanwhile  # without a cookie: else the old session would never be looked at again
        target = self.target or self._mint(ANONYMOUS)
        self._wants_cookie = True
        if self.old is not None and target is self.origin and (token := self._token_brought_along(key)):
            return token
        if target is self._identity.minted or target.kind == ANONYMOUS:
            return target.csrf_token()
        # A session that is dead or cannot be verified gets what an anonymous visitor would have, and no more.
        return target.csrf_token(shadow=self._load().verdict is not Verdict.VALID)

    def _token_brought_along(self, key: str) -> str | None:
        if self._load().verdict not in (Verdict.VALID, Verdict.ANONYMOUS) or key not in self._stored(AUTH):
            return None
        return str(self._decode(key))

    def bring_token(self, token: str) -> None:
        """Store the CSRF token of an old session, which is to be taken over with it."""
        for key in self._repository.table.features[CSRF_FEATURE].keys:
            self._now.assign(key, token, self._now.encode(key, token))

    def _kept(self, key: str) -> datetime:
        row = self._load().row
        if row is None:
            raise KeyError(key)
        at_ms = row.created_at if key == "session_created" else row.idle_expires_at - self.life.idle_ms
        return datetime.fromtimestamp(at_ms / 1000, UTC)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key in self._repository.settings.transient_key_patterns:
            return key in self._transient
        if key == PERMANENT:
            return self.permanent
        if self._is_derived(key):
            return self.target is not None or self._is_put_off  # asking must not make a session
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        # A value that cannot be read counts as absent here too: who iterates must be able to look every key up.
        self._now.read_all = True
        return iter([key for key in self._keys() if key in self._now.values or self._is_readable(key)])

    def _is_readable(self, key: str) -> bool:
        try:
            self._now.values[key] = self._decode(key)
        except KeyError:
            return False
        return True

    def _keys(self) -> list[str]:
        keys = {key: None for name in self._repository.table.categories for key in self._stored(name)}
        keys.update(dict.fromkeys(self._now.increments))
        keys.update(dict.fromkeys(self._now.assigned))
        keys.update(dict.fromkeys(self._now.saved))
        return [key for key in keys if key not in self._now.deleted and key in self._repository.table]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._now.assigned) or len(self) > 0

    def __repr__(self) -> str:
        # No values: a session's repr ends up in logs and error pages.
        state = "not loaded" if self._loaded is None else self._loaded.verdict
        return f"<Session {state}, {len(self._now.assigned)} keys set>"

    # -- the mapping: changing -------------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        key = check_key(key)
        if key in self._repository.settings.transient_key_patterns:
            self._transient[key] = value
        elif key == PERMANENT:
            self.permanent = bool(value)
        elif self._is_derived(key):
            self._csrf_token(key)
        elif key not in KEPT_BY_THE_PACKAGE:
            self._assign(key, value)

    def _assign(self, key: str, value: Any) -> None:
        encoded = self._now.encode(key, value)
        feature = self._feature_to_store(key)
        self._now.check_size(key, encoded, self._loaded)
        self._warn_if_saved(key)
        if feature.category == AUTH and not self._is_to_be_stored(key, value, encoded):
            self._now.values[key] = value
            return
        self._context.on_use(key)
        self._now.assign(key, value, encoded)

    def _feature_to_store(self, key: str) -> Feature:
        try:
            return self._feature_of(key)
        except KeyError:
            raise UnsupportedValue(
                key, "no feature of LANGPONT_SESSION_CATEGORIES claims it, nor one of LANGPONT_SESSION_FEATURES"
            ) from None

    def _is_to_be_stored(self, key: str, value: Any, encoded: bytes) -> bool:
        """What setting an auth key means: a sign-in, a sign-out, a change of rights, or just data."""
        settings = self._repository.settings
        is_right = key in settings.privilege_key_patterns
        if key in settings.user_key_patterns:
            said = decode(encoded)
            if is_nobody(said):
                if key in self:  # a session that cannot be verified shows no user, which is no reason to end it
                    del self[key]
                return False
            user = _checked_user(key, said)
            if not self._tells_more_of_user(key, value, user):
                self._begin_sign_in(key, user)
                return True
            is_right = True
        if self._kind != SIGNED_IN:
            if is_right and value:
                self._begin_sign_in()
            # A visitor has no rights; saying so is worth no record. It is visible in this request.
            return not is_right or bool(value)
        if key not in self._now and self.target is self.origin and self._stored(AUTH).get(key) == encoded:
            return False  # said again is not changed: no transaction, and no refusal in an outage
        if is_right:
            if not value and self._shows_no_rights():
                return False
            self._require_verified()
            self._grants = True
        return True

    def _tells_more_of_user(self, key: str, value: Any, user: str | None) -> bool:
        """Whether a value that is assigned to a user key is news of the user whom that key names already: the dict that
        this session gave out, changed; or, where the key is a right as well, a value that names no user (a token that
        was refreshed)."""
        if self._kind != SIGNED_IN or key not in self:
            return False
        if value is self._now.values[key] and isinstance(value, (dict, list)):
            return user == user_of(self._before_changes(key))
        return user is None and key in self._repository.settings.privilege_key_patterns

    def _before_changes(self, key: str) -> Any:
        """The value of a key of auth without what was changed inside of it since it was assigned or read."""
        encoded = self._now.assigned.get(key) or self._now.saved.get(key) or self._stored(AUTH).get(key)
        return decode(encoded) if encoded else None

    def _shows_no_rights(self) -> bool:
        """Whether this request can only show a visitor: rights are then not withdrawn by saying that there are none.

        Flask-Login says so to every visitor with data, on each page and inside error pages. Refused, all would be.
        """
        is_lost_sign_in = self.target is not self.origin and not self.scope.can(DATABASE, WRITE)
        return self.is_in_doubt or is_lost_sign_in

    def _begin_sign_in(self, user_key: str = "", user: str | None = None) -> None:
        """From here on this request speaks for a new id; what may be carried over is taken along.

        Of a session of another user, or of one that cannot be verified, that is what outlives a sign-out. Of one
        without a user its tokens of OAuth libraries, too: they say who the user is.

        :param user_key: the key that is set; empty: it is a right.
        :param user: the user whom it names; None: none, which is never the one before.
        """
        self._require_arbiter()
        self._grants = True
        if self._identity.row or not self._identity.signs_in:
            users, settings = self._users(), self._repository.settings
            is_anothers = self.unverified or (bool(users) and (user is None or users.get(user_key) != user))
            features: tuple[str, ...] = () if is_anothers else (DURABLE_FEATURE,)
            if not users and self._has_rights():
                features = (DURABLE_FEATURE, OAUTH_FEATURE)
            if is_anothers:
                self._permanent = bool(self._permanent)  # that the other one is to be remembered says nothing of this
            of_user, besides = dict[str, bytes](), self._carry((), features)
            if self._kind != SIGNED_IN:
                # What a request says of its user before it says who it is belongs to that user. What a signed-in
                # session has is another user's.
                of_user = {k: v for k, v in self._now.assigned.items() if self._feature_of(k).category == AUTH}
            categories = settings.carry_on_sign_out if is_anothers else settings.carry_on_sign_in
            self._restart(SIGNED_IN, categories, {**besides, **of_user})
            taken = {key: value for key, value in self._now.assigned.items() if key not in of_user}
            self._taken_from = users, {} if is_anothers else taken
        elif self._taken_from[0].get(user_key, user) != user:
            self._give_back()

    def _incomplete(self, categories: Collection[str]) -> tuple[str, ...]:
        """Of the categories that are taken along to another id, those that this request may not know as a whole: in an
        outage some of it is not shown, or would not be kept."""
        if self._identity.minted is not None:  # nothing is stored under that id yet
            return tuple(name for name in self._identity.carries if name in categories)
        loaded = self._load() if categories else None
        if loaded is None or self.origin is None or loaded.shadow or (self.scope.level == 0 and not loaded.gaps):
            return ()
        return tuple(name for name in categories if name != AUTH or self._kind != SIGNED_IN)

    def _users(self) -> Mapping[str, str | None]:
        """The user keys that are set, with the users whom they name."""
        return {key: user_of(self._before_changes(key)) for key in self._repository.settings.user_keys if key in self}

    def _has_rights(self) -> bool:
        """Whether the database says, at this moment, that this is a session which is signed in."""
        return self._kind == SIGNED_IN and self.target is self.origin and not self.unverified and self.fresh()

    def _give_back(self) -> None:
        """A later user key says that the session was another user's after all: what was taken from it goes again."""
        _, taken = self._taken_from
        stays = self._repository.settings.carry_on_sign_out
        for key, encoded in taken.items():
            if self._feature_of(key).category not in stays and self._now.assigned.get(key) == encoded:
                self._now.delete(key, stored=False)
        carries = self._identity.carries
        for name in [name for name in carries if name not in stays]:
            self._give_back_stored(name)
        self._identity.carries = tuple(name for name in carries if name in stays)
        self._permanent = bool(self._permanent)
        self._taken_from = {}, {}

    def _give_back_stored(self, category: str) -> None:
        loaded = self._load()
        loaded.fields[category] = NO_FIELDS
        loaded.gaps.pop(category, None)
        for key in [key for key in self._now.values if self._feature_of(key).category == category]:
            if key not in self._now.assigned:
                self._now.delete(key, stored=False)

    def _require_arbiter(self) -> None:
        if not self.scope.can(DATABASE, WRITE):
            raise self._repository.refused()

    def _require_verified(self) -> None:
        self._require_arbiter()
        if self.unverified:
            raise self._repository.refused()

    def _carry(self, categories: Collection[str], features: Collection[str] = ()) -> Carried:
        """The present data of some categories, and of some features. Defaults shown in an outage are not data."""
        if not (categories or features):
            return {}
        ghosts = self._load().defaulted - self._now.assigned.keys()
        carried = {}
        for key in self._keys():
            feature = self._feature_of(key)
            is_taken = feature.name != CSRF_FEATURE and (feature.category in categories or feature.name in features)
            encoded = self._now.carry(key, self._stored(feature.category).get(key)) if is_taken else None
            if encoded is not None and key not in ghosts:
                carried[key] = encoded
        return carried

    def _restart(self, kind: str | None, categories: Collection[str], also: Carried = NO_FIELDS) -> None:
        """Begin anew under another id (of `kind`), or under none, with the present data of some categories. Where that
        may not be known as a whole the journal brings it to the other id, and what this request changes comes behind.

        :param also: other data that is to be stored there.
        """
        incomplete = self._incomplete(categories) if kind else ()
        carried = self._carry([name for name in categories if name not in incomplete])
        for name in incomplete:
            self._stored(name)  # what is loaded on demand cannot be later on
        before, verdict = self._loaded, Verdict.DEAD if kind is None and self.is_in_shadow else Verdict.ANONYMOUS
        self._now.restart({**carried, **also}, incomplete)
        self._loaded = Loaded(verdict, now_ms=before.now_ms if before else 0)
        if before is not None:
            self._loaded.keep_from(before, incomplete)
        self._identity.restart(incomplete, wipes=kind is None)
        if kind:
            self._mint(kind)
        else:
            self._context.on_new_id()

    def __delitem__(self, key: str) -> None:
        if key in self._repository.settings.transient_key_patterns:
            del self._transient[key]
        elif key == PERMANENT:
            self.permanent = False
        elif not self._is_derived(key) and key not in KEPT_BY_THE_PACKAGE:
            self._delete(key)

    def _delete(self, key: str) -> None:
        category = self._feature_of(key).category
        stored = key not in self._now.deleted and key in self._stored(category)
        if key not in self._now and not stored:
            del self._now.values[key]  # a right that a visitor does not have; KeyError for all other keys
            self._now.saved.pop(key, None)  # or what was saved nowhere
            return
        self._warn_if_saved(key)
        if category == AUTH and self._kind == SIGNED_IN and self._is_sign_out(key):
            return
        self._now.delete(key, stored=stored)

    def _is_sign_out(self, key: str) -> bool:
        """What removing an auth key means. Returns whether the session ended by it."""
        settings = self._repository.settings
        if key in settings.user_key_patterns:
            self.sign_out()
            return True
        if key in settings.privilege_key_patterns:
            if not self._has_identity_beside(key):
                self.sign_out()  # it was all that made this more than a visitor's session
                return True
            self._require_verified()
            self._grants = True
        return False

    def _has_identity_beside(self, key: str) -> bool:
        others = {*self._stored(AUTH), *self._now.assigned} - {key}
        return any(self._is_identity(other) and not is_nobody(self.get(other)) for other in others)

    def _is_identity(self, key: str) -> bool:
        settings = self._repository.settings
        return key in settings.user_key_patterns or key in settings.privilege_key_patterns

    def pop(self, key: str, *default: Any) -> Any:
        """As of any mapping. Of a session that is over or cannot be verified, removing a user key is a sign-out too."""
        if key in self._repository.settings.user_key_patterns:
            self._load()
            if self.is_in_doubt:
                self.sign_out()
        return super().pop(key, *default)

    def clear(self) -> None:
        """Forget everything. For a signed-in session this is a sign-out; nothing is carried over."""
        self._end(())

    def _warn_if_saved(self, key: str) -> None:
        if self._saved:
            log.warning(
                "session[%r] was changed after the response had been sent (a streaming response?): it is not stored",
                key,
            )

    # -- beyond a mapping ------------------------------------------------------------------------------------------

    def sign_out(self) -> None:
        """End the session for ever; what ``CARRY_ON_SIGN_OUT`` names lives on in a new anonymous one."""
        self._end(self._repository.settings.carry_on_sign_out)

    def _end(self, keeps: Collection[str]) -> None:
        is_something_kept = bool(self._carry(keeps))
        identity, origin, signed_in_now = self._identity, self.origin, self._identity.signs_in
        if origin and origin.kind == SIGNED_IN:
            # Of a session that is over the cookie is left alone: the browser may have a newer one by now. It is ended
            # all the same, because it may go on under an id that another request gave it.
            identity.end(is_over=self.target is origin and self._load().shadow)
        elif self._is_put_off:
            identity.end_elsewhere()  # by the old session's own cookie, which goes
        leaves = identity.is_signed_out or signed_in_now
        self._restart(ANONYMOUS if leaves and is_something_kept else None, keeps)
        self._grants = False
        self._forced = True

    def regenerate(self) -> None:
        """Give the session a new id with the same data; the old id is dead afterwards.

        :raises GrantRefused: the session is signed in and the database does not answer.
        """
        if self.target is None or (self.target is self.origin and self._load().shadow):
            return  # nobody has an id that could be replaced; a dead one stays where it is
        kind = self._kind
        if kind == SIGNED_IN:
            self._require_verified()
            self._grants = True
        row = self._load().row if self._identity.minted is None else self._identity.row
        self._restart(kind, self._repository.table.categories)
        if row is not None:
            self._identity.rename(row)

    def increment(self, key: str, by: int = 1) -> int:
        """Add to a whole number. The server adds, so that no concurrent increment is lost.

        :param by: may be negative.
        :return: the value as this request sees it.
        :raises UnsupportedValue: the key holds something else than a whole number, or belongs to auth.
        """
        if type(by) is not int:
            raise UnsupportedValue(key, f"an increment is a whole number, not {type(by).__name__}")
        if abs(by) > LARGEST_STEP:
            raise UnsupportedValue(key, f"an increment is at most {LARGEST_STEP}, either way")
        if self._feature_to_store(check_key(key)).category == AUTH:
            raise UnsupportedValue(key, "auth keys cannot be incremented; the database decides about them")
        now = self.get(key, 0)
        if type(now) is not int:
            raise UnsupportedValue(key, f"only whole numbers can be incremented, this is {type(now).__name__}")
        if not -INT_LIMIT < now + by < INT_LIMIT:
            raise UnsupportedValue(key, "a counter has 64 bits")
        if key in self._now.assigned or key in self._now.deleted:
            self._assign(key, now + by)
        else:
            self._warn_if_saved(key)
            self._context.on_use(key)
            self._now.add(key, by, now + by)
        return now + by

    def flush(self) -> Kept | None:
        """Save now instead of at the end of the request, and say where the data is: for a view that must know before it
        goes on. What is changed afterwards is saved as ever; so may this be called again. Cookies are sent at the end.

        >>> if session.flush() == "nowhere": abort(503)      # doctest: +SKIP

        :return: where what this call saved is, of several categories the worst (:attr:`kept` has each): ``database``,
            ``redis``, ``journal`` (on this host, until the stores take it), or ``nowhere``: it ends with this request.
            None: there was nothing to save. A sign-out counts as a change of ``auth``.
        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. What was to be saved is
            taken back: the session is again what is stored.
        """
        self._places = {}
        try:
            saved = self.save()
        except GrantRefused:
            self._take_back()
            raise
        return None if saved is None else Kept.worst(self._places.values())

    @property
    def kept(self) -> Mapping[str, Kept]:
        """Category → where the data is that the last :meth:`flush` saved of it."""
        return dict(self._places)

    def fresh(self, category: str = AUTH) -> bool:
        """Ask again, whatever was read before: from here on this request sees what the arbiter says now.

        For auth that is the database, however young the lease: a change elsewhere that is durable is seen. While it
        does not answer, the rest of this request sees nobody signed in (:attr:`unverified`). For other categories it
        is Redis. Changes that this request made itself stay.

        >>> if not session.fresh("auth"): abort(403)      # doctest: +SKIP

        :param category: ``auth``, or another category of the table.
        :return: for auth: whether the database says that this session is signed in (not yet, for a sign-in of this very
            request); for others: whether the primary answered.
        :raises KeyError: there is no such category.
        :raises GrantRefused: this request gave the session another id, and the database does not answer.
        """
        name = self._repository.table.categories[category].name
        origin = self.origin
        if self._identity.row and name == AUTH:
            return self._still_lives()
        if origin is None or self._identity.is_restarted or self.target is not origin:
            return name != AUTH
        if name != AUTH:
            loaded = self._load()
            self._now.forget_read(name, self._stored)
            self._repository.load_more(origin, self.scope, self.life, loaded, name)
            return loaded.sources.get(name) == PRIMARY
        before = self._loaded
        if before is not None:
            self._now.forget_read(AUTH, self._stored)
        loaded = self._repository.load(origin, self.scope, self.life, fresh=True)
        if before is not None and before.shadow == loaded.shadow:
            # What was read of other categories stays as it was read: changes are found by comparing with it.
            loaded.keep_from(before, before.fields.keys() - {AUTH})
        elif before is not None:
            self._now.forget_read(None, self._stored)
        self._loaded = loaded
        return loaded.row is not None

    def _still_lives(self) -> bool:
        """Of a session that this request gave another id: what the database says of the one it has still."""
        before = self.origin
        loaded = self._repository.load(before, self.scope, self.life, fresh=True) if before else None
        if loaded is not None and loaded.verdict is Verdict.UNVERIFIABLE:
            raise self._repository.refused()
        if loaded is None or loaded.row is None:
            self.came_too_late()
            return False
        return True

    def category(self, name: str) -> CategoryView:
        """The keys of one category as a mapping of their own.

        :raises KeyError: there is no such category.
        """
        table = self._repository.table
        return CategoryView(self, table, table.categories[name].name)

    def available(self, feature: str) -> bool:
        """Whether a feature can be used in this request: the table lets it be used at this level, and what this
        session has of it could be read. Else a page can hide it, and what it writes may not last.

        :raises KeyError: there is no such feature.
        """
        wanted = self._repository.table.features[feature]
        behaviour = self._behaviour(wanted)
        if behaviour not in (Behaviour.LOCAL_CACHE_FALLBACK, Behaviour.PRIMARY):
            return behaviour is not Behaviour.DISABLE_FEATURE
        self._stored(wanted.category)
        gap = self._load().gaps.get(wanted.category)
        return gap is None or not (gap.whole or any(self._feature_of(key) is wanted for key in gap.guesses))

    def _behaviour(self, feature: Feature) -> Behaviour:
        return self._repository.behaviour(feature, self._kind, self.level)

    def explain(self) -> list[FeatureReport]:
        """What every feature gets in this request, and from which store."""
        loaded = self._load()
        return [
            FeatureReport(
                feature.name,
                feature.category,
                feature.priority,
                self._behaviour(feature),
                self._source(feature, loaded),
                self.available(feature.name),
            )
            for feature in self._repository.table.features.values()
        ]

    def _source(self, feature: Feature, loaded: Loaded) -> str:
        if feature.name == CSRF_FEATURE:
            return "request"
        return loaded.exceptions.get(feature.name) or loaded.sources.get(feature.category, "none")

    @property
    def level(self) -> int:
        """The degradation level this request is at, 0 (normal) to 4 (minimal)."""
        return self.scope.level

    @property
    def level_name(self) -> str:
        """Its name."""
        return LEVELS[self.level]

    @property
    def fallback_mode(self) -> bool:
        """Whether auth came from the database because Redis could not give it."""
        return self.level > 0 and self._load().sources.get(AUTH) in ("database", "local")

    @property
    def emergency_mode(self) -> bool:
        """Whether neither Redis nor the database answers (level 4)."""
        return self.level == 4

    @property
    def unverified(self) -> bool:
        """Whether nobody could say if this session is signed in: it is shown as anonymous and kept as it is."""
        return self.target is self.origin and self._load().verdict is Verdict.UNVERIFIABLE

    # -- Flask's attributes ----------------------------------------------------------------------------------------

    @property
    def modified(self) -> bool:
        """Whether a key was set or removed. Changes inside a value are found at the save, without this."""
        return self._forced or bool(self._changes) or self.permanence_changed

    @modified.setter
    def modified(self, value: bool) -> None:
        self._forced = value

    @property
    def permanence_changed(self) -> bool:
        """Whether this request made the session permanent, or not permanent any more."""
        if self._permanent is None:
            return False
        came_with = self._cookies_id
        return self._permanent != bool(came_with and came_with.permanent)

    @property
    def _must_save_permanence(self) -> bool:
        if self._saved_permanent is None:
            return self.permanence_changed
        return self.permanent != self._saved_permanent

    @property
    def permanent(self) -> bool:
        """Whether the browser keeps the session when it is closed; stands in the cookie."""
        if self._permanent is not None:
            return self._permanent
        return bool(self.origin and self.origin.permanent)

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self._permanent = bool(value)

    # -- saving ----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan | None:
        """What a save has to do; None when there is nothing to write.

        A visitor without an id gets one here if there is something to keep.
        """
        if self._is_unchanged:
            return None
        changes = self._all_changes()
        if self.target is None and any(changes.values()):
            self._mint(ANONYMOUS)
        origin, target = self.origin, self.target
        if self._must_update_row(target):
            changes.setdefault(AUTH, CategoryChange(0))
        replaced = origin is not None and target is not None and target is not origin
        if not (changes or self._identity.must_end or replaced):
            return None
        return Plan(
            origin=origin,
            target=target,
            life=self.life,
            loaded=self._needed_for(target, changes),
            changes=changes,
            ends=self._identity.must_end,
            renames=self._identity.row,
            grants=self._grants,
            permanence_changed=self._must_save_permanence,
            carries=self._identity.carries if self._identity.minted else (),
        )

    @property
    def _is_unchanged(self) -> bool:
        """Whether there is nothing that a save could have to do."""
        return self._changes is None and not self._identity.must_end and not self._must_save_permanence

    def _all_changes(self) -> dict[str, CategoryChange]:
        changes = self._now.by_category(self._stored, self._is_unknown)
        if AUTH in changes:
            self._decide_about_rights(changes[AUTH])
        if self._identity.must_wipe and self.target is self.origin and self.origin is not None:
            for name in self._repository.table.categories:
                changes.setdefault(name, CategoryChange(0)).wipe = True
        return changes

    def _decide_about_rights(self, change: CategoryChange) -> None:
        """A right, or what is told of a user, that was changed inside its value is a grant, as one that was assigned; a
        visitor has none. Another user is not made so: that takes a new id.

        :raises GrantRefused: nobody can decide about it.
        """
        for key in filter(self._is_identity, list(change.sets)):
            before, said = self._before_changes(key), decode(change.sets[key])
            if before is None and is_nobody(said):
                del change.sets[key]  # it is so anyway
            elif self._kind != SIGNED_IN:
                del change.sets[key]
                self._repository.reject(AUTH, key, "a visitor has no rights; assigning one is a sign-in")
            elif self._is_user_changed(key, before, said):
                del change.sets[key]
                if key in self._now.assigned:
                    change.sets[key] = self._now.assigned[key]
                self._repository.reject(AUTH, key, "another user inside of the value; assigning it is a sign-in")
            else:
                self._require_verified()
                self._grants = True

    def _is_user_changed(self, key: str, before: Any, said: Any) -> bool:
        if key not in self._repository.settings.user_key_patterns:
            return False
        return before is None or user_of(before) != user_of(said)

    def _must_update_row(self, target: SessionId | None) -> bool:
        """A signed-in session that becomes permanent (or ceases to be) lives by another clock from now on."""
        return bool(
            self._must_save_permanence and target is not None and target is self.origin and target.kind == SIGNED_IN
        )

    def _needed_for(self, target: SessionId | None, changes: Mapping[str, CategoryChange]) -> Loaded | None:
        """Changing the row of a signed-in session needs its version; other changes need no read."""
        needs_row = target is self.origin and target is not None and target.kind == SIGNED_IN and AUTH in changes
        return self._load() if needs_row else self._loaded

    def save(self) -> Saved | None:
        """Store what changed since the last save; None: there was nothing to do.

        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. Nothing was changed.
        """
        if not self._is_unchanged and self.target is None and self._is_put_off:
            return self._keep_nothing()
        plan = self.plan()
        if plan is None:
            return None
        changes, changes_permanence = dict(plan.changes), plan.permanence_changed
        saved = self._repository.save(plan, self.scope)
        self._places = dict.fromkeys(changes, Kept.NOWHERE) | plan.kept
        self._settle(changes, saved)
        if changes_permanence and not plan.permanence_changed:
            self._keep_permanence()
        if saved.ended:
            self.came_too_late()
        return saved

    def _keep_nothing(self) -> Saved | None:
        """What a request changes while its old session cannot be taken over lasts for the request: an id of its own
        would have the old session forgotten."""
        changes = self._all_changes()
        if not changes:
            return None
        for name, change in changes.items():
            for key in (*change.writes, *change.increments):
                self._repository.reject(name, key, "the old session of this browser cannot be taken over yet")
        self._places = dict.fromkeys(changes, Kept.NOWHERE)
        saved = Saved(stored=False)
        self._settle(changes, saved)
        return saved

    def _settle(self, changes: Mapping[str, CategoryChange], saved: Saved) -> None:
        """The save is done: `changes` are part of what this request sees, and are not to be stored again."""
        self._was_stored = self._was_stored or saved.stored
        if self._loaded is not None:
            for name, change in changes.items():
                self._loaded.fields[name] = apply_change(self._loaded.fields.get(name, NO_FIELDS), change)
        self._forced = True  # "modified" stays true for whoever asks after the save
        self._now.settled(changes)
        self._grants = False
        self._identity.settle()
        self._saved_permanent = self.permanent
        has_moved = self._identity.minted is not None and saved.stored and not saved.ended
        if has_moved or self._identity.state is State.ENDED:
            self._go_on()

    def _go_on(self) -> None:
        """From here on it is as if the request had come with the id that was made, but for the cookie, which is still
        to be sent."""
        self._identity.move()
        sid = self.origin
        if sid is not None and sid.kind == SIGNED_IN:
            self._before, self._loaded = self._loaded, None  # a further change of auth needs its row

    def _take_back(self) -> None:
        """A grant was refused: what was to be saved with it is gone, and what is stored is read again."""
        self._identity.take_back()
        self._loaded, self._grants = None, False
        self._now.restart({})
        self._context.on_new_id()

    def _keep_permanence(self) -> None:
        """The database did not hear of the permanent flag: it stays what the cookie says until it is set again."""
        self._permanent = self._saved_permanent = None

    def came_too_late(self) -> None:
        """The session ended before this request could save: it is what it would be now."""
        self._identity.came_too_late()
        self._loaded = Loaded(Verdict.DEAD)
        self._now.restart({})
        self._context.on_new_id()

    def close(self) -> None:
        """The response is on its way; what is changed from here on is lost unless a save runs again."""
        self._saved = True
