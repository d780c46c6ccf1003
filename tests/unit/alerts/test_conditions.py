"""The conditions of alerts, from the package's health, recorder and events."""

from __future__ import annotations

import pytest

from flask_langpont_session import events
from flask_langpont_session.alerts.conditions import Conditions
from flask_langpont_session.alerts.table import LATENCY_WINDOW
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import READ, WRITE, Health


class Process:
    """The health and recorder of one process, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(["primary", "replica", "database"], clock=lambda: self.now)
        self.recorder = Recorder()
        self.conditions = Conditions(self.health, self.recorder, lambda: self.now)

    def lose(self, store: str, error_class: ErrorClass = ErrorClass.UNREACHABLE) -> None:
        for _ in range(3):
            self.health.failed(StoreError(store, error_class, "Test"), READ)

    def recover(self, store: str) -> None:
        self.health.close(store, (READ, WRITE))

    def names(self) -> set[str]:
        return set(self.conditions.look())

    def work(self, count: int, ms: float, source: str = "primary") -> None:
        for _ in range(count):
            self.recorder.observe("load", "all", source, "ok", ms / 1000)


@pytest.fixture
def process() -> Process:
    return Process()


# -- stores and levels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "names"),
    [
        ([], set()),
        (["replica"], {"replica-connection-failed"}),
        (["database"], {"database-connection-failed"}),
        (["primary"], {"redis-connection-failed", "level-replica"}),
        (
            ["primary", "replica"],
            {"redis-connection-failed", "replica-connection-failed", "level-replica", "level-fallback"},
        ),
        (
            ["primary", "replica", "database"],
            {
                "redis-connection-failed",
                "replica-connection-failed",
                "database-connection-failed",
                "level-replica",
                "level-fallback",
                "level-minimal",
            },
        ),
    ],
)
def test_lost_stores_and_their_level_are_conditions(process: Process, lost: list[str], names: set[str]) -> None:
    """The conditions hold for as long as the stores are lost, and no longer."""
    for store in lost:
        process.lose(store)
    assert process.names() == names
    assert process.names() == names
    for store in lost:
        process.recover(store)
    assert process.names() == set()


def test_a_primary_that_refuses_writes_is_not_a_lost_one(process: Process) -> None:
    """Users see something else, and an operator looks elsewhere."""
    process.lose("primary", ErrorClass.WRITE_REFUSED)
    assert process.names() == {"redis-writes-refused", "level-replica"}


@pytest.mark.parametrize("store", ["primary", "replica", "database"])
def test_refused_credentials_are_told_apart(process: Process, store: str) -> None:
    """A rotated token is no outage: waiting does not help. And they say so instead of: connection failed."""
    process.lose(store, ErrorClass.IDENTITY_REFUSED)
    found = process.conditions.look()
    assert f"auth-failed/{store}" in found
    assert not [name for name in found if name.endswith("connection-failed")]
    assert found[f"auth-failed/{store}"] == {"store": store, "cause": "refuses the password"}


def test_details_say_store_cause_and_level(process: Process) -> None:
    """Names and numbers, no texts of any driver."""
    process.lose("primary")
    process.lose("replica")
    found = process.conditions.look()
    assert found["redis-connection-failed"] == {"store": "primary", "cause": "unreachable"}
    assert found["level-fallback"] == {"level": 2}
    process.now += 1801
    assert process.conditions.look()["level-fallback"] == {"level": 3}


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "key", "details"),
    [
        (events.DataLost("primary"), "data-lost", {"store": "primary"}),
        (events.DatabaseWentBack(3), "database-went-back", {"commits": 3}),
        (events.ServerChanged("replica"), "server-changed/replica", {"store": "replica"}),
        (events.JournalFailed("SQLITE_FULL"), "journal-failed", {"cause": "SQLITE_FULL"}),
        (events.ChangesGivenUp("a", 2, "KeyError", of_user=True), "changes-given-up", {"cause": "KeyError"}),
    ],
)
def test_what_has_no_state_is_seen_once(process: Process, event: object, key: str, details: dict[str, str]) -> None:
    """An event is seen once, however often it happened since the last look."""
    for _ in range(3):
        process.conditions.happened(event)
    assert process.conditions.look() == {key: details}
    assert process.conditions.look() == {}


def test_i29_what_is_given_up_of_a_visitor_is_no_alert(process: Process) -> None:
    """It is counted, as all that is dropped is."""
    process.conditions.happened(events.ChangesGivenUp("a", 2, "KeyError", of_user=False))
    assert process.conditions.look() == {}


def test_events_of_states_are_not_kept(process: Process) -> None:
    """One that overtakes another would leave an alert burning: states are looked up."""
    for event in (
        events.LevelChanged(0, 4),
        events.StoreLost("primary", "read", "unreachable"),
        events.GrantWasRefused(),
    ):
        process.conditions.happened(event)
    assert process.conditions.look() == {}


# -- latency -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fast", "slow", "ms", "names"),
    [
        (100, 0, 0, set()),
        (0, 100, 50, set()),
        (0, 100, 51, {"latency-high"}),
        (0, 100, 100, {"latency-high"}),
        (0, 100, 101, {"latency-high", "latency-critical"}),
        (95, 5, 150, set()),
        (94, 6, 150, {"latency-high", "latency-critical"}),
        (0, 4, 190, set()),
        (0, 5, 190, {"latency-high", "latency-critical"}),
    ],
)
def test_latency_is_the_95th_percentile_of_many(
    process: Process, fast: int, slow: int, ms: float, names: set[str]
) -> None:
    """More than 5 % above the threshold, and at least five answers: one slow answer is no trend."""
    process.work(fast, 1)
    process.work(slow, ms)
    assert process.names() == names


def test_only_the_window_counts(process: Process) -> None:
    """Neither the good years before nor the bad minute that is over count."""
    process.work(100_000, 1)
    for _ in range(int(LATENCY_WINDOW) + 1):
        process.now += 1
        process.names()
    process.work(10, 120)
    assert process.names() == {"latency-high", "latency-critical"}
    process.now += LATENCY_WINDOW - 1
    assert process.names() == {"latency-high", "latency-critical"}
    process.now += 1
    assert process.names() == set()


def test_after_a_pause_the_window_begins_where_it_should(process: Process) -> None:
    """A process that was stopped for long looks at what came since its last look."""
    process.now += 10_000
    process.work(10, 120)
    assert "latency-critical" in process.names()
    process.now += 10_000
    assert process.names() == set()


def test_other_stores_are_not_the_primary(process: Process) -> None:
    """A slow database is another trouble."""
    process.work(100, 190, source="database")
    process.work(100, 190, source="none")
    assert process.names() == set()


def test_latency_says_what_was_measured(process: Process) -> None:
    """The number stands in the details, and nowhere else."""
    process.work(10, 70)
    assert process.conditions.look() == {
        "latency-high": {"operations": 10, "slower_than_limit": 10, "limit_ms": 50, "window_seconds": 30}
    }
