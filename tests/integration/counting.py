"""What requests cost, by the servers' own statistics. The monitors' own commands must not be counted with them."""

from __future__ import annotations

import time

from devservers.servers import Valkey
from flask_langpont_session.recovery.monitor import Monitor
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.support import forks


def evals(server: Valkey) -> int:
    """Scripts the server was sent so far: the only commands that requests use."""
    wait_for_monitors()
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


def wait_for_monitors() -> None:
    """Their first look, and what it brings to Redis, is over; the next one is HEALTH_INTERVAL away."""
    deadline = time.monotonic() + 60
    for monitor in list(forks._renewals):
        if isinstance(monitor, Monitor) and not monitor.is_stopping and _is_real(monitor):
            monitor.ensure_started()
            while not monitor.has_looked or monitor.replay.has_incidents or monitor.replay.gives_back:
                assert time.monotonic() < deadline, "the monitor does not come to rest"
                time.sleep(0.005)


def _is_real(monitor: Monitor) -> bool:
    """Not so in the simulation of the protocol, whose monitors are ticked by hand."""
    return isinstance(monitor.backend.primary, RedisStore)
