"""The example application with the outage panel beside it, and two addresses for measuring."""

from flask import Flask

from example_app.app import create_app as create_example
from lab.panel import lab
from lab.probes import probes


def create_app() -> Flask:
    """The application, configured by environment variables that begin with ``FLASK_``."""
    app = create_example()
    app.register_blueprint(lab)
    app.register_blueprint(probes)
    return app
