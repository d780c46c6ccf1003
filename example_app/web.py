"""The application under gunicorn, as one more server of the lab."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from example_app.processes import spawn
from example_app.server import Server

#: The root of the checkout, where the package and the application are imported from.
PROJECT = Path(__file__).parent.parent


class WebServer(Server):
    """The application under gunicorn."""

    stop_signal = signal.SIGQUIT  # at once; nobody waits for the last answers

    def __init__(self, folder: Path, *, port: int, workers: int, preload: bool, env: Mapping[str, str]) -> None:
        super().__init__(folder, port=port)
        self._workers = workers
        self._preload = preload
        self._env = env

    @property
    def url(self) -> str:
        """Address for browsers."""
        return f"http://127.0.0.1:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        options = ["--bind", f"127.0.0.1:{self.port}", "--workers", str(self._workers), "--threads", "8"]
        # A connection that is kept open stays with one worker. Here every request shall find any of them.
        options += ["--worker-class", "example_app.fair.FairWorker", "--keep-alive", "0", "--no-control-socket"]
        options += ["--worker-tmp-dir", str(self.folder), *(["--preload"] if self._preload else [])]
        command = [sys.executable, "-m", "gunicorn", *options, "example_app.app:create_app()"]
        return spawn(command, log=self.log, cwd=PROJECT, env=self._env)

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=2.0)
        try:
            connection.request("GET", "/healthz/live")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
