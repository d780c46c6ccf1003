"""The ids of one request's session: a state machine, with what its cookie says and what the request chose."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from ..policy.ids import SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.rows import AuthRow
from .context import Adopted, OldSession, SessionContext

if TYPE_CHECKING:
    from ..request.scope import RequestScope


class IdState(Enum):
    """States: under which id the session's data belongs."""

    KEPT = "kept"  # the id that came with the request; none, if none came
    MINTED = "minted"  # an id made in this request
    RENAMED = "renamed"  # an id made in this request, for the same signed-in session: its row goes along
    ENDED = "ended"  # none: the session was signed out
    REPLACED = "replaced"  # an id made in this request, after the session was signed out


class Event(Enum):
    """Events: what happens to the session's id."""

    MINT = "mint"  # another id: a sign-in, a visitor's first data, or what a sign-out leaves
    RENAME = "rename"  # the id that was just made is for the same session
    END = "end"  # a sign-out
    DROP = "drop"  # the id that was made is given up: a sign-out, a refused grant, a session that ended meanwhile
    SAVE = "save"  # a save is done, and there is nothing to bring along any more
    MOVE = "move"  # a save has stored the session under its new id, or ended it: it goes on as if it had come so


TRANSITIONS: Mapping[tuple[IdState, Event], IdState] = {
    (IdState.KEPT, Event.MINT): IdState.MINTED,
    (IdState.MINTED, Event.MINT): IdState.MINTED,
    (IdState.RENAMED, Event.MINT): IdState.MINTED,
    (IdState.ENDED, Event.MINT): IdState.REPLACED,
    (IdState.REPLACED, Event.MINT): IdState.REPLACED,
    (IdState.MINTED, Event.RENAME): IdState.RENAMED,
    **{(state, Event.END): IdState.ENDED for state in IdState},
    (IdState.KEPT, Event.DROP): IdState.KEPT,
    (IdState.MINTED, Event.DROP): IdState.KEPT,
    (IdState.RENAMED, Event.DROP): IdState.KEPT,
    (IdState.ENDED, Event.DROP): IdState.ENDED,
    (IdState.REPLACED, Event.DROP): IdState.ENDED,
    (IdState.KEPT, Event.SAVE): IdState.KEPT,
    (IdState.MINTED, Event.SAVE): IdState.MINTED,
    (IdState.RENAMED, Event.SAVE): IdState.MINTED,
    (IdState.ENDED, Event.SAVE): IdState.ENDED,
    (IdState.REPLACED, Event.SAVE): IdState.REPLACED,
    (IdState.MINTED, Event.MOVE): IdState.KEPT,
    (IdState.ENDED, Event.MOVE): IdState.KEPT,
    (IdState.REPLACED, Event.MOVE): IdState.KEPT,
}
"""State and event → the state that follows. A pair that is not here cannot happen: only an id that was just made is
renamed, and a save is done before it moves."""

_SIGNED_OUT = IdState.ENDED, IdState.REPLACED  # no set: in two members it is looked for without asking for a hash


class Identity:
    """The id of one request's session. Decides nothing and reads nothing.

    :param origin: the id whose records the request works with: the one that came with it, if its signature is good;
        after a save under another id, that other id.
    :ivar state: see :data:`TRANSITIONS`.
    :ivar minted: the id that was made, in the states that have one.
    :ivar renamed_row: the origin's row, in the state RENAMED.
    :ivar carries: categories of the origin that the journal brings to the minted id.
    :ivar is_restarted: what is stored under the origin is not this session's data any more.
    :ivar must_end: the save has to end the origin.
    :ivar must_wipe: the save has to empty the origin.
    :ivar came_with: where it has moved, the id that came with the request.
    """

    # How it begins. Of the class: most requests change none of it.
    state = IdState.KEPT
    minted: SessionId | None = None
    renamed_row: AuthRow | None = None
    carries: tuple[str, ...] = ()
    is_restarted = False
    must_end = False
    must_wipe = False
    has_moved = False
    came_with: SessionId | None = None
    _was_signed_out = False

    def __init__(self, origin: SessionId | None) -> None:
        self.origin = origin

    @property
    def target(self) -> SessionId | None:
        """Return the session id to which this request's data belongs."""
        return self.minted if self.minted is not None or self.state in _SIGNED_OUT else self.origin

    @property
    def made(self) -> SessionId | None:
        """Return the session id made in this request, if one was, also after the move to it."""
        return self.minted or (self.origin if self.has_moved else None)

    @property
    def cookies_id(self) -> SessionId | None:
        """Return the session id that came with the request."""
        return self.came_with if self.has_moved else self.origin

    @property
    def is_as_it_came(self) -> bool:
        """Return whether the session has the id and state that its cookie gave it."""
        return self.state is IdState.KEPT and not self.has_moved

    @property
    def is_untouched(self) -> bool:
        """Return whether :attr:`is_as_it_came`, and a save has nothing to do about the id."""
        is_kept = self.state is IdState.KEPT
        return is_kept and not (self.has_moved or self.must_end or self.must_wipe or self.is_restarted)

    @property
    def is_signed_out(self) -> bool:
        """Return whether the session was signed out since it came, or moved."""
        return self.state in _SIGNED_OUT

    @property
    def was_signed_out(self) -> bool:
        """Return whether this request signed the session out at any time."""
        return self.is_signed_out or self._was_signed_out

    @property
    def signs_in(self) -> bool:
        """Return whether the id made in this request is of a signed-in session."""
        return self.minted is not None and self.minted.kind == SIGNED_IN

    def mint(self, sid: SessionId) -> None:
        """Give the session an id that was just made."""
        self._to(Event.MINT)
        self.minted, self.renamed_row = sid, None

    def rename(self, row: AuthRow) -> None:
        """Note that the id that was just made is for the same session, with this row."""
        self._to(Event.RENAME)
        self.renamed_row = row

    def end(self, *, is_over: bool) -> None:
        """Sign the session out: the save has to end the origin.

        :param is_over: it is already, as the request has learned; the origin's shadow is gone on with.
        """
        self.must_end = True
        if not is_over:
            self._to(Event.END)

    def end_elsewhere(self) -> None:
        """Sign the session out, which came by another cookie than ours: nothing of ours has to end."""
        self._to(Event.END)

    def restart(self, carries: tuple[str, ...], *, wipes: bool) -> None:
        """Begin with new data: of the id that is made next, or of the origin.

        :param carries: categories of the origin that the journal brings along.
        :param wipes: what is stored under the origin goes.
        """
        self.drop()
        self.carries, self.is_restarted, self.must_wipe = carries, True, wipes

    def drop(self) -> None:
        """Give up the id that was made."""
        self._to(Event.DROP)
        self.minted = self.renamed_row = None

    def drop_all(self) -> None:
        """Give up everything that was to be saved: the session is as it is stored."""
        self.drop()
        self.carries = ()
        self.must_end = self.must_wipe = self.is_restarted = False

    def mark_saved(self) -> None:
        """Note that a save is done."""
        self._to(Event.SAVE)
        self.renamed_row, self.carries = None, ()
        self.must_end = self.must_wipe = False

    def move(self) -> None:
        """Go on as if the request had come with the id that was made, or without one."""
        if not self.has_moved:
            self.came_with, self.has_moved = self.origin, True
        self._was_signed_out = self.was_signed_out
        self._to(Event.MOVE)
        self.origin, self.minted, self.is_restarted = self.minted, None, False

    def stand_in(self, sid: SessionId) -> None:
        """Go on as if the request had come with the id of an old session that was taken over."""
        self.origin = self.came_with = sid
        self.has_moved = True

    def go_back(self) -> None:
        """Go back to the id that came, because the session ended meanwhile. The row stays: the response may show what
        it said."""
        self._to(Event.DROP)
        self.minted = None
        self.has_moved, self.came_with = False, None

    def _to(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]


class Ids(Identity):
    """The ids of one request's session, what its cookie says, and the request's way through the stores.

    :ivar adopted: the id of an old session that was taken over in this request.
    :ivar put_off: what became of one that could not be, because a store does not answer.
    :ivar chosen_permanent: what this request said of it; `saved_permanent`: what the last save stored. None: nothing.
    :ivar wants_cookie: a token of the id was given out, so that the browser must have the cookie that goes with it.
    :ivar was_stored: a save has stored something.
    :ivar way: the request's way through the stores, if it is on it already.
    """

    adopted: SessionId | None = None
    put_off: Adopted | None = None
    chosen_permanent: bool | None = None
    saved_permanent: bool | None = None
    wants_cookie = False
    was_stored = False
    way: RequestScope | None = None

    context: SessionContext

    def take_over(self, old: OldSession) -> None:
        """Go on as if the request had come with the id of an old session, if that can be taken over."""
        adopted = old.take_over()
        if adopted is None:
            return
        if adopted.sid is None:
            self.way, self.put_off = adopted.scope, adopted
        else:
            self.way = adopted.scope.to(adopted.sid.digest)
            self.adopted = adopted.sid
            self.stand_in(adopted.sid)

    def give_id(self, kind: str) -> SessionId:
        """Make a session id of one kind, to which this request's data belongs from here on."""
        sid = self.context.repository.placed(lambda: self.context.mint(kind, self.permanent))
        self.mint(sid)
        self.wants_cookie = False  # a token that was given out is of the id before
        self.context.on_new_id()
        return sid

    @property
    def scope(self) -> RequestScope:
        """Return this request's way through the stores."""
        if self.way is None:
            self.way = self.context.repository.begin(digest=self.origin.digest if self.origin else None)
        return self.way

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
        return self.origin is not None and self.origin.permanent

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

    @property
    def is_worth_a_cookie(self) -> bool:
        """Return whether the id that was made leads anywhere: to stored data, to a user, or to a CSRF token that was
        given out."""
        signs_in = self.made is not None and self.made.kind == SIGNED_IN
        return self.was_stored or self.adopted is not None or self.wants_cookie or signs_in

    @property
    def signed_in_anew(self) -> bool:
        """Return whether this request signed a user in, other than by taking over an old session."""
        made = self.made
        return made is not None and made.kind == SIGNED_IN and made is not self.adopted


def drawing() -> str:
    """Return the transitions as a Mermaid state diagram, for the docs, without those that change nothing."""
    lines = [
        f"    {before.value} --> {after.value}: {event.value}"
        for (before, event), after in TRANSITIONS.items()
        if before is not after
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> kept", *lines])
