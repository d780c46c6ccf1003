"""The exporters that METRICS starts: none before it is asked for, and each on a thread of its own."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

import flask_langpont_session
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.ops.exporters import prometheus
from flask_langpont_session.ops.exporters.catalogue import EXPORTED
from flask_langpont_session.ops.exporters.exporting import Exporting
from flask_langpont_session.policy.health import DATABASE, PRIMARY, Health
from tests.support.fakes import settings_in


def exporting(folder: Path, **config: Any) -> Exporting:
    settings = settings_in(folder, **config)
    active = cast(Any, None)  # asked by its thread alone
    backend = SimpleNamespace(
        settings=settings, recorder=Recorder(), health=Health([PRIMARY, DATABASE]), redis={}, near_connections=0
    )
    with patch.object(prometheus, "DEFAULT", CollectorRegistry()):
        return Exporting(cast(Any, backend), active, lambda: (0, 0.0))


AWS = {"ENVIRONMENT": "test", "SERVICE": "shop"}


@pytest.mark.parametrize(
    ("metrics", "number"), [(["prometheus"], 2), (["cloudwatch"], 2), (["cloudwatch", "prometheus"], 3)]
)
def test_each_exporter_has_a_thread_beside_that_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: list[str], number: int
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    found = exporting(tmp_path, METRICS=metrics, **(AWS if "cloudwatch" in metrics else {}))
    assert len(found.threads) == number


def test_the_page_is_there_where_a_url_is_set(tmp_path: Path) -> None:
    app = Flask("app")
    exporting(tmp_path, METRICS=["prometheus"]).install(app)
    assert app.test_client().get("/metrics").status_code == 404
    app = Flask("app")
    exporting(tmp_path, METRICS=["prometheus"], METRICS_URL="/metrics").install(app)
    assert app.test_client().get("/metrics").status_code == 200


def test_a_counter_that_the_log_names_is_exported() -> None:
    """A reader of the log finds it where all other figures are."""
    sources = Path(flask_langpont_session.__file__).parent.rglob("*.py")
    named = {name for source in sources for name in re.findall(r"the counter (\w+) counts all", source.read_text())}
    assert named and named <= {exported.name for exported in EXPORTED}
