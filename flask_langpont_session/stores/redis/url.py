"""URLs that name no single server: several hosts, any of which knows the rest (sentinels, or nodes of a cluster), or a
group that AWS knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

ELASTICACHE = "elasticache"
"""The scheme of a URL that names a replication group; :mod:`~flask_langpont_session.aws.endpoints` reads the rest."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class ManyHosts:
    """What such a URL says.

    :param hosts: host and port of each.
    :param path: what stands behind the hosts, without its slash.
    :param tls: whether the scheme asks for TLS.
    :param credentials: ``username`` and ``password``, as far as they are there.
    :param options: what stands behind the question mark.
    """

    hosts: tuple[tuple[str, int], ...]
    path: str
    tls: bool
    credentials: dict[str, Any]
    options: dict[str, Any]


def is_elasticache(url: str | None) -> bool:
    """Whether this is the URL of a replication group."""
    return bool(url) and str(url).startswith(f"{ELASTICACHE}://")


def read(url: str, *, called: str, port: int) -> ManyHosts:
    """Read ``scheme://[user:password@]host[:port][,host[:port]…][/path][?option=value…]``.

    :param called: what the hosts are, for errors.
    :param port: of a host that names none.
    :raises ValueError: what is wrong with it, without quoting any of it: it may hold a password.
    """
    if "#" in url:
        raise ValueError("'#' ends a URL; in a password write %23")
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    if "@" in user or "," in user:
        raise ValueError("user:password@ stands once, before the first host; in a password write %40 for @, %2C for ,")
    credentials = {"username": unquote(username), "password": unquote(password)} if at else {}
    return ManyHosts(
        tuple(_address(host, called, port) for host in hosts.split(",")),
        path,
        scheme.startswith(("rediss", "valkeys")),
        {name: value for name, value in credentials.items() if value},
        dict(parse_qsl(query)),
    )


def _address(text: str, called: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match[2] or port) < 65_536:
        raise ValueError(f"the {called} are host or host:port, with commas between them")
    return match[1].strip("[]"), int(match[2] or port)
