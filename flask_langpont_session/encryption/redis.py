"""What is sent to Redis, and what it answers, where categories are encrypted.

The scripts compare values and move them, and read none: to them they are sealed texts. Only an addition needs a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..policy.categories import AUTH
from ..policy.described import NO_RECORDS, Known
from ..policy.ids import SIGNED_IN
from ..policy.values import AuthRow, CategoryChange, Operation, RecordRef
from ..stores.redis import auth_meta
from ..stores.redis.commands import Command, Commands, Guarded
from ..stores.redis.records import Answer, Merge, MergeStep, Restore, answer
from ..stores.redis.store import Form
from .cipher import OVERHEAD
from .values import Values


class SealedCommands(Commands):
    """Commands whose values are sealed."""

    def __init__(self, values: Values, prefix: str, tombstone_ms: int) -> None:
        super().__init__(prefix, tombstone_ms)
        self._values = values

    def write(self, ref: RecordRef, changes: Mapping[str, CategoryChange], guard: str, said: Guarded) -> Command:
        """The values of the changes are sealed once: should it remain unknown what became of this, they are kept as
        they were sent."""
        sealed = {}
        for name, change in changes.items():
            self._values.seal_once(ref.digest, name, change.sets)
            sealed[name] = replace(change, sets=self._values.wires(ref.digest, name, change.sets))
        return super().write(ref, sealed, guard, self._wider(said, changes))

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, exact: bool = False) -> Command:
        """A row's values belong to its version."""
        payload = self._values.wires(row.digest, AUTH, row.payload, row.version)
        return super().push(replace(row, payload=payload), stamp_ms, life_ms, exact=exact)

    def merge(self, merge: Merge | Restore, said: Guarded) -> Command:
        """Whatever id the values were sealed for, they are for this one now."""
        sealed: Merge | Restore
        if isinstance(merge, Merge):
            sealed = merge._replace(steps=[self._sealed(merge, step) for step in merge.steps])
        else:
            fields = self._values.wires(merge.digest, merge.category, merge.copy.fields)
            sealed = merge._replace(copy=merge.copy._replace(fields=fields))
        return super().merge(sealed, self._wider(said, [merge.category]))

    def _sealed(self, merge: Merge, step: MergeStep) -> MergeStep:
        if step.operation not in (Operation.SET, Operation.DELETE):
            return step
        place, value, base = (merge.digest, merge.category, step.name), step.value, step.base
        if step.operation is Operation.SET and isinstance(value, bytes):
            value = self._values.wire(*place, value)
        return step._replace(value=value, base=None if base is None else self._values.base(*place, base))

    def _wider(self, said: Guarded, categories: Iterable[str]) -> Guarded:
        """The limits are for what the application stores, not for what encryption adds to as many fields as allowed."""
        if not any(map(self._values.are_sealed, categories)):
            return said
        limits = said.limits
        return said._replace(limits=limits._replace(bytes=limits.bytes + OVERHEAD * limits.fields))


def sealed_form(values: Values) -> Form:
    """What :class:`.RedisStore` needs to be given."""

    def understand(
        digest: str, names: Sequence[str], kind: str, reply: Sequence[Any], known: Mapping[str, Known] = NO_RECORDS
    ) -> Answer:
        hashes = zip(names, reply[1:-2], strict=True)
        opened = [_opened(values, digest, name, kind, part) for name, part in hashes]
        return answer(digest, names, kind, [reply[0], *opened, *reply[-2:]], known)

    return Form(lambda prefix, tombstone_ms: SealedCommands(values, prefix, tombstone_ms), understand)


def _opened(values: Values, digest: str, category: str, kind: str, part: Any) -> Any:
    """A hash with its values opened. What is in the place of one, or is no hash of ours, stays what it is."""
    if type(part) is not list:
        return part
    version = 0
    if category == AUTH and kind == SIGNED_IN:
        said = auth_meta.said(digest, dict(zip(part[::2], part[1::2], strict=True)).get(b"@m", b""))
        if said is None or not said.is_live:
            return part
        version = said.version
    opened = part.copy()
    for at in range(0, len(part), 2):
        if part[at][:1] != b"@":
            field = part[at].decode("utf-8", "replace")  # what is no text is no field of ours, and is found to be none
            opened[at + 1] = values.open(digest, category, field, part[at + 1], version)
    return opened
