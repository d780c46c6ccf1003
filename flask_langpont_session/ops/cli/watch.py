"""``flask langpont watch``: what the site is like, again and again.

On a terminal each look takes the place of the one before. Elsewhere each is a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import with_appcontext

from ...extension import state_of
from ...policy.levels import LEVELS
from ..diagnosis.findings import Unknown
from ..diagnosis.health_page import page_at
from ..diagnosis.watching import Look, Watcher
from .signals import interrupting
from .words import counted, in_ms, waiting_as_json, what_waits


@click.command("watch")
@click.option("--url", "urls", multiple=True, help="Of the site, or of its health page; may be given several times.")
@click.option("--interval", default=2.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds.")
@click.option("--once", is_flag=True, help="One look; exit code 1 if not all is well.")
@click.option("--json", "as_json", is_flag=True, help="For programs: an object per line.")
@with_appcontext
def watch(urls: Sequence[str], interval: float, once: bool, as_json: bool) -> None:
    """Show the level, what each store answers and how quickly, and what waits in this host's journal.

    What the site's workers say themselves is shown with --url: the level is theirs then, one worker's at each look.
    Without, it is what a worker would find now. Ctrl-C and SIGTERM end it, with exit code 0.
    """
    state = state_of()
    try:
        pages = [page_at(url, state.settings.health_url_prefix) for url in urls]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    watcher = Watcher(state.backend, pages)
    show = _object if as_json else _screen if sys.stdout.isatty() and not once else _line
    try:
        with interrupting():
            while True:
                with state.monitor.paused():  # where this process has one: the database is probed by one at a time
                    look = watcher.look()
                show(look)
                if once:
                    break
                time.sleep(interval)  # a command of its own process; a signal ends it
    except KeyboardInterrupt:
        click.echo(err=True)  # behind the ^C of the terminal
        return
    if once and not look.is_well:
        raise SystemExit(1)


def _line(look: Look) -> None:
    click.echo(f"{_clock(look.at)}  {'  '.join(f'{name} {text}' for name, text, _ in _parts(look))}")


def _screen(look: Look) -> None:
    click.clear()
    click.echo(f"{_clock(look.at)}  until Ctrl-C")
    for name, text, is_bad in _parts(look):
        click.secho(f"{name:10} {text}", fg="red" if is_bad else None)


Part = tuple[str, str, bool]
"""The subject of a part of the line, its text, and whether it is bad news."""


def _parts(look: Look) -> Iterator[Part]:
    whose = "" if look.reports else ", as found from here"
    refused = " for data, sign-ins are refused (503)" if look.refuses_sign_ins else ""
    yield "level", f"{look.level} {LEVELS[look.level]}{refused}{whose}", bool(look.level > 0 or refused)
    for page in look.pages:
        said, took = page.problem, in_ms(page.took)
        since = str(page.report.get("since"))[:19].replace("T", " ")
        said = said or f"{took}, level {page.report['level']} since {since}"
        yield page.url, said, page.problem is not None
    for name, answer in look.stores.items():
        unused = "".join(f", not used to {way}" for way in look.unused(name))
        said = answer.problem or (f"ok {in_ms(answer.took)}" if answer.took is not None else "ok")
        yield name, f"{said}{unused}", bool(answer.problem or unused)
    yield "journal", _journal(look), isinstance(look.journal, Unknown)
    if look.announced:
        yield "announced", f"{', '.join(look.announced)} lost, by a worker of this host", True


def _journal(look: Look) -> str:
    used = "" if look.processes is None else f", used by {counted(look.processes, 'process', 'processes')}"
    if look.journal is None:
        return "no file on this host"
    if isinstance(look.journal, Unknown):
        return look.journal.why
    return f"{what_waits(waiting_as_json(look.journal))}{used}"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def _object(look: Look) -> None:
    journal = look.journal
    told: dict[str, Any] = {
        "at": datetime.fromtimestamp(look.at, UTC).isoformat(timespec="milliseconds"),
        "level": look.level,
        "level_name": LEVELS[look.level],
        "level_by": "pages" if look.reports else "questions",
        "well": look.is_well,
        "pages": [
            {"url": page.url, "ms": _rounded(page.took), "problem": page.problem, "report": page.report or None}
            for page in look.pages
        ],
        "stores": {
            name: {"ms": _rounded(answer.took), "problem": answer.problem, "unused": look.unused(name)}
            for name, answer in look.stores.items()
        },
        "journal": {"error": journal.why} if isinstance(journal, Unknown) else journal and waiting_as_json(journal),
        "processes": look.processes,
        "announced": list(look.announced),
    }
    click.echo(json.dumps(told))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
