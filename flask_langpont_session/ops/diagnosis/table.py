"""All checks, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from ...policy.errors import role_of
from ...policy.health import DATABASE, PRIMARY, REPLICA
from . import application_checks as application
from . import database_checks as database
from . import host_checks as host
from . import redis_checks as redis
from .facts import SERVERS, Facts
from .findings import Finding, Look, Outcome, Unknown, findings_of


class Check(NamedTuple):
    """A check, which has the name of its function.

    :param look: pure: the same facts, the same findings. It is given all facts; one of stores each of them before.
    :param looks_at: what it looks at, and what is wrong there; for the documentation.
    :param why: why it matters: a sentence.
    :param needs: whatever has to be asked for it: :data:`SERVERS`, :data:`DATABASE`.
    :param of: the roles of the stores that it looks at, one by one.
    """

    look: Callable[..., Look]
    looks_at: str
    why: str
    needs: tuple[str, ...] = ()
    of: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name as people write it."""
        return self.look.__name__.replace("_", "-")

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """Yield all findings, one at least."""
        if not self.of:
            yield from findings_of(self.look(facts))
            return
        stores = {name: store for name, store in facts.stores.items() if role_of(name) in self.of}
        for name, store in stores.items():
            subject = "" if name == DATABASE else name
            if isinstance(store, Unknown):
                yield Finding(Outcome.SKIPPED, f"{'' if subject else 'the database '}{store.of_store}", subject=subject)
            else:
                yield from (found._replace(subject=subject) for found in findings_of(self.look(store, facts)))
        if not stores:
            yield Finding(Outcome.OK, "there is none")


_of_primary = partial(Check, needs=(SERVERS,), of=(PRIMARY,))
_of_replica = partial(Check, needs=(SERVERS,), of=(REPLICA,))
_of_redis = partial(Check, needs=(SERVERS,), of=(PRIMARY, REPLICA))
_of_database = partial(Check, needs=(DATABASE,), of=(DATABASE,))
_of_all_stores = partial(Check, needs=(SERVERS, DATABASE))

CHECKS: tuple[Check, ...] = (
    _of_all_stores(
        application.stores,
        "every store answers; every slot of a cluster has a shard",
        "without a store the application is in an outage, and nothing more can be said of that store",
    ),
    _of_primary(
        redis.write_endpoint,
        "`REDIS_URL` leads to a primary",
        "a replica refuses every write: the application would stay at level 1",
    ),
    _of_primary(
        redis.eviction,
        "`maxmemory-policy`, memory in use, keys that were removed",
        "without memory it refuses writes, or removes keys: a loss of data, which may log a visitor out",
    ),
    _of_redis(
        redis.redis_rights,
        "what the user of Redis lacks",
        "without a right the store counts as lost, or is slower",
    ),
    _of_database(database.tables, "both tables are there", "without them no user can sign in"),
    _of_database(
        database.database_writes,
        "a transaction that writes both tables and leaves nothing there",
        "without them no user can sign in",
    ),
    _of_database(
        database.database_rights,
        "what the user of the database lacks",
        "without a right sign-ins fail",
    ),
    _of_database(
        database.schema,
        "the columns are those that this release makes",
        "a column that is missing or too small fails at the first request that needs it, or stores something else",
    ),
    Check(
        host.journal_file,
        "path, size, owner and mode of `JOURNAL`",
        "what cannot be written to the stores waits there, sign-outs too",
    ),
    Check(
        host.journal_disk,
        "file system and free space of `JOURNAL`",
        "it has to outlive the process, and SQLite's log needs a disk of this host",
    ),
    Check(
        host.journal_workers,
        "which processes have the journal open, and that they run as one user",
        "workers of a host tell each other by it what waits and what has changed",
    ),
    Check(
        host.memory,
        "whether workers had no room (`MEMORY_BYTES`) for sessions in use",
        "what a worker does not keep, an outage cannot show, and a Redis that lost its data is not given back",
    ),
    _of_all_stores(
        application.hosts,
        "the hosts whose workers use this Redis: `SECRET_KEY` by a keyed digest, names and time limits are the same; "
        "up to 50 sessions of the database that changed today are there (a host of another `KEY_PREFIX` has others)",
        "a host with another key signs out every user that comes to it from another host",
    ),
    _of_replica(
        redis.replica,
        "`REPLICA_URL` leads to a replica of this primary, and not to the primary itself",
        "at level 1 users are shown what the replica has",
    ),
    _of_primary(
        redis.persistence,
        "an append-only file or a replica; the last write to the disk was good",
        "a restart must not empty every session's data",
    ),
    _of_all_stores(
        application.clocks,
        "the clocks of this host, of every Redis and of the database: at most a second apart",
        "what is written without reading is ordered by time, and sessions end by it",
    ),
    _of_all_stores(
        application.time_outs,
        "the time-outs against `REQUEST_BUDGET`, and the stores' answers against the time-outs",
        "a store that is slower than its time-out is used as little as one that is away",
    ),
    Check(
        application.grace,
        "`GRACE` is not longer than `LOCAL_CACHE_TTL`",
        "with Redis and database down a worker goes by what it has kept of a session, and that is no longer than this",
    ),
    _of_database(
        database.indexes,
        "every index is there",
        "without them each sign-out of a user, each recovery and each purge reads the whole table",
    ),
    _of_database(
        database.lost_commits,
        "the database still has the revocations that this host told it within the last hour",
        "one that lacks some went back to an earlier state: it may lack sign-ins, rights and your own data, too",
    ),
    _of_redis(
        redis.redis_tls,
        "TLS to every server that is not on this host; certificate and host name are checked; the certificate's end",
        "whatever is on the way could read and change sessions, and take the password",
    ),
    _of_database(
        database.database_tls,
        "TLS to a database that is not on this host; certificate and host name are checked; its end",
        "whatever is on the way could read and change which user a session belongs to",
    ),
    _of_primary(
        redis.near_cache,
        "whether processes of this host can have a near cache, or why not",
        "without it each request that reads the session asks Redis",
    ),
    Check(
        application.encryption,
        "`ENCRYPTION_KEYS`: which categories are encrypted, how many keys there are, whether a switch-over goes on",
        "a store or a backup of it shows what is not encrypted",
    ),
    Check(
        application.secret_key,
        "`SECRET_KEY`: at least 32 characters, no known sample",
        "with this key any session cookie can be forged",
    ),
    Check(
        application.secret_key_fallbacks,
        "`SECRET_KEY_FALLBACKS`: a list, no weak key, no key that is no longer needed",
        "a cookie that is signed by any of them is accepted",
    ),
    Check(
        application.environment,
        "debug mode and `TESTING`",
        "users must not be shown errors, and an application under test keeps nothing for long",
    ),
    Check(
        application.cookie,
        "`Secure`, `HttpOnly`, `SameSite`, domain and name of the session cookie",
        "what gets the cookie has the session",
    ),
    _of_all_stores(
        application.unclaimed_keys,
        "session keys that no feature names, in up to 50 sessions that changed today (names only)",
        "a key that names a user or gives a right has to be in `USER_KEYS` or `PRIVILEGE_KEYS`",
    ),
)
"""In the order in which they are printed: first what keeps the site from working now, advice behind it."""


class Result(NamedTuple):
    """The findings of one check."""

    check: Check
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """Return the worst outcome of its findings."""
        return max((finding.outcome for finding in self.findings), key=list(Outcome).index)


def run(facts: Facts, checks: Iterable[Check] = CHECKS) -> list[Result]:
    """Run checks over the facts."""
    return [Result(check, tuple(check.findings(facts))) for check in checks]
