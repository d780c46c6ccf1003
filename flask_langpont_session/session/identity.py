"""The id of a request's session as a state machine, which decides nothing and reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from ..policy.ids import SIGNED_IN, SessionId
from ..policy.rows import AuthRow

NOT_READ: Any = object()
"""Which id came with the request was not asked yet."""


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
"""What follows. A pair that is not here cannot happen: only an id that was just made is renamed, and a save is
done before it moves."""

_SIGNED_OUT = IdState.ENDED, IdState.REPLACED  # no set: in two members it is looked for without asking for a hash


class Identity:
    """The id of one request's session.

    :ivar state: see :data:`TRANSITIONS`.
    :ivar origin: the id whose records the request works with: the one that came, or was moved to; `NOT_READ` at first.
    :ivar minted: the id that was made, in the states that have one.
    :ivar row: the origin's row, in the state RENAMED.
    :ivar carries: categories of the origin that the journal brings to the minted id.
    :ivar is_restarted: what is stored under the origin is not this session's data any more.
    :ivar must_end: the save has to end the origin.
    :ivar must_wipe: the save has to empty the origin.
    :ivar came_with: where it has moved, the id that came with the request.
    """

    # How it begins. Of the class: most requests change none of it, and a session is made for each.
    state = IdState.KEPT
    origin: SessionId | None = NOT_READ
    minted: SessionId | None = None
    row: AuthRow | None = None
    carries: tuple[str, ...] = ()
    is_restarted = False
    must_end = False
    must_wipe = False
    has_moved = False
    came_with: SessionId | None = None
    _was_signed_out = False

    @property
    def is_as_it_came(self) -> bool:
        """Return whether the session has the id and state that its cookie gave it."""
        return self.state is IdState.KEPT and not self.has_moved

    @property
    def is_untouched(self) -> bool:
        """Return whether :attr:`is_as_it_came`, and a save has nothing to do about the id."""
        return self.is_as_it_came and not (self.must_end or self.must_wipe or self.is_restarted)

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
        self.minted, self.row = sid, None

    def rename(self, row: AuthRow) -> None:
        """Note that the id that was just made is for the same session, with this row."""
        self._to(Event.RENAME)
        self.row = row

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
        self.minted = self.row = None

    def take_back(self) -> None:
        """Give up everything that was to be saved: the session is as it is stored."""
        self.drop()
        self.carries = ()
        self.must_end = self.must_wipe = self.is_restarted = False

    def mark_saved(self) -> None:
        """Note that a save is done."""
        self._to(Event.SAVE)
        self.row, self.carries = None, ()
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

    def came_too_late(self) -> None:
        """Go back to the id that came, because the session ended meanwhile. The row stays: the response may show what
        it said."""
        self._to(Event.DROP)
        self.minted = None
        self.has_moved, self.came_with = False, None

    def _to(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]


def drawing() -> str:
    """Return the transitions as a Mermaid state diagram, for the docs, without those that change nothing."""
    lines = [
        f"    {before.value} --> {after.value}: {event.value}"
        for (before, event), after in TRANSITIONS.items()
        if before is not after
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> kept", *lines])
