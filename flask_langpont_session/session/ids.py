"""Under which id a request's session was found, under which it is saved, and how long it lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..policy.devices import NO_DEVICE, Device
from ..policy.ids import SessionId
from ..policy.records import Life
from ..request.repository import SessionRepository
from ..request.scope import RequestScope
from ..support.lazy import lazy
from .changes import SessionLimits
from .identity import NOT_READ, Identity
from .key_kinds import KeyKind, kinds_of

if TYPE_CHECKING:
    from .mapping import Session


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the extension gives the sessions of an application, instead of them knowing Flask.

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
        limits = SessionLimits(settings.max_category_bytes, settings.max_fields, settings.max_depth)
        object.__setattr__(self, "kind_of", kinds_of(settings.table, settings.transient_key_patterns))
        object.__setattr__(self, "limits", limits)


class Adopted(NamedTuple):
    """What became of an old session that came with a request.

    :param sid: under which it goes on; None: it cannot be taken over yet, because a store does not answer.
    :param scope: the request's way through the stores, which may have used up some of its time.
    :param token: the CSRF token that forms of the old session have, if one is known.
    """

    sid: SessionId | None
    scope: RequestScope
    token: str | None = None


class OldSession(Protocol):
    """What a request brings along of sessions that the application had before."""

    def take_over(self) -> Adopted | None:
        """Have it go on under an id of ours. Asked once, of a request without one. None: there is nothing to do so."""

    def ends_with(self, session: Session, is_gone: bool) -> bool:
        """Have it be over, if this request ended what it went on as. Whether its cookies are to go.

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
        """The session id whose records this request works with: the one that came with it, if its signature is good;
        after a save under another id, that one."""
        identity = self.identity
        if identity.origin is NOT_READ:
            identity.origin = self._cookie()
            if identity.origin is None and self.old is not None and not self.is_closed:
                self.take_over(self.old.take_over())
        return identity.origin

    def take_over(self, adopted: Adopted | None) -> None:
        """From here on it is as if the request had come with the id of the old session that was taken over."""
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
        """The session id this request's data belongs to."""
        identity = self.identity
        if identity.minted is not None or identity.is_signed_out:
            return identity.minted
        return self.origin

    @property
    def minted(self) -> SessionId | None:
        """The session id made in this request, if one was."""
        identity = self.identity
        return identity.minted or (identity.origin if identity.has_moved else None)

    @property
    def cookies_id(self) -> SessionId | None:
        """The session id that came with the request."""
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
        """How long this session lives."""
        return self.context.life(self.permanent)

    @property
    def permanent(self) -> bool:
        """Whether the browser keeps the session when it is closed; stands in the cookie."""
        if self.chosen_permanent is not None:
            return self.chosen_permanent
        origin = self.origin
        return origin is not None and origin.permanent

    @property
    def permanence_changed(self) -> bool:
        """Whether this request made the session permanent, or not permanent any more."""
        if self.chosen_permanent is None:
            return False
        came_with = self.cookies_id
        return self.chosen_permanent != bool(came_with and came_with.permanent)

    @property
    def must_save_permanence(self) -> bool:
        if self.saved_permanent is None:
            return self.chosen_permanent is not None and self.permanence_changed
        return self.permanent != self.saved_permanent
