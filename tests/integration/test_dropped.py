"""An application that is dropped leaves nothing behind: no thread, no open file, and not itself."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from devservers.constants import extended
from devservers.processes import LONG, free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of
from tests.support.children import in_child

from .conftest import PATIENT, add_views
from .leftover_threads import (
    threads,
)

MANY = 8

Make = Callable[..., Flask]


@pytest.fixture
def make(primary: Valkey, tmp_path: Path) -> Make:
    """Return a factory of applications that nothing else holds; `config` without the prefix."""

    def make(**config: Any) -> Flask:
        app = Flask("app", instance_path=str(tmp_path))
        app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes", TESTING=True)
        settings = {
            "REDIS_URL": primary.url,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
            "JOURNAL": str(tmp_path / "journal.sqlite3"),
            **PATIENT,
            **config,
        }
        app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items()})
        extended(app)
        return app

    return make


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def use(app: Flask) -> None:
    """All that makes connections: a sign-in, what a journal keeps, another page."""
    state_of(app).backend.database.upkeep.create_tables()
    add_views(app)
    client = app.test_client()
    assert client.post("/login/7").status_code == 200
    assert client.post("/set", json={"lang": "jp"}).status_code == 200
    assert state_of(app).backend.journal.is_empty()
    assert client.get("/who").json["user"] == "7"  # type: ignore[index]


def leave_nothing(use_and_drop: Callable[[], weakref.ref[Flask]], number: int) -> None:
    """Assert that so many dropped applications leave no thread, no open file, and not themselves."""
    others = threads()
    use_and_drop()  # what a process keeps once is there from here on
    # Collected again and again: a thread that is late holds the application for a while.
    wait_until(lambda: gc.collect() >= 0 and threads() <= others, "the threads of the first one ended")
    before = files()
    dropped = [use_and_drop() for _ in range(number)]
    wait_until(lambda: gc.collect() >= 0 and not any(app() for app in dropped), "all applications gone")
    wait_until(lambda: threads() <= others, "all threads ended")
    wait_until(lambda: gc.collect() >= 0 and files() <= before, "all files closed")


def used_and_dropped(make: Make, *, closed: bool, **config: Any) -> weakref.ref[Flask]:
    app = make(**config)
    use(app)
    if closed:
        interface = app.session_interface
        assert isinstance(interface, LangPontSession)
        interface.close(app)
    return weakref.ref(app)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
@pytest.mark.parametrize("closed", [False, True], ids=["dropped", "closed"])
def test_many_applications_leave_nothing_behind(make: Make, closed: bool) -> None:
    """A test suite with an application factory makes applications by the hundred, with 1,024 files that may be open."""
    leave_nothing(lambda: used_and_dropped(make, closed=closed), MANY)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_exporters_and_alerts_end_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters and alerts of a dropped application end, too, with an AWS that is not there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    busy = {
        "METRICS": ["cloudwatch", "prometheus"],
        "METRICS_REGISTRY": CollectorRegistry(),
        "ALERT_TOPICS": {"critical": "arn:aws:sns:ap-northeast-1:123456789012:alerts"},
    }
    leave_nothing(lambda: used_and_dropped(make, closed=False, **busy), 3)


def test_no_cycle_keeps_an_application(make: Make) -> None:
    """An application is gone with the last reference to it, as a plain Flask is, and does not wait for the garbage
    collector."""
    app = make()
    gone = weakref.ref(app)
    gc.collect()
    gc.disable()
    try:
        del app
        assert gone() is None
    finally:
        gc.enable()


def test_an_application_that_is_closed_before_its_first_request_starts_nothing(make: Make) -> None:
    """An application that is closed before its first request starts nothing later either."""
    others = threads()
    app = make()
    langpont = app.session_interface
    assert isinstance(langpont, LangPontSession)
    langpont.close(app)
    use(app)
    assert {thread.name for thread in threads() - others} <= {"langpont-database", "langpont-session-journal"}
    langpont.close(app)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_drops_its_own(make: Make) -> None:
    """A child drops its application without the parent's connections, threads and files, as a worker of gunicorn
    with preload does."""
    held = [make()]
    use(held[0])
    client = held[0].test_client()
    assert client.post("/login/8").status_code == 200

    def dropped() -> bool:
        assert client.get("/who").json == {"user": "8", "level": 0, "lang": None}
        gone = weakref.ref(held[0])
        held.clear()
        client.application = None  # type: ignore[assignment]
        gc.collect()
        wait_until(lambda: not threads(), "all threads of the child ended")
        return gone() is None

    assert in_child(dropped)
    assert client.get("/who").json == {"user": "8", "level": 0, "lang": None}
    assert client.post("/set", json={"lang": "en"}).status_code == 200
    state_of(held[0]).close()


PROGRAM = """
import gc, sys
from flask import Flask, session
from flask_langpont_session import LangPontSession

app = Flask("app", instance_path=sys.argv[2])
app.config.update(SECRET_KEY="x" * 40, TESTING=True, LANGPONT_SESSION_REDIS_URL=sys.argv[1])
langpont = LangPontSession(app)
app.add_url_rule("/", view_func=lambda: session.setdefault("lang", "jp"))
assert app.test_client().get("/").text == "jp"
if sys.argv[3] == "closed":
    langpont.close(app)
if sys.argv[3] != "held":
    del app
    gc.collect()
"""


@pytest.mark.parametrize("end", ["held", "closed"])
def test_a_process_may_end_at_once(primary: Valkey, tmp_path: Path, end: str) -> None:
    """A process ends without a word about it, whatever is still being closed."""
    command = [sys.executable, "-X", "dev", "-c", PROGRAM, primary.url, str(tmp_path), end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    # On a busy machine its only request may have found the journal locked, which is still being made by another thread.
    assert [line for line in done.stderr.splitlines() if "SQLITE_BUSY" not in line] == []
