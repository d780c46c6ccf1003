"""D25, I31: clocks are set in an outage, by ten seconds, an hour and a day; nothing is lost, and nothing is undone.

Each clock is set where the package reads it: that of a host where it asks for the time, that of a server of Redis and
that of the database in what they say and do by it. ``tests/data/test_clocks.py`` sets that of a real server.
"""

from __future__ import annotations

import pytest

from .walker import broken_by, parse

SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000

OUTAGES = {
    "redis": ("freeze primary; freeze replica", "thaw primary; thaw replica"),
    "database": ("database down", "database up"),
    "both": ("freeze primary; freeze replica; database down", "thaw primary; thaw replica; database up"),
}

BEFORE = """
profile long
remember
sign_in w0 alice s0
sign_in w0 root s1
append w0 s0; append w1 s0; add w0 s0; write w0 s0; read w1 s0; read w1 s1; read w2 s0; read w2 s1
"""

MEANWHILE = {
    "redis": "append w1 s0; add w1 s0; write w0 s0; sign_out w0 s1",
    "database": "append w1 s0; add w1 s0; write w0 s0; sign_out w0 s1",
    "both": "sign_out w0 s1; revoke_user w0 root",
}


@pytest.mark.parametrize("ms", [10 * SECOND, -10 * SECOND, HOUR, -HOUR, DAY, -DAY])
@pytest.mark.parametrize("whose", ["h0", "h1", "primary", "database"])
@pytest.mark.parametrize("outage", OUTAGES)
def test_d25_a_clock_is_set_in_an_outage(outage: str, whose: str, ms: int) -> None:
    """Data written before and in the outage is there afterwards, and users who signed out stay signed out; a session
    that a clock makes look idle for too long has ended, for good."""
    begin, end = OUTAGES[outage]
    step = f"set_clock {whose} {ms}; read w1 s0; read w1 s1"
    lines = [BEFORE, begin, "pass 3000; tick all", MEANWHILE[outage], step]
    lines += [end, "rest", *([] if (whose, ms) == ("database", DAY) else ["kept s0"]), "heal"]
    schedule = parse("\n".join(lines).replace("; ", "\n"))
    assert broken_by(schedule) is None
