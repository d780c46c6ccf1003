"""``python -m benchmarks.hangs``: how soon the workers of a site notice that Redis hangs, idle and overloaded.

gunicorn with two workers on a real Valkey, default settings. Valkey is stopped (SIGSTOP), goes on when both workers
have noticed, and is stopped again when both use it again. *Idle*: one request at a time, each of which writes. Else the
load of ``benchmarks.overload``: 64 connections, a quarter of the requests compute 50 ms. A worker has noticed when its
level changes; it notes the time itself, so that a client that comes late to the answer does not count.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from devservers.processes import wait_until
from devservers.servers import Valkey

from .gunicorn import Gunicorn
from .load import load
from .outages.browser import Browser
from .overload import CONNECTIONS, USERS, WORKERS, sign_in, site_on

LONG = 60.0
REST = 2.0
"""Seconds for which all is well between two hangs."""


def moments(site: Gunicorn, since: float, level: int) -> list[float]:
    """Return when each worker that reached a level (at least 1, or 0) did so for the first time since a moment.

    :param since: seconds since 1970.
    """
    found: dict[str, float] = {}
    for line in site.log.read_text(errors="replace").splitlines():
        if line.startswith("LEVEL "):
            _, pid, at, new = line.split()
            if float(at) >= since and min(int(new), 1) == level:
                found.setdefault(pid, float(at))
    return list(found.values())


def _all(site: Gunicorn, since: float, level: int) -> Callable[[], bool]:
    return lambda: len(moments(site, since, level)) == WORKERS


@contextmanager
def asking(site: Gunicorn, cookies: Path, *, is_idle: bool, seconds: float) -> Iterator[None]:
    """Send requests in the background."""
    done = threading.Event()

    def one_at_a_time() -> None:
        browser = Browser(site.url)
        browser.send("/login/1")
        while not done.wait(0.02):
            browser.get("/write")

    def all_the_time() -> None:
        while not done.is_set():
            load("overload", site.port, cookies, connections=CONNECTIONS, seconds=seconds)

    thread = threading.Thread(target=one_at_a_time if is_idle else all_the_time, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(LONG)


def measure(folder: Path, threads: int, hangs: int, *, is_idle: bool) -> list[float]:
    """Return the seconds from each stop until each worker noticed."""
    with ExitStack() as stack:
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        site = stack.enter_context(
            site_on(folder / "site", valkey.url, f"sqlite:///{folder / 'sessions.sqlite3'}", threads)
        )
        cookies = folder / "cookies"
        cookies.write_text("\n".join(sign_in(site.port, user) for user in range(USERS)), encoding="ascii")
        stack.enter_context(asking(site, cookies, is_idle=is_idle, seconds=5))
        took: list[float] = []
        for _ in range(hangs):
            time.sleep(REST)  # all is well for a while, and the near cache fills
            stopped = time.time()
            valkey.freeze()
            wait_until(_all(site, stopped, 1), "noticed", LONG, 0.05)
            took += [at - stopped for at in moments(site, stopped, 1)]
            goes_on = time.time()
            valkey.thaw()
            wait_until(_all(site, goes_on, 0), "in use again", LONG, 0.05)
        return took


def main() -> None:
    """Read the arguments, run, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hangs", description=__doc__)
    parser.add_argument("--hangs", type=int, default=10, help="for each line of the table")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 32], help="of each of the two workers")
    arguments = parser.parse_args()
    print("| load | threads | hangs | p50 s | worst s |")
    print("|---|---|---|---|---|", flush=True)
    for is_idle, threads in [(True, 4), *((False, threads) for threads in arguments.threads)]:
        with TemporaryDirectory(prefix="hangs-") as name:
            took = measure(Path(name), threads, arguments.hangs, is_idle=is_idle)
        name = "idle" if is_idle else f"{CONNECTIONS} connections"
        print(
            f"| {name} | {threads} | {arguments.hangs} | {statistics.median(took):.2f} | {max(took):.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
