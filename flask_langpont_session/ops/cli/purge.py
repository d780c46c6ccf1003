"""``flask langpont purge``: the nightly clearing of the table of sessions, a portion at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
from flask.cli import with_appcontext

from ...extension import state_of
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
    tell = Lines(lambda line: click.echo(line, err=True))
    try:
        with interruptions() as interrupted_by:
            while not interrupted_by and (now := database.upkeep.purge(grace_ms, _PORTION)) > 0:
                deleted += now
                tell(now)
    except StoreError as error:
        raise click.ClickException(f"{error}; rows deleted before that: {deleted}") from None
    if interrupted_by:
        click.echo(f"Interrupted: {counted(deleted, 'row')} deleted; the next run goes on with the others.", err=True)
        raise SystemExit(128 + interrupted_by[0])
    click.echo(f"{counted(deleted, 'row')} deleted.")


class Lines:
    """Says now and then how many rows were deleted.

    :param clock: monotonic seconds.
    """

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._next_at = clock() + _PAUSE
        self._done = 0

    def __call__(self, more: int) -> None:
        """Note that more rows were deleted, and say so if it is time."""
        self._done += more
        if self._clock() >= self._next_at:
            self._say(f"{self._done} rows deleted so far")
            self._next_at = self._clock() + _PAUSE
