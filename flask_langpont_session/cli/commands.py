"""``flask langpont``: what an operator asks of a running configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import click
from flask.cli import AppGroup, with_appcontext

from ..build import State
from ..config.checks import PREFIX, SEVERITIES
from ..config.explanations import key_lines, table_lines
from ..exceptions import LangPontSessionError
from ..extension import NotSetUp, state_of
from ..policy.health import DATABASE, PRIMARY, REPLICA
from ..policy.ids import is_digest
from ..policy.records import Revoked
from ..policy.values import StoreError, role_of
from ..session.values import SessionInfo
from ..stores.host.journal import Summary, Waiting
from ..stores.host.summary import together
from ..stores.redis.slots import SLOTS
from ..stores.sql.dialects import place_of


class _Commands(AppGroup):
    """What is wrong with the application is said in a line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotSetUp as error:
            raise click.ClickException(str(error)) from None


langpont = _Commands("langpont", help="Sessions by category: tables, stores, decisions.")

JOURNAL = "journal"

_SETTINGS = {PRIMARY: "REDIS_URL", REPLICA: "REPLICA_URL", DATABASE: "DATABASE_URL", JOURNAL: "JOURNAL"}
"""Which setting says where a store is."""

_MAKE_TABLES = "run `flask langpont init-db`"
"""What an answer says that needs no setting to be looked at."""

_PATIENCE = 2.0
"""Seconds a command waits for a store; no request hangs on it."""


@langpont.command("init-db")
@with_appcontext
def init_db() -> None:
    """Create the tables of the auth mirror. Does nothing when they are there."""
    database = state_of().backend.database
    try:
        database.create_tables()
    except StoreError as error:
        raise click.ClickException(
            f"{error}. Check LANGPONT_SESSION_DATABASE_URL and the rights of its user."
        ) from None
    click.echo(f"The session tables are there: {place_of(database.engine.url)}.")


@langpont.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_appcontext
def status(as_json: bool) -> None:
    """Ask every store now, over new connections, and say what was found, and what waits in the journal of this host.
    Exit code 1 if one cannot do its work."""
    state = state_of()
    with state.monitor.paused():  # where this process has one: the database is probed by one at a time
        found = {name: _ask(state, name) for name in _stores(state)}
        near = {name: _near(state, name) for name, problem in found.items() if role_of(name) == PRIMARY and not problem}
    waiting: Waiting | None = None
    if state.backend.journal.file.path is not None:
        try:
            waiting, found[JOURNAL] = state.backend.journal.waiting(), None
        except StoreError as error:
            found[JOURNAL] = str(error)
    if as_json:
        told: dict[str, Any] = {name: problem or "ok" for name, problem in found.items()}
        told |= {"near_cache": {name: why_not or "ok" for name, why_not in near.items()}} if near else {}
        click.echo(json.dumps(told | ({"waiting": _as_json(waiting)} if waiting else {})))
    else:
        for name, problem in found.items():
            more = f", {_sentence(waiting)}" if name == JOURNAL and waiting else ""
            if name in near:
                more = f", no near cache: {near[name]}" if near[name] else ", near cache"
            click.echo(f"{name:10} {problem or 'ok'}{more}")
        doubtful = [name for name, problem in found.items() if problem and _MAKE_TABLES not in problem]
        for setting in dict.fromkeys(_SETTINGS[role_of(name)] for name in doubtful):
            click.echo(f"check that {PREFIX}{setting} is right, that it can be reached from here and may be used")
    if any(found.values()):
        raise SystemExit(1)


def _as_json(waiting: Waiting) -> dict[str, Any]:
    return {"entries": waiting.entries, "oldest_seconds": waiting.oldest_seconds(time.time())}


def _sentence(waiting: Waiting) -> str:
    if not waiting.entries:
        return "nothing waits"
    return f"{waiting.entries} {'waits' if waiting.entries == 1 else 'wait'}{_age(waiting)}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _age(waiting: Waiting) -> str:
    seconds = waiting.oldest_seconds(time.time())
    return "" if seconds is None else f", the oldest for {timedelta(seconds=int(seconds))}"


def _stores(state: State) -> list[str]:
    """All stores by name; the shards of a cluster that is found, each with its primary and its replica."""
    redis = state.backend.redis
    with suppress(StoreError):
        redis[PRIMARY].find_shards(_PATIENCE)
    return [*(redis[PRIMARY].stores or [PRIMARY]), *(redis[REPLICA].stores if REPLICA in redis else ()), DATABASE]


def _ask(state: State, name: str) -> str | None:
    backend = state.backend
    try:
        if name == DATABASE:
            backend.database.probe(_PATIENCE)
            return _without_tables(backend.database.missing_tables())
        elif role_of(name) == PRIMARY:
            backend.primary.find_shards(_PATIENCE)
            if name == PRIMARY and backend.primary.homeless:
                return f"{backend.primary.homeless} of {SLOTS} slots have no shard"
            key = f"{state.settings.key_prefix}:canary:status"
            backend.store(name).probe(key, "status", timeout=_PATIENCE)
        else:
            backend.store(name).probe_read(timeout=_PATIENCE)
    except LangPontSessionError as error:
        return str(error)
    return None


def _near(state: State, name: str) -> str:
    """Why each request asks a primary; empty: it need not."""
    near = state.backend.store(name).near
    return "NEAR_CACHE is (), or READ_CACHE_BYTES is 0" if near is None else near.why_not()


def _without_tables(missing: list[str]) -> str | None:
    """What is wrong with a database that answers but has no tables: no user can sign in."""
    return f"missing: {', '.join(missing)}; {_MAKE_TABLES}" if missing else None


@langpont.group("sessions")
def sessions() -> None:
    """List and end the sessions of a user. Works while Redis is down."""


@sessions.command("list")
@click.argument("user_id")
@with_appcontext
def list_sessions(user_id: str) -> None:
    """List the sessions in which USER_ID is signed in, oldest first."""
    state = state_of()
    try:
        rows = state.repository.sessions_of(user_id, state.repository.begin(_PATIENCE))
    except StoreError as error:
        raise click.ClickException(f"the sessions cannot be listed: {error}") from None
    for info in map(SessionInfo.of, rows):
        click.echo(
            f"{info.digest}  since {info.created_at:%Y-%m-%d %H:%M:%S}  "
            f"until {info.idle_expires_at:%Y-%m-%d %H:%M:%S} if unused (UTC)"
        )
    click.echo(f"{_counted(len(rows), 'session')} of user {user_id}", err=True)


# A digest may begin with a dash.
@sessions.command("revoke", context_settings={"ignore_unknown_options": True})
@click.argument("digest", required=False)
@click.option("--user", "user_id", help="Instead: all sessions of this user, those being created just now too.")
@with_appcontext
def revoke_sessions(digest: str | None, user_id: str | None) -> None:
    """End the session DIGEST (as `sessions list` prints it) for ever, or with --user all of a user's.

    What does not answer now is told later by this host's monitor, from the journal: run it on a host whose workers run.
    """
    if (digest is None) == (user_id is None):
        raise click.UsageError("name either a DIGEST or a --user")
    if digest is not None and not is_digest(digest):
        raise click.UsageError("a digest has 43 characters, as `flask langpont sessions list` prints them")
    state = state_of()
    repository = state.repository
    scope = repository.begin(_PATIENCE)
    if digest is not None:
        done = Revoked(durable=repository.revoke(digest, scope), sessions=1)
    else:
        done = repository.revoke_user(user_id or "", scope)
    if state.exporting is not None:
        state.exporting.active.update(may_lead=False)  # this process has no thread that would bring it
    where = "the database knows it" if done.durable else "the database does not answer; it waits in this host's journal"
    click.echo(f"{_counted(done.sessions, 'session')} ended: {where}.")


@langpont.command("journal")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_appcontext
def journal(as_json: bool) -> None:
    """Say what waits in this host's journal, since when, for how many sessions. Exit code 1 if it cannot be read."""
    waiting = state_of().backend.journal
    path = waiting.file.path
    if path is None:
        raise click.ClickException(
            "LANGPONT_SESSION_JOURNAL is None: each worker remembers for itself, and only its /healthz tells"
        )
    try:
        summary = waiting.summary()
    except StoreError as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from None
    if as_json:
        click.echo(json.dumps(_summary_as_json(summary)))
    else:
        for line in _summary_lines(summary):
            click.echo(line)
        click.echo(f"{'file':20}{summary.bytes} bytes, {path}")


def _all_waiting(summary: Summary) -> Waiting:
    return together(waiting for kind, waiting in summary.kinds.items() if kind != "copies")


def _summary_as_json(summary: Summary) -> dict[str, Any]:
    return {
        **{kind: _as_json(waiting) for kind, waiting in summary.kinds.items()},
        "waiting": _as_json(_all_waiting(summary)),
        "sessions": {"signed_in": summary.signed_in, "visitors": summary.visitors},
        "bytes": summary.bytes,
    }


def _summary_lines(summary: Summary) -> Iterator[str]:
    for kind, waiting in summary.kinds.items():
        yield f"{kind.replace('_', ' '):20}{waiting.entries}{_age(waiting)}"
    yield f"{'sessions':20}{summary.signed_in} signed in, {_counted(summary.visitors, 'visitor')}"
    yield f"{'all':20}{_sentence(_all_waiting(summary))}"


@langpont.command("purge")
@click.option("--days", default=1, show_default=True, type=click.IntRange(min=1), help="Ended at least so long ago.")
@with_appcontext
def purge(days: int) -> None:
    """Delete rows of sessions whose life in all is over. For a nightly job; safe to run on several hosts."""
    database, deleted, portion = state_of().backend.database, 0, 1000
    try:
        while (now := database.purge(days * 86_400_000, portion)) > 0:
            deleted += now
    except StoreError as error:
        raise click.ClickException(f"{error}; rows deleted before that: {deleted}") from None
    click.echo(f"{_counted(deleted, 'row')} deleted.")


@langpont.command("alert-test")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Only this one; else each, to its own topic.")
@with_appcontext
def alert_test(severity: str | None) -> None:
    """Send a marked test message to the topics of ALERT_TOPICS and say what became of each. Exit code 1 on failure."""
    alerts = state_of().alerts
    if alerts is None:
        raise click.ClickException("LANGPONT_SESSION_ALERT_TOPICS names no topic; see docs/alerts.md")
    failed = False
    for name in [severity] if severity else SEVERITIES:
        sent = alerts.outgoing.send_test(name)
        failed = failed or sent.problem is not None
        click.echo(f"{name:10} {sent.topic}: {sent.problem or 'sent'}")
    if failed:
        raise SystemExit(1)


@langpont.command("explain")
@click.argument("key", required=False)
@with_appcontext
def explain(key: str | None) -> None:
    """Print the decision table as configured: what each feature gets at each level, and its keys. With KEY: what
    happens to that session key, and the line of configuration that changes it."""
    settings = state_of().settings
    for line in table_lines(settings) if key is None else key_lines(settings, key):
        click.echo(line)
