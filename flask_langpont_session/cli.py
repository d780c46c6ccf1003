"""``flask langpont …``: the door that the entry point names.

The commands are in ``ops/cli/``, and are imported when one of them is asked for: workers have the group as well, and
pay for none of it.
"""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from .extension import NotSetUp


class _Commands(AppGroup):
    """The group of commands. An application that is not set up is told in a line, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        _load()
        from .ops.cli.commands import IN_SHORT

        return list(IN_SHORT)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        _load()
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotSetUp as error:
            raise click.ClickException(str(error)) from None


def _load() -> None:
    from .ops.cli import commands  # noqa: F401  # adds them to the group


langpont = _Commands("langpont", help="Sessions by category: tables, stores, decisions.")
