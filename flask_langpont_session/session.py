"""The mapping a view sees: lazy, typed, and aware of what it means when a user key is set or removed.

Nothing is read until a stored key is touched; then everything needed comes in one round trip. Values are decoded one
by one, when they are read. What changed is known by key; a change inside a list or dict is found at the save, by
comparing encodings. Setting a user key is a sign-in and gives the session a new id at once; removing one is a
sign-out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask.sessions import SessionMixin

from .categories import AUTH, CSRF_FEATURE, Feature
from .cookies import ANONYMOUS, SIGNED_IN, SessionId
from .exceptions import SessionTooLarge, SessionValueError, UnreadableValue, UnsupportedValue
from .health import DATABASE, WRITE
from .policy import LEVELS, Behaviour
from .records import NO_FIELDS, Life, Loaded, Plan, Verdict, apply_change
from .repository import SessionRepository
from .serializer import check_key, decode, encode, is_mutable
from .stores.base import CategoryChange
from .walk import Walk

if TYPE_CHECKING:
    from .config import Settings

log = logging.getLogger(__name__)

KEPT_BY_THE_PACKAGE = frozenset({"session_created", "last_activity"})
"""Read-only keys: an assignment is ignored, so that code which sets them by hand keeps working."""

PERMANENT = "_permanent"
_MISSING = object()


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """What one feature gets in this request.

    :param source: where its data came from: ``primary``, ``replica``, ``database``, ``local``, ``journal``,
        ``default``, ``request`` (derived from the cookie) or ``none``.
    :param available: False when the table disables the feature at this level.
    """

    feature: str
    category: str
    priority: str
    behaviour: str
    source: str
    available: bool


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the extension gives each session, instead of the session knowing Flask.

    :param mint: makes a session id of a kind (``a``/``u``) with a permanent flag.
    :param life: the life of a session by its permanent flag.
    :param on_new_id: called when a new id replaced the old one (Flask-WTF's cached token must go).
    """

    repository: SessionRepository
    mint: Callable[[str, bool], SessionId]
    life: Callable[[bool], Life]
    on_new_id: Callable[[], None]


class Session(SessionMixin):
    """One request's session.

    A mapping as Flask's own session is; beyond that it says where it stands (:attr:`level`, :attr:`fallback_mode`,
    :attr:`emergency_mode`, :attr:`unverified`) and can :meth:`increment`, :meth:`regenerate` and :meth:`sign_out`.

    :param cookie: reads the session id from the request's cookie; called once, when it is first needed.
    """

    accessed = False

    def __init__(self, context: SessionContext, cookie: Callable[[], SessionId | None]) -> None:
        self._context = context
        self._repository = context.repository
        self._settings: Settings = context.repository.settings
        self._table = self._settings.table
        self._cookie = cookie
        self._origin: Any = _MISSING
        self._minted: SessionId | None = None
        self._ended = False
        self._loaded: Loaded | None = None
        self._walk: Walk | None = None
        self._values: dict[str, Any] = {}
        self._encoded: dict[str, bytes] = {}
        self._deleted: set[str] = set()
        self._increments: dict[str, int] = {}
        self._transient: dict[str, Any] = {}
        self._wiped = False
        self._pending_end = False
        self._pending_wipe = False
        self._grants = False
        self._permanent: bool | None = None
        self._forced = False
        self._saved = False
        self._wants_cookie = False

    # -- identity --------------------------------------------------------------------------------------------------

    @property
    def origin(self) -> SessionId | None:
        """The session id that came with the request, if its signature is good."""
        if self._origin is _MISSING:
            self._origin = self._cookie()
        found: SessionId | None = self._origin
        return found

    @property
    def minted(self) -> SessionId | None:
        """The session id made in this request, if one was."""
        return self._minted

    @property
    def target(self) -> SessionId | None:
        """The session id this request's data belongs to."""
        return self._minted or (None if self._ended else self.origin)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether no session id came with the request."""
        return self.origin is None

    @property
    def ended(self) -> bool:
        """Whether this request signed the session out."""
        return self._ended

    @property
    def is_in_doubt(self) -> bool:
        """Whether this request learned that its id is dead or cannot be verified; its cookie is left as it is."""
        verdict = self._loaded.verdict if self._loaded and self.target is self.origin else None
        return verdict in (Verdict.DEAD, Verdict.UNVERIFIABLE)

    @property
    def showed_auth(self) -> bool:
        """Whether this response may show what only the signed-in user should see."""
        signed_in_now = self._minted is not None and self._minted.kind == SIGNED_IN
        return signed_in_now or bool(self._loaded and self._loaded.row)

    @property
    def wants_cookie(self) -> bool:
        """Whether a CSRF token was given out that is worth nothing without the cookie."""
        return self._wants_cookie

    def _mint(self, kind: str) -> SessionId:
        self._minted = self._context.mint(kind, self.permanent)
        self._context.on_new_id()
        return self._minted

    @property
    def _kind(self) -> str:
        target = self.target
        if target is None:
            return ANONYMOUS
        if target is self._minted:
            return target.kind
        return ANONYMOUS if self._is_dead else target.kind

    @property
    def _is_dead(self) -> bool:
        return self._load().verdict is Verdict.DEAD

    # -- loading ---------------------------------------------------------------------------------------------------

    @property
    def walk(self) -> Walk:
        """This request's way through the stores."""
        if self._walk is None:
            self._walk = self._repository.begin()
        return self._walk

    def _load(self) -> Loaded:
        if self._loaded is None:
            origin = self.origin
            if origin is None or self._wiped or self._ended:
                self._loaded = Loaded(Verdict.ANONYMOUS)
            else:
                self._loaded = self._repository.load(origin, self.walk, self.life)
        return self._loaded

    def _stored(self, category: str) -> Mapping[str, bytes]:
        """The stored fields of one category as far as this request may see them."""
        loaded = self._load()
        if category not in loaded.fields and self.origin and not (self._wiped or self._ended):
            self._repository.load_more(self.origin, self.walk, self.life, loaded, category)
        return loaded.fields.get(category, NO_FIELDS)

    @property
    def life(self) -> Life:
        """How long this session lives."""
        return self._context.life(self.permanent)

    # -- the mapping -----------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if not isinstance(key, str):
            raise KeyError(key)
        if key in self._values:
            return self._values[key]
        special = self._special(key)
        if special is not _MISSING:
            return special
        if key in self._deleted:
            raise KeyError(key)
        value = self._decode(key)
        self._values[key] = value
        return value

    def _decode(self, key: str) -> Any:
        """A stored value, with what this request added to it."""
        raw = self._stored(self._table.feature_of(key).category).get(key)
        added = self._increments.get(key)
        if raw is None and added is None:
            raise KeyError(key)
        try:
            value = 0 if raw is None else decode(raw)
        except UnreadableValue:
            # One damaged value is no reason to fail a page: it reads as absent, and writing it again heals it.
            self._repository.recorder.count("unreadable_values")
            log.warning("session key %r holds a value that cannot be read; it counts as absent", key)
            raise KeyError(key) from None
        return value if added is None else value + added

    def _special(self, key: str) -> Any:
        """Keys that are answered without their category's data; _MISSING for all others."""
        if key in self._settings.transient_key_patterns:
            if key in self._transient:
                return self._transient[key]
            raise KeyError(key)
        if key == PERMANENT:
            return self.permanent
        if self._is_derived(key):
            return self._csrf_token()
        if key in KEPT_BY_THE_PACKAGE:
            return self._kept(key)
        return _MISSING

    def _is_derived(self, key: str) -> bool:
        feature = self._table.features.get(CSRF_FEATURE)
        return feature is not None and key in feature.keys

    def _csrf_token(self) -> str:
        """Derived from the session id: nothing is stored, and it works at every level."""
        target = self.target
        if target is None:
            target = self._mint(ANONYMOUS)
        self._wants_cookie = True
        if target is self._minted or target.kind == ANONYMOUS:
            return target.csrf_token()
        # A session that is dead or cannot be verified gets what an anonymous visitor would have, and no more.
        return target.csrf_token(shadow=self._load().verdict is not Verdict.VALID)

    def _kept(self, key: str) -> datetime:
        row = self._load().row if self.target is self.origin else None
        if row is None:
            raise KeyError(key)
        at_ms = row.created_at if key == "session_created" else row.idle_expires_at - self.life.idle_ms
        return datetime.fromtimestamp(at_ms / 1000, UTC)

    def __setitem__(self, key: str, value: Any) -> None:
        key = check_key(key)
        if key in self._settings.transient_key_patterns:
            self._transient[key] = value
        elif key == PERMANENT:
            self.permanent = bool(value)
        elif self._is_derived(key):
            self._csrf_token()
        elif key not in KEPT_BY_THE_PACKAGE:
            self._assign(key, value)

    def _assign(self, key: str, value: Any) -> None:
        encoded = encode(key, value, max_depth=self._settings.max_depth)
        feature = self._feature_to_store(key)
        self._check_size(key, feature.category, encoded)
        if feature.category == AUTH and not self._is_settled_by_meaning(key, value):
            return
        self._note_unclaimed(key)
        self._put(key, value, encoded)

    def _feature_to_store(self, key: str) -> Feature:
        try:
            return self._table.feature_of(key)
        except KeyError:
            raise UnsupportedValue(
                key, "no feature of LANGPONT_SESSION_CATEGORIES claims it, and none has the catch-all '*'"
            ) from None

    def _put(self, key: str, value: Any, encoded: bytes) -> None:
        self._warn_if_saved(key)
        self._values[key] = value
        self._encoded[key] = encoded
        self._deleted.discard(key)
        self._increments.pop(key, None)

    def _is_settled_by_meaning(self, key: str, value: Any) -> bool:
        """Sign-in, sign-out and changes of rights. Returns whether the value is to be stored."""
        if key in self._settings.user_key_patterns:
            if value is None:
                self.pop(key, None)
                return False
            self._begin_sign_in()
        elif key in self._settings.privilege_key_patterns:
            return self._change_rights(key, value)
        return True

    def _change_rights(self, key: str, value: Any) -> bool:
        if self._kind == SIGNED_IN:
            self._require_arbiter()
            if self.unverified:
                raise self._repository.refused()
            self._grants = True
        elif value:
            self._begin_sign_in()
        else:
            # An anonymous visitor has no rights; "none" is not worth a record. It is visible in this request.
            self._values[key] = value
            return False
        return True

    def _begin_sign_in(self) -> None:
        """From here on this request speaks for a new id; what may be carried over is taken along."""
        self._require_arbiter()
        self._grants = True
        if self._minted and self._minted.kind == SIGNED_IN:
            return
        carried = self._carry(self._settings.carry_on_sign_in)
        self._restart(SIGNED_IN, carried)

    def _require_arbiter(self) -> None:
        if not self.walk.can(DATABASE, WRITE):
            raise self._repository.refused()

    def _carry(self, categories: tuple[str, ...] | list[str] | Any) -> dict[str, tuple[Any, bytes]]:
        """The present data of some categories, values and encodings."""
        carried: dict[str, tuple[Any, bytes]] = {}
        ghosts = self._load().defaulted
        for key in self:
            if key in ghosts and key not in self._encoded:
                continue  # a default shown in an outage is not data
            if self._table.feature_of(key).category in categories:
                value = self._values.get(key, _MISSING)
                if value is _MISSING:
                    value = self.get(key, _MISSING)
                if value is not _MISSING:
                    carried[key] = (value, self._try_encode(key, value))
        return {key: pair for key, pair in carried.items() if pair[1]}

    def _try_encode(self, key: str, value: Any) -> bytes:
        try:
            return encode(key, value, max_depth=self._settings.max_depth)
        except SessionValueError as error:
            self._repository.reject(self._table.feature_of(key).category, key, error.reason)
            return b""

    def _restart(self, kind: str | None, carried: Mapping[str, tuple[Any, bytes]]) -> None:
        """Begin anew under another id (of `kind`), or under none, with the carried data."""
        loaded = self._loaded
        self._values = {key: value for key, (value, _) in carried.items()}
        self._encoded = {key: encoded for key, (_, encoded) in carried.items()}
        self._deleted, self._increments = set(), {}
        self._loaded = Loaded(Verdict.ANONYMOUS, now_ms=loaded.now_ms if loaded else 0)
        self._wiped = True
        self._pending_wipe = kind is None
        if kind:
            self._mint(kind)
        else:
            self._minted = None
            self._context.on_new_id()

    def __delitem__(self, key: str) -> None:
        if key in self._settings.transient_key_patterns:
            del self._transient[key]
            return
        if key == PERMANENT:
            self.permanent = False
            return
        if self._is_derived(key) or key in KEPT_BY_THE_PACKAGE:
            return
        feature = self._table.feature_of(key)
        present = key in self._encoded or key in self._increments
        present = present or (key not in self._deleted and key in self._stored(feature.category))
        if feature.category == AUTH and self._sign_out_by(key, present):
            return
        if not present:
            if key in self._values:  # a rights key of an anonymous visitor
                del self._values[key]
                return
            raise KeyError(key)
        self._warn_if_saved(key)
        for changed in (self._values, self._encoded, self._increments):
            changed.pop(key, None)
        self._deleted.add(key)

    def _sign_out_by(self, key: str, present: bool) -> bool:
        """What removing an auth key means. Returns whether that was all there was to do."""
        if not present or self._kind != SIGNED_IN:
            return False
        if key in self._settings.user_key_patterns:
            self.sign_out()
            return True
        if key in self._settings.privilege_key_patterns:
            self._require_arbiter()
            self._grants = True
        return False

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key in self._settings.transient_key_patterns:
            return key in self._transient
        if key == PERMANENT:
            return self.permanent
        if self._is_derived(key):
            return self.target is not None
        if key in self._values or key in self._increments:
            return True
        if key in self._deleted:
            return False
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        keys = dict.fromkeys(key for name in self._table.categories for key in self._stored(name))
        keys.update(dict.fromkeys(self._increments))
        keys.update(dict.fromkeys(self._encoded))
        return iter([key for key in keys if key not in self._deleted])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._encoded) or len(self) > 0

    def __repr__(self) -> str:
        # No values: a session's repr ends up in logs and error pages.
        state = "not loaded" if self._loaded is None else self._loaded.verdict
        return f"<Session {state}, {len(self._encoded)} keys set>"

    def clear(self) -> None:
        """Forget everything. For a signed-in session this is a sign-out; nothing is carried over."""
        self._end(carry=())

    # -- beyond a mapping ------------------------------------------------------------------------------------------

    def sign_out(self) -> None:
        """End the session for ever; what ``CARRY_ON_SIGN_OUT`` names lives on in a new anonymous one."""
        self._end(carry=self._settings.carry_on_sign_out)

    def _end(self, carry: Any) -> None:
        carried = self._carry(carry) if carry else {}
        origin = self.origin
        if origin and origin.kind == SIGNED_IN and not (self._loaded and self._loaded.shadow):
            self._ended = self._pending_end = True
        if self._ended or (self._minted and self._minted.kind == SIGNED_IN):
            self._restart(ANONYMOUS if carried else None, carried)
        else:
            self._restart(None, {})
        self._grants = False
        self._forced = True

    def regenerate(self) -> None:
        """Give the session a new id with the same data; the old id is dead afterwards.

        :raises GrantRefused: the session is signed in and the database does not answer.
        """
        if self.target is None or (self.target is self.origin and self._load().shadow):
            return  # nobody has an id that could be replaced; a dead one stays where it is (protocol.md C3)
        kind = self._kind
        if kind == SIGNED_IN:
            self._require_arbiter()
            if self.unverified:
                raise self._repository.refused()
            self._grants = True
        self._restart(kind, self._carry(tuple(self._table.categories)))

    def increment(self, key: str, by: int = 1) -> int:
        """Add to a whole number. The server adds, so that no concurrent increment is lost.

        :param by: may be negative.
        :return: the value as this request sees it.
        :raises UnsupportedValue: the key holds something else than a whole number, or belongs to auth.
        """
        if isinstance(by, bool) or not isinstance(by, int):
            raise UnsupportedValue(key, f"an increment is a whole number, not {type(by).__name__}")
        if self._feature_to_store(check_key(key)).category == AUTH:
            raise UnsupportedValue(key, "auth keys cannot be incremented; the database decides about them")
        now = self.get(key, 0)
        if isinstance(now, bool) or not isinstance(now, int):
            raise UnsupportedValue(key, f"only whole numbers can be incremented, this is {type(now).__name__}")
        if key in self._encoded or key in self._deleted:
            self._assign(key, now + by)
        else:
            self._warn_if_saved(key)
            self._increments[key] = self._increments.get(key, 0) + by
            self._values[key] = now + by
        return now + by

    def category(self, name: str) -> CategoryView:
        """The keys of one category as a mapping of their own.

        :raises KeyError: there is no such category.
        """
        self._table.categories[name]
        return CategoryView(self, name)

    def available(self, feature: str) -> bool:
        """Whether the table lets a feature be used at this level; a page can hide it.

        :raises KeyError: there is no such feature.
        """
        return self._behaviour(feature) is not Behaviour.DISABLE_FEATURE

    def _behaviour(self, feature: str) -> Behaviour:
        return self._repository.behaviour(self._table.features[feature], self._kind, self.level)

    def explain(self) -> list[FeatureReport]:
        """What every feature gets in this request, and from which store."""
        loaded = self._load()
        return [
            FeatureReport(
                feature.name,
                feature.category,
                feature.priority,
                self._behaviour(feature.name),
                self._source(feature.name, feature.category, loaded),
                self.available(feature.name),
            )
            for feature in self._table.features.values()
        ]

    def _source(self, feature: str, category: str, loaded: Loaded) -> str:
        if feature == CSRF_FEATURE:
            return "request"
        return loaded.exceptions.get(feature) or loaded.sources.get(category, "none")

    @property
    def level(self) -> int:
        """The degradation level this request is at, 0 (normal) to 4 (minimal)."""
        return self.walk.level

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
        return self._forced or self._has_explicit_changes

    @modified.setter
    def modified(self, value: bool) -> None:
        self._forced = value

    @property
    def _has_explicit_changes(self) -> bool:
        return bool(
            self._encoded or self._deleted or self._increments or self._ended or self.permanence_changed
            or (self._wiped and self.origin is not None)
        )  # fmt: skip

    @property
    def permanence_changed(self) -> bool:
        """Whether this request made the session permanent, or not permanent any more."""
        return self._permanent is not None and self._permanent != bool(self.origin and self.origin.permanent)

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
        changes = self._changes()
        if self.target is None and any(changes.values()):
            self._mint(ANONYMOUS)
        origin, target = self._id_before(), self.target
        if self._must_update_row(target):
            changes.setdefault(AUTH, CategoryChange(0))
        replaced = origin is not None and target is not None and target is not origin
        if not (changes or self._pending_end or replaced):
            return None
        return Plan(
            origin=origin,
            target=target,
            life=self.life,
            loaded=self._plan_loaded(target, changes),
            changes=changes,
            ends=self._pending_end,
            grants=self._grants,
            permanence_changed=self.permanence_changed,
        )

    def _id_before(self) -> SessionId | None:
        """The id whose records exist: after a first save that is the minted one."""
        return self._minted if self._saved and self._minted else self.origin

    def _must_update_row(self, target: SessionId | None) -> bool:
        """A signed-in session that becomes permanent (or ceases to be) lives by another clock from now on."""
        return bool(self.permanence_changed and target is not None and target is self.origin and target.kind == "u")

    def _plan_loaded(self, target: SessionId | None, changes: Mapping[str, CategoryChange]) -> Loaded | None:
        """Changing the row of a signed-in session needs its version; other changes need no read."""
        needs_row = target is self.origin and target is not None and target.kind == SIGNED_IN and AUTH in changes
        return self._load() if needs_row else self._loaded

    def _changes(self) -> dict[str, CategoryChange]:
        changes: dict[str, CategoryChange] = {}

        def change_of(key: str) -> CategoryChange:
            return changes.setdefault(self._table.feature_of(key).category, CategoryChange(0))

        for key in self._deleted:
            change_of(key).deletes.add(key)
        for key, by in self._increments.items():
            change_of(key).increments[key] = by
        for key, encoded in {**self._encoded, **self._changed_inside()}.items():
            change_of(key).sets[key] = encoded
        if self._pending_wipe and self.target is self.origin and self.origin is not None:
            for name in self._table.categories:
                changes.setdefault(name, CategoryChange(0)).wipe = True
        return changes

    def _changed_inside(self) -> dict[str, bytes]:
        """Values that were changed in place since they were read or assigned."""
        changed: dict[str, bytes] = {}
        for key, value in self._values.items():
            if key in self._increments or not is_mutable(value):
                continue
            encoded = self._try_encode(key, value)
            if encoded and encoded != self._encoding_before(key):
                changed[key] = encoded
        return changed

    def _encoding_before(self, key: str) -> bytes | None:
        assigned = self._encoded.get(key)
        if assigned is not None:
            return assigned
        stored = self._stored(self._table.feature_of(key).category).get(key)
        # Another writer may format the same value differently: only what *we* would write for it may be compared.
        return None if stored is None else self._try_encode(key, decode(stored))

    def saved(self) -> None:
        """The save is done: what was changed is part of what this request sees, and is not to be stored again."""
        if self._loaded is not None:
            for name, change in self._changes().items():
                self._loaded.fields[name] = apply_change(self._loaded.fields.get(name, NO_FIELDS), change)
        self._forced = True  # "modified" stays true for whoever asks after the save
        self._encoded.clear()
        self._deleted.clear()
        self._increments.clear()
        self._pending_end = self._pending_wipe = False
        self._saved = True

    def _warn_if_saved(self, key: str) -> None:
        if self._saved:
            log.warning(
                "session[%r] was changed after the response had been sent (a streaming response?): it is not stored",
                key,
            )

    def _check_size(self, key: str, category: str, encoded: bytes) -> None:
        """Before anything is sent: an oversized command looks like a dead server to the client."""
        limit = self._settings.max_category_bytes
        known = self._loaded.fields.get(category, NO_FIELDS) if self._loaded else NO_FIELDS
        fields = {**known, **{k: v for k, v in self._encoded.items() if self._table.feature_of(k).category == category}}
        for gone in (key, *self._deleted):
            fields.pop(gone, None)
        size = len(key.encode()) + len(encoded) + sum(len(k) + len(v) for k, v in fields.items())
        if size > limit:
            raise SessionTooLarge(key, f"category {category!r} would have {size} bytes, {limit} are allowed")
        if len(fields) + 1 > self._settings.max_fields:
            raise SessionTooLarge(key, f"category {category!r} would have more than {self._settings.max_fields} fields")

    def _note_unclaimed(self, key: str) -> None:
        self._repository.note_unclaimed(key)


class CategoryView(MutableMapping[str, Any]):
    """One category of a session. Keys of other categories are not in it and cannot be set through it."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name

    def _own(self, key: str) -> str:
        owner = self._session._table.feature_of(key).category
        if owner != self._name:
            raise KeyError(f"{key!r} belongs to category {owner!r}, not to {self._name!r}")
        return key

    def __getitem__(self, key: str) -> Any:
        return self._session[self._own(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[self._own(key)] = value

    def __delitem__(self, key: str) -> None:
        del self._session[self._own(key)]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._session if self._session._table.feature_of(key).category == self._name)

    def __len__(self) -> int:
        return sum(1 for _ in self)
