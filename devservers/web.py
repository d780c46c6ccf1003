"""An application under gunicorn, as one more server."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from devservers.processes import children, spawn
from devservers.server import Server, answers_http

#: The root of the checkout, where the package and the application are imported from.
PROJECT = Path(__file__).parent.parent


class WebServer(Server):
    """An application under gunicorn.

    :param workers: processes; `threads` of each.
    :param preload: load the application before forking the workers.
    :param env: of gunicorn and its workers.
    :param application: where gunicorn finds it.
    :param worker_class: as gunicorn names it. By the first one each worker has a door of its own.
    """

    stop_signal = signal.SIGQUIT  # at once; no test waits for the last answers

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        preload: bool,
        env: Mapping[str, str],
        port: int | None = None,
        threads: int = 8,
        application: str,
        worker_class: str = "devservers.fair.FairWorker",
    ) -> None:
        super().__init__(folder, port=port)
        self._workers = workers
        self._threads = threads
        self._preload = preload
        self._env = env
        self._application = application
        self._worker_class = worker_class

    @property
    def url(self) -> str:
        """Return the address for browsers."""
        return f"http://127.0.0.1:{self.port}"

    def doors(self) -> dict[int, str]:
        """Return the living workers: process id → address of this one worker."""
        notes = {pid: self.folder / f"door-{pid}" for pid in children(self.pid)}
        return {pid: f"http://127.0.0.1:{note.read_text()}" for pid, note in notes.items() if note.exists()}

    def _launch(self) -> subprocess.Popen[bytes]:
        options = ["--bind", f"127.0.0.1:{self.port}"]
        options += ["--workers", str(self._workers), "--threads", str(self._threads)]
        # A connection that is kept open stays with one worker. Here every request shall find any of them.
        options += ["--worker-class", self._worker_class, "--keep-alive", "0", "--no-control-socket"]
        options += ["--worker-tmp-dir", str(self.folder), *(["--preload"] if self._preload else [])]
        command = [sys.executable, "-m", "gunicorn", *options, self._application]
        return spawn(command, log=self.log, cwd=PROJECT, env=self._env)

    def _answers(self) -> bool:
        return answers_http(self.port, "/healthz/live")
