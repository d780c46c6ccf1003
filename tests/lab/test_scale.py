"""What a number of sessions needs, and the page that says it."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks import scale, scale_figures
from benchmarks.scale_plan import NODES, Demand, Plan, at
from benchmarks.scale_report import PAGE, measured, written_page
from benchmarks.scale_worker import data_of_size
from tests.infra.template import good_template


@pytest.fixture(scope="module")
def figures() -> scale_figures.Figures:
    return scale_figures.read()


def test_the_page_has_the_figures_that_are_kept(figures: scale_figures.Figures) -> None:
    """Made by ``--write``, all tables of it."""
    page = PAGE.read_text(encoding="utf-8")
    assert written_page(figures, page) == page


def test_a_busy_machine_is_said(figures: scale_figures.Figures) -> None:
    """Where the figures are."""
    busy, quiet = (measured(msgspec.structs.replace(figures, others=share)) for share in (0.26, 0.24))
    assert "The machine was busy" in busy
    assert "The machine was busy" not in quiet


def test_what_was_not_measured_is_said(figures: scale_figures.Figures) -> None:
    """And why."""
    text = measured(msgspec.structs.replace(figures, notes=["1,000,000 sessions: 2.1 GB of memory are missing"]))
    assert "**Not measured:** 1,000,000 sessions: 2.1 GB of memory are missing." in text


def test_the_page_explains_every_number_of_a_plan() -> None:
    """With its default."""
    page = PAGE.read_text(encoding="utf-8").replace(",", "")
    for name, default in vars(Demand()).items():
        assert f"`{name}`" in page, name
        assert (default if isinstance(default, str) else f"{default:.0f}" if default >= 1 else f"{default:g}") in page


def test_twice_the_sessions_need_twice_the_memory_and_no_more_processors(figures: scale_figures.Figures) -> None:
    once, twice = (Plan(Demand(sessions=number), figures) for number in (20_000_000, 40_000_000))
    assert twice.shards_by["memory"] in (2 * once.shards_by["memory"], 2 * once.shards_by["memory"] - 1)
    assert twice.shards_by["processor"] == once.shards_by["processor"]
    assert twice.shards == max(twice.shards_by.values())


def test_twice_the_requests_need_twice_the_processors_and_no_more_memory(figures: scale_figures.Figures) -> None:
    once, twice = (Plan(Demand(requests=number, users=0), figures) for number in (50_000, 100_000))
    assert twice.shards_by["processor"] in (2 * once.shards_by["processor"], 2 * once.shards_by["processor"] - 1)
    assert twice.shards_by["memory"] == once.shards_by["memory"]
    assert twice.wire == (2 * once.wire[0], 2 * once.wire[1])
    assert twice.client_cores == pytest.approx(2 * once.client_cores)


def test_what_near_caches_answer_costs_less(figures: scale_figures.Figures) -> None:
    """Redis, the workers and the network."""
    never, always = (Plan(Demand(hits=hits), figures) for hits in (0, 1))
    assert always.server_cores < never.server_cores
    assert always.client_cores < never.client_cores
    assert max(always.wire) < max(never.wire)


def test_users_cost_more_than_visitors(figures: scale_figures.Figures) -> None:
    """What the database confirms is put into Redis, too."""
    visitors, users = (Plan(Demand(users=share), figures) for share in (0, 1))
    assert users.server_cores > visitors.server_cores
    assert users.client_cores > visitors.client_cores


def test_the_database_is_asked_once_per_active_session_and_interval(figures: scale_figures.Figures) -> None:
    """However many requests there are; not at all for visitors."""
    assert Plan(Demand(active=60_000), figures).reads == 1000
    assert Plan(Demand(active=60_000, requests=90_000), figures).reads == 1000
    assert Plan(Demand(active=60_000, verify=120), figures).reads == 500
    visitors = Plan(Demand(users=0), figures)
    assert (visitors.reads, visitors.rows, visitors.database_cores) == (0, 0, 0)
    assert "no session is signed in" in visitors.parts()


def test_connections_and_money_are_counted_by_shard_and_node(figures: scale_figures.Figures) -> None:
    plan = Plan(Demand(workers=10, threads=3, replicas=2, price=1), figures)
    assert plan.connections == 10 * (3 + 3)
    assert Plan(Demand(workers=10, threads=30), figures).connections == 10 * (30 + 8)
    assert plan.nodes == 3 * plan.shards
    assert plan.dollars == 730 * plan.nodes
    assert "1 USD an hour each" in plan.summary()


def test_a_size_between_two_measured_ones_lies_between_them() -> None:
    """On a straight line, and beyond them as well; nothing gets below zero."""
    points = [(1000.0, 10.0), (2000.0, 30.0), (4000.0, 30.0)]
    assert [at(size, points) for size in (1000, 1500, 3000, 8000, 500, 0)] == [10, 20, 30, 30, 0, 0]
    assert at(5, points[:1]) == 10


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("users", "a number is expected"),
        ("people=7", "one of active, "),
        ("sessions=many", "a number is expected"),
        ("sessions=0", "above 0"),
        ("sessions=nan", "above 0"),
        ("writes=2", "from 0 to 1"),
        ("replicas=-1", "replicas= must be from 0 to 5"),
        ("node=cache.t4g.micro", "known are cache.m7g.large"),
        ("active=600001", "600000 at most"),
        ("sessions=499999", "499999 at most"),
    ],
)
def test_a_demand_that_cannot_be_is_refused(said: str, complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=complaint):
        Demand.read([said])


def test_a_demand_is_read_from_words() -> None:
    found = Demand.read(["sessions=600000", "node=cache.m7g.large", "active=1e5"])
    assert found == Demand(sessions=600_000, node="cache.m7g.large", active=100_000)


def test_the_node_types_are_those_of_the_template() -> None:
    """Without the burstable ones."""
    allowed = good_template()["Parameters"]["NodeType"]["AllowedValues"]
    assert set(NODES) == {name for name in allowed if not name.startswith("cache.t")}


def test_memory_that_is_not_there_is_named() -> None:
    """Before it is filled."""
    assert scale.lacking(-2 * scale.ROOM) is None
    complaint = scale.lacking(1e15)
    assert complaint is not None
    assert complaint.endswith("GB of memory are missing (1000000.0 GB are needed)")


@pytest.mark.parametrize("size", [1024, 10_240, 102_400, 1_048_576])
def test_a_session_has_about_the_size_that_it_is_called_by(size: int) -> None:
    """As JSON."""
    found = sum(len(msgspec.json.encode(part)) for part in data_of_size(size).values())
    assert 0.9 * size < found < 1.05 * size
