"""The dashboard for Grafana names what there is, and needs no data source of a certain id. Grafana itself does not run
here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.infra.grafana import dashboard, expressions, panels, with_variables
from tests.infra.promql import exported, metrics_of, mistakes
from tests.infra.promtool import MONITORING, RULES

GRAFANA = MONITORING / "grafana"
WIDTH = 24
THE_VARIABLE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_shows_what_is_exported(panel: dict[str, Any]) -> None:
    """The panel says what it is, in the site that was chosen."""
    assert panel["description"].endswith(".")
    for target in panel["targets"]:
        assert list(mistakes(with_variables(target["expr"]), exported())) == [], target["expr"]
        assert target["expr"].count("langpont_session_") == target["expr"].count('job=~"$job"')
        assert target["legendFormat"]


def test_nothing_that_is_exported_is_forgotten() -> None:
    """Each metric is in a graph, or in a rule."""
    used = {name for text in [*expressions(), RULES.read_text(encoding="utf-8")] for name in metrics_of(text)}
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in exported()} == {
        re.sub("_(bucket|count|sum)$", "", name) for name in used
    }


def test_it_names_no_data_source_of_its_own() -> None:
    """Only the variable at its top names a data source: any Prometheus will do."""
    named = [found for found in everything(dashboard()) if isinstance(found, dict) and "datasource" in found]
    assert len(named) > len(panels())
    assert all(found["datasource"] == THE_VARIABLE for found in named)
    [variable] = [variable for variable in dashboard()["templating"]["list"] if variable["name"] == "datasource"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    assert dashboard().get("id") is None


def everything(of: Any) -> Iterator[Any]:
    """A value of JSON and all within it."""
    yield of
    for inner in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
        yield from everything(inner)


def test_panels_lie_beside_each_other() -> None:
    """None on another one, none outside."""
    cells: Counter[tuple[int, int]] = Counter()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        cells.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert set(cells.values()) == {1}
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    assert len({panel["title"] for panel in panels()}) == len(panels())


def test_it_is_provisioned_for_the_prometheus_beside_it() -> None:
    """Grafana reads the files of the provisioning when it starts."""
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    every = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", every)
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/langpont.yml").read_text())["providers"]
    assert provider["type"] == "file"
