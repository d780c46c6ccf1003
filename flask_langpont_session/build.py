"""From configuration to parts: the one module that knows how everything is put together.

No store is connected here: an application starts with every store down, and heals by itself.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from blinker import Signal
from flask import Flask
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.retry import Retry
from sqlalchemy.engine import make_url

from . import events
from .config.checks import FLASK_COOKIE, FLASK_SESSION_PICKLE, is_local, moment_of
from .config.explanations import what_users_get
from .config.rules import is_command
from .config.settings import Settings, changes_of_settings, load_settings
from .exceptions import ConfigError, GrantRefused
from .metrics.incident_log import IncidentLog
from .metrics.recorder import Reader, Recorder
from .metrics.reports import Reports
from .policy.errors import ErrorClass, StoreError, role_of, shard_of, words_of
from .policy.health import DATABASE, PRIMARY, REPLICA, WRITE, Health, HealthLimits, Listeners, Shards
from .policy.leases import EXTEND_AFTER
from .recovery.monitor import Monitor, Notices, Round
from .request.repository import SessionRepository
from .stores.backend import Backend, SessionStore
from .stores.codec.plain import PLAIN, Codec
from .stores.host.board import Board, HostMemory
from .stores.host.journal import Journal, journal_at
from .stores.host.limits import BYTES_OF_AN_ENTRY, JournalLimits
from .stores.host.opening import path_of, unread
from .stores.host.register import Register
from .stores.hosts import HostWord, HostWords, word_of
from .stores.memory.ended import Ended
from .stores.memory.memory import Memory
from .stores.redis import connections, routed
from .stores.redis.cluster import ClusterStore, ShardEndpoint, ShardRoute
from .stores.redis.connections import Pool
from .stores.redis.dns import DnsCache
from .stores.redis.endpoint import Endpoint
from .stores.redis.link import Link
from .stores.redis.link import Reports as LinkReports
from .stores.redis.near import NearCache
from .stores.redis.nodes import Nodes
from .stores.redis.sentinel import route_to
from .stores.redis.sentinel_watch import SentinelWatch, watch_over
from .stores.redis.server_identity import ServerIdentity
from .stores.redis.slots import SINGLE, Address, name_of
from .stores.redis.store import RedisStore
from .stores.redis.topology import ClusterTopology
from .stores.redis.url import (
    CONNECTIONS,
    Kind,
    connections_of,
    for_redis_py,
    group_options,
    kind_of,
    read_cluster,
    read_sentinel,
    secret_of,
)
from .stores.sql.database import Database, make_engine
from .stores.sql.dialects import advice
from .support.forks import renew_if_locks_were_exchanged
from .support.logs import fields
from .support.scratch import Scratch
from .support.threads import start_daemon

if TYPE_CHECKING:
    from .adoption.adopter import Adoption, Source
    from .aws.cloud import Cloud
    from .ops.alerts.alerts import Alerts
    from .ops.exporters.exporting import Exporting
    from .ops.exporters.session_index import ActiveSessions
    from .ops.status_page.history import History

log = logging.getLogger(__name__)

Emit = Callable[[Signal, object], None]
MakeIdentity = Callable[[str], ServerIdentity]

DATABASE_CALLS = 4
"""Calls of requests to the database at a time, per process. Further requests go on with what is known already: a slow
database must not occupy all threads."""

CLOSES = "langpont-session-close"
"""Name of the threads that close what applications leave that are dropped."""


@dataclass(frozen=True)
class State:
    """The parts of one application. None of them holds the application: it is gone with the last reference to it."""

    settings: Settings
    backend: Backend
    repository: SessionRepository
    health: Health
    recorder: Recorder
    monitor: Monitor
    alerts: Alerts | None = None
    exporting: Exporting | None = None
    adoption: Adoption | None = None
    history: History | None = None
    watch: SentinelWatch | None = None
    scratch: Scratch | None = None
    """The files of an application under test; None: it is not under test."""

    def ensure_started(self) -> None:
        """Start the threads beside the requests in this process unless they run."""
        renew_if_locks_were_exchanged()
        self.monitor.ensure_started()
        if self.exporting is not None:
            self.exporting.ensure_started()

    def close(self) -> None:
        """End the threads that run beside the requests, after they have published and told what is left, and let go of
        connections and files. May be called again. A process that ends, and an application that is dropped, do it by
        themselves. A later request would begin with connections anew, but without these threads.
        """
        if self.exporting is not None:
            self.exporting.stop()
        if self.alerts is not None:
            self.alerts.stop()
        self.monitor.stop()
        if self.watch is not None:
            self.watch.close()
        self.backend.database.close()
        self.backend.journal.close()
        for store in self.backend.redis.values():
            store.forget_connections()
        if self.adoption is not None:
            self.adoption.close()


def close_with(app: Flask, state: State) -> Callable[[], object]:
    """Have the parts closed when the application is gone; at the end of the process each does that by itself.

    :return: calls that off.
    """
    finalizer = weakref.finalize(app, _close_beside, state)
    finalizer.atexit = False
    return finalizer.detach


def _close_beside(state: State) -> None:
    """Close the parts in a thread of its own: closing waits, and the last reference may go in a thread that holds any
    lock."""
    start_daemon(CLOSES, state.close)


def build(app: Flask, recorder: Recorder | None) -> State:
    """Return the parts of one application.

    :param recorder: that of its parts before; None: there are none.
    :raises ConfigError: with every mistake of the configuration.
    """
    scratch = Scratch() if app.testing else None
    settings = load_settings(app, scratch)
    recorder = _recorder(settings) if recorder is None else recorder
    emit, notices, codec = _emitter(app, recorder), Notices(), _codec(settings)
    journal = _journal(settings, codec)
    cloud = ask_aws(settings)
    directory = _directory(settings, cloud)
    make_identity = _server_identities(journal.board, emit, notices)
    most, ttl = settings.memory_bytes, settings.local_cache_ttl
    memory = Memory(most, ttl, ended=Ended(most, ttl, tombstone_ms=settings.lease_terms.tombstone_ms))
    stores = _RedisStores(settings, cloud, recorder, make_identity, memory, journal.board.register, codec)
    redis = stores.configured() if directory is None else stores.found(directory)
    incidents = IncidentLog(recorder, partial(_address, settings, redis), partial(what_users_get, settings))
    health = _health(settings, redis, emit, notices, incidents, directory)
    memory.on_missing = lambda digest: notices.suspect(f"{PRIMARY}{health.locate(digest)}")
    active = _active_sessions(settings, recorder, health, redis)
    in_use = None if active is None else active.notes
    reports = Reports(recorder, emit, in_use, raises=partial(_is_in_development, weakref.ref(app)))
    database = _database(app, settings, codec)
    backend = Backend(settings, reports, redis=redis, database=database, memory=memory, journal=journal, health=health)
    repository = SessionRepository(backend, make_refusal=_refusals(app, health))
    history, watch, hosts = _history(settings, recorder, health), _sentinel_watch(redis, notices), _hosts(app, backend)
    attendance = _Attendance(backend, incidents, hosts, cloud, directory, history, watch, _advice(app, settings))
    monitor = Monitor(backend, notices=notices, attend=attendance)
    if scratch is not None:
        scratch.users.append(monitor.stop)
    return State(
        settings,
        backend,
        repository,
        health,
        recorder,
        monitor,
        alerts=_alerts(app, settings, recorder, backend),
        exporting=_exporting(active, backend, monitor),
        adoption=_adoption(app, settings, repository),
        history=history,
        watch=watch,
        scratch=scratch,
    )


def _codec(settings: Settings) -> Codec:
    if not settings.encryption_keys:
        return PLAIN
    from .stores.codec.cipher import Cipher  # not paid for without a key
    from .stores.codec.keys import read_key
    from .stores.codec.sealing import SealingCodec

    ends = moment_of(settings.encryption_switch_over)
    plain_until = 0.0 if ends is None else ends.timestamp()
    cipher = Cipher(list(map(read_key, settings.encryption_keys)))
    return SealingCodec(cipher, settings.sealed_categories, plain_until=plain_until)


def _recorder(settings: Settings) -> Recorder:
    if "otel" not in settings.metrics:
        return Recorder()
    from .ops.exporters.otel import TracingRecorder  # not paid for by applications that do not trace

    return TracingRecorder()


def ask_aws(settings: Settings) -> Cloud | None:
    """Return the servers and credentials that AWS names, after a short wait for its answers; None: no setting asks for
    it.

    :raises ConfigError: AWS has said what the group is like, and it is none that can be used.
    """
    if not (kind_of(settings.redis_url) is Kind.GROUP or secret_of(settings.redis_url)):
        return None
    from .aws.cloud import cloud_of  # not paid for without AWS

    cloud = cloud_of(settings)
    cloud.begin()
    return cloud


@dataclass(frozen=True)
class _Attendance:
    """The work of each round of the monitor beside its own: refreshing what may lead to a store that is lost (another
    place, another token, another address), and noting the round. A part that is None has nothing to do.

    :param once: what is done in the first round alone.
    """

    backend: Backend
    incidents: IncidentLog
    hosts: HostWords
    cloud: Cloud | None
    directory: ClusterTopology | None
    history: History | None
    watch: SentinelWatch | None
    once: list[Callable[[], None]]

    def __call__(self, found: Round) -> None:
        """Do the work of one round."""
        while self.once:
            self.once.pop()()
        if self.watch is not None:
            self.watch.ensure_started()
        if found.is_at_rest:
            self.incidents.nothing_waits(self.backend.health.lost_stores)
        roles = {role_of(store) for store in found.lost}
        if PRIMARY not in roles:
            self.hosts.attend()
        if self.cloud is not None:
            self.cloud.attend(self.backend.redis, roles)
        if self.directory is not None:
            self.directory.attend(bool(roles - {DATABASE}))
        for store in self.backend.redis.values():
            for name, part in store.endpoints.items():
                part.link.names.look(name in found.lost)
                if part.near is not None and name not in found.lost:
                    part.near.attend()
        if self.history is not None:
            self.history.attend(None if found.waiting is None else found.waiting.entries)


ALIKE = (
    *("environment", "service", "idle_timeout", "absolute_timeout", "privileged_idle_timeout"),
    *("privileged_absolute_timeout", "grace", "verify_interval", "local_cache_ttl"),
)
"""Settings that are to be the same on all hosts: the names of the site, and how long things last."""


def _hosts(app: Flask, backend: Backend) -> HostWords:
    """Return what tells the configuration of this process, as the doctor compares it. Flask's is read when it is
    needed. A command tells nothing: a drill leaves nothing behind, and has settings of its own."""
    its, is_worker = weakref.ref(app), not is_command()
    values = {name.upper(): str(getattr(backend.settings, name)) for name in ALIKE}

    def word() -> HostWord | None:
        app = its()
        if app is None or not app.secret_key or not is_worker:
            return None
        lifetime = f"{app.permanent_session_lifetime.total_seconds():g}"
        keys = (app.secret_key, *(app.config["SECRET_KEY_FALLBACKS"] or ()))
        return word_of({**values, "PERMANENT_SESSION_LIFETIME": lifetime}, keys)

    return HostWords(backend.primary, word)


def _sentinel_watch(redis: Mapping[str, SessionStore], notices: Notices) -> SentinelWatch | None:
    """Return the thread that ends connections to a primary which the sentinels replace; the monitor looks at once."""
    primary = redis[PRIMARY].endpoints.get(PRIMARY)  # none yet: a service other than sentinels has to find it
    return None if primary is None else watch_over(primary.link, partial(notices.suspect, PRIMARY))


def _active_sessions(
    settings: Settings, recorder: Recorder, health: Health, redis: Mapping[str, SessionStore]
) -> ActiveSessions | None:
    if not settings.metrics:
        return None
    from .ops.exporters import exporting
    from .ops.exporters.session_index import ActiveSessions  # not paid for where nothing is exported

    is_up = lambda: health.snapshot().can(PRIMARY, WRITE)  # noqa: E731
    return ActiveSessions(redis[PRIMARY], recorder, is_up=is_up, interval=exporting.INTERVAL)


def _exporting(active: ActiveSessions | None, backend: Backend, monitor: Monitor) -> Exporting | None:
    if active is None:
        return None
    from .ops.exporters.exporting import Exporting  # not paid for where nothing is exported

    def waiting() -> tuple[int | None, float]:
        found = monitor.outages.waiting
        return (None, 0.0) if found is None else (found.entries, found.oldest_seconds(time.time()) or 0.0)

    return Exporting(backend, active, waiting)


def _history(settings: Settings, recorder: Recorder, health: Health) -> History | None:
    if settings.status_page is None:
        return None
    from .ops.status_page.history import History  # not paid for where no page shows it

    return History(Reader(recorder, lambda: health.level), health)


def _health(
    settings: Settings,
    redis: Mapping[str, SessionStore],
    emit: Emit,
    notices: Notices,
    incidents: IncidentLog,
    directory: ClusterTopology | None,
) -> Health:
    def level_changed(old: int, new: int) -> None:
        incidents.level_changed(old, new, health.lost_stores)
        emit(events.level_changed, events.LevelChanged(old, new))

    def store_lost(error: StoreError, ways: Sequence[str]) -> None:
        incidents.lost(error, ways, health.level, health.lost_stores)
        for way in ways:
            emit(events.store_lost, events.StoreLost(error.store, way, error.error_class.name.lower()))

    def store_back(store: str, ways: Sequence[str], seconds: float) -> None:
        incidents.back(store, ways, seconds, health.level)
        for way in ways:
            emit(events.store_recovered, events.StoreRecovered(store, way, seconds))

    health = Health(
        # Which shards have replicas is known when they are found.
        [*(name for name, store in redis.items() if name == PRIMARY or store.endpoints), DATABASE],
        limits=HealthLimits(local_ttl=settings.local_cache_ttl, slow=settings.slow),
        listeners=Listeners(
            level_changed,
            store_lost,
            store_back,
            notices.suspect,
            notices.suspect_slowness,
            incidents.cause_changed,
        ),
        shards=Shards(directory.locate, directory.share) if directory else Shards(),
    )
    if directory is not None:
        directory.arranged = health.arrange
        directory.adopt_single()
    return health


def _address(settings: Settings, redis: Mapping[str, SessionStore], store: str) -> str:
    """Return the address of a store, for people."""
    if store == DATABASE:
        engine = settings.database_engine
        url = make_url(settings.database_url or "") if engine is None else engine.url
        return url.render_as_string(hide_password=True)
    # No node of a cluster may have answered yet, or a shard has left since the call to it failed.
    server = redis[role_of(store)].endpoints.get(store)
    return "its shards are not known" if server is None else server.address


def _alerts(app: Flask, settings: Settings, recorder: Recorder, backend: Backend) -> Alerts | None:
    if not settings.alert_topics:
        log.info("no alerts are sent: LANGPONT_SESSION_ALERT_TOPICS names no topic", extra=fields("no_alert_topics"))
        return None
    from .ops.alerts.alerts import attach  # not paid for without topics

    return attach(app, settings, backend.health, recorder, backend.remarks)


def _adoption(app: Flask, settings: Settings, repository: SessionRepository) -> Adoption | None:
    if not settings.adopt:
        return None
    from .adoption.adopter import Adoption, FlaskCookie  # not paid for where nothing is taken over

    its = cast(Flask, weakref.proxy(app))
    sources: list[Source] = [FlaskCookie(its)] if FLASK_COOKIE in settings.adopt else []
    if set(settings.adopt) - {FLASK_COOKIE}:
        sources.append(_flask_session(its, settings))
    return Adoption(its, settings, repository, sources)


def _flask_session(app: Flask, settings: Settings) -> Source:
    """Return the reader of Flask-Session's records, found by its own settings."""
    from .adoption.adopter import FlaskSessionRecord

    server_identity = ServerIdentity()
    pool = _pool_of(app.config["SESSION_REDIS"], settings, server_identity)
    link = Link("old", pool, server_identity=server_identity, connect_timeout=settings.redis_timeout)
    return FlaskSessionRecord(
        app,
        RedisStore(Endpoint(link, prefix="")),
        timeout=settings.redis_timeout,
        prefix=app.config.get("SESSION_KEY_PREFIX", "session:"),
        signed=bool(app.config.get("SESSION_USE_SIGNER", False)),
        pickled=FLASK_SESSION_PICKLE in settings.adopt,
    )


def _refusals(app: Flask, health: Health) -> Callable[[str], GrantRefused]:
    """Return what makes the 503 of a sign-in; in debug it tells the developer what is wrong."""
    its = weakref.ref(app)

    def refusal(key: str) -> GrantRefused:
        refused, app, error = GrantRefused(), its(), health.error(DATABASE)
        if app is not None and app.debug and error is not None:
            command = "init-db" if error.error_class is ErrorClass.NO_TABLES else "status"
            refused.description += (
                f" In debug: the session database: {words_of(error.error_class)}; run `flask langpont {command}`."
            )
        if app is not None and app.debug and key:
            refused.description += f" It has to decide about session[{key!r}], which names a user or gives a right."
        return refused

    return refusal


def _is_in_development(its: weakref.ref[Flask]) -> bool:
    app = its()
    return app is not None and (app.debug or app.testing)


def _advice(app: Flask, settings: Settings) -> list[Callable[[], None]]:
    """Return what is called once, when requests are served: functions that warn of what does nothing."""
    return [_late_settings(app), _other_sessions(app, settings)]


def _other_sessions(app: Flask, settings: Settings) -> Callable[[], None]:
    """Return a function that warns of settings of Flask-Session, unless its sessions are taken over."""
    its = weakref.ref(app)

    def warn() -> None:
        app = its()
        if app is not None and "SESSION_TYPE" in app.config and not settings.adopt:
            log.warning(
                "SESSION_TYPE is a setting of Flask-Session, and does nothing here: take it out, and Session(app) with "
                "it; to have its sessions taken over set LANGPONT_SESSION_ADOPT (docs/moving.md)",
                extra=fields("settings_of_flask_session"),
            )

    return warn


def _late_settings(app: Flask) -> Callable[[], None]:
    """Return a function that warns of settings which were made or changed after they had been read."""
    its, look = weakref.ref(app), changes_of_settings(app)

    def warn() -> None:
        app = its()
        if app is not None and (late := look(app)):
            log.warning(
                "%s: set after LangPontSession(app), which had read the settings; move that above it",
                ", ".join(late),
                extra=fields("settings_late", settings=late),
            )

    return warn


def _emitter(app: Flask, recorder: Recorder) -> Emit:
    sender = weakref.ref(app)

    def emit(signal: Signal, event: object) -> None:
        recorder.count(type(event).__name__)
        app = sender()
        if app is None:
            return
        for receiver in signal.receivers_for(app):
            try:
                receiver(app, event=event)
            except Exception:
                # A listener must not be able to break a request.
                name = type(event).__name__
                log.exception("a listener of %s failed", name, extra=fields("listener_failed", signal=name))

    return emit


def _server_identities(board: Board, emit: Emit, notices: Notices) -> MakeIdentity:
    """Return what makes the server identity of a store by the store's name."""

    def make(name: str) -> ServerIdentity:
        is_primary = role_of(name) == PRIMARY
        on_incident = partial(notices.note_incident, shard_of(name)) if is_primary else lambda: None

        def clock_set(seconds: float) -> None:
            log.warning(
                "the clock of the %s was set forward by %.0f s: what it let run out is given back",
                *(name, seconds),
                extra=fields("clock_set_forward", store=name, seconds=round(seconds)),
            )
            notices.suspect(name)

        return ServerIdentity(
            on_incident,
            HostMemory(board, name),
            lambda: emit(events.server_changed, events.ServerChanged(name)),
            clock_set if is_primary else lambda seconds: None,
        )

    return make


def _directory(settings: Settings, cloud: Cloud | None) -> ClusterTopology | None:
    """Return the topology where a service is asked for the servers, which may say that there are several shards; else
    None."""
    nodes = _nodes(settings, cloud)
    if nodes is None:
        return None

    names = DnsCache()

    def connect(address: Address, timeout: float) -> Any:
        waits = _waits(settings, lambda connection: connection.on_connect(), cloud)
        source = routed.make_pool(routed.Route(lambda: (address,), nodes.tls), waits=waits, options=nodes.options)
        connection = Pool(source, names).new()
        connections.connect(connection, time.monotonic() + timeout)
        connection.deadline.renew(time.monotonic() + timeout)
        return connection

    return ClusterTopology(nodes, connect)


def _nodes(settings: Settings, cloud: Cloud | None) -> Nodes | None:
    url, credentials = settings.redis_url or "", _credentials(cloud)
    if cloud is not None and cloud.group is not None:
        return cloud.group.nodes({**group_options(url), **credentials})
    if kind_of(settings.redis_url) is not Kind.CLUSTER:
        return None
    said = read_cluster(url)
    return Nodes(lambda: said.hosts, lambda: said.tls, {**said.options, **credentials})


@dataclass(frozen=True)
class _RedisStores:
    """Makes the stores in Redis of one application. The records are the same at a server and at its replica."""

    settings: Settings
    cloud: Cloud | None
    recorder: Recorder
    make_identity: MakeIdentity
    memory: Memory
    change_ids: Register
    codec: Codec

    def configured(self) -> dict[str, SessionStore]:
        """Return the stores whose servers the settings name."""
        settings = self.settings
        places = (
            (PRIMARY, settings.redis_url, settings.redis_client),
            (REPLICA, _replica_url(settings), None),
        )
        stores: dict[str, SessionStore] = {}
        for name, url, client in places:
            if url or client is not None:
                identity = self.make_identity(name)
                if client is not None:
                    pool = _pool_of(client, settings, identity)
                else:
                    pool = make_pool(url or "", settings, identity, self.cloud, is_master=name == PRIMARY)
                stores[name] = self._store(name, pool, identity)
        return stores

    def found(self, directory: ClusterTopology) -> dict[str, SessionStore]:
        """Return a primary and a replica, of several shards or of a single one, which are found when they are
        needed."""
        return {role: self._cluster(role, directory) for role in (PRIMARY, REPLICA)}

    def _cluster(self, role: str, directory: ClusterTopology) -> ClusterStore:
        is_master = role == PRIMARY

        def make(number: int) -> RedisStore:
            name, is_shard = f"{role}{name_of(number)}", number != SINGLE
            identity = self.make_identity(name)
            pool = routed.make_pool(
                ShardRoute(directory, number, is_master=is_master),
                waits=_waits(self.settings, identity.introduce, self.cloud),
                options=directory.nodes.options,
                **_size(self.settings, self.settings.redis_url),
            )
            return self._store(name, pool, identity, (directory, number) if is_shard else None)

        return ClusterStore(role, directory, make, prefix=self.settings.key_prefix, count=self.recorder.count)

    def _store(
        self, name: str, pool: Any, identity: ServerIdentity, shard: tuple[ClusterTopology, int] | None = None
    ) -> RedisStore:
        settings, role, near = self.settings, role_of(name), None
        link = Link(
            name,
            pool,
            server_identity=identity,
            reports=LinkReports(
                lambda seconds: self.recorder.measure("pool_wait", role, seconds * 1000),
                _surprises_of(role, self.recorder),
            ),
            connect_timeout=settings.redis_timeout,
        )
        change_ids = self.change_ids if settings.near_categories else None
        if role == PRIMARY and change_ids is not None:  # a replica hears of a change later than others do
            ttl, is_whole = settings.local_cache_ttl, shard is None
            near = NearCache(link, change_ids, self.memory, copies_ttl=ttl, keeps_absence=is_whole)
        if shard is None:
            endpoint = Endpoint(link, prefix=settings.key_prefix, near=near)
        else:
            directory, number = shard
            endpoint = ShardEndpoint(link, directory=directory, number=number, prefix=settings.key_prefix, near=near)
        return RedisStore(
            endpoint,
            tombstone_ms=settings.lease_terms.tombstone_ms,
            memory=self.memory,
            change_ids=change_ids,
            codec=self.codec,
        )


def _replica_url(settings: Settings) -> str | None:
    """Return the URL of the replica. Sentinels know the replicas too, so they need not be named."""
    if settings.replica_url:
        return settings.replica_url
    return settings.redis_url if kind_of(settings.redis_url) is Kind.SENTINEL else None


def _surprises_of(store: str, recorder: Recorder) -> Callable[[str], None]:
    def surprised(error: str) -> None:
        recorder.count("unknown_errors")
        log.warning(
            "session store %s: an error that is in no table counts as unreachable: %s",
            *(store, error),
            extra=fields("unknown_error", store=store, cause=error),
        )

    return surprised


def _pool_of(client: Any, settings: Settings, server_identity: ServerIdentity) -> Any:
    """Return a pool of our own to where a ready client connects: its place and credentials, our time-outs and our
    server identity.

    Pools of other kinds (Sentinel's, fakeredis') know more than a place; they are used as they are.
    """
    pool = client.connection_pool
    plain = type(pool) in (ConnectionPool, BlockingConnectionPool)
    own = pool.connection_class.__module__ == "redis.connection"
    if not (plain and own) or pool.connection_kwargs.get("redis_connect_func"):
        return pool
    place = {name: value for name, value in pool.connection_kwargs.items() if not name.endswith("_handler")}
    return BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=pool.connection_class,
        max_connections=CONNECTIONS,
        timeout=settings.pool_timeout,
        **{**place, **_waits(settings, server_identity.introduce)},
    )


def _waits(settings: Settings, introduce: Callable[[Any], None], cloud: Cloud | None = None) -> dict[str, Any]:
    """Return the options that keep a connection from hanging a request, and from being believed unasked.

    :param introduce: greets a new connection; if AWS gives credentials that may change, with those.
    """
    return {
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "decode_responses": False,
        **connections.UNASKED,
        "redis_connect_func": introduce if cloud is None else cloud.introducing(introduce),
    }


def _credentials(cloud: Cloud | None) -> dict[str, Any]:
    return {"credential_provider": cloud.credentials} if cloud is not None and cloud.credentials is not None else {}


def _size(settings: Settings, url: str | None) -> dict[str, Any]:
    return {"max_connections": connections_of(url), "timeout": settings.pool_timeout}


def make_pool(
    url: str, settings: Settings, server_identity: ServerIdentity, cloud: Cloud | None, *, is_master: bool = True
) -> ConnectionPool:
    """Return a pool that cannot hang a request: no hidden retries, own time-outs, a short wait for a free connection.

    :param cloud: what AWS says, if it is to be asked.
    :param is_master: which server of a service or group is wanted, where a service knows them all.
    """
    options, size = _credentials(cloud), _size(settings, url)
    waits = _waits(settings, server_identity.introduce, cloud)
    if kind_of(url) is Kind.SENTINEL:
        said = read_sentinel(url)
        route = route_to(said, is_master=is_master, patience=settings.redis_timeout)
        return routed.make_pool(route, waits=waits, options={**said.options, **options}, **size)
    return BlockingConnectionPool.from_url(for_redis_py(url), protocol=3, **size, **waits, **options)


def _database(app: Flask, settings: Settings, codec: Codec) -> Database:
    engine = settings.database_engine
    if engine is None:
        url = make_url(settings.database_url or "")
        folder, durable = Path(app.instance_path), not (app.testing and settings.database_is_default)
        if url.get_backend_name() == "sqlite" and folder in Path(url.database or "").absolute().parents:
            folder.mkdir(parents=True, exist_ok=True)
        engine = make_engine(url, settings.database_timeout, durable=durable)
    if warning := advice(engine.dialect.driver):
        log.warning("%s", warning, extra=fields("driver_not_known", driver=engine.dialect.driver))
    if engine.dialect.name == "sqlite" and settings.redis_url and not is_local(settings.redis_url):
        log.warning(
            "the session database is a SQLite file, and Redis is a cluster or on another host: this is right for one "
            "host of the application. Two hosts need one database, or each decides alone about sign-ins",
            extra=fields("sqlite_of_one_host"),
        )
    shows_use = settings.device_labels or settings.device_networks
    return Database(
        engine,
        timeout=settings.database_timeout,
        concurrency=DATABASE_CALLS,
        makes_tables=_makes_tables(app, settings),
        notes_use_after=int(settings.life.idle_ms * EXTEND_AFTER) if shows_use else None,
        codec=codec,
    )


def _makes_tables(app: Flask, settings: Settings) -> Callable[[], bool]:
    """Return a function that says whether tables are made without asking: in debug (which ``app.run`` turns on later),
    in testing, in a file of our own."""
    its = weakref.ref(app)

    def makes_tables() -> bool:
        app = its()
        return settings.database_is_default or (app is not None and (app.debug or app.testing))

    return makes_tables


_REMEDY = (
    "name a file this process may write; `flask langpont journal --archive` sets a damaged one aside; or set None to "
    "go without (the docs say what is lost then)"
)


def _journal(settings: Settings, codec: Codec) -> Journal:
    path = Path(settings.journal) if settings.journal else None
    limits = JournalLimits(
        entries=settings.journal_max_bytes // BYTES_OF_AN_ENTRY,
        bytes=settings.journal_max_bytes,
        copies_ttl=settings.local_cache_ttl,
    )
    journal = journal_at(path, limits=limits, codec=codec)
    try:
        if path is not None and not is_command():
            path.parent.mkdir(parents=True, exist_ok=True)
            journal.open()
            _say_what_is_not_read(path)
    except (StoreError, OSError) as error:
        where = os.fspath(path_of(path)) if path else "memory"
        problem = f"{where} cannot be used ({error}); {_REMEDY}"
        raise ConfigError([f"LANGPONT_SESSION_JOURNAL: {problem}"]) from error
    return journal


def _say_what_is_not_read(journal: Path) -> None:
    for path, why in unread(journal):
        log.warning(
            "%s is not used: %s. What waits in it stays there; `flask langpont journal --archive` sets it aside",
            *(path.name, why),
            extra=fields("journal_form_unread", file=path.name, why=why),
        )
