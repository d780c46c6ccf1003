"""``flask langpont``: the commands with which an operator asks a running configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from ...build import State
from ...cli import langpont as langpont
from ...config.checks import SEVERITIES
from ...config.explanations import in_use, key_lines, table_lines
from ...extension import state_of
from ...policy.causes import cause_of
from ...policy.errors import StoreError, role_of
from ...policy.health import DATABASE, PRIMARY
from ...stores.host.journal import Summary, Waiting
from ...stores.host.opening import archive, path_of, unread
from ...stores.host.summary import together
from ...stores.sql.dialects import file_of, place_of
from ...stores.sql.tables import SESSIONS, USERS
from ..diagnosis.facts import MAKE_ROOM
from ..diagnosis.findings import Unknown
from ..diagnosis.read_host import features_of_workers, file_at
from ..diagnosis.read_redis import PATIENCE, why_no_near_cache
from ..diagnosis.stores_now import StoreAnswer
from ..diagnosis.watching import Watcher
from .doctor import doctor
from .drill import drill
from .iam_token import iam_token
from .purge import purge
from .sessions import sessions
from .watch import watch
from .words import ALL_FEATURES, age_of, counted, fitting, folded, waiting_as_json, what_waits

for command in (doctor, drill, iam_token, purge, sessions, watch):
    langpont.add_command(command)

JOURNAL = "journal"


@langpont.command("init-db")
@click.option("--dry-run", is_flag=True, help="Print the SQL, and run none of it.")
@with_appcontext
def init_db(dry_run: bool) -> None:
    """Create the tables of the auth mirror. Does nothing when they are there."""
    database, statements = state_of().backend.database, list[str]()
    try:
        if dry_run:
            statements = database.upkeep.definitions()
        else:
            database.upkeep.create_tables()
    except StoreError as error:
        raise click.ClickException(
            f"{error}. Check LANGPONT_SESSION_DATABASE_URL and the rights of its user."
        ) from None
    for statement in statements:
        click.echo(f"{statement};")
    if not statements:
        click.echo(f"{'-- ' if dry_run else ''}The session tables are there: {place_of(database.engine.url)}.")


@langpont.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_appcontext
def status(as_json: bool) -> None:
    """Ask every store now, over new connections, and say what was found, and what waits in the journal of this host.
    Exit code 1 if one cannot do its work."""
    state = state_of()
    with state.monitor.paused():  # where this process has one: the database is probed by one at a time
        look = Watcher(state.backend, patience=PATIENCE).look()
        primaries = [name for name, answer in look.stores.items() if role_of(name) == PRIMARY and not answer.problem]
        near = {name: why_no_near_cache(state.backend, state.backend.endpoint(name)) for name in primaries}
        near = {name: "MEMORY_BYTES is 0" if why_not is None else why_not for name, why_not in near.items()}
    found, waiting = dict(look.stores), look.journal
    if isinstance(waiting, Unknown):
        found[JOURNAL], waiting = StoreAnswer(None, waiting.why, waiting.error), None
    elif (path := state.backend.journal.file.path) is not None:
        lack = file_at(path_of(path)).lack
        found[JOURNAL] = StoreAnswer(None, lack and f"{lack}: {MAKE_ROOM}")
        waiting = waiting or Waiting(0, None)
    told: dict[str, Any] = {name: answer.problem or "ok" for name, answer in found.items()}
    told |= {"near_cache": {name: why_not or "ok" for name, why_not in near.items()}} if near else {}
    told |= {"remarks": [f"{name} {remark.word}" for name, remark in look.remarks]} if look.remarks else {}
    told |= {"waiting": waiting_as_json(waiting)} if waiting else {}
    if as_json:
        click.echo(json.dumps(told))
    else:
        for name, answer in found.items():
            more = f", {what_waits(told['waiting'])}" if name == JOURNAL and waiting else ""
            if name in near:
                more = f", no near cache: {near[name]}" if near[name] else ", near cache"
            click.echo(f"{name:10} {answer.problem or 'ok'}{more}")
        for line in [*_cures(state, found), *(f"{name} {remark.told}" for name, remark in look.remarks)]:
            click.echo(fitting(line))
    if any(answer.problem for answer in found.values()):
        raise SystemExit(1)


def _cures(state: State, found: Mapping[str, StoreAnswer]) -> Iterator[str]:
    """Yield what helps, once for each cause, and what users notice of the worst."""
    names: dict[str, list[str]] = {}
    for name, answer in found.items():
        if answer.error is not None:
            names.setdefault(str(cause_of(answer.error, file_of(state.backend.database.engine.url))), []).append(name)
    for cure, those in names.items():
        yield f"{', '.join(those)}: {cure}"
    if found[DATABASE].problem:
        yield "sign-ins are refused (503) for as long as the database takes no writes"


@langpont.command("journal")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--archive", is_flag=True, help="Rename what this release cannot read, and say what it is called then.")
@with_appcontext
def journal(as_json: bool, archive: bool) -> None:
    """Say what waits in this host's journal, since when, for how many sessions. Exit code 1 if it cannot be read."""
    waiting = state_of().backend.journal
    path = waiting.file.path
    if path is None:
        raise click.ClickException(
            "LANGPONT_SESSION_JOURNAL is None: each worker remembers for itself, and only its /healthz tells"
        )
    if archive:
        _archive(path)
        return
    others = unread(path)
    try:
        summary, place = waiting.summary(), path_of(path)
    except StoreError as error:
        raise click.ClickException(f"{path_of(path)} cannot be read: {error}. {_IF_DAMAGED}") from None
    told = _summary_as_json(summary)
    if as_json:
        files = [{"file": str(other.path), "why": other.why} for other in others]
        click.echo(json.dumps(told | ({"unread": files} if files else {})))
    else:
        for kind in summary.kinds:
            click.echo(f"{kind.replace('_', ' '):20}{told[kind]['entries']}{age_of(told[kind])}")
        click.echo(f"{'sessions':20}{summary.signed_in} signed in, {counted(summary.visitors, 'visitor')}")
        click.echo(f"{'all':20}{what_waits(told['waiting'])}")
        click.echo(f"{'file':20}{summary.bytes} bytes, {place}")
        for other in others:
            click.echo(f"{'not read':20}{other.path}: {other.why}; --archive renames it")


_IF_DAMAGED = "If it is damaged, `flask langpont journal --archive` renames it, and the workers make a new one"


def _archive(journal: Path) -> None:
    try:
        moved = archive(journal)
    except OSError as error:
        raise click.ClickException(f"what cannot be read of {journal} cannot be renamed: {error}") from None
    for before, after in moved:
        click.echo(f"{before} is {after.name} now")
    if not moved:
        click.echo("There is nothing that this release cannot read.")


def _summary_as_json(summary: Summary) -> dict[str, Any]:
    return {
        **{kind: waiting_as_json(waiting) for kind, waiting in summary.kinds.items()},
        "waiting": waiting_as_json(together(each for kind, each in summary.kinds.items() if kind != "copies")),
        "sessions": {"signed_in": summary.signed_in, "visitors": summary.visitors},
        "bytes": summary.bytes,
    }


@langpont.command("alert-test")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Only this one; else each, to its own topic.")
@with_appcontext
def alert_test(severity: str | None) -> None:
    """Send a marked test message to the topics of ALERT_TOPICS and say what became of each. Exit code 1 on failure."""
    if (alerts := state_of().alerts) is None:
        raise click.ClickException("LANGPONT_SESSION_ALERT_TOPICS names no topic; see docs/alerts.md")
    from ..alerts.table import Severity
    from ..alerts.topics import NotSent, short_name

    failed = False
    for each in map(Severity, [severity] if severity else SEVERITIES):
        outcome = "not sent: it has no topic"
        if alerts.topics.takes(each):
            try:
                alerts.send_test(each)
                outcome = f"{short_name(alerts.topics.of(each))}: sent"
            except NotSent as error:
                outcome, failed = f"{short_name(alerts.topics.of(each))}: {error}", True
        click.echo(f"{each:10} {outcome}")
    if failed:
        raise SystemExit(1)


@langpont.command("explain")
@click.argument("key", required=False)
@ALL_FEATURES
@with_appcontext
def explain(key: str | None, all_features: bool) -> None:
    """Print the decision table as configured: what each feature gets at each level, and its keys. While workers run on
    this host, only features of which they have met a key. With KEY: what happens to that session key, and the line of
    configuration that changes it."""
    settings = state_of().settings
    if not all_features:
        settings.table.features_in_use.update(features_of_workers(state_of().backend.journal.file.path))
    for line in table_lines(settings) if key is None else key_lines(settings, key):
        click.echo("\n".join(folded(line)))
    if key is None and (others := len(settings.table.features) - len(in_use(settings.table))):
        click.echo(
            f"{counted(others, 'feature')} more, of which no worker here has met a key: --all-features", err=True
        )


@langpont.command("footprint")
@with_appcontext
def footprint() -> None:
    """List what a removal has to delete: tables, keys of Redis, paths of this host. Asks no store."""
    backend = state_of().backend
    url = backend.database.engine.url
    for table in (SESSIONS, USERS):
        click.echo(f"table  {table.name} ({place_of(url)})")
    click.echo(f"keys   {backend.settings.key_prefix}:* (of LANGPONT_SESSION_REDIS_URL)")
    for place in (Path(file).resolve() for file in (file_of(url), backend.journal.file.path) if file):
        for path in sorted(place.parent.glob(f"{escape(place.name)}*")):
            click.echo(f"path   {path}")


IN_SHORT = {
    "init-db": "Create the tables",
    "status": "Ask every store now, and say what helps",
    "doctor": "Look for mistakes in configuration, stores and host",
    "explain": "Say what a feature or a session key gets at each level",
    "sessions": "List, show and end sessions",
    "watch": "Follow the level and the stores during an outage",
    "journal": "Say what waits on this host",
    "drill": "Try what users get when a store is lost",
    "purge": "Delete the rows of sessions that are over",
    "alert-test": "Send a test message to each topic of ALERT_TOPICS",
    "iam-token": "Print a token for another client of ElastiCache",
    "footprint": "List the tables, keys and files of the package",
}
"""The commands in the order in which one needs them, as the help lists them."""

for name, words in IN_SHORT.items():
    langpont.commands[name].short_help = words
