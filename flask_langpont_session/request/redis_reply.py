"""What Redis said to a request."""

from __future__ import annotations

from typing import NamedTuple

from ..policy.health import PRIMARY
from ..stores.redis.records import Answer, AuthEntry


class RedisReply(NamedTuple):
    """What Redis said of a session.

    :param answer: None: no Redis answered.
    :param source: the store that did, or ``none``.
    :param asked_at: monotonic seconds, before it was asked.
    """

    answer: Answer | None
    source: str
    asked_at: float

    @property
    def by_primary(self) -> bool:
        """Whether the primary said it, and it is one."""
        return self.answer is not None and self.source == PRIMARY and self.answer.is_primary

    @property
    def entry(self) -> AuthEntry | None:
        """What it said of auth; None: nothing."""
        return self.answer.auth if self.answer else None

    @property
    def now_ms(self) -> int:
        """The Redis clock when it was asked; 0: no Redis answered."""
        return self.answer.now_ms if self.answer else 0

    @property
    def stamp_ms(self) -> int:
        """The stamp of what the database says from now on; 0: none can be given."""
        return self.now_ms if self.by_primary else 0
