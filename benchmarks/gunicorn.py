"""An application under gunicorn as it comes, to be loaded: no worker gives way to its siblings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from devservers.processes import spawn
from devservers.server import Server, answers_http
from devservers.web import PROJECT


class Gunicorn(Server):
    """The application on its workers.

    :param application: where gunicorn finds it.
    :param env: what it finds in its environment besides.
    :param page: one that answers 200 as soon as it runs.
    :param worker_class: ``sync`` or ``gthread``.
    """

    def __init__(
        self,
        folder: Path,
        application: str,
        *,
        env: Mapping[str, str],
        page: str,
        workers: int = 2,
        threads: int = 1,
        worker_class: str = "gthread",
    ) -> None:
        super().__init__(folder)
        self._application, self._env, self._page = application, env, page
        self._options = ["--workers", str(workers), "--worker-class", worker_class, "--threads", str(threads)]

    @property
    def url(self) -> str:
        """Return the address for browsers."""
        return f"http://127.0.0.1:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", *self._options]
        command += ["--backlog", "1024", "--keep-alive", "60", "--worker-connections", "1000", "--no-control-socket"]
        return spawn([*command, self._application], log=self.log, cwd=PROJECT, env=os.environ | self._env)

    def _answers(self) -> bool:
        return answers_http(self.port, self._page)
