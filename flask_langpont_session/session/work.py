"""What one request knows of its session, and what it has changed."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from ..exceptions import LangPontSessionError, UnreadableValue
from ..policy.categories import (
    AUTH,
    AUTHENTICATED_AT,
    CSRF_FEATURE,
    Feature,
)
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.records import NO_COPY, NO_FIELDS, Loaded, Verdict
from ..policy.serializer import decode
from ..policy.values import AuthRow, Fields
from ..support.lazy import lazy
from .changes import Carried, Changes
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
        encoded = self.now.assigned.get(key)
        if encoded is None:
            encoded = self.stored(self.repository.table.feature_of(key).category)[key]
        return self._decoded(key, encoded)

    def _decoded(self, key: str, raw: bytes) -> Any:
        """:raises KeyError: it cannot be read."""
        try:
            return decode(raw)
        except UnreadableValue:
            self._note_unreadable(key)
            raise KeyError(key) from None

    def _note_unreadable(self, key: str) -> None:
        # One damaged value is no reason to fail a page: it reads as absent, and writing it again heals it.
        self.repository.recorder.count("unreadable_values")
        log.warning("session key %r holds a value that cannot be read; it counts as absent", key)

    def before_changes(self, key: str) -> Any:
        """The value of a key of auth without what was changed inside of it since it was assigned or read."""
        encoded = self.now.assigned.get(key) or self.now.saved.get(key) or self.stored(AUTH).get(key)
        return decode(encoded) if encoded else None

    def present_keys(self) -> list[str]:
        return list(self._present())

    def _present(self) -> dict[str, bytes | None]:
        """The keys that have a value, each with its encoding; None: it is neither stored nor assigned."""
        changes, table = self.now, self.repository.table
        present: dict[str, bytes | None] = {}
        for name in table.categories:
            present.update(self.stored(name))
        for key in changes.increments:
            present.setdefault(key)
        present.update(changes.assigned)
        for key in changes.saved:
            present.setdefault(key)
        for key in changes.deleted:
            present.pop(key, None)
        present.pop(AUTHENTICATED_AT, None)
        return present if table.claims_all else {key: raw for key, raw in present.items() if key in table}

    def readable_keys(self) -> list[str]:
        """Those whose value can be read; all of them are, now."""
        present, values = self._present(), self.now.values
        for key, raw in present.items():
            if key not in values and raw is not None:
                try:
                    values[key] = decode(raw)
                except UnreadableValue:
                    self._note_unreadable(key)
        return list(filter(values.__contains__, present))

    def _incomplete(self, categories: Collection[str]) -> tuple[str, ...]:
        """Of the categories that are taken along to another id, those that this request may not know as a whole: in an
        outage some of it is not shown, or would not be kept."""
        if self.ids.identity.minted is not None:  # nothing is stored under that id yet
            return tuple(name for name in self.ids.identity.carries if name in categories)
        loaded = self.load() if categories else None
        if (
            loaded is None
            or self.ids.origin is None
            or loaded.shadow
            or (self.ids.scope.level == 0 and not loaded.gaps)
        ):
            return ()
        return tuple(name for name in categories if name != AUTH or self.kind != SIGNED_IN)

    def hides_some(self, categories: Collection[str]) -> bool:
        """Whether there is data of some categories that this request is not shown in an outage, or may be."""
        loaded = self.load()
        gaps = [(name, gap) for name, gap in loaded.gaps.items() if name in categories]
        return any(gap.whole or loaded.beneath.get(name, NO_COPY).fields for name, gap in gaps)

    def carry(self, categories: Collection[str], features: Collection[str] = ()) -> Carried:
        """The present data of some categories, and of some features. Defaults shown in an outage are not data."""
        features = [name for name in features if name in self.repository.table.features]
        if not (categories or features):
            return {}
        now, feature_of = self.now, self.repository.table.feature_of
        ghosts = self.load().defaulted - now.assigned.keys()
        carried = {}
        for key in self.present_keys():
            feature = feature_of(key)
            is_taken = feature.name != CSRF_FEATURE and (feature.category in categories or feature.name in features)
            encoded = now.carry(key, self.stored(feature.category).get(key)) if is_taken else None
            if encoded is not None and key not in ghosts:
                carried[key] = encoded
        return carried

    def restart(self, kind: str | None, categories: Collection[str], also: Carried = NO_FIELDS) -> None:
        """Begin anew under another id (of `kind`), or under none, with the present data of some categories. Where that
        may not be known as a whole the journal brings it to the other id, and what this request changes comes behind.

        :param also: other data that is to be stored there.
        """
        incomplete = self._incomplete(categories) if kind else ()
        carried = self.carry([name for name in categories if name not in incomplete])
        for name in incomplete:
            self.stored(name)  # what is loaded on demand cannot be later on
        before = self.loaded
        # Of a session that is dead its anonymous shadow is gone on with.
        is_in_shadow = self.ids.target is self.ids.origin and before is not None and before.shadow
        verdict = Verdict.DEAD if kind is None and is_in_shadow else Verdict.ANONYMOUS
        self.now.restart({**carried, **also}, incomplete)
        self.loaded = Loaded(verdict, now_ms=before.now_ms if before else 0)
        if before is not None:
            self.loaded.keep_from(before, incomplete)
        self.ids.identity.restart(incomplete, wipes=kind is None)
        if kind:
            self.ids.mint(kind)
        else:
            self.context.on_new_id()

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

    def load_anew(self, origin: SessionId) -> Loaded:
        """Ask the database what it says of the session, whatever was read before."""
        before = self.loaded
        if before is not None:
            self.now.forget_read(AUTH, self.stored)
        loaded = self.repository.load(origin, self.ids.scope, self.ids.life, fresh=True)
        if before is not None and before.shadow == loaded.shadow:
            # What was read of other categories stays as it was read: changes are found by comparing with it.
            loaded.keep_from(before, before.fields.keys() - {AUTH})
        elif before is not None:
            self.now.forget_read(None, self.stored)
        self.loaded = loaded
        return loaded

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
