"""Reads the facts about each server of Redis or Valkey. Nothing is written there.

A question for which the user has no right is refused, and stands in the server's ACL LOG: that is all that is left.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...policy.errors import ErrorClass, StoreError, shard_of
from ...stores.backend import Backend
from ...stores.host.presence import NEAR
from ...stores.redis.commands import plain
from ...stores.redis.endpoint import Endpoint
from ...stores.redis.errors import translate
from . import rights
from .facts import Clock, Server, Transport
from .findings import Unknown
from .read_host import said_by_workers

PATIENCE = 2.0
"""Seconds that a server is waited for; no request hangs on it."""

_TRIES = 3
"""The number of questions of which the quickest counts: the first one may have made the connection."""

_LOCAL = ("127.", "::1", "::ffff:127.")


def read_servers(backend: Backend) -> dict[str, Server | Unknown]:
    """Return all servers, by name; those of a cluster as far as it is found."""
    return {name: _read(backend, name) for name in backend.find_stores(PATIENCE)}


def _read(backend: Backend, name: str) -> Server | Unknown:
    try:
        endpoint = backend.find(name, PATIENCE)
        # What this host knows of the servers is the workers' business, and a file that is made would be this user's.
        with endpoint.server_identity.alone():
            return _server(backend, endpoint)
    except StoreError as error:
        return Unknown(str(error), error)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return Unknown(f"{name}: what it answers is not understood ({type(error).__name__})")


def _server(backend: Backend, endpoint: Endpoint) -> Server:
    """Return a server that answers.

    :raises StoreError: it does not.
    :raises ValueError: or the like: what it answers is not what a server of Redis or Valkey would.
    """
    took, clock = quickest(lambda: endpoint.time_ms(timeout=PATIENCE) / 1000)
    [info], [user] = _ask(endpoint, ("INFO",)), _ask(endpoint, ("ACL", "WHOAMI"))
    name = user.decode(errors="replace") if isinstance(user, bytes) else ""  # it may not ask, or there are no users
    began = time.perf_counter()
    try:
        connection = endpoint.link.beside(PATIENCE)
    except Exception as error:
        raise endpoint.link.translated(error, sent=False, greeting=True) from None
    connecting = time.perf_counter() - began
    try:
        transport = transport_of(connection)
        user_name = name or getattr(connection, "username", None) or Unknown("it may not ask for its name")
    finally:
        connection.disconnect()
    return Server(
        name=endpoint.name,
        took=took,
        connecting=connecting,
        clock=clock,
        transport=transport,
        info=info_of(info),
        user=user_name,
        missing=_missing(endpoint, bool(backend.settings.metrics)),
        near=why_no_near_cache(backend, endpoint),
    )


def _ask(endpoint: Endpoint, *questions: rights.Question) -> list[Any]:
    """Return the replies; an error of the server stands in the place of its reply."""
    commands = [plain(*question, fits=lambda reply: True) for question in questions]
    return endpoint.link.run(commands, PATIENCE, refusals=True)


def _missing(endpoint: Endpoint, metrics: bool) -> tuple[str, ...]:
    needed = {**rights.FOR_ALL, **(rights.FOR_METRICS if metrics else {})}
    needed |= rights.ON_CLUSTERS if shard_of(endpoint.name) else {}
    key = f"{endpoint.canary_key}:doctor"  # of this package, in a slot of this server; it does not exist
    asked = (tuple(key if part == "{key}" else part for part in question) for question in needed.values())
    missing = []
    for right, reply in zip(needed, _ask(endpoint, *asked), strict=True):
        if _is_refused(reply):
            cause = translate(endpoint.name, reply).cause
            missing.append(rights.KEYS if "right: to keys" in cause else right)
    return tuple(dict.fromkeys(missing))


def why_no_near_cache(backend: Backend, endpoint: Endpoint) -> str | None:
    """Return why each request asks a server; empty: it need not, as a worker of this host says, or a trial shows, which
    may run out of time on a busy machine; None: the settings say that there is to be no near cache."""
    if endpoint.near is None:
        return None
    return "" if any(said_by_workers(backend.journal.file.path, NEAR)) else endpoint.near.why_not()


def quickest(now: Callable[[], float]) -> tuple[float, Clock]:
    """Return the time of the quickest answer, and how the clock that answers differs from this host's.

    :param now: seconds since 1970, by that clock.
    """
    answers = []
    for _ in range(_TRIES):
        asked, began = time.time(), time.perf_counter()
        says = now()
        took = time.perf_counter() - began
        answers.append((took, Clock(says - asked - took / 2, took / 2 + 0.001)))
    return min(answers)


def transport_of(connection: Any) -> Transport | Unknown:
    """Return how a connection is made."""
    wire = connection._sock
    if not hasattr(wire, "getpeername"):
        return Unknown("the connections of this client say nothing of themselves")
    context = getattr(wire, "context", None)
    return Transport(
        is_local=wire.family == socket.AF_UNIX or wire.getpeername()[0].startswith(_LOCAL),
        is_encrypted=context is not None,
        checks_certificate=context is not None and context.verify_mode == ssl.CERT_REQUIRED,
        checks_name=bool(context and context.check_hostname),
        has_credentials=any(getattr(connection, name, None) for name in ("password", "credential_provider")),
        ends_at=end_of(wire),
    )


def end_of(wire: Any) -> float | None:
    """Return :attr:`.Transport.ends_at` of a socket."""
    shown = wire.getpeercert() if hasattr(wire, "getpeercert") else None
    return ssl.cert_time_to_seconds(shown["notAfter"]) if shown else None


def _is_refused(reply: Any) -> bool:
    """Return whether a reply is an error for want of a right; other errors mean that the question was understood."""
    return isinstance(reply, Exception) and translate("", reply).error_class is ErrorClass.IDENTITY_REFUSED


def info_of(reply: Any) -> Mapping[str, str] | Unknown:
    """Return the reply to INFO: name → value."""
    if not isinstance(reply, bytes):
        return Unknown("the server does not let its user ask how it is (INFO)")
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def by_name(reply: Any) -> dict[Any, Any]:
    """Return a reply of names and values as a mapping. Before RESP3 it is a list of them in turn."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
