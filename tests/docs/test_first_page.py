"""The README's first block, as a newcomer runs it: ``python app.py``, with a server of one's own and without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import psutil
import pytest

from devservers.processes import alive, free_port, wait_until
from devservers.server import answers_http
from devservers.servers import Valkey

from .pages import README, ROOT, blocks_of


class Browser:
    """Has cookies, and follows redirects."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self) -> str:
        return self._open("/", None)

    def post(self, path: str, **form: str) -> str:
        return self._open(path, urllib.parse.urlencode(form).encode())

    def _open(self, path: str, body: bytes | None) -> str:
        with self._opener.open(self._address + path, body, timeout=20) as answer:
            text: str = answer.read().decode()
        return text


@contextmanager
def running(folder: Path, port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "app.py").write_text(blocks_of(README)[0].text)
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith(("FLASK_", "REDIS_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = inherited | {"PYTHONPATH": path, "PORT": str(port), "TMPDIR": str(folder)} | environment
    command = [sys.executable, "app.py"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or answers_http(port, "/"), "the first page", 60.0)
            assert process.poll() is None, (folder / "log").read_text()
            yield process
        finally:
            process.kill()


def use(port: int) -> None:
    """All that the page offers."""
    browser = Browser(port)
    assert "Hello visitor" in browser.get() and "level 0" in browser.get()
    assert "1 clicks, a cart of 1" in browser.post("/click")
    assert "Hello hanako" in browser.post("/sign-in", name="hanako")
    assert "2 clicks, a cart of 2" in browser.post("/click")
    assert "Hello visitor" in browser.post("/sign-out")


def test_it_runs_on_a_server_of_ones_own(tmp_path: Path) -> None:
    """REDIS_URL says where; the sessions are there and in the instance folder."""
    (tmp_path / "app").mkdir()
    with Valkey(tmp_path / "primary") as valkey:
        with running(tmp_path / "app", port := free_port(), REDIS_URL=valkey.url):
            use(port)
            with valkey.client() as client:
                assert client.keys("session:*")
        assert (tmp_path / "app" / "instance" / "langpont_session.sqlite3").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_brings_a_server_and_takes_it_away_again(tmp_path: Path, number: signal.Signals) -> None:
    """However it is ended, but by SIGKILL: no process and no file of the server is left."""
    with running(tmp_path, port := free_port()) as process:
        use(port)
        children = psutil.Process(process.pid).children(recursive=True)
        assert [child.name() for child in children] == ["valkey-server"]
        process.send_signal(number)
        process.wait(20)
    wait_until(lambda: not any(map(alive, children)), "the end of the server")
    assert not list(tmp_path.glob("valkey-*"))
