"""The breakers of all stores: shards that are found, and what becomes of an outage when they are."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.breaker import ONLY, READ, WRITE, Breakers
from flask_langpont_session.policy.errors import DATABASE, PRIMARY, REPLICA, ErrorClass, StoreError


@pytest.fixture
def breakers() -> Breakers:
    return Breakers([PRIMARY, REPLICA, DATABASE])


def lose(breakers: Breakers, store: str, way: str, cause: ErrorClass = ErrorClass.UNREACHABLE) -> None:
    breakers.by_access[store, way].failed(1000.0, StoreError(store, cause, "Test"), at_once=True)
    breakers.count()


def test_shards_that_are_found_take_the_place_of_the_whole(breakers: Breakers) -> None:
    assert breakers.arrange(PRIMARY, [":1", ":2"])
    assert breakers.shards == (":1", ":2")
    assert {store for store, _ in breakers.by_access} == {"primary:1", "primary:2", REPLICA, DATABASE}
    assert not breakers.arrange(PRIMARY, [":2", ":1"])


def test_a_shard_that_is_found_in_an_outage_of_the_whole_is_lost_too(breakers: Breakers) -> None:
    lose(breakers, PRIMARY, READ)
    breakers.arrange(PRIMARY, [":1", ":2"])
    assert breakers.open_accesses() == {("primary:1", READ), ("primary:2", READ)}
    error = breakers.error("primary:2")
    assert error is not None and error.error_class is ErrorClass.UNREACHABLE


def test_a_further_shard_is_well_though_another_is_lost(breakers: Breakers) -> None:
    breakers.arrange(PRIMARY, [":1"])
    lose(breakers, "primary:1", WRITE)
    breakers.arrange(PRIMARY, [":1", ":2"])
    assert breakers.open_accesses() == {("primary:1", WRITE)}
    assert (breakers.open, breakers.error("primary:2")) == (1, None)


def test_the_whole_is_lost_if_one_of_the_shards_was(breakers: Breakers) -> None:
    breakers.arrange(PRIMARY, [":1", ":2"])
    lose(breakers, "primary:2", WRITE)
    breakers.arrange(PRIMARY, [ONLY])
    assert breakers.open_accesses() == {(PRIMARY, WRITE)}


def test_a_session_sees_its_own_shard_and_the_database(breakers: Breakers) -> None:
    breakers.arrange(PRIMARY, [":1", ":2"])
    breakers.arrange(REPLICA, [":1", ":2"])
    lose(breakers, "primary:2", READ)
    lose(breakers, DATABASE, WRITE)
    every = {(role, way) for role in (PRIMARY, REPLICA, DATABASE) for way in (READ, WRITE)}
    assert breakers.accesses(":1") == breakers.accesses(":2") == every
    assert breakers.accesses(":1", only_closed=True) == every - {(DATABASE, WRITE)}
    assert breakers.accesses(":2", only_closed=True) == every - {(DATABASE, WRITE), (PRIMARY, READ)}
