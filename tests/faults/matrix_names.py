"""A host name before the primary, in this process, and how it fails: it leads elsewhere, nowhere, or takes its time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from devservers.processes import LONG, wait_until
from tests.integration.conftest import parts

from .matrix_faults import Cause, Evidence
from .matrix_servers import Pair, info, refusals
from .matrix_site import Site

HOST = "primary.faults.test"


class Resolver:
    """Answers for :data:`HOST`, and leaves all other names to the system.

    :param port: of the place that it leads to.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.fails = False
        self.failures = 0
        self.is_quick = threading.Event()
        self.is_quick.set()
        self._system: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        """Resolve a host name like :func:`socket.getaddrinfo`; this one's failures are counted."""
        if host != HOST:
            return self._system(host, port, *args, **options)
        if not self.is_quick.is_set():
            self.failures += 1
            self.is_quick.wait(LONG)
        if self.fails:
            self.failures += 1
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]


@contextmanager
def named(site: Site) -> Iterator[None]:
    """The application knows the primary by a name."""
    site.resolver = Resolver(site.proxies["primary"].port)
    with patch.object(socket, "getaddrinfo", site.resolver.getaddrinfo):
        yield
        site.resolver.is_quick.set()


def url(site: Site) -> str:
    """Return the URL of the primary that the application is configured with."""
    return f"redis://{HOST}:{site.proxies['primary'].port}/0"


@contextmanager
def led_to_replica(site: Site) -> Iterator[Evidence]:
    """The name is that of a replica, while the primary is as well as ever; a worker starts, and has no older answer."""
    before = refusals(site.pair.replica, "READONLY")
    site.resolver.port = site.proxies["replica"].port
    site.start()
    try:
        yield lambda: refusals(site.pair.replica, "READONLY") - before
    finally:
        site.resolver.port = site.proxies["primary"].port


@contextmanager
def failed_over(site: Site) -> Iterator[Evidence]:
    """Primary and replica change places, and the name follows when the worker has lost its primary; connections stay
    where they are."""
    pair, health = site.pair, parts(site.app).health
    before = refusals(pair.primary, "READONLY")
    _change_places(pair)
    try:
        parts(site.app).monitor.suspect("primary")
        wait_until(lambda: ("primary", "write") in health.open_stores(), "a primary that is lost")
        site.resolver.port = site.proxies["replica"].port
        yield lambda: refusals(pair.primary, "READONLY") - before
    finally:
        _change_places(Pair(pair.replica, pair.primary))
        site.resolver.port = site.proxies["primary"].port
        pair.catch_up()


def _change_places(pair: Pair) -> None:
    pair.catch_up()
    with pair.primary.client() as old, pair.replica.client() as new:
        new.execute_command("REPLICAOF", "NO", "ONE")
        old.execute_command("REPLICAOF", "127.0.0.1", str(pair.replica.port))
    wait_until(lambda: info(pair.primary, "replication")["master_link_status"] == "up", "the other replica")


def unresolved(*, slow: bool, anew: bool) -> Cause:
    """The resolver answers no more, or says that there is no such name.

    :param slow: it takes its time instead.
    :param anew: a worker starts, and has no answer from before; else connections are made anew.
    """

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        resolver = site.resolver
        resolver.fails = not slow
        if slow:
            resolver.is_quick.clear()
        if anew:
            site.start()
        else:
            site.proxies["primary"].drop_connections()
        try:
            yield lambda: resolver.failures if anew else _is_unknown()
        finally:
            resolver.fails = False
            resolver.is_quick.set()

    return cause


def _is_unknown() -> int:
    try:
        socket.getaddrinfo(HOST, 0)
    except socket.gaierror:
        return 1
    return 0
