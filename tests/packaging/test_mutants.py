"""The list of mutants, ``tools/mutants``: it is up to date, and its script tells the dead from the living."""

from __future__ import annotations

import ast
from pathlib import Path

from tools.mutants.run import LAYERS, Copy, try_mutant
from tools.mutants.table import ROOT, Mutant, StaleMutant, read_mutants


def test_every_mutant_changes_one_place_of_the_package() -> None:
    """All that were moved or rewritten are named at once."""
    mutants, stale = read_mutants(), []
    assert len({mutant.name for mutant in mutants}) == len(mutants) >= 120
    for mutant in mutants:
        try:
            ast.parse(mutant.applied(ROOT), mutant.name)
        except StaleMutant as error:
            stale.append(str(error))
        assert mutant.layer in LAYERS, mutant.name
        missing = [test for test in mutant.named_tests(ROOT) if not (ROOT / test.partition("::")[0]).exists()]
        stale += [f"mutant {mutant.name}: there are no tests {missing}"] if missing else []
    assert not stale, "\n".join(stale)


def test_a_mutant_that_a_test_notices_dies(tmp_path: Path) -> None:
    copy, before = Copy(tmp_path / "tree"), "if (module, name) in _SAFE else Unknown"
    outcomes = [
        try_mutant(copy, Mutant(name, "adoption/old_records.py", before, after, ""), ["unit"], is_quick=True)
        for name, after in (("dead", ""), ("alive", f"{before}  # the same"))
    ]
    assert [outcome.layer for outcome in outcomes] == ["unit", None]
    assert "test_old_records.py" in outcomes[0].killer
    assert before in (copy.root / "flask_langpont_session/adoption/old_records.py").read_text()
