"""The causes for which a store cannot do its work: a word for each, what helps, and where to read on. The log, the
status page, ``status``, ``doctor`` and the alerts take their words from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .errors import DATABASE, PRIMARY, REPLICA, ErrorClass, StoreError, role_of, words_of

PREFIX = "LANGPONT_SESSION_"

_SETTINGS = {PRIMARY: "REDIS_URL", REPLICA: "REPLICA_URL", DATABASE: "DATABASE_URL"}
"""Store → the setting with its address; any other store stands in a cure by its own name."""


MORE_MEMORY = (
    "raise maxmemory (CONFIG SET maxmemory BYTES, and in the server's own configuration; of ElastiCache: a larger "
    "node), or make room: what else uses the server, shorter IDLE_TIMEOUT and TTLs of categories"
)
"""The cure for a Redis without free memory."""


PROMOTE = (
    "promote it (`REPLICAOF NO ONE`) if it was demoted by mistake, or have {setting} name the primary (of "
    "ElastiCache: master.…, or elasticache://)"
)
"""The cure for a replica at the address of a primary."""


class Cause(NamedTuple):
    """A cause.

    :param word: what is wrong with the store, in a few words; one of a fixed set.
    :param does: what helps: a sentence without its full stop.
    :param section: of docs/operations.md.
    """

    word: str
    does: str
    section: str

    def __str__(self) -> str:
        return f"{self.does}; see {self.link}"

    @property
    def told(self) -> str:
        """Return its word and what helps."""
        return f"{self.word}: {self}"

    @property
    def link(self) -> str:
        """Return where to read on."""
        return f"docs/operations.md#{self.section}"


EMPTIED = Cause(
    "has lost data",
    "find out why: FLUSHALL or FLUSHDB, a restored snapshot, evictions (INFO stats: evicted_keys); the hosts give back "
    "what is in use",
    "data-lost",
)
OTHER_CLOCK = Cause(
    "has another time than this host", "keep the time of all hosts by NTP (chronyc tracking, timedatectl)", "clock"
)
"""Two remarks on a Redis that does its work."""

_W, _A = ErrorClass.WRITE_REFUSED, ErrorClass.IDENTITY_REFUSED
_REDIS = (PRIMARY, REPLICA)

_HANGS = (
    "its server hangs, is busy (SLOWLOG GET, its processor, swap), or something on the way drops what is sent (a "
    "security group, a firewall); or {setting} is not its address, or says rediss:// of a server without TLS"
)

REFUSED = "refuses connections"
NO_NAME = "its name does not resolve"
USED_UP = "has no connection left"
PASSWORD = "wrong password or user"
EXPIRED = "certificate: expired"
NOT_TRUSTED = "certificate: not trusted"
NO_CLUSTER = "is no cluster"
CLUSTER_NODE = "is a node of a cluster"
NO_SUCH_NUMBER = "has no database of that number"
SLOW = "Slow"
PROMOTED = "Promoted"
"""Words of :attr:`.StoreError.cause` in place of the name of an exception."""

LACKS_RIGHT = "its user lacks a right"
"""A :attr:`Cause.word`."""

_Row = tuple[Sequence[str], ErrorClass | None, tuple[str, ...], str, str]
"""Roles, class (None: any), how the error's cause begins (empty: however it does), its word, and what helps: with
``{setting}``, that says where the store is, and ``{file}``, of SQLite."""

_ALL = (PRIMARY, REPLICA, DATABASE)
_UNHEARD = ("TimeoutError", "no answer", "DeadlineExceeded", "NoFreeSlot", "ConnectionTimeout", "QueryCanceled")

ROWS: tuple[_Row, ...] = (
    (
        _ALL,
        None,
        (NO_NAME,),
        NO_NAME,
        "correct the host name in {setting}, or the resolver of this host (/etc/resolv.conf)",
    ),
    (
        _ALL,
        None,
        (USED_UP,),
        USED_UP,
        "find what uses its connections (CLIENT LIST, pg_stat_activity, SHOW PROCESSLIST), or raise its limit "
        "(maxclients, max_connections)",
    ),
    (_ALL, None, (REFUSED,), REFUSED, "start its server; or correct the port in {setting}"),
    (
        _ALL,
        None,
        (EXPIRED,),
        "its certificate has expired",
        "renew the certificate of its server, and have the server load it",
    ),
    (
        _ALL,
        _A,
        ("certificate:", "TLS:"),
        "its certificate is not trusted",
        "give the server a certificate that is trusted, has not expired and names its host, or correct the setting",
    ),
    (
        _ALL,
        None,
        (SLOW,),
        "is slow",
        "look at its processor, slow log (SLOWLOG GET) or locks, and whether it is in the same zone as this host",
    ),
    (
        (REPLICA,),
        ErrorClass.UNREACHABLE,
        (PROMOTED,),
        "is a primary itself",
        "at level 1 users would be shown another server's data: have {setting} name the reader endpoint, or leave it "
        "out; if that server was promoted by mistake, have it follow the primary again (`REPLICAOF HOST PORT`)",
    ),
    (_REDIS, None, (NO_CLUSTER,), NO_CLUSTER, "write redis:// or rediss:// in {setting}, in place of redis+cluster://"),
    (_REDIS, None, (CLUSTER_NODE,), CLUSTER_NODE, "write redis+cluster:// or rediss+cluster:// in {setting}"),
    (
        _REDIS,
        None,
        (NO_SUCH_NUMBER,),
        NO_SUCH_NUMBER,
        "correct the number at the end of {setting} (`CONFIG GET databases` says how many there are), or leave it out",
    ),
    (
        _REDIS,
        ErrorClass.UNREACHABLE,
        ("InvalidResponse",),
        "speaks another protocol",
        "correct the port in {setting}; or its server speaks TLS: write rediss://",
    ),
    (_REDIS, ErrorClass.UNREACHABLE, _UNHEARD, "does not answer", _HANGS),
    (
        (DATABASE,),
        ErrorClass.UNREACHABLE,
        _UNHEARD,
        "does not answer in time",
        "look for long transactions and locks, its processor and disk; or something on the way drops what is sent (a "
        "security group, a firewall)",
    ),
    (_REDIS, _W, ("ReadOnlyError",), "is a replica", f"it is a replica: {PROMOTE}"),
    (_REDIS, _W, ("OutOfMemoryError",), "has no memory left", f"its memory is full: {MORE_MEMORY}"),
    (
        _REDIS,
        _W,
        (),
        "refuses writes",
        "it refuses writes for a reason of its own: its log, INFO persistence (MISCONF: it cannot write to its disk) "
        "and INFO replication (NOREPLICAS: too few replicas follow)",
    ),
    (
        _REDIS,
        ErrorClass.BUSY,
        (),
        "is busy",
        "wait: it reads its data from the disk or runs a long script; INFO persistence says how far it is",
    ),
    (
        _REDIS,
        _A,
        ("right:",),
        LACKS_RIGHT,
        "give its user what it lacks; `flask langpont doctor --only redis-rights` prints the command",
    ),
    (
        _REDIS,
        _A,
        (),
        "refuses the password",
        "correct the password or user in {setting}, then restart the workers one after the other",
    ),
    (
        (DATABASE,),
        _A,
        ("InsufficientPrivilege", "OperationalError 1142", "OperationalError 1143", "OperationalError 1227"),
        LACKS_RIGHT,
        "give its user what it lacks; `flask langpont doctor --only database-rights` prints it",
    ),
    (
        (DATABASE,),
        _A,
        (),
        "refuses the password",
        "correct the password or user in {setting}, or give that user its rights; then restart the workers one after "
        "the other",
    ),
    (
        (DATABASE,),
        _W,
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        "is locked",
        "another process holds the lock on {file}: find it (`fuser {file}`, `lsof {file}`) and end its transaction; do "
        "not delete the file or its -wal or -journal",
    ),
    (
        (DATABASE,),
        _W,
        ("SQLITE_READONLY",),
        "may not be written",
        "the workers' user may not write {file}: correct owner and mode of it and of its folder",
    ),
    ((DATABASE,), _W, ("SQLITE_FULL",), "its disk is full", "make room on the disk of {file}"),
    ((DATABASE,), ErrorClass.NO_TABLES, (), "has no tables", "look for the tables before empty ones are made"),
    (
        (DATABASE,),
        ErrorClass.BUSY,
        (),
        "is busy",
        "it has too many connections or too little memory, or something locks the whole file: find what uses it",
    ),
    ((DATABASE,), _W, ("DiskFull",), "its disk is full", "make room on its disk"),
    (
        (DATABASE,),
        _W,
        ("LockNotAvailable", "OperationalError 1205"),
        "is locked",
        "find the transaction that locks its tables (pg_locks and pg_stat_activity, SHOW PROCESSLIST), and end it",
    ),
    (
        (DATABASE,),
        _W,
        ("ReadOnlySqlTransaction", "OperationalError 1290", "OperationalError 1792", "OperationalError 1836"),
        "is read-only",
        "have {setting} name the writer endpoint; after a failover, the new primary; if it is that, its user's role "
        "has default_transaction_read_only: ALTER ROLE … RESET default_transaction_read_only",
    ),
    (
        (DATABASE,),
        _W,
        (),
        "refuses writes",
        "have {setting} name the writer endpoint; after a failover, the new primary; look for a full disk",
    ),
)
"""The first that fits counts."""

_OF_SERVER = "that its server runs and that it can be reached from here"
_OF_FILE = "and owner and mode of its file, and the room on its disk"


def cause_of(error: StoreError, file: str | None = None) -> Cause:
    """Return the cause that an error tells of.

    :param file: of SQLite.
    """
    role, kind = role_of(error.store), error.error_class
    setting, section = PREFIX + _SETTINGS.get(role, role.upper()), _section(role, kind)
    for roles, error_class, causes, word, does in ROWS:
        if role in roles and error_class in (None, kind) and error.cause.startswith(causes or ""):
            return Cause(word, does.format(setting=setting, file=file or "its file"), section)
    is_file = role not in _SETTINGS or (role == DATABASE and file is not None)
    parts = " (host, port, redis:// or rediss://)" if role in _REDIS else ""
    does = f"check that {setting} is right{parts}, {_OF_FILE if is_file else _OF_SERVER}"
    return Cause(words_of(kind), does, section)


def _section(role: str, kind: ErrorClass) -> str:
    """Return the section of the page, which is named after the alert of such an error."""
    if kind is _A and role in _SETTINGS:
        return "auth-failed"
    if kind is _W and role in _REDIS:
        return "redis-writes-refused"
    name = "redis" if role == PRIMARY or (role == REPLICA and kind is ErrorClass.BUSY) else role
    return f"{name}-connection-failed" if role in _SETTINGS else f"{role}-failed"
