"""Aids for an application's own tests: a configuration without servers, outages on demand, the events that were sent.

>>> configure(app)                              # doctest: +SKIP
>>> with outage(app, 2):                        # doctest: +SKIP
...     assert client.get("/profile").status_code == 200

With pytest they are fixtures, see :mod:`flask_langpont_session.pytest_plugin`. They need ``pip install
"flask-langpont-session[testing]"``, or a Redis or Valkey that is given by its URL.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

from blinker import ANY
from flask import Flask

from . import events
from .build import CLOSES, State
from .config.checks import PREFIX
from .config.settings import ALONE, PATIENCE
from .exceptions import ConfigError
from .extension import EXTENSION, applications, arrange, state_of
from .policy.errors import ErrorClass, StoreError, role_of
from .policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health
from .policy.levels import LEVELS

_PATIENCE = 2.0
"""Seconds; a store that is really out of order is left to the monitor."""

_CLOSING = 10.0
"""Seconds; as long as a store may hang."""

_ELSEWHERE: Mapping[str, Any] = {
    "REDIS_URL": None,
    "REPLICA_URL": None,
    "DATABASE_URL": None,
    "JOURNAL": "",
}
"""Settings that name servers and files which the tests of an application leave alone → their values in tests."""

_REDIS = (PRIMARY, REPLICA)
_OFF: Mapping[int, tuple[str, ...]] = {0: (), 2: _REDIS, 3: _REDIS, 4: (*_REDIS, DATABASE)}
"""Level → the stores that do not answer there."""


def app_config(redis_url: str | None = None) -> dict[str, Any]:
    """Return a configuration for one application under test: nothing in it is shared with anything else.

    ``TESTING`` with a Redis in memory (fakeredis), or keys of its own in a given one; a SQLite file in a temporary
    folder, whose tables are made when they are needed; the journal in memory; time-outs that a busy machine does not
    reach.

    :param redis_url: of a Redis or Valkey for tests.
    :raises ConfigError: there is no `redis_url`, and fakeredis is not installed.
    """
    config = {**_ELSEWHERE, **{name.upper(): value for name, value in {**ALONE, **PATIENCE}.items()}}
    if redis_url is None:
        config["REDIS_URL"] = _redis_in_memory()
    else:
        config |= {"REDIS_URL": redis_url, "KEY_PREFIX": f"test:{secrets.token_hex(8)}"}
    ours = {f"{PREFIX}{name}": value for name, value in config.items()}
    return {"TESTING": True, "SECRET_KEY": secrets.token_hex(), **ours}


def configure(app: Flask, redis_url: str | None = None) -> None:
    """Give an application the configuration of :func:`app_config`, before or after ``init_app``.

    :param redis_url: of a Redis or Valkey for tests; None: one in memory.
    :raises ConfigError: there is no `redis_url`, and fakeredis is not installed; or what else the application's
        configuration says cannot work.
    """
    app.config.update(app_config(redis_url))
    if EXTENSION in app.extensions:
        arrange(app)


def _redis_in_memory() -> Any:
    try:
        import fakeredis
        import lupa  # noqa: F401 - without it fakeredis runs no scripts
    except ImportError:
        raise ConfigError(
            ['without a redis_url tests need fakeredis: pip install "flask-langpont-session[testing]"']
        ) from None
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@contextmanager
def closing_applications() -> Iterator[None]:
    """Close the applications for which the extension is set up while this is open; what those leave that are dropped
    meanwhile is closed by its end, too."""
    before = WeakSet(applications)
    try:
        yield
    finally:
        for app in list(applications):
            if app not in before:
                state_of(app).close()
        ends = time.monotonic() + _CLOSING
        # Not join(): one that is just being started, by whatever dropped the application, cannot be joined yet.
        while any(thread.name == CLOSES for thread in threading.enumerate()) and time.monotonic() < ends:
            time.sleep(0.001)  # tests only; closing takes milliseconds


@contextmanager
def outage(app: Flask, level: int) -> Iterator[None]:
    """Have requests of `app` find its stores as they are at a level of the decision table.

    :param level: 0: all is well; 1: the primary takes no writes; 2: no Redis answers; 3: nor has one for longer than
        LOCAL_CACHE_TTL; 4: nor does the database.
    :raises ValueError: there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level!r}; the levels are {', '.join(map(str, LEVELS))}")
    state = state_of(app)
    if level == 1:
        faults = dict.fromkeys(_named(PRIMARY, state.health), ErrorClass.WRITE_REFUSED)
    else:
        stores = {store for store, _ in state.health.breakers if role_of(store) in _OFF[level]}
        faults = dict.fromkeys(sorted(stores), ErrorClass.UNREACHABLE)
    with _faulty(state, faults):
        if level == 3:
            state.health.age_outage(state.settings.local_cache_ttl)
        yield


@contextmanager
def switched_off(app: Flask, *stores: str) -> Iterator[None]:
    """Have requests of `app` find these stores (``primary``, ``replica``, ``database``) down, as if they had timed out.

    Of a cluster, ``primary:2`` is the primary of one shard, and ``primary`` those of all that were found.

    The stores themselves are not touched. On leaving, the journal is replayed and requests use them again.

    :raises KeyError: the application has no such store.
    """
    state = state_of(app)
    names = [name for store in stores for name in _named(store, state.health)]
    with _faulty(state, dict.fromkeys(names, ErrorClass.UNREACHABLE)):
        yield


@contextmanager
def _faulty(state: State, faults: Mapping[str, ErrorClass]) -> Iterator[None]:
    """Have stores fail with these errors while this is open."""
    with state.monitor.paused():
        for name, error_class in faults.items():
            state.health.failed(StoreError(name, error_class, "SwitchedOff", timed_out=True), READ)
        try:
            state.monitor.outages.share()
            yield
        finally:
            deadline = time.monotonic() + _PATIENCE
            for name, error_class in faults.items():
                state.monitor.probes.recover(
                    name, (WRITE,) if error_class is ErrorClass.WRITE_REFUSED else (READ, WRITE)
                )
            while not _is_home(state) and time.monotonic() < deadline:
                time.sleep(0.01)  # another application on the same journal may be at it


def _is_home(state: State) -> bool:
    """Replay a slice of the journal. Return whether nothing waits any more."""
    state.monitor.recovery.run_once()
    return not state.backend.journal.waiting().entries


def _named(store: str, health: Health) -> list[str]:
    names = sorted({name for name, _ in health.breakers if store in (name, role_of(name))})
    if not names:  # a misspelt store is an error, not a test that sees no outage
        raise KeyError(store)
    return names


@contextmanager
def captured_events(app: Flask | None = None) -> Iterator[list[object]]:
    """Yield a list of the events (values of :mod:`flask_langpont_session.events`) that are sent for `app`; None: for
    any."""
    seen: list[object] = []

    def receive(sender: object, event: object) -> None:
        seen.append(event)

    with ExitStack() as stack:
        for signal in events.ALL:
            stack.enter_context(signal.connected_to(receive, sender=ANY if app is None else app))
        yield seen
