"""Every setting once: name, type, default, meaning. All mistakes are reported together, at start.

Keys carry the prefix ``LANGPONT_SESSION_`` in ``app.config``. Flask's own keys (``SECRET_KEY``,
``SESSION_COOKIE_*``, ``PERMANENT_SESSION_LIFETIME`` …) keep their meaning and are read when they are needed.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask, Request
from sqlalchemy import URL, Engine

from ..exceptions import ConfigError
from ..policy.categories import (
    AUTH,
    CategoryTable,
    KeyPatterns,
    Priority,
)
from ..policy.health import DATABASE, PRIMARY, REPLICA
from ..policy.leases import LeaseTerms, Life, Privileges
from ..policy.levels import Behaviour, Row, build_behaviours
from ..policy.presets import DEFAULT_CATEGORIES, DEFAULT_USER_KEYS, PRESETS
from ..policy.serializer import encode
from ..support.logs import fields
from ..support.scratch import Scratch
from . import checks, rules
from .categories import LONGEST_LIFE, Built, build_table
from .checks import FLASK_COOKIE, FLASK_SESSION, FLASK_SESSION_PICKLE, PREFIX, Check

log = logging.getLogger(__name__)

PATIENCE: Mapping[str, float] = {
    "redis_timeout": 10.0,
    "request_budget": 20.0,
}
"""Settings of applications under test: that a machine is busy must not look like an outage."""

ALONE: Mapping[str, Any] = {
    "metrics": [],
    "metrics_url": None,
    "alert_topics": {},
    "adopt": [],
}
"""Settings of an application that is not the site, as in tests and drills: it publishes nothing, sends no alerts and
takes no sessions over."""

_LOCAL_REDIS = "redis://localhost:6379/0"

_SECONDS = "seconds"


def _setting(default: Any, check: Check, *, repr: bool = True) -> Any:
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata={"check": check}, repr=repr, **made)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one application, checked and complete.

    Every field is the setting ``LANGPONT_SESSION_<NAME>``; units stand in the comments.
    """

    redis_url: str | None = _setting(None, checks.optional(checks.redis_place))  # or a ready client; fakeredis too
    replica_url: str | None = _setting(None, checks.optional(checks.text))
    redis_timeout: float = _setting(0.2, checks.number(0.001, 60, _SECONDS))
    database_url: str | URL | None = _setting(None, checks.optional(checks.database_place))  # or an engine
    memory_bytes: int = _setting(67_108_864, checks.integer(0, 1_099_511_627_776, "bytes"))
    local_cache_ttl: int = _setting(1800, checks.integer(1, 86_400, _SECONDS))
    # "": in the instance folder; None: in memory only
    journal: str | Path | None = _setting("", checks.optional(checks.path))
    journal_max_bytes: int = _setting(268_435_456, checks.integer(8_192, 1_099_511_627_776, "bytes"))
    preset: str = _setting("langpont", checks.one_of(*PRESETS))  # the table that CATEGORIES and FEATURES change
    categories: Mapping[str, Any] = _setting(
        lambda: DEFAULT_CATEGORIES, checks.tables("category → {'ttl': seconds, 'features': {feature: [keys]}}")
    )
    features: Mapping[str, Any] = _setting(
        dict, checks.tables("feature → {'keys': [keys], 'category': name, 'priority': name}")
    )
    durable_keys: Sequence[str] = _setting(list, checks.names)
    defaults: Mapping[str, Any] = _setting(dict, checks.mapping)
    behaviours: Mapping[str, Mapping[int | str, str]] = _setting(dict, checks.behaviour_cells)
    user_keys: Sequence[str] = _setting(DEFAULT_USER_KEYS, checks.names)
    privilege_keys: Sequence[str] = _setting(PRESETS["langpont"].privilege_keys, checks.names)
    privileged_roles: Sequence[str] = _setting(("admin",), checks.names)
    # newest first; of each 32 bytes, or their text in base64 or hexadecimal
    encryption_keys: Sequence[str | bytes] = _setting(list, checks.encryption_keys, repr=False)
    encrypted_categories: Sequence[str] | None = _setting(None, checks.optional(checks.names))  # None: all
    # until when what is plain is read in them, with its zone
    encryption_switch_over: str | datetime | None = _setting(None, checks.optional(checks.moment))
    idle_timeout: int = _setting(3600, checks.integer(1, 31_536_000, _SECONDS))
    absolute_timeout: int = _setting(43_200, checks.integer(1, LONGEST_LIFE, _SECONDS))
    # of sessions with a role of PRIVILEGED_ROLES; None: as of all others
    privileged_idle_timeout: int | None = _setting(None, checks.optional(checks.integer(1, 31_536_000, _SECONDS)))
    privileged_absolute_timeout: int | None = _setting(None, checks.optional(checks.integer(1, LONGEST_LIFE, _SECONDS)))
    # of a user: a number, or a callable that is given the user's id as text; None: as many as there are
    max_sessions_per_user: int | Callable[[str], int | None] | None = _setting(None, checks.limit)
    on_limit: str = _setting("end_oldest", checks.one_of("end_oldest", "refuse"))
    # of a sign-in, for the user's list of devices: "user_agent", or a callable that is given the request
    device_labels: str | Callable[[Request], str | None] | None = _setting(None, checks.labels)
    device_networks: bool = _setting(False, checks.flag)
    verify_interval: float = _setting(60, checks.number(0, 86_400, _SECONDS))
    grace: float = _setting(300, checks.number(0, 3600, _SECONDS))
    carry_on_sign_out: Sequence[str] = _setting(("ui",), checks.names)
    cookie_resend: str = _setting("due", checks.one_of("due", "flask"))
    request_budget: float = _setting(0.3, checks.number(0.01, 60, _SECONDS))
    max_category_bytes: int = _setting(65_536, checks.integer(64, 16_777_216, "bytes"))
    key_prefix: str = _setting("session", checks.prefix)
    health_url_prefix: str | None = _setting("/healthz", checks.optional(checks.page_like("/healthz")))
    status_page: Callable[[Request], bool] | None = _setting(None, checks.guard)  # says which requests may see it
    environment: str = _setting("production", checks.dimension)
    service: str = _setting("LangPont", checks.dimension)
    metrics: Sequence[str] = _setting(list, checks.some_of("cloudwatch", "emf", "otel", "prometheus"))
    metrics_url: str | None = _setting(None, checks.optional(checks.page_like("/metrics")))
    alert_topics: Mapping[str, str] = _setting(dict, checks.topics)
    adopt: Sequence[str] = _setting(list, checks.some_of(FLASK_COOKIE, FLASK_SESSION, FLASK_SESSION_PICKLE))
    adopt_cookie_name: str = _setting("session", checks.text)
    adopt_cookie_domain: str | None = _setting(None, checks.optional(checks.text))

    # What follows is made of the settings above. An object in the place of a URL stands here, and there is no URL then.
    redis_client: Any = field(init=False, default=None)
    database_engine: Engine | None = field(init=False, default=None)
    database_is_default: bool = field(init=False, default=False)
    table: CategoryTable = field(init=False)
    behaviour_table: Mapping[Priority, Row] = field(init=False)
    user_key_patterns: KeyPatterns = field(init=False)
    privilege_key_patterns: KeyPatterns = field(init=False)
    lease_terms: LeaseTerms = field(init=False)
    near_categories: frozenset[str] = field(init=False, repr=False)
    privileges: Privileges = field(init=False, repr=False)
    sealed_categories: frozenset[str] = field(init=False, repr=False)  # which are encrypted
    life: Life = field(init=False)
    database_timeout: float = field(init=False, default=0.25)  # seconds; five sixths of REQUEST_BUDGET
    timeouts: Mapping[str, float] = field(init=False, repr=False)  # role of a store → seconds for one answer of it

    @property
    def slow(self) -> float:
        """Return the seconds above which an answer of Redis counts as slow: half of REDIS_TIMEOUT."""
        return self.redis_timeout / 2

    @property
    def pool_timeout(self) -> float:
        """Return the seconds that a request waits for a free connection to Redis: a quarter of REDIS_TIMEOUT, so that
        time is left for the answer."""
        return self.redis_timeout / 4

    @property
    def visitor_seconds(self) -> int:
        """Return the seconds after its last use for which a visitor's data is kept: that session has no end of its own,
        so it lives as long as the data with the longest TTL."""
        return max((c.ttl for c in self.table.categories.values() if c.ttl), default=self.idle_timeout)

    @property
    def carry_on_sign_in(self) -> tuple[str, ...]:
        """Return the categories that a sign-in carries over to the new session: all but auth."""
        return tuple(name for name in self.table.categories if name != AUTH)

    def behaviour(self, priority: Priority, level: int) -> Behaviour:
        """Return the behaviour that the decision table has for a priority at a level."""
        return self.behaviour_table[priority][level]

    def permanent_life(self, lifetime: timedelta) -> Life:
        """Return the life of permanent sessions: they may be idle for PERMANENT_SESSION_LIFETIME, and live in all for
        the longer of that and ABSOLUTE_TIMEOUT.

        :param lifetime: Flask's setting, which is read when it is needed.
        """
        idle_ms = int(lifetime.total_seconds() * 1000)
        return self.privileges.life(idle_ms, max(idle_ms, self.absolute_timeout * 1000), is_permanent=True)

    def is_identity(self, key: str) -> bool:
        """Return whether a key names a user or is a right: only the database decides about those."""
        return key in self.user_key_patterns or key in self.privilege_key_patterns


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def load_settings(app: Flask, scratch: Scratch | None = None) -> Settings:
    """Read and check the application's configuration.

    :param scratch: for an application under test: where its files are, instead of where the developer's lie.
    :raises ConfigError: with every mistake found.
    """
    given = app.config.get_namespace(PREFIX)
    known = {name: field for name, field in _FIELDS.items() if field.init}
    unknown = [
        f"{PREFIX}{name.upper()}: there is no such setting{_did_you_mean(name, known)}"
        for name in sorted(set(given) - set(known))
    ]
    checks = {name: _problem(known[name], given[name]) for name in given if name in known}
    wrong = {name: problem for name, problem in checks.items() if problem}
    # With defaults in place of what is wrong alone, the rest is checked too: all mistakes at once.
    right = {name: given[name] for name in checks if name not in wrong}
    settings = Settings(**_with_places(right if scratch is None else _under_test(right, scratch), app))
    _derived(settings, database_is_default=settings.database_url != right.get("database_url"))
    for url, name in (("redis_url", "redis_client"), ("database_url", "database_engine")):
        if not isinstance(ready := getattr(settings, url), (str, URL)):
            _derived(settings, **{name: ready, url: None})
    built, in_tables = _derive(settings)
    has_table = built.is_whole and not wrong.keys() & {"categories", "features", "durable_keys"}
    together = rules.problems_of(settings, app, wrong.keys(), in_tables, has_table=has_table)
    problems, unread = [*unknown, *wrong.values(), *together], _unread(app)
    if problems:
        raise ConfigError([*problems, *unread])
    for text in unread:
        log.warning(text, extra=fields("setting_unread", setting=text.partition(":")[0]))
    settings.table.forget_use()
    return settings


_NEARLY = re.compile(rf"(?!{PREFIX})(?:FLASK_)?LANGPONT_?(?:SESSIONS?_)?(\w+)")
_IN_ENVIRONMENT = re.compile(rf"(?:FLASK_)?({PREFIX}\w+?)(?:__\w+)?")


def _unread(app: Flask) -> list[str]:
    """Return the settings that are given where nothing reads them, each with what to do: under a prefix that is nearly
    the right one, or in the environment alone."""
    nearly = [
        f"{key}: not read, because settings begin with {PREFIX}; write {PREFIX}{found[1]}"
        for key in app.config
        if (found := _NEARLY.fullmatch(key)) and (field := _FIELDS.get(found[1].lower())) and field.init
    ]
    return nearly + [
        f"{name}: not read, because it is in the environment alone; call app.config.from_prefixed_env() before "
        f"LangPontSession(app), which takes FLASK_{found[1]}"
        for name in sorted(os.environ)
        if (found := _IN_ENVIRONMENT.fullmatch(name)) and found[1] not in app.config
    ]


def changes_of_settings(app: Flask) -> Callable[[Flask], list[str]]:
    """Return a function that names the settings which an application has changed, or added, since now."""
    before = dict(app.config.get_namespace(PREFIX))

    def changed(app: Flask) -> list[str]:
        now = app.config.get_namespace(PREFIX)
        return [PREFIX + name.upper() for name in sorted({*now, *before}) if now.get(name) != before.get(name)]

    return changed


def _problem(setting: dataclasses.Field[Any], value: Any) -> str | None:
    name = PREFIX + setting.name.upper()
    if isinstance(value, str) and value in ("True", "False", "None"):
        return f"{name}: {value!r} is a text here; in an environment variable write true, false or null, as in JSON"
    problem: str | None = setting.metadata["check"](name, value)
    return problem


_FORMER: Mapping[str, str] = {
    "local_cache_size": f"{PREFIX}MEMORY_BYTES bounds all that a process keeps",
    "read_cache_bytes": f"{PREFIX}MEMORY_BYTES bounds all that a process keeps",
    "redis_client": f"give the client as {PREFIX}REDIS_URL",
    "redis_connect_timeout": f"{PREFIX}REDIS_TIMEOUT is the longest wait for a connection, too",
    "redis_pool_timeout": f"a quarter of {PREFIX}REDIS_TIMEOUT is the longest wait for a free connection",
    "replica_client": f"give {PREFIX}REPLICA_URL",
    "slow_ms": f"an answer that takes longer than half of {PREFIX}REDIS_TIMEOUT counts as slow",
    "failure_threshold": "three quick failures in a row open a circuit breaker",
    "journal_max_entries": f"{PREFIX}JOURNAL_MAX_BYTES bounds the entries, too: one for each 2,684 bytes",
    "journal_ttl": f"{PREFIX}LOCAL_CACHE_TTL is how long a change may wait, too",
    "journal_session_entries": "4,000 changed keys of one session wait at most",
    "journal_session_bytes": "1 MiB of changes of one session waits at most",
    "journal_visitor_share": "all visitors together take half of the journal at most",
    "transient_keys": "keys of Flask-Login that last for one request are known; use flask.g for others",
    "max_fields": "a category has 256 keys at most",
    "max_depth": "lists, dicts and tuples are nested 32 levels at most",
    "drill_socket": "`flask langpont drill` is of a copy of the application; in staging, stop a store for a while",
    "metrics_emf_agent": "EMF goes to the standard output, which the CloudWatch agent can read",
    "alert_runbook": "alerts link to the pages of this package on the web, as the rules of Prometheus do",
    "alert_repeat": "an alert is sent once and called off; the receiver repeats it, by its dedup_key",
    "carry_on_sign_in": "all categories but auth are carried over; let the view of the sign-in clear what is not to be",
    "database_engine": f"give the engine as {PREFIX}DATABASE_URL",
    "database_concurrency": "four requests of a process ask the database at a time",
    "database_timeout": f"five sixths of {PREFIX}REQUEST_BUDGET is the longest wait for the database",
    "health_interval": "a worker looks at idle stores every 30 seconds, and at once at one that fails",
    "metrics_interval": "figures are published every minute",
    "metrics_registry": "the figures are in the default registry of prometheus_client",
    "near_cache": "all categories are kept; a Redis user without the right to CLIENT TRACKING is asked each time",
    "feature_priorities": f"write {PREFIX}FEATURES = {{'name': {{'priority': 'high'}}}}",
    "redis_ca_file": f"put ?ssl_ca_certs=/path/ca.pem behind {PREFIX}REDIS_URL",
    "redis_max_connections": f"put ?max_connections=100 behind {PREFIX}REDIS_URL",
    "redis_iam_user": f"name the user in {PREFIX}REDIS_URL, as in elasticache://user@group-id",
    "redis_token_secret": f"put ?token_secret=… behind {PREFIX}REDIS_URL",
    "redis_token": f"put it into {PREFIX}REDIS_URL, as in rediss://:token@host:6379/0",
    "single_host": "SQLite beside a Redis on another host is taken for the choice of a single host",
    "health_fail_level": "let the monitor ask for the level, as in /healthz?fail_at=4",
}
"""Names that settings had → what bounds or does it instead."""


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    if name in _FORMER:
        return f" any more: {_FORMER[name]}; leave it out"
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {PREFIX}{close[0].upper()}?" if close else ""


def _with_places(values: Mapping[str, Any], app: Flask) -> dict[str, Any]:
    """Fill in the tables of the preset, and where the stores are, for development and tests."""
    filled = {**_tables(values), **values}
    casual = app.debug or app.testing
    if casual and filled.get("redis_url") is None:
        filled["redis_url"] = _LOCAL_REDIS
    redis = filled.get("redis_url")
    local = isinstance(redis, str) and checks.is_local(redis)
    if (casual or local) and filled.get("database_url") is None:
        filled["database_url"] = _sqlite_in(Path(app.instance_path))
    if filled.get("journal", "") == "":
        filled["journal"] = Path(app.instance_path) / "langpont_session_journal.sqlite3"
    return filled


def _tables(values: Mapping[str, Any]) -> dict[str, Any]:
    preset = PRESETS[values.get("preset", "langpont")]
    return {"categories": preset.categories, "privilege_keys": preset.privilege_keys}


def _sqlite_in(folder: Path) -> URL:
    """Return the URL of a file in a folder of any name: in the text of a URL a ``?`` or ``%`` would mean something
    else."""
    return URL.create("sqlite", database=str(folder / "langpont_session.sqlite3"))


def _under_test(values: Mapping[str, Any], scratch: Scratch) -> dict[str, Any]:
    """Keep an application under test off the developer's files, and from taking a busy machine for an outage."""
    filled = dict(values)
    given = filled.get("database_url")
    url = given.url if isinstance(given, Engine) else given
    if url is None or checks.is_in_memory(url):  # which would be another database for each thread
        filled["database_url"] = _sqlite_in(scratch.path)
    if filled.get("journal", "") == "":
        filled["journal"] = None
    longest = filled.get("request_budget", PATIENCE["request_budget"])
    for name, patient in PATIENCE.items():
        filled.setdefault(name, min(patient, longest))
    return filled


def _derive(settings: Settings) -> tuple[Built, list[str]]:
    built = _built(settings)
    _derived(settings, **_with_data(settings))
    behaviours, behaviour_problems = build_behaviours(settings.behaviours)
    patterns = KeyPatterns(settings.privilege_keys)
    privileges = Privileges(
        patterns,
        [encode("role", role) for role in settings.privileged_roles],
        _in_ms(settings.privileged_idle_timeout),
        _in_ms(settings.privileged_absolute_timeout),
    )
    redis_timeout, database_timeout = settings.redis_timeout, _database_timeout(settings)
    derived: dict[str, Any] = {
        "table": built.table,
        "timeouts": {PRIMARY: redis_timeout, REPLICA: redis_timeout, DATABASE: database_timeout},
        "database_timeout": database_timeout,
        "behaviour_table": behaviours,
        "user_key_patterns": KeyPatterns(settings.user_keys),
        "privilege_key_patterns": patterns,
        "privileges": privileges,
        "life": privileges.life(settings.idle_timeout * 1000, settings.absolute_timeout * 1000),
        "lease_terms": LeaseTerms(int(settings.verify_interval * 1000), int(settings.grace * 1000)),
        "near_categories": frozenset(_near(settings, built.table)),
        "sealed_categories": frozenset(_sealed(settings, built.table)),
    }
    if settings.carry_on_sign_out is _FIELDS["carry_on_sign_out"].default:  # another table need not have this category
        derived["carry_on_sign_out"] = tuple(built.table.categories.keys() & settings.carry_on_sign_out)
    _derived(settings, **derived)
    return built, [PREFIX + problem for problem in built.problems + behaviour_problems]


def _built(settings: Settings) -> Built:
    """Return the table of categories: what FEATURES says of a feature's priority alone is of one that is there."""
    priorities = {
        name: spec["priority"]
        for name, spec in settings.features.items()
        if isinstance(spec, Mapping) and set(spec) == {"priority"}
    }
    return build_table(
        settings.categories,
        priorities,
        added={name: spec for name, spec in settings.features.items() if name not in priorities},
        durable=settings.durable_keys,
        identity=(*settings.user_keys, *settings.privilege_keys),
    )


def _with_data(settings: Settings) -> dict[str, Any]:
    """Return ENCRYPTED_CATEGORIES with ``data``, if it names ``ui`` alone: what no feature names was in ``ui`` before
    there was ``data``. An application that has said itself what ``data`` is has said where it counts."""
    named = settings.encrypted_categories or ()
    if settings.categories.get("data") != DEFAULT_CATEGORIES["data"] or "ui" not in named or "data" in named:
        return {}
    setting = f"{PREFIX}ENCRYPTED_CATEGORIES"
    log.info(
        "%s: 'ui' counts for 'data' as well, the category of keys that no feature names; name both",
        setting,
        extra=fields("setting_counts_for_data", setting=setting),
    )
    return {"encrypted_categories": (*named, "data")}


def _in_ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


def _database_timeout(settings: Settings) -> float:
    """Return the seconds that a request waits for the database: five sixths of REQUEST_BUDGET, so that time is left
    for Redis."""
    return settings.request_budget * 5 / 6


def _near(settings: Settings, table: CategoryTable) -> Iterable[str]:
    """Return the categories that need not be read again until Redis reports a change: all, if anything is kept."""
    return table.categories if settings.memory_bytes else ()


def _sealed(settings: Settings, table: CategoryTable) -> Iterable[str]:
    """Return the categories that are encrypted."""
    if not settings.encryption_keys:
        return ()
    return table.categories if settings.encrypted_categories is None else settings.encrypted_categories


def _derived(settings: Settings, **values: Any) -> None:
    """Fill in fields that are made of fields of a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(settings, name, value)
