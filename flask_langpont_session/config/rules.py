"""Rules about several settings together, and the application's own beside them: mistakes although each alone is
right."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import Flask
from flask.cli import ScriptInfo
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from ..exceptions import SessionValueError
from ..policy.categories import AUTH, TRANSIENT_KEYS, CategoryTable
from ..policy.serializer import check_key, encode
from ..stores.redis.url import Kind, has_credentials, has_tls, kind_of, secret_of
from ..stores.sql.dialects import RECOMMENDED, REFUSED
from ..support.files import UnsafeFile, check_private
from . import checks
from .checks import FLASK_SESSION, FLASK_SESSION_PICKLE, PREFIX

if TYPE_CHECKING:
    from .settings import Settings


def problems_of(settings: Settings, app: Flask, wrong: Set[str], tables: list[str], *, has_table: bool) -> list[str]:
    """Return the mistakes of settings that are right alone.

    :param wrong: settings that are wrong alone. They stand at their defaults here, about which there is nothing to say.
    :param tables: what is wrong inside the tables of categories and behaviours.
    :param has_table: whether the table of categories is as it was configured.
    """
    problems = list(tables)
    if has_table:
        problems += _table_relations(settings) + _default_problems(settings)
    problems += _secret_key_problems(app) + _relations(settings, wrong) + _places(settings, app) + _cookie_problems(app)
    problems += _adoption_problems(settings, app)
    if "encryption_keys" not in wrong:
        problems += _encryption_problems(settings, app)
    if "redis_url" not in wrong:
        problems += _secret_problems(settings)
    about = tuple(f"{PREFIX}{name.upper()}{end}" for name in wrong for end in (":", "["))
    return [problem for problem in problems if not problem.startswith(about)]


_Relation = tuple[Set[str], bool, str]
"""Names of settings, of which none may be wrong alone; whether they are a mistake together; and what it is, without the
prefix."""


def _relations(settings: Settings, wrong: Set[str]) -> list[str]:
    """Return the mistakes of settings that are right alone and wrong together."""
    relations = (*_lives(settings), *_waits(settings), *_servers(settings), *_needed(settings))
    return [PREFIX + text for names, is_broken, text in relations if is_broken and not names & wrong]


def _lives(settings: Settings) -> Iterator[_Relation]:
    """Yield the rules about the lifetime of sessions, and of copies of them."""
    interval, idle = settings.verify_interval, settings.idle_timeout
    for name in ("idle_timeout", "privileged_idle_timeout"):
        timeout = getattr(settings, name)
        yield (
            {"verify_interval", name},
            timeout is not None and timeout / 4 < interval,
            f"VERIFY_INTERVAL: at most a quarter of {name.upper()}, else a session that is only read would run out",
        )
    yield (
        {"idle_timeout", "absolute_timeout"},
        idle > settings.absolute_timeout,
        "IDLE_TIMEOUT: at most ABSOLUTE_TIMEOUT",
    )
    yield (
        {"grace", "verify_interval"},
        0 < settings.grace < interval,
        "GRACE: 0, or at least VERIFY_INTERVAL; a copy may always be as old as that",
    )


def _waits(settings: Settings) -> Iterator[_Relation]:
    """Yield the rules about what one request may wait for."""
    seconds, budget = settings.redis_timeout, settings.request_budget
    text = (
        f"REDIS_TIMEOUT: {seconds:g} s alone is more than REQUEST_BUDGET ({budget:g} s), all that a request waits for"
    )
    yield ({"redis_timeout", "request_budget"}, seconds > budget, text)


def _servers(settings: Settings) -> Iterator[_Relation]:
    """Yield the rules about the two URLs of Redis."""
    kind = kind_of(settings.redis_url)
    if kind is Kind.CLUSTER or kind is Kind.GROUP:
        text = f"REPLICA_URL: the replicas of a {kind.value} are found with its primaries; leave this out"
        yield ({"redis_url", "replica_url"}, settings.replica_url is not None, text)


def _needed(settings: Settings) -> Iterator[_Relation]:
    """Yield the rules about settings that have no effect without another one."""
    for name in ("privileged_idle_timeout", "privileged_absolute_timeout"):
        yield (
            {name, "privileged_roles"},
            getattr(settings, name) is not None and not settings.privileged_roles,
            f"{name.upper()}: it is about no session, because PRIVILEGED_ROLES is empty",
        )
    yield (
        {"status_page", "health_url_prefix"},
        settings.status_page is not None and settings.health_url_prefix is None,
        "STATUS_PAGE: it is one of the health pages, of which HEALTH_URL_PREFIX says that there are none",
    )


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
        f"{PREFIX}USER_KEYS: {key!r}: whole names only, the first that is set names the user"
        for key in settings.user_keys
        if "*" in key
    ]
    others = settings.carry_on_sign_in
    problems += [
        f"{PREFIX}CARRY_ON_SIGN_OUT: {category!r} is not one of {', '.join(others) or 'no categories'}"
        for category in settings.carry_on_sign_out
        if category not in others
    ]
    problems += [
        f"{PREFIX}ENCRYPTED_CATEGORIES: {category!r} is not one of {', '.join(table.categories)}"
        for category in settings.encrypted_categories or ()
        if category not in table.categories
    ]
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
        encode(check_key(key), value)
    except SessionValueError as error:
        return error.reason
    if key in TRANSIENT_KEYS:
        return "a transient key has no default; it is never stored"
    category = _category_of(settings.table, key)
    if category is None:
        return "no feature of CATEGORIES claims this key"
    return "auth keys have no defaults: an identity is never invented" if category == AUTH else None


def _secret_key_problems(app: Flask) -> list[str]:
    """Check SECRET_KEY. Tests may set it later; Flask itself explains its absence there."""
    if isinstance(app.secret_key, (str, bytes, type(None))):
        if app.secret_key or app.testing:
            return []
        return ["SECRET_KEY: required, it signs the cookie; python -c 'import secrets; print(secrets.token_hex())'"]
    return [
        f"SECRET_KEY: text or bytes, not {type(app.secret_key).__name__}; in an environment variable digits alone are "
        f"a number, unless they are in quotation marks that are part of it"
    ]


def _cookie_problems(app: Flask) -> list[str]:
    """Check Flask's own settings, where browsers would throw the cookie away (or Werkzeug fail at each response)."""
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
    """Check what taking over old sessions needs."""
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
        elif problem := checks.client("SESSION_REDIS", client):
            problems.append(problem)
    return problems


def _encryption_problems(settings: Settings, app: Flask) -> list[str]:
    """Check that keys serve one purpose each, and that settings of encryption come with a key."""
    label = f"{PREFIX}ENCRYPTION_KEYS"
    if not settings.encryption_keys:
        return [
            f"{PREFIX}{name.upper()}: nothing is encrypted without a key in ENCRYPTION_KEYS"
            for name in ("encrypted_categories", "encryption_switch_over")
            if getattr(settings, name)
        ]
    from ..stores.codec.keys import SAMPLE, problems_of

    if SAMPLE in settings.encryption_keys and not app.testing:
        return [f"{label}: the sample of docs/how-to/encrypt.md, which is no secret"]
    others = (app.secret_key, *(app.config["SECRET_KEY_FALLBACKS"] or ()))
    signing = [key for key in others if isinstance(key, (str, bytes))]
    problems = [f"{label}: {problem}" for problem in problems_of(settings.encryption_keys, signing)]
    return problems + _switch_problems(settings)


_LONGEST_SWITCH_OVER = timedelta(days=400)
"""It is to end. The longest life of a session may be a year."""


def _switch_problems(settings: Settings) -> list[str]:
    ends = checks.moment_of(settings.encryption_switch_over)
    if ends is None or ends - datetime.now(UTC) <= _LONGEST_SWITCH_OVER:
        return []
    return [f"{PREFIX}ENCRYPTION_SWITCH_OVER: at most {_LONGEST_SWITCH_OVER.days} days from now: it is to end"]


def _places(settings: Settings, app: Flask) -> list[str]:
    """Check the places of the stores: is anything missing, unreadable or dangerous?"""
    problems = []
    if not settings.redis_url and settings.redis_client is None:
        problems.append(
            f"{PREFIX}REDIS_URL: required outside debug and testing, for example redis://host:6379/0; for tests set "
            "TESTING before LangPontSession(app), by FLASK_TESTING=true and app.config.from_prefixed_env()"
        )
    for name in ("redis_url", "replica_url"):
        problems += checks.redis_url_problems(name, getattr(settings, name))
    if not settings.database_url and settings.database_engine is None:
        problems.append(
            f"{PREFIX}DATABASE_URL: required, for example postgresql+psycopg://user@host/db; it decides about sign-ins"
        )
    return problems + _database_problems(settings) + _journal_problems(settings) + _metrics_problems(settings)


def _database_problems(settings: Settings) -> list[str]:
    engine, url = settings.database_engine, settings.database_url
    if engine is not None:
        problem = _engine_problem(engine) or _place_problem(engine.url)
    elif url:
        problem = _driver_problem(url) or _place_problem(make_url(url))
    else:
        return []
    return [f"{PREFIX}DATABASE_URL: {problem}"] if problem else []


def _engine_problem(engine: Engine) -> str | None:
    """Return why an engine of the application's cannot be used, whatever database is behind it."""
    if reason := REFUSED.get(engine.dialect.driver):
        return f"its driver will not do: {reason}"
    if isinstance(engine.pool, StaticPool):
        return (
            "its StaticPool has one connection for all threads: sessions would be written in the middle "
            "of the application's transactions; use an engine with another pool, or write its URL instead"
        )
    return None


def _driver_problem(text: str | URL) -> str | None:
    """Return why nothing can connect to a URL: it is none, or its driver cannot be used."""
    try:
        url = make_url(text)
        if reason := REFUSED.get(url.drivername.partition("+")[2]):
            return f"its driver will not do: {reason}"
        dialect = url.get_dialect()
        if dialect.is_async:
            scheme, _ = RECOMMENDED.get(url.get_backend_name(), (f"{url.get_backend_name()}://", ""))
            return f"{url.drivername!r} is asynchronous; write {scheme}, whose driver waits"
        dialect.import_dbapi()
    except NoSuchModuleError:
        name = make_url(text).drivername
        instead = "; write postgresql+psycopg://" if name.partition("+")[0] == "postgres" else ""
        return f"SQLAlchemy knows no dialect {name!r}{instead}"
    except (ArgumentError, ValueError):
        return "not a database URL, for example postgresql+psycopg://user@host/db"
    except ImportError as error:
        scheme, package = RECOMMENDED.get(url.get_backend_name(), RECOMMENDED["postgresql"])
        return f'its driver {error.name!r} is not installed; write {scheme} and pip install "{package}"'
    return None


def _place_problem(url: URL) -> str | None:
    """Return why a database cannot decide about all sessions of the application."""
    if url.get_backend_name() in ("mysql", "mariadb") and url.query.get("charset", "utf8mb4") != "utf8mb4":
        return (
            "its charset has no form for some names, and such users could never sign in; write "
            "charset=utf8mb4, or leave it out"
        )
    if checks.is_in_memory(url):
        return "an in-memory SQLite database forgets every session and is private to one thread; use a file"
    return None


def is_command() -> bool:
    """Return whether the application is loaded by a command of ``flask`` that answers no requests: such a command makes
    none of the workers' files unless it needs them, because its user may be another one."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_object(ScriptInfo) is not None and context.info_name != "run"


def _journal_problems(settings: Settings) -> list[str]:
    """Check the journal's place before the file is opened, so that its problems are told together with all others."""
    if not settings.journal:
        return []
    path, hindrance = Path(settings.journal), "not a place where this process may write a file"
    try:
        if path.is_dir():
            return [f"{PREFIX}JOURNAL: {os.fspath(path)!r} is a folder; name a file"]
        if is_command() and not path.exists():
            return []  # it makes none, and where it runs there may be no room for one
        place = path if path.exists() else next(p for p in path.absolute().parents if p.exists())
        usable = place is path or place.is_dir()
        if usable and os.access(place, os.R_OK | os.W_OK):
            return []
        check_private(path)
    except UnsafeFile as error:
        hindrance = str(error)
    except OSError:
        pass
    return [f"{PREFIX}JOURNAL: {os.fspath(path)!r}: {hindrance}"]


def _metrics_problems(settings: Settings) -> list[str]:
    """Check what an exporter needs and will not find by itself later, as it may find credentials."""
    label = f"{PREFIX}METRICS"
    idle = []
    if settings.metrics_url is not None and "prometheus" not in settings.metrics:
        idle = [f"{PREFIX}METRICS_URL: nothing reads it; add 'prometheus' to METRICS, or leave this out"]
    missing = [
        f'{label}: {exporter} needs {module}; pip install "flask-langpont-session[{extra}]"'
        for exporter, module, extra in (
            ("cloudwatch", "boto3", "aws"),
            ("otel", "opentelemetry", "otel"),
            ("prometheus", "prometheus_client", "prometheus"),
        )
        if exporter in settings.metrics and find_spec(module) is None
    ]
    if missing or "cloudwatch" not in settings.metrics:
        return idle + missing
    from ..aws.client import known_region

    if known_region():
        return idle
    return [*idle, f"{label}: cloudwatch needs a region: set AWS_DEFAULT_REGION, or name one in AWS_PROFILE's profile"]


def _secret_problems(settings: Settings) -> list[str]:
    """Check the password that a secret of AWS holds: what it needs, and what it cannot stand beside."""
    secret = secret_of(settings.redis_url)
    if not secret:
        return []
    urls = {name: getattr(settings, name) for name in ("redis_url", "replica_url")}
    known = {name: url for name, url in urls.items() if url and not checks.redis_url_problems(name, url)}
    problems = [f"{name.upper()}: {problem}" for name, url in known.items() for problem in _greeting_problems(url)]
    return [PREFIX + problem for problem in problems or _asking_problems(settings.redis_url, secret)]


def _asking_problems(url: str | None, secret: str) -> list[str]:
    from ..aws import client as aws
    from ..aws.credentials import region_of

    if not aws.is_installed():
        return [f"REDIS_URL: token_secret needs boto3; {aws.EXTRA}"]
    if kind_of(url) is not Kind.GROUP and not region_of(secret, aws.known_region()):
        return ["REDIS_URL: no region is known; give the ARN of the token_secret, or set AWS_DEFAULT_REGION"]
    return []


def _greeting_problems(url: str) -> list[str]:
    if not has_tls(url):
        return ["without TLS the token of token_secret could be read on the way; use rediss:// or elasticache://"]
    return ["token_secret beside a user or a password; give one of them"] if has_credentials(url) else []
