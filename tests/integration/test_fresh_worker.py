"""D18: a worker that starts while Redis is away knows its users from the first request on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from devservers.forks import Fork
from devservers.processes import LONG
from devservers.servers import Postgres

from . import fresh_worker
from .behind import emptied
from .conftest import MakeApp, parts


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


@pytest.mark.parametrize("how", ["refuses", "accepts nothing", "hangs"])
def test_its_first_requests_know_their_users(make_app: MakeApp, postgres: Postgres, tmp_path: Path, how: str) -> None:
    """Users are not taken for visitors, and sign-ins work, whatever the state of Redis, as the database is well."""
    url = emptied(postgres)
    app = make_app(DATABASE_URL=url)
    cookies = []
    for user in range(4):
        answer = app.test_client().post(f"/login/{user}")
        cookies.append(answer.headers["Set-Cookie"].partition(";")[0])
    parts(app).close()
    with away(how) as address:
        settings = {
            "SECRET_KEY": app.config["SECRET_KEY"],
            "LANGPONT_SESSION_REDIS_URL": address,
            "LANGPONT_SESSION_DATABASE_URL": url,
            "LANGPONT_SESSION_JOURNAL": str(tmp_path / "other.sqlite3"),
        }
        for number in range(2):
            log = tmp_path / f"answers-{number}"
            asked = json.dumps([settings, cookies, str(tmp_path)])
            # Forked when Redis is away already: importing would take most of the time, and is not what this is about.
            worker = Fork(fresh_worker.__name__, log=log, env={**os.environ, fresh_worker.ASKED: asked})
            assert worker.wait(LONG) == 0, log.read_text()
            said = log.read_text().splitlines()
            answers = json.loads(said[-1])
            assert sorted(answers, key=str) == [*([200, str(user), 2] for user in range(4)), [200, "9", 2]], said
