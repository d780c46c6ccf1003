"""``python -m benchmarks.blind``, as far as it needs no servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import blind
from benchmarks.blind_faults import FAULTS, PLACEBOS


def test_a_seed_chooses_and_the_table_says_when_each_reader_named_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seed draws the same; each fault comes once before any comes again. That the causes of all faults are in
    the package's table is seen when they are imported."""
    drawn = blind.chosen(7, len(FAULTS), 2, ())
    assert [fault.name for fault in drawn] == [fault.name for fault in blind.chosen(7, len(FAULTS), 2, ())]
    assert {fault.name for fault in drawn} >= {fault.name for fault in FAULTS}
    assert sum(fault in PLACEBOS for fault in drawn) == 2
    said = {"status": [(1.0, "all is well"), (2.5, "primary is busy")], "page": [(1.0, "all is well")]}
    (tmp_path / "1.said.json").write_text(json.dumps(said))
    (tmp_path / "1.was.json").write_text(json.dumps({"fault": "a script of Redis does not end"}))
    monkeypatch.setattr(sys, "argv", ["blind", "--table", str(tmp_path)])
    assert blind.main() == 0
    told = capsys.readouterr().out
    assert "status   2.5 s" in told
    assert "page         -" in told
