"""The fault matrix as data: what fails, how, what users get meanwhile, and how it is over.

One row per row of the design's table of 56 faults, in its order and with its numbers; a fault that can be had in
several ways has several rows. ``test_matrix_redis.py`` and ``test_matrix_sql.py`` prove them on real servers; for what
needs other servers the row names the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from . import matrix_faults as faults
from . import matrix_names as names
from . import matrix_sql_faults as sql
from .matrix_faults import Cause
from .matrix_site import Site
from .proxy import HANG, REFUSE, RESET, STALL_REPLY, SWALLOW_REPLY, cut_after, delay, garbage

TIME_OUT, AT_ONCE, REFUSAL, SLOW = 1, 1, 3, 0
"""How many failed calls each thread may pay for until no request asks the store any more: one that takes its time or
says that it is refused, or as many cheap ones as open a breaker (three). Slow calls do not fail."""

KEPT = frozenset({"primary", "replica", "local", "lease", "database"})
"""Sources of what a visitor sees as it was. The others: ``journal`` (only what was written since), ``default``,
``nothing`` and, of auth, ``anonymous``."""


@dataclass(frozen=True)
class Row:
    """One fault on a primary with a replica, an application and its visitors.

    :param number: of the fault, 1 to 56.
    :param cause: what makes it happen, and shows that it did.
    :param store: which store fails.
    :param classes: as what its failures are recorded.
    :param meanwhile: as what some of them may be recorded, too, if a call meets the moment of the fault.
    :param lost: the stores that requests do not ask in the end, for writing at least.
    :param level: that is reached.
    :param auth: where the user, `translation` and `ui` come from at that level.
    :param write: status of a page that stores something, `sign_in` and `sign_out` of those.
    :param pays: failed calls of each thread until it is noticed, each time it comes.
    :param loses: of `translation`, `ui` and `additions`, those of which something from before may be gone for good.
    :param flickers: single requests may be a level lower than the site; what they show is the same.
    :param bites: how often the fault happens at least.
    :param size: of a text that is written, characters; 0: a short one.
    :param before: what is there before the application starts.
    :param config: settings that this row is about, without the prefix; a function is called with the site.
    :param engines: ``valkey``, ``redis``, or both where they differ.
    :param databases: ``sqlite`` and ``postgresql``.
    """

    number: int
    name: str
    cause: Cause
    store: str = "primary"
    classes: frozenset[str] = frozenset({"unreachable"})
    meanwhile: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset({"primary"})
    level: int = 1
    auth: str = "database"
    translation: str = "replica"
    ui: str = "replica"
    write: int = 200
    sign_in: int = 200
    sign_out: int = 200
    pays: int = REFUSAL
    loses: frozenset[str] = frozenset()
    flickers: bool = False
    bites: int = 1
    size: int = 0
    before: Callable[[Site], AbstractContextManager[object]] = nullcontext
    config: Mapping[str, Any] = field(default_factory=dict)
    engines: tuple[str, ...] = ("valkey",)
    databases: tuple[str, ...] = ("sqlite",)


@dataclass(frozen=True)
class ProvedElsewhere:
    """A fault that needs other servers than a primary and a replica.

    :param tests: files below ``tests``, and functions in them.
    """

    number: int
    name: str
    tests: tuple[str, ...]


VALKEY_AND_REDIS = ("valkey", "redis")
NOTHING = frozenset[str]()
UNREACHABLE, BUSY = frozenset({"unreachable"}), frozenset({"busy"})
REFUSED, IDENTITY = frozenset({"write_refused"}), frozenset({"identity_refused"})
BOTH, EVERYTHING = frozenset({"primary", "replica"}), frozenset({"translation", "ui"})

UNSEEN: Mapping[str, Any] = {"classes": NOTHING, "lost": NOTHING, "level": 0, "auth": "primary", "pays": 0}
"""No store is thought to be ill."""
AS_BEFORE: Mapping[str, Any] = {**UNSEEN, "translation": "primary", "ui": "primary"}
"""No user notices anything."""
EMPTIED: Mapping[str, Any] = {**UNSEEN, "translation": "nothing", "ui": "nothing", "loses": EVERYTHING}
"""Everything but auth, which the database has, is as for a new visitor."""
REFILLED: Mapping[str, Any] = {**EMPTIED, "translation": "copy", "ui": "copy", "loses": frozenset({"additions"})}
"""Redis has nothing any more; the workers notice and give their copies back."""
READ_ONLY: Mapping[str, Any] = {"classes": REFUSED, "translation": "primary", "ui": "primary"}
"""Writes fail, reads go on."""
WITHOUT_BOTH: Mapping[str, Any] = {"level": 2, "lost": BOTH, "translation": "local", "ui": "default"}
"""No Redis answers."""
WAITED_FOR: Mapping[str, Any] = {"pays": TIME_OUT, "config": {"REDIS_TIMEOUT": 0.4}}
"""A request waits for a time-out, and a long one would only be waited for longer."""
OWN_USER: Mapping[str, Any] = {"before": faults.app_user, "config": {"REDIS_URL": faults.signed_in_url}}
NAMED: Mapping[str, Any] = {
    "before": names.named,
    "config": {"REDIS_URL": names.url, "REDIS_TIMEOUT": 0.4},
}
HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"

REDIS_ROWS: tuple[Row, ...] = (
    Row(1, "connection refused", faults.wire(REFUSE, "primary")),
    Row(1, "connections refused by both", faults.wire(REFUSE, "primary", "replica"), **WITHOUT_BOTH),
    Row(2, "hang", faults.stopped, **WAITED_FOR),
    Row(3, "slow", faults.wire(delay(0.2), "primary"), pays=SLOW,
        before=faults.on_time),
    Row(4, "black hole", faults.wire(HANG, "primary"), **WAITED_FOR),
    Row(5, "SYN black hole", faults.full_backlog, **WAITED_FOR),
    Row(6, "cut in the middle of a reply", faults.wire(cut_after(5), "primary")),
    Row(7, "reply lost", faults.wire(SWALLOW_REPLY, "primary"), **WAITED_FOR),
    Row(8, "stall in a reply", faults.wire(STALL_REPLY, "primary"), **WAITED_FOR),
    Row(9, "reset", faults.wire(RESET, "primary")),
    Row(10, "idle connections closed", faults.idle_connections_closed, **AS_BEFORE),
    Row(11, "another service on the port", faults.wire(garbage(HTTP), "primary")),
    Row(12, "killed, comes back empty", faults.killed),
    Row(13, "restarted fast, empty", faults.restarted, **{**REFILLED, "pays": REFUSAL},
        meanwhile=frozenset({"unreachable"})),
    Row(14, "restarted with old data", faults.restarted_with_old_data),
    Row(15, "loading", faults.loading, classes=BUSY, engines=VALKEY_AND_REDIS),
    Row(16, "read-only after a failover", faults.demoted, **READ_ONLY),
    Row(17, "name of a replica", names.led_to_replica, **READ_ONLY, **NAMED),
    Row(18, "replica without its primary", faults.no_answer_without_primary, store="replica", classes=BUSY,
        **WITHOUT_BOTH),
    Row(24, "out of memory", faults.refusing("OOM", maxmemory=1), **READ_ONLY),
    Row(25, "snapshot cannot be written", faults.snapshot_fails, **READ_ONLY, engines=VALKEY_AND_REDIS),
    Row(26, "too few replicas", faults.refusing("NOREPLICAS", min_replicas_to_write=2), **READ_ONLY),
    Row(27, "password refused", faults.password_changed, classes=IDENTITY, pays=AT_ONCE, **OWN_USER),
    Row(27, "password asked for", faults.password_asked_for, classes=IDENTITY, pays=AT_ONCE),
    Row(28, "password rotated", faults.rotated, **AS_BEFORE, before=faults.app_user,
        config={"REDIS_URL": faults.rotating_client}),
    Row(29, "rights withdrawn", faults.without_rights, classes=IDENTITY, pays=AT_ONCE, **OWN_USER),
    Row(30, "too many clients", faults.no_more_clients),
    Row(33, "name moves with a failover", names.failed_over, flickers=True, classes=REFUSED, **NAMED),
    Row(34, "name that is not known", names.unresolved(slow=False, anew=True), **NAMED),
    Row(34, "name that takes its time", names.unresolved(slow=True, anew=True), **NAMED, pays=TIME_OUT),
    Row(34, "name that is not known any more", names.unresolved(slow=False, anew=False), **AS_BEFORE, **NAMED),
    Row(35, "evicted", faults.lost_data(faults.evict, faults.evictions), **EMPTIED),
    Row(36, "flushed", faults.lost_data(faults.flush, faults.flushes), **REFILLED),
    Row(37, "records of another type", faults.damaged(faults.of_another_type, faults.is_quarantined), **EMPTIED,),
    Row(38, "corrupt bytes", faults.damaged(faults.unreadable, faults.is_unreadable), **EMPTIED),
    Row(39, "value that is too big", faults.small_limit, **AS_BEFORE, write=413,
        size=2 * faults.MEGABYTE),
    Row(40, "busy with a script", faults.endless_script, classes=BUSY),
    Row(41, "writes paused", faults.paused, **WAITED_FOR),
    Row(42, "scripts forgotten", faults.forgotten_scripts, **AS_BEFORE),
    Row(43, "no free connection", faults.wire(delay(0.15), "primary"), flickers=True, bites=5,
        **{**AS_BEFORE, "classes": frozenset({"local"}), "meanwhile": frozenset({"unreachable"}), "pays": TIME_OUT},
        config={"REDIS_URL": faults.over_one_connection, "REDIS_TIMEOUT": 0.5}),  # a busy machine adds to the delay
    Row(45, "starved threads", faults.starved_threads, **AS_BEFORE),
    Row(47, "clock a day ahead", faults.skewed(86_400.0), **AS_BEFORE),
    Row(47, "clock a day behind", faults.skewed(-86_400.0), **AS_BEFORE),
    Row(56, "flapping", faults.blips, flickers=True, bites=10),
)  # fmt: skip

NO_DATABASE: Mapping[str, Any] = {
    "store": "database", "lost": frozenset({"database"}), "level": 0, "auth": "lease", "translation": "primary",
    "ui": "primary", "sign_in": 503,
}  # fmt: skip
"""Redis carries the sign-ins; no user signs in anew."""
ASKED: Mapping[str, Any] = {"VERIFY_INTERVAL": 0}
"""Every page asks the database."""
SHORT: Mapping[str, Any] = {**ASKED, "DATABASE_TIMEOUT": 0.4}
ANY_SQL, POSTGRESQL = ("sqlite", "postgresql"), ("postgresql",)
NO_STORE = frozenset({"primary", "replica", "database"})

SQL_ROWS: tuple[Row, ...] = (
    Row(46, "worker starts with everything down", sql.started_without(*NO_STORE), lost=NO_STORE, level=4,
        auth="anonymous", translation="journal", ui="default", sign_in=503, databases=POSTGRESQL),
    Row(48, "connection refused", faults.wire(REFUSE, "database"), **NO_DATABASE, config=ASKED, databases=POSTGRESQL),
    Row(48, "connections closed", sql.cut_once,
        **{**NO_DATABASE, "classes": NOTHING, "lost": NOTHING, "sign_in": 200, "pays": 0}, config=ASKED,
        databases=POSTGRESQL),
    # The database is to say why before our own time is over, on a busy machine, too.
    Row(49, "locked", sql.locked, **NO_DATABASE, classes=REFUSED, config={**ASKED, "DATABASE_TIMEOUT": 2.0},
        databases=ANY_SQL),
    Row(50, "answers come late", faults.wire(delay(1.0), "database"), **NO_DATABASE, config=SHORT, pays=TIME_OUT,
        databases=POSTGRESQL),
    Row(50, "slow writes", sql.slow_writes, **NO_DATABASE, config={**ASKED, "DATABASE_TIMEOUT": 1.5}, pays=TIME_OUT,
        databases=POSTGRESQL),  # on a busy machine a read before them may take as long as SHORT allows
    Row(51, "black hole", faults.wire(HANG, "database"), **NO_DATABASE, config=SHORT, pays=TIME_OUT,
        databases=POSTGRESQL),
    Row(52, "no free connection", sql.exhausted,
        **{**NO_DATABASE, "classes": NOTHING, "lost": NOTHING, "sign_in": 200, "pays": 0},
        config={**ASKED, "DATABASE_URL": sql.small_engine}, databases=ANY_SQL),
    Row(53, "read-only", sql.read_only, **NO_DATABASE, classes=REFUSED, config=ASKED, databases=POSTGRESQL),
    Row(54, "table missing", sql.table_missing, **NO_DATABASE, classes=frozenset({"no_tables"}), config=ASKED,
        databases=ANY_SQL),
    Row(54, "file is no database", sql.no_database, **NO_DATABASE, config=ASKED),
    Row(54, "duplicate key", sql.first_at_the_same_time, **AS_BEFORE, store="database",
        config={"DATABASE_TIMEOUT": 20, "REQUEST_BUDGET": 30}, databases=POSTGRESQL),
    Row(55, "everything down", faults.wire(REFUSE, *NO_STORE), lost=NO_STORE, level=4, auth="local",
        translation="journal", ui="default", sign_in=503, databases=POSTGRESQL),
)  # fmt: skip

_CLUSTER, _TLS = "topologies/test_cluster.py", "topologies/test_tls.py"
_CLUSTER_FAULTS = "topologies/test_cluster_faults.py"

ELSEWHERE: tuple[ProvedElsewhere, ...] = (
    ProvedElsewhere(19, "slots without a server", (f"{_CLUSTER_FAULTS}::test_a_dead_shard_disturbs_no_other",)),
    ProvedElsewhere(20, "a node of a cluster dies",
        (f"{_CLUSTER}::test_a_forked_worker_finds_the_node_that_was_promoted",
         f"{_CLUSTER}::test_while_the_primary_is_away_its_replica_is_read")),
    ProvedElsewhere(21, "start without a cluster", (f"{_CLUSTER}::test_an_application_starts_before_its_cluster",)),
    ProvedElsewhere(22, "slots that move", (f"{_CLUSTER_FAULTS}::test_slots_move_under_running_requests",)),
    ProvedElsewhere(23, "keys of several slots", (f"{_CLUSTER}::test_sessions_are_spread_and_each_is_in_one_slot",)),
    ProvedElsewhere(31, "certificates",
        (f"{_TLS}::test_any_other_certificate_is_refused", f"{_TLS}::test_a_client_with_none_or_a_bad_one_may_not",
         f"{_TLS}::test_a_server_that_is_not_believed_is_an_outage_that_names_the_setting")),
    ProvedElsewhere(32, "TLS meets none, and broken records",
        (f"{_TLS}::test_tls_and_none_do_not_understand_each_other",
         f"{_TLS}::test_a_bit_that_was_turned_over_costs_one_command")),
    ProvedElsewhere(44, "fork",
        ("integration/test_clients.py::test_a_forked_worker_serves_with_its_own",
         "topologies/test_servers.py::test_all_first_requests_are_answered",
         "topologies/test_crossed_replies.py::test_children_do_not_read_each_others_replies")),
)  # fmt: skip
"""Faults that need a cluster, certificates or processes."""
