"""What of a session goes along to another id, at a sign-in, a sign-out or a new id for the same session."""

from __future__ import annotations

from collections.abc import Collection

from ..policy.categories import AUTH, CSRF_FEATURE
from ..policy.ids import SIGNED_IN
from ..policy.records import NO_COPY, NO_FIELDS, Loaded, Verdict
from .changes import Carried
from .contents import present
from .work import Work


def carry(work: Work, categories: Collection[str], features: Collection[str] = ()) -> Carried:
    """The present data of some categories, and of some features. Defaults shown in an outage are not data."""
    features = [name for name in features if name in work.repository.table.features]
    if not (categories or features):
        return {}
    now, feature_of = work.now, work.repository.table.feature_of
    ghosts = work.load().defaulted - now.assigned.keys()
    carried = {}
    for key in present(work):
        feature = feature_of(key)
        is_taken = feature.name != CSRF_FEATURE and (feature.category in categories or feature.name in features)
        encoded = now.carry(key, work.stored(feature.category).get(key)) if is_taken else None
        if encoded is not None and key not in ghosts:
            carried[key] = encoded
    return carried


def hides_some(work: Work, categories: Collection[str]) -> bool:
    """Whether there is data of some categories that this request is not shown in an outage, or may be."""
    loaded = work.load()
    gaps = [(name, gap) for name, gap in loaded.gaps.items() if name in categories]
    return any(gap.whole or loaded.beneath.get(name, NO_COPY).fields for name, gap in gaps)


def restart(work: Work, kind: str | None, categories: Collection[str], also: Carried = NO_FIELDS) -> None:
    """Begin anew under another id (of `kind`), or under none, with the present data of some categories. Where that
    may not be known as a whole the journal brings it to the other id, and what this request changes comes behind.

    :param also: other data that is to be stored there.
    """
    incomplete = _incomplete(work, categories) if kind else ()
    carried = carry(work, [name for name in categories if name not in incomplete])
    for name in incomplete:
        work.stored(name)  # what is loaded on demand cannot be later on
    before, ids = work.loaded, work.ids
    # Of a session that is dead its anonymous shadow is gone on with.
    is_in_shadow = ids.target is ids.origin and before is not None and before.shadow
    verdict = Verdict.DEAD if kind is None and is_in_shadow else Verdict.ANONYMOUS
    work.now.restart({**carried, **also}, incomplete)
    work.loaded = Loaded(verdict, now_ms=before.now_ms if before else 0)
    if before is not None:
        work.loaded.keep_from(before, incomplete)
    ids.identity.restart(incomplete, wipes=kind is None)
    if kind:
        ids.mint(kind)
    else:
        work.context.on_new_id()


def _incomplete(work: Work, categories: Collection[str]) -> tuple[str, ...]:
    """Of the categories that are taken along to another id, those that this request may not know as a whole: in an
    outage some of it is not shown, or would not be kept."""
    ids = work.ids
    if ids.identity.minted is not None:  # nothing is stored under that id yet
        return tuple(name for name in ids.identity.carries if name in categories)
    loaded = work.load() if categories else None
    if loaded is None or ids.origin is None or loaded.shadow or (ids.scope.level == 0 and not loaded.gaps):
        return ()
    return tuple(name for name in categories if name != AUTH or work.kind != SIGNED_IN)
