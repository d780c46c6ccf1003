"""A site whose alerts are fast, for gunicorn and scripts: ``tests.integration.alerts_site:create_app()``.

Its settings come from the environment (``FLASK_LANGPONT_SESSION_…``), its folder from ``FOLDER``.
"""

from __future__ import annotations

import os
import time

from flask import Flask, session

from devservers.constants import extended
from flask_langpont_session.aws import client
from flask_langpont_session.extension import state_of
from flask_langpont_session.ops.alerts import alerts
from flask_langpont_session.ops.alerts.incidents import Terms
from tests.support.patience import wait_for_the_journal

TERMS = Terms(pace=0.06, calm=1.8, gap=1, retry=3)
"""Pending for 0.3 s, over after 1.8 s."""

TICK = 0.05


def create_app() -> Flask:
    """The site."""
    wait_for_the_journal()
    alerts.TERMS, alerts.TICK = TERMS, TICK
    client.READ_TIMEOUT = float(os.environ.get("SNS_TIMEOUT", client.READ_TIMEOUT))
    app = Flask("app", instance_path=os.environ["FOLDER"])
    app.config.from_prefixed_env()
    extended(app)
    state_of(app).backend.database.upkeep.create_tables()

    @app.get("/pid")
    def pid() -> str:
        """Return the id of this worker's process. The worker is busy for a moment, so that others get the next
        requests."""
        time.sleep(0.02)
        session["lang"] = "ja"
        return str(os.getpid())

    return app
