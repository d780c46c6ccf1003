"""The conditions of alerts, from the package's health and events."""

from __future__ import annotations

import pytest

from flask_langpont_session import events
from flask_langpont_session.ops.alerts.conditions import Conditions
from flask_langpont_session.policy.causes import EMPTIED, OTHER_CLOCK, cause_of
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import READ, WRITE, Health


class Process:
    """The health of one process, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(["primary", "replica", "database"], clock=lambda: self.now)
        self.conditions = Conditions(self.health)

    def lose(self, store: str, error_class: ErrorClass = ErrorClass.UNREACHABLE) -> None:
        for _ in range(3):
            self.health.failed(StoreError(store, error_class, "Test"), READ)

    def recover(self, store: str) -> None:
        self.health.close(store, (READ, WRITE))

    def names(self) -> set[str]:
        return set(self.conditions.look())


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
    details = found[f"auth-failed/{store}"]
    assert (details["store"], details["cause"]) == (store, "refuses the password")
    assert str(details["cure"]).startswith("correct the password or user in LANGPONT_SESSION_"), "what helps, too"


def test_details_say_store_cause_and_level(process: Process) -> None:
    """Names and numbers, no texts of any driver."""
    process.lose("primary")
    process.lose("replica")
    found = process.conditions.look()
    cure = cause_of(StoreError("primary", ErrorClass.UNREACHABLE, "Test")).does
    assert found["redis-connection-failed"] == {"store": "primary", "cause": "unreachable", "cure": cure}
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


def test_another_time_is_a_condition_and_lost_data_is_told_by_its_event() -> None:
    """A loss, which is remembered for an hour, would keep an alert burning."""
    remarks = [("primary", EMPTIED), ("primary", OTHER_CLOCK), ("primary:2", OTHER_CLOCK)]
    found = Conditions(Health(["primary"]), lambda now: remarks).look()
    assert found == {"clock": {"store": "primary"}, "clock/primary:2": {"store": "primary:2"}}
