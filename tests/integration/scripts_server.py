"""A server for the scripts, and the session that they work on."""

from __future__ import annotations

import subprocess
from pathlib import Path

from devservers.processes import spawn
from devservers.servers import Valkey
from tests.support.programs import required

DIGEST = "d" * 43


LIFE = 60_000


EMPTY = 30_000


class Redis(Valkey):
    """The system's redis-server, driven as Valkey is."""

    def _launch(self) -> subprocess.Popen[bytes]:
        return spawn([required("redis-server"), *self._options(), *self._extra], log=self.log)


def made(program: str, folder: Path) -> Valkey:
    """``valkey`` or ``redis``, not started yet."""
    if program == "redis":
        required("redis-server")
    return (Redis if program == "redis" else Valkey)(folder, appendonly=False)


def key(category: str, shadow: bool = False) -> str:
    return f"session:{category}:{{{DIGEST}}}{':anon' if shadow else ''}"
