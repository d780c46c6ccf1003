"""``flask langpont watch``: what a site does, as an operator sees it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from devservers.processes import LONG, wait_until
from devservers.servers import Valkey
from flask_langpont_session.ops.diagnosis.health_page import page_at, read_page

from .conftest import MakeApp
from .flask_command import RunningCommand, on_terminal, run_flask
from .shop import write_shop

WATCH = ["--app", "shop", "langpont", "watch"]


@pytest.fixture
def site(make_app: MakeApp, primary: Valkey, tmp_path: Path) -> Iterator[str]:
    """The address of a running application; the shop in `tmp_path` has its configuration."""
    app = make_app(HEALTH_INTERVAL=0.2)
    names = ("REDIS_URL", "DATABASE_URL", "JOURNAL")
    write_shop(tmp_path, **{name: app.config[f"LANGPONT_SESSION_{name}"] for name in names})
    with served(app) as url:
        wait_until(lambda: read_page(f"{url}/healthz", LONG).report["status"] == "ok", "that it has looked")
        yield url
    primary.start()


class served:
    """An application behind HTTP, in a thread."""

    def __init__(self, app: Any) -> None:
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def looks(command: RunningCommand) -> list[dict[str, Any]]:
    """Return the looks that were printed so far, whole lines only."""
    lines = command.output.read_text().split("\n")[:-1] if command.output.exists() else []
    return [json.loads(line) for line in lines]


def test_a_running_site_is_watched(site: str, primary: Valkey, tmp_path: Path) -> None:
    """The command shows an outage as the site's workers see it, not this process, which knows nothing yet."""
    command = RunningCommand(tmp_path, [*WATCH, "--url", site, "--json", "--interval", "0.1"])

    def wait_for(level: int, begin: int = 0) -> int:
        def found() -> bool:
            return any(look["level"] == level for look in looks(command)[begin:])

        wait_until(found, f"level {level}")
        return len(looks(command))

    seen = wait_for(0)
    primary.kill()
    seen = wait_for(2, seen)
    primary.start()
    wait_for(0, seen)
    command.process.send_signal(signal.SIGINT)
    done = command.answer(30)
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[0]["well"]
    assert (found[0]["level_by"], found[0]["journal"]["entries"]) == ("pages", 0)
    assert found[0]["processes"] > 0
    # A time that rounds to nothing is one, too.
    assert all(store["problem"] is None and store["ms"] is not None for store in found[0]["stores"].values())
    [at_level_2, *_] = [look for look in found if look["level"] == 2]
    assert not at_level_2["well"]
    assert at_level_2["pages"][0]["report"]["level_name"] == "local_cache"
    assert at_level_2["stores"]["primary"]["unused"] == ["read", "write"]


def test_on_a_terminal_each_look_takes_the_place_of_the_former(site: str, tmp_path: Path) -> None:
    """The same lines, again and again; Ctrl-C is its normal end."""
    arguments = [*WATCH, "--url", site, "--interval", "0.1"]
    code, seen = on_terminal(tmp_path, arguments, lambda seen: seen.count("\x1b[2J") > 2, signal.SIGINT)
    assert code == 0
    assert "level      0 normal" in seen
    assert "Traceback" not in seen


def test_one_look_from_a_host_without_a_page(tmp_path: Path, primary: Valkey) -> None:
    """One look prints on one line what a worker would find; the exit code says whether all is well. It makes no
    file."""
    write_shop(tmp_path, REDIS_URL=primary.url)
    assert run_flask(tmp_path, ["--app", "shop", "langpont", "init-db"], 30).returncode == 0
    done = run_flask(tmp_path, [*WATCH, "--once"], 30)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout
    assert "  level 0 normal, as found from here  primary ok " in done.stdout
    assert "  journal no file on this host" in done.stdout
    primary.kill()
    try:
        done = run_flask(tmp_path, [*WATCH, "--once"], 30)
    finally:
        primary.start()
    assert done.returncode == 1
    assert "  level 2 local_cache, as found from here  primary unreachable (refuses connections)" in done.stdout
    assert list(tmp_path.glob("langpont_session_journal*")) == []


def test_what_is_no_address_of_a_site_is_a_usage_error(tmp_path: Path, primary: Valkey) -> None:
    write_shop(tmp_path, REDIS_URL=primary.url)
    done = run_flask(tmp_path, [*WATCH, "--url", "file:///etc/passwd"], 30)
    assert (done.returncode, "no address of a site" in done.stderr) == (2, True)


# -- pages -------------------------------------------------------------------------------------------------------------


def test_the_page_is_found_by_the_sites_address() -> None:
    assert page_at("http://shop.example", "/healthz") == "http://shop.example/healthz"
    assert page_at("http://shop.example/", None) == "http://shop.example/healthz"
    assert page_at("https://shop.example/internal/health?x=1", "/healthz").endswith("/internal/health?x=1")


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (lambda: ("no", 404), "it does not answer: HTTP Error 404"),
        (lambda: "<p>hello</p>", "what it says is no health report"),
        (lambda: {"level": "high", "stores": {}}, "what it says is no health report"),
        (lambda: ({"level": 4, "stores": {}}, 503), None),
    ],
    ids=["not found", "no JSON", "no report", "fail_at"],
)
def test_what_is_no_report_is_said(page: Callable[[], Any], problem: str | None) -> None:
    app = Flask("other")
    app.get("/healthz")(page)
    with served(app) as url:
        found = read_page(f"{url}/healthz", LONG)
    assert (found.problem or "").startswith(problem or "")
    assert bool(found.report) is (problem is None)


def test_a_site_that_is_not_there_is_said() -> None:
    with served(Flask("other")) as url:
        pass
    assert read_page(url, LONG).problem == "it does not answer: [Errno 111] Connection refused"
