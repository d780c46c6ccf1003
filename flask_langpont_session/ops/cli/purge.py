"""``flask langpont purge``: the nightly clearing of the table of sessions, a portion at a time."""

from __future__ import annotations

import time

import click
from flask.cli import with_appcontext

from ...extension import state_of
from ...policy.causes import LACKS_RIGHT, cause_of
from ...policy.errors import StoreError
from .signals import interruptions
from .words import counted

_DAY_MS = 86_400_000
_PORTION = 1000
"""Rows of a transaction: what is interrupted loses no more work than that."""

_PAUSE = 10.0
"""Seconds between two lines about the progress."""


@click.command("purge")
@click.option("--days", default=1, show_default=True, type=click.IntRange(min=1), help="Ended at least so long ago.")
@with_appcontext
def purge(days: int) -> None:
    """Delete rows of sessions whose life in all is over. For a nightly job; safe to run on several hosts.

    It may be interrupted at any time: by Ctrl-C or SIGTERM it ends after the portion of rows that it is at, with exit
    code 130 or 143. The next run begins with what is left. Exit code 1 if the database does not answer.
    """
    database, grace_ms, deleted = state_of().backend.database, days * _DAY_MS, 0
    next_at = time.monotonic() + _PAUSE
    try:
        with interruptions() as interrupted_by:
            while not interrupted_by and (now := database.upkeep.purge(grace_ms, _PORTION)) > 0:
                deleted += now
                if time.monotonic() >= next_at:
                    click.echo(f"{deleted} rows deleted so far", err=True)
                    next_at = time.monotonic() + _PAUSE
    except StoreError as error:
        is_right = cause_of(error).word == LACKS_RIGHT
        cure = "; purge alone needs DELETE: GRANT DELETE ON langpont_sessions TO its user" if is_right else ""
        raise click.ClickException(f"{error}; rows deleted before that: {deleted}{cure}") from None
    if interrupted_by:
        click.echo(f"Interrupted: {counted(deleted, 'row')} deleted; the next run goes on with the others.", err=True)
        raise SystemExit(128 + interrupted_by[0])
    click.echo(f"{counted(deleted, 'row')} deleted.")
