"""Lists that are appended to over two hosts while everything fails: nothing acknowledged is destroyed, or lost unsaid.

Part of ``make soak`` alone, because of its length; ``test_appends.py`` is a short run. docs/outages.md has figures.
20 s by default; ``LANGPONT_SOAK_SECONDS`` and ``LANGPONT_SOAK_SEED`` count here, too.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from tests.support.site.run import HEALING, run

SECONDS = float(os.environ.get("LANGPONT_SOAK_SECONDS", "20"))


@pytest.mark.timeout(SECONDS * 2 + HEALING + 240)
def test_every_acknowledged_append_is_there_at_the_end_or_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I16–I20: as ``python -m benchmarks.appends`` does it."""
    seed = int(os.environ.get("LANGPONT_SOAK_SEED", secrets.randbelow(1_000_000)))
    diary: list[str] = []
    found = run(tmp_path, seconds=SECONDS, seed=seed, say=diary.append)
    with capsys.disabled():
        sys.stdout.write(f"\nappends: {SECONDS:g} s, LANGPONT_SOAK_SEED={seed}\n{found.table()}\n")
    assert not found.wrong, "\n".join([found.table(), *diary])
    assert found.acknowledged["append"] > 2 * SECONDS, "hardly anything was acknowledged: that proves nothing"
    assert {0, 2} <= found.levels.keys()
    lanes = {name.split()[0] for name, number in found.faults.items() if number}
    assert lanes >= {"redis", "server", "database", "worker"}, found.faults
