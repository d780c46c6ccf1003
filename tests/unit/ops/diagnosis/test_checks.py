"""The findings of each check about given facts."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.ops.diagnosis import table
from flask_langpont_session.ops.diagnosis.application_checks import weakness
from flask_langpont_session.ops.diagnosis.facts import SERVERS, Clock, Column, Facts, Transport
from flask_langpont_session.ops.diagnosis.findings import Finding, Outcome, Unknown
from flask_langpont_session.ops.diagnosis.table import CHECKS, Check, run
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE
from tests.support.fakes import settings_in

from .told import (
    GOOD,
    INFO,
    KEY,
    NOW,
    SECURE,
    columns,
    file,
    server,
    with_application,
    with_database,
    with_host,
    with_host_of,
    with_info,
    with_journal,
    with_primary,
    with_replica,
)

REFUSED = Unknown("its user may not ask that")
PLAIN = Transport(
    is_local=False, is_encrypted=False, checks_certificate=False, checks_name=False, has_credentials=False
)
WARNING, FAILURE, SKIPPED, OK = Outcome.WARNING, Outcome.FAILURE, Outcome.SKIPPED, Outcome.OK


def findings(name: str, facts: Facts) -> tuple[Finding, ...]:
    [result] = run(facts, [check for check in CHECKS if check.name == name])
    return result.findings


def cookie(**more: Any) -> Facts:
    return with_application(**{f"SESSION_COOKIE_{name}": value for name, value in more.items()})


def without(table_name: str, column: str) -> dict[str, Any]:
    kept = {name: found for name, found in columns(table_name).items() if name != column}
    return {"langpont_users": columns("langpont_users"), table_name: kept}


def changed(table_name: str, column: str, **more: Any) -> dict[str, Any]:
    there = columns(table_name)
    return {"langpont_users": columns("langpont_users"), table_name: {**there, column: Column(**more)}}


def refusing(error_class: ErrorClass, cause: str, **more: Any) -> Facts:
    """A database that takes no writes."""
    return with_database(refusal=StoreError("database", error_class, cause), **more)


def encrypting(*, keys: int = 1, **more: Any) -> Facts:
    more["ENCRYPTION_KEYS"] = [bytes(range(128 + number, 160 + number)).hex() for number in range(keys)]
    settings = settings_in(Path(__file__).with_name("no-files"), **more)
    return replace(GOOD, settings=settings)


def from_now(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


THREE_KEYS = [KEY[n:] + KEY[:n] for n in (1, 2, 3)]
ONE_TABLE = {"langpont_sessions": columns("langpont_sessions")}

BAD: list[tuple[str, Outcome, Facts, str]] = [
    ("secret-key", FAILURE, with_application(SECRET_KEY="dev"), "looks like a sample"),
    ("secret-key", FAILURE, with_application(SECRET_KEY="x9" * 8), "16 characters"),
    ("secret-key", FAILURE, with_application(SECRET_KEY=b"ab" * 20), "2 different"),
    ("secret-key-fallbacks", FAILURE, with_application(SECRET_KEY_FALLBACKS="an old key"), "one text"),
    ("secret-key-fallbacks", FAILURE, with_application(SECRET_KEY_FALLBACKS=[KEY[::-1], "old"]), "FALLBACKS[1]"),
    ("secret-key-fallbacks", FAILURE, with_application(SECRET_KEY_FALLBACKS=[7]), "is int"),
    ("secret-key-fallbacks", WARNING, with_application(SECRET_KEY_FALLBACKS=[KEY]), "SECRET_KEY itself"),
    ("secret-key-fallbacks", WARNING, with_application(SECRET_KEY_FALLBACKS=THREE_KEYS), "3 keys"),
    ("encryption", WARNING, encrypting(keys=4), "4 keys"),
    ("encryption", WARNING, encrypting(ENCRYPTED_CATEGORIES=()), "no category"),
    ("encryption", WARNING, encrypting(ENCRYPTION_SWITCH_OVER=from_now(-1)), "is over"),
    ("encryption", WARNING, encrypting(ENCRYPTION_SWITCH_OVER=from_now(130_000)), "for 1.5 days more"),
    ("environment", FAILURE, with_application(TESTING=True), "TESTING"),
    ("environment", WARNING, with_application(DEBUG=True), "debug"),
    ("environment", WARNING, with_application(SESSION_TYPE="redis"), "Session(app)"),
    ("grace", WARNING, with_application(local_cache_ttl=60), "signed out after 60 s"),
    ("cookie", FAILURE, cookie(HTTPONLY=False), "scripts"),
    ("cookie", WARNING, cookie(SECURE=False, NAME="session"), "without HTTPS"),
    ("cookie", WARNING, cookie(DOMAIN="example.com"), "all hosts"),
    ("cookie", WARNING, cookie(NAME="session"), "same name"),
    ("cookie", WARNING, cookie(SAMESITE=None), "not set"),
    ("cookie", WARNING, cookie(SAMESITE="None"), "'None'"),
    ("stores", FAILURE, replace(GOOD, database=Unknown("database: unreachable (TimeoutError)")), "unreachable"),
    ("stores", FAILURE, replace(GOOD, servers={"primary": Unknown("primary: unreachable")}), "unreachable"),
    ("stores", FAILURE, replace(GOOD, homeless=7), "7 slots"),
    ("time-outs", WARNING, with_application(redis_timeout=0.3), "0 ms of REQUEST_BUDGET"),
    ("time-outs", FAILURE, with_primary(took=0.15), "more than half of it counts as slow"),
    ("time-outs", WARNING, with_primary(took=0.06), "of 200 ms of REDIS_TIMEOUT"),
    ("time-outs", WARNING, with_primary(connecting=0.1), "connecting took 100 ms, of 200 ms of REDIS_TIMEOUT"),
    ("time-outs", WARNING, with_database(took=0.1), "of 250 ms of REQUEST_BUDGET"),
    ("clocks", WARNING, with_primary(clock=Clock(3, 0.01)), "primary is 3.0 s ahead of that of database"),
    ("clocks", FAILURE, with_primary(clock=Clock(-3600, 0.01)), "replica is 3600.0 s ahead of that of primary"),
    ("clocks", SKIPPED, replace(GOOD, servers={}, database=REFUSED), "no store answers"),
    ("redis-tls", WARNING, with_primary(transport=PLAIN), "without TLS"),
    ("redis-tls", FAILURE, with_primary(transport=PLAIN._replace(has_credentials=True)), "a password"),
    ("redis-tls", WARNING, with_primary(transport=PLAIN._replace(is_encrypted=True)), "any certificate"),
    (
        "redis-tls",
        WARNING,
        with_primary(transport=PLAIN._replace(is_encrypted=True, checks_certificate=True)),
        "of any host",
    ),
    ("redis-tls", WARNING, with_primary(transport=SECURE._replace(ends_at=GOOD.at + 86_400)), "certificate expires on"),
    ("redis-tls", SKIPPED, with_primary(transport=REFUSED), "may not ask"),
    ("write-endpoint", FAILURE, with_info(role="slave"), "it is a replica"),
    (
        "write-endpoint",
        FAILURE,
        with_info(role="slave", master_host="10.0.0.9", master_port="6380"),
        "it is a replica of 10.0.0.9:6380",
    ),
    ("write-endpoint", FAILURE, with_info(loading="1"), "reading its data"),
    ("write-endpoint", SKIPPED, with_primary(info=REFUSED), "may not ask"),
    ("write-endpoint", SKIPPED, with_primary(info={}), "does not say role"),
    ("replica", FAILURE, with_replica(role="master", master_replid="d" * 40), "a primary itself"),
    ("replica", FAILURE, with_replica(master_replid="d" * 40), "another primary"),
    ("replica", FAILURE, with_replica(**INFO), "one server"),
    ("replica", FAILURE, with_replica(master_link_status="down"), "does not follow"),
    (
        "replica",
        SKIPPED,
        replace(GOOD, servers={**GOOD.servers, "primary": Unknown("primary: unreachable")}),
        "primary does not answer",
    ),
    ("redis-rights", FAILURE, with_primary(missing=("hset", "info")), "app lacks +hset"),
    ("redis-rights", FAILURE, with_primary(missing=("keys",)), "keys that begin with session:"),
    ("redis-rights", WARNING, with_primary(missing=("client|tracking",)), "+client|tracking"),
    ("persistence", FAILURE, with_info(rdb_last_bgsave_status="err"), "snapshot could not be written"),
    ("persistence", FAILURE, with_info(aof_last_write_status="err"), "append-only file could not be written"),
    ("persistence", WARNING, with_info(aof_enabled="0"), "no append-only file and no replica"),
    ("hosts", FAILURE, with_host(keys=("new", "old")), "cookies of web-2 are refused by web-1"),
    ("hosts", FAILURE, with_host(keys=("new",)), "cookies of web-1 are refused by web-2"),
    ("hosts", WARNING, with_host(settings={"GRACE": "60"}), "GRACE differs: 300 on web-1; 60 on web-2"),
    ("hosts", WARNING, with_host(settings={}), "GRACE differs: 300 on web-1; not there on web-2"),
    ("hosts", WARNING, replace(GOOD, absent=3), "3 sessions of the database"),
    ("hosts", SKIPPED, replace(GOOD, hosts=REFUSED), REFUSED.why),
    ("unclaimed-keys", WARNING, replace(GOOD, unclaimed=frozenset({"is_admin"})), "name of 'is_admin'"),
    ("unclaimed-keys", SKIPPED, replace(GOOD, unclaimed=REFUSED), REFUSED.why),
    ("eviction", WARNING, with_info(maxmemory_policy="allkeys-lru"), "allkeys-lru"),
    ("eviction", WARNING, with_info(evicted_keys="12"), "12 keys"),
    ("eviction", WARNING, with_info(used_memory="900000"), "90 %"),
    (
        "eviction",
        FAILURE,
        with_info(used_memory="1000001", maxmemory_policy="noeviction", evicted_keys="3"),
        "1000001 of 1000000 bytes of maxmemory are used (noeviction)",
    ),
    ("eviction", FAILURE, with_info(used_memory="1000009", evicted_keys="3"), "are used (volatile-lru)"),
    (
        "eviction",
        WARNING,
        with_info(used_memory="1000009", mem_not_counted_for_evict="500"),
        "100 % of maxmemory is used",
    ),
    ("eviction", SKIPPED, with_info(maxmemory="much"), "no number for maxmemory"),
    ("near-cache", WARNING, with_primary(near="hiredis is not installed"), "hiredis"),
    ("tables", FAILURE, with_database(tables={}), "langpont_sessions, langpont_users"),
    ("schema", FAILURE, with_database(tables=without("langpont_sessions", "successor")), "successor is missing"),
    ("schema", FAILURE, with_database(tables=changed("langpont_sessions", "digest", length=32)), "32 characters, not"),
    ("schema", FAILURE, with_database(tables=changed("langpont_sessions", "created_at", is_wide=False)), "BIGINT"),
    (
        "schema",
        FAILURE,
        with_database(tables=changed("langpont_users", "user_id", length=255, collation="utf8mb4_bin")),
        "takes different texts for the same (utf8mb4_bin)",
    ),
    ("schema", WARNING, with_database(tables=changed("langpont_sessions", "color")), "color is not known here"),
    ("schema", SKIPPED, with_database(tables={}), "langpont_sessions, langpont_users are missing"),
    ("schema", SKIPPED, with_database(tables=ONE_TABLE), "langpont_users is missing"),
    ("indexes", SKIPPED, with_database(tables=ONE_TABLE), "langpont_users is missing"),
    ("indexes", WARNING, with_database(indexes={}), "ix_langpont_sessions_user_id"),
    ("database-writes", FAILURE, refusing(ErrorClass.WRITE_REFUSED, "ReadOnlySqlTransaction"), "no writes"),
    ("database-writes", SKIPPED, with_database(tables=ONE_TABLE), "langpont_users is missing"),
    ("database-rights", FAILURE, with_database(missing=("DELETE on langpont_users",)), "DELETE on langpont_users"),
    ("database-tls", WARNING, with_database(transport=PLAIN), "without TLS"),
    ("database-tls", FAILURE, with_database(transport=PLAIN._replace(has_credentials=True)), "a password"),
    ("lost-commits", FAILURE, replace(GOOD, lost_commits=3), "lacks 3 revocations"),
    ("lost-commits", SKIPPED, replace(GOOD, lost_commits=REFUSED), "may not ask"),
    ("journal-file", WARNING, with_host_of(journal=None), "JOURNAL is None"),
    ("journal-file", WARNING, with_journal(is_absolute=False), "depends on the folder"),
    ("journal-file", FAILURE, with_journal(owner=0), "belongs to user 0"),
    ("journal-file", WARNING, with_journal(mode=0o644), "0644"),
    ("journal-file", WARNING, with_journal(folder_mode=0o777), "0777"),
    ("journal-file", WARNING, with_journal(size=250_000_000), "250000000 bytes"),
    ("journal-file", FAILURE, with_host_of(user=0, journal=file(is_there=False)), "root"),
    ("journal-disk", FAILURE, with_journal(file_system="nfs4"), "nfs4"),
    ("journal-disk", WARNING, with_journal(file_system="tmpfs"), "in memory"),
    ("journal-disk", FAILURE, with_journal(free=1_048_576), "1 MB"),
    ("journal-disk", WARNING, with_journal(free=104_857_600), "less than JOURNAL_MAX_BYTES"),
    ("journal-disk", SKIPPED, with_journal(file_system=Unknown("only Linux tells")), "only Linux"),
    ("journal-disk", SKIPPED, with_host_of(journal=None), "None"),
    ("memory", WARNING, with_host_of(forgotten=(0, 7, 5)), "2 processes had no room for 12 sessions"),
    ("memory", SKIPPED, with_host_of(journal=None), "None"),
    ("journal-workers", FAILURE, with_host_of(workers=(0, 1000)), "users 0, 1000"),
    ("journal-workers", SKIPPED, with_host_of(workers=()), "no worker runs"),
]  # fmt: skip

FINE: list[tuple[str, Facts, str]] = [
    ("secret-key-fallbacks", with_application(SECRET_KEY_FALLBACKS=(KEY[::-1],)), "1 keys"),
    ("encryption", with_application(), "off"),
    ("encryption", encrypting(), "auth, translation, ui, data; 1 key"),
    ("encryption", encrypting(keys=2, ENCRYPTED_CATEGORIES=("auth",)), "auth; not translation, ui, data; 2 keys"),
    ("clocks", with_primary(clock=Clock(3, 2.5)), "apart"),
    ("time-outs", with_application(request_budget=0.25), "0.25 s at most"),
    ("grace", with_application(grace=1800.0), "1800 s"),
    ("redis-tls", with_primary(transport=PLAIN._replace(is_local=True, has_credentials=True)), "on this host"),
    ("redis-tls", with_primary(transport=SECURE._replace(ends_at=GOOD.at + 15 * 86_400)), "must be trusted"),
    ("replica", replace(GOOD, servers={"primary": server("primary")}), "there is none"),
    ("persistence", with_info(aof_enabled="0", connected_slaves="2"), "2 replicas have"),
    ("eviction", with_info(used_memory="800000", maxmemory_policy="noeviction"), "80 % of maxmemory"),
    ("eviction", with_info(maxmemory="0", maxmemory_policy="noeviction"), "no maxmemory"),
    ("near-cache", with_primary(near=None), "MEMORY_BYTES is 0"),
    ("database-tls", with_database(backend="sqlite"), "file"),
    ("indexes", with_database(indexes={"langpont_sessions": frozenset({
        ("user_id", "digest", "live"), ("updated_at", "digest"), ("absolute_expires_at",)
    })}), "all there"),
    ("journal-file", with_journal(folder_mode=0o1777), "of this user alone"),
    ("unclaimed-keys", replace(GOOD, unclaimed=frozenset({"basket", "seen"})), "'basket', 'seen'"),
]  # fmt: skip


def test_of_a_good_set_up_every_check_is_ok() -> None:
    """Each check says something when all is well."""
    results = run(GOOD)
    assert [result for result in results if result.outcome is not OK or not result.findings] == []
    assert len(results) == len(CHECKS) == len({check.name for check in CHECKS})


@pytest.mark.parametrize(("name", "outcome", "facts", "says"), BAD)
def test_what_is_wrong_is_said_with_its_cure(name: str, outcome: Outcome, facts: Facts, says: str) -> None:
    """The findings also say that nothing can be said."""
    found = [finding for finding in findings(name, facts) if finding.outcome is not OK]
    assert {finding.outcome for finding in found if says in finding.found} == {outcome}
    assert all(bool(finding.cure) is (finding.outcome is not SKIPPED) for finding in found)


@pytest.mark.parametrize(("name", "facts", "says"), FINE)
def test_what_only_looks_wrong_is_fine(name: str, facts: Facts, says: str) -> None:
    """Each is a set-up that works."""
    assert {finding.outcome for finding in findings(name, facts)} == {OK}
    assert any(says in finding.found for finding in findings(name, facts))


def test_every_check_was_seen_to_fail() -> None:
    """A check that is always content is none."""
    assert {name for name, outcome, *_ in BAD if outcome in (WARNING, FAILURE)} == {check.name for check in CHECKS}


def test_without_an_answer_nothing_is_said_of_a_store() -> None:
    """It is no pass: all checks of it are skipped, and one fails."""
    away = replace(GOOD, servers={"primary": Unknown("primary: away")}, database=Unknown("database: away"))
    outcomes = {result.check.name: result.outcome for result in run(away)}
    assert {outcomes[check.name] for check in CHECKS if check.of and check.name != "replica"} == {SKIPPED}
    assert outcomes["stores"] is FAILURE


def test_what_stops_the_site_comes_before_advice() -> None:
    """The person on call reads from above."""
    names = [check.name for check in CHECKS]
    now = {"stores", "write-endpoint", "eviction", "redis-rights", "tables", "database-writes", "database-rights"}
    assert set(names[: len(now)]) == now
    assert {"secret-key", "secret-key-fallbacks", "environment", "cookie"} < set(names[-5:])


def test_a_store_that_refuses_a_password_is_told_from_one_that_is_away() -> None:
    """It answers; what helps is another password."""
    error = StoreError("primary", ErrorClass.IDENTITY_REFUSED, "wrong password or user")
    refusing = replace(GOOD, servers={"primary": Unknown(str(error), error)})
    [refused] = [finding for finding in findings("stores", refusing) if finding.outcome is FAILURE]
    assert refused.found == "identity refused (wrong password or user)"
    assert refused.cure.startswith("correct the password or user in LANGPONT_SESSION_REDIS_URL")
    assert "restart the workers one after the other" in refused.cure
    assert [finding.found for finding in findings("eviction", refusing)] == ["refuses this application, see stores"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_what_a_check_does_not_need_makes_no_difference(check: Check) -> None:
    """It is not asked, where that check is made alone."""
    alone = replace(
        GOOD,
        servers=GOOD.servers if SERVERS in check.needs else {},
        database=GOOD.database if DATABASE in check.needs else REFUSED,
    )
    assert run(alone, [check]) == run(GOOD, [check])


def test_each_shard_is_looked_at() -> None:
    """One that is wrong is named."""
    servers = {f"primary:{n}": server(f"primary:{n}") for n in (1, 2, 3)}
    servers["primary:2"] = server("primary:2", info={**INFO, "maxmemory_policy": "allkeys-lfu"})
    found = findings("eviction", replace(GOOD, servers=servers))
    assert [(finding.subject, finding.outcome) for finding in found] == [
        ("primary:1", OK), ("primary:2", WARNING), ("primary:3", OK)
    ]  # fmt: skip


def test_what_a_missing_table_means_depends_on_whether_there_was_one() -> None:
    """An empty one ends every session; a new installation has none yet."""
    [found] = findings("tables", with_database(tables=ONE_TABLE))
    assert found.found == "missing: langpont_users"
    assert found.cure.startswith("in a new installation run `flask langpont init-db`; if ")
    assert found.cure.endswith("bring it back: an empty one signs every user out")


def test_a_missing_right_comes_with_the_command_that_gives_it() -> None:
    """The command can be pasted."""
    found = findings("redis-rights", with_primary(missing=("zadd", "hset")))
    assert [finding.cure for finding in found if finding.cure] == ["ACL SETUSER app +zadd +hset"]


@pytest.mark.parametrize(("backend", "how"), [("postgresql", "INDEX CONCURRENTLY"), ("mysql", "INDEX")])
def test_an_index_comes_with_its_statement(backend: str, how: str) -> None:
    """The statement can be pasted, while users sign in: PostgreSQL would lock the table against all writes."""
    [found] = findings("indexes", with_database(indexes={}, backend=backend))
    assert f"CREATE {how} ix_langpont_sessions_user_id ON langpont_sessions (user_id, digest)" in found.cure


@pytest.mark.parametrize("key", [KEY, KEY.encode(), "iJ1k-Fn0_zq8vXW3sYt5uRb7cLm2pQd9eHg4aKo6T_w", bytes(range(32))])
def test_random_keys_are_good(key: str | bytes) -> None:
    """Keys as `secrets` makes them are good, text or bytes."""
    assert weakness(key) == ""


@pytest.mark.parametrize(
    "key",
    [
        "dev", "development", "change-me-please-change-me-please!!", "my-super-secret-key-for-production-1",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf", b'_5#y2L"F4Q8z\n\xec]/',
        "0123456789abcdef" * 4, "test key of the test suite, 32+ bytes",
    ],
)  # fmt: skip
def test_samples_are_no_keys(key: str | bytes) -> None:
    """Keys from Flask's documentation and ours, and those that were typed by hand, count as samples."""
    assert "sample" in weakness(key)


def test_no_secret_is_quoted() -> None:
    """Neither the findings nor the facts' own form have a secret."""
    facts = with_application(SECRET_KEY="a-secret", SECRET_KEY_FALLBACKS=["another-secret"])
    told = f"{facts!r}{run(facts)!r}"
    assert "a-secret" not in told and "another-secret" not in told


PURE = ("application_checks", "database_checks", "host_checks", "redis_checks", "findings", "facts", "rights", "table")


@pytest.mark.parametrize("name", PURE)
def test_checks_ask_nothing(name: str) -> None:
    """Checks only look at the given facts: they import nothing by which they could ask."""
    tree = ast.parse(Path(table.__file__).with_name(f"{name}.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    asking = {"os", "socket", "time", "pathlib", "subprocess", "flask", "redis", "sqlalchemy", "sqlalchemy.engine"}
    assert not imported & asking
    assert not any("read_" in str(module) or "doctor" in str(module) for module in imported)
