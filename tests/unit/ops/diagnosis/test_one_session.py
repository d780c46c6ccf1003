"""The state of a session, derived from what each store says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.ops.diagnosis.findings import Unknown
from flask_langpont_session.ops.diagnosis.one_session import InRedis, OneSession, SessionState
from flask_langpont_session.policy.devices import DescribedRow
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.stores.host.summary import Waiting
from flask_langpont_session.stores.redis.auth_meta import AuthMeta
from tests.support.fake_stores import NOW_MS, a_row

HOUR = 3_600_000
ROW = replace(
    a_row("one"),
    created_at=NOW_MS - HOUR,
    read_at=NOW_MS,
    idle_expires_at=NOW_MS + HOUR // 2,
    absolute_expires_at=NOW_MS + 11 * HOUR,
)
IDLE = replace(ROW, idle_expires_at=NOW_MS - 1)
DOES_NOT_ANSWER = Unknown("it does not answer")
LIVES = (Life(HOUR, 12 * HOUR), Life(24 * HOUR, 24 * HOUR))
LIVE = AuthMeta(True, 1, NOW_MS, NOW_MS + HOUR // 2, NOW_MS + 11 * HOUR, NOW_MS - HOUR)


def in_redis(auth: AuthMeta | None = None, *names: str) -> InRedis:
    return InRedis("primary", auth, {name: {"keys": 1, "bytes": 5} for name in names}, {})


def a_session(row: Any = None, redis: Any = None, journal: Any = None, updated_at: int = NOW_MS - HOUR) -> OneSession:
    described = DescribedRow(row, updated_at=updated_at) if row and row is not DOES_NOT_ANSWER else row
    return OneSession("one", described, redis or in_redis(), journal, LIVES)


@pytest.mark.parametrize(
    ("session", "state"),
    [
        (a_session(ROW), SessionState.VALID),
        (a_session(replace(ROW, live=False), in_redis(LIVE)), SessionState.DEAD),
        (a_session(ROW, in_redis(AuthMeta(False, 0))), SessionState.DEAD),
        (a_session(ROW, in_redis(LIVE), {"revocations": Waiting(1, NOW_MS)}), SessionState.DEAD),
        (a_session(ROW, in_redis(LIVE), {"user_revocations": Waiting(1, NOW_MS)}), SessionState.DEAD),
        (a_session(ROW, in_redis(LIVE), {"writes": Waiting(1, NOW_MS)}), SessionState.VALID),
        (a_session(IDLE, in_redis(LIVE)), SessionState.VALID),
        (a_session(IDLE, DOES_NOT_ANSWER), SessionState.IDLE_EXPIRED),
        (a_session(replace(ROW, absolute_expires_at=NOW_MS)), SessionState.EXPIRED),
        (a_session(DOES_NOT_ANSWER, in_redis(LIVE)), SessionState.UNCONFIRMED),
        (a_session(DOES_NOT_ANSWER, in_redis(None, "ui")), SessionState.UNKNOWN),
        (a_session(None, DOES_NOT_ANSWER), SessionState.UNKNOWN),
        (a_session(None, in_redis(None, "ui")), SessionState.VISITOR),
        (a_session(None, None, {"writes": Waiting(1, NOW_MS)}), SessionState.VISITOR),
        (a_session(), SessionState.NOT_FOUND),
    ],
)
def test_the_state_of_a_session(session: OneSession, state: SessionState) -> None:
    assert session.state is state


@pytest.mark.parametrize(
    ("session", "last_seen"),
    [
        (a_session(ROW), (NOW_MS - HOUR // 2, HOUR // 4)),
        (a_session(ROW, in_redis(LIVE._replace(idle_expires_at=NOW_MS + HOUR))), (NOW_MS, HOUR // 4)),
        (a_session(replace(ROW, absolute_expires_at=NOW_MS + HOUR)), (NOW_MS - HOUR, None)),  # settings have changed
        (a_session(replace(ROW, idle_expires_at=ROW.absolute_expires_at)), (NOW_MS - HOUR, None)),  # never moved
        (a_session(None, in_redis(None, "ui")), None),
    ],
)
def test_when_a_session_was_last_seen(session: OneSession, last_seen: tuple[int, int | None] | None) -> None:
    """The time is as exact as the idle expiry is moved; else it is that of the last change."""
    assert session.last_seen == last_seen


@pytest.mark.parametrize("idle_ms", [HOUR, 8 * HOUR])
@pytest.mark.parametrize("late_ms", [0, 7])
def test_i35_a_permanent_session_is_told_from_others_that_live_as_long_in_all(idle_ms: int, late_ms: int) -> None:
    """The note of the last use tells them apart, which a statement makes that is some milliseconds later than the
    read."""
    lives = (Life(HOUR, 12 * HOUR), Life(8 * HOUR, 12 * HOUR))
    seen_at = NOW_MS - HOUR // 2
    row = replace(ROW, idle_expires_at=seen_at + idle_ms)
    session = OneSession("one", DescribedRow(row, seen_at=seen_at + late_ms), in_redis(), None, lives)
    assert session.last_seen == (seen_at, idle_ms // 4)
    assert replace(session, described=DescribedRow(row)).last_seen is not None
