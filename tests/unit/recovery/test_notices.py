"""Notices: what is noticed of the stores reaches the monitor, and what a round has found reaches its listeners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.build import State
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, FAILURES, PRIMARY, READ, WRITE
from flask_langpont_session.recovery.monitor import Monitor, Notices, Round
from flask_langpont_session.recovery.outages import NOTHING_WAITS
from tests.support.known import known

LOST = StoreError(DATABASE, ErrorClass.UNREACHABLE, "Test")


def test_before_there_is_a_monitor_nothing_is_to_be_told() -> None:
    """It begins by looking at every store."""
    notices = Notices()
    notices.suspect("database")
    notices.suspect_slowness("replica")
    notices.note_incident()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """The parts of an application whose monitor is driven by hand, after its first round."""
    import fakeredis

    app = Flask("app", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_CLIENT=fakeredis.FakeRedis())
    LangPontSession(app).create_tables(app)
    state = state_of(app)
    state.monitor.tick()
    yield state
    state.close()


def test_a_call_that_failed_has_its_store_looked_at(state: State) -> None:
    assert not state.monitor.probes.of(DATABASE).is_suspect
    state.health.failed(LOST, READ)
    assert state.monitor.probes.of(DATABASE).is_suspect


def test_a_copy_that_the_primary_lacks_has_it_looked_at(state: State) -> None:
    assert not state.monitor.probes.of(PRIMARY).is_suspect
    state.backend.memory.put_category("d", "ui", known(CategoryCopy(3, {"lang": b'"ja"'})), kind="a")
    state.backend.memory.put_absent("d", "ui", 9)
    assert state.monitor.probes.of(PRIMARY).is_suspect


def test_another_server_behind_the_primary_is_given_back_what_is_held(state: State) -> None:
    assert not state.monitor.recovery.gives_back
    state.backend.endpoint(PRIMARY).server_identity.observe("another", now_ms=1, is_primary=True)
    assert state.monitor.recovery.gives_back


def test_each_round_says_what_it_has_found(state: State) -> None:
    rounds: list[Round] = []
    monitor = Monitor(state.backend, attend=rounds.append)
    monitor.watch()
    for way in (READ, WRITE):
        for _ in range(FAILURES):
            state.health.failed(LOST, way)
    monitor.watch()
    assert [found.lost for found in rounds] == [set(), {DATABASE}]
    assert {found.waiting for found in rounds} == {NOTHING_WAITS}
