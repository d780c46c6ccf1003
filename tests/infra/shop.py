"""The application that units and manifests start, and their commands, run here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flask import Flask

from devservers.processes import LONG
from flask_langpont_session import LangPontSession
from tests.infra.template import INFRA

GUNICORN = INFRA / "gunicorn.conf.py"

_SHOP = """
from flask import Flask
from flask_langpont_session import LangPontSession

app = Flask("shop")
app.config.from_prefixed_env()
LangPontSession(app)
"""


def gunicorn_settings() -> dict[str, object]:
    """Return the settings of gunicorn's configuration."""
    found: dict[str, object] = {"__name__": "gunicorn.conf"}
    exec(GUNICORN.read_text(encoding="utf-8"), found)
    return found


def prepared(folder: Path) -> dict[str, str]:
    """Put the application into a folder; what its environment must have that is a secret or is not here."""
    (folder / "shop.py").write_text(_SHOP)
    shutil.copy(GUNICORN, folder)
    return {
        "FLASK_SECRET_KEY": "test key of the test suite, 32+ bytes",
        "FLASK_LANGPONT_SESSION_REDIS_URL": "redis://127.0.0.1:1/0",
        "FLASK_LANGPONT_SESSION_DATABASE_URL": f"sqlite:///{folder / 'sessions.sqlite3'}",
    }


def run(folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the output of a command in this environment alone; the command must not fail."""
    program = [sys.executable, "-m", command[0].rpartition("/")[2], *command[1:]]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "PROMETHEUS_"))}
    path = os.pathsep.join([str(INFRA.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        program, cwd=folder, env=inherited | {"PYTHONPATH": path, **environment}, capture_output=True, text=True,
        timeout=LONG,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pages(folder: Path, metrics_url: str) -> set[str]:
    """The addresses that the package answers at, with everything by default."""
    app = Flask("shop", instance_path=str(folder))
    app.config.update(TESTING=True, SECRET_KEY="test key of the test suite, 32+ bytes")
    app.config.update(LANGPONT_SESSION_METRICS=["prometheus"], LANGPONT_SESSION_METRICS_URL=metrics_url)
    extension = LangPontSession(app)
    extension.close(app)
    return {rule.rule for rule in app.url_map.iter_rules()}
