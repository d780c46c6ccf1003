"""The simulated database is called as the real one is: they cannot drift apart unnoticed."""

from __future__ import annotations

import inspect
from typing import Any

from flask_langpont_session.stores.sql.database import Database

from .sim_database import SimDatabase

NOT_SIMULATED = {"adopt", "close", "describe", "find", "note_adopted"}
"""What is called at exit or by operators, or takes over sessions of other packages."""


def methods(store: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Name → the parameters' names, kinds and defaults."""
    found = inspect.getmembers(store, lambda member: inspect.isfunction(member))
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
        for name, method in found
        if not name.startswith("_") and name not in NOT_SIMULATED
    }


def test_a_simulated_store_is_called_like_the_real_one() -> None:
    """The same methods with the same parameters and defaults."""
    assert methods(SimDatabase) == methods(Database)
    assert len(methods(Database)) >= 16
