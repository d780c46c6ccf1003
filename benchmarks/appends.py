"""``python -m benchmarks.appends``: list-append over several hosts while everything fails. Status 1: data was lost."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.site.faults import LANES, LOSS
from tests.support.site.run import run


def main() -> int:
    """Print the verdict."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.appends", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="repeat what another run has drawn")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of each host")
    parser.add_argument("--only", metavar="LANES", help=f"what fails, of {','.join(LANES)}; '': nothing, patiently")
    parser.add_argument("--replica", action="store_true", help="Redis has one")
    parser.add_argument(
        "--losses", action="store_true", help="Redis is emptied now and then, and its replica takes its place"
    )
    parser.add_argument("--verbose", action="store_true", help="every fault, and how often what was answered how")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    options = parser.parse_args()
    lanes = LANES if options.only is None else [lane for lane in options.only.split(",") if lane]
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"{options.seconds:g} s, --seed {seed}", file=sys.stderr, flush=True)
    with TemporaryDirectory(prefix="appends-") as folder:
        found = run(
            Path(folder),
            seconds=options.seconds,
            seed=seed,
            hosts=options.hosts,
            workers=options.workers,
            lanes=[*lanes, LOSS] if options.losses else lanes,
            replica=options.replica,
            say=(lambda text: print(text, file=sys.stderr)) if options.verbose else lambda text: None,
        )
    print(found.table())
    if options.json:
        options.json.write_text(json.dumps(found.figures(), indent=2))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
