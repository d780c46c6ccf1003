"""The benchmarks run: every contestant answers every page."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import scale_figures
from benchmarks.scale import QUICK
from benchmarks.scenarios import SCENARIOS
from tests.support.programs import output_of


def test_every_contestant_takes_part_in_every_scenario_of_sqlite() -> None:
    """With as few requests as there can be; what they say means nothing."""
    names = [scenario.name for scenario in SCENARIOS if scenario.database == "sqlite"]
    chosen = [part for name in names for part in ("--only", name)]
    command = [sys.executable, "-m", "benchmarks", "--quick", *chosen]
    output = output_of(command, 200)
    assert "all contestants answered the same" in output
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in output.splitlines() if line.count("|") > 2}
    for contestant in (
        "Flask-Session, defaults",
        "… the same with plain scripts: no protocol",
        "**flask_langpont_session**",
    ):
        assert len(rows[contestant]) == len(names)
    assert "–" not in "".join(rows["**flask_langpont_session**"])


def test_the_server_tells_every_connection_that_holds_a_session() -> None:
    """Else the program that measures what this costs ends with an error."""
    command = [sys.executable, "-m", "benchmarks.write_cost", "--quick"]
    output = output_of(command, 100)
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["0", "1", "16", "256"]
    assert all(float(row[1]) > 0 for row in rows)


def test_encryption_is_measured_beside_plain_values() -> None:
    """Read and written, small and large, and of sessions whose keys have to be derived first."""
    command = [sys.executable, "-m", "benchmarks.encryption", "--quick"]
    output = output_of(command, 100)
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 8
    assert all(float(row[3]) > float(row[1]) > 0 for row in rows)


def test_sessions_are_measured_by_size_number_workers_and_shards(tmp_path: Path) -> None:
    """On real servers, with so few sessions that the figures mean nothing; each has to be there."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.scale", "--quick", "--json", str(file)]
    output = output_of(command, 110)
    found = scale_figures.read(file)
    assert not found.notes
    assert [row.sessions for row in found.sizes] == list(QUICK.sizes.values())
    assert [row.sessions for row in found.growth] == list(QUICK.sessions)
    assert [row.workers for row in found.workers] == list(QUICK.workers)
    assert [row.shards for row in found.shards] == list(QUICK.shards)
    for row in found.sizes:
        assert row.memory > 0  # of four sessions it is not more than the buffer of a connection that was just closed
        for cost in (row.read, row.again, row.write):
            assert min(cost.script, cost.server, cost.client, cost.p50, cost.bytes_in, cost.bytes_out) > 0
        assert row.write.bytes_out < row.read.bytes_out
        assert row.again.bytes_out < row.read.bytes_out or row.size > 1_000_000  # too large to be remembered
    assert all(load.per_second > 0 and load.connections >= load.workers for load in [*found.workers, *found.shards])
    assert found.failover.requests > 1
    assert min(found.database.row, found.database.read.p50, found.database.commit.p50, found.index) > 0
    for title in ("Size of a session", "Number of sessions", "Workers", "Shards", "The database"):
        assert f"### {title}" in output
    assert "| shards of `cache.r7g.large` |" in output
