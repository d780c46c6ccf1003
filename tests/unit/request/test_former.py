"""Keys that lie elsewhere than in the category of their feature, and which of two values counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flask_langpont_session.policy.categories import CategoryTable
from flask_langpont_session.policy.copies import CategoryCopy, RecordRef
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.loaded import CategoryState, Former, Gap, Loaded, Verdict
from flask_langpont_session.request.former import FormerPlaces, former_in
from flask_langpont_session.request.scope import LOAD
from flask_langpont_session.stores.host.entries import NOTHING
from flask_langpont_session.stores.host.journal import Overlay
from tests.support.clock import Clock
from tests.support.fakes import settings_in

SECOND = 1_000_000


def described(stamp: int = 900, horizon: int = 100, lag_ms: int = 0, **noted: tuple[int, int]) -> bytes:
    """Return the description of a record. Moments in seconds.

    :param noted: field → when it was written, and how much later than acknowledged, milliseconds.
    """
    notes = "".join(f"\1{name}\1author.{at * SECOND:016}{lag:06x}" for name, (at, lag) in noted.items())
    return f"digest..{stamp * SECOND:016}{horizon * SECOND:016}{lag_ms:06x}author.{0:07x}{0:04x}{notes}".encode()


@pytest.fixture
def table(tmp_path: Path) -> CategoryTable:
    return settings_in(tmp_path).table


def state(mark: bytes = b"", version: int = 0, **shown: bytes) -> CategoryState:
    return CategoryState.of(CategoryCopy(version, shown, mark), "primary")


@pytest.mark.parametrize(
    ("ui", "data", "counts"),
    [
        (state(cart=b"1"), state(), True),
        (state(described(cart=(500, 0)), cart=b"1"), state(described(cart=(400, 0)), cart=b"2"), True),
        (state(described(cart=(400, 0)), cart=b"1"), state(described(cart=(500, 0)), cart=b"2"), False),
        (state(described(horizon=300), cart=b"1"), state(described(cart=(400, 0)), cart=b"2"), False),
        (state(described(cart=(500, 200_000)), cart=b"1"), state(described(cart=(400, 0)), cart=b"2"), False),
        (state(version=7, cart=b"1"), state(version=6, cart=b"2"), True),
        (state(version=7, cart=b"1"), state(version=7, cart=b"2"), False),
    ],
)
def test_the_later_written_one_counts(
    table: CategoryTable, ui: CategoryState, data: CategoryState, counts: bool
) -> None:
    assert former_in(table, {"ui": ui, "data": data}) == {"cart": Former("ui", counts)}


@pytest.mark.parametrize(
    ("writes", "counts"),
    [
        ({"ui": {"cart": b"1"}}, True),
        ({"data": {"cart": b"2"}}, False),
        ({"ui": {"cart": b"1"}, "data": {"cart": b"2"}}, False),
    ],
)
def test_what_waits_is_later_than_what_redis_has(table: CategoryTable, writes: Any, counts: bool) -> None:
    waiting = Overlay(**{**{n: getattr(NOTHING, n) for n in ("revoked", "deltas", "copies")}, "writes": writes})
    categories = {"ui": state(version=5, cart=b"1"), "data": state(version=5, cart=b"2")}
    found = former_in(table, categories, overlay=waiting)
    assert found == {"cart": Former("ui", counts)}


def test_a_configured_default_is_no_value(table: CategoryTable) -> None:
    categories = {"ui": state(version=1, cart=b"1"), "data": state(version=9, cart=b"[]")}
    assert former_in(table, categories, {"cart"}) == {"cart": Former("ui", True)}


def test_no_key_of_auth_is_taken_from_elsewhere(table: CategoryTable) -> None:
    """I8: not a user, not a right, and no data that the database has for users."""
    found = former_in(table, {"auth": state(), "ui": state(user_id=b"7", daily_limit=b"9", csrf_token=b"1")})
    assert found == dict.fromkeys(("user_id", "daily_limit", "csrf_token"), Former("ui", False))


def test_what_a_row_has_of_before_is_older_than_what_redis_has(table: CategoryTable) -> None:
    """The present table has it written there only."""
    row = state(version=9, identity_card=b"1")
    assert former_in(table, {"auth": row, "data": state()}) == {"identity_card": Former("auth", True)}
    both = {"auth": row, "data": state(version=1, identity_card=b"2")}
    assert former_in(table, both) == {"identity_card": Former("auth", False)}


def test_a_category_that_is_not_loaded_says_nothing(table: CategoryTable) -> None:
    """Its keys may be there."""
    assert former_in(table, {"ui": state(cart=b"1")}) is None


def test_a_key_that_is_not_there_is_unknown_where_it_may_have_been_before(table: CategoryTable) -> None:
    """I16: a category could not be read, and a key of another one may lie in it."""
    lost = CategoryState(gap=Gap(True, frozenset()))
    loaded = Loaded(Verdict.ANONYMOUS, {"ui": lost, "data": state(version=1, wishes=b"1")})
    other = table.feature_of("cart")
    assert loaded.is_unknown(other, "cart")
    assert not loaded.is_unknown(other, "wishes")
    assert not Loaded(Verdict.ANONYMOUS, {"ui": state(), "data": state()}).is_unknown(other, "cart")


@pytest.mark.parametrize(
    ("seconds", "lives", "level", "times"),
    [
        ((0, 10, 3599), {"ui": 5}, 0, 1),
        ((0, 3600, 7200), {"ui": 5}, 0, 3),
        ((0, 3600), {}, 0, 0),  # it lies where it lives long enough
        ((0, 3600), {"ui": 5}, 1, 0),
    ],
)
def test_a_record_that_lives_too_short_for_it_is_prolonged_once_an_hour(
    seconds: Sequence[int], lives: Mapping[str, int], level: int, times: int
) -> None:
    """Each time is a question to Redis; the primary alone can do it."""
    asked: list[object] = []
    clock = Clock()
    backend = SimpleNamespace(
        clock=clock, lives_of_former=lambda former, kind, life: lives, primary=SimpleNamespace(read="read")
    )
    places = FormerPlaces(cast(Any, SimpleNamespace(backend=backend)))
    scope = SimpleNamespace(level=level, can=lambda store, way: True, attempt=lambda *call: asked.append(call))
    loaded = Loaded(Verdict.ANONYMOUS, former={"cart": Former("ui", True)})
    began = clock.now
    for passed in seconds:
        clock.now = began + passed
        for digest in ("d", "e"):
            places.prolong(loaded, RecordRef(digest, "a"), cast(Any, scope), Life(1, 1))
    assert len(asked) == 2 * times
    assert all(call[:2] == (LOAD, "read") and call[3] == lives for call in asked if isinstance(call, tuple))
