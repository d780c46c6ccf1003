"""Checks of one value at a time: whether it is of the right kind, and the value that replaces it if not.

A check is given the setting's name with its prefix and the value; it says what is wrong, or None. What may be secret (a
URL with a password, an ARN) is never quoted.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

from redis import ConnectionPool
from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..policy.causes import PREFIX as PREFIX
from ..stores.redis.url import (
    GROUP_OPTIONS,
    SCHEMES,
    SENTINEL_OPTIONS,
    Kind,
    has_tls,
    is_number,
    kind_of,
    options_of,
    read_cluster,
    read_group,
    read_sentinel,
    read_server,
    secret_of,
)
from .categories import names_problem

Check = Callable[[str, Any], str | None]

_URL_OPTIONS = frozenset(
    {"db", "client_name", "max_connections", "token_secret"}
    | {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}
)
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "", None})

FLASK_COOKIE, FLASK_SESSION, FLASK_SESSION_PICKLE = "flask-cookie", "flask-session", "flask-session-pickle"
"""The sessions that can be taken over, see :mod:`~flask_langpont_session.adoption.adopter`."""

SEVERITIES = ("info", "warning", "critical", "emergency")
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")


def number(low: float, high: float, kind: str) -> Check:
    def check(name: str, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return f"{name}: {kind} from {low:.15g} to {high:.15g}, not {value!r}"
        return None

    return check


def integer(low: int, high: int, kind: str) -> Check:
    in_range = number(low, high, kind)

    def check(name: str, value: Any) -> str | None:
        return in_range(name, value) if isinstance(value, int) else f"{name}: {kind}, a whole number, not {value!r}"

    return check


_sessions = integer(1, 1_000_000, "sessions")


def limit(name: str, value: Any) -> str | None:
    if value is None or callable(value):
        return None
    problem = _sessions(name, value)
    return f"{problem}; or a callable that is given the user's id; None: no limit" if problem else None


def names(name: str, value: Any) -> str | None:
    problem = names_problem(value)
    return f"{name}: {problem}" if problem else None


def mapping(name: str, value: Any) -> str | None:
    return None if isinstance(value, Mapping) else f"{name}: a mapping, not {type(value).__name__}"


def text(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return f"{name}: a non-empty string, not {'an empty one' if value == '' else type(value).__name__}"
    return None if value == value.strip() else f"{name}: a space or a line break at its beginning or end"


def topics(name: str, value: Any) -> str | None:
    """Check topics, without naming what was given: an ARN names the account."""
    if not isinstance(value, Mapping):
        return f"{name}: a mapping of severity → ARN of an SNS topic, not {type(value).__name__}"
    unknown = [repr(key) if str(key).isalpha() else "something else" for key in value if key not in SEVERITIES]
    if unknown:
        return f"{name}: the severities are {', '.join(SEVERITIES)}, not {', '.join(unknown)}"
    wrong = [severity for severity, arn in value.items() if not (isinstance(arn, str) and _TOPIC_ARN.fullmatch(arn))]
    if wrong:
        return f"{name}: {', '.join(wrong)}: the ARN of a standard topic, as in arn:aws:sns:REGION:ACCOUNT:NAME"
    return _boto3_problem(name) if value else None


def _boto3_problem(name: str) -> str | None:
    from ..aws import client as aws

    return None if aws.is_installed() else f"{name}: boto3 is not installed; {aws.EXTRA}"


def flag(name: str, value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{name}: True or False, not {value!r}"


def dimension(name: str, value: Any) -> str | None:
    """CloudWatch refuses everything that is sent under another one."""
    if not isinstance(value, str) or not re.fullmatch(r"[ -~]{1,1024}", value) or value.isspace():
        return f"{name}: 1 to 1024 printable ASCII characters, not only blanks (it is a dimension of metrics)"
    return None


def some_of(*allowed: str) -> Check:
    def check(name: str, value: Any) -> str | None:
        problem = names(name, value)
        wrong = [] if problem else [repr(item) for item in value if item not in allowed]
        return f"{name}: any of {', '.join(allowed)}, not {', '.join(wrong)}" if wrong else problem

    return check


def one_of(*allowed: str) -> Check:
    return lambda name, value: None if value in allowed else f"{name}: one of {', '.join(allowed)}, not {value!r}"


def guard(name: str, value: Any) -> str | None:
    """Check a function that guards a page. It must not be ``async``: what an ``async`` function returns at once is
    true, whatever it is about."""
    if value is None or (callable(value) and not inspect.iscoroutinefunction(value)):
        return None
    return f"{name}: a function (no async one) that is given the request and returns True or False, or None"


def labels(name: str, value: Any) -> str | None:
    if value == "user_agent":
        return _parser_problem(name)
    if isinstance(value, str) or guard(name, value):
        return f"{name}: user_agent, or a function (no async one) that is given the request and returns a text, or None"
    return None


def _parser_problem(name: str) -> str | None:
    try:
        import ua_parser
    except ImportError:
        return f"{name}: ua-parser is not installed; pip install 'flask-langpont-session[devices]'"
    return None if hasattr(ua_parser, "parse") else f"{name}: ua-parser from 1.0 on, not an older one"


def optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def encryption_keys(name: str, value: Any) -> str | None:
    """Check keys, without naming what was given."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return f"{name}: a list of keys, newest first, not {type(value).__name__}"
    if not value:
        return None
    from ..stores.codec.keys import problems_of

    if problems := problems_of(value):
        return f"{name}: {'; '.join(problems)}"
    if find_spec("cryptography") is None:
        return f'{name}: cryptography is not installed; pip install "flask-langpont-session[encrypted]"'
    return None


def moment(name: str, value: Any) -> str | None:
    if moment_of(value) is None:
        return f"{name}: a moment with its zone, such as 2030-01-31T12:00:00+00:00, or None, not {value!r}"
    return None


def moment_of(value: Any) -> datetime | None:
    """Return the moment that a person has written; None: it is none, or has no zone."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return found if isinstance(found, datetime) and found.tzinfo is not None else None


def path(name: str, value: Any) -> str | None:
    return None if isinstance(value, (str, Path)) else f"{name}: a path or None, not {type(value).__name__}"


def prefix(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
        return f"{name}: letters, digits and _ . : - only (it is part of every Redis key), not {value!r}"
    return None


def page_like(example: str) -> Check:
    def check(name: str, value: Any) -> str | None:
        if not isinstance(value, str) or not re.fullmatch(r"(/[^/<>\s]+)+", value):
            return f"{name}: a path such as {example}, or None, not {value!r}"
        return None

    return check


def database_place(name: str, value: Any) -> str | None:
    if isinstance(value, (str, Engine)):
        return text(name, value) if isinstance(value, str) else None
    hint = " (of Flask-SQLAlchemy db.engine, within app.app_context())" if type(value).__name__ == "SQLAlchemy" else ""
    return f"{name}: a URL, or an Engine of SQLAlchemy (not an asynchronous one), not {type(value).__name__}{hint}"


def redis_place(name: str, value: Any) -> str | None:
    return text(name, value) if isinstance(value, str) else client(name, value)


def client(name: str, value: Any) -> str | None:
    """Connections are made as the client's pool says (``stores/connections.py``): it must be one of redis-py's, which
    waits in the ordinary way."""
    is_ours = isinstance(getattr(value, "connection_pool", None), ConnectionPool)
    if is_ours and not inspect.iscoroutinefunction(type(value).execute_command):
        return None
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if not name.endswith("URL"):  # of another package's setting, which has no other form
        instead = ""
    elif "Cluster" in type(value).__name__:
        instead = "; write 'redis+cluster://host,host' instead, which names some of its servers"
    elif hasattr(value, "execute_command"):
        instead = "; write its address instead, such as 'valkey://host:6379/0'"
    else:
        instead = ""
    return f"{name}: a client of redis-py, as redis.Redis and fakeredis.FakeRedis are, not {kind}{instead}"


def tables(example: str) -> Check:
    """Return a check of the outermost shape only; what is inside is checked where the table is built."""
    return lambda name, value: None if isinstance(value, Mapping) else f"{name}: a mapping of {example}"


def behaviour_cells(name: str, value: Any) -> str | None:
    rows = value.values() if isinstance(value, Mapping) else [None]
    if not all(isinstance(row, Mapping) and all(isinstance(cell, str) for cell in row.values()) for row in rows):
        return f"{name}: a mapping of priority → level → behaviour"
    return None


def is_local(redis_url: str | None) -> bool:
    """Return whether a Redis URL names this very host. Sentinels and seeds may run here, but what they know is on
    several."""
    if not redis_url or kind_of(redis_url) not in (Kind.SERVER, None):
        return False
    try:
        parts = read_server(redis_url)
        return parts.scheme == "unix" or parts.hostname in _LOCAL_HOSTS
    except ValueError:
        return False


def is_in_memory(url: str | URL) -> bool:
    try:
        known = make_url(url)
    except ArgumentError:
        return False
    if known.get_backend_name() != "sqlite":
        return False
    return not known.database or ":memory:" in known.database or known.query.get("mode") == "memory"


_NUMBER_SIGN = "'#' ends a URL; in a password write %23"


def redis_url_problems(name: str, url: str | None) -> list[str]:
    if not url:
        return []
    if name == "replica_url" and secret_of(url) is not None:
        return [f"{PREFIX}REPLICA_URL: token_secret is an option of REDIS_URL, and counts for both"]
    kinds: Mapping[Kind | None, Callable[[str, str], list[str]]] = {
        Kind.SENTINEL: _sentinel_problems,
        Kind.CLUSTER: _cluster_problems,
        Kind.GROUP: _elasticache_problems,
    }
    return [f"{PREFIX}{name.upper()}: {problem}" for problem in kinds.get(kind_of(url), _server_problems)(name, url)]


def _server_problems(name: str, url: str) -> list[str]:
    """Return why the driver would take a URL for another address, or not take it at all: never with the text, it may
    hold a password."""
    try:
        parts = read_server(url)
    except ValueError:
        return [_NUMBER_SIGN if "#" in url else "not a URL (is the port a number?)"]
    if kind_of(url) is None:
        found = f"scheme {parts.scheme!r}" if "://" in url and parts.scheme else "a URL without a scheme"
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        return [f"{found} is not supported; write for example redis://host:6379/0. There are {schemes}"]
    return _unix_problems(parts) + _tcp_problems(parts) + _option_problems(url) + _tls_problems(url)


def _tcp_problems(parts: SplitResult) -> list[str]:
    number = parts.path.removeprefix("/")
    if parts.scheme == "unix" or not number or is_number(number):
        return []
    return ["the path is the number of a database, as in redis://host:6379/0"]


def _tls_problems(url: str) -> list[str]:
    given = sorted(name for name, values in options_of(url).values.items() if name.startswith("ssl_") and any(values))
    return [f"{', '.join(given)}: for TLS only; use rediss:// or valkeys://"] if given and not has_tls(url) else []


def _unix_problems(parts: SplitResult) -> list[str]:
    if parts.scheme == "unix" and (not parts.path or parts.hostname):
        return ["a Unix socket needs its whole path, as in unix:///run/valkey.sock"]
    return []


def _sentinel_problems(name: str, url: str) -> list[str]:
    return _option_problems(url, _URL_OPTIONS | SENTINEL_OPTIONS) or _problem_of(read_sentinel, url)


def _cluster_problems(name: str, url: str) -> list[str]:
    problems = _option_problems(url) or _problem_of(read_cluster, url)
    if not problems and name == "replica_url":
        return ["the replicas of a cluster are found with its primaries, by REDIS_URL; leave this out"]
    return problems


def _problem_of(read: Callable[[str], object], url: str) -> list[str]:
    try:
        read(url)
    except ValueError as error:
        return [str(error)]
    return []


def _elasticache_problems(name: str, url: str) -> list[str]:
    if name == "replica_url":
        return ["the replicas of a group are found with its primary, by REDIS_URL; leave this out"]
    from ..aws import client as aws

    try:
        group = read_group(url)
    except ValueError as error:
        return [str(error)]
    if not aws.is_installed():
        return [f"elasticache:// needs boto3; {aws.EXTRA}"]
    if problems := _option_problems(url, GROUP_OPTIONS):
        return problems
    if group.region is None and aws.known_region() is None:
        return ["no region is known; write elasticache://group-id?region=…, or set AWS_DEFAULT_REGION"]
    return []


def _option_problems(url: str, known: Set[str] = _URL_OPTIONS) -> list[str]:
    """Refuse options in the URL that would quietly override a setting, or fail at the first request."""
    options, has_fragment = options_of(url)
    if has_fragment:
        return [_NUMBER_SIGN]
    problems = []
    if set(options) - known:
        problems.append(f"its options can be {', '.join(sorted(known))}; all else has settings of its own")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if not all(Path(path).is_file() for path in options.get(name, [])):
            problems.append(f"{name}: there is no such file")
    if not all(options.get("token_secret", ["app/token"])):
        problems.append("token_secret is the name or the ARN of a secret in Secrets Manager")
    if not all(is_number(number) for number in options.get("db", [])):
        problems.append("db is the number of a database, as in redis://host:6379/?db=0")
    if not all(is_number(number) and 1 <= int(number) <= 10_000 for number in options.get("max_connections", [])):
        problems.append("max_connections is a number from 1 to 10000")
    return problems
