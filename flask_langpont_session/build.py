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
from .metrics import Recorder
from .monitor import Monitor
from .repository import SessionRepository
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
    redis = _redis_stores(settings, emit, local)
    health, listen = _health(settings, [*redis, DATABASE], emit)
    repository = SessionRepository(
        settings,
        redis=redis,
        database=_database(app, settings),
        local=local,
        journal=_journal(settings),
        health=health,
        recorder=recorder,
        emit=emit,
    )
    monitor = Monitor(repository, interval=settings.health_interval, slow=settings.slow_ms / 1000)
    listen(monitor)
    return State(settings, repository, health, recorder, monitor)


def _health(settings: Settings, stores: list[str], emit: Emit) -> tuple[Health, Callable[[Monitor], None]]:
    """Health, and how to make a monitor hear of failures: it needs health itself, so it comes later."""
    monitors: list[Monitor] = []

    def level_changed(old: int, new: int) -> None:
        log.warning("session stores: level %d -> %d", old, new)
        emit(events.level_changed, events.LevelChanged(old, new))

    def store_lost(store: str, direction: str, cause: str) -> None:
        log.warning("session store %s does not take %ss: %s", store, direction, cause)
        emit(events.store_lost, events.StoreLost(store, direction, cause))

    def store_failed(store: str) -> None:
        for monitor in monitors:
            monitor.suspect(store)

    health = Health(
        stores,
        threshold=settings.failure_threshold,
        local_ttl=settings.local_cache_ttl,
        on_change=level_changed,
        on_lost=store_lost,
        on_failure=store_failed,
    )
    return health, monitors.append


def _emitter(app: Flask) -> Emit:
    def emit(signal: Signal, event: object) -> None:
        for receiver in signal.receivers_for(app):
            try:
                receiver(app, event=event)
            except Exception:
                # Whoever listens must not be able to break a request.
                log.exception("a listener of %s failed", type(event).__name__)

    return emit


def _redis_stores(settings: Settings, emit: Emit, local: LocalCopies) -> dict[str, RedisStore]:
    def primary_changed() -> None:
        local.forget_categories()
        emit(events.server_changed, events.ServerChanged(PRIMARY))

    def replica_changed() -> None:
        emit(events.server_changed, events.ServerChanged(REPLICA))

    places = (
        (PRIMARY, settings.redis_url, settings.redis_client, primary_changed),
        (REPLICA, settings.replica_url, settings.replica_client, replica_changed),
    )
    stores = {}
    for name, url, client, on_change in places:
        if url or client is not None:
            fence = Fence(on_change)
            pool = _pool_of(client, settings, fence) if client is not None else make_pool(url or "", settings, fence)
            stores[name] = RedisStore(name, pool, prefix=settings.key_prefix, fence=fence)
    return stores


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


def make_pool(url: str, settings: Settings, fence: Fence) -> ConnectionPool:
    """A pool that cannot hang a request: no hidden retries, own time-outs, a short wait for a free connection."""
    options: dict[str, Any] = {}
    if settings.redis_token:
        options["password"] = settings.redis_token
    if settings.redis_ca_file and url.startswith(("rediss:", "valkeys:")):
        options["ssl_ca_certs"] = str(settings.redis_ca_file)
    return BlockingConnectionPool.from_url(
        url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
        max_connections=settings.redis_max_connections,
        timeout=settings.redis_pool_timeout,
        protocol=3,
        **_waits(settings, fence),
        **options,
    )


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
