"""Results of checks as text, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace

import click

from flask_langpont_session.ops.cli.doctor import as_object, lines_of, summary_of
from flask_langpont_session.ops.diagnosis.findings import Outcome, Unknown
from flask_langpont_session.ops.diagnosis.table import CHECKS, Result, run

from .told import GOOD, INFO, server, with_application


def result(name: str, facts: object) -> Result:
    [check] = [check for check in CHECKS if check.name == name]
    return run(facts, [check])[0]  # type: ignore[arg-type]


def lines(found: Result) -> list[str]:
    return [click.unstyle(line) for line in lines_of(found)]


def test_what_is_well_is_one_line() -> None:
    """One line is enough, however many stores there are."""
    found = result("redis-tls", GOOD)
    assert lines(found) == [
        "ok       redis-tls             primary, replica: TLS; the certificate must be trusted and name the host"
    ]


def test_what_is_not_comes_with_why_and_cure() -> None:
    """The reason once, however much is wrong."""
    said = lines(result("cookie", with_application(SESSION_COOKIE_SAMESITE=None, SESSION_COOKIE_HTTPONLY=False)))
    assert [line[:31].rstrip() for line in said] == [
        "failure  cookie",
        "         why:  what gets the co",
        "         cure: set SESSION_COOK",
        "warning",
        "         cure: set SESSION_COOK",
    ]


def test_programs_get_all_of_it() -> None:
    """The names of docs/operations.md, in their order."""
    servers = {"primary": server("primary", info={**INFO, "evicted_keys": "3"})}
    results = run(replace(GOOD, servers=servers, database=Unknown("database: away")))
    told = json.loads(json.dumps(as_object(results, strict=True, has_failed=True)))
    assert list(told) == ["schema", "failed", "strict", "counts", "checks"]
    assert (told["schema"], told["failed"], told["strict"]) == (1, True, True)
    assert list(told["counts"]) == ["ok", "skipped", "warning", "failure"]
    assert sum(told["counts"].values()) == len(told["checks"]) == len(CHECKS)
    [eviction] = [check for check in told["checks"] if check["name"] == "eviction"]
    assert list(eviction) == ["name", "outcome", "why", "findings"]
    assert list(eviction["findings"][0]) == ["outcome", "subject", "found", "cure"]
    assert (eviction["outcome"], eviction["findings"][0]["subject"]) == ("warning", "primary")
    [cookie] = [check for check in told["checks"] if check["name"] == "cookie"]
    assert cookie["findings"][0]["subject"] is cookie["findings"][0]["cure"] is None


def test_the_last_line_counts() -> None:
    """Each check once, by the worst of what it found."""
    results = [result("cookie", GOOD), result("secret-key", with_application(SECRET_KEY="dev"))]
    assert [one.outcome for one in results] == [Outcome.OK, Outcome.FAILURE]
    assert summary_of(results) == "2 checks: 1 ok, 0 skipped, 0 warnings, 1 failure"
