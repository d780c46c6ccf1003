"""Remedies for a store that cannot do its work, by what its error says: the words of ``doctor`` and ``status``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..config.checks import PREFIX
from ..policy.errors import ErrorClass, StoreError, role_of
from ..policy.health import DATABASE, PRIMARY, REPLICA

_SETTINGS = {PRIMARY: "REDIS_URL", REPLICA: "REPLICA_URL", DATABASE: "DATABASE_URL"}
"""Which setting says where a store is; of others it is named as they are."""


MORE_MEMORY = (
    "raise maxmemory (CONFIG SET maxmemory BYTES, and in the server's own configuration; of ElastiCache: a larger "
    "node), or make room: what else uses the server, shorter IDLE_TIMEOUT and TTLs of categories"
)
"""Of a Redis that has none left."""


PROMOTE = (
    "promote it (`REPLICAOF NO ONE`) if it was demoted by mistake, or have {setting} name the primary (of "
    "ElastiCache: master.…, or elasticache://)"
)
"""Of a replica, where a primary should be."""


class Cure(NamedTuple):
    """A remedy.

    :param does: a sentence without its full stop.
    :param section: of docs/operations.md.
    """

    does: str
    section: str

    def __str__(self) -> str:
        return f"{self.does}; see docs/operations.md#{self.section}"


_W, _A = ErrorClass.WRITE_REFUSED, ErrorClass.IDENTITY_REFUSED
_REDIS = (PRIMARY, REPLICA)

_HANGS = (
    "its server hangs, is busy (SLOWLOG GET, its processor, swap), or something on the way drops what is sent (a "
    "security group, a firewall); or {setting} is not its address"
)

_Row = tuple[Sequence[str], ErrorClass, tuple[str, ...], str]
"""Roles, class, how the error's cause begins (empty: however it does), and what helps: with ``{setting}``, that says
where the store is, and ``{file}``, of SQLite."""

_ROWS: tuple[_Row, ...] = (
    (_REDIS, ErrorClass.UNREACHABLE, ("TimeoutError", "no answer"), _HANGS),
    (_REDIS, _W, ("ReadOnlyError",), f"it is a replica: {PROMOTE}"),
    (_REDIS, _W, ("OutOfMemoryError",), f"its memory is full: {MORE_MEMORY}"),
    (
        _REDIS,
        _W,
        (),
        "it refuses writes for a reason of its own: its log, INFO persistence (MISCONF: it cannot write to its disk) "
        "and INFO replication (NOREPLICAS: too few replicas follow)",
    ),
    (
        _REDIS,
        ErrorClass.BUSY,
        (),
        "wait: it reads its data from the disk or runs a long script; INFO persistence says how far it is",
    ),
    (
        _REDIS,
        _A,
        ("right:",),
        "give its user what it lacks; `flask langpont doctor --only redis-rights` prints the command",
    ),
    (
        _REDIS,
        _A,
        ("certificate:", "TLS:"),
        "give the server a certificate that is trusted and names its host, or correct the setting that is named",
    ),
    (
        _REDIS,
        _A,
        (),
        f"correct the password or user in {{setting}} (or {PREFIX}REDIS_TOKEN, where that has it), then restart the "
        "workers one after the other",
    ),
    (
        (DATABASE,),
        _A,
        (),
        "correct the password or user in {setting}, or give that user its rights; then restart the workers one after "
        "the other",
    ),
    (
        (DATABASE,),
        _W,
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        "another process holds the lock on {file}: find it (`fuser {file}`, `lsof {file}`) and end its transaction; do "
        "not delete the file or its -wal or -journal",
    ),
    (
        (DATABASE,),
        _W,
        ("SQLITE_READONLY",),
        "the workers' user may not write {file}: correct owner and mode of it and of its folder",
    ),
    ((DATABASE,), _W, ("SQLITE_FULL",), "make room on the disk of {file}"),
    ((DATABASE,), ErrorClass.NO_TABLES, (), "look for the tables before empty ones are made"),
    (
        (DATABASE,),
        ErrorClass.BUSY,
        (),
        "it has too many connections or too little memory, or something locks the whole file: find what uses it",
    ),
    (
        (DATABASE,),
        _W,
        (),
        "have {setting} name the writer endpoint; after a failover, the new primary; look for a full disk, and "
        "for what locks the tables",
    ),
)
"""The first that fits counts."""

_OF_SERVER = "that its server runs and that it can be reached from here"
_OF_FILE = "and owner and mode of its file, and the room on its disk"


def cure_of(error: StoreError, file: str | None = None) -> Cure:
    """Return the remedy for an error.

    :param file: of SQLite.
    """
    role, kind = role_of(error.store), error.error_class
    setting, section = PREFIX + _SETTINGS.get(role, role.upper()), _section(role, kind)
    for roles, error_class, causes, does in _ROWS:
        if role in roles and kind is error_class and error.cause.startswith(causes or ""):
            return Cure(does.format(setting=setting, file=file or "its file"), section)
    is_file = role not in _SETTINGS or (role == DATABASE and file is not None)
    return Cure(f"check that {setting} is right, {_OF_FILE if is_file else _OF_SERVER}", section)


def _section(role: str, kind: ErrorClass) -> str:
    """Return the section of the page, which is named after the alert of such an error."""
    if kind is _A and role in _SETTINGS:
        return "auth-failed"
    if kind is _W and role in _REDIS:
        return "redis-writes-refused"
    name = "redis" if role == PRIMARY or (role == REPLICA and kind is ErrorClass.BUSY) else role
    return f"{name}-connection-failed" if role in _SETTINGS else f"{role}-failed"
