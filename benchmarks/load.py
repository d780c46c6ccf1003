"""Load for a site: by wrk where it is installed, else by a client of our own."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from devservers.web import PROJECT

HERE = Path(__file__).parent

COOKIES = "LOAD_COOKIES"
"""The environment variable with the name of the file that has a Cookie header of each user in a line."""


def load(
    kind: str,
    port: int,
    cookies: Path,
    *,
    connections: int,
    seconds: float,
    wrk_threads: int = 2,
    env: Mapping[str, str] | None = None,
    wrk: str | None = shutil.which("wrk"),
) -> dict[str, float]:
    """Load a site and return the figures.

    :param kind: ``overload`` or ``throughput``: there is a script for wrk and a client of this name.
    :param cookies: a file with the Cookie header of a user in each line.
    :param seconds: how long. wrk takes whole seconds, at least one.
    :param env: what script and client find in their environment besides.
    :param wrk: where it is. None: use the client.
    """
    if wrk:
        command = [wrk, "--threads", str(wrk_threads), "--connections", str(connections), "--latency"]
        command += ["--duration", f"{math.ceil(seconds)}s", "--timeout", "60s"]
        command += ["--script", str(HERE / f"{kind}.lua"), f"http://127.0.0.1:{port}"]
    else:
        command = [sys.executable, "-m", f"benchmarks.{kind}_client", str(port), str(connections), str(seconds)]
    everything = {**os.environ, COOKIES: str(cookies), **(env or {})}
    done = subprocess.run(command, env=everything, cwd=PROJECT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
    return found
