"""``flask langpont footprint``: names all that a removal of the package has to delete."""

from __future__ import annotations

from collections.abc import Iterator
from glob import escape
from pathlib import Path

import click
from flask.cli import with_appcontext

from ...extension import state_of
from ...stores.sql.dialects import file_of, place_of
from ...stores.sql.tables import SESSIONS, USERS


@click.command("footprint")
@with_appcontext
def footprint() -> None:
    """List what the package keeps: tables, keys of Redis, files of this host. Asks no store and deletes nothing."""
    backend = state_of().backend
    url = backend.database.engine.url
    for table in (SESSIONS, USERS):
        click.echo(f"{'table':8}{table.name} ({place_of(url)})")
    click.echo(f"{'keys':8}{backend.settings.key_prefix}:* (of LANGPONT_SESSION_REDIS_URL)")
    for path in (file_of(url), backend.journal.file.path):
        for file in _files_beside(path):
            click.echo(f"{'file':8}{file}")


def _files_beside(path: str | Path | None) -> Iterator[Path]:
    """Yield the files that are there of those whose names begin with a file's name."""
    if path is not None:
        place = Path(path).absolute()
        yield from sorted(place.parent.glob(f"{escape(place.name)}*"))
