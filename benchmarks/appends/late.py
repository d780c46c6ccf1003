"""A proxy that also holds back what clients *ask*: a command that arrives when its client has long given up."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.faults.proxy import Fault, FaultProxy, _Link

HOLD_REQUEST = "hold_request"


def hold_request(seconds: float) -> Fault:
    """What is asked reaches the server so late, or when the fault is over if that is sooner; replies are not held."""
    return Fault(HOLD_REQUEST, seconds=seconds)


class LateProxy(FaultProxy):
    """A :class:`FaultProxy` that knows :func:`hold_request` as well."""

    async def _ask(self, link: _Link, request: bytes) -> None:
        fault, changed = self._fault, self._changed
        if fault.name == HOLD_REQUEST:
            self.hits[HOLD_REQUEST] += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), fault.seconds)
        await super()._ask(link, request)
