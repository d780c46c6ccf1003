"""A worker that has just started: its first requests come at the same moment. Its answers are its output."""

from __future__ import annotations

import json
import os
import threading

from flask import Flask

from devservers.constants import extended

from .conftest import add_views

ASKED = "FRESH_WORKER"
"""Environment variable: settings, cookies of signed-in users and the folder of the instance, as JSON."""


def main() -> None:
    """Print [status, user, level] of each answer, and of a sign-in."""
    settings, cookies, folder = json.loads(os.environ[ASKED])
    app = Flask("app", instance_path=folder)
    app.config.update(settings)
    extended(app)
    add_views(app)
    answers: list[list[object]] = []

    def ask(cookie: str) -> None:
        found = app.test_client(use_cookies=False).get("/who", headers={"Cookie": cookie})
        said = found.json or {}
        answers.append([found.status_code, said.get("user"), said.get("level")])

    def sign_in() -> None:
        answers.append([app.test_client().post("/login/9").status_code, "9", 2])

    threads = [threading.Thread(target=ask, args=(cookie,)) for cookie in cookies] + [threading.Thread(target=sign_in)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(answers), flush=True)  # noqa: T201
