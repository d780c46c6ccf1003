"""The simulated stores are called as the real ones are: they cannot drift apart unnoticed."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.session_limits import LimitedSignIns

from .sim_database import SimDatabase, SimLimitedSignIns
from .sim_redis import SimEndpoint, SimRedisStore

NOT_SIMULATED = {
    "adopt", "announcing", "close", "describe", "find", "key", "note_adopted", "run_commands", "take_most_in_use",
}  # fmt: skip
"""What is called at exit, by operators and by exporters, knows how keys are spelled, takes over sessions of
other packages, or is for clusters."""


def methods(store: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Name → the parameters' names, kinds and defaults."""
    found = inspect.getmembers(store, lambda member: inspect.isfunction(member))
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
        for name, method in found
        if not name.startswith("_") and name not in NOT_SIMULATED
    }


@pytest.mark.parametrize(
    ("real", "simulated", "least"),
    [
        (Database, SimDatabase, 16),
        (LimitedSignIns, SimLimitedSignIns, 2),
        (RedisStore, SimRedisStore, 13),
        (Endpoint, SimEndpoint, 4),
    ],
)
def test_a_simulated_store_is_called_like_the_real_one(real: type, simulated: type, least: int) -> None:
    """The same methods with the same parameters and defaults."""
    assert methods(simulated) == methods(real)
    assert len(methods(real)) >= least
