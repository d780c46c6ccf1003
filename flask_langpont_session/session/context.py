"""The part of the extension that an application's sessions use, so that they need not know Flask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..policy.categories import KeyKind, kinds_of
from ..policy.devices import NO_DEVICE, Device
from ..policy.ids import SessionId
from ..policy.leases import Life

if TYPE_CHECKING:
    from ..request.repository import SessionRepository
    from ..request.scope import RequestScope
    from .mapping import Session


class RememberCookie(NamedTuple):
    """Flask-Login's remember cookie: a sign-in that the request does not ask for.

    :param is_there: the request carries it.
    :param is_read: it is a GET, HEAD or OPTIONS: a page that a visitor may see as well.
    """

    is_there: bool = False
    is_read: bool = False


NO_COOKIE = RememberCookie()


@dataclass(frozen=True, slots=True)
class SessionContext:
    """The extension as the sessions of one application see it.

    :param cookie: reads the session id from a request's cookie; None: it has no good one.
    :param mint: makes a session id of a kind (``a``/``u``) with a permanent flag.
    :param life: the life of a session by its permanent flag.
    :param on_new_id: called when a new id replaced the old one (Flask-WTF's cached token must go).
    :param on_use: called with each key that is given a value.
    :param remember_cookie: says whether a request carries Flask-Login's.
    :param device: what is to be stored of the device that sends this request; asked at a sign-in.
    :param on_confirm: called when the user has given proof of being that user (Flask-Login takes the session for stale
        until it is told).
    :param is_outside: there is no browser that could be given another cookie, see :mod:`.outside`.
    :ivar kind_of: tells what becomes of a key.
    """

    repository: SessionRepository
    cookie: Callable[[Any], SessionId | None]
    mint: Callable[[str, bool], SessionId]
    life: Callable[[bool], Life]
    on_new_id: Callable[[], None]
    on_use: Callable[[str], None]
    remember_cookie: Callable[[Any], RememberCookie] = lambda request: NO_COOKIE
    device: Callable[[], Device] = lambda: NO_DEVICE
    on_confirm: Callable[[], None] = lambda: None
    is_outside: bool = False
    kind_of: Callable[[str], KeyKind] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind_of", kinds_of(self.repository.table))


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
