"""What is noticed of the stores reaches the monitor, and what a round has found reaches what attends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.build import State
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.health import DATABASE, ONLY, PRIMARY, READ, WRITE
from flask_langpont_session.policy.values import CategoryCopy, ErrorClass, StoreError
from flask_langpont_session.recovery.monitor import Monitor, Round
from flask_langpont_session.recovery.notices import Notices
from flask_langpont_session.recovery.outages import NOTHING_WAITS
from tests.support.known import known

LOST = StoreError(DATABASE, ErrorClass.UNREACHABLE, "Test")


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def suspect(self, store: str) -> None:
        self.told.append(("suspect", store))

    def suspect_slowness(self, store: str) -> None:
        self.told.append(("slow", store))

    def note_incident(self, shard: str = ONLY) -> None:
        self.told.append(("incident", shard))


def test_what_is_noticed_is_passed_on_once_there_is_a_listener() -> None:
    notices, watcher = Notices(), Watcher()
    notices.suspect("database")
    notices.suspect_slowness("replica")
    notices.note_incident()
    notices.go_to(watcher)
    assert watcher.told == []
    notices.suspect("database")
    notices.suspect_slowness("replica")
    notices.note_incident()
    notices.note_incident("-1")
    assert watcher.told == [("suspect", "database"), ("slow", "replica"), ("incident", ONLY), ("incident", "-1")]


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
    assert not state.monitor.replay.gives_back
    state.backend.endpoint(PRIMARY).server_identity.observe("another", now_ms=1, is_primary=True)
    assert state.monitor.replay.gives_back


def test_each_round_says_what_it_has_found(state: State) -> None:
    rounds: list[Round] = []
    monitor = Monitor(state.backend, attend=rounds.append)
    monitor.watch()
    for way in (READ, WRITE):
        for _ in range(state.settings.failure_threshold):
            state.health.failed(LOST, way)
    monitor.watch()
    assert [found.lost for found in rounds] == [set(), {DATABASE}]
    assert {found.waiting for found in rounds} == {NOTHING_WAITS}
