"""Which folder of the package may import which, and what is imported only where a setting asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLAIN = """
import sys
from flask import Flask, session
import flask_langpont_session

def serve(**config):
    app = Flask("app", instance_path=sys.argv[1])
    app.testing, app.secret_key = True, "x" * 32
    places = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": f"sqlite:///{sys.argv[1]}/sessions.sqlite3"}
    for name, value in {**places, **config}.items():
        app.config[f"LANGPONT_SESSION_{name}"] = value
    flask_langpont_session.LangPontSession(app)

    @app.get("/")
    def index():
        session["lang"] = session.get("lang", "ja")
        return session["lang"]

    print(app.test_client().get("/").text)

def show(*names):
    print(*(sorted(name for name in sys.modules if name.startswith(names))))

late = ("boto3", "botocore", "flask_langpont_session.aws", "flask_langpont_session.alerts")
more = ("flask_langpont_session.metrics.exporting", "flask_langpont_session.adoption", "prometheus_client")
serve()
show(*late, *more)
serve(METRICS=["prometheus"])
show(*late)
"""


def test_what_no_setting_asks_for_is_not_imported(tmp_path: Path) -> None:
    """An application on Redis and SQLite serves without AWS, alerts, exporters and adoption; metrics alone bring no
    AWS."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PLAIN, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "ja\n\nja\n\n"), done.stderr
