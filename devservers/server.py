"""The common part of all servers of the lab: one child process with a port and a folder."""

import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Protocol, Self

from devservers.processes import family, free_port, kill, release, send, wait_until


class ServerError(Exception):
    """A server ended while it was being started. The text holds the end of its log."""


class Process(Protocol):
    """The interface of a server's process: a ``subprocess.Popen`` has it."""

    @property
    def pid(self) -> int:
        """Return the process id."""

    def poll(self) -> int | None:
        """Return the exit code; None: the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return when it has ended. :raises subprocess.TimeoutExpired: it runs after so many seconds."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal to it, unless it has ended."""


class Server(ABC):
    """The common part of the servers. A context manager: started on entry, stopped on exit."""

    #: The signal that asks for an orderly end.
    stop_signal = signal.SIGTERM

    #: Seconds within which it has to answer after its start. One that ends instead is noticed at once. On a busy
    #: machine the workers of a web server load the application for many seconds.
    patience = 60.0

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port() if port is None else port
        self._process: Process | None = None
        self._frozen = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        release(self.port)

    @property
    def log(self) -> Path:
        """Return the file that the server's output goes to."""
        return self.folder / "log"

    @property
    def pid(self) -> int | None:
        """Return the process id of the server (of its first process), or None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def wait(self) -> None:
        """Return when the server has ended."""
        if self._process is not None:
            self._process.wait()

    @property
    def running(self) -> bool:
        """Return whether the process lives. A frozen server runs."""
        return self.pid is not None

    @property
    def frozen(self) -> bool:
        """Return whether the server was frozen and not thawed since."""
        return self.running and self._frozen

    def start(self) -> None:
        """Return when the server answers; a frozen one is thawed. :raises ServerError: when it ends instead."""
        if not self.running:
            self._process = self._launch()
            self._frozen = False
        self.thaw()
        wait_until(self._started, f"{type(self).__name__} on port {self.port}", self.patience)

    def stop(self) -> None:
        """End the server in an orderly way, or by force after 5 s."""
        self.thaw()
        if self._process is not None and self.running:
            self._process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self.kill()

    def kill(self) -> None:
        """End the server at once with SIGKILL; what it was about to write is lost."""
        if self._process is not None:
            kill(family(self.pid))
            self._process.wait()

    def freeze(self) -> None:
        """Stop the process where it stands: clients wait for it, as for a host that hangs."""
        send(family(self.pid), signal.SIGSTOP)
        self._frozen = self.running

    def thaw(self) -> None:
        """Let a frozen server go on where it stood."""
        if self._frozen:
            send(family(self.pid), signal.SIGCONT)
        self._frozen = False

    def _started(self) -> bool:
        if not self.running:
            raise ServerError(f"{type(self).__name__} ended: {self.log.read_text(errors='replace')[-2000:]}")
        return self._answers()

    @abstractmethod
    def _launch(self) -> Process:
        """Start the process, which need not answer yet."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the server is ready to be used."""


def answers_http(port: int, path: str) -> bool:
    """Return whether a web server on that port of 127.0.0.1 answers the page with status 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
