"""``python -m benchmarks.throughput``: requests a second under gunicorn, beside Flask-Session and Flask's own session.

The same pages and the same session of 1 KB, 64 signed-in users, on one real Valkey: two workers of one thread (sync),
and two of eight (gthread); without a network between, and with 0.25 ms of it in each direction. All sites are loaded in
turn in every round, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from devservers.servers import Valkey

from .gunicorn import Gunicorn
from .load import load
from .measure import ASKING, OURS, REFERENCE
from .network import Network
from .outages.browser import Browser
from .page import BENCHMARKS, table, write_into
from .throughput_site import KINDS, LEVEL_CHANGED, SITE

NAME = "throughput"
USERS = 64
DELAYS = (0.0, 0.00025)
THEME = "theme.[0-9][0-9][0-9]"


@dataclass(frozen=True)
class View:
    """A page. :param body: how each answer looks: a regular expression that is a pattern of Lua, too."""

    title: str
    path: str
    body: str


VIEWS = (
    View("read one", "/read-one", "hanako"),
    View("change one", "/change-one", THEME),
    View("read and change", "/read-change", f"hanako {THEME}"),
)


@dataclass(frozen=True)
class Workers:
    """The workers that gunicorn starts. :param connections: how many wait for answers at a time."""

    worker_class: str
    threads: int
    connections: int

    @property
    def title(self) -> str:
        """Return the title, for people."""
        return f"{self.worker_class}, 2 × {self.threads}"


SYNC, THREADED = Workers("sync", 1, 4), Workers("gthread", 8, 16)


@dataclass(frozen=True)
class Effort:
    """The amount of measuring.

    :param warm_up: rounds before those that count.
    :param seconds: of load, for each view of each site in each round.
    :param cases: workers, and seconds of network in each direction.
    """

    warm_up: int
    rounds: int
    seconds: float
    cases: Sequence[tuple[Workers, float]]


FULL = Effort(1, 5, 2, [(workers, delay) for workers in (SYNC, THREADED) for delay in DELAYS])
QUICK = Effort(0, 1, 0.2, [(SYNC, DELAYS[1])])


@dataclass(frozen=True)
class Sample:
    """One view of one site in one round. :param worker_cpu: seconds of each request; `server_cpu` likewise."""

    per_second: float
    p50: float
    p99: float
    worker_cpu: float
    server_cpu: float
    errors: int


@dataclass
class Case:
    """Workers and network, and what was found: (view, site) → a sample of each round."""

    title: str
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def ratio(self, view: str, site: str) -> float | None:
        """Return the requests a second against Flask-Session's of the same round. None: there were errors."""
        own, others = self.samples[view, site], self.samples[view, REFERENCE]
        if any(sample.errors for sample in (*own, *others)):
            return None
        return median(one.per_second / other.per_second for one, other in zip(own, others, strict=True))


class Different(Exception):
    """The sites do not do the same work: there is nothing to compare."""


@dataclass(frozen=True)
class Site:
    """One contestant under gunicorn, and the file of its users' cookies."""

    name: str
    server: Gunicorn
    cookies: Path

    def sign_in(self) -> None:
        """Sign all users in."""
        found = []
        for _ in range(USERS):
            browser = Browser(self.server.url)
            _body(browser, "/fill")
            found.append("; ".join(f"{name}={value}" for name, value in browser.cookies.items()))
        self.cookies.write_text("\n".join(found), encoding="ascii")

    def bodies(self) -> list[str]:
        """Return what one user is shown, views and session, in an order that is the same for all sites."""
        browser = Browser(self.server.url)
        paths = ["/fill", *(f"{view.path}?theme-{number:03d}" for number in range(3) for view in VIEWS), "/read-all"]
        return [_body(browser, path) for path in paths]

    def measure(self, view: View, workers: Workers, effort: Effort, valkey: Valkey, wrk: str | None) -> Sample:
        """Load the site with one view, and return the sample."""
        before = self._cpu(valkey)
        found = load(
            NAME,
            self.server.port,
            self.cookies,
            connections=workers.connections,
            seconds=effort.seconds,
            wrk_threads=1,
            env={"LOAD_VIEW": view.path, "LOAD_BODY": view.body},
            wrk=wrk,
        )
        after = self._cpu(valkey)
        requests = max(1.0, found.get("requests", 0.0))
        worker_cpu, server_cpu = ((new - old) / requests for new, old in zip(after, before, strict=True))
        errors = int(found.get("wrong", 0) + found.get("lost", 0)) + (requests <= 1)
        return Sample(requests / found["seconds"], found["p50"], found["p99"], worker_cpu, server_cpu, errors)

    def _cpu(self, valkey: Valkey) -> tuple[float, float]:
        workers = psutil.Process(self.server.pid).children()
        return sum(map(_cpu_seconds, workers)), _cpu_seconds(psutil.Process(valkey.pid))


def _body(browser: Browser, path: str) -> str:
    answer = browser.get(path)
    if not answer.ok:
        raise Different(f"{browser.url}{path} answered {answer.status}")
    return answer.body


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def sites(folder: Path, names: Sequence[str], redis_url: str, workers: Workers) -> Iterator[list[Site]]:
    """Run all sites, with their users signed in."""
    with ExitStack() as stack:
        made = []
        for name in names:
            own = folder / name
            own.mkdir(parents=True)
            server = Gunicorn(
                own,
                "benchmarks.throughput_site:create_app()",
                env={SITE: json.dumps([name, redis_url, str(own)])},
                page="/untouched",
                threads=workers.threads,
                worker_class=workers.worker_class,
            )
            made.append(Site(name, server, own / "cookies"))
            stack.callback(server.stop)
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(lambda site: site.server.start(), made))
        for site in made:
            site.sign_in()
        yield made


def compare(made: Sequence[Site]) -> None:
    """Check that all sites show one user the same. :raises Different: one does not."""
    expected = made[0].bodies()
    for site in made[1:]:
        if (found := site.bodies()) != expected:
            raise Different(f"{site.name} answers {found}, and {made[0].name} {expected}")


def measure(folder: Path, names: Sequence[str], effort: Effort, valkey: Valkey, wrk: str | None) -> Iterator[Case]:
    """Yield the measured cases."""
    for number, (workers, delay) in enumerate(effort.cases):
        with ExitStack() as stack:
            url, way = valkey.url, "no network between"
            if delay:
                network = stack.enter_context(Network(folder / f"network{number}", valkey.port, delay))
                url = network.instead_of(url)
                way = f"{delay * 1000:g} ms of network each way (a PING takes {network.round_trip() * 1000:.2f} ms)"
            case = Case(f"{workers.title}; {way}")
            made = stack.enter_context(sites(folder / str(number), names, url, workers))
            compare(made)
            for turn in range(effort.warm_up + effort.rounds):
                _say(f"{case.title}: round {turn + 1} of {effort.warm_up + effort.rounds}")
                for view in VIEWS:
                    for site in (*made[turn % len(made) :], *made[: turn % len(made)]):
                        sample = site.measure(view, workers, effort, valkey, wrk)
                        if turn >= effort.warm_up:
                            case.samples.setdefault((view.title, site.name), []).append(sample)
            compare(made)
            for site in made:
                if LEVEL_CHANGED in site.server.log.read_text(errors="replace"):
                    raise Different(f"{site.name}: {LEVEL_CHANGED}; an outage is not what is measured")
        yield case


def markdown(machine: str, cases: Sequence[Case]) -> str:
    """Return the report."""
    head = ("", "", "requests/s", "ratio", "p50, ms", "p99, ms", "CPU of workers, µs", "CPU of the server, µs")
    parts = [machine, "", "Before and after each case one user was shown the same by all sites; no request failed.", ""]
    if failed := sum(sample.errors for case in cases for samples in case.samples.values() for sample in samples):
        parts[2] = f"**{failed} requests failed or were answered otherwise: no ratio where they were.**"
    for case in cases:
        rows = [_cells(case, view, site, samples) for (view, site), samples in case.samples.items()]
        parts += [f"### {case.title}", "", table(head, sorted(rows, key=lambda row: _order(row[0])))]
    return "\n".join(parts)


def _order(title: str) -> int:
    return [view.title for view in VIEWS].index(title)


def _cells(case: Case, view: str, site: str, samples: Sequence[Sample]) -> list[str]:
    ratio = case.ratio(view, site)
    columns = zip(*((s.per_second, s.p50, s.p99, s.worker_cpu * 1e6, s.server_cpu * 1e6) for s in samples), strict=True)
    per_second, p50, p99, worker, server = map(median, columns)
    shown = "–" if ratio is None else f"{ratio:.2f}"
    return [
        view,
        KINDS[site].label,
        f"{per_second:.0f}",
        shown,
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{worker:.0f}",
        f"{server:.0f}",
    ]


def _machine(valkey: Valkey, wrk: str | None) -> str:
    with valkey.client() as client:
        found: Any = client.info("server")
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("gunicorn", "flask", "flask-session", "redis", "hiredis", "msgspec")
    )
    client = "wrk" if wrk else "a client of our own"
    return (
        f"{os.cpu_count()} cores for load, workers and server together, loopback; load by {client}. "
        f"Python {platform.python_version()}, Valkey {found.get('valkey_version')}, {packages}."
    )


def _say(text: str) -> None:
    print(f"\r{text:<110}\r", end="", file=sys.stderr, flush=True)


def contestants(near: str) -> list[str]:
    """Return their names, in the order of the report. :param near: with the near cache, without it, or both."""
    ours = {"on": [OURS], "off": [ASKING], "both": [OURS, ASKING]}[near]
    return [*ours, REFERENCE, "cookie"]


def main() -> None:
    """Print the report; fail if the sites do not do the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--near-cache", choices=("on", "off", "both"), default="both")
    parser.add_argument("--client", choices=("wrk", "own"), default="wrk", help="what loads; wrk if it is installed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every round's figures there")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md as well")
    options = parser.parse_args()
    wrk = shutil.which("wrk") if options.client == "wrk" else None
    with TemporaryDirectory(prefix="throughput-") as name, Valkey(Path(name) / "valkey", appendonly=False) as valkey:
        machine = _machine(valkey, wrk)
        names = contestants(options.near_cache)
        cases = list(measure(Path(name), names, QUICK if options.quick else FULL, valkey, wrk))
    _say("")
    text = markdown(machine, cases)
    print(text)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "cases": [_as_json(case) for case in cases]}, indent=1))
    if options.write:
        write_into(BENCHMARKS, NAME, text)


def _as_json(case: Case) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for (view, site), samples in case.samples.items():
        found.setdefault(view, {})[site] = {
            "ratio": case.ratio(view, site),
            "rounds": [asdict(sample) for sample in samples],
        }
    return {"title": case.title, "views": found}


if __name__ == "__main__":
    main()
