"""An application of the docs, running, and a browser that uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

from devservers.processes import wait_until
from devservers.server import answers_http

from .pages import ROOT


class Browser:
    """A browser with cookies, which follows redirects."""

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


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process that runs an application of the docs, without the developer's own settings.

    :param folder: where its temporary files go.
    :param variables: those that are meant for it.
    """
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith(("FLASK_", "REDIS_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return inherited | {"PYTHONPATH": path, "PATH": programs, "TMPDIR": str(folder)} | variables


@contextmanager
def running(
    command: Sequence[str], folder: Path, port: int, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves pages.

    :param command: after Python's own name.
    :param folder: where it runs, and its log is.
    :param variables: its environment.
    """
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([sys.executable, *command], cwd=folder, env=variables, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or answers_http(port, "/"), "the first page")
            assert process.poll() is None, (folder / "log").read_text()
            yield process
        finally:
            process.kill()
