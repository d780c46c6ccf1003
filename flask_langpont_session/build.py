"""From configuration to parts: the one module that knows how everything is put together.

Nothing is connected here: an application starts with every store down, and heals by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blinker import Signal
from flask import Flask
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.retry import Retry

from . import events
from .config import Settings, load_settings
from .exceptions import ConfigError
from .health import DATABASE, PRIMARY, REPLICA, Health
from .host_memory import HostMemory
from .metrics import Recorder
from .monitor import Monitor
from .repository import SessionRepository
from .stores import sentinel
from .stores.base import StoreError
from .stores.database import Database, make_engine
from .stores.fence import Fence
from .stores.journal import Journal
from .stores.local import LocalCopies
from .stores.redis import RedisStore

log = logging.getLogger(__name__)

Emit = Callable[[Signal, object], None]


@dataclass(frozen=True)
class State:
    """The parts of one application."""

    settings: Settings
    repository: SessionRepository
    health: Health
    recorder: Recorder
    monitor: Monitor


def build(app: Flask) -> State:
    """The parts of one application.

    :raises ConfigError: with every mistake of the configuration.
    """
    settings = load_settings(app)
    recorder = Recorder()
    emit = _emitter(app)
    local = LocalCopies(settings.local_cache_size, settings.local_cache_ttl)
    journal = _journal(settings)
    monitors: list[Monitor] = []  # a monitor needs all parts, some of which tell it what they notice
    redis = _redis_stores(settings, emit, local, journal, monitors)
    health = _health(settings, [*redis, DATABASE], emit, monitors)
    repository = SessionRepository(
        settings,
        redis=redis,
        database=_database(app, settings),
        local=local,
        journal=journal,
        health=health,
        recorder=recorder,
        emit=emit,
    )
    monitor = Monitor(repository, interval=settings.health_interval, slow=settings.slow_ms / 1000)
    monitors.append(monitor)
    return State(settings, repository, health, recorder, monitor)


def _health(settings: Settings, stores: list[str], emit: Emit, monitors: list[Monitor]) -> Health:
    def level_changed(old: int, new: int) -> None:
        log.warning("session stores: level %d -> %d", old, new)
        emit(events.level_changed, events.LevelChanged(old, new))

    def store_lost(store: str, direction: str, cause: str) -> None:
        log.warning("session store %s does not take %ss: %s", store, direction, cause)
        emit(events.store_lost, events.StoreLost(store, direction, cause))

    def store_failed(store: str) -> None:
        for monitor in monitors:
            monitor.suspect(store)

    return Health(
        stores,
        threshold=settings.failure_threshold,
        local_ttl=settings.local_cache_ttl,
        on_change=level_changed,
        on_lost=store_lost,
        on_failure=store_failed,
    )


def _emitter(app: Flask) -> Emit:
    def emit(signal: Signal, event: object) -> None:
        for receiver in signal.receivers_for(app):
            try:
                receiver(app, event=event)
            except Exception:
                # Whoever listens must not be able to break a request.
                log.exception("a listener of %s failed", type(event).__name__)

    return emit


def _redis_stores(
    settings: Settings, emit: Emit, local: LocalCopies, journal: Journal, monitors: list[Monitor]
) -> dict[str, RedisStore]:
    def primary_is_older() -> None:
        local.forget_categories()
        for monitor in monitors:
            monitor.note_incident()

    places = (
        (PRIMARY, settings.redis_url, settings.redis_client, primary_is_older),
        (REPLICA, _replica_url(settings), settings.replica_client, lambda: None),
    )
    stores = {}
    for name, url, client, on_incident in places:
        if url or client is not None:
            fence = Fence(on_incident, HostMemory(journal, name), _changed(name, emit))
            if client is not None:
                pool = _pool_of(client, settings, fence)
            else:
                pool = make_pool(url or "", settings, fence, is_master=name == PRIMARY)
            stores[name] = RedisStore(name, pool, prefix=settings.key_prefix, fence=fence)
    return stores


def _replica_url(settings: Settings) -> str | None:
    """Sentinels know the replicas too, so nobody has to name them."""
    if settings.replica_url or settings.replica_client is not None:
        return settings.replica_url
    return settings.redis_url if sentinel.is_sentinel(settings.redis_url) else None


def _changed(store: str, emit: Emit) -> Callable[[], None]:
    return lambda: emit(events.server_changed, events.ServerChanged(store))


def _pool_of(client: Any, settings: Settings, fence: Fence) -> Any:
    """A pool of our own to where a ready client connects: its place and credentials, our time-outs and our fence.

    Pools of other kinds (Sentinel's, fakeredis') know more than a place; they are used as they are.
    """
    pool = client.connection_pool
    plain = type(pool) in (ConnectionPool, BlockingConnectionPool)
    own = pool.connection_class.__module__ == "redis.connection"
    if not (plain and own) or pool.connection_kwargs.get("redis_connect_func"):
        return pool
    return BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=pool.connection_class,
        max_connections=settings.redis_max_connections,
        timeout=settings.redis_pool_timeout,
        **{**pool.connection_kwargs, **_waits(settings, fence)},
    )


def _waits(settings: Settings, fence: Fence) -> dict[str, Any]:
    """What keeps a connection from hanging a request, and from being believed unasked."""
    return {
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "decode_responses": False,
        "driver_info": None,
        "redis_connect_func": fence.introduce,
    }


def make_pool(url: str, settings: Settings, fence: Fence, *, is_master: bool = True) -> ConnectionPool:
    """A pool that cannot hang a request: no hidden retries, own time-outs, a short wait for a free connection.

    :param is_master: which server of a service is wanted, where sentinels know them all.
    """
    options = {"password": settings.redis_token} if settings.redis_token else {}
    tls_options = {"ssl_ca_certs": str(settings.redis_ca_file)} if settings.redis_ca_file else {}
    size: dict[str, Any] = {"max_connections": settings.redis_max_connections, "timeout": settings.redis_pool_timeout}
    waits = _waits(settings, fence)
    if sentinel.is_sentinel(url):
        return sentinel.make_pool(
            sentinel.parse(url), is_master=is_master, waits=waits, options=options, tls_options=tls_options, **size
        )
    if url.startswith(("rediss:", "valkeys:")):
        options |= tls_options
    if url.startswith("valkey"):
        url = url.replace("valkey", "redis", 1)
    return BlockingConnectionPool.from_url(url, protocol=3, **size, **waits, **options)


def _database(app: Flask, settings: Settings) -> Database:
    engine = settings.database_engine
    if engine is None:
        url = settings.database_url or ""
        if url.startswith("sqlite"):
            Path(app.instance_path).mkdir(parents=True, exist_ok=True)
        engine = make_engine(url, settings.database_timeout)
    return Database(engine, timeout=settings.database_timeout, concurrency=settings.database_concurrency)


def _journal(settings: Settings) -> Journal:
    path = Path(settings.journal) if settings.journal else None
    journal = Journal(path)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        journal.open()
    except (StoreError, OSError) as error:
        raise ConfigError(
            [f"LANGPONT_SESSION_JOURNAL: {os.fspath(path) if path else 'memory'} cannot be used ({error}); "
             "name a file this process may write, or set None to go without (the docs say what is lost then)"]
        ) from error  # fmt: skip
    return journal
