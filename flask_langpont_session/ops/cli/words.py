"""Words that several commands share."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import click

from ...stores.host.journal import Waiting

COLUMNS = 100
"""Characters of a terminal's line that a table may take."""


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number of things in words.

    :param things: of several; else there is an s behind `thing`.
    """
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


ALL_FEATURES = click.option("--all-features", is_flag=True, help="Also those of which no worker here has met a key.")


def folded(row: str) -> Iterator[str]:
    """Yield a row as rows that fit a terminal: what is too long behind its label, or in a table's last cell, stands
    below that."""
    if len(row) <= COLUMNS:
        yield row
        return
    if not row.startswith("|"):
        label = re.match(r"\s*(?:\S+ )+? +", row)
        below = " " * (label.end() if label else 4)
        yield from textwrap.wrap(row, COLUMNS, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
        return
    cells = row.strip("| ").split(" | ")
    room = COLUMNS - len(" | ".join(["", *cells[:-1], "", ""]))
    for text in textwrap.wrap(cells[-1].strip("`"), room, break_long_words=False, break_on_hyphens=False):
        yield f"| {' | '.join([*cells[:-1], f'`{text}`'])} |"
        cells[:-1] = [" " * len(cell) for cell in cells[:-1]]


def fitting(row: str) -> str:
    """Return a row for standard output: folded on a terminal, whole for another program."""
    return "\n".join(folded(row)) if sys.stdout.isatty() else row


def lasting(seconds: float) -> str:
    """Return a duration, for people."""
    return str(timedelta(seconds=int(seconds)))


def in_ms(seconds: float) -> str:
    """Return a short duration, for people."""
    return f"{seconds * 1000:.1f} ms"


def waiting_as_json(waiting: Waiting) -> dict[str, Any]:
    """Return how much waits, and for how long, for programs."""
    return {"entries": waiting.entries, "oldest_seconds": waiting.oldest_seconds(time.time())}


def age_of(told: Mapping[str, Any]) -> str:
    """Return the end of a sentence about what waits, as programs are told: for how long; empty: that is not known."""
    seconds = told["oldest_seconds"]
    return "" if seconds is None else f", the oldest for {lasting(seconds)}"


def what_waits(told: Mapping[str, Any]) -> str:
    """Return how much waits, as programs are told, and for how long, for people."""
    number = told["entries"]
    return f"{number} {'waits' if number == 1 else 'wait'}{age_of(told)}" if number else "nothing waits"
