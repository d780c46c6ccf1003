"""``flask langpont sessions``: the commands about one session, or one user's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from ...build import State
from ...events import EndedBy
from ...extension import state_of
from ...policy.devices import DescribedRow
from ...policy.errors import StoreError
from ...policy.ids import is_digest
from ...policy.plans import Revoked
from ...policy.users import authenticated_at
from ...session.values import SessionInfo
from ..diagnosis.findings import Unknown
from ..diagnosis.one_session import Ambiguous, InRedis, OneSession, SessionState, find, read_session
from ..diagnosis.read_redis import PATIENCE
from .words import age_of, counted, fitting, lasting, waiting_as_json


@click.group("sessions")
def sessions() -> None:
    """List and end the sessions of a user. Works while Redis is down."""


@sessions.command("list", short_help="List the sessions of a user, or of all users")
@click.argument("user_id", required=False)
@click.option("--active-within", type=click.IntRange(1), metavar="MINUTES", help="Only those in use since then.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Lines at most, of all users.")
@click.option("--after", default="", metavar="DIGEST", help="Go on behind this line.")
@with_appcontext
def list_sessions(user_id: str | None, active_within: int | None, limit: int, after: str) -> None:
    """List the sessions in which USER_ID is signed in, oldest first; without USER_ID those of all users, by digest."""
    devices = state_of().repository.devices
    since = None if active_within is None else datetime.now(UTC) - timedelta(minutes=active_within)
    since_ms = 0 if since is None else int(since.timestamp() * 1000)
    try:
        if user_id is None:
            rows, whole = devices.all(since_ms, after, limit), devices.count(since_ms)
        else:
            rows = devices.of_user(user_id, None, state_of().repository.begin(PATIENCE))
    except StoreError as error:
        raise click.ClickException(f"the sessions cannot be listed: {error}") from None
    found = [one for one in map(SessionInfo.of, rows) if since is None or one.last_seen_at >= since]
    if found:
        click.echo(f"{'digest':43}  {'since (UTC)':19}  until, if unused", err=True)
    for info in found:
        line = f"{info.digest}  {info.created_at:%Y-%m-%d %H:%M:%S}  {info.idle_expires_at:%Y-%m-%d %H:%M:%S}"
        user = f"  user {info.user_id}" if user_id is None else ""
        click.echo(fitting(f"{line}{user}{f'  {info.label}' if info.label else ''}"))
    of = f"user {user_id}" if user_id is not None else f"{whole:,} in all"
    click.echo(f"{counted(len(found), 'session')} of {of}", err=True)


# A digest may begin with a dash.
@sessions.command("revoke", short_help="End a session, or a user's", context_settings={"ignore_unknown_options": True})
@click.argument("digest", required=False)
@click.option("--user", "user_id", help="Instead: all sessions of this user, those being created just now too.")
@with_appcontext
def revoke_sessions(digest: str | None, user_id: str | None) -> None:
    """End the session DIGEST (as `sessions list` prints it) for ever, or with --user all of a user's.

    What does not answer now is told later by this host's monitor, from the journal: run it on a host whose workers run.
    Exit code 1 if no store has anything of DIGEST.
    """
    if (digest is None) == (user_id is None):
        raise click.UsageError("name either a DIGEST or a --user")
    if digest is not None and not is_digest(digest):
        raise click.UsageError("a digest has 43 characters, as `flask langpont sessions list` prints them")
    state = state_of()
    repository = state.repository
    before = _states_of(state, digest) if digest else []
    scope = repository.begin(PATIENCE)
    if digest is not None:
        living = sum(one in _LIVING for one in before)
        done = Revoked(durable=repository.revocations.revoke(digest, scope, EndedBy.OPERATOR), sessions=living)
    else:
        done = repository.revocations.revoke_user(user_id or "", scope, EndedBy.OPERATOR)
    if state.exporting is not None:
        state.exporting.active.update(may_lead=False)  # this process has no thread that would bring it
    where = "the database knows it" if done.durable else "the database does not answer; it waits in this host's journal"
    if "unknown" in before:
        click.echo(f"Not every store answers: whether there was such a session is not known. It is over now: {where}.")
    elif before == ["not_found"]:
        raise click.ClickException("no store has anything of it: check the digest. If it turns up, it is over")
    else:
        were_over = " (it was over before)" if before and not done.sessions else ""
        click.echo(f"{counted(done.sessions, 'session')} ended{were_over}: {where}.")


_LIVING = ("valid", "visitor", "unconfirmed")


def _states_of(state: State, digest: str) -> list[str]:
    """Return the states of the session and of the sessions under whose digests it goes on: they end with it."""
    found, following = list[str](), digest
    while following:
        one = read_session(state.backend, following, ())
        found.append(one.state)
        following = getattr(one.described, "successor", None) or ""
    return found


# A digest may begin with a dash.
@sessions.command("show", short_help="Say what stores know of one", context_settings={"ignore_unknown_options": True})
@click.argument("digest")
@click.option("--json", "is_json", is_flag=True, help="For programs.")
@with_appcontext
def show_session(digest: str, is_json: bool) -> None:
    """Say what every store knows of the session DIGEST, and what waits for it on this host: its state and times, and
    how much there is of it, but no value. Of a signed-in session the beginning of its digest will do, as logs have it.
    Changes nothing. Exit code 1 if there is no such session, or several begin so."""
    state = state_of()
    try:
        whole = find(state.backend, digest)
    except Ambiguous as error:
        raise click.ClickException(str(error)) from None
    if whole is None:
        raise click.ClickException(
            f"no signed-in session begins with {digest!r}, nor does one that waits on this host; "
            "a visitor's is found by its whole digest only"
        )
    settings = state.settings
    lives = settings.life, settings.permanent_life(current_app.permanent_session_lifetime)
    found = read_session(state.backend, whole, lives)
    told = _as_object(found)
    if is_json:
        click.echo(json.dumps(told))
    else:
        for name, text in _lines(told):
            click.echo(f"{name:20}{text}".rstrip())
    if found.state is SessionState.NOT_FOUND:
        raise SystemExit(1)


# -- one session, for programs -----------------------------------------------------------------------------------------


def _as_object(found: OneSession) -> dict[str, Any]:
    at, within_ms = found.last_seen or (0, None)
    return {
        "digest": found.digest,
        "state": str(found.state),
        "idle_expires_at": _moment(found.idle_expires_at),
        "last_seen_at": _moment(at),
        "last_seen_within_seconds": within_ms and within_ms / 1000,
        "database": _or_error(found.described, _row_as_object),
        "redis": _or_error(found.redis, _redis_as_object),
        "journal": _or_error(
            found.journal, lambda kinds: {kind: waiting_as_json(waiting) for kind, waiting in kinds.items()}
        ),
    }


def _or_error(found: Any | Unknown | None, as_object: Callable[[Any], dict[str, Any]]) -> dict[str, Any] | None:
    if isinstance(found, Unknown):
        return {"error": found.why}
    return None if found is None else as_object(found)


def _row_as_object(described: DescribedRow) -> dict[str, Any]:
    row = described.row
    return {
        "state": str(row.state),
        "user": row.user_id,
        "version": row.version,
        "created_at": _moment(row.created_at),
        "authenticated_at": _moment(authenticated_at(row) or 0),
        "updated_at": _moment(described.updated_at),
        "idle_expires_at": _moment(row.idle_expires_at),
        "absolute_expires_at": _moment(row.absolute_expires_at),
        "successor": described.successor,
        "ended_by": described.ended_by,
    }


def _redis_as_object(found: InRedis) -> dict[str, Any]:
    auth = found.auth
    return {
        "server": found.server,
        "tombstone": found.has_tombstone,
        "version": auth and auth.version,
        "confirmed_at": auth and _moment(auth.stamp),
        "categories": found.categories,
        "shadow": found.shadow,
    }


def _moment(ms: int) -> str | None:
    """Return a moment for programs; None: it is not known."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds") if ms else None


# -- one session, for people -------------------------------------------------------------------------------------------

_STATES = {
    "visitor": "a visitor's: it has no user",
    "dead": "ended for ever",
    "idle_expired": "over: it was not used for too long",
    "expired": "over: its life in all is used up",
    "unconfirmed": "Redis has it; what the database has, which alone decides, is not known",
    "unknown": "not known: not every store answers",
    "not_found": "no store has anything of it",
}

Lines = Iterator[tuple[str, str]]
"""Lines: the subject of each, and its text."""


def _lines(told: Mapping[str, Any]) -> Lines:
    """Yield in words what programs are told."""
    yield "digest", told["digest"]
    yield "state", _STATES.get(told["state"], told["state"])
    for name, lines in (("database", _row_lines), ("redis", _redis_lines), ("journal", _journal_lines)):
        if "error" in (told[name] or {}):
            yield name, told[name]["error"]
        else:
            yield from lines(told)


def _row_lines(told: Mapping[str, Any]) -> Lines:
    if (row := told["database"]) is None:
        yield "database", "it has no row"
        return
    yield "user", "none" if row["user"] is None else row["user"]
    yield "created", _clock(row["created_at"])
    yield "authenticated", _clock(row["authenticated_at"])
    if told["last_seen_at"]:
        within = told["last_seen_within_seconds"]
        yield "last seen", f"{_clock(told['last_seen_at'])}, or {f'up to {lasting(within)} ' if within else ''}later"
    yield "expires", f"{_clock(told['idle_expires_at'])} if unused; {_clock(row['absolute_expires_at'])} in any case"
    yield "database", f"version {row['version']}, changed {_clock(row['updated_at'])}"
    yield "successor", row["successor"] or "none"
    if row["ended_by"] is not None:
        yield "ended by", row["ended_by"]


def _redis_lines(told: Mapping[str, Any]) -> Lines:
    redis = told["redis"]
    if redis["version"] is None:
        what = "no record of a sign-in" if redis["categories"] or redis["shadow"] else "nothing"
    elif redis["tombstone"]:
        what = f"a tombstone; the database {'knew' if redis['version'] else 'had yet to hear'} of it"
    else:
        what = f"version {redis['version']}, confirmed by the database {_clock(redis['confirmed_at'])}"
    yield "redis", f"{redis['server']}: {what}"
    for part, end in (("categories", ""), ("shadow", ", of its anonymous shadow")):
        for name, stored in redis[part].items():
            left = stored["ttl_seconds"]
            is_kept = "without an end" if left is None else f"{lasting(left)} left"
            yield f"  {name}", f"{counted(stored['keys'], 'key')}, {counted(stored['bytes'], 'byte')}, {is_kept}{end}"


def _journal_lines(told: Mapping[str, Any]) -> Lines:
    kinds = {kind: waiting for kind, waiting in (told["journal"] or {}).items() if waiting["entries"]}
    yield "journal", "" if kinds else "this host has nothing of it"
    for kind, waiting in kinds.items():
        yield f"  {kind.replace('_', ' ')}", f"{waiting['entries']}{age_of(waiting)}"


def _clock(moment: str | None) -> str:
    return f"{moment[:19].replace('T', ' ')} UTC" if moment else "not known"
