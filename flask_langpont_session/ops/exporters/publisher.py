"""One process of a host publishes what all of them have counted, once per interval. The others leave their figures for
it (:mod:`~flask_langpont_session.support.host`); where they cannot, each publishes for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...support.host import HostWork
from .figures import Figures, decode, encode, together

Publish = Callable[[Figures], None]
"""Has figures go somewhere, as :meth:`.Sink.publish` does."""


class Publisher:
    """Publishes the figures of all processes of a host. Made and used in one thread of one process.

    :param take: gives what this process has counted since it was asked before.
    :param is_ending: whether this is the last time.
    """

    def __init__(
        self,
        take: Callable[[], Figures],
        host: HostWork,
        sinks: Sequence[Publish],
        is_ending: Callable[[], bool],
    ) -> None:
        self._take = take
        self._host = host
        self._sinks = sinks
        self._is_ending = is_ending

    def publish(self) -> None:
        """Publish the new figures, or leave them to the process that publishes."""
        mine = self._take()
        if not self._host.lead() and self._host.leave(encode(mine)):
            if not self._is_ending() or not self._host.succeeds():
                return
            mine = {}
        found = together([mine, *map(decode, self._host.collect())])
        if found:
            for sink in self._sinks:
                sink(found)
        if self._is_ending():
            self._host.resign()
