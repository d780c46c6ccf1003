"""Asks the stores for their state now, as the workers' monitors do."""

from __future__ import annotations

import time
from typing import NamedTuple

from ...exceptions import LangPontSessionError
from ...policy.errors import StoreError, role_of
from ...policy.health import DATABASE, PRIMARY
from ...stores.backend import Backend
from ...stores.redis.slots import SLOTS


class StoreAnswer(NamedTuple):
    """The answer of one store.

    :param took: seconds; of a Redis, connecting does not count. None: it did not answer.
    :param problem: a sentence without its full stop; None: it can do its work.
    :param error: that the problem was told by, if one was.
    """

    took: float | None
    problem: str | None
    error: StoreError | None = None


def ask_store(backend: Backend, name: str, asker: str, timeout: float) -> StoreAnswer:
    """Ask a store whether it can do its work: a primary and the database write, a replica reads.

    :param asker: a name for it; two that ask at a time must have different ones.
    :param timeout: seconds.
    """
    try:
        return StoreAnswer(_ask(backend, name, asker, timeout), _homeless(backend) if name == PRIMARY else None)
    except LangPontSessionError as error:
        homeless = _homeless(backend) if name == PRIMARY else None
        told = error if isinstance(error, StoreError) and not homeless else None
        return StoreAnswer(None, homeless or str(error).removeprefix(f"{name}: "), told)


def _ask(backend: Backend, name: str, asker: str, timeout: float) -> float:
    if name == DATABASE:
        began = time.perf_counter()
        backend.database.probe(timeout)
        return time.perf_counter() - began
    if role_of(name) == PRIMARY:
        backend.primary.find_shards(timeout)
    endpoint = backend.endpoint(name)
    # What this host knows of the servers is the workers' business, and a file that is made would be this user's.
    with endpoint.server_identity.alone():
        if role_of(name) == PRIMARY:
            return endpoint.probe(f"{backend.settings.key_prefix}:canary:{asker}", asker, timeout=timeout)
        return endpoint.probe_read(timeout=timeout)


def _homeless(backend: Backend) -> str | None:
    number = backend.primary.homeless
    return f"{number} of {SLOTS} slots have no shard" if number else None
