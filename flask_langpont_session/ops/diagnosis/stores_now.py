"""Asks the stores for their state now, as the workers' monitors do."""

from __future__ import annotations

import time
from typing import NamedTuple

from ...exceptions import LangPontSessionError
from ...policy.causes import SLOW
from ...policy.errors import ErrorClass, StoreError, role_of
from ...policy.health import DATABASE, PRIMARY
from ...stores.backend import Backend
from ...stores.redis.slots import SLOTS
from ...stores.sql.errors import BRING_BACK


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
    took, error, problem = None, None, None
    try:
        took, slow = _ask(backend, name, asker, timeout), backend.settings.slow
        if name != DATABASE and took > slow:
            took = _ask(backend, name, asker, timeout)  # one answer may be late by chance
            if took > slow:
                error, problem = StoreError(name, ErrorClass.UNREACHABLE, SLOW), f"is slow: {round(took * 1000)} ms"
        elif name == DATABASE and (missing := backend.database.upkeep.missing_tables()):  # no user can sign in
            error = StoreError(DATABASE, ErrorClass.NO_TABLES, f"missing: {', '.join(missing)}; {BRING_BACK}")
            problem = error.cause
    except LangPontSessionError as caught:
        error = caught if isinstance(caught, StoreError) else None
        problem = str(caught).removeprefix(f"{name}: ")
    if name == PRIMARY and (number := backend.primary.homeless):
        error, problem = None, f"{number} of {SLOTS} slots have no shard"
    return StoreAnswer(took, problem, error)


def _ask(backend: Backend, name: str, asker: str, timeout: float) -> float:
    if name == DATABASE:
        began = time.perf_counter()
        backend.database.probe(timeout)
        return time.perf_counter() - began
    endpoint = backend.find(name, timeout)
    # What this host knows of the servers is the workers' business, and a file that is made would be this user's.
    with endpoint.server_identity.alone():
        if role_of(name) == PRIMARY:
            return endpoint.probe(f"{backend.settings.key_prefix}:canary:{asker}", asker, timeout=timeout)
        return endpoint.probe_read(timeout=timeout)
