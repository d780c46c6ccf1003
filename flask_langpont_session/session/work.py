"""The state of one request's session: what is known of it, and what the request has changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..exceptions import LangPontSessionError, UnreadableValue
from ..policy.categories import AUTH, AUTHENTICATED_AT, Feature
from ..policy.changes import Fields
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.levels import Kept
from ..policy.loaded import Loaded, Verdict
from ..policy.rows import AuthRow
from ..policy.serializer import decode
from ..support.logs import fields
from .changes import Carried, Changes
from .context import SessionContext
from .identity import Ids

log = logging.getLogger(__name__)


class Work(Ids):
    """The work of one request on its session: its ids, what is known of it, and what was changed; shared by the
    mapping, the rules of auth and the save.

    :ivar now: what this request has changed so far.
    :ivar is_off_line: the straight line does not know this session: the stores are to be asked.
    :ivar before: once a save has stored this session under another id: what of it has been read.
    :ivar grants: the save changes users or rights.
    :ivar confirms: the save notes that the user has just given proof of being that user.
    :ivar named: the user whom this request's sign-in named last; a token that is refreshed afterwards may name none.
    :ivar taken_from: at a sign-in: the users of the session before, and what was carried over from it.
    :ivar forced: it was said to be modified.
    :ivar label: for the session that this request signs in, instead of one that is made; None: there is no other.
    :ivar is_closed: the response is on its way.
    :ivar places: category → where the last save put its data.
    :ivar written: the row, as a save has written it.
    :ivar transient: keys that last for the request only.
    :ivar token_meanwhile: the CSRF token that is shown while an old session cannot be taken over.
    """

    # How it begins. Of the class: most requests change little of it.
    loaded: Loaded | None = None
    before: Loaded | None = None
    is_off_line = False
    grants = False
    confirms = False
    named: str | None = None
    taken_from: tuple[Mapping[str, str | None], Carried] = {}, {}
    forced = False
    label: str | None = None
    is_closed = False
    places: Mapping[str, Kept] = {}
    written: AuthRow | None = None
    token_meanwhile = ""
    transient: dict[str, Any]

    def __init__(self, context: SessionContext, request: Any, origin: SessionId | None) -> None:
        self.context = context
        self.request = request
        self.origin = origin
        self.repository = context.repository
        self.now = Changes(context)

    @property
    def kind(self) -> str:
        """Return ``u`` only for a session that is, or may be, signed in: a dead one is anonymous."""
        minted = self.minted
        if minted is not None:
            return minted.kind
        target = self.target
        return ANONYMOUS if target is None or self.load().shadow else target.kind

    @property
    def is_in_doubt(self) -> bool:
        """Return whether this request learned that its id is dead or cannot be verified; its cookie is left as it
        is."""
        verdict = self.loaded.verdict if self.loaded and self.target is self.origin else None
        return verdict in (Verdict.DEAD, Verdict.UNVERIFIABLE)

    @property
    def unverified(self) -> bool:
        """Return whether no store could say if this session is signed in: it is shown as anonymous and kept as it
        is."""
        if self.minted is not None:  # it is of another id than the one that came
            return False
        return self.target is self.origin and self.load().verdict is Verdict.UNVERIFIABLE

    @property
    def is_modified(self) -> bool:
        """Return whether a key was set or removed, or the session's permanence changed."""
        return self.forced or bool(self.now) or self.permanence_changed

    @property
    def is_unchanged(self) -> bool:
        """Return whether a save would have nothing to do, as is nearly always so."""
        if self.now.may_have_changed or self.minted is not None or self.must_end or self.must_wipe:
            return False
        return not self.must_save_permanence

    @property
    def showed_auth(self) -> bool:
        """Return whether this response may show what only the signed-in user should see."""
        if self.renamed_row or (self.loaded is not None and self.loaded.row):
            return True
        made = self.made
        return made is not None and made.kind == SIGNED_IN

    @property
    def row(self) -> AuthRow | None:
        """Return the row of the signed-in session that this request speaks for, under whatever id; None: there is none,
        or the session begins with this request."""
        return self.renamed_row if self.renamed_row and self.minted else self.load().row

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
        origin = None if self.is_restarted or self.is_signed_out else self.origin
        if origin is None:
            self.loaded = Loaded(Verdict.UNVERIFIABLE if self.put_off else Verdict.ANONYMOUS)
        else:
            self.loaded = _on_line(self, origin) or self.repository.reads.load(
                origin, self.scope, self.life, on_line=not self.is_off_line
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
        if not self.is_restarted and self.origin:
            loaded = self.own_loaded()
            self.repository.reads.load_more(self.origin, self.scope, self.life, loaded, category)
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
        if self.is_closed:
            log.warning(
                "session%s was changed after the response had been sent (a streaming response?): it is not stored, "
                "unless session.flush() does so",
                "" if key is None else f"[{key!r}]",
                extra=fields("changed_too_late", key=key),
            )

    def take_back(self) -> None:
        """Give up what was to be saved, because a grant was refused, and have what is stored read again."""
        self.drop_all()
        self.loaded, self.grants, self.confirms = None, False, False
        self.now.restart({})
        self.context.on_new_id()

    def came_too_late(self) -> None:
        """Show the session as dead, because it ended before this request could save."""
        self.go_back()
        self.loaded = Loaded(Verdict.DEAD)
        self.now.restart({})
        self.context.on_new_id()


def _on_line(work: Work, origin: SessionId) -> Loaded | None:
    """Return what the straight line shows, before the request is on its way through the stores."""
    if work.is_off_line or work.way is not None:
        return None
    seen = work.repository.line.read(origin, work.life)
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
