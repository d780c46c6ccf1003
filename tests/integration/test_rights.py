"""Rights that are changed inside of their values: a grant, as one that is assigned."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, session

from flask_langpont_session.testing import switched_off

from .behind import row, sign_in
from .conftest import MakeApp, parts


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app()

    @app.post("/need/<right>")
    def need(right: str) -> Any:
        session.setdefault("identity.provides", []).append(right)
        return session["identity.provides"]

    return app


def needs(app: Flask, client: Any) -> Any:
    return client.get("/get/identity.provides").json["value"]


def test_i3_a_right_that_grows_in_place_needs_the_database(app: Flask) -> None:
    """I3: with the database down it is a 503, as by assignment, and no worker shows it."""
    client = sign_in(app)
    assert client.post("/need/editor").json == ["editor"]
    with switched_off(app, "database"):
        response = client.post("/need/admin")
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        assert "refused" in {of.outcome for of in parts(app).recorder.series() if of.name == "request_save"}
        assert needs(app, client) == ["editor"]
    assert needs(app, client) == ["editor"]
    assert "admin" not in str(row(app, client.digest)["payload"])
    assert client.post("/need/admin").json == ["editor", "admin"]
    assert needs(app, client) == ["editor", "admin"]
    assert "admin" in str(row(app, client.digest)["payload"])
