"""The small scripts, each by what it must not do: to records that are not ours, and without a right. A real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from devservers.servers import Valkey
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.server_identity import Canary
from flask_langpont_session.stores.redis.store import RedisStore
from tests.support.auth_records import packed, say, says

from .scripts_server import store_on, without

DIGEST, OTHER = "d" * 43, "e" * 43
USER = RecordRef(DIGEST, "u")
KEY = f"session:auth:{{{DIGEST}}}"
CANARY = "session:canary"
WAIT = 3.0
HOUR = 3_600_000


@pytest.fixture
def store(primary: Valkey) -> Iterator[RedisStore]:
    with store_on(primary.url, socket_timeout=WAIT, max_connections=2, timeout=WAIT) as store:
        yield store


@pytest.fixture
def raw(primary: Valkey) -> Iterator[Any]:
    with primary.client() as client:
        yield client


def a_row(now: int, **changes: Any) -> AuthRow:
    made = AuthRow(DIGEST, "7", 1, True, {"_user_id": b'"7"'}, 0, now, now + HOUR, now + 10 * HOUR, now)
    return replace(made, **changes)


# -- extend_idle.lua --------


def test_s3_extending_moves_the_idle_expiry(store: RedisStore, raw: Any) -> None:
    """The record's life is extended as well; never back, and never past the end of the session's life in all."""
    now = store.endpoint.time_ms(timeout=WAIT)
    store.push(a_row(now), now, HOUR, timeout=WAIT)
    moved = store.extend_idle(DIGEST, 2 * HOUR, timeout=WAIT)
    assert 0 <= moved - now - 2 * HOUR < 60_000
    assert says(raw, KEY)["@i"] == str(moved)
    assert 2 * HOUR - 60_000 < raw.pttl(KEY) <= 2 * HOUR
    assert store.extend_idle(DIGEST, HOUR, timeout=WAIT) == moved
    assert store.extend_idle(DIGEST, 100 * HOUR, timeout=WAIT) == now + 10 * HOUR
    assert 10 * HOUR - 60_000 < raw.pttl(KEY) <= 10 * HOUR


@pytest.mark.parametrize(
    "changed",
    [
        {"@d": OTHER},  # another session's record
        {"@d": DIGEST[:10] + "e"},
        {"@d": None},
        {"@live": "0"},
        {"@live": None},
        {"@i": 1},  # has run out
        {"@i": None},
        {"@x": None},
        {"@i": "x"},
        {"@i": "." * 9},
    ],
    ids=str,
)
def test_extending_touches_nothing_else(store: RedisStore, raw: Any, changed: dict[str, object]) -> None:
    """A record that is not the living one of this very session is left as it is, its expiry too."""
    now = store.endpoint.time_ms(timeout=WAIT)
    store.push(a_row(now), now, HOUR, timeout=WAIT)
    say(raw, KEY, changed)
    before = raw.hgetall(KEY)
    assert store.extend_idle(DIGEST, 2 * HOUR, timeout=WAIT) == 0
    assert raw.hgetall(KEY) == before
    assert raw.pttl(KEY) <= HOUR


@pytest.mark.parametrize("kind", ["nothing", "a list"])
def test_extending_what_is_no_record(store: RedisStore, raw: Any, kind: str) -> None:
    """It makes none, and mends none."""
    if kind == "a list":
        raw.lpush(KEY, "x")
    before = raw.type(KEY)
    assert store.extend_idle(DIGEST, HOUR, timeout=WAIT) == 0
    assert raw.type(KEY) == before


# -- push.lua and quarantine.lua --------


@pytest.mark.parametrize(
    "there",
    [
        {"@d": OTHER, "@live": "0"},
        {"@d": "", "@live": "0"},
        {"@d": OTHER, "@live": "1"},
        {"@live": ""},
        {"@at": ""},
        {"@e": ""},
    ],
    ids=str,
)
def test_a_push_replaces_another_session_s_record(store: RedisStore, raw: Any, there: dict[str, str]) -> None:
    """Neither the tombstone nor the version nor the idle expiry of another session's record counts; nor do those of
    a damaged one."""
    now = store.endpoint.time_ms(timeout=WAIT)
    said = {"@d": DIGEST, "@v": 99, "@at": now, "@i": now + 9 * HOUR, "@x": now + 9 * HOUR, "@c": now, "@e": 0, **there}
    raw.hset(KEY, mapping={"@m": packed(said), "user_role": '"admin"'})
    assert store.push(a_row(now), now, HOUR, timeout=WAIT) == "pushed"
    after = says(raw, KEY)
    assert (after["@d"], after["@v"], after["@i"]) == (DIGEST[:11], "1", str(now + HOUR))
    assert "user_role" not in after


def test_only_a_foreign_record_is_quarantined_where_that_is_asked(store: RedisStore, raw: Any) -> None:
    """A reply that was read by the wrong reader looks like one."""
    now = store.endpoint.time_ms(timeout=WAIT)
    store.push(a_row(now), now, HOUR, timeout=WAIT)
    store.quarantine(USER, "auth", timeout=WAIT, only_foreign=True)
    assert raw.exists(KEY)
    say(raw, KEY, {"@d": OTHER})
    store.quarantine(USER, "auth", timeout=WAIT, only_foreign=True)
    assert not raw.exists(KEY)
    assert says(raw, f"{KEY}:aside")["@d"] == OTHER[:11]
    assert 0 < raw.pttl(f"{KEY}:aside") <= 24 * HOUR


# -- canary.lua --------------------------------------------------------------------------------------------------------


def look(store: RedisStore, known: Canary | None) -> Canary:
    return store.endpoint.look_at_canary(known, timeout=WAIT)


def test_a_canary_counts_on_and_begins_anew_after_a_loss(store: RedisStore, raw: Any) -> None:
    """The same generation and the next number; another generation when it is gone, smaller, or no canary at all."""
    first = look(store, None)
    second = look(store, first)
    assert (second.canary_id, second.number) == (first.canary_id, first.number + 1)
    assert look(store, Canary("another worker's", 10**9, 0)).canary_id == first.canary_id
    for lose in (
        lambda: raw.delete(CANARY),
        lambda: raw.hset(CANARY, "number", 0),
        lambda: (raw.delete(CANARY), raw.lpush(CANARY, "x")),
    ):
        known = look(store, look(store, None))
        lose()
        assert look(store, known).canary_id != known.canary_id
        assert raw.hget(CANARY, "number") == "1"


@pytest.mark.parametrize("right", ["hmget", "hset", "evalsha"])
def test_a_right_that_is_missing_at_the_canary_is_no_loss(store: RedisStore, raw: Any, right: str) -> None:
    """The error is told as what it is, the canary stays, and the look after it finds nothing lost."""
    known = look(store, look(store, None))
    store.server_identity.saw(known)
    before = raw.hgetall(CANARY)
    with without(raw, right), pytest.raises(StoreError) as caught:
        look(store, known)
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
    assert raw.hgetall(CANARY) == before
    found = look(store, known)
    assert found.canary_id == known.canary_id
    assert not store.server_identity.saw(found)
