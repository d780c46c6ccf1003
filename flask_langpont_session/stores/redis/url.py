"""The URLs by which Redis is named: all that reads a URL uses this module.

There are four kinds: a single server, read as redis-py will read it; several hosts, any of which knows the rest
(sentinels, or nodes of a cluster); a group that AWS knows. No error quotes any of a URL: it may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlsplit

from .slots import Address


class Kind(Enum):
    """The kind of deployment that a URL names."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
    GROUP = "group"


class Scheme(NamedTuple):
    """The meaning of a URL's scheme."""

    kind: Kind
    has_tls: bool


_HAS_TLS = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}

SCHEMES: Mapping[str, Scheme] = {
    **{name: Scheme(Kind.SERVER, tls) for name, tls in _HAS_TLS.items()},
    "unix": Scheme(Kind.SERVER, has_tls=False),
    **{f"{name}+sentinel": Scheme(Kind.SENTINEL, tls) for name, tls in _HAS_TLS.items()},
    **{f"{name}+cluster": Scheme(Kind.CLUSTER, tls) for name, tls in _HAS_TLS.items()},
    "elasticache": Scheme(Kind.GROUP, has_tls=True),
    "elasticache+serverless": Scheme(Kind.GROUP, has_tls=True),
}
"""All that are supported."""

SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
"""Options that only the URL of a service has: user and password of the sentinels themselves."""

CONNECTIONS = 50
"""Connections of a process to one server, if the URL says nothing else: enough for 50 threads."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")  # the letters that a sentinel's own configuration allows
_SENTINEL_PORT, _NODE_PORT = 26379, 6379
GROUP_OPTIONS = frozenset({"region", "db", "max_connections", "token_secret", "ssl_ca_certs"})
_NOT_OF_THE_DRIVER = frozenset({"max_connections", "token_secret"})
"""Options that this package reads itself. redis-py knows the first by another way, and not the second."""

_SERVERLESS = "elasticache+serverless"
_GROUP = re.compile(r"(?=.{1,40}\Z)[a-z](-?[a-z0-9])*", re.IGNORECASE | re.ASCII)
_IAM_USER = re.compile(r"(?=.{1,40}\Z)[a-z](-?[a-z0-9])*", re.ASCII)  # AWS keeps ids of users in lower case
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+", re.ASCII)


def kind_of(url: str | None) -> Kind | None:
    """Return the kind of deployment that a URL names; None: nothing that is supported."""
    scheme = _scheme_of(url)
    return scheme.kind if scheme else None


def has_tls(url: str | None) -> bool:
    """Return whether a URL asks for TLS."""
    scheme = _scheme_of(url)
    return scheme is not None and scheme.has_tls


def _scheme_of(url: str | None) -> Scheme | None:
    name, mark, _ = (url or "").partition("://")
    return SCHEMES.get(name) if mark else None


def has_credentials(url: str) -> bool:
    """Return whether a user or a password is in a URL of any kind."""
    return "@" in _authority(url)[0]


def iam_user_of(url: str | None) -> str | None:
    """Return the id of the ElastiCache user that signs in by IAM: that of a group's URL, if no password is behind
    it."""
    if url is None or kind_of(url) is not Kind.GROUP:
        return None
    user, _, password = _authority(url)[0].rpartition("@")[0].partition(":")
    return None if password else user or None


def secret_of(url: str | None) -> str | None:
    """Return the name or ARN of the secret in Secrets Manager that holds the password."""
    given = options_of(url or "").values.get("token_secret")
    return given[-1] if given else None


class Options(NamedTuple):
    """The end of a URL of any kind.

    :param values: behind the question mark: name → what is given, as often as it is given.
    :param has_fragment: whether there is a ``#``, which ends it.
    """

    values: Mapping[str, list[str]]
    has_fragment: bool


def options_of(url: str) -> Options:
    """Return what a URL says behind its hosts and its path."""
    before, _, fragment = url.partition("#")
    return Options(parse_qs(before.partition("?")[2], keep_blank_values=True), bool(fragment))


def connections_of(url: str | None) -> int:
    """Return how many connections to one server a URL allows."""
    given = options_of(url or "").values.get("max_connections")
    return int(given[-1]) if given else CONNECTIONS


def is_number(text: str) -> bool:
    """Return whether a text is the number of a database."""
    return text.isascii() and text.isdecimal()


# -- a single server ---------------------------------------------------------------------------------------------------


def read_server(url: str) -> SplitResult:
    """Return the parts of the URL of a single server, as redis-py finds them.

    :raises ValueError: it is not a URL, or its port no number.
    """
    parts = urlsplit(url)
    parts.port  # noqa: B018 - reading it is the check
    return parts


def for_redis_py(url: str) -> str:
    """Return the URL of a single server in a scheme that redis-py knows, without the option that it does not know."""
    place, mark, query = url.partition("?")
    kept = [option for option in query.split("&") if unquote(option.partition("=")[0]) != "token_secret"]
    place = place.replace("valkey", "redis", 1) if place.startswith("valkey") else place
    return place + (mark + "&".join(kept) if any(kept) else "")


# -- several hosts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostsUrl:
    """The content of a URL of several hosts, any of which knows the rest: sentinels, or nodes of a cluster.

    :param hosts: where to ask.
    :param tls: for all servers and sentinels alike.
    :param options: of the connections to the servers, as redis-py takes them.
    :param service: the name the sentinels know the primary by.
    :param sentinel_options: of the connections to the sentinels.
    """

    hosts: tuple[Address, ...]
    tls: bool
    options: Mapping[str, Any]
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)


def read_sentinel(url: str) -> HostsUrl:
    """Read ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[?option=value…]``.

    :raises ValueError: what is wrong with it.
    """
    hosts, path, options = _read_many(url, called="sentinels", port=_SENTINEL_PORT)
    if not _SERVICE.fullmatch(path):
        raise ValueError("the path is the name of the service, as in redis+sentinel://host1,host2,host3/mymaster")
    if "db" in options:
        options["db"] = int(options["db"])
    of_sentinels = {name.removeprefix("sentinel_"): options.pop(name) for name in SENTINEL_OPTIONS & options.keys()}
    return HostsUrl(hosts, has_tls(url), options, path, of_sentinels)


def read_cluster(url: str) -> HostsUrl:
    """Read ``redis+cluster://[user:password@]host[:port][,host[:port]…][?option=value…]``.

    :raises ValueError: what is wrong with it.
    """
    hosts, path, options = _read_many(url, called="nodes", port=_NODE_PORT)
    if path not in ("", "0") or options.pop("db", "0") != "0":
        raise ValueError("a cluster has one database, number 0; leave the number out")
    return HostsUrl(hosts, has_tls(url), options)


def _read_many(url: str, *, called: str, port: int) -> tuple[tuple[Address, ...], str, dict[str, Any]]:
    """Read ``scheme://[user:password@]host[:port][,host[:port]…][/path][?option=value…]``.

    :param called: what the hosts are, for errors.
    :param port: of a host that names none.
    :return: the hosts; the path without its slash; the options, credentials among them.
    :raises ValueError: what is wrong with it.
    """
    authority, path, query = _authority(url)
    user, at, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    if "@" in user or "," in user:
        raise ValueError("user:password@ stands once, before the first host; in a password write %40 for @, %2C for ,")
    credentials = {"username": unquote(username), "password": unquote(password)} if at else {}
    given = {name: value for name, value in credentials.items() if value}
    options = {name: value for name, value in parse_qsl(query) if name not in _NOT_OF_THE_DRIVER}
    return tuple(_address(host, called, port) for host in hosts.split(",")), path, {**given, **options}


def _authority(url: str) -> tuple[str, str, str]:
    """Return what stands before the path, the path without its slash, and what stands behind the question mark."""
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    return authority, path, query


def _address(text: str, called: str, port: int) -> Address:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match[2] or port) < 65_536:
        raise ValueError(f"the {called} are host or host:port, with commas between them")
    return Address(match[1].strip("[]"), int(match[2] or port))


# -- a group that AWS knows --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupName:
    """The content of an ``elasticache://`` or ``elasticache+serverless://`` URL.

    :param group_id: of the replication group, or the serverless cache's name, in lower case as AWS keeps it.
    :param region: None: as boto3 finds it.
    :param db: number of the database.
    :param serverless: whether it is a serverless cache.
    """

    group_id: str
    region: str | None = None
    db: int = 0
    serverless: bool = False

    def __str__(self) -> str:
        return f"{'serverless cache' if self.serverless else 'replication group'} {self.group_id!r}"


def group_options(url: str) -> dict[str, str]:
    """Return the options of connections that the URL of a group has, as redis-py takes them."""
    parts, given = urlsplit(url), options_of(url).values
    found = {}
    if parts.password:  # else IAM signs the user in
        found = {"username": unquote(parts.username or ""), "password": unquote(parts.password)}
    found["ssl_ca_certs"] = given.get("ssl_ca_certs", [""])[0]
    return {name: value for name, value in found.items() if value}


def read_group(url: str) -> GroupName:
    """Read ``elasticache://[user[:password]@]group-id[/db][?option=value…]``, or ``elasticache+serverless://…``.

    :raises ValueError: what is wrong with it.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        raise ValueError("not a URL; write elasticache://group-id?region=…") from None
    user, at, group_id = parts.netloc.rpartition("@")
    if at and not user.partition(":")[2] and not _IAM_USER.fullmatch(user):
        raise ValueError(
            "a user without a password is one that IAM signs in: the id of an ElastiCache user, up to 40 lower-case "
            "letters, digits and single hyphens"
        )
    if not _GROUP.fullmatch(group_id):
        raise ValueError("the id of the group or cache stands alone: up to 40 letters, digits and single hyphens")
    if parts.fragment or set(options) - GROUP_OPTIONS or any(len(values) > 1 for values in options.values()):
        raise ValueError(f"its options can be {', '.join(sorted(GROUP_OPTIONS))}, each once")
    region = options.get("region", [None])[0]
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("region is the name of an AWS region, as in ?region=ap-northeast-1")
    number = options.get("db", [parts.path.removeprefix("/") or "0"])[0]
    if not is_number(number):
        raise ValueError("the path is the number of a database, as in elasticache://group-id/0")
    name = GroupName(group_id.lower(), region, int(number), serverless=parts.scheme == _SERVERLESS)
    if name.serverless and name.db:
        raise ValueError("a serverless cache has one database, number 0; leave the number out")
    return name
