"""Apply each mutant to a copy of the tree, run tests there, and print which test kills it.

``python -m tools.mutants --layer protocol --only NAME`` runs one mutant, as far as the schedules of the protocol.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .run import LAYERS, Copy, Outcome, try_mutant
from .table import ROOT, StaleMutant, read_mutants


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants that are asked for. Return the exit status: 1 if one of them survives, 2 if one is stale."""
    options = _parser().parse_args(arguments)
    try:
        mutants = [mutant for mutant in read_mutants() if not options.only or mutant.name in options.only]
        for mutant in mutants:
            mutant.applied(ROOT)
    except StaleMutant as error:
        print(error, file=sys.stderr)
        return 2
    if not mutants:
        print(f"no mutant has the name {' or '.join(options.only)}", file=sys.stderr)
        return 2
    layers = LAYERS[: LAYERS.index(options.layer) + 1]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder) / "tree")
        for mutant in mutants:
            outcome = try_mutant(copy, mutant, layers, is_quick=options.quick)
            print(outcome, flush=True)
            outcomes.append(outcome)
    print(_summary(outcomes))
    return 1 if any(outcome.layer is None for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="run this mutant; may be given several times")
    parser.add_argument("--layer", choices=LAYERS, default="unit", help="the last layer that is tried (default: unit)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="do not run all unit tests, only those of the list and of the module's folder",
    )
    return parser


def _summary(outcomes: Sequence[Outcome]) -> str:
    """Return how many mutants died, in which layer, and after how many seconds."""
    killed = [outcome for outcome in outcomes if outcome.layer]
    by_layer = Counter(outcome.layer for outcome in killed)
    lines = [f"{len(outcomes)} mutants, {len(killed)} killed: {', '.join(f'{by_layer[of]} {of}' for of in LAYERS)}"]
    if killed:
        lines.append(f"median time to a kill: {median(outcome.seconds for outcome in killed):.1f} s")
    if survivors := [outcome.mutant.name for outcome in outcomes if not outcome.layer]:
        lines.append(f"alive: {', '.join(survivors)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
