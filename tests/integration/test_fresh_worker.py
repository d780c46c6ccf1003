"""D18: a worker that starts while Redis is away knows its users from the first request on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from devservers.servers import Postgres

from .behind import LONG, emptied
from .conftest import MakeApp, parts

WORKER = """
import json, sys, threading
from flask import Flask
from flask_langpont_session import LangPontSession
from tests.integration.conftest import add_views

settings, cookies, folder = json.loads(sys.argv[1])
app = Flask("app", instance_path=folder)
app.config.update(settings)
LangPontSession(app)
add_views(app)
answers = []

def ask(cookie):
    who = app.test_client(use_cookies=False).get("/who", headers={"Cookie": cookie})
    answers.append([who.status_code, who.json["user"], who.json["level"]])

def sign_in():
    answers.append([app.test_client().post("/login/9").status_code, "9", 2])

threads = [threading.Thread(target=ask, args=(cookie,)) for cookie in cookies] + [threading.Thread(target=sign_in)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(answers))
"""

BUSY = "while True: sum(range(10000))"


@contextmanager
def away(how: str) -> Iterator[str]:
    """The address of a Redis that refuses connections, or that takes none and says nothing."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if how == "accepts nothing":
            server.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
        elif how == "hangs":
            server.listen(100)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def busy_machine(processes: int) -> Iterator[None]:
    """Other processes that compute all the time."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("how", ["refuses", "accepts nothing", "hangs"])
def test_its_first_requests_know_their_users(
    make_app: MakeApp, request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str, engine: str, how: str
) -> None:
    """Whatever the state of Redis, the database is well: no user is taken for a visitor, and signing in works."""
    url = sqlite_url
    if engine == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = emptied(postgres)
    app = make_app(DATABASE_URL=url)
    cookies = []
    for user in range(4):
        answer = app.test_client().post(f"/login/{user}")
        cookies.append(answer.headers["Set-Cookie"].partition(";")[0])
    parts(app).close()
    with away(how) as address, busy_machine(2):
        settings = {
            "SECRET_KEY": app.config["SECRET_KEY"],
            "LANGPONT_SESSION_REDIS_URL": address,
            "LANGPONT_SESSION_DATABASE_URL": url,
            "LANGPONT_SESSION_JOURNAL": str(tmp_path / "other.sqlite3"),
        }
        for _ in range(2):
            command = [sys.executable, "-c", WORKER, json.dumps([settings, cookies, str(tmp_path)])]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True)
            answers = json.loads(done.stdout)
            assert sorted(answers, key=str) == [*([200, str(user), 2] for user in range(4)), [200, "9", 2]], done.stderr
