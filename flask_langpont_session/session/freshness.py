"""Asking the database anew, within one request, about the request's session."""

from __future__ import annotations

from ..policy.categories import AUTH
from ..policy.ids import SessionId
from ..policy.loaded import Loaded, Verdict
from ..policy.rows import AuthRow
from .work import Work


def fresh_row(work: Work) -> AuthRow | None:
    """Ask the database again.

    :return: the row of the session; None: it is not signed in, or only since this request.
    :raises GrantRefused: this request gave the session another id, and the database does not answer.
    """
    if work.renamed_row:
        return _row_of_before(work)
    if work.origin is None or work.is_restarted or work.target is not work.origin:
        return None
    return _load_anew(work, work.origin).row


def _load_anew(work: Work, origin: SessionId) -> Loaded:
    """Read the session from the database again, whatever was read before."""
    before = work.loaded
    if before is not None:
        work.now.forget_read(AUTH, work.stored_value)
    loaded = work.repository.reads.load(origin, work.scope, work.life, fresh=True)
    if before is not None and before.shadow == loaded.shadow:
        # What was read of other categories stays as it was read: changes are found by comparing with it.
        loaded.keep_from(before, before.categories.keys() - {AUTH})
    elif before is not None:
        work.now.forget_read(None, work.stored_value)
    work.loaded = loaded
    return loaded


def _row_of_before(work: Work) -> AuthRow | None:
    """Return what the database says of the id that the session still has there, though this request gave it another
    id."""
    before = work.origin
    loaded = work.repository.reads.load(before, work.scope, work.life, fresh=True) if before else None
    if loaded is not None and loaded.verdict is Verdict.UNVERIFIABLE:
        raise work.repository.saves.row_writes.refused()
    if loaded is None or loaded.row is None:
        work.came_too_late()
        return None
    return loaded.row
