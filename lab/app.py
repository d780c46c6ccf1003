"""The example application with the outage panel beside it, its status page, and two addresses for measuring."""

from collections.abc import Mapping
from typing import Any

from flask import Flask

from example_app.app import create_app as create_example
from lab.panel import lab
from lab.probes import probes


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the application, configured by environment variables that begin with ``FLASK_``, and by `config` over
    them."""
    shown = {"LANGPONT_SESSION_STATUS_PAGE": lambda request: True}  # the lab hides nothing
    app = create_example({**shown, **(config or {})})
    app.register_blueprint(lab)
    app.register_blueprint(probes)
    return app
