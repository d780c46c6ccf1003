"""Records of categories as ``record.lua`` has them, in Python.

That both do the same is shown by ``test_real_stores.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flask_langpont_session.policy.values import CategoryChange, CategoryCopy, Operation
from flask_langpont_session.stores.redis.records import (
    ABSENT,
    SINCE,
    Limits,
    MergeStep,
    Outcome,
    addition_id,
)

WIPED, RESTORED, PART, BEGUN, TRIMMED = "*wiped*", "*copied", "*part**", "*begun*", "-------"
KNOWS_OF_OLDER = (WIPED, RESTORED, TRIMMED)
LATELY_BYTES, LATELY_SECONDS, ADDITIONS = 400, 3_600, 6


@dataclass(frozen=True)
class Meta:
    """What ``@m`` says.

    :param additions: id and time in ms of the latest ones.
    :param lately: field → id, stamp and lag of its last write, the oldest first.
    """

    digest: str
    stamp: int = 0
    horizon: int = 0
    lag: int = 0
    author: str = ""
    bytes: int = 0
    count: int = 0
    additions: tuple[tuple[str, int], ...] = ()
    lately: tuple[tuple[str, tuple[str, int, int]], ...] = ()

    def __str__(self) -> str:
        additions = "".join(f"{token}{ms:013}" for token, ms in self.additions)
        lately = "".join(f"\1{name}\1{author}{stamp:016}{lag:06x}" for name, (author, stamp, lag) in self.lately)
        head = f"{self.digest}{self.stamp:016}{self.horizon:016}{self.lag:06x}"
        return f"{head}{self.author}{self.bytes:07x}{self.count:04x}{additions}{lately}"

    @classmethod
    def of(cls, text: str, digest: str) -> Meta:
        """What the ``@m`` of another record says, as that of the record of `digest`."""
        head, _, notes = text.partition("\1")
        lately = [(name, note) for name, note in zip(*[iter(notes.split("\1"))] * 2, strict=True)] if notes else []
        return cls(
            digest,
            int(head[8:24]),
            int(head[24:40]),
            int(head[40:46], 16),
            head[46:53],
            additions=additions_of(head[64:]),
            lately=tuple((name, (note[:7], int(note[7:23]), int(note[23:], 16))) for name, note in lately),
        )


def size_of(name: str, value: bytes) -> int:
    """What a field counts for the limit."""
    return len(name.encode()) + len(value)


def size_of_lately(lately: Iterable[str]) -> int:
    """How long the notes of these fields are."""
    return sum(len(name.encode()) + 2 + 29 for name in lately)


def additions_of(text: str) -> tuple[tuple[str, int], ...]:
    """The ids of additions and their moments, as ``@m`` and :attr:`CategoryCopy.additions` have them."""
    return tuple((text[at : at + 7], int(text[at + 7 : at + 20])) for at in range(0, len(text), 20))


class SimRecord:
    """One record while it is changed."""

    def __init__(self, digest: str, fields: Mapping[str, Any] | None, now_ms: int) -> None:
        meta = fields.get("@m") if fields else None
        self.is_own = isinstance(meta, Meta) and meta.digest == digest[:8]
        self.meta: Meta = meta if self.is_own and isinstance(meta, Meta) else Meta(digest[:8])
        self.old = {k: v for k, v in fields.items() if k != "@m"} if fields and self.is_own else {}
        self.stamp = max(self.meta.stamp + 1, now_ms * 1000)
        self.now_ms = now_ms
        self.horizon, self.lag, self.author = self.meta.horizon, self.meta.lag, self.meta.author
        self.additions = list(self.meta.additions)
        self.lately = dict(self.meta.lately)
        self.notes = self.is_own

    def adopt(self, meta: Meta) -> None:
        """From now on it knows what another one knew."""
        self.stamp = max(meta.stamp + 1, self.stamp)
        self.horizon, self.lag, self.author = meta.horizon, meta.lag, meta.author
        self.additions, self.lately = list(meta.additions), dict(meta.lately)

    def lag_of(self, acknowledged: int) -> int:
        """Milliseconds since something was acknowledged, as far as six hexadecimal digits go; 0: just now."""
        return max(0, min(0xFFFFFF, (self.stamp - acknowledged) // 1000)) if acknowledged else 0

    def put(self, name: str, value: bytes | None, write_id: str, acknowledged: int = 0) -> None:
        """Has a field this value from now on."""
        self.old.pop(name, None)
        if value is not None:
            self.old[name] = value
        if self.notes:
            if name in self.lately and self.lately[name][1] != self.stamp:  # of this write they are in order already
                del self.lately[name]
            self.lately[name] = write_id, self.stamp, self.lag_of(acknowledged)

    def wipe(self) -> None:
        """All fields are gone."""
        self.notes, self.old, self.lately = True, {}, {}
        self.horizon, self.lag, self.author = self.stamp, 0, WIPED

    def sum(self, name: str, by: int) -> bytes | None:
        """A field and a number together; None: that is no number of 18 digits."""
        now = self.old.get(name, b"0")
        if len(now.lstrip(b"-")) > 18 or not now.lstrip(b"-").isdigit() or len(str(int(now) + by).lstrip("-")) > 18:
            return None
        return b"%d" % (int(now) + by)

    def add(self, name: str, by: int, write_id: str) -> bool:
        """Add to a field. Whether it could be done."""
        total = self.sum(name, by)
        if total is not None:
            self.put(name, total, write_id)
        return total is not None

    def note_addition(self, token: str) -> None:
        """An addition was made."""
        self.additions = [*self.additions, (token, self.now_ms)][-ADDITIONS:]

    @property
    def bytes(self) -> int:
        """Of all fields."""
        return sum(size_of(*item) for item in self.old.items())

    def fits(self, limits: Limits) -> bool:
        """Whether it is within them."""
        return len(self.old) <= limits.fields and self.bytes <= limits.bytes

    def save(self, write_id: str) -> dict[str, Any]:
        """The fields as they are to be stored."""
        if not self.author:
            self.horizon, self.author = self.stamp, write_id
        while self.lately:
            name, (_, stamp, _) = next(iter(self.lately.items()))
            is_young = self.now_ms // 1000 - stamp // 1_000_000 < LATELY_SECONDS
            if size_of_lately(self.lately) <= LATELY_BYTES and is_young:
                break
            if stamp > self.horizon:
                author = TRIMMED if self.author in KNOWS_OF_OLDER else BEGUN
                self.horizon, self.lag, self.author = stamp, 0, author
            del self.lately[name]
        meta = Meta(
            self.meta.digest, self.stamp, self.horizon, self.lag, self.author, self.bytes, len(self.old),
            tuple(self.additions), tuple(self.lately.items()),
        )  # fmt: skip
        return {**self.old, "@m": meta}


def changed(record: SimRecord, change: CategoryChange, limits: Limits, write_id: str) -> str:
    """What ``write.lua`` does to one record. Its status."""
    if change.wipe:
        record.wipe()
    for key, value in change.sets.items():
        record.put(key, value, write_id)
    for key in change.deletes:
        record.put(key, None, write_id)
    for key, by in change.increments.items():
        if not record.add(key, by, write_id):
            return "no number"
    for number in range(min(len(change.increments), ADDITIONS)):
        record.note_addition(addition_id(write_id, number))
    return "written" if record.fits(limits) else "large"


def restored(record: SimRecord, copy: CategoryCopy, is_partial: bool, limits: Limits, write_id: str) -> bool:
    """What ``restore.lua`` does to one record. Whether anything changes."""
    version, is_newer = copy.version, record.horizon <= copy.version
    changes = record.meta.stamp < copy.version and not is_partial
    from_nothing = not is_newer and record.author not in KNOWS_OF_OLDER
    if from_nothing and not is_partial:
        note = record.author, record.horizon, record.lag
        lately = {name: note for name in record.old if name not in record.lately} | record.lately
        if record.author != BEGUN and size_of_lately(lately) <= LATELY_BYTES:
            record.lately, record.horizon, record.lag, record.author = lately, version, 0, RESTORED
            changes = True
        elif not copy.fields:
            record.author, changes = TRIMMED, True
    others, is_put = [] if is_partial else [name for name in record.old if name not in copy.fields], False
    for name in [*copy.fields, *others]:
        value, now = copy.fields.get(name), record.old.get(name)
        if name in record.lately:
            stays = record.lately[name][1] > version
        else:
            stays = not is_newer and (now is not None or not from_nothing)
        after = {**record.old, name: value or b""}
        fits = len(after) <= limits.fields and sum(map(size_of, after, after.values())) <= limits.bytes
        if not stays and now != value and (value is None or fits):
            record.put(name, value, write_id)
            record.lately.pop(name, None)
            if is_partial and record.is_own and is_newer:
                record.lately[name] = write_id, version, 0
            changes = is_put = True
    if is_put:
        counted = {token for token, _ in record.additions}
        record.additions += [each for each in additions_of(copy.additions.decode()) if each[0] not in counted]
        del record.additions[:-ADDITIONS]
    if changes and is_newer:
        if not (is_partial and record.is_own):
            record.horizon, record.lag, record.author = version, 0, PART if is_partial else RESTORED
        if record.meta.stamp:
            record.stamp = max(record.stamp, version + 1)
    return changes


class SimMerge:
    """``merge.lua`` for one record."""

    def __init__(self, record: SimRecord, limits: Limits, write_id: str) -> None:
        self.record = record
        self.limits = limits
        self.id = write_id
        self.changes = False
        self._is_brought = False
        self._counted = list(record.additions)
        record.notes = True
        self._horizon, self._lag, self._author = record.horizon, record.lag, record.author

    def outcomes(self, steps: Iterable[MergeStep]) -> tuple[Outcome, ...]:
        """What becomes of each step."""
        return tuple(map(self._apply, steps))

    def written_since(self, name: str, moment: int, doubts: str, *, by_time: bool) -> bool | None:
        """None: that is not known."""
        if name in self.record.lately:
            author, stamp, lag = self.record.lately[name]
            is_later = stamp - lag * 1000 >= moment if by_time else stamp > moment
            return is_later and author != self.id and author not in doubts
        is_known = self._horizon <= moment
        if by_time:
            at = self._horizon - self._lag * 1000
            is_known = at < moment
            if self._author == WIPED:
                is_known = at + (1000 if name in self.record.old else 0) <= moment
        if is_known or self._author in doubts:
            return False
        return True if name not in self.record.old and self._author == WIPED else None

    def _apply(self, step: MergeStep) -> Outcome:
        if step.operation is Operation.WIPE:
            return self._wipe(step)
        if step.operation is Operation.ADD:
            return self._add(step)
        if step.operation is Operation.RECORD:
            return self._bring(step)
        assert isinstance(step.value, bytes)
        new = step.value if step.operation is Operation.SET else None
        is_there = self.record.old.get(step.name) == new
        if is_there and (self._is_brought or self._is_said_as_late(step)):
            return Outcome.APPLIED
        if not (self._is_brought or is_there or may_replace(self, step)):
            return Outcome.CONFLICT
        if new is not None and not self._fits(step.name, new):
            return Outcome.LARGE
        self.record.notes = not self._is_brought
        self.record.put(step.name, new, self.id, step.acknowledged)
        self.changes = True
        return Outcome.APPLIED

    def _is_said_as_late(self, step: MergeStep) -> bool:
        author, stamp, lag = self.record.lately.get(step.name, (self._author, self._horizon, self._lag))
        is_ours = author == self.id or author in step.doubts
        return not self.record.is_own or not step.acknowledged or is_ours or stamp - lag * 1000 >= step.acknowledged

    def _bring(self, step: MergeStep) -> Outcome:
        assert isinstance(step.value, bytes)
        if not self.record.is_own:
            self.record.adopt(Meta.of(step.value.decode(), self.record.meta.digest))
            self._is_brought = self.changes = True
        return Outcome.APPLIED

    def _fits(self, name: str, value: bytes) -> bool:
        after = {**self.record.old, name: value}
        return len(after) <= self.limits.fields and sum(map(size_of, after, after.values())) <= self.limits.bytes

    def _wipe(self, step: MergeStep) -> Outcome:
        record = self.record
        for name in list(record.old):
            author = record.lately[name][0] if name in record.lately else None
            is_ours = author is not None and (author == self.id or author in step.doubts)
            if not is_ours and self.written_since(name, step.moment, step.doubts, by_time=True) is False:
                record.put(name, None, self.id)
                record.lately.pop(name, None)
        latest = step.moment
        if record.author == WIPED:
            latest = max(latest, record.horizon - record.lag * 1000)
        record.horizon, record.author, record.lag = record.stamp, WIPED, record.lag_of(max(0, latest - 999))
        self.changes = True
        return Outcome.APPLIED

    def _add(self, step: MergeStep) -> Outcome:
        record = self.record
        if counts_once() and step.mode in dict(self._counted):
            return Outcome.APPLIED
        if len(self._counted) == ADDITIONS and 0 < step.moment <= self._counted[0][1] * 1000:
            return Outcome.IN_DOUBT
        if step.base is not None and step.name not in record.old:
            return Outcome.IN_DOUBT
        assert isinstance(step.value, int)
        total = record.sum(step.name, step.value)
        if total is None:
            return Outcome.NO_NUMBER
        if not self._fits(step.name, total):
            return Outcome.LARGE
        record.put(step.name, total, self.id, step.acknowledged)
        if step.mode not in dict(record.additions):
            record.note_addition(step.mode)
        self.changes = True
        return Outcome.APPLIED


def counts_once() -> bool:
    """Part of ``merge.lua``: an addition that the record remembers is not made again."""
    return True


def may_replace(merge: SimMerge, step: MergeStep) -> bool:
    """Part of ``merge.lua``: whether a value may take the place of what is there."""
    there, noted = merge.record.old.get(step.name), merge.record.lately.get(step.name)
    since = merge.written_since(step.name, step.moment, step.doubts, by_time=step.mode != SINCE)
    if step.mode == ABSENT:
        author = noted[0] if noted else merge._author if there is not None else "?"
        return author in step.doubts or not (there is not None or noted or since)
    return since is False or (step.base is not None and there == step.base) or (since is None and there is None)
