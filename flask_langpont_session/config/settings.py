"""Every setting once: name, type, default, meaning. All mistakes are reported together, at start.

Keys carry the prefix ``LANGPONT_SESSION_`` in ``app.config``. Flask's own keys (``SECRET_KEY``,
``SESSION_COOKIE_*``, ``PERMANENT_SESSION_LIFETIME`` …) keep their meaning and are read when they are needed.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from flask import Flask
from redis import ConnectionPool
from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from ..aws import client as aws
from ..aws import credentials, endpoints
from ..exceptions import ConfigError, SessionValueError
from ..policy import levels
from ..policy.categories import (
    AUTH,
    DEFAULT_CATEGORIES,
    DEFAULT_PRIVILEGE_KEYS,
    DEFAULT_USER_KEYS,
    CategoryTable,
    KeyPatterns,
    Priority,
)
from ..policy.leases import LeaseTerms, Life
from ..policy.levels import Behaviour, Row
from ..policy.serializer import check_key, encode
from ..stores.redis import sentinel, topology
from ..stores.sql.dialects import RECOMMENDED, REFUSED
from ..support.scratch import Scratch
from .categories import LONGEST_LIFE, Built, build_table, names_problem

PREFIX = "LANGPONT_SESSION_"

PATIENCE: Mapping[str, float] = {
    "redis_timeout": 10.0,
    "redis_connect_timeout": 10.0,
    "redis_pool_timeout": 10.0,
    "database_timeout": 10.0,
    "request_budget": 20.0,
    "slow_ms": 60_000,
}
"""Settings of applications under test: that a machine is busy must not look like an outage."""

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    *sentinel.SCHEMES,
    *topology.SCHEMES,
    endpoints.SCHEME,
)
_URL_OPTIONS = frozenset({"db", "client_name", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "", None})
_LOCAL_REDIS = "redis://localhost:6379/0"
_TLS_SCHEMES = (
    *(f"{name}{way}:" for name in ("rediss", "valkeys") for way in ("", "+sentinel", "+cluster")),
    f"{endpoints.SCHEME}:",
)

LONGEST_METRICS_INTERVAL = 60
"""Seconds. Alarms of ``infra/elasticache.yaml`` count minutes in which a process reported, and must find each."""

FLASK_COOKIE, FLASK_SESSION, FLASK_SESSION_PICKLE = "flask-cookie", "flask-session", "flask-session-pickle"
"""The sessions that can be taken over, see :mod:`~flask_langpont_session.adoption.adopter`."""

SEVERITIES = ("info", "warning", "critical", "emergency")
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")


def _number(low: float, high: float, kind: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return f"{name}: {kind} from {low:g} to {high:g}, not {value!r}"
        return None

    return check


def _integer(low: int, high: int, kind: str) -> Callable[[str, Any], str | None]:
    number = _number(low, high, kind)

    def check(name: str, value: Any) -> str | None:
        return number(name, value) if isinstance(value, int) else f"{name}: {kind}, a whole number, not {value!r}"

    return check


def _names(name: str, value: Any) -> str | None:
    problem = names_problem(value)
    return f"{name}: {problem}" if problem else None


def _mapping(name: str, value: Any) -> str | None:
    return None if isinstance(value, Mapping) else f"{name}: a mapping, not {type(value).__name__}"


def _text(name: str, value: Any) -> str | None:
    return None if isinstance(value, str) and value else f"{name}: a non-empty string, not {type(value).__name__}"


def _topics(name: str, value: Any) -> str | None:
    """Never with what was given: an ARN names the account."""
    if not isinstance(value, Mapping):
        return f"{name}: a mapping of severity → ARN of an SNS topic, not {type(value).__name__}"
    unknown = [repr(key) if str(key).isalpha() else "something else" for key in value if key not in SEVERITIES]
    if unknown:
        return f"{name}: the severities are {', '.join(SEVERITIES)}, not {', '.join(unknown)}"
    wrong = [severity for severity, arn in value.items() if not (isinstance(arn, str) and _TOPIC_ARN.fullmatch(arn))]
    if wrong:
        return f"{name}: {', '.join(wrong)}: the ARN of a standard topic, as in arn:aws:sns:REGION:ACCOUNT:NAME"
    if value and find_spec("boto3") is None:
        return f"{name}: boto3 is not installed; {aws.EXTRA}"
    return None


def _cache_user(name: str, value: Any) -> str | None:
    if isinstance(value, str) and credentials.is_user(value):
        return None
    return f"{name}: the id of an ElastiCache user: up to 40 letters, digits and single hyphens"


def _flag(name: str, value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{name}: True or False, not {value!r}"


def _dimension(name: str, value: Any) -> str | None:
    """CloudWatch refuses everything that is sent under another one."""
    if not isinstance(value, str) or not re.fullmatch(r"[ -~]{1,1024}", value) or value.isspace():
        return f"{name}: 1 to 1024 printable ASCII characters, not only blanks (it is a dimension of metrics)"
    return None


def _some_of(*allowed: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        problem = _names(name, value)
        wrong = [] if problem else [repr(item) for item in value if item not in allowed]
        return f"{name}: any of {', '.join(allowed)}, not {', '.join(wrong)}" if wrong else problem

    return check


def _registry(name: str, value: Any) -> str | None:
    if value is None or (hasattr(value, "collect") and hasattr(value, "register")):
        return None
    return f"{name}: a CollectorRegistry of prometheus_client, not {type(value).__name__}"


def _one_of(*allowed: str) -> Callable[[str, Any], str | None]:
    return lambda name, value: None if value in allowed else f"{name}: one of {', '.join(allowed)}, not {value!r}"


def _optional(check: Callable[[str, Any], str | None]) -> Callable[[str, Any], str | None]:
    return lambda name, value: None if value is None else check(name, value)


def _path(name: str, value: Any) -> str | None:
    return None if isinstance(value, (str, Path)) else f"{name}: a path or None, not {type(value).__name__}"


def _prefix(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
        return f"{name}: letters, digits and _ . : - only (it is part of every Redis key), not {value!r}"
    return None


def _page_like(example: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if not isinstance(value, str) or not re.fullmatch(r"(/[^/<>\s]+)+", value):
            return f"{name}: a path such as {example}, or None, not {value!r}"
        return None

    return check


def _engine(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, Engine):
        return None
    return f"{name}: an Engine of SQLAlchemy (not an asynchronous one), not {type(value).__name__}"


def _client(name: str, value: Any) -> str | None:
    """Connections are made as the client's pool says (``stores/connections.py``): it must be one of redis-py's, which
    waits in the ordinary way."""
    is_ours = isinstance(getattr(value, "connection_pool", None), ConnectionPool)
    if value is None or (is_ours and not inspect.iscoroutinefunction(type(value).execute_command)):
        return None
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if not name.endswith("CLIENT"):  # of another package's setting, which has no other form
        instead = ""
    elif "Cluster" in type(value).__name__:
        instead = f"; set {PREFIX}REDIS_URL to 'redis+cluster://host,host' instead, which names some of its servers"
    elif hasattr(value, "execute_command"):
        instead = f"; set {name.removesuffix('CLIENT')}URL to its address instead, such as 'valkey://host:6379/0'"
    else:
        instead = ""
    return f"{name}: a client of redis-py, as redis.Redis and fakeredis.FakeRedis are, not {kind}{instead}"


def _tables(example: str) -> Callable[[str, Any], str | None]:
    """The outermost shape only; what is inside is checked where the table is built."""
    return lambda name, value: None if isinstance(value, Mapping) else f"{name}: a mapping of {example}"


def _behaviour_cells(name: str, value: Any) -> str | None:
    rows = value.values() if isinstance(value, Mapping) else [None]
    if not all(isinstance(row, Mapping) and all(isinstance(cell, str) for cell in row.values()) for row in rows):
        return f"{name}: a mapping of priority → level → behaviour"
    return None


_SECONDS = "seconds"


def _setting(default: Any, check: Callable[[str, Any], str | None]) -> Any:
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata={"check": check}, **made)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one application, checked and complete.

    Every field is the setting ``LANGPONT_SESSION_<NAME>``; units stand in the comments.
    """

    redis_url: str | None = _setting(None, _optional(_text))
    replica_url: str | None = _setting(None, _optional(_text))
    redis_client: Any = _setting(None, _client)  # a ready client object instead of the URL; fakeredis too
    replica_client: Any = _setting(None, _client)
    redis_timeout: float = _setting(0.2, _number(0.001, 60, _SECONDS))
    redis_connect_timeout: float = _setting(0.2, _number(0.001, 60, _SECONDS))
    redis_max_connections: int = _setting(50, _integer(1, 10_000, "connections"))
    redis_pool_timeout: float = _setting(0.05, _number(0, 60, _SECONDS))
    redis_token: str | None = _setting(None, _optional(_text))
    redis_token_secret: str | None = _setting(None, _optional(_text))  # name or ARN in Secrets Manager
    redis_iam_user: str | None = _setting(None, _optional(_cache_user))
    redis_ca_file: str | None = _setting(None, _optional(_path))
    database_url: str | None = _setting(None, _optional(_text))
    database_engine: Engine | None = _setting(None, _engine)
    database_timeout: float = _setting(0.25, _number(0.001, 60, _SECONDS))
    database_concurrency: int = _setting(4, _integer(1, 1000, "calls"))
    single_host: bool = _setting(False, _flag)
    local_cache_size: int = _setting(1000, _integer(1, 10_000_000, "entries"))
    local_cache_ttl: int = _setting(1800, _integer(1, 86_400, _SECONDS))
    journal: str | Path | None = _setting("", _optional(_path))  # "": in the instance folder; None: in memory only
    journal_max_entries: int = _setting(100_000, _integer(1, 100_000_000, "entries"))
    journal_max_bytes: int = _setting(268_435_456, _integer(1_048_576, 1_099_511_627_776, "bytes"))
    journal_session_entries: int = _setting(4_000, _integer(1, 100_000_000, "entries"))
    journal_session_bytes: int = _setting(1_048_576, _integer(64, 1_099_511_627_776, "bytes"))
    journal_visitor_share: float = _setting(0.5, _number(0, 0.5, "a share"))
    categories: Mapping[str, Any] = _setting(
        lambda: DEFAULT_CATEGORIES, _tables("category → {'ttl': seconds, 'features': {feature: [keys]}}")
    )
    features: Mapping[str, Any] = _setting(
        dict, _tables("feature → {'keys': [keys], 'category': name, 'priority': name}")
    )
    durable_keys: Sequence[str] = _setting(list, _names)
    feature_priorities: Mapping[str, str] = _setting(dict, _mapping)
    defaults: Mapping[str, Any] = _setting(dict, _mapping)
    behaviours: Mapping[str, Mapping[int, str]] = _setting(dict, _behaviour_cells)
    user_keys: Sequence[str] = _setting(DEFAULT_USER_KEYS, _names)
    privilege_keys: Sequence[str] = _setting(DEFAULT_PRIVILEGE_KEYS, _names)
    privileged_roles: Sequence[str] = _setting(("admin",), _names)
    transient_keys: Sequence[str] = _setting(("_remember*",), _names)
    idle_timeout: int = _setting(3600, _integer(1, 31_536_000, _SECONDS))
    absolute_timeout: int = _setting(43_200, _integer(1, LONGEST_LIFE, _SECONDS))
    verify_interval: float = _setting(60, _number(0, 86_400, _SECONDS))
    grace: float = _setting(300, _number(0, 3600, _SECONDS))
    carry_on_sign_in: Sequence[str] = _setting(("translation", "ui"), _names)
    carry_on_sign_out: Sequence[str] = _setting(("ui",), _names)
    cookie_resend: str = _setting("due", _one_of("due", "flask"))
    request_budget: float = _setting(0.3, _number(0.01, 60, _SECONDS))
    health_interval: float = _setting(30, _number(0.05, 3600, _SECONDS))
    failure_threshold: int = _setting(3, _integer(1, 1000, "failures"))
    slow_ms: int = _setting(100, _integer(1, 60_000, "milliseconds"))
    max_category_bytes: int = _setting(65_536, _integer(64, 16_777_216, "bytes"))
    max_fields: int = _setting(256, _integer(1, 4096, "fields"))
    max_depth: int = _setting(32, _integer(1, 128, "levels"))
    key_prefix: str = _setting("session", _prefix)
    health_url_prefix: str | None = _setting("/healthz", _optional(_page_like("/healthz")))
    health_fail_level: int | None = _setting(None, _optional(_integer(1, 4, "a level")))
    environment: str = _setting("production", _dimension)
    service: str = _setting("LangPont", _dimension)
    metrics: Sequence[str] = _setting(list, _some_of("cloudwatch", "prometheus"))
    metrics_interval: float = _setting(60, _number(1, LONGEST_METRICS_INTERVAL, _SECONDS))
    metrics_url: str | None = _setting(None, _optional(_page_like("/metrics")))
    metrics_registry: Any = _setting(None, _registry)
    alert_topics: Mapping[str, str] = _setting(dict, _topics)
    alert_repeat: float = _setting(14_400, _number(60, 2_592_000, _SECONDS))
    alert_runbook: str = _setting("docs/operations.md", _text)
    adopt: Sequence[str] = _setting(list, _some_of(FLASK_COOKIE, FLASK_SESSION, FLASK_SESSION_PICKLE))
    adopt_cookie_name: str = _setting("session", _text)
    adopt_cookie_domain: str | None = _setting(None, _optional(_text))

    # What follows is made of the settings above.
    database_is_default: bool = field(init=False, default=False)
    table: CategoryTable = field(init=False)
    behaviour_table: Mapping[Priority, Row] = field(init=False)
    user_key_patterns: KeyPatterns = field(init=False)
    privilege_key_patterns: KeyPatterns = field(init=False)
    transient_key_patterns: KeyPatterns = field(init=False)
    lease_terms: LeaseTerms = field(init=False)
    life: Life = field(init=False)

    def behaviour(self, priority: Priority, level: int) -> Behaviour:
        """What the decision table says."""
        return self.behaviour_table[priority][level]


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
    problems = [*unknown, *wrong.values(), *_together(settings, app, wrong.keys())]
    if problems:
        raise ConfigError(problems)
    return settings


def _problem(setting: dataclasses.Field[Any], value: Any) -> str | None:
    name = PREFIX + setting.name.upper()
    if isinstance(value, str) and value in ("True", "False", "None"):
        return f"{name}: {value!r} is a text here; in an environment variable write true, false or null, as in JSON"
    problem: str | None = setting.metadata["check"](name, value)
    return problem


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f"; did you mean {PREFIX}{close[0].upper()}?" if close else ""


def _together(settings: Settings, app: Flask, wrong: Set[str]) -> list[str]:
    """What is wrong although each setting alone is right.

    :param wrong: settings that are wrong alone. They stand at their defaults here, about which there is nothing to say.
    """
    built, problems = _derive(settings)
    if built.is_whole and not wrong & {"categories", "features", "durable_keys"}:
        problems += _table_relations(settings) + _default_problems(settings)
    problems += _secret_key_problems(app) + _relations(settings, wrong) + _places(settings, app) + _cookie_problems(app)
    problems += _adoption_problems(settings, app)
    if "redis_url" not in wrong:
        problems += _aws_problems(settings)
    either = ({"redis_url", "redis_client"}, {"database_url", "database_engine"})
    silent = frozenset(wrong).union(*(pair for pair in either if pair & wrong))
    about = tuple(f"{PREFIX}{name.upper()}{end}" for name in silent for end in (":", "["))
    return [problem for problem in problems if not problem.startswith(about)]


def _with_places(values: Mapping[str, Any], app: Flask) -> dict[str, Any]:
    """Fill in where the stores are, for development and tests."""
    filled = dict(values)
    casual = app.debug or app.testing
    if casual and not filled.get("redis_url") and filled.get("redis_client") is None:
        filled["redis_url"] = _LOCAL_REDIS
    local = filled.get("redis_client") is None and is_local(filled.get("redis_url"))
    if (casual or local) and not filled.get("database_url") and filled.get("database_engine") is None:
        filled["database_url"] = f"sqlite:///{Path(app.instance_path) / 'langpont_session.sqlite3'}"
    if filled.get("journal", "") == "":
        filled["journal"] = Path(app.instance_path) / "langpont_session_journal.sqlite3"
    return filled


def _under_test(values: Mapping[str, Any], scratch: Scratch) -> dict[str, Any]:
    """Keep an application under test off the developer's files, and from taking a busy machine for an outage."""
    filled = dict(values)
    engine = filled.get("database_engine")
    url = filled.get("database_url") if engine is None else engine.url
    if not url or _is_in_memory(url):  # which would be another database for each thread
        filled["database_url"] = f"sqlite:///{scratch.path / 'langpont_session.sqlite3'}"
        filled["database_engine"] = None
        filled["single_host"] = True  # wherever Redis is, as in CI: nobody else has this file
    if filled.get("journal", "") == "":
        filled["journal"] = None
    longest = filled.get("request_budget", PATIENCE["request_budget"])
    for name, patient in PATIENCE.items():
        filled.setdefault(name, patient if name == "slow_ms" else min(patient, longest))
    return filled


def _is_in_memory(url: str | URL) -> bool:
    try:
        known = make_url(url)
    except ArgumentError:
        return False
    if known.get_backend_name() != "sqlite":
        return False
    return not known.database or ":memory:" in known.database or known.query.get("mode") == "memory"


def is_local(redis_url: str | None) -> bool:
    """Whether a Redis URL names this very host. Sentinels and seeds may run here, what they know is on several."""
    if any(knows(redis_url) for knows in (sentinel.is_sentinel, topology.is_cluster, endpoints.is_elasticache)):
        return False
    if not redis_url:
        return False
    try:
        parts = urlsplit(redis_url)
        return parts.scheme == "unix" or parts.hostname in _LOCAL_HOSTS
    except ValueError:
        return False


def _derive(settings: Settings) -> tuple[Built, list[str]]:
    built = build_table(
        settings.categories,
        settings.feature_priorities,
        added=settings.features,
        durable=settings.durable_keys,
        identity=(*settings.user_keys, *settings.privilege_keys),
    )
    behaviours, behaviour_problems = levels.build_behaviours(settings.behaviours)
    derived: dict[str, Any] = {
        "table": built.table,
        "behaviour_table": behaviours,
        "user_key_patterns": KeyPatterns(settings.user_keys),
        "privilege_key_patterns": KeyPatterns(settings.privilege_keys),
        "transient_key_patterns": KeyPatterns(settings.transient_keys),
        "life": Life(settings.idle_timeout * 1000, settings.absolute_timeout * 1000),
        "lease_terms": LeaseTerms(int(settings.verify_interval * 1000), int(settings.grace * 1000)),
    }
    for name in ("carry_on_sign_in", "carry_on_sign_out"):
        carried: Sequence[str] = getattr(settings, name)
        if carried is _FIELDS[name].default:  # another table need not have these categories
            derived[name] = tuple(category for category in carried if category in built.table.categories)
    _derived(settings, **derived)
    return built, [PREFIX + problem for problem in built.problems + behaviour_problems]


def _derived(settings: Settings, **values: Any) -> None:
    """Fill in fields that are made of fields of a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(settings, name, value)


def _relations(settings: Settings, wrong: Set[str]) -> list[str]:
    """Settings that are right alone and wrong together."""
    budget = f"more than REQUEST_BUDGET ({settings.request_budget:g} s), all that one request may wait for"
    rules: list[tuple[set[str], Any, str]] = [
        (
            {"verify_interval", "idle_timeout"},
            settings.idle_timeout / 4 < settings.verify_interval,
            "VERIFY_INTERVAL: at most a quarter of IDLE_TIMEOUT, else a session that is only read would run out",
        ),
        (
            {"idle_timeout", "absolute_timeout"},
            settings.idle_timeout > settings.absolute_timeout,
            "IDLE_TIMEOUT: at most ABSOLUTE_TIMEOUT",
        ),
        (
            {"grace", "verify_interval"},
            0 < settings.grace < settings.verify_interval,
            "GRACE: 0, or at least VERIFY_INTERVAL; a copy may always be as old as that",
        ),
    ]
    for name in ("replica_url", "replica_client"):
        for knows, what in ((topology.is_cluster, "cluster"), (endpoints.is_elasticache, "group")):
            apart = knows(settings.redis_url) and getattr(settings, name) is not None
            found = f"{name.upper()}: the replicas of a {what} are found with its primaries; leave this out"
            rules.append(({"redis_url", name}, apart, found))
    for name in ("redis_timeout", "redis_connect_timeout", "redis_pool_timeout", "database_timeout"):
        seconds = getattr(settings, name)
        too_long = seconds > settings.request_budget
        rules.append(({name, "request_budget"}, too_long, f"{name.upper()}: {seconds:g} s alone is {budget}"))
    for url, ready in (
        ("redis_url", "redis_client"),
        ("replica_url", "replica_client"),
        ("database_url", "database_engine"),
    ):
        both = getattr(settings, url) and getattr(settings, ready) is not None
        rules.append(({url, ready}, both, f"{url.upper()} and {ready.upper()}: give one of them"))
    return [PREFIX + text for names, broken, text in rules if broken and not names & wrong]


def _table_relations(settings: Settings) -> list[str]:
    problems = []
    table = settings.table
    for setting, keys in (("USER_KEYS", settings.user_keys), ("PRIVILEGE_KEYS", settings.privilege_keys)):
        for key in keys:
            # Anywhere else it would be stored without the database having a word in it.
            if _category_of(table, key) not in (AUTH, None):
                problems.append(
                    f"{PREFIX}{setting}: {key!r} is in category {_category_of(table, key)!r}, not in 'auth': name it "
                    f"there, or set {setting} without it"
                )
    problems += [
        f"{PREFIX}USER_KEYS: {key!r}: whole names only, the first that is set tells who the user is"
        for key in settings.user_keys
        if "*" in key
    ]
    for name in ("carry_on_sign_in", "carry_on_sign_out"):
        for category in getattr(settings, name):
            if category not in table.categories or category == AUTH:
                others = ", ".join(known for known in table.categories if known != AUTH)
                problems.append(f"{PREFIX}{name.upper()}: {category!r} is not one of {others or 'no categories'}")
    return problems


def _category_of(table: CategoryTable, key: str) -> str | None:
    try:
        return table.feature_of(key.strip("*")).category
    except KeyError:
        return None


def _default_problems(settings: Settings) -> list[str]:
    problems = {key: _default_problem(settings, key, value) for key, value in settings.defaults.items()}
    return [f"{PREFIX}DEFAULTS[{key!r}]: {problem}" for key, problem in problems.items() if problem]


def _default_problem(settings: Settings, key: Any, value: Any) -> str | None:
    try:
        encode(check_key(key), value, max_depth=settings.max_depth)
    except SessionValueError as error:
        return error.reason
    if key in settings.transient_key_patterns:
        return "a transient key has no default; it is never stored"
    category = _category_of(settings.table, key)
    if category is None:
        return "no feature of CATEGORIES claims this key"
    return "auth keys have no defaults: an identity is never invented" if category == AUTH else None


def _secret_key_problems(app: Flask) -> list[str]:
    """Tests may set it later; Flask itself explains its absence there."""
    if isinstance(app.secret_key, (str, bytes, type(None))):
        if app.secret_key or app.testing:
            return []
        return ["SECRET_KEY: required, it signs the cookie; python -c 'import secrets; print(secrets.token_hex())'"]
    return [
        f"SECRET_KEY: text or bytes, not {type(app.secret_key).__name__}; in an environment variable digits alone are "
        f"a number, unless they are in quotation marks that are part of it"
    ]


def _cookie_problems(app: Flask) -> list[str]:
    """Flask's own settings, where browsers would throw the cookie away (or Werkzeug fail at each response)."""
    name, same_site = app.config["SESSION_COOKIE_NAME"], app.config["SESSION_COOKIE_SAMESITE"]
    secure, domain = app.config["SESSION_COOKIE_SECURE"], app.config["SESSION_COOKIE_DOMAIN"]
    path = app.config["SESSION_COOKIE_PATH"] or app.config["APPLICATION_ROOT"]
    host = name.startswith("__Host-")
    rules = (
        (host and not secure, f"SESSION_COOKIE_NAME: browsers refuse {name!r} without SESSION_COOKIE_SECURE = True"),
        (host and domain, f"SESSION_COOKIE_NAME: browsers refuse {name!r} with a SESSION_COOKIE_DOMAIN"),
        (host and path != "/", f"SESSION_COOKIE_NAME: browsers refuse {name!r} unless SESSION_COOKIE_PATH is '/'"),
        (
            name.startswith("__Secure-") and not secure,
            f"SESSION_COOKIE_NAME: browsers refuse {name!r} without SESSION_COOKIE_SECURE = True",
        ),
        (
            same_site is not None and str(same_site).title() not in ("Strict", "Lax", "None"),
            f"SESSION_COOKIE_SAMESITE: 'Strict', 'Lax', 'None' or None, not {same_site!r}",
        ),
        (
            isinstance(same_site, str) and same_site.title() == "None" and not secure,
            "SESSION_COOKIE_SAMESITE: browsers refuse 'None' without SESSION_COOKIE_SECURE = True",
        ),
    )
    return [text for broken, text in rules if broken]


def _adoption_problems(settings: Settings, app: Flask) -> list[str]:
    """What taking over old sessions needs."""
    if not settings.adopt:
        return []
    problems, label = [], f"{PREFIX}ADOPT"
    if app.config["SESSION_COOKIE_NAME"] == settings.adopt_cookie_name:
        problems.append(
            f"{label}: {settings.adopt_cookie_name!r} cannot be both the old cookie and the new one, which old workers "
            f"would overwrite; set SESSION_COOKIE_NAME to another name, such as '__Host-session', and "
            f"{PREFIX}ADOPT_COOKIE_NAME to the old one"
        )
    if set(settings.adopt) & {FLASK_SESSION, FLASK_SESSION_PICKLE}:
        client = app.config.get("SESSION_REDIS")
        if client is None:
            problems.append(
                f"{label}: 'flask-session' needs Flask-Session's own SESSION_REDIS, the client by which it kept its "
                f"sessions (its default is redis.Redis())"
            )
        elif problem := _client("SESSION_REDIS", client):
            problems.append(problem)
    return problems


def _places(settings: Settings, app: Flask) -> list[str]:
    """Where the stores are: is anything missing, unreadable or dangerous?"""
    problems = []
    if not settings.redis_url and settings.redis_client is None:
        problems.append(f"{PREFIX}REDIS_URL: required outside debug and testing, for example redis://host:6379/0")
    for name in ("redis_url", "replica_url"):
        problems += _redis_url_problems(name, getattr(settings, name))
    if not settings.database_url and settings.database_engine is None:
        problems.append(
            f"{PREFIX}DATABASE_URL: required, for example postgresql+psycopg://user@host/db; it decides who is in"
        )
    if settings.redis_ca_file and not Path(settings.redis_ca_file).is_file():
        problems.append(f"{PREFIX}REDIS_CA_FILE: there is no file {os.fspath(settings.redis_ca_file)!r}")
    return problems + _database_problems(settings) + _journal_problems(settings) + _metrics_problems(settings)


def _redis_url_problems(name: str, url: str | None) -> list[str]:
    if not url:
        return []
    label = PREFIX + name.upper()
    if sentinel.is_sentinel(url):
        return [f"{label}: {problem}" for problem in _sentinel_problems(url)]
    if topology.is_cluster(url):
        return [f"{label}: {problem}" for problem in _cluster_problems(name, url)]
    if endpoints.is_elasticache(url):
        return [f"{label}: {problem}" for problem in _elasticache_problems(name, url)]
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is the check
    except ValueError:
        return [f"{label}: not a URL (is the port a number?)"]
    # What the driver would take for another address, or not take at all: never with the text, it may hold a password.
    if not url.startswith(tuple(f"{scheme}://" for scheme in REDIS_SCHEMES)):
        found = f"scheme {parts.scheme!r}" if "://" in url and parts.scheme else "a URL without a scheme"
        return [f"{label}: {found} is not supported; use one of {', '.join(f'{s}://' for s in REDIS_SCHEMES)}"]
    problems = _unix_problems(parts) + _tcp_problems(parts) + _option_problems(parts) + _tls_problems(parts)
    return [f"{label}: {problem}" for problem in problems]


def _tcp_problems(parts: SplitResult) -> list[str]:
    number = parts.path.removeprefix("/")
    if parts.scheme == "unix" or not number or (number.isascii() and number.isdecimal()):
        return []
    return ["the path is the number of a database, as in redis://host:6379/0"]


def _tls_problems(parts: SplitResult) -> list[str]:
    given = sorted(name for name in parse_qs(parts.query) if name.startswith("ssl_"))
    plain = parts.scheme not in ("rediss", "valkeys")
    return [f"{', '.join(given)}: for TLS only; use rediss:// or valkeys://"] if given and plain else []


def _unix_problems(parts: SplitResult) -> list[str]:
    if parts.scheme == "unix" and (not parts.path or parts.hostname):
        return ["a Unix socket needs its whole path, as in unix:///run/valkey.sock"]
    return []


def _sentinel_problems(url: str) -> list[str]:
    query = urlsplit("?" + url.partition("?")[2])
    problems = _option_problems(query, _URL_OPTIONS | sentinel.OPTIONS)
    if not problems:
        try:
            sentinel.parse(url)
        except ValueError as error:
            problems = [str(error)]
    return problems


def _cluster_problems(name: str, url: str) -> list[str]:
    problems = _option_problems(urlsplit("?" + url.partition("?")[2]))
    if not problems:
        try:
            topology.parse(url)
        except ValueError as error:
            problems = [str(error)]
    if not problems and name == "replica_url":
        return ["the replicas of a cluster are found with its primaries, by REDIS_URL; leave this out"]
    return problems


def _elasticache_problems(name: str, url: str) -> list[str]:
    if name == "replica_url":
        return ["the replicas of a group are found with its primary, by REDIS_URL; leave this out"]
    try:
        group = endpoints.parse(url)
    except ValueError as error:
        return [str(error)]
    if not aws.is_installed():
        return [f"elasticache:// needs boto3; {aws.EXTRA}"]
    if group.region is None and aws_region() is None:
        return ["no region is known; write elasticache://group-id?region=…, or set AWS_DEFAULT_REGION"]
    return []


def _aws_problems(settings: Settings) -> list[str]:
    """Credentials that AWS gives: what they need, and what they cannot stand beside."""
    given = [way for way in ("REDIS_TOKEN", "REDIS_TOKEN_SECRET", "REDIS_IAM_USER") if getattr(settings, way.lower())]
    if len(given) > 1:
        return [f"{PREFIX}{' and '.join(given)}: give one of them"]
    if not given or given == ["REDIS_TOKEN"]:
        return []
    [way] = given
    if settings.redis_client is not None or settings.replica_client is not None:
        return [f"{PREFIX}{way}: a ready client brings its own credentials; give one of them"]
    urls = {name.upper(): getattr(settings, name) for name in ("redis_url", "replica_url")}
    known = {name: url for name, url in urls.items() if url and not _redis_url_problems(name.lower(), url)}
    problems = [problem for name, url in known.items() for problem in _greeting_problems(way, name, url)]
    return [f"{PREFIX}{way}: {problem}" for problem in problems or _asking_problems(settings)]


def _asking_problems(settings: Settings) -> list[str]:
    if not aws.is_installed():
        return [f"needs boto3; {aws.EXTRA}"]
    secret = settings.redis_token_secret
    if secret and not endpoints.is_elasticache(settings.redis_url) and not credentials.region_of(secret, aws_region()):
        return ["no region is known; give the ARN of the secret, or set AWS_DEFAULT_REGION"]
    return []


def _greeting_problems(way: str, name: str, url: str) -> list[str]:
    if way == "REDIS_IAM_USER" and name == "REDIS_URL" and not endpoints.is_elasticache(url):
        return ["needs REDIS_URL = 'elasticache://group-id': a token is signed for one group"]
    if not url.startswith(_TLS_SCHEMES):
        return [f"{name} has no TLS, and the token could be read on the way; use rediss:// or elasticache://"]
    if "@" in urlsplit(url).netloc:
        return [f"{name} has a user or a password in it; give one of them"]
    return []


def _option_problems(parts: SplitResult, known: Set[str] = _URL_OPTIONS) -> list[str]:
    """An option in the URL would quietly override a setting, or fail at the first request."""
    if parts.fragment:
        return ["'#' ends a URL; in a password write %23"]
    options = parse_qs(parts.query, keep_blank_values=True)
    problems = []
    if set(options) - known:
        problems.append(f"its options can be {', '.join(sorted(known))}; all else has settings of its own")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if not all(Path(path).is_file() for path in options.get(name, [])):
            problems.append(f"{name}: there is no such file")
    if not all(number.isascii() and number.isdecimal() for number in options.get("db", [])):
        problems.append("db is the number of a database, as in redis://host:6379/?db=0")
    return problems


def _database_problems(settings: Settings) -> list[str]:
    label = f"{PREFIX}DATABASE_URL"
    if settings.database_engine is not None:
        label, url = f"{PREFIX}DATABASE_ENGINE", settings.database_engine.url
        if reason := REFUSED.get(settings.database_engine.dialect.driver):
            return [f"{label}: its driver will not do: {reason}"]
        if isinstance(settings.database_engine.pool, StaticPool):
            return [
                f"{label}: its StaticPool has one connection for everybody, so sessions would be written in the middle "
                f"of the application's transactions; use another pool, or set {PREFIX}DATABASE_URL instead"
            ]
    elif settings.database_url:
        try:
            url = make_url(settings.database_url)
            if reason := REFUSED.get(url.drivername.partition("+")[2]):
                return [f"{label}: its driver will not do: {reason}"]
            dialect = url.get_dialect()
            dialect.import_dbapi()
        except NoSuchModuleError:
            name = make_url(settings.database_url).drivername
            instead = "; write postgresql+psycopg://" if name.partition("+")[0] == "postgres" else ""
            return [f"{label}: SQLAlchemy knows no dialect {name!r}{instead}"]
        except (ArgumentError, ValueError):
            return [f"{label}: not a database URL, for example postgresql+psycopg://user@host/db"]
        except ImportError as error:
            scheme, package = RECOMMENDED.get(url.get_backend_name(), RECOMMENDED["postgresql"])
            return [f'{label}: its driver {error.name!r} is not installed; write {scheme} and pip install "{package}"']
        if dialect.is_async:
            return [f"{label}: {url.drivername!r} is asynchronous; use a driver that waits, for example psycopg"]
    else:
        return []
    if url.get_backend_name() != "sqlite":
        return []
    if _is_in_memory(url):
        return [f"{label}: an in-memory SQLite database forgets every session and is private to one thread; use a file"]
    remote = settings.redis_client is None and settings.redis_url and not is_local(settings.redis_url)
    if remote and not settings.single_host:
        return [
            f"{label}: SQLite beside a Redis on another host: each host would decide alone who is signed in; "
            f"use a shared database, or set {PREFIX}SINGLE_HOST=True if there is only one host"
        ]
    return []


def _journal_problems(settings: Settings) -> list[str]:
    """What can be seen before the file is opened, so that it is said together with all else."""
    if not settings.journal:
        return []
    path = Path(settings.journal)
    with suppress(OSError):
        if path.is_dir():
            return [f"{PREFIX}JOURNAL: {os.fspath(path)!r} is a folder; name a file"]
        place = path if path.exists() else next(p for p in path.absolute().parents if p.exists())
        usable = place is path or place.is_dir()
        if usable and os.access(place, os.R_OK | os.W_OK):
            return []
    return [f"{PREFIX}JOURNAL: {os.fspath(path)!r}: not a place where this process may write a file"]


def _metrics_problems(settings: Settings) -> list[str]:
    """What an exporter needs and will not find by itself later, as it may find credentials."""
    label = f"{PREFIX}METRICS"
    idle = [
        f"{PREFIX}{name}: nobody reads it; add 'prometheus' to METRICS, or leave this out"
        for name in ("METRICS_URL", "METRICS_REGISTRY")
        if getattr(settings, name.lower()) is not None and "prometheus" not in settings.metrics
    ]
    missing = [
        f'{label}: {exporter} needs {module}; pip install "flask-langpont-session[{extra}]"'
        for exporter, module, extra in (
            ("cloudwatch", "boto3", "aws"),
            ("prometheus", "prometheus_client", "prometheus"),
        )
        if exporter in settings.metrics and find_spec(module) is None
    ]
    if missing or "cloudwatch" not in settings.metrics or aws_region():
        return idle + missing
    return [*idle, f"{label}: cloudwatch needs a region: set AWS_DEFAULT_REGION, or name one in AWS_PROFILE's profile"]


def aws_region() -> str | None:
    """The region of the environment or of boto3's files; None: there is none, or the files cannot be read."""
    from boto3.session import Session  # only for who uses AWS
    from botocore.exceptions import BotoCoreError

    try:
        return Session().region_name or os.environ.get("AWS_REGION")
    except BotoCoreError:
        return None
