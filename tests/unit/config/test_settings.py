"""Settings: defaults, checks, relations, places; every mistake in one error, no secret in it."""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis.asyncio
import sqlalchemy
import valkey
from flask import Flask

from flask_langpont_session import ConfigError, LangPontSession
from flask_langpont_session.config import checks, rules
from flask_langpont_session.config.checks import PREFIX, is_local
from flask_langpont_session.config.settings import Settings, load_settings
from flask_langpont_session.policy.categories import Priority
from flask_langpont_session.policy.levels import Behaviour
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from flask_langpont_session.stores.codec.keys import SAMPLE
from flask_langpont_session.stores.host.opening import FORMS
from tests.support import former_release

Load = Callable[..., Settings]
DOCS = Path(__file__).parents[3] / "docs" / "configuration.md"
REMOTE: dict[str, Any] = {
    "testing": False,
    "REDIS_URL": "redis://cache.internal:6379/0",
    "DATABASE_URL": "postgresql+psycopg://u@db.internal/app",
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a configuration: keys without our prefix, Flask's own (``SESSION_…``) as they are."""

    def make(*, testing: bool = True, debug: bool = False, **config: Any) -> Settings:
        app = Flask("app", instance_path=str(tmp_path / "instance"))
        app.debug, app.testing, app.secret_key = debug, testing, "a key for tests"
        for key, value in config.items():
            app.config[key if key.startswith(("SESSION_", "APPLICATION_", "PERM", "SECRET_")) else PREFIX + key] = value
        return load_settings(app)

    return make


def problems_of(load: Load, **config: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**config)
    return list(caught.value.problems)


# -- each setting ------------------------------------------------------------------------------------------------------

DEFAULTS: dict[str, Any] = {
    "REDIS_URL": "redis://localhost:6379/0",
    "REPLICA_URL": None,
    "REDIS_TIMEOUT": 0.2,
    "MEMORY_BYTES": 67_108_864,
    "LOCAL_CACHE_TTL": 1800,
    "JOURNAL_MAX_BYTES": 268_435_456,
    "PRESET": "langpont",
    "CATEGORIES": DEFAULT_CATEGORIES,
    "FEATURES": {},
    "DURABLE_KEYS": [],
    "DEFAULTS": {},
    "BEHAVIOURS": {},
    "USER_KEYS": ("_user_id", "user_id", "username", "user", "oidc_auth_token"),
    "PRIVILEGE_KEYS": (
        "user_role", "account_type", "early_access", "logged_in", "authenticated", "_fresh", "last_authenticated",
        "identity.*", "oidc_auth_token", "*_oauth_token",
    ),
    "PRIVILEGED_ROLES": ("admin",),
    "IDLE_TIMEOUT": 3600,
    "ABSOLUTE_TIMEOUT": 43_200,
    "PRIVILEGED_IDLE_TIMEOUT": None,
    "PRIVILEGED_ABSOLUTE_TIMEOUT": None,
    "VERIFY_INTERVAL": 60,
    "GRACE": 300,
    "MAX_SESSIONS_PER_USER": None,
    "ON_LIMIT": "end_oldest",
    "ENCRYPTION_KEYS": [],
    "ENCRYPTED_CATEGORIES": None,
    "ENCRYPTION_SWITCH_OVER": None,
    "DEVICE_LABELS": None,
    "DEVICE_NETWORKS": False,
    "CARRY_ON_SIGN_OUT": ("ui",),
    "COOKIE_RESEND": "due",
    "REQUEST_BUDGET": 0.3,
    "MAX_CATEGORY_BYTES": 65_536,
    "KEY_PREFIX": "session",
    "HEALTH_URL_PREFIX": "/healthz",
    "STATUS_PAGE": None,
    "ENVIRONMENT": "production",
    "SERVICE": "LangPont",
    "METRICS": [],
    "METRICS_URL": None,
    "ALERT_TOPICS": {},
    "ADOPT": [],
    "ADOPT_COOKIE_NAME": "session",
    "ADOPT_COOKIE_DOMAIN": None,
}  # fmt: skip


def file_of(settings: Settings) -> str | None:
    """The SQLite file of its database."""
    url = sqlalchemy.make_url(settings.database_url or "")
    assert url.get_backend_name() == "sqlite"
    return url.database


def test_an_application_under_test_needs_no_setting(load: Load, tmp_path: Path) -> None:
    """Every default is the documented one; the files lie in the instance folder."""
    settings = load()
    names = {field.name.upper() for field in dataclasses.fields(Settings) if field.init}
    assert names == {*DEFAULTS, "DATABASE_URL", "JOURNAL"}
    assert {name: getattr(settings, name.lower()) for name in DEFAULTS} == DEFAULTS
    assert file_of(settings) == str(tmp_path / "instance" / "langpont_session.sqlite3")
    assert settings.journal == tmp_path / "instance" / "langpont_session_journal.sqlite3"


async def an_async_guard(request: object) -> bool:
    """Return False; as a coroutine, which is true."""
    return False


SEALING = bytes(range(200, 232)).hex()
LATER = (datetime.now(UTC) + timedelta(days=30)).isoformat()
MUCH_LATER = datetime.now(UTC) + timedelta(days=401)


WRONG: dict[str, tuple[Any, ...]] = {
    "REDIS_URL": (7, "", b"redis://h", object(), redis.asyncio.Redis(), redis.Redis, " redis://h", "redis://h\n"),
    "REPLICA_URL": (7, "", "redis://h "),
    "REDIS_TIMEOUT": (0, -1, "0.2", True, None, float("nan"), float("inf")),
    "DATABASE_URL": (7, "", object(), "sqlite:///x\n"),
    "MEMORY_BYTES": (-1, 10**13, 1.5, "1000"),
    "LOCAL_CACHE_TTL": (0, -1, 86_401, 0.5),
    "JOURNAL": (7, b"journal"),
    "JOURNAL_MAX_BYTES": (0, 8_191, 10**13, 2e6, "10M"),
    "CATEGORIES": ([], {}, None, {"auth": 7}, {"auth": {"features": []}}, {"auth": {}, 7: {}},
                   {"auth": {"features": {"a": "key"}}},
                   {"auth": {"features": {"a": [7]}}}, {"auth": {"ttl": 10**12, "features": {}}}),
    "PRESET": ("flask", None, 7),
    "FEATURES": ([], None, {"cart": []}, {"cart": {"keys": ["c"], "category": "date"}}),
    "DURABLE_KEYS": ("cart", None, [7], [""], ["a*b"]),
    "DEFAULTS": ([("lang", "ja")], None),
    "BEHAVIOURS": ([], {"low": []}, {"low": {1: ["primary"]}}, {"low": None}),
    "USER_KEYS": ("user_id", [7], [""], None),
    "PRIVILEGE_KEYS": ("user_role", [None]),
    "PRIVILEGED_ROLES": ("admin", [7]),
    "IDLE_TIMEOUT": (0, -1, 3600.5, "3600", True),
    "ABSOLUTE_TIMEOUT": (0, 315_360_001),
    "PRIVILEGED_IDLE_TIMEOUT": (0, -1, 900.5, "900", True, 31_536_001),
    "PRIVILEGED_ABSOLUTE_TIMEOUT": (0, 315_360_001),
    "VERIFY_INTERVAL": (-1, "60", None, float("nan")),
    "GRACE": (-1, 3601),
    "MAX_SESSIONS_PER_USER": (0, 1_000_001, "3", True, 1.5),
    "ON_LIMIT": ("drop", None),
    "ENCRYPTION_KEYS": (SEALING, SEALING.encode(), None, 7, {SEALING: 1}, ["short"], [b"short"], [None], [SEALING, 7],
                        ["correct horse battery staple, 43 characters."], [SEALING[:-1]], [bytes(32)],
                        [SEALING, SEALING.upper()]),
    "ENCRYPTED_CATEGORIES": ("ui", [7], [""]),
    "ENCRYPTION_SWITCH_OVER": ("tomorrow", "2030-01-01", "2030-01-01T00:00:00", 7, "", datetime(2030, 1, 1)),
    "DEVICE_LABELS": ("browser", "", 7, True, an_async_guard),
    "DEVICE_NETWORKS": ("/24", None, 1),
    "CARRY_ON_SIGN_OUT": ("ui", None),
    "COOKIE_RESEND": ("always", None, True, []),
    "REQUEST_BUDGET": (0, 61, "0.3"),
    "MAX_CATEGORY_BYTES": (63, 16_777_217, 100.0),
    "KEY_PREFIX": ("", "a{b", "a}", "a b", "a*", "a\n", "é", 7, None),
    "HEALTH_URL_PREFIX": ("", "healthz", "/", 7, "/<id>", "/health z"),
    "STATUS_PAGE": (True, "app:may_see", 7, an_async_guard),
    "ENVIRONMENT": ("", None, 7, " ", "é", "two\nlines", "x" * 1025),
    "SERVICE": ("", None, 7, "  ", "ラングポント"),
    "METRICS": (None, "cloudwatch", 7, ["statsd"], [7]),
    "METRICS_URL": ("", "metrics", "/", "/metrics/", "/<path:x>", "/a b", 7),
    "ALERT_TOPICS": (None, [], "arn:aws:sns:eu-west-1:123456789012:t",
                     {"fatal": "arn:aws:sns:eu-west-1:123456789012:t"},
                     {"critical": "langpont-critical"}, {"critical": 7}, {"critical": ""},
                     {"info": "arn:aws:sqs:eu-west-1:123456789012:t"}, {"info": "arn:aws:sns:eu-west-1:1234:t"},
                     {"info": "arn:aws:sns:eu-west-1:123456789012:t.fifo"}, {"info": "arn:aws:sns::123456789012:t"},
                     {"info": "arn:aws:sns:eu-west-1:123456789012:t\n"}, {7: "arn:aws:sns:eu-west-1:123456789012:t"}),
    "ADOPT": (None, "flask-cookie", 7, ["flask"], ["flask-session", "pickle"], [7]),
    "ADOPT_COOKIE_NAME": ("", None, 7),
    "ADOPT_COOKIE_DOMAIN": ("", 7),
}  # fmt: skip


def test_the_sample_of_the_docs_is_no_secret(load: Load) -> None:
    """An application under test may have it."""
    [problem] = problems_of(load, **REMOTE, ENCRYPTION_KEYS=[SAMPLE])
    assert problem == f"{PREFIX}ENCRYPTION_KEYS: the sample of docs/how-to/encrypt.md, which is no secret"
    assert load(ENCRYPTION_KEYS=[SAMPLE]).encryption_keys == [SAMPLE]
    assert SAMPLE in (DOCS.parent / "how-to" / "encrypt.md").read_text(encoding="utf-8")


def test_what_is_encrypted(load: Load) -> None:
    """Nothing is encrypted without a key; with one, all categories, or those that are named."""
    assert load().sealed_categories == frozenset()
    everything = load(ENCRYPTION_KEYS=[SEALING], ENCRYPTION_SWITCH_OVER=LATER)
    assert everything.sealed_categories == set(everything.table.categories)
    assert load(ENCRYPTION_KEYS=[SEALING], ENCRYPTED_CATEGORIES=["auth"]).sealed_categories == {"auth"}
    assert load(ENCRYPTION_KEYS=[SEALING], ENCRYPTED_CATEGORIES=[]).sealed_categories == frozenset()
    assert SEALING not in repr(everything)


SECRET = "pa55word"
SQLITE = "sqlite:////var/lib/app/sessions.sqlite3"
GROUP: dict[str, Any] = {**REMOTE, "REDIS_URL": "elasticache://sessions?region=ap-northeast-1"}
TLS: dict[str, Any] = {**REMOTE, "REDIS_URL": "rediss://cache.internal:6379/0"}
SEALED = "rediss://cache.internal:6379/0?token_secret="
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/token-AbCdEf"
TOPIC = "arn:aws:sns:ap-northeast-1:123456789012:langpont-critical-alerts"
HOST: dict[str, Any] = {"SESSION_COOKIE_NAME": "__Host-session", "SESSION_COOKIE_SECURE": True}
COOKIE: dict[str, Any] = {"ADOPT": ["flask-cookie"]}
RECORDS: dict[str, Any] = {"SESSION_COOKIE_NAME": "shop", "SESSION_REDIS": fakeredis.FakeRedis()}


def shared_engine(url: str) -> sqlalchemy.Engine:
    """Return one whose only connection has the application's transactions as well."""
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.StaticPool)


@pytest.fixture
def no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let neither environment nor files name a region."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


MISTAKES: list[tuple[dict[str, Any], str]] = [
    # unknown, and of one value
    ({"REDIS_URI": 1}, "REDIS_URI: there is no such setting … did you mean LANGPONT_SESSION_REDIS_URL?"),
    ({"CATEGORY": 1}, "CATEGORY: there is no such setting"),
    (
        {"READ_CACHE_BYTES": 1},
        f"READ_CACHE_BYTES: there is no such setting any more: {PREFIX}MEMORY_BYTES bounds all that a process keeps",
    ),
    ({"IDLE_TIMEOUT": 0}, "IDLE_TIMEOUT: … seconds from 1 to 31536000, not 0"),
    ({"REDIS_TIMEOUT": 0}, "REDIS_TIMEOUT: … seconds from 0.001 to 60, not 0"),
    ({"DEVICE_NETWORKS": "True"}, "DEVICE_NETWORKS … write true, false or null"),
    ({"JOURNAL": "None"}, "JOURNAL … write true, false or null"),
    # wrong together
    ({"VERIFY_INTERVAL": 901, "GRACE": 901}, "VERIFY_INTERVAL"),
    ({"IDLE_TIMEOUT": 200}, "VERIFY_INTERVAL"),
    ({"IDLE_TIMEOUT": 43_201}, "IDLE_TIMEOUT"),
    ({"PRIVILEGED_IDLE_TIMEOUT": 239}, "VERIFY_INTERVAL"),
    ({"PRIVILEGED_IDLE_TIMEOUT": 900, "PRIVILEGED_ROLES": []}, "PRIVILEGED_IDLE_TIMEOUT"),
    ({"PRIVILEGED_ABSOLUTE_TIMEOUT": 900, "PRIVILEGED_ROLES": []}, "PRIVILEGED_ABSOLUTE_TIMEOUT"),
    ({"GRACE": 59}, "GRACE"),
    ({"REDIS_TIMEOUT": 0.31}, "REDIS_TIMEOUT"),
    ({"REQUEST_BUDGET": 0.19}, "REDIS_TIMEOUT"),
    ({"DATABASE_TIMEOUT": 1}, "DATABASE_TIMEOUT: … five sixths of LANGPONT_SESSION_REQUEST_BUDGET"),
    ({"REDIS_CLIENT": redis.Redis()}, "REDIS_CLIENT: … any more: give the client as LANGPONT_SESSION_REDIS_URL"),
    ({"CARRY_ON_SIGN_OUT": ["auth"]}, "CARRY_ON_SIGN_OUT"),
    ({"CARRY_ON_SIGN_OUT": ["nothing"]}, "CARRY_ON_SIGN_OUT"),
    ({"USER_KEYS": ["lang"]}, "USER_KEYS"),
    ({"USER_KEYS": ["_state_*"]}, "USER_KEYS"),
    ({"PRIVILEGE_KEYS": ["theme"]}, "PRIVILEGE_KEYS"),
    ({"FEATURES": {"statistics": {"priority": "critical"}}}, "FEATURES['statistics']['priority']"),
    ({"FEATURES": {"authentication": {"priority": "high"}}}, "FEATURES['authentication']['priority']"),
    ({"FEATURES": {"statistics": {"priority": "urgent"}}}, "FEATURES['statistics']['priority']"),
    (
        {"FEATURES": {"languag_preference": {"priority": "high"}}},
        "FEATURES['languag_preference']: no category has this feature; did you mean 'language_preference'",
    ),
    ({"FEATURES": {7: {"priority": "high"}}}, "FEATURES[7]"),
    ({"STATUS_PAGE": callable, "HEALTH_URL_PREFIX": None}, "STATUS_PAGE"),
    ({"BEHAVIOURS": {"critical": {2: "local_cache_fallback"}}}, "BEHAVIOURS['critical'][2]"),
    ({"BEHAVIOURS": {"low": {2: "emergency_mode"}}}, "BEHAVIOURS['low'][2]"),
    ({"BEHAVIOURS": {"low": {"replica": "keep"}}}, "BEHAVIOURS['low']['replica']"),
    ({"BEHAVIOURS": {"lowest": {2: "primary"}}}, "BEHAVIOURS['lowest'][2]"),
    ({"BEHAVIOURS": {"low": {5: "primary"}}}, "BEHAVIOURS['low'][5]"),
    ({"IDLE_TIMEOUT": "14400", "VERIFY_INTERVAL": 3600, "GRACE": 3600}, "IDLE_TIMEOUT"),  # it is not compared
    # encryption
    ({"ENCRYPTED_CATEGORIES": ["ui"]}, "ENCRYPTED_CATEGORIES: nothing is encrypted without a key in ENCRYPTION_KEYS"),
    ({"ENCRYPTION_SWITCH_OVER": LATER}, "ENCRYPTION_SWITCH_OVER: nothing is encrypted without a key"),
    (
        {"ENCRYPTION_KEYS": [SEALING], "ENCRYPTED_CATEGORIES": ["shop"]},
        "ENCRYPTED_CATEGORIES: 'shop' is not one of auth",
    ),
    ({"ENCRYPTION_KEYS": [SEALING], "SECRET_KEY": SEALING}, "ENCRYPTION_KEYS: key 1: it signs cookies already"),
    (
        {"ENCRYPTION_KEYS": [SEALING], "SECRET_KEY_FALLBACKS": [bytes.fromhex(SEALING)]},
        "ENCRYPTION_KEYS: key 1: it signs",
    ),
    ({"ENCRYPTION_KEYS": [SEALING], "ENCRYPTION_SWITCH_OVER": MUCH_LATER}, "ENCRYPTION_SWITCH_OVER: at most 400 days"),
    # defaults
    ({"DEFAULTS": {"lang": object()}}, "DEFAULTS['lang']: … type object is not supported"),
    ({"DEFAULTS": {7: "ja"}}, "DEFAULTS[7]: … a session key is a str, not int"),
    ({"DEFAULTS": {"_remember": "set"}}, "DEFAULTS['_remember']: … transient"),
    ({"DEFAULTS": {"_user_id": "guest"}}, "DEFAULTS['_user_id']: … an identity is never invented"),
    # Redis
    ({**REMOTE, "REDIS_URL": f":{SECRET}@h:6379"}, "REDIS_URL: … without a scheme is not supported; write for example"),
    ({**REMOTE, "REDIS_URL": f"redis+sentinels://:{SECRET}@h1,h2/service"}, "REDIS_URL: … scheme 'redis+sentinels'"),
    ({**REMOTE, "REDIS_URL": f"redis+cluster://:{SECRET}@h/2"}, "REDIS_URL: … one database, number 0"),
    ({**REMOTE, "REDIS_URL": f"redis+cluster://:{SECRET}@h1,u:x@h2"}, "REDIS_URL: … stands once"),
    ({**REMOTE, "REDIS_URL": f"redis+cluster://:{SECRET}@h?timeout=3"}, "REDIS_URL: … its options can be"),
    ({**REMOTE, "REDIS_URL": f" redis://:{SECRET}@h"}, "REDIS_URL: … a space"),
    ({**REMOTE, "REDIS_URL": f"redis:/:{SECRET}@h"}, "REDIS_URL: … without a scheme"),
    ({**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h/xyz"}, "REDIS_URL: … the number of a database"),
    ({**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h/²"}, "REDIS_URL: … the number of a database"),
    ({**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h:99999/0"}, "REDIS_URL: … not a URL"),
    ({**REMOTE, "REDIS_URL": f"redis://:{SECRET}#1@h/0"}, "REDIS_URL: … write %23"),
    (
        {**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h/0?socket_timeout=5"},
        "REDIS_URL: … all else has settings of its own",
    ),
    (
        {**REMOTE, "REDIS_URL": f"rediss://:{SECRET}@h/0?ssl_certfile=/none.pem"},
        "REDIS_URL: … ssl_certfile: there is no such file",
    ),
    (
        {**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h/0?ssl_certfile={__file__}"},
        "REDIS_URL: … ssl_certfile: for TLS only",
    ),
    ({**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h?db=x"}, "REDIS_URL: … db is the number of a database"),
    ({**REMOTE, "REDIS_URL": f"unix://:{SECRET}@run/valkey.sock"}, "REDIS_URL: … whole path"),
    ({**REMOTE, "REDIS_URL": f"redis+sentinel://:{SECRET}@h1,h2"}, "REDIS_URL: … the name of the service"),
    ({**REMOTE, "REDIS_URL": f"redis+sentinel://:{SECRET}@h1,,h2/service"}, "REDIS_URL: … host or host:port"),
    ({**REMOTE, "REDIS_URL": f"redis+sentinel://:{SECRET}@h1:0/service"}, "REDIS_URL: … host or host:port"),
    ({**REMOTE, "REDIS_URL": f"redis+sentinel://:{SECRET}@h1:65536/service"}, "REDIS_URL: … host or host:port"),
    (
        {**REMOTE, "REDIS_URL": f"redis+sentinel://:{SECRET}@h1,:{SECRET}@h2/service"},
        "REDIS_URL: … before the first host",
    ),
    (
        {**REMOTE, "REDIS_URL": f"redis://:{SECRET}@h1/0?sentinel_password=x"},
        "REDIS_URL: … all else has settings of its own",
    ),
    ({**REMOTE, "REPLICA_URL": f":{SECRET}@h:6379"}, "REPLICA_URL: … without a scheme"),
    ({"testing": False, "REDIS_URL": "redis+sentinel://localhost,127.0.0.1:26380/service"}, "DATABASE_URL: required"),
    (
        {**REMOTE, "REDIS_URL": "redis+cluster://a", "REPLICA_URL": "redis://b"},
        "REPLICA_URL: the replicas of a cluster are found",
    ),
    (
        {"REDIS_URL": valkey.Valkey()},
        "REDIS_URL: a client of redis-py … write its address",
    ),
    (
        {"REDIS_URL": object.__new__(redis.RedisCluster)},
        "REDIS_URL: a client of redis-py … write 'redis+cluster://",
    ),
    # the database
    ({**REMOTE, "DATABASE_URL": f"nosuch://u:{SECRET}@h/db"}, "DATABASE_URL: … no dialect 'nosuch'"),
    ({**REMOTE, "DATABASE_URL": f"postgres://u:{SECRET}@h/db"}, "DATABASE_URL: … write postgresql+psycopg://"),
    (
        {**REMOTE, "DATABASE_URL": f"mssql+pymssql://u:{SECRET}@h/db"},
        "DATABASE_URL: … driver 'pymssql' is not installed",
    ),
    (
        {**REMOTE, "DATABASE_URL": f"mysql+mysqlconnector://u:{SECRET}@h/db"},
        """DATABASE_URL: … write mysql+pymysql:// and pip install "flask-langpont-session[mariadb]\"""",
    ),
    ({**REMOTE, "DATABASE_URL": f"postgresql+pg8000://u:{SECRET}@h/db"}, "DATABASE_URL: … use psycopg or psycopg2"),
    ({**REMOTE, "DATABASE_URL": f"u:{SECRET}@h/db"}, "DATABASE_URL: … not a database URL"),
    (
        {**REMOTE, "DATABASE_URL": f"postgresql+psycopg_async://u:{SECRET}@h/db"},
        "DATABASE_URL: … is asynchronous; write postgresql+psycopg://",
    ),
    (
        {**REMOTE, "DATABASE_URL": f"mysql+pymysql://u:{SECRET}@h/db?charset=latin1"},
        "DATABASE_URL: … write charset=utf8mb4",
    ),
    ({**REMOTE, "DATABASE_URL": "sqlite://"}, "DATABASE_URL: … in-memory"),
    ({**REMOTE, "DATABASE_URL": "sqlite:///file::memory:?cache=shared&uri=true"}, "DATABASE_URL: … in-memory"),
    ({**REMOTE, "DATABASE_URL": "sqlite:///file:x?mode=memory&uri=true"}, "DATABASE_URL: … in-memory"),
    *(
        ({"DATABASE_URL": shared_engine(url)}, "DATABASE_URL: its StaticPool … write its URL instead")
        for url in ("sqlite://", SQLITE)
    ),
    # ElastiCache
    ({**REMOTE, "REDIS_URL": "elasticache://sessions"}, "REDIS_URL: no region is known; write elasticache://"),
    (
        {**REMOTE, "REDIS_URL": f"elasticache://1{SECRET}@sessions"},
        "REDIS_URL: a user without a password is one that IAM",
    ),
    ({**TLS, "REPLICA_URL": GROUP["REDIS_URL"]}, "REPLICA_URL: the replicas of a group are found with its primary"),
    (
        {**GROUP, "REPLICA_URL": "rediss://reader.internal:6379/0"},
        "REPLICA_URL: the replicas of a group are found with its primaries",
    ),
    ({**TLS, "REDIS_URL": "rediss://h?token_secret=app/token"}, "REDIS_URL: no region is known; give the ARN"),
    ({**REMOTE, "REDIS_URL": "redis://h?max_connections=0"}, "REDIS_URL: max_connections is a number from 1"),
    (
        {**GROUP, "REDIS_URL": f"elasticache://u@s?region=eu-west-1&token_secret={ARN}"},
        "REDIS_URL: token_secret beside a user",
    ),
    ({**REMOTE, "REDIS_URL": f"redis://h?token_secret={ARN}"}, "REDIS_URL: without TLS the token of token_secret"),
    ({**TLS, "REDIS_URL": f"{SEALED}{ARN}", "REPLICA_URL": "redis://h"}, "REPLICA_URL: without TLS the token of"),
    ({**TLS, "REPLICA_URL": f"{SEALED}{ARN}"}, "REPLICA_URL: token_secret is an option of REDIS_URL"),
    ({**TLS, "REDIS_URL": SEALED}, "REDIS_URL: token_secret is the name or the ARN of a secret"),
    ({**REMOTE, "REDIS_URL": f"rediss://:{SECRET}@h?token_secret={ARN}"}, "REDIS_URL: token_secret beside a user or"),
    # cookies that browsers throw away: no user could sign in, and nothing would say why
    ({"SESSION_COOKIE_NAME": "__Host-session"}, "SESSION_COOKIE_ … SESSION_COOKIE_SECURE = True"),
    ({**HOST, "SESSION_COOKIE_DOMAIN": "example.com"}, "SESSION_COOKIE_ … SESSION_COOKIE_DOMAIN"),
    ({**HOST, "SESSION_COOKIE_PATH": "/app"}, "SESSION_COOKIE_ … SESSION_COOKIE_PATH"),
    ({**HOST, "APPLICATION_ROOT": "/app"}, "SESSION_COOKIE_ … SESSION_COOKIE_PATH"),
    ({"SESSION_COOKIE_NAME": "__Secure-session"}, "SESSION_COOKIE_ … SESSION_COOKIE_SECURE = True"),
    ({"SESSION_COOKIE_SAMESITE": "None"}, "SESSION_COOKIE_ … SESSION_COOKIE_SECURE = True"),
    ({"SESSION_COOKIE_SAMESITE": "Laxx"}, "SESSION_COOKIE_ … 'Strict', 'Lax', 'None'"),
    ({"SESSION_COOKIE_SAMESITE": True}, "SESSION_COOKIE_ … 'Strict', 'Lax', 'None'"),
    # sessions of before
    (COOKIE, "ADOPT: … set SESSION_COOKIE_NAME to another name, such as '__Host-session'"),
    (
        {**COOKIE, "SESSION_COOKIE_NAME": "s", "ADOPT_COOKIE_NAME": "s"},
        "ADOPT: … 's' cannot be both the old cookie and the",
    ),
    ({"ADOPT": ["flask-session"], "SESSION_COOKIE_NAME": "shop"}, "ADOPT: … needs Flask-Session's own SESSION_REDIS"),
    (
        {"ADOPT": ["flask-session-pickle"], "SESSION_COOKIE_NAME": "shop"},
        "ADOPT: … needs Flask-Session's own SESSION_REDIS",
    ),
    ({**RECORDS, "ADOPT": ["flask-session"], "SESSION_REDIS": "redis://h"}, "SESSION_REDIS: a client of"),
]
"""Configurations, and what is said of them: how it begins, and behind three dots what it has besides."""


@pytest.mark.parametrize(("config", "says"), MISTAKES)
def test_a_mistake_is_named_with_what_to_do(load: Load, no_region: None, config: dict[str, Any], says: str) -> None:
    """One sentence, which begins with the setting to change and quotes no password, token, key or account."""
    [problem] = problems_of(load, **config)
    begins, _, has = says.partition(" … ")
    assert problem.removeprefix(PREFIX).startswith(begins) and has in problem
    assert not any(secret in problem for secret in (SECRET, SEALING, "123456789012"))


REDIS_URLS = [
    "redis://h",
    "redis://h:6379",
    "redis://h:6379/",
    "redis://h:6379/15",
    "rediss://u:p%40ss@h:6380/0?db=1",
    "valkey://h",
    "valkeys://h/0",
    "unix:///run/valkey.sock",
    "unix://:pw@/run/valkey.sock?db=2",
    f"rediss://h?ssl_ca_certs={__file__}&client_name=web",
    "redis+sentinel://h1:26379,h2:26380,h3/service",
    "valkey+sentinel://u:p%40ss@h1,[::1]:26379/my-master.1?db=1",
    f"rediss+sentinel://h1/service?ssl_ca_certs={__file__}",
    "valkeys+sentinel://h1/service",
    "redis+sentinel://h1/service?sentinel_username=u&sentinel_password=p",
    "elasticache://group-id?region=ap-northeast-1",
    "elasticache://group-id/1?region=ap-northeast-1",
]
"""All schemes, with database, password and certificate options."""

ACCEPTED: list[dict[str, Any]] = [
    {"VERIFY_INTERVAL": 0, "GRACE": 0},
    {"VERIFY_INTERVAL": 900, "GRACE": 900},
    {"IDLE_TIMEOUT": 240},
    {"PRIVILEGED_IDLE_TIMEOUT": 240},
    {"REQUEST_BUDGET": 5, "REDIS_TIMEOUT": 5},
    {"CARRY_ON_SIGN_OUT": ()},
    {"HEALTH_URL_PREFIX": None, "JOURNAL": None},
    {"SESSION_TYPE": "redis", "PERMANENT_SESSION_LIFETIME": 60, "GRACE": 300},  # keys of others are theirs
    {"SECRET_KEY": None, "GRACE": 300},  # tests may set it later, and Flask explains its absence
    {"DEFAULTS": {"lang": "ja", "bookmarked_count": 0}},
    {**REMOTE, "REDIS_URL": f"rediss://cache.internal/0?ssl_ca_certs={__file__}&max_connections=7"},
    {"testing": False, "debug": True, "REDIS_URL": "redis://localhost:6379/0"},
    {**REMOTE, "DATABASE_URL": SQLITE},
    *(
        {"ALERT_TOPICS": {severity: TOPIC.replace("aws", name, 1) for severity in checks.SEVERITIES}}
        for name in ("aws", "aws-cn")
    ),
    {**GROUP, "REDIS_URL": f"elasticache://:{SECRET}@sessions?region=ap-northeast-1&max_connections=7"},
    {**GROUP, "REDIS_URL": "elasticache://sessions?region=ap-northeast-1&token_secret=app/token"},
    {**GROUP, "REDIS_URL": "elasticache://app-user@sessions?region=ap-northeast-1"},
    {**TLS, "REDIS_URL": f"{SEALED}{ARN}", "REPLICA_URL": "valkeys://reader.internal:6379/0"},
    {**REMOTE, "REDIS_URL": f"rediss+sentinel://h1,h2/service?token_secret={ARN}"},
    {},
    HOST,
    {**HOST, "SESSION_COOKIE_PATH": "/", "APPLICATION_ROOT": "/app"},
    {"SESSION_COOKIE_NAME": "__Secure-session", "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_DOMAIN": "x.org"},
    {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_SAMESITE": "Lax"},
    {},
    {**COOKIE, "SESSION_COOKIE_NAME": "shop"},
    {**RECORDS, "ADOPT": ["flask-session"]},
    {**RECORDS, "ADOPT": ["flask-cookie", "flask-session-pickle"]},
    {"SESSION_REDIS": "of no interest"},
    *({**REMOTE, "REDIS_URL": url} for url in REDIS_URLS),
]


@pytest.mark.parametrize("config", ACCEPTED)
def test_what_is_right_is_taken_as_it_is(load: Load, no_region: None, config: dict[str, Any]) -> None:
    """Values at the edge of their ranges, each way to name and to sign in at a store, and keys of others."""
    settings = load(**config)
    ours = {name: value for name, value in config.items() if name.lower() in dir(settings)}
    assert {name: getattr(settings, name.lower()) for name in ours} == ours


def test_every_setting_has_its_check() -> None:
    """No setting is left out of the table of wrong values."""
    assert set(WRONG) == {field.name.upper() for field in dataclasses.fields(Settings) if field.init}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_alone(load: Load, name: str) -> None:
    """One problem, which begins with the setting: no follow-up of it, no other word."""
    for value in WRONG[name]:
        [problem] = problems_of(load, **{name: value})
        assert problem.startswith(PREFIX + name), repr(value)


def test_all_mistakes_come_in_one_error(load: Load, tmp_path: Path) -> None:
    """Unknown, wrong alone, wrong together, wrong places, wrong cookie: one error lists them all."""
    (tmp_path / "file").write_text("")
    problems = problems_of(
        load,
        testing=False,
        REDIS_URI="redis://h",
        MEMORY_BYTES=-1,
        KEY_PREFIX="{}",
        GRACE=10,
        REDIS_TIMEOUT=2,
        DATABASE_URL="nosuch://h/db",
        JOURNAL=str(tmp_path / "file" / "journal"),
        DEFAULTS={"lang": object()},
        SESSION_COOKIE_NAME="__Host-session",
        SECRET_KEY=None,
    )
    named = sorted(problem.removeprefix(PREFIX).split(":")[0] for problem in problems)
    assert named == [
        "DATABASE_URL", "DEFAULTS['lang']", "GRACE", "JOURNAL", "KEY_PREFIX", "MEMORY_BYTES",
        "REDIS_TIMEOUT", "REDIS_URI", "REDIS_URL", "SECRET_KEY", "SESSION_COOKIE_NAME",
    ]  # fmt: skip


@pytest.mark.parametrize(("key", "says"), [(None, "required"), ("", "required"), (b"", "required"), (7, "not int")])
def test_without_a_secret_key_that_can_sign_it_does_not_start(load: Load, key: Any, says: str) -> None:
    """The application does not start in debug either: each page that changes a session would be an error."""
    for debug in (False, True):
        [problem] = problems_of(load, debug=debug, **{**REMOTE, "SECRET_KEY": key})
        assert problem.startswith("SECRET_KEY: ") and says in problem
    assert load(**{**REMOTE, "SECRET_KEY": b"bytes"}).redis_url == REMOTE["REDIS_URL"]


ENVIRONMENT: dict[str, tuple[str, Any]] = {
    "REDIS_URL": ("redis://127.0.0.1:7000/1", "redis://127.0.0.1:7000/1"),
    "SERVICE": ('"123456"', "123456"),
    "GRACE": ("60.5", 60.5),
    "JOURNAL": ("null", None),
    "METRICS": ('["prometheus"]', ["prometheus"]),
    "DEFAULTS": ('{"lang": "jp"}', {"lang": "jp"}),
    "FEATURES__language_preference__priority": ("high", {"language_preference": {"priority": "high"}}),
    "BEHAVIOURS": ('{"low": {"1": "local_cache_fallback"}}', {"low": {"1": "local_cache_fallback"}}),
}


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read as ``from_prefixed_env`` does: JSON where it is some, else text; two underscores lead into a
    mapping."""
    for name, (text, _) in ENVIRONMENT.items():
        monkeypatch.setenv(f"FLASK_{PREFIX}{name}", text)
    app = Flask("app", instance_path=str(tmp_path))
    app.testing = True
    app.config.from_prefixed_env()
    settings = load_settings(app)
    assert {name: getattr(settings, name.partition("__")[0].lower()) for name in ENVIRONMENT} == {
        name: value for name, (_, value) in ENVIRONMENT.items()
    }
    assert settings.behaviour(Priority.LOW, 1) is Behaviour.LOCAL_CACHE_FALLBACK


def test_the_documented_environment_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of the page, as a shell reads it."""
    [block] = re.findall(r"```sh\n(FLASK_SECRET_KEY.+?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    variables = [word for line in block.splitlines() for word in shlex.split(line, comments=True)]
    for name, text in (variable.split("=", 1) for variable in variables):
        monkeypatch.setenv(name, text)
    app = Flask("app", instance_path=str(tmp_path))
    app.config.from_prefixed_env()
    settings = load_settings(app)
    assert (settings.journal, settings.service, settings.device_networks) == (None, "0123456789", True)
    assert settings.features == {"language_preference": {"priority": "high"}}


UNREAD: list[tuple[str, bool, str | None]] = [
    # key, whether it is in the environment, what has to be written or called
    ("LANGPONT_PRESET", False, f"write {PREFIX}PRESET"),
    ("LANGPONT_SESSIONS_PRESET", False, f"write {PREFIX}PRESET"),
    ("FLASK_LANGPONT_SESSION_PRESET", False, f"write {PREFIX}PRESET"),
    ("LANGPONT_LANGUAGES", False, None),  # a setting of the application's own
    ("PRESET", False, None),
    (f"FLASK_{PREFIX}PRESET", True, "call app.config.from_prefixed_env()"),
    (f"{PREFIX}PRESET", True, f"takes FLASK_{PREFIX}PRESET"),
    (f"FLASK_{PREFIX}FEATURES__language_preference__priority", True, "call app.config.from_prefixed_env()"),
    (f"FLASK_{PREFIX}SERVICE", True, None),  # the application has set it otherwise
]


@pytest.mark.parametrize(("key", "is_variable", "says"), UNREAD)
def test_a_setting_that_nothing_reads_is_told_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    key: str,
    is_variable: bool,
    says: str | None,
) -> None:
    """Its application starts, and the setting may be another package's; with a mistake that it may explain, it is named
    beside that."""
    app = Flask("app", instance_path=str(tmp_path))
    app.secret_key = "a key for tests"
    for name in ("REDIS_URL", "DATABASE_URL"):
        app.config[PREFIX + name] = REMOTE[name]
    app.config[f"{PREFIX}SERVICE"] = "shop"
    if is_variable:
        monkeypatch.setenv(key, "secret")
    else:
        app.config[key] = "secret"
    load_settings(app)
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [(text.startswith(f"{key}: not read"), str(says) in text) for text in logged] == [(True, True)] * bool(says)
    app.config[f"{PREFIX}REDIS_URL"] = None
    with pytest.raises(ConfigError) as raised:
        load_settings(app)
    assert list(raised.value.problems[1:]) == logged and "secret" not in str(raised.value)


def test_a_wrong_topic_is_named_by_its_severity_and_not_quoted(load: Load) -> None:
    """An ARN names the account, and errors are logged."""
    [problem] = problems_of(load, ALERT_TOPICS={"info": TOPIC, "critical": f"{TOPIC}.fifo", "warning": f" {TOPIC}"})
    assert problem.startswith(f"{PREFIX}ALERT_TOPICS: critical, warning: ")
    assert "123456789012" not in problem
    for turned_round in (TOPIC, {TOPIC: "critical"}):
        [problem] = problems_of(load, ALERT_TOPICS=turned_round)
        assert "123456789012" not in problem
    [problem] = problems_of(load, ALERT_TOPICS={"fatal": TOPIC})
    assert problem.endswith("not 'fatal'")


def test_what_an_exporter_needs_is_asked_for_at_start(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region; and what only one exporter reads is an error without it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    monkeypatch.setattr("flask_langpont_session.config.rules.find_spec", lambda name: "here")
    assert load(METRICS=["cloudwatch", "prometheus"], METRICS_URL="/metrics").metrics == ["cloudwatch", "prometheus"]
    [problem] = problems_of(load, METRICS=["cloudwatch"], METRICS_URL="/metrics")
    assert problem.startswith(f"{PREFIX}METRICS_URL: ") and "'prometheus'" in problem
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    [problem] = problems_of(load, METRICS=["cloudwatch"])
    assert "region" in problem
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert load(METRICS=["cloudwatch"]).metrics == ["cloudwatch"]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_the_preset_of_an_application_has_no_names_of_a_product(load: Load) -> None:
    """Its categories are auth, ui and data; names that are usual for roles are rights in it."""
    settings = load(PRESET="application")
    assert list(settings.table.categories) == ["auth", "ui", "data"] == list(settings.categories)
    assert settings.carry_on_sign_in == ("ui", "data")
    assert {f.priority for f in settings.table.features.values() if f.name in ("language", "theme")} == {Priority.HIGH}
    assert all(map(settings.is_identity, ("user_id", "role", "is_admin", "_fresh")))
    for key in ("input_text", "usage_count", "analysis_engine"):
        assert settings.table.feature_of(key).name == "other"


def test_what_is_configured_goes_before_the_preset(load: Load) -> None:
    settings = load(PRESET="application", CATEGORIES=DEFAULT_CATEGORIES, PRIVILEGE_KEYS=["staff"])
    assert "translation" in settings.table.categories
    assert not settings.is_identity("role")


def test_a_category_that_a_feature_makes_goes_with_a_visitor_who_signs_in(load: Load) -> None:
    """As all but auth does."""
    cart = {"cart": {"keys": ["cart"], "category": "shop"}}
    assert load(PRESET="application", FEATURES=cart).carry_on_sign_in == ("ui", "data", "shop")


SHOP: dict[str, Any] = {
    "auth": {"features": {"login": ["_user_id"], "csrf_protection": ["csrf_token"]}},
    "cart": {"ttl": 600, "features": {"items": ["cart"], "rest": ["*"]}},
}
SHOP_PRIORITIES = {"items": {"priority": "high"}, "rest": {"priority": "low"}}
SHOP_KEYS: dict[str, Any] = {"USER_KEYS": ["_user_id"], "PRIVILEGE_KEYS": [], "CARRY_ON_SIGN_OUT": []}


def shop(**changes: Any) -> dict[str, Any]:
    return {"CATEGORIES": SHOP, "FEATURES": SHOP_PRIORITIES, **SHOP_KEYS, **changes}


def test_the_smallest_table_needs_no_other_setting(load: Load) -> None:
    """Default users and rights are in auth, and what default carries over need not be there."""
    settings = load(CATEGORIES={"auth": {}, "ui": {"features": {"all": ["*"]}}}, FEATURES={"all": {"priority": "high"}})
    assert settings.table.feature_of("_user_id").category == "auth"
    assert settings.table.feature_of("anything").category == "ui"
    assert (settings.carry_on_sign_in, settings.carry_on_sign_out) == (("ui",), ("ui",))


def test_mistakes_in_the_table_come_with_those_about_it(load: Load) -> None:
    """All at once; none of them is only there because of another."""
    table = {**SHOP, "cart": {"ttl": 0, "features": {"items": ["cart", "@cart"], "rest": ["*"]}}}
    problems = problems_of(
        load, **shop(CATEGORIES=table, CARRY_ON_SIGN_OUT=["card"], PRIVILEGE_KEYS=["cart"], DEFAULTS={"_user_id": 1})
    )
    found = [problem.removeprefix(PREFIX).partition(":")[0] for problem in problems]
    assert found == [
        "CATEGORIES['cart']['ttl']",
        "CATEGORIES",
        "PRIVILEGE_KEYS",
        "CARRY_ON_SIGN_OUT",
        "DEFAULTS['_user_id']",
    ]


def test_a_feature_is_added_to_the_table(load: Load) -> None:
    """It has the priority that stands with it."""
    added = {"cart": {"keys": ["cart"], "category": "ui", "priority": "medium"}}
    assert load(FEATURES=added).table.feature_of("cart").priority is Priority.MEDIUM


# -- defaults ----------------------------------------------------------------------------------------------------------


def test_a_default_for_a_key_that_no_feature_claims_is_refused(load: Load) -> None:
    """Nothing could ever show such a default."""
    table = {**SHOP, "cart": {"ttl": 600, "features": {"items": ["cart"]}}}
    features = {"items": {"priority": "high"}}
    [problem] = problems_of(load, **shop(CATEGORIES=table, FEATURES=features, DEFAULTS={"lang": "ja", "cart": []}))
    assert problem.startswith(f"{PREFIX}DEFAULTS['lang']")


# -- places ------------------------------------------------------------------------------------------------------------


def test_redis_and_database_are_required_in_production(load: Load) -> None:
    """No silent localhost where it counts; both are asked for at once."""
    problems = problems_of(load, testing=False)
    assert [problem.split(",")[0] for problem in problems] == [
        f"{PREFIX}REDIS_URL: required outside debug and testing",
        f"{PREFIX}DATABASE_URL: required",
    ]
    assert "for tests set TESTING before LangPontSession(app), by FLASK_TESTING=true" in problems[0]


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:7000/1", "redis://[::1]", "valkey://localhost", "unix:///run/v.sock"]
)
def test_beside_a_local_redis_the_database_may_be_a_file(load: Load, url: str) -> None:
    """One host has one arbiter: the SQLite file in its instance folder."""
    assert is_local(url)
    assert file_of(load(testing=False, REDIS_URL=url))


def test_an_engine_is_looked_at_as_a_url_is(load: Load) -> None:
    """An in-memory database is no arbiter, however it is handed over."""
    memory = sqlalchemy.create_engine("sqlite://")
    latin = sqlalchemy.create_engine("mysql+pymysql://h/db?charset=latin1")
    assert "write charset=utf8mb4" in str(problems_of(load, DATABASE_URL=latin))
    utf8mb4 = sqlalchemy.create_engine("mysql+pymysql://h/db?charset=utf8mb4")
    assert load(DATABASE_URL=utf8mb4).database_engine is utf8mb4
    file = sqlalchemy.create_engine("sqlite:////var/lib/app/sessions.sqlite3")
    assert load(DATABASE_URL=file).database_engine is file
    [problem] = problems_of(load, DATABASE_URL=memory)
    assert problem.startswith(f"{PREFIX}DATABASE_URL: ")
    assert "in-memory" in problem


@pytest.mark.parametrize("client", [redis.Redis(), fakeredis.FakeRedis()])
def test_a_client_stands_in_the_place_of_a_url(load: Load, client: Any) -> None:
    """It says where the server is, and nothing is taken for a server of this host."""
    settings = load(REDIS_URL=client)
    assert (settings.redis_client, settings.redis_url) == (client, None)
    [problem] = problems_of(load, testing=False, REDIS_URL=client)
    assert problem.startswith(f"{PREFIX}DATABASE_URL: required")


def test_an_engine_whose_driver_will_not_do_is_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is refused as it is in a URL."""
    monkeypatch.setattr("flask_langpont_session.config.rules.REFUSED", {"pysqlite": "it is the one of this test"})
    [problem] = problems_of(load, DATABASE_URL=sqlalchemy.create_engine("sqlite:///x.sqlite3"))
    assert problem == f"{PREFIX}DATABASE_URL: its driver will not do: it is the one of this test"


@pytest.mark.parametrize("where", ["folder", "file/journal", "file/deep/journal"])
def test_a_journal_that_cannot_be_written_is_named(load: Load, tmp_path: Path, where: str) -> None:
    """Found with all other mistakes, before anything is opened."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    [problem] = problems_of(load, JOURNAL=str(tmp_path / where))
    assert problem.startswith(f"{PREFIX}JOURNAL: ")


def test_a_journal_of_another_user_is_named_with_its_owner_and_the_cure(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command as root leaves such a journal: workers of another user can neither read nor write it."""
    path, owner = tmp_path / "journal", pwd.getpwuid(os.geteuid()).pw_name
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert problems_of(load, JOURNAL=str(path)) == [
        f"{PREFIX}JOURNAL: '{path}': journal belongs to {owner}, and this process runs as 12345; run workers and "
        f"commands as one user, and chown {path} and the files beside it to that one"
    ]


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no SQLite database is not overwritten, and the log says so. The journal is beside it."""
    (tmp_path / "notes.txt").write_text("my notes, not a database\n" * 100)
    app = Flask("app", instance_path=str(tmp_path))
    app.testing = True
    app.config[f"{PREFIX}JOURNAL"] = tmp_path / "notes.txt"
    LangPontSession(app)
    assert (tmp_path / "notes.txt").read_text().startswith("my notes")
    assert "notes.txt is not used: it cannot be read (SQLITE_NOTADB)" in caplog.text


def test_a_damaged_journal_says_what_helps(tmp_path: Path) -> None:
    """A file beside the one that the setting names, which is used where it is. It stays as it is."""
    path = tmp_path / "journal-9"
    path.write_text("my notes, not a database\n" * 100)
    app = Flask("app", instance_path=str(tmp_path))
    app.testing = True
    app.config[f"{PREFIX}JOURNAL"] = tmp_path / "journal"
    with pytest.raises(ConfigError) as caught:
        LangPontSession(app)
    [problem] = caught.value.problems
    assert problem.startswith(f"{PREFIX}JOURNAL: {path} cannot be used (journal: unreachable (SQLITE_NOTADB))")
    assert "flask langpont journal --archive" in problem
    assert path.read_text().startswith("my notes")


@pytest.mark.parametrize("form", [min(FORMS) - 1, max(FORMS) + 1])
def test_a_journal_of_another_release_keeps_no_application_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: int
) -> None:
    """D32: it is left alone, with what waits in it, and the log says so."""
    path = tmp_path / ("journal" if form < min(FORMS) else f"journal-{form}")
    former_release.make(path, form=form)
    before = path.read_bytes()
    app = Flask("app", instance_path=str(tmp_path))
    app.testing = True
    app.config[f"{PREFIX}JOURNAL"] = tmp_path / "journal"
    LangPontSession(app)
    release = "an older" if form < min(FORMS) else "a newer"
    assert f"{path.name} is not used: {release} release has written it, in form {form}" in caplog.text
    assert path.read_bytes() == before


def test_a_journal_in_a_folder_that_is_not_there_yet_is_fine(load: Load, tmp_path: Path) -> None:
    """It is made at start."""
    assert load(JOURNAL=str(tmp_path / "a" / "b" / "journal")).journal == str(tmp_path / "a" / "b" / "journal")


# -- extras ------------------------------------------------------------------------------------------------------------


LOOKUPS = ("aws.client.is_installed", "config.checks.find_spec", "config.rules.find_spec")
"""What tells whether an extra is installed."""


@pytest.mark.parametrize(
    ("config", "setting", "extra"),
    [
        (GROUP, "REDIS_URL", "aws"),
        ({**TLS, "REDIS_URL": f"{SEALED}{ARN}"}, "REDIS_URL", "aws"),
        ({"ALERT_TOPICS": {"critical": TOPIC}}, "ALERT_TOPICS", "aws"),
        ({"METRICS": ["cloudwatch"]}, "METRICS", "aws"),
        ({"METRICS": ["otel"]}, "METRICS", "otel"),
        ({"METRICS": ["prometheus"]}, "METRICS", "prometheus"),
        ({"ENCRYPTION_KEYS": [SEALING]}, "ENCRYPTION_KEYS", "encrypted"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    load: Load, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], setting: str, extra: str
) -> None:
    """Better at start than in the first outage."""
    for lookup in LOOKUPS:
        monkeypatch.setattr(f"flask_langpont_session.{lookup}", lambda *name: None)
    [problem] = problems_of(load, **config)
    assert problem.startswith(PREFIX + setting)
    assert problem.endswith(f'pip install "flask-langpont-session[{extra}]"')


# -- docs --------------------------------------------------------------------------------------------------------------

IN_WORDS = {"REDIS_URL", "DATABASE_URL", "JOURNAL", "CATEGORIES"}


@pytest.mark.parametrize("environment", ["production", "staging", "development"])
def test_the_examples_for_elasticache_are_accepted(
    load: Load, no_region: None, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """The examples, those that AWS is asked for and the one by hand, need nothing that the host would have to know."""
    monkeypatch.setenv("ENVIRONMENT", environment)
    text = DOCS.with_name("elasticache.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    for block in blocks:
        app = Flask("app")
        exec(block, {"app": app})
        given = app.config.get_namespace(PREFIX, lowercase=False)
        assert load(**{**REMOTE, **given}).redis_url == given["REDIS_URL"]
    assert len(blocks) == 4


def documented() -> dict[str, list[str]]:
    """Setting → type, default and meaning, as the tables of the docs have them."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = [re.fullmatch(r"\| `([A-Z_]+)` \| (.+?) \| (.+?) \| (.+) \|", line) for line in lines]
    return {row[1]: [row[2], row[3], row[4]] for row in rows if row}


def test_every_setting_is_documented_with_its_default() -> None:
    """The docs' tables name all settings and no others, and the defaults in them are the code's."""
    found = documented()
    assert set(found) == {field.name.upper() for field in dataclasses.fields(Settings) if field.init}
    written = {
        name: f"`{' '.join(default)}`" if isinstance(default, tuple) else f"`{default!r}`"
        for name, default in DEFAULTS.items()
        if name not in IN_WORDS
    }
    assert {name: found[name][1] for name in written} == written


def test_a_command_needs_no_place_for_a_journal_that_is_not_there(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that makes the tables runs where nothing may be written; a worker there is refused."""
    monkeypatch.setattr("os.access", lambda *arguments: False)
    place = str(tmp_path / "journal.sqlite3")
    [problem] = problems_of(load, JOURNAL=place)
    assert "not a place where this process may write" in problem
    monkeypatch.setattr(rules, "is_command", lambda: True)
    assert load(JOURNAL=place).journal == place
