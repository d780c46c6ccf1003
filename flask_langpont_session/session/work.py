"""What one request knows of its session, and what it has changed."""

from __future__ import annotations

import logging
from typing import Any

from ..exceptions import LangPontSessionError, UnreadableValue
from ..policy.categories import (
    AUTH,
    Feature,
)
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.records import NO_FIELDS, Loaded, Verdict
from ..policy.serializer import decode
from ..policy.values import AuthRow, Fields
from ..support.lazy import lazy
from .changes import Changes
from .ids import Ids

log = logging.getLogger(__name__)


class Work:
    """What one request knows of its session, and what it has changed: the part that the mapping, the rules of auth and
    the save share.

    :param ids: under which it is stored.
    :ivar now: what this request has changed so far.
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
    grants = False
    confirms = False
    named: str | None = None
    forced = False
    label: str | None = None

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self.context = ids.context
        self.repository = ids.context.repository

    now = lazy(lambda work: Changes(work.repository.table, work.context.limits, work.repository.reject))

    @property
    def changes(self) -> Changes | None:
        """The same; None: nothing was read or changed by now."""
        return self.__dict__.get("now")

    @property
    def kind(self) -> str:
        """``u`` only for a session that is, or may be, signed in: a dead one is anonymous."""
        minted = self.ids.identity.minted
        if minted is not None:
            return minted.kind
        target = self.ids.target
        return ANONYMOUS if target is None or self.load().shadow else target.kind

    @property
    def is_in_doubt(self) -> bool:
        """Whether this request learned that its id is dead or cannot be verified; its cookie is left as it is."""
        verdict = self.loaded.verdict if self.loaded and self.ids.target is self.ids.origin else None
        return verdict in (Verdict.DEAD, Verdict.UNVERIFIABLE)

    @property
    def unverified(self) -> bool:
        """Whether no store could say if this session is signed in: it is shown as anonymous and kept as it is."""
        if self.ids.identity.minted is not None:  # it is of another id than the one that came
            return False
        return self.ids.target is self.ids.origin and self.load().verdict is Verdict.UNVERIFIABLE

    @property
    def is_unchanged(self) -> bool:
        """Whether there is nothing that a save could have to do, as nearly always."""
        identity, changes = self.ids.identity, self.changes
        if changes is not None and changes.may_have_changed:
            return False
        if identity.minted is not None or identity.must_end or identity.must_wipe:
            return False
        return not self.ids.must_save_permanence

    @property
    def showed_auth(self) -> bool:
        """Whether this response may show what only the signed-in user should see."""
        if self.ids.identity.row or (self.loaded is not None and self.loaded.row):
            return True
        minted = self.ids.minted
        return minted is not None and minted.kind == SIGNED_IN

    @property
    def row(self) -> AuthRow | None:
        """What is known of the signed-in session that this request speaks for, under whatever id; None: there is none,
        or it begins with this request."""
        identity = self.ids.identity
        return identity.row if identity.row and identity.minted else self.load().row

    def known_row(self) -> AuthRow | None:
        """The same.

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
        known = origin and self.repository.load(origin, self.ids.scope, self.ids.life)
        self.loaded = known or Loaded(Verdict.UNVERIFIABLE if self.ids.put_off else Verdict.ANONYMOUS)
        before, self.before = self.before, None
        if before is not None and not self.loaded.shadow:
            self.own_loaded().keep_from(before, before.fields.keys() - {AUTH})
        return self.loaded

    def own_loaded(self) -> Loaded:
        """What was loaded, to be changed: other requests may be shown the same until then."""
        self.loaded = self.load().own()
        return self.loaded

    def stored(self, category: str) -> Fields:
        """The stored fields of one category as far as this request may see them."""
        loaded = self.loaded or self._load()
        fields = loaded.fields.get(category)
        if fields is not None:
            return fields
        if not self.ids.identity.is_restarted and self.ids.origin:
            loaded = self.own_loaded()
            self.repository.load_more(self.ids.origin, self.ids.scope, self.ids.life, loaded, category)
        return loaded.fields.get(category, NO_FIELDS)

    def feature_of(self, key: str) -> Feature:
        """:raises KeyError: no feature claims it."""
        return self.repository.table.feature_of(key)

    def is_unknown(self, key: str) -> bool:
        """Whether the stores may have a value of a key that this request could not read."""
        return self.loaded is not None and self.loaded.is_unknown(self.feature_of(key), key)

    def decode(self, key: str) -> Any:
        """The value that is assigned, or stored.

        :raises KeyError: there is none, or it cannot be read.
        """
        encoded = self.now.assigned.get(key)
        if encoded is None:
            encoded = self.stored(self.repository.table.feature_of(key).category)[key]
        try:
            return decode(encoded)
        except UnreadableValue:
            self.note_unreadable(key)
            raise KeyError(key) from None

    def note_unreadable(self, key: str) -> None:
        """One damaged value is no reason to fail a page: it reads as absent, and writing it again heals it."""
        self.repository.recorder.count("unreadable_values")
        log.warning("session key %r holds a value that cannot be read; it counts as absent", key)

    def value(self, key: str) -> Any:
        """The value of a key that is kept in a category.

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
        """Whether :meth:`value` gives one."""
        try:
            self.value(key)
        except KeyError:
            return False
        return True

    def is_kept(self, key: str) -> bool:
        """Whether a key has a value that is stored, or is to be."""
        is_stored = key not in self.now.deleted and key in self.stored(self.feature_of(key).category)
        return key in self.now or is_stored

    def delete(self, key: str) -> None:
        """Remove a key that is kept in a category.

        :raises KeyError: it has no value.
        """
        if not self.is_kept(key):
            del self.now.values[key]  # a right that a visitor does not have; KeyError for all other keys
            self.now.saved.pop(key, None)  # or what was saved nowhere
            return
        self.warn_if_closed(key)
        stored = key not in self.now.deleted and key in self.stored(self.feature_of(key).category)
        self.now.delete(key, stored=stored)

    def warn_if_closed(self, key: str | None = None) -> None:
        """Something is about to be changed after the last save: say so in the log.

        :param key: None: the whole session is signed out, emptied or given another id.
        """
        if self.ids.is_closed:
            log.warning(
                "session%s was changed after the response had been sent (a streaming response?): it is not stored, "
                "unless session.flush() does so",
                "" if key is None else f"[{key!r}]",
            )

    def take_back(self) -> None:
        """A grant was refused: what was to be saved with it is gone, and what is stored is read again."""
        self.ids.identity.take_back()
        self.loaded, self.grants, self.confirms = None, False, False
        self.now.restart({})
        self.context.on_new_id()

    def came_too_late(self) -> None:
        """The session ended before this request could save: it is what it would be now."""
        self.ids.identity.came_too_late()
        self.loaded = Loaded(Verdict.DEAD)
        self.now.restart({})
        self.context.on_new_id()
