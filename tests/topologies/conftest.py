"""Applications on servers that the tests of this folder start themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from devservers.constants import extended
from tests.integration.conftest import add_views, close, parts
from tests.integration.tls import Authority

PATIENT = {
    "REDIS_TIMEOUT": 2, "DATABASE_TIMEOUT": 2, "REQUEST_BUDGET": 6,
}  # fmt: skip
"""A busy machine is not an outage, and what is killed here refuses connections at once."""

MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """Yield a factory of hosts with one application each: they share a database, not a journal. `config` without
    the prefix."""
    made: list[Flask] = []

    def make(*, tables: bool = True, **config: Any) -> Flask:
        folder = tmp_path / f"host{len(made)}"
        app = Flask("app", instance_path=str(folder))
        app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes", TESTING=True)
        settings = {
            "DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
            "JOURNAL": str(folder / "journal.sqlite3"),
            **PATIENT,
            **config,
        }
        app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items()})
        extended(app)
        made.append(app)
        if tables:
            parts(app).backend.database.upkeep.create_tables()
        add_views(app)
        return app

    yield make
    for app in made:
        close(app)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority whose certificates the application trusts."""
    return Authority(tmp_path_factory.mktemp("authority"))
