"""Applications whose constants of the package are others: a test does not wait for what is done twice a minute."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from unittest.mock import patch

from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.config.checks import PREFIX

CONSTANTS: Mapping[str, str] = {
    "HEALTH_INTERVAL": "flask_langpont_session.recovery.monitor.INTERVAL",
    "METRICS_INTERVAL": "flask_langpont_session.ops.exporters.exporting.INTERVAL",
    "METRICS_REGISTRY": "flask_langpont_session.ops.exporters.prometheus.DEFAULT",
    "DATABASE_CONCURRENCY": "flask_langpont_session.build.DATABASE_CALLS",
    "DATABASE_TIMEOUT": "flask_langpont_session.config.settings._database_timeout",
    "NEAR_CACHE": "flask_langpont_session.config.settings._near",
}
"""What a configuration calls a constant → its place in the package. They are read when an application is made."""


def extended(app: Flask) -> LangPontSession:
    """Return ``LangPontSession(app)``, made with those constants that the application's configuration names as if they
    were settings; ``NEAR_CACHE`` is always (): each request asks Redis."""
    with ExitStack() as stack:
        for name, place in CONSTANTS.items():
            if PREFIX + name in app.config:
                value = app.config.pop(PREFIX + name)
                made = {"NEAR_CACHE": lambda *_: (), "DATABASE_TIMEOUT": lambda _, value=value: value}.get(name, value)
                stack.enter_context(patch(place, made))
        return LangPontSession(app)
