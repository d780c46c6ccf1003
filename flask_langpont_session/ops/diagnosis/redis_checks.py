"""Checks of each server of Redis or Valkey."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ...config.checks import PREFIX
from ...policy.causes import MORE_MEMORY, PROMOTE, PROMOTED, cause_of
from ...policy.errors import ErrorClass, StoreError, shard_of
from ...policy.health import PRIMARY
from .facts import Facts, Server, Transport
from .findings import CannotTell, Look, failure, known, warning
from .rights import KEYS


def _text(info: Mapping[str, str], name: str) -> str:
    if name not in info:
        raise CannotTell(f"INFO does not say {name}")
    return info[name]


def _number(info: Mapping[str, str], name: str) -> int:
    text = _text(info, name)
    if not text.lstrip("-").isdecimal():
        raise CannotTell(f"INFO says no number for {name}")
    return int(text)


# -- transport ---------------------------------------------------------------------------------------------------------


_SOON = 14 * 86_400
"""Seconds before its end from which a certificate is told of."""


def transport_findings(it: Transport, at: float, plain_cure: str, trust_cure: str) -> Look:
    """Look at a connection to any store, made at a time."""
    if it.ends_at is not None and it.ends_at < at + _SOON:
        end = datetime.fromtimestamp(it.ends_at, UTC)
        yield warning(f"its certificate expires on {end:%Y-%m-%d %H:%M} UTC", "renew it, or it is refused from then on")
    if it.is_local:
        return f"{'TLS' if it.is_encrypted else 'without TLS'}, on this host"
    if not it.is_encrypted and it.has_credentials:
        yield failure("a password goes over the network without TLS", plain_cure)
    elif not it.is_encrypted:
        yield warning("all data of sessions goes over the network without TLS", plain_cure)
    elif not known(it.checks_certificate):
        yield warning("TLS, but any certificate is accepted", trust_cure)
    elif not known(it.checks_name):
        yield warning("TLS, but the certificate may be of any host", trust_cure)
    return "TLS; the certificate must be trusted and name the host"


def redis_tls(server: Server, facts: Facts) -> Look:
    plain_cure = f"write rediss:// in place of redis:// in {PREFIX}REDIS_URL and {PREFIX}REPLICA_URL"
    trust_cure = "leave ssl_cert_reqs and ssl_check_hostname of the client as they come"
    return (yield from transport_findings(known(server.transport), facts.at, plain_cure, trust_cure))


# -- roles ---------------------------------------------------------------------------------------------


def write_endpoint(server: Server, facts: Facts) -> Look:
    info = known(server.info)
    if _text(info, "role") != "master":
        found = f"it is a replica{_of_which(info)}: it refuses all writes"
        yield failure(found, PROMOTE.format(setting=f"{PREFIX}REDIS_URL"))
    elif info.get("loading") == "1":
        yield failure("it is still reading its data from the disk", "wait; INFO persistence says how far it is")
    return "it is a primary"


def _of_which(info: Mapping[str, str]) -> str:
    host, port = info.get("master_host"), info.get("master_port")
    return f" of {host}:{port}" if host and port else ""


def replica(server: Server, facts: Facts) -> Look:
    """Check that a replica is one of this primary."""
    info = known(server.info)
    primary = facts.servers.get(f"{PRIMARY}{shard_of(server.name)}")
    if not isinstance(primary, Server):
        raise CannotTell("the primary does not answer")
    theirs = known(primary.info)
    if "run_id" in info and info["run_id"] == theirs.get("run_id"):
        found = "primary and replica are one server"
        yield failure(found, f"have {PREFIX}REPLICA_URL name the reader endpoint, or leave it out")
    elif _text(info, "role") != "master" and info.get("master_link_status") != "up":
        yield failure(
            "it does not follow its primary: what it shows grows old",
            "INFO replication on the replica; its way to the primary, `masterauth`, and the primary's backlog",
        )
    elif _text(info, "master_replid") != _text(theirs, "master_replid"):
        if _text(info, "role") == "master":
            cause = cause_of(StoreError(server.name, ErrorClass.UNREACHABLE, PROMOTED))
            yield failure(f"it {cause.word}", cause.does)
        else:
            found = "it follows another primary, or has not begun to follow this one"
            yield failure(found, f"have {PREFIX}REPLICA_URL name a replica of {PREFIX}REDIS_URL")
    return "it has the primary's history"


# -- rights ------------------------------------------------------------------------------------------------------------

MINOR = frozenset({"info", "client|tracking", "asking", "cluster|info"})
"""Rights without which all works, only slower or less surely."""


def redis_rights(server: Server, facts: Facts) -> Look:
    prefix = facts.settings.key_prefix
    user, name = (server.user,) * 2 if isinstance(server.user, str) else ("its user", "USER")
    if KEYS in server.missing:
        yield failure(f"{user} may not use keys that begin with {prefix}:", f"ACL SETUSER {name} ~{prefix}:*")
    for say, is_minor in ((failure, False), (warning, True)):
        missing = " ".join(f"+{right}" for right in server.missing if right != KEYS and (right in MINOR) is is_minor)
        if missing:
            yield say(f"{user} lacks {missing}", f"ACL SETUSER {name} {missing}")
    return f"{user} may do what is needed"


# -- memory and disk ---------------------------------------------------------------------------------------------------

GOOD_POLICIES = ("noeviction", "volatile-lru", "volatile-lfu", "volatile-ttl")
FULL = 0.85
"""The share of maxmemory above which a server is nearly full; as the alarm `Memory` has it."""


def eviction(server: Server, facts: Facts) -> Look:
    info = known(server.info)
    policy, most, used = _text(info, "maxmemory_policy"), _number(info, "maxmemory"), _number(info, "used_memory")
    evicted = _number(info, "evicted_keys")
    # It tried to make room before it answered, and buffers do not count: with any policy it found no keys to remove.
    buffers = _number(info, "mem_not_counted_for_evict") if "mem_not_counted_for_evict" in info else 0
    if most and used - buffers > most:
        found = f"its memory is full, and it refuses writes: {used} of {most} bytes of maxmemory are used ({policy})"
        yield failure(found, MORE_MEMORY)
        return ""
    if policy not in GOOD_POLICIES:
        yield warning(
            f"maxmemory-policy is {policy}: it also removes what shows that data was lost, and sessions in use",
            "CONFIG SET maxmemory-policy volatile-lru (of ElastiCache: in the parameter group)",
        )
    if evicted:
        cure = "a larger maxmemory or node, or shorter IDLE_TIMEOUT and TTLs of categories"
        yield warning(f"{evicted} keys were removed since its start, because memory was full", cure)
    limit = f"{used * 100 // most} % of maxmemory is used" if most else "no maxmemory"
    if most and used > most * FULL:
        yield warning(limit, "a larger maxmemory or node; see the alarm Memory in docs/operations.md")
    return f"{policy}, {limit}, no key was removed"


def persistence(server: Server, facts: Facts) -> Look:
    info = known(server.info)
    for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "append-only file")):
        if info.get(name, "ok") != "ok":
            cure = "make room on the server's disk, and look at its log; it may refuse all writes meanwhile"
            yield failure(f"the last {what} could not be written", cure)
            return ""
    replicas = _number(info, "connected_slaves")
    if _number(info, "aof_enabled"):
        return "append-only file"
    if not replicas:
        found = "no append-only file and no replica: a restart loses at least what is newer than the last snapshot"
        yield warning(found, "CONFIG SET appendonly yes, or a replica")
    return f"{replicas} replicas have its data, too"


def near_cache(server: Server, facts: Facts) -> Look:
    if server.near:
        cure = "see the near cache in docs/guarantees.md; nothing is to be done if that is meant"
        yield warning(f"each request asks the server: {server.near}", cure)
    return "nothing is kept: MEMORY_BYTES is 0" if server.near is None else "there can be one"
