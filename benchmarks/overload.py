"""``python -m benchmarks.overload``: what users see of a site that has more to do than it can, its stores being well.

gunicorn with two workers of 1, 4 and 32 threads on a real Valkey and SQLite (or PostgreSQL), default settings,
signed-in users over 64 connections; a quarter of the requests compute 50 ms of pure Python. With ``--outage`` Redis is
stopped for the middle third and brought back. Prints for each number of threads the answers that showed a signed-in
user as a stranger, the levels that requests were at, answers of 5xx, and the time of answers as clients see it.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from devservers.processes import spawn
from devservers.servers import Postgres, Valkey

from .gunicorn import Gunicorn
from .load import load
from .outages.browser import Browser

WORKERS, CONNECTIONS, USERS = 2, 64, 64
COLUMNS = ("threads", "answers", "strangers", "0", "1", "2", "3", "4", "5xx", "other", "lost", "p50 ms", "p99 ms")
BUSY = "while True: sum(range(10000))"


def site_on(folder: Path, redis_url: str, database_url: str, threads: int) -> Gunicorn:
    """Return the site, not started yet."""
    settings = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "JOURNAL": str(folder / "journal.sqlite3")}
    env = {f"OVERLOAD_{name}": value for name, value in settings.items()}
    application = "benchmarks.overload_site:create_app()"
    return Gunicorn(folder, application, env=env, page="/read", workers=WORKERS, threads=threads)


def sign_in(port: int, user: int) -> str:
    """Return the Cookie header of a user that signed in."""
    browser = Browser(f"http://127.0.0.1:{port}")
    browser.send(f"/login/{user}")
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


def measure(folder: Path, valkey: Valkey, database_url: str, threads: int, arguments: Any) -> dict[str, float]:
    """Make one run."""
    with site_on(folder / "site", valkey.url, database_url, threads) as site, ExitStack() as stack:
        cookies = folder / "cookies"
        cookies.write_text("\n".join(sign_in(site.port, user) for user in range(USERS)), encoding="ascii")
        for _ in range(arguments.busy):
            neighbour = spawn([sys.executable, "-c", BUSY], log=folder / "busy.log")
            stack.callback(neighbour.kill)
        if arguments.outage:
            outage = threading.Thread(target=interrupt, args=(valkey, arguments.seconds / 3), daemon=True)
            outage.start()
            stack.callback(outage.join)
        return load("overload", site.port, cookies, connections=CONNECTIONS, seconds=arguments.seconds)


def interrupt(valkey: Valkey, seconds: float) -> None:
    """Let Redis be well for so long, then away, then back. The load lasts three times as long: no condition ends it."""
    time.sleep(seconds)
    valkey.stop()
    time.sleep(seconds)
    valkey.start()


def row(threads: int, found: dict[str, float]) -> list[str]:
    """Return a line of the report."""
    levels = [int(found.get(f"level{number}", 0)) for number in range(5)]
    failed, errors = int(found.get("failed", 0)), int(found.get("errors", 0))
    cells = [threads, sum(levels) + failed + errors, int(found.get("strangers", 0)), *levels, failed, errors]
    return [*map(str, cells), str(int(found.get("lost", 0))), f"{found['p50']:.0f}", f"{found['p99']:.0f}"]


def main() -> None:
    """Read the arguments, run, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of load, for each number of threads")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 32], help="of each of the two workers")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--outage", action="store_true", help="stop Redis for the middle third")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="other processes that compute all the time")
    parser.add_argument("--log", action="store_true", help="print what the site logged, too")
    arguments = parser.parse_args()
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS), flush=True)
    for threads in arguments.threads:
        with TemporaryDirectory(prefix="overload-") as name, ExitStack() as stack:
            folder = Path(name)
            valkey = stack.enter_context(Valkey(folder / "valkey"))
            url = f"sqlite:///{folder / 'sessions.sqlite3'}"
            if arguments.database == "postgresql":
                url = stack.enter_context(Postgres(folder / "postgres")).url
            found = measure(folder, valkey, url, threads, arguments)
            print("|", " | ".join(row(threads, found)), "|", flush=True)
            if arguments.log:
                print((folder / "site" / "log").read_text(errors="replace"), file=sys.stderr)


if __name__ == "__main__":
    main()
