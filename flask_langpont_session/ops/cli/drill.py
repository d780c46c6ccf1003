"""``flask langpont drill``: an outage on purpose, of a copy of the application in this process."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ...build import State
from ...config.checks import PREFIX
from ...config.settings import ALONE
from ...exceptions import ConfigError
from ...extension import arrange, state_of
from ...policy.errors import StoreError
from ...policy.levels import LEVELS
from ..diagnosis.read_host import features_of_workers
from ..drill.faults import IN_WORDS, Fault, Faults, Undrillable
from ..drill.run import Amounts, Drill, NotReady, NotWell, Outcome, Parts, Track
from .signals import interrupting, undisturbed
from .words import ALL_FEATURES, in_ms

_NEEDS_YES = (
    "this application is neither in debug nor under test, so its stores may be those of users. A drill makes, changes "
    "and deletes sessions of a user of its own there, and faults are in this process only: say --yes if you want that"
)


class NoDrill(click.ClickException):
    """No drill was made."""

    exit_code = 2


@click.command("drill")
@click.argument("fault", type=click.Choice([*map(str, Fault), "all"]))
@click.option("--for", "seconds", default=30.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds.")
@click.option("--yes", is_flag=True, help="Also where the application is neither in debug nor under test.")
@ALL_FEATURES
@with_appcontext
def drill(fault: str, seconds: float, yes: bool, all_features: bool) -> None:
    """Let this process lose a store, and say what each feature of the table gets before, during and after: from where,
    how quickly, and whether the table promises that. While workers run on this host, only features of which they have
    met a key.

    Only the connections of this process fail; the site goes on as before. The sessions are of a user of the drill's own
    and are deleted at the end, also by Ctrl-C and SIGTERM. Exit code 0 if each feature got what is promised, 1 if not,
    2 if there was no drill, 130 if it was interrupted.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if not (yes or app.debug or app.testing):
        raise NoDrill(_NEEDS_YES)
    is_well, used = True, set[str]() if all_features else features_of_workers(state_of().backend.journal.file.path)
    with interrupting(), _copy_of(app) as state, _drill_of(app, state) as made:
        for each in Fault if fault == "all" else (Fault(fault),):
            is_well = _one(made, each, seconds, used) and is_well
    if not is_well:
        raise SystemExit(1)


@contextmanager
def _copy_of(app: Flask) -> Iterator[State]:
    """Yield the application's parts, made anew with a journal of their own, which no worker reads."""
    with tempfile.TemporaryDirectory(prefix="langpont-drill-") as folder:
        # The drill's user is signed in several times.
        own = {"journal": str(Path(folder) / "journal.sqlite3"), "max_sessions_per_user": None}
        app.config.update({f"{PREFIX}{name.upper()}": value for name, value in {**ALONE, **own}.items()})
        try:
            state = arrange(app)
        except ConfigError as error:
            raise NoDrill(str(error)) from None
        try:
            yield state
        finally:
            state.close()


@contextmanager
def _drill_of(app: Flask, state: State) -> Iterator[Drill]:
    faults = Faults(state.backend)
    parts = Parts(app, state.backend, state.repository, state.monitor)
    try:
        state.backend.primary.find_shards(2.0)
        with faults.laid():
            made = Drill(parts, faults, undisturbed)
            try:
                yield made
            except KeyboardInterrupt:
                click.echo("Interrupted: the sessions of the drill are deleted.", err=True)
                raise SystemExit(130) from None
            finally:
                _clean_up(made)
    except (Undrillable, NotReady, StoreError) as error:
        raise NoDrill(str(error)) from None
    except NotWell as error:
        raise click.ClickException(str(error)) from None


def _clean_up(made: Drill) -> None:
    try:
        made.clean_up()
    except (NotWell, StoreError) as error:
        click.echo(
            f"Sessions of user {made.user} are left, because {error}. They end by themselves; to end them now: "
            f"`flask langpont sessions revoke --user {made.user}`.",
            err=True,
        )


def _one(made: Drill, fault: Fault, seconds: float, used: Container[str]) -> bool:
    click.echo(f"{fault}: in this process {IN_WORDS[fault]}, for {seconds:g} s")
    outcome = made.run(fault, seconds, used)
    for line in lines_of(outcome):
        click.echo(line)
    return outcome.is_as_promised


def lines_of(outcome: Outcome) -> Iterator[str]:
    """Yield the result of one drill, for people."""
    noticed = f"noticed after {outcome.noticed:.2f} s (slowest request {in_ms(outcome.slowest)})"
    yield f"  level {outcome.level} {LEVELS[outcome.level]}, {noticed}; all well {outcome.over:.2f} s after its end"
    for name, (said, is_ok) in outcome.signing.items():
        yield f"  {'ok ' if is_ok else 'BAD'} {name:22}{said}"
    for track in outcome.tracks:
        yield f"  {'BAD' if track.problem else 'ok '} {track.feature.name:22}{track.promised.behaviour}"
        yield from (f"      {line}" for line in _told(track))
        if track.problem:
            yield f"      {track.problem}"
    bad = sum(track.problem is not None for track in outcome.tracks) + sum(not ok for _, ok in outcome.signing.values())
    yield f"  {f'{bad} not as promised' if bad else 'all as promised'}"


def _told(track: Track) -> Iterator[str]:
    written = f", written to {_amounts(track.written)}" if track.written.seconds else ""
    yield f"before: {_amounts(track.before)}"
    yield f"during: {_amounts(track.shown)}{written}"
    yield f"after: {_amounts(track.after)}"


def _amounts(amounts: Amounts) -> str:
    """Return from where or where to, the median, and the slowest where there were several."""
    if not amounts.seconds:
        return "nothing"
    slowest = f" (at most {in_ms(max(amounts.seconds))})" if len(amounts.seconds) > 1 else ""
    return f"{' or '.join(amounts.places)} {in_ms(statistics.median(amounts.seconds))}{slowest}"
