"""The ledger of one list: what was acknowledged and what was read, checked against the end. Pure: no I/O, no clock.

As Jepsen's checkers for list-append do it: every number is appended once, so an entry that is missing, doubled or out
of order can be named. One request at a time uses a session: each read began after all that was acknowledged before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

REPORT_LAG = 5.0
"""Seconds after which the report about a value that has given way is written, at most: its process may be stopped
between the two."""


@dataclass
class Life:
    """One list with its counter and texts: from its beginning until it is cleared, or its session ends.

    :ivar acknowledged: entries whose answer said that the feature was available.
    :ivar firm: of those, the ones acknowledged at level 0.
    :ivar read_back: entries that a later answer has shown.
    :ivar possible: entries without such an answer: they may be there or not.
    :ivar older: how often an answer that called the feature available lacked what an earlier one had shown.
    :ivar lacked: what the first of those answers lacked.
    :ivar sessions: the beginnings of the digests under which it was.
    :ivar shown_at: entry → when the last answer with it was asked for, monotonic seconds.
    :ivar gone_at: entry → when the first answer after that which called the feature available, and lacked it, came.
    """

    acknowledged: list[int] = field(default_factory=list)
    firm: set[int] = field(default_factory=set)
    read_back: set[int] = field(default_factory=set)
    possible: set[int] = field(default_factory=set)
    older: int = 0
    lacked: set[int] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    shown_at: dict[int, float] = field(default_factory=dict)
    gone_at: dict[int, float] = field(default_factory=dict)
    counted: int = 0
    perhaps_counted: int = 0
    #: The texts that the blind key may have; None: none.
    texts: set[str | None] = field(default_factory=lambda: {None})
    #: Likewise of the key of priority medium.
    themes: set[str | None] = field(default_factory=lambda: {None})

    @property
    def entries(self) -> set[int]:
        """Return every number that was ever sent."""
        return {*self.acknowledged, *self.possible}

    @property
    def missing(self) -> set[int]:
        """Return what the last answer that called the feature available lacked, of what earlier ones had shown."""
        return self.read_back & self.gone_at.keys()

    def appended(self, entry: int, shown: Mapping[str, Any] | None) -> None:
        """Note the answer to an append; None: there was none, or none that promises to last."""
        if shown is None:
            self.possible.add(entry)
            return
        self.acknowledged.append(entry)
        if shown["level"] == 0:
            self.firm.add(entry)
        self._saw(shown["list"][:-1], shown)
        self.shown_at[entry] = shown["began"]

    def saw(self, shown: Mapping[str, Any]) -> None:
        """Note an answer that called the feature available."""
        self._saw(shown["list"], shown)

    def _saw(self, entries: Sequence[int], shown: Mapping[str, Any]) -> None:
        for entry in self.shown_at.keys() - set(entries):
            self.gone_at.setdefault(entry, shown["ended"])
        seen = self.entries.intersection(entries)
        for entry in seen:
            self.shown_at[entry] = shown["began"]
            self.gone_at.pop(entry, None)
        if missing := self.missing:
            self.older += 1
            self.lacked = self.lacked or missing
        self.read_back |= seen

    def reported(self, at: Collection[float]) -> set[int]:
        """Return the entries that are gone with a value of which the package said so: a report came after the last
        answer that showed the entry, and before one that lacked it.

        :param at: when it was said of this list that a value gave way, or was dropped, monotonic seconds. A value has
            all that was appended since the one from which it was made: of its entries each may be gone.
        """
        return {
            entry
            for entry, shown in self.shown_at.items()
            if any(shown <= each <= self.gone_at.get(entry, each) + REPORT_LAG for each in at)
        }

    def added(self, shown: Mapping[str, Any] | None) -> None:
        """Note the answer to an increment; None: there was none, or none that promises to last."""
        if shown is None:
            self.perhaps_counted += 1
        else:
            self.counted += 1

    def set_text(self, text: str, shown: Mapping[str, Any] | None) -> None:
        """Note the answer to a blind write; None: there was none, or none that promises to last."""
        self.texts = {*self.texts, text} if shown is None else {text}

    def set_theme(self, theme: str) -> None:
        """Note that a key of priority medium was set; it lasts if a later answer at level 0 shows it."""
        self.themes.add(theme)

    def saw_theme(self, theme: str | None) -> None:
        """Note the key of priority medium, as an answer at level 0 has shown it."""
        if theme in self.themes:
            self.themes = {theme}

    def is_uncertain(self) -> None:
        """Note that a wipe had no answer: all that there was may be there or not."""
        self.possible |= set(self.acknowledged)
        self.acknowledged, self.firm, self.read_back = [], set(), set()
        self.perhaps_counted += self.counted
        self.counted = 0
        self.texts = {*self.texts, None}
        self.themes = {*self.themes, None}

    def verify(self, shown: Mapping[str, Any], reported: Collection[int] = ()) -> Wrongs:
        """Return what is wrong with the content that a worker shows at the end, at level 0.

        :param reported: entries that may be missing.
        """
        entries: list[int] = shown["list"]
        missing = set(self.acknowledged) | self.read_back
        missing -= {*entries, *reported}
        return Wrongs(
            lost=len(missing - self.read_back - self.firm),
            firm_lost=len(missing & self.firm - self.read_back),
            destroyed=len(missing & self.read_back),
            foreign=len(set(entries) - self.entries),
            twice=len(entries) - len(set(entries)),
            disordered=sum(later < earlier for earlier, later in pairwise(entries)),
            increments_lost=max(0, self.counted - shown["count"]),
            increments_twice=max(0, shown["count"] - self.counted - self.perhaps_counted),
            texts_lost=int(shown["blind"] not in self.texts),
            themes_lost=int(shown["theme"] not in self.themes),
        )


@dataclass
class Wrongs:
    """The number of faults of each kind; of one list, or of all.

    :ivar lost: acknowledged entries that are not there and that no answer had shown.
    :ivar firm_lost: the same, acknowledged at level 0.
    :ivar destroyed: entries that are not there and had been shown.
    :ivar foreign: entries of another list.
    """

    lost: int = 0
    firm_lost: int = 0
    destroyed: int = 0
    foreign: int = 0
    twice: int = 0
    disordered: int = 0
    increments_lost: int = 0
    increments_twice: int = 0
    texts_lost: int = 0
    themes_lost: int = 0

    @property
    def lacks(self) -> bool:
        """Return whether anything that was acknowledged is not there."""
        return any((self.lost, self.firm_lost, self.destroyed, self.increments_lost, self.texts_lost))

    def but_for(self, *, data: bool, theme: bool) -> Wrongs:
        """Return what is wrong beside a loss that the package has counted.

        :param data: of the list, the counter and the blind key.
        :param theme: of the key of priority medium.
        """
        left = replace(self, themes_lost=0) if theme else self
        return replace(left, lost=0, firm_lost=0, destroyed=0, increments_lost=0, texts_lost=0) if data else left

    def excused(self, reported: int) -> Wrongs:
        """Return what is wrong beside so many writes that were reported as not kept, of this very session. That excuses
        entries that no answer had shown, and texts; how many additions it was is not said."""
        left = replace(self, increments_lost=0 if reported else self.increments_lost)
        for name in ("lost", "firm_lost", "texts_lost"):
            covered = min(reported, getattr(left, name))
            left, reported = replace(left, **{name: getattr(left, name) - covered}), reported - covered
        return left

    def __iadd__(self, other: Wrongs) -> Wrongs:
        for name, number in vars(other).items():
            setattr(self, name, getattr(self, name) + number)
        return self
