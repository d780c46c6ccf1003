"""The page's connection to the servers' owner: one line of JSON each way, over a Unix socket.

Question: ``{"server": "primary" | "replica" | "database", "action": "stop" | "start" | "freeze" | "thaw"}`` or
``{"action": "age"}`` (the workers take their local copies for too old, until a Redis is started), or ``{"action":
"state"}``. Answer: ``{"servers": {name: "running" | "stopped" | "frozen"}, "aged": whether copies are too old, "aws":
what AWS was sent}``, and ``"error"`` with a sentence if the action failed.
"""

import json
import socket
import socketserver
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

SERVERS = ("primary", "replica", "database")
ACTIONS = ("start", "stop", "freeze", "thaw")


class Owner(Protocol):
    """The owner of the servers, which is asked through a ControlServer."""

    def act(self, server: str, action: str) -> None:
        """Do the action, and return when it is done. :raises Exception: with a sentence for the page."""

    def age(self) -> None:
        """Have copies count as too old, until a Redis is started."""

    @property
    def aged(self) -> bool:
        """Return whether copies count as too old."""

    def state(self) -> Mapping[str, str]:
        """Return the state of each server, by name."""

    def aws_received(self) -> Mapping[str, Any] | None:
        """Return metrics and messages; None: there is no AWS."""


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Answers for ``owner`` on the socket ``path``. The rights of the socket's folder decide which users may ask."""

    daemon_threads = True

    def __init__(self, path: Path, owner: Owner) -> None:
        self.owner = owner
        super().__init__(str(path), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            assert isinstance(self.server, ControlServer)
            answer = json.dumps(_answer(self.server.owner, line))
            with suppress(ConnectionError):  # a page that has waited for long enough hangs up
                self.wfile.write(answer.encode() + b"\n")


def _answer(owner: Owner, line: bytes) -> dict[str, Any]:
    error = None
    try:
        question = json.loads(line)
        if question["action"] == "age":
            owner.age()
        elif question["action"] != "state":
            _act(owner, question["server"], question["action"])
    except Exception as failed:  # a lab that cannot start a server still answers
        error = f"{type(failed).__name__}: {failed}"
    return {"servers": dict(owner.state()), "aged": owner.aged, "aws": owner.aws_received()} | (
        {"error": error} if error else {}
    )


def _act(owner: Owner, server: str, action: str) -> None:
    if server not in SERVERS or action not in ACTIONS:
        raise ValueError(f"no such server or action: {server}, {action}")
    owner.act(server, action)


def ask(path: Path, question: Mapping[str, str], *, timeout: float) -> dict[str, Any]:
    """Send one question. :raises OSError: no answer within ``timeout`` seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        with connection.makefile("rwb") as lines:
            lines.write(json.dumps(question).encode() + b"\n")
            lines.flush()
            answer = lines.readline()
    if not answer:
        raise ConnectionError("the lab hung up")
    parsed: dict[str, Any] = json.loads(answer)
    return parsed
