"""What the database says in this very request of the session that it speaks for."""

from __future__ import annotations

from ..policy.records import Verdict
from ..policy.values import AuthRow
from .work import Work


def fresh_row(work: Work) -> AuthRow | None:
    """Ask the database again.

    :return: the row of the session; None: it is not signed in, or only since this request.
    :raises GrantRefused: this request gave the session another id, and the database does not answer.
    """
    ids = work.ids
    if ids.identity.row:
        return _row_of_before(work)
    if ids.origin is None or ids.identity.is_restarted or ids.target is not ids.origin:
        return None
    return work.load_anew(ids.origin).row


def _row_of_before(work: Work) -> AuthRow | None:
    """Of a session that this request gave another id: what the database says of the one it has still."""
    before = work.ids.origin
    loaded = work.repository.load(before, work.ids.scope, work.ids.life, fresh=True) if before else None
    if loaded is not None and loaded.verdict is Verdict.UNVERIFIABLE:
        raise work.repository.refused()
    if loaded is None or loaded.row is None:
        work.came_too_late()
        return None
    return loaded.row
