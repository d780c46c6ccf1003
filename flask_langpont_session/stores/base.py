"""What sessions ask of a Redis: the same of a single server and of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..policy.values import AuthRow, CategoryChange, CategoryCopy, RecordRef, StoreError
    from .redis.endpoint import Endpoint
    from .redis.near import NearCache
    from .redis.records import Answer, Limits, Merge, Merged, Restore, Written


class SessionStore(Protocol):
    """All sessions, in one role. The methods are those of :class:`.RedisStore`, and say it there."""

    @property
    def name(self) -> str:
        """``primary`` or ``replica``."""

    @property
    def prefix(self) -> str: ...

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The servers that it is made of, by name, as far as they are known."""

    @property
    def homeless(self) -> int:
        """How many slots of a cluster no shard has."""

    @property
    def in_use(self) -> int: ...

    def take_most_in_use(self) -> int: ...

    def find_shards(self, timeout: float) -> None:
        """Ask where the shards are, while none is known.

        :raises StoreError: no node answers.
        """

    def forget_connections(self) -> None: ...

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int: ...

    def read(self, ref: RecordRef, lives_ms: Mapping[str, int], *, timeout: float, anew: bool = False) -> Answer: ...

    def near_of(self, digest: str) -> NearCache | None: ...

    def write(
        self,
        ref: RecordRef,
        changes: Mapping[str, CategoryChange],
        *,
        guard: str,
        limits: Limits,
        timeout: float,
        write_id: str,
        push: tuple[AuthRow, int] | None = None,
        push_life_ms: int = 0,
        push_exact: bool = False,
    ) -> Written: ...

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str: ...

    def write_tombstone(self, digest: str, version: int, categories: Sequence[str], *, timeout: float) -> None: ...

    def push_many(
        self,
        rows: Sequence[tuple[AuthRow, int]],
        dead: Sequence[tuple[str, int]],
        categories: Sequence[str],
        *,
        stamp_ms: int,
        timeout: float,
    ) -> None: ...

    def extend_idle(self, digest: str, idle_ms: int, *, timeout: float) -> int: ...

    def merge_all(
        self, merges: Sequence[Merge | Restore], *, limits: Limits, timeout: float, write_id: str
    ) -> list[Merged | StoreError]: ...

    def copies(self, wanted: Sequence[tuple[str, str]], *, timeout: float) -> list[CategoryCopy]: ...

    def auths(self, digests: Sequence[str], *, timeout: float) -> list[Answer]: ...

    def quarantine(self, ref: RecordRef, category: str, *, timeout: float, only_foreign: bool = False) -> None: ...

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]: ...
