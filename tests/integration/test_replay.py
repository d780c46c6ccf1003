"""I22, I31: what waits is merged, whatever becomes of the host's clock. Real servers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.build import State
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY, READ, WRITE
from flask_langpont_session.stores.host.entries import WIPED_FIELD
from flask_langpont_session.stores.host.journal import PendingWrite

from .conftest import MakeApp, parts

BOTH = (READ, WRITE)


def name(number: int) -> str:
    """A digest."""
    return f"{number:043}"


def write(digest: str, key: str, value: str, **more: Any) -> PendingWrite:
    about: dict[str, Any] = {"kind": "a", "category": "translation", "operation": Operation.SET, **more}
    return PendingWrite(digest=digest, field=key, value=f'"{value}"'.encode(), moment=time.time_ns() // 1000, **about)


def lose(state: State, *stores: str) -> None:
    for store in stores:
        for way in BOTH:
            state.health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Test", timed_out=True), way)


# -- many at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [10, -10, 86_400, -86_400])
def test_setting_the_clock_of_a_host_drops_and_undoes_nothing(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """I31, D25: in an outage. What waits is merged, and what was cleared after the clock was set stays so."""
    app = make_app()
    state, by, wall = parts(app), [0.0], time.time
    journal = state.backend.journal
    monkeypatch.setattr(time, "time", lambda: wall() + by[0])
    with state.monitor.paused():
        state.monitor.tick()
        lose(state, PRIMARY)
        journal.put([write(name(1), "input_text", "kept")])
        journal.put([write(name(2), "input_text", "cleared")])
        by[0] = step
        journal.put([replace(write(name(2), WIPED_FIELD, ""), operation=Operation.WIPE, value=None)])
        assert (journal.waiting().oldest_seconds(time.time()) or 0.0) < 1000
        state.monitor.probes.recover(PRIMARY, BOTH)
        state.monitor.recovery.run_once()
        copies = state.backend.primary.copies([(name(n), "translation") for n in (1, 2)], timeout=5)
    assert [bool(copy.fields) for copy in copies] == [True, False]
    assert journal.counts()["writes"] == 0
