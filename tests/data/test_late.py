"""The proxy that holds back what is asked: a command arrives when its client has given up."""

from __future__ import annotations

import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.appends.hosts import LONG, Stage
from benchmarks.appends.late import HOLD_REQUEST, LateProxy, hold_request
from example_app.processes import wait_until


@pytest.mark.parametrize("heals", [True, False], ids=["the fault ends", "the time is over"])
def test_what_is_asked_arrives_late(stage: Stage, heals: bool) -> None:
    """The client hears nothing, the server has not heard of it yet; then it does what it was asked."""
    with LateProxy("127.0.0.1", stage.redis.port) as proxy, stage.redis.client() as direct:
        retry = Retry(NoBackoff(), 0)
        client = redis.Redis(port=proxy.port, socket_timeout=0.2, retry=retry, decode_responses=True, protocol=2)
        client.set("before", "1")
        proxy.impose(hold_request(LONG if heals else 1.0))
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.set("late", "1")
        assert direct.get("late") is None or time.monotonic() - began > 1.0
        assert proxy.hits[HOLD_REQUEST] == 1
        if heals:
            proxy.heal()
        wait_until(lambda: direct.get("late") == "1", "the late command", LONG)
        client.close()
