"""``flask langpont doctor``: every check, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from ...exceptions import ConfigError
from ...extension import NotSetUp, state_of
from ..diagnosis.doctor import read
from ..diagnosis.findings import Finding, Outcome
from ..diagnosis.table import CHECKS, Check, Result, run
from .words import COLUMNS, fitting

SCHEMA = 1
"""The version of what --json prints: it grows when a name changes or goes, not when one is added."""

_COLORS = {"ok": "green", "skipped": "cyan", "warning": "yellow", "failure": "red"}
_INDENT = " " * 9


class CouldNotRun(click.ClickException):
    """Not a single check was made."""

    exit_code = 2


class _Doctor(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (NotSetUp, ConfigError) as error:
            raise CouldNotRun(str(error)) from None


@click.command("doctor", cls=_Doctor)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--strict", is_flag=True, help="Warnings count as failures. For deployments.")
@click.option("--only", "names", multiple=True, metavar="NAME", help="This check alone; may be given several times.")
@click.option("--list", "is_list", is_flag=True, help="Name the checks, and make none.")
@with_appcontext
def doctor(as_json: bool, strict: bool, names: Sequence[str], is_list: bool) -> None:
    """Look at the configuration, every store and this host, and say what is wrong, why it matters and what helps.
    Leaves all as it was. Exit code 0 if no check failed, 1 if one did, 2 if none could be made."""
    checks = _chosen(CHECKS, names)
    if is_list:
        for check in checks:
            looks_at = check.looks_at.replace("`", "")
            click.echo(click.wrap_text(looks_at, COLUMNS, f"{check.name:22}", " " * 22))
        return
    needs = {need for check in checks for need in check.needs}
    state = state_of()
    with state.monitor.paused():  # where this process has one: the database is probed by one at a time
        facts = read(current_app, state.backend, needs)
    results = run(facts, checks)
    has_failed = any(result.outcome in (("failure", "warning") if strict else ("failure",)) for result in results)
    if as_json:
        click.echo(json.dumps(as_object(results, strict=strict, has_failed=has_failed)))
    else:
        for result in results:
            for line in lines_of(result):
                click.echo(fitting(line))
        click.echo(summary_of(results))
    if has_failed:
        raise SystemExit(1)


def _chosen(checks: Sequence[Check], names: Sequence[str]) -> list[Check]:
    by_name = {check.name: check for check in checks}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise click.UsageError(f"there is no check {unknown[0]!r}; `flask langpont doctor --list` names them")
    return [check for check in checks if not names or check.name in names]


def lines_of(result: Result) -> Iterator[str]:
    """Yield one line for each finding, however many stores it is about; below it what helps, and once why it
    matters."""
    alike: dict[Finding, list[str]] = {}
    for finding in result.findings:
        alike.setdefault(finding._replace(subject=""), []).append(finding.subject)
    name, why = result.check.name, result.check.why
    for finding, subjects in alike.items():
        about = ", ".join(filter(None, subjects))
        mark = click.style(f"{finding.outcome:9}", fg=_COLORS[finding.outcome])
        yield f"{mark}{name:22}{about}{': ' if about else ''}{finding.found}"
        if finding.cure:
            if why:
                yield f"{_INDENT}why:  {why}"
            yield f"{_INDENT}cure: {finding.cure}"
            why = ""
        name = ""


def _counts(results: Sequence[Result]) -> dict[str, int]:
    counted: Counter[Outcome] = Counter(result.outcome for result in results)
    return {outcome: counted[outcome] for outcome in type(results[0].outcome)}


def summary_of(results: Sequence[Result]) -> str:
    counts = _counts(results)
    said = [f"{counts['ok']} ok", f"{counts['skipped']} skipped"]
    said += [f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in ("warning", "failure")]
    return f"{len(results)} {'check' if len(results) == 1 else 'checks'}: {', '.join(said)}"


def as_object(results: Sequence[Result], *, strict: bool, has_failed: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "failed": has_failed,
        "strict": strict,
        "counts": _counts(results),
        "checks": [
            {
                "name": result.check.name,
                "outcome": result.outcome,
                "why": result.check.why,
                "findings": [
                    {name: getattr(finding, name) or None for name in ("outcome", "subject", "found", "cure")}
                    for finding in result.findings
                ],
            }
            for result in results
        ],
    }
