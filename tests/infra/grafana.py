"""The dashboard for Grafana."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.infra.promtool import MONITORING

_VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$budget": "0.3"}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as it is provisioned."""
    found: dict[str, Any] = json.loads((MONITORING / "grafana/dashboards/sessions.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Return the panels without the headings between them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Yield the expressions of all panels, with the variables put in."""
    for panel in panels():
        for target in panel["targets"]:
            yield with_variables(target["expr"])


def with_variables(expression: str) -> str:
    """Return an expression as Grafana sends it to Prometheus."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression
