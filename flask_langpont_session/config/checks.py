"""One value at a time: is it of the right kind, and if not, what stands there instead.

A check is given the setting's name with its prefix and the value; it says what is wrong, or None. What may be secret (a
URL with a password, an ARN) is never quoted.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from redis import ConnectionPool
from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..stores.redis import sentinel, topology
from ..stores.redis.url import ELASTICACHE, is_elasticache
from .categories import names_problem

PREFIX = "LANGPONT_SESSION_"

Check = Callable[[str, Any], str | None]

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    *sentinel.SCHEMES,
    *topology.SCHEMES,
    ELASTICACHE,
)
_URL_OPTIONS = frozenset({"db", "client_name", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "", None})

FLASK_COOKIE, FLASK_SESSION, FLASK_SESSION_PICKLE = "flask-cookie", "flask-session", "flask-session-pickle"
"""The sessions that can be taken over, see :mod:`~flask_langpont_session.adoption.adopter`."""

SEVERITIES = ("info", "warning", "critical", "emergency")
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")


def number(low: float, high: float, kind: str) -> Check:
    def check(name: str, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return f"{name}: {kind} from {low:g} to {high:g}, not {value!r}"
        return None

    return check


def integer(low: int, high: int, kind: str) -> Check:
    in_range = number(low, high, kind)

    def check(name: str, value: Any) -> str | None:
        return in_range(name, value) if isinstance(value, int) else f"{name}: {kind}, a whole number, not {value!r}"

    return check


def names(name: str, value: Any) -> str | None:
    problem = names_problem(value)
    return f"{name}: {problem}" if problem else None


def mapping(name: str, value: Any) -> str | None:
    return None if isinstance(value, Mapping) else f"{name}: a mapping, not {type(value).__name__}"


def text(name: str, value: Any) -> str | None:
    return None if isinstance(value, str) and value else f"{name}: a non-empty string, not {type(value).__name__}"


def topics(name: str, value: Any) -> str | None:
    """Never with what was given: an ARN names the account."""
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


def cache_user(name: str, value: Any) -> str | None:
    from ..aws.credentials import is_user

    if isinstance(value, str) and is_user(value):
        return None
    return f"{name}: the id of an ElastiCache user: up to 40 letters, digits and single hyphens"


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


def registry(name: str, value: Any) -> str | None:
    if value is None or (hasattr(value, "collect") and hasattr(value, "register")):
        return None
    return f"{name}: a CollectorRegistry of prometheus_client, not {type(value).__name__}"


def one_of(*allowed: str) -> Check:
    return lambda name, value: None if value in allowed else f"{name}: one of {', '.join(allowed)}, not {value!r}"


def optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


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


def engine(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, Engine):
        return None
    return f"{name}: an Engine of SQLAlchemy (not an asynchronous one), not {type(value).__name__}"


def client(name: str, value: Any) -> str | None:
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


def tables(example: str) -> Check:
    """The outermost shape only; what is inside is checked where the table is built."""
    return lambda name, value: None if isinstance(value, Mapping) else f"{name}: a mapping of {example}"


def behaviour_cells(name: str, value: Any) -> str | None:
    rows = value.values() if isinstance(value, Mapping) else [None]
    if not all(isinstance(row, Mapping) and all(isinstance(cell, str) for cell in row.values()) for row in rows):
        return f"{name}: a mapping of priority → level → behaviour"
    return None


def is_local(redis_url: str | None) -> bool:
    """Whether a Redis URL names this very host. Sentinels and seeds may run here, what they know is on several."""
    if any(knows(redis_url) for knows in (sentinel.is_sentinel, topology.is_cluster, is_elasticache)):
        return False
    if not redis_url:
        return False
    try:
        parts = urlsplit(redis_url)
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


def redis_url_problems(name: str, url: str | None) -> list[str]:
    if not url:
        return []
    label = PREFIX + name.upper()
    if sentinel.is_sentinel(url):
        return [f"{label}: {problem}" for problem in _sentinel_problems(url)]
    if topology.is_cluster(url):
        return [f"{label}: {problem}" for problem in _cluster_problems(name, url)]
    if is_elasticache(url):
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
    from ..aws import client as aws
    from ..aws.endpoints import parse

    try:
        group = parse(url)
    except ValueError as error:
        return [str(error)]
    if not aws.is_installed():
        return [f"elasticache:// needs boto3; {aws.EXTRA}"]
    if group.region is None and aws.known_region() is None:
        return ["no region is known; write elasticache://group-id?region=…, or set AWS_DEFAULT_REGION"]
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
