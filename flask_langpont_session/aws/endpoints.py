"""``elasticache://group-id``: where the servers of an ElastiCache replication group are, as AWS says it; the same of a
serverless cache.

The names of the primary and of the reader endpoint stay through a failover; DNS turns them to other servers. So AWS
need not be asked often, and never by a request: the last good answer is kept, and shared with the processes to come.
Names of single nodes are never used: they stay with their node when it stops being the primary.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from redis import exceptions as driver

from ..stores.redis.nodes import Nodes
from ..stores.redis.slots import Address as Address
from ..stores.redis.slots import Servers
from ..stores.redis.url import GroupName
from ..support.logs import fields
from .background_query import BackgroundQuery
from .client import Unusable, aws_client

log = logging.getLogger(__name__)

REST = 900.0
"""Seconds between two questions while the group answers: replicas may have been added, or TLS switched on."""


@dataclass(frozen=True)
class Endpoints:
    """The endpoints of a group, as AWS tells them.

    :param primary: leads to whichever server is the primary. None: in cluster mode.
    :param reader: leads to the replicas. None: there are none.
    :param configuration: of a group in cluster mode: any of its nodes, to ask for all others.
    :param tls: whether the servers speak TLS (also where they still speak without it).
    """

    primary: Address | None
    reader: Address | None = None
    configuration: Address | None = None
    tls: bool = True


MISSING = (
    "a serverless cache has no CLIENT TRACKING, so each read asks it (no near cache), no CONFIG and no ACL commands, "
    "and one database"
)
"""The limits of a serverless cache by AWS' documentation, as an application is told of them."""


class NotDiscoveredYet(driver.ConnectionError):
    """AWS has not said yet where the server is."""


class UnusableGroup(driver.ConnectionError):
    """AWS has said what the group is like, and it is none that this package can use; the log says why."""


def read(group: Mapping[str, Any]) -> Endpoints:
    """Return the endpoints in one entry of DescribeReplicationGroups.

    :raises Unusable: it names no endpoint.
    """
    tls = bool(group.get("TransitEncryptionEnabled"))
    shard: Mapping[str, Any] = next(iter(group.get("NodeGroups") or ()), {})
    if "PrimaryEndpoint" in shard:
        has_replicas = len(group.get("MemberClusters") or shard.get("NodeGroupMembers") or ()) > 1
        reader = _address(shard["ReaderEndpoint"]) if has_replicas and "ReaderEndpoint" in shard else None
        return Endpoints(_address(shard["PrimaryEndpoint"]), reader, tls=tls)
    if "ConfigurationEndpoint" in group:
        return Endpoints(None, configuration=_address(group["ConfigurationEndpoint"]), tls=tls)
    raise Unusable("the group has no primary endpoint; is it still being created?")


def read_serverless(cache: Mapping[str, Any]) -> Endpoints:
    """Return the endpoints in one entry of DescribeServerlessCaches. Its one endpoint is asked as a node of a cluster
    is, and names itself and the port of the readers.

    :raises Unusable: it is none of Valkey or Redis OSS, or names no endpoint.
    """
    if cache.get("Engine") == "memcached":
        raise Unusable("it is Memcached; make one of Valkey")
    if "Endpoint" not in cache:
        raise Unusable("the cache has no endpoint; is it still being created?")
    return Endpoints(None, configuration=_address(cache["Endpoint"]))


def _address(endpoint: Mapping[str, Any]) -> Address:
    return Address(str(endpoint["Address"]), int(endpoint["Port"]))


def describe(name: GroupName) -> Endpoints:
    """Ask AWS.

    :raises Exception: whatever boto3 raises; see :func:`~flask_langpont_session.aws.client.explain`.
    """
    with aws_client("elasticache", name.region) as client:
        if name.serverless:
            [cache] = client.describe_serverless_caches(ServerlessCacheName=name.group_id)["ServerlessCaches"]
            return read_serverless(cache)
        [group] = client.describe_replication_groups(ReplicationGroupId=name.group_id)["ReplicationGroups"]
    return read(group)


class _Remembered(msgspec.Struct):
    """The file's content. A file of another group or region does not count."""

    group: str
    region: str | None
    primary: Address | None
    reader: Address | None
    tls: bool
    configuration: Address | None = None
    serverless: bool = False


_decode = msgspec.json.Decoder(_Remembered).decode
"""Made at import, as :data:`.incidents.decode_host` is, and for the same reason."""


class EndpointsFile:
    """The last good answer in a small file, so that a new process starts while AWS does not answer.

    :param path: None: nothing is remembered. The file may be deleted at any time.
    """

    def __init__(self, path: Path | None, name: GroupName) -> None:
        self._path = path
        self._name = name

    def recall(self) -> Endpoints | None:
        """Return the last good answer; None: there is no file, or it is about another group, or cannot be read."""
        if self._path is None:
            return None
        try:
            kept = _decode(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        name = self._name
        if (kept.group, kept.region, kept.serverless) != (name.group_id, name.region, name.serverless):
            return None
        return Endpoints(kept.primary, kept.reader, kept.configuration, tls=kept.tls)

    def note(self, found: Endpoints) -> None:
        """Keep an answer. Never raises: without the file, the next process asks AWS."""
        if self._path is None or found == self.recall():
            return
        name = self._name
        record = _Remembered(
            name.group_id, name.region, found.primary, found.reader, found.tls, found.configuration, name.serverless
        )
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")  # the workers of a host write whole files
        try:
            new.unlink(missing_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.encode(record))
            new.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            log.warning(
                "what AWS said of the replication group cannot be kept for new processes: %s",
                error.strerror,
                extra=fields("endpoints_not_kept", cause=error.strerror),
            )


class Group:
    """The endpoints of one replication group as they were known last. Connections ask it, it asks no server.

    :param name: which group.
    :param setting: the one that names it, for messages.
    :param needs_tls: whether a secret would be readable without TLS.
    :param memory: shared with the processes of this host.
    """

    def __init__(self, name: GroupName, setting: str, *, needs_tls: bool, memory: EndpointsFile) -> None:
        self.name = name
        self.endpoints: Endpoints | None = None
        self.unusable: str | None = None
        """Why the last answer cannot be used, whatever is tried; None: it can, or there is none."""
        self.query = BackgroundQuery(f"{setting}: {name}", self._ask, rest=REST)
        self._needs_tls = needs_tls
        self._memory = memory
        kept = memory.recall()
        if kept is not None and self._problem(kept) is None:
            self.endpoints = kept

    @property
    def known(self) -> bool:
        """Return whether there is a usable answer, of this process or from the file."""
        return self.endpoints is not None

    def nodes(self, options: Mapping[str, Any]) -> Nodes:
        """Return how the servers are found: in cluster mode by asking one of them, else AWS has named them.

        Which of the two it is may be learned, and change, at any time.

        :param options: of the connections.
        """
        return Nodes(self._seeds, self._tls, {"db": self.name.db, **options}, self._single)

    def look(self, lost: bool) -> None:
        """Ask AWS again if it is time.

        :param lost: a server of the group does not answer: AWS may know another place.
        """
        self.query.look(lost or not self.known)

    def _seeds(self) -> Sequence[Address]:
        found = self.endpoints
        if found is None:
            raise UnusableGroup if self.unusable else NotDiscoveredYet
        return (found.configuration,) if found.configuration else ()

    def _tls(self) -> bool:
        return self.endpoints is None or self.endpoints.tls

    def _single(self) -> Servers | None:
        found = self.endpoints
        if found is None or found.primary is None:
            return None
        return Servers(found.primary, (found.reader,) if found.reader else ())

    def _ask(self) -> None:
        found = describe(self.name)
        self.unusable = self._problem(found)
        if self.unusable is not None:
            raise Unusable(self.unusable)
        if found != self.endpoints:
            self._say(found)
        self.endpoints = found
        self._memory.note(found)

    def _say(self, found: Endpoints) -> None:
        subject, address = self.query.subject, str(found.primary or found.configuration)
        log.info(
            "%s: %s at %s, TLS %s",
            *(subject, "primary" if found.primary else "cluster", address, "on" if found.tls else "off"),
            extra=fields("endpoints_found", subject=subject, address=address, tls=found.tls),
        )
        if self.name.serverless and self.endpoints is None:
            log.info("%s: %s", subject, MISSING, extra=fields("cache_is_serverless", subject=subject))

    def _problem(self, found: Endpoints) -> str | None:
        if found.primary is None and self.name.db:
            return "it is in cluster mode, where there is one database, number 0; leave the number out"
        if self._needs_tls and not found.tls:
            return (
                "it has no encryption in transit, and what this application signs in with could be read on the way; "
                "turn TransitEncryptionEnabled on"
            )
        return None
