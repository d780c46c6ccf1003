"""The application that the server classes of docs/how-to/deploy.md serve: ``tests.topologies.served:create_app()``."""

from __future__ import annotations

import json
import os

from flask import Flask

from tests.support.site import application


def create_app() -> Flask:
    """An application with the configuration of the environment."""
    return application.create_app(json.loads(os.environ[application.CONFIG]))
