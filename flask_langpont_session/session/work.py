"""The state of one request's session: the ids under which it was found and is saved, its lifetime, and what is known of
it and was changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..exceptions import LangPontSessionError, UnreadableValue
from ..policy.categories import AUTH, AUTHENTICATED_AT, MAX_FIELDS, Feature, KeyKind, kinds_of
from ..policy.changes import Fields
from ..policy.devices import NO_DEVICE, Device
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.loaded import Loaded, Verdict
from ..policy.rows import AuthRow
from ..policy.serializer import decode
from ..support.caches import lazy
from ..support.logs import fields
from .changes import Changes, SessionLimits
from .identity import NOT_READ, Identity

if TYPE_CHECKING:
    from ..request.repository import SessionRepository
    from ..request.scope import RequestScope
    from .mapping import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionContext:
    """The part of the extension that an application's sessions use, so that they need not know Flask.

    :param mint: makes a session id of a kind (``a``/``u``) with a permanent flag.
    :param life: the life of a session by its permanent flag.
    :param on_new_id: called when a new id replaced the old one (Flask-WTF's cached token must go).
    :param on_use: called with each key that is given a value.
    :param device: what is to be stored of the device that sends this request; asked at a sign-in.
    :param on_confirm: called when the user has given proof of being that user (Flask-Login takes the session for stale
        until it is told).
    :ivar kind_of: tells what becomes of a key.
    :ivar limits: what a session may hold.
    """

    repository: SessionRepository
    mint: Callable[[str, bool], SessionId]
    life: Callable[[bool], Life]
    on_new_id: Callable[[], None]
    on_use: Callable[[str], None]
    device: Callable[[], Device] = lambda: NO_DEVICE
    on_confirm: Callable[[], None] = lambda: None
    kind_of: Callable[[str], KeyKind] = field(init=False, repr=False)
    limits: SessionLimits = field(init=False)

    def __post_init__(self) -> None:
        settings = self.repository.settings
        limits = SessionLimits(settings.max_category_bytes, MAX_FIELDS)
        object.__setattr__(self, "kind_of", kinds_of(settings.table))
        object.__setattr__(self, "limits", limits)


class Adopted(NamedTuple):
    """The outcome for an old session that came with a request.

    :param sid: under which it goes on; None: it cannot be taken over yet, because a store does not answer.
    :param scope: the request's way through the stores, which may have used up some of its time.
    :param token: the CSRF token that forms of the old session have, if one is known.
    """

    sid: SessionId | None
    scope: RequestScope
    token: str | None = None


class OldSession(Protocol):
    """The old session of a request: one that the application had before this package."""

    def take_over(self) -> Adopted | None:
        """Continue the old session under an id of ours. Asked once, for a request without one. None: there is none to
        continue."""

    def ends_with(self, session: Session, is_gone: bool) -> bool:
        """End the old session if this request ended the one that continues it. Return whether its cookies are to go.

        :param is_gone: whether the session's own cookie goes.
        """


class Ids:
    """The ids of one request's session, what its cookie says, and the request's way through the stores.

    :param cookie: reads the session id from the request's cookie; called once, when it is first needed.
    :param old: the old session whose cookie the request carries as well; None: it carries none.
    :param scope: this request's way through the stores, if it is on it already.
    :ivar adopted: the id of an old session that was taken over in this request.
    :ivar put_off: what became of one that could not be, because a store does not answer.
    :ivar chosen_permanent: what this request said of it; `saved_permanent`: what the last save stored. None: nothing.
    :ivar wants_cookie: a token of the id was given out, so that the browser must have the cookie that goes with it.
    :ivar is_closed: the response is on its way: no old session is taken over any more.
    """

    # How it begins. Of the class: most requests change none of it, and a session is made for each.
    adopted: SessionId | None = None
    put_off: Adopted | None = None
    chosen_permanent: bool | None = None
    saved_permanent: bool | None = None
    wants_cookie = False
    is_closed = False

    def __init__(
        self,
        context: SessionContext,
        cookie: Callable[[], SessionId | None],
        old: OldSession | None = None,
        scope: RequestScope | None = None,
    ) -> None:
        self.context = context
        self._cookie = cookie
        self.old = old
        self.identity = Identity()
        if scope is not None:
            self.scope = scope

    @property
    def origin(self) -> SessionId | None:
        """Return the session id whose records this request works with: the one that came with it, if its signature is
        good; after a save under another id, that other id."""
        identity = self.identity
        if identity.origin is NOT_READ:
            identity.origin = self._cookie()
            if identity.origin is None and self.old is not None and not self.is_closed:
                self.take_over(self.old.take_over())
        return identity.origin

    def take_over(self, adopted: Adopted | None) -> None:
        """Go on as if the request had come with the id of the old session that was taken over."""
        if adopted is None:
            return
        if adopted.sid is None:
            self.scope, self.put_off = adopted.scope, adopted
        else:
            self.scope = adopted.scope.to(adopted.sid.digest)
            self.adopted = adopted.sid
            self.identity.stand_in(adopted.sid)

    @property
    def target(self) -> SessionId | None:
        """Return the session id to which this request's data belongs."""
        identity = self.identity
        if identity.minted is not None or identity.is_signed_out:
            return identity.minted
        return self.origin

    @property
    def minted(self) -> SessionId | None:
        """Return the session id made in this request, if one was."""
        identity = self.identity
        return identity.minted or (identity.origin if identity.has_moved else None)

    @property
    def cookies_id(self) -> SessionId | None:
        """Return the session id that came with the request."""
        return self.identity.came_with if self.identity.has_moved else self.origin

    def mint(self, kind: str) -> SessionId:
        sid = self.context.repository.placed(lambda: self.context.mint(kind, self.permanent))
        self.identity.mint(sid)
        self.wants_cookie = False  # a token that was given out is of the id before
        self.context.on_new_id()
        return sid

    @lazy
    def scope(self) -> RequestScope:
        """This request's way through the stores."""
        origin = self.origin
        begun: RequestScope | None = self.__dict__.get("scope")  # the origin may have been found on it
        return begun or self.context.repository.begin(digest=origin.digest if origin else None)

    @property
    def life(self) -> Life:
        """Return the lifetime of this session."""
        return self.context.life(self.permanent)

    @property
    def permanent(self) -> bool:
        """Return whether the browser keeps the session when it is closed: as this request chose, else as its cookie
        says."""
        if self.chosen_permanent is not None:
            return self.chosen_permanent
        origin = self.origin
        return origin is not None and origin.permanent

    @property
    def permanence_changed(self) -> bool:
        """Return whether this request made the session permanent, or not permanent any more."""
        if self.chosen_permanent is None:
            return False
        came_with = self.cookies_id
        return self.chosen_permanent != bool(came_with and came_with.permanent)

    @property
    def must_save_permanence(self) -> bool:
        if self.saved_permanent is None:
            return self.chosen_permanent is not None and self.permanence_changed
        return self.permanent != self.saved_permanent


class Work:
    """The knowledge of one request about its session, and the changes it made: shared by the mapping, the rules of auth
    and the save.

    :param ids: under which it is stored.
    :ivar now: what this request has changed so far.
    :ivar is_off_line: the straight line does not know this session: the stores are to be asked.
    :ivar before: once a save has stored this session under another id: what of it has been read.
    :ivar grants: the save changes users or rights.
    :ivar confirms: the save notes that the user has just given proof of being that user.
    :ivar named: the user whom this request's sign-in named last; a token that is refreshed afterwards may name none.
    :ivar forced: it was said to be modified.
    :ivar label: for the session that this request signs in, instead of one that is made; None: there is no other.
    """

    # How it begins. Of the class: most requests change little of it, and a session is made for each.
    loaded: Loaded | None = None
    before: Loaded | None = None
    is_off_line = False
    grants = False
    confirms = False
    named: str | None = None
    forced = False
    label: str | None = None

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self.context = ids.context
        self.repository = ids.context.repository

    now = lazy(
        lambda work: Changes(work.repository.table, work.context.limits, work.repository.backend.reports.rejected)
    )

    @property
    def changes(self) -> Changes | None:
        """Return :attr:`now` without making it; None: this request has not read or changed a value."""
        return self.__dict__.get("now")

    @property
    def kind(self) -> str:
        """Return ``u`` only for a session that is, or may be, signed in: a dead one is anonymous."""
        minted = self.ids.identity.minted
        if minted is not None:
            return minted.kind
        target = self.ids.target
        return ANONYMOUS if target is None or self.load().shadow else target.kind

    @property
    def is_in_doubt(self) -> bool:
        """Return whether this request learned that its id is dead or cannot be verified; its cookie is left as it
        is."""
        verdict = self.loaded.verdict if self.loaded and self.ids.target is self.ids.origin else None
        return verdict in (Verdict.DEAD, Verdict.UNVERIFIABLE)

    @property
    def unverified(self) -> bool:
        """Return whether no store could say if this session is signed in: it is shown as anonymous and kept as it
        is."""
        if self.ids.identity.minted is not None:  # it is of another id than the one that came
            return False
        return self.ids.target is self.ids.origin and self.load().verdict is Verdict.UNVERIFIABLE

    @property
    def is_unchanged(self) -> bool:
        """Return whether a save would have nothing to do, as is nearly always so."""
        identity, changes = self.ids.identity, self.changes
        if changes is not None and changes.may_have_changed:
            return False
        if identity.minted is not None or identity.must_end or identity.must_wipe:
            return False
        return not self.ids.must_save_permanence

    @property
    def showed_auth(self) -> bool:
        """Return whether this response may show what only the signed-in user should see."""
        if self.ids.identity.row or (self.loaded is not None and self.loaded.row):
            return True
        minted = self.ids.minted
        return minted is not None and minted.kind == SIGNED_IN

    @property
    def row(self) -> AuthRow | None:
        """Return the row of the signed-in session that this request speaks for, under whatever id; None: there is none,
        or the session begins with this request."""
        identity = self.ids.identity
        return identity.row if identity.row and identity.minted else self.load().row

    def known_row(self) -> AuthRow | None:
        """Return :attr:`row`.

        :raises LangPontSessionError: no store can say whether there is one.
        """
        if self.unverified:
            raise LangPontSessionError("no store can say at the moment whether this session is signed in")
        return self.row

    def load(self) -> Loaded:
        return self.loaded or self._load()

    def _load(self) -> Loaded:
        identity = self.ids.identity
        origin = None if identity.is_restarted or identity.is_signed_out else self.ids.origin
        if origin is None:
            self.loaded = Loaded(Verdict.UNVERIFIABLE if self.ids.put_off else Verdict.ANONYMOUS)
        else:
            self.loaded = _on_line(self, origin) or self.repository.reads.load(
                origin, self.ids.scope, self.ids.life, on_line=not self.is_off_line
            )
        before, self.before = self.before, None
        if before is not None and not self.loaded.shadow:
            self.own_loaded().keep_from(before, before.categories.keys() - {AUTH})
        return self.loaded

    def own_loaded(self) -> Loaded:
        """Return what was loaded as this request's own copy, which it may change: before, other requests may share
        it."""
        self.loaded = self.load().own()
        return self.loaded

    def stored(self, category: str) -> Fields:
        """Return the stored fields of one category as far as this request may see them."""
        loaded = self.loaded or self._load()
        found = loaded.categories.get(category)
        if found is not None:
            return found.shown
        if not self.ids.identity.is_restarted and self.ids.origin:
            loaded = self.own_loaded()
            self.repository.reads.load_more(self.ids.origin, self.ids.scope, self.ids.life, loaded, category)
        return loaded.of(category).shown

    def stored_value(self, key: str) -> bytes | None:
        """Return the stored value of a key as far as this request may see it; None: there is none.

        :raises KeyError: no feature claims it.
        """
        found = self.stored(self.repository.table.feature_of(key).category)
        if self.loaded is not None and self.loaded.former:
            found = self.stored(place_of(self, key))
        return found.get(key)

    def feature_of(self, key: str) -> Feature:
        """Return the feature of a key.

        :raises KeyError: no feature claims it.
        """
        return self.repository.table.feature_of(key)

    def is_unknown(self, key: str) -> bool:
        """Return whether the stores may have a value of a key that this request could not read."""
        return self.loaded is not None and self.loaded.is_unknown(self.feature_of(key), key)

    def decode(self, key: str) -> Any:
        """Return the value that is assigned, or stored.

        :raises KeyError: there is none, or it cannot be read.
        """
        encoded = self.now.assigned.get(key)
        if encoded is None:
            encoded = self.stored(self.repository.table.feature_of(key).category).get(key)
            if self.loaded is not None and self.loaded.former:
                encoded = self.stored_value(key)
            if encoded is None:
                raise KeyError(key)
        try:
            return decode(encoded)
        except UnreadableValue:
            self.note_unreadable(key)
            raise KeyError(key) from None

    def note_unreadable(self, key: str) -> None:
        """Report a damaged value, which reads as absent: it is no reason to fail a page, and writing it again heals
        it."""
        self.repository.recorder.count("unreadable_values")
        log.warning(
            "session key %r holds a value that cannot be read; it counts as absent",
            key,
            extra=fields("value_unreadable", key=key),
        )

    def value(self, key: str) -> Any:
        """Return the value of a key that is kept in a category.

        :raises KeyError: it has none, or one that cannot be read.
        """
        changes = self.now
        values = changes.values
        if key not in values:
            if key in changes.deleted:
                raise KeyError(key)
            changes.read.add(key)
            values[key] = self.decode(key)
        return values[key]

    def has(self, key: str) -> bool:
        """Return whether :meth:`value` gives a value."""
        try:
            self.value(key)
        except KeyError:
            return False
        return True

    def is_kept(self, key: str) -> bool:
        """Return whether a key has a value that is stored, or is to be."""
        return key in self.now or (key not in self.now.deleted and self.stored_value(key) is not None)

    def delete(self, key: str) -> None:
        """Remove a key that is kept in a category.

        :raises KeyError: it has no value.
        """
        if not self.is_kept(key):
            del self.now.values[key]  # a right that a visitor does not have; KeyError for all other keys
            self.now.saved.pop(key, None)  # or what was saved nowhere
            return
        self.warn_if_closed(key)
        self.now.delete(key, stored=key not in self.now.deleted and self.stored_value(key) is not None)

    def warn_if_closed(self, key: str | None = None) -> None:
        """Log a warning if the request's last save is done: only a flush would still store the change about to be made.

        :param key: None: the whole session is signed out, emptied or given another id.
        """
        if self.ids.is_closed:
            log.warning(
                "session%s was changed after the response had been sent (a streaming response?): it is not stored, "
                "unless session.flush() does so",
                "" if key is None else f"[{key!r}]",
                extra=fields("changed_too_late", key=key),
            )

    def take_back(self) -> None:
        """Give up what was to be saved, because a grant was refused, and have what is stored read again."""
        self.ids.identity.take_back()
        self.loaded, self.grants, self.confirms = None, False, False
        self.now.restart({})
        self.context.on_new_id()

    def came_too_late(self) -> None:
        """Show the session as dead, because it ended before this request could save."""
        self.ids.identity.came_too_late()
        self.loaded = Loaded(Verdict.DEAD)
        self.now.restart({})
        self.context.on_new_id()


def _on_line(work: Work, origin: SessionId) -> Loaded | None:
    """Return what the straight line shows, before the request is on its way through the stores."""
    if work.is_off_line or "scope" in vars(work.ids):
        return None
    seen = work.repository.line.read(origin, work.ids.life)
    work.is_off_line = seen is None
    return seen


def place_of(work: Work, key: str) -> str:
    """Return the category in which a key lies, if it is stored; nearly always that of its feature.

    :raises KeyError: no feature claims it.
    """
    home = work.feature_of(key).category
    work.stored(home)
    former = work.load().former
    at = former.get(key) if former else None
    return at.category if at and at.counts else home


def places_of(work: Work, category: str) -> set[str]:
    """Return the categories in which keys of one category lie; nearly always that category alone."""
    former = work.load().former or {}
    return {category, *(at.category for key, at in former.items() if work.feature_of(key).category == category)}


def present(work: Work) -> dict[str, bytes | None]:
    """Return the keys that have a value, each with its encoding; None: it is neither stored nor assigned."""
    changes, table = work.now, work.repository.table
    present: dict[str, bytes | None] = {}
    for name in table.categories:
        present.update(work.stored(name))
    for key in work.load().former or ():
        encoded = work.stored_value(key)
        if encoded is None:
            present.pop(key, None)
        else:
            present[key] = encoded
    for key in changes.increments:
        present.setdefault(key)
    present.update(changes.assigned)
    for key in changes.saved:
        present.setdefault(key)
    for key in changes.deleted:
        present.pop(key, None)
    present.pop(AUTHENTICATED_AT, None)
    return present if table.claims_all else {key: raw for key, raw in present.items() if key in table}


def readable_keys(work: Work) -> list[str]:
    """Return the keys whose value can be read, and decode all of them."""
    found, values = present(work), work.now.values
    for key, raw in found.items():
        if key not in values and raw is not None:
            try:
                values[key] = decode(raw)
            except UnreadableValue:
                work.note_unreadable(key)
    return list(filter(values.__contains__, found))
