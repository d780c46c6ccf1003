"""The work of a save, and its outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .changes import CategoryChange
from .devices import NO_DEVICE, Device
from .ids import ANONYMOUS, SessionId
from .leases import Life
from .levels import Kept
from .loaded import Loaded
from .rows import AuthRow


@dataclass(slots=True)
class Plan:
    """Everything that one save has to do.

    :param origin: the id whose records exist.
    :param target: the id the data is for; the same, a minted one, or None (nothing is kept).
    :param level: at which the request was when it was done with its work: what it was told holds, and is what the table
        is asked for, also where a store fails in the save itself.
    :param changes: category → what changed. For a minted target they are complete, carried data included, but for
        the categories in `carries`.
    :param ends: the origin is to be revoked.
    :param renames: the target is the origin's session under another id; it must still live. The origin's row, from
        which the carried data was read.
    :param grants: an auth change among `changes` needs the arbiter.
    :param user: the user of a sign-in, where the auth data that is stored names none.
    :param confirms: of one that `renames`: its user has just given proof of being that user.
    :param device: what is stored beside a session that begins.
    :param permanence_changed: the life of the SQL row is to be set anew.
    :param carries: categories of the origin that may not have been read as a whole: all that there is of them goes to
        the target as soon as it can be read.
    :param sent: what became of a try on the straight line, see :class:`.plain_changes.Sent`; None: there was none.
    :param kept: category → where what was to be saved of it is, as far as the save has come; what is not in it is
        nowhere.
    """

    origin: SessionId | None
    target: SessionId | None
    life: Life
    level: int
    loaded: Loaded | None = None
    changes: dict[str, CategoryChange] = field(default_factory=dict)
    ends: bool = False
    renames: AuthRow | None = None
    grants: bool = False
    user: str | None = None
    confirms: bool = False
    device: Device = NO_DEVICE
    permanence_changed: bool = False
    carries: tuple[str, ...] = ()
    kept: dict[str, Kept] = field(default_factory=dict)
    sent: Any = None
    is_new: bool = field(init=False)
    """True if the target was minted in this request."""
    is_for_shadow: bool = field(init=False)
    """True if the target is known to be dead, so that only its anonymous shadow can be written."""

    def __post_init__(self) -> None:
        self.is_new = self.target is not None and self.target is not self.origin
        self.is_for_shadow = self.loaded is not None and self.loaded.shadow and not self.is_new

    def note_kept(self, names: Iterable[str], place: Kept) -> None:
        """Note where the data of some categories is. Where parts of one are in several places, the worst counts."""
        for name in names:
            self.kept[name] = Kept.worst([place, self.kept[name]]) or place if name in self.kept else place

    @property
    def leaves(self) -> bool:
        """Return whether an anonymous session gives up its id for another one. At a sign-in its data runs out."""
        if not self.is_new or self.origin is None or self.target is None:
            return False
        return self.origin.kind == self.target.kind == ANONYMOUS and not self.ends


class Note(NamedTuple):
    """The mark by which a session that was taken over is known, see :mod:`~flask_langpont_session.adoption.adopter`.

    :param digest: of what tells it from all others.
    :param life_ms: how long it may be of use yet, at most.
    """

    digest: str
    life_ms: int


class Saved(NamedTuple):
    """The outcome of a save.

    :param stored: something that a later request can find was written somewhere.
    :param durable: the database knows of the revocation that was part of it (True if there was none).
    :param ended: the session is over, whatever the request had read: its id is not to be sent.
    :param row: as the database has it since; None: it was not written.
    """

    stored: bool
    durable: bool = True
    ended: bool = False
    row: AuthRow | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The outcome of logging a user out everywhere.

    :param durable: the database knows it; else this host keeps it and tells the database later.
    :param sessions: how many living sessions were ended, as far as is known: while the database does not answer, those
        that this worker knows.
    """

    durable: bool
    sessions: int
