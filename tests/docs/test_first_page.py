"""The README's first block, as a newcomer runs it: ``python app.py``, with a server of one's own and without."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from devservers.processes import LONG, alive, free_port, wait_until
from devservers.servers import Valkey

from .pages import README, blocks_of
from .serving import Browser, environment, running


@contextmanager
def first_page(folder: Path, port: int, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "app.py").write_text(blocks_of(README)[0].text)
    variables = environment(folder, PORT=str(port), **variables)
    with ExitStack() as stack:
        try:
            process = stack.enter_context(running(["app.py"], folder, port, variables))
        except AssertionError as error:
            if "Address already in use" not in str(error):
                raise
            # Another test has taken the port that its server had found free. Once more, as a newcomer would.
            process = stack.enter_context(running(["app.py"], folder, port, variables))
        yield process


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
        with first_page(tmp_path / "app", port := free_port(), REDIS_URL=valkey.url):
            use(port)
            with valkey.client() as client:
                assert client.keys("session:*")
        assert (tmp_path / "app" / "instance" / "langpont_session.sqlite3").exists()


def test_it_brings_a_server_and_takes_it_away_again(tmp_path: Path) -> None:
    """No process and no file of the server is left when it is ended, as by a supervisor."""
    with first_page(tmp_path, port := free_port()) as process:
        use(port)
        children = psutil.Process(process.pid).children(recursive=True)
        assert [child.name() for child in children] == ["valkey-server"]
        process.send_signal(signal.SIGTERM)
        process.wait(LONG)
    wait_until(lambda: not any(map(alive, children)), "the end of the server")
    assert not list(tmp_path.glob("valkey-*"))
