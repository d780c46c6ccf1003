"""The example application with the outage panel beside it, its status page, and two addresses for measuring."""

import os
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from flask import Flask

from example_app.app import create_app as create_example
from lab.panel import lab
from lab.probes import probes

PACKAGE = "flask_langpont_session"

PUBLISHED = 5.0
"""Seconds between two publications of figures: a visitor of the panel does not wait a minute for them."""


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the application, configured by environment variables that begin with ``FLASK_``, and by `config` over
    them."""
    shown = {"LANGPONT_SESSION_STATUS_PAGE": lambda request: True}  # the lab hides nothing
    # A worker that gets no requests shall notice an outage, too, while the panel is open.
    looks = float(os.environ.get("FLASK_LAB_LOOKS", 1))
    with (
        patch(f"{PACKAGE}.recovery.monitor.INTERVAL", looks),
        patch(f"{PACKAGE}.ops.exporters.exporting.INTERVAL", PUBLISHED),
    ):
        app = create_example({**shown, **(config or {})})
    app.register_blueprint(lab)
    app.register_blueprint(probes)
    return app
