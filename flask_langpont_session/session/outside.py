"""Sessions outside their requests: a job, a command or an admin page reads and changes one by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..exceptions import LangPontSessionError, OutsideRequest, SessionNotFound
from ..policy.ids import SessionId
from ..policy.loaded import Verdict
from ..request.lookup import find
from .context import NO_COOKIE, SessionContext
from .mapping import Session


@contextmanager
def edited(context: SessionContext, digest: str) -> Iterator[Session]:
    """Yield a session as a request of its browser would see it, and store what was changed; nothing after an exception.

    :param context: of the application's sessions.
    :raises SessionNotFound: there is no such session, or it has ended.
    :raises LangPontSessionError: no store can say at the moment.
    :raises OutsideRequest: a change needs the browser.
    """
    scope = context.repository.begin(digest=digest)
    sid = find(context.repository.backend, digest, scope, context.life)
    if sid is None:
        raise SessionNotFound("no store has a session with this digest")
    # Looking at a session from outside is no use of it: a job over all of them would keep every one alive for ever.
    life = replace(context.life(sid.permanent), is_use=False)
    session = Session(
        replace(
            context,
            mint=_refuse,
            life=lambda permanent: life,
            on_new_id=lambda: None,
            remember_cookie=lambda request: NO_COOKIE,
            on_confirm=lambda: None,
            is_outside=True,
        ),
        None,
    )
    session.origin, session.seen = sid, None  # not on the straight line: that remembers sessions by their life
    work = session.work
    work.way = scope.to(sid.digest)
    if work.unverified:
        raise LangPontSessionError("no store can say at the moment whether this session is signed in; try again later")
    _require_life(work.load().verdict)
    yield session
    if work.must_save_permanence:
        raise OutsideRequest("become permanent, or cease to be")
    session.flush()
    work.is_closed = session.is_closed = True
    _require_life(work.load().verdict)


def _require_life(verdict: Verdict) -> None:
    if verdict is Verdict.DEAD:
        raise SessionNotFound("the session has ended; nothing of it is changed any more")


def _refuse(kind: str, permanent: bool) -> SessionId:
    raise OutsideRequest("get an id")
