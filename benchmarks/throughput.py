"""``python -m benchmarks.throughput``: requests a second under gunicorn, beside Flask-Session and Flask's own session.

The same pages and the same session of 1 KB, 64 signed-in users, on one real Valkey: two workers of one thread (sync),
and two of eight (gthread); without a network between, and with 0.25 ms of it in each direction. All sites are loaded by
wrk in turn in every round, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from devservers.processes import spawn
from devservers.server import Server, answers_http
from devservers.servers import Valkey
from devservers.web import PROJECT
from flask_langpont_session.events import level_changed
from tests.support.site.browser import Browser

from .contestants import Contestant, FlaskSession, Ours, OursWithoutNearCache, SignedCookie
from .network import Network
from .page import arguments, machine, publish, say, table
from .scenarios import VALUE, data_of

USERS = 64
DELAYS = (0.0, 0.00025)
THEME = "theme.[0-9][0-9][0-9]"
KINDS: dict[str, type[Contestant]] = {
    kind.name: kind for kind in (OursWithoutNearCache, FlaskSession, SignedCookie, Ours)
}
VIEWS = {
    "read one": ("/read-one", "hanako"),
    "change one": ("/change-one", THEME),
    "read and change": ("/read-change", f"hanako {THEME}"),
}
"""Title → path, and how each answer looks: a pattern of Lua."""


@dataclass(frozen=True)
class Workers:
    """The workers that gunicorn starts. :param connections: how many wait for answers at a time."""

    worker_class: str
    threads: int
    connections: int


SYNC, THREADED = Workers("sync", 1, 4), Workers("gthread", 8, 16)


@dataclass(frozen=True)
class Effort:
    """The amount of measuring.

    :param warm_up: rounds before those that count.
    :param seconds: of load, for each view of each site in each round.
    :param views: titles of pages.
    :param cases: workers, and seconds of network in each direction.
    """

    warm_up: int
    rounds: int
    seconds: int
    views: Sequence[str]
    cases: Sequence[tuple[Workers, float]]


FULL = Effort(1, 5, 2, list(VIEWS), [(workers, delay) for workers in (SYNC, THREADED) for delay in DELAYS])
QUICK = Effort(0, 1, 1, ["read and change"], [(SYNC, DELAYS[1])])


class Different(Exception):
    """The sites do not do the same: there is nothing to compare."""


# -- a site ------------------------------------------------------------------------------------------------------------

SITE = "THROUGHPUT_SITE"
"""The environment variable with the contestant, Redis and the folder of what else is kept, as JSON."""

LEVEL_CHANGED = "a store was lost or found again"

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def create_app() -> Application:
    """Return a contestant's application whose pages take their value from the query, and ``/fill`` the session of 1
    KB."""
    name, redis_url, folder = json.loads(os.environ[SITE])
    contestant = KINDS[name](redis_url, Path(folder))
    level_changed.connect(_say_so, sender=contestant.app)
    data = data_of("1 KB")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[VALUE] = data if environ["PATH_INFO"] == "/fill" else environ["QUERY_STRING"]
        return contestant.app.wsgi_app(environ, start_response)

    return application


def _say_so(app: object, *, event: object) -> None:
    print(LEVEL_CHANGED, flush=True)


class Site(Server):
    """A contestant under gunicorn as it comes: no worker gives way to its siblings."""

    def __init__(self, folder: Path, name: str, redis_url: str, workers: Workers) -> None:
        super().__init__(folder)
        self.name, self.workers = name, workers
        self._env = os.environ | {SITE: json.dumps([name, redis_url, str(folder)])}
        self._cookies = folder / "cookies"

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--workers", "2"]
        command += ["--worker-class", self.workers.worker_class, "--threads", str(self.workers.threads)]
        command += ["--backlog", "1024", "--keep-alive", "60", "--worker-connections", "1000", "--no-control-socket"]
        return spawn([*command, "benchmarks.throughput:create_app()"], log=self.log, cwd=PROJECT, env=self._env)

    def _answers(self) -> bool:
        return answers_http(self.port, "/untouched")

    def sign_in(self) -> None:
        """Fill the users' sessions."""
        browsers = [Browser(f"http://127.0.0.1:{self.port}") for _ in range(USERS)]
        for self.browser in browsers:
            self._body("/fill")
        cookies = ("; ".join(f"{name}={value}" for name, value in browser.cookies.items()) for browser in browsers)
        self._cookies.write_text("\n".join(cookies), encoding="ascii")

    def bodies(self) -> list[str]:
        """Return what one user is shown. :raises Different: an error, or a store was lost."""
        if LEVEL_CHANGED in self.log.read_text(errors="replace"):
            raise Different(f"{self.name}: {LEVEL_CHANGED}; an outage is not what is measured")
        return [self._body(path) for path in ("/change-one?theme-007", "/read-change?theme-008", "/read-all")]

    def _body(self, path: str) -> str:
        answer = self.browser.get(path)
        if not answer.ok:
            raise Different(f"{self.name}: {path} answered {answer.status}")
        return answer.body

    def load(self, path: str, body: str, seconds: int) -> dict[str, float]:
        """Have wrk load a page, and return its figures."""
        wrk = shutil.which("wrk")
        if wrk is None:
            raise SystemExit("wrk is not installed (apt install wrk)")
        command = [wrk, "--threads", "1", "--connections", str(self.workers.connections), "--latency"]
        command += ["--duration", f"{seconds}s", "--timeout", "60s", "--script", "benchmarks/throughput.lua"]
        env = os.environ | {"LOAD_COOKIES": str(self._cookies), "LOAD_VIEW": path, "LOAD_BODY": body}
        command.append(f"http://127.0.0.1:{self.port}")
        done = subprocess.run(command, env=env, cwd=PROJECT, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
        return found

    def cpu(self) -> float:
        """Return the seconds of processors that the workers have used."""
        return sum(map(_cpu_seconds, psutil.Process(self.pid).children()))


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def sites(folder: Path, redis_url: str, workers: Workers) -> Iterator[list[Site]]:
    """Run all sites, with their users signed in."""
    with ExitStack() as stack:
        made = [Site(folder / name, name, redis_url, workers) for name in KINDS]
        for site in made:
            stack.callback(site.stop)
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(Site.start, made))
        for site in made:
            site.sign_in()
        yield made


def compare(made: Sequence[Site]) -> None:
    """Check that all sites show one user the same. :raises Different: one does not."""
    bodies = {site.name: site.bodies() for site in made}
    if any(found != bodies[made[0].name] for found in bodies.values()):
        raise Different(f"the sites do not answer the same: {bodies}")


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One view of one site in one round. :param worker_cpu: microseconds of each request; `server_cpu` likewise."""

    per_second: float
    p50: float
    p99: float
    worker_cpu: float
    server_cpu: float
    errors: int


def sample(site: Site, view: str, seconds: int, valkey: Valkey) -> Sample:
    """Load a site with one view."""
    server = psutil.Process(valkey.pid)
    worker_cpu, server_cpu = site.cpu(), _cpu_seconds(server)
    found = site.load(*VIEWS[view], seconds)
    requests = max(1.0, found["requests"])
    return Sample(
        requests / found["seconds"],
        found["p50"],
        found["p99"],
        (site.cpu() - worker_cpu) / requests * 1e6,
        (_cpu_seconds(server) - server_cpu) / requests * 1e6,
        int(found["wrong"] + found["lost"]) + (requests <= 1),
    )


@dataclass
class Case:
    """Workers and network, and what was found: (view, site) → a sample of each round."""

    title: str
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def ratio(self, view: str, site: str) -> str:
        """Return the requests a second against Flask-Session's of the same round; –: there were errors."""
        pairs = list(zip(self.samples[view, site], self.samples[view, FlaskSession.name], strict=True))
        if any(own.errors or other.errors for own, other in pairs):
            return "–"
        return f"{median(own.per_second / other.per_second for own, other in pairs):.2f}"


def measure(folder: Path, effort: Effort, valkey: Valkey) -> Iterator[Case]:
    """Yield the measured cases."""
    for number, (workers, delay) in enumerate(effort.cases):
        with ExitStack() as stack:
            url, way = valkey.url, "no network between"
            if delay:
                network = stack.enter_context(Network(folder / f"network{number}", valkey.port, delay))
                url = network.instead_of(url)
                way = f"{delay * 1000:g} ms of network each way (a PING takes {network.round_trip() * 1000:.2f} ms)"
            case = Case(f"{workers.worker_class}, 2 × {workers.threads}; {way}")
            made = stack.enter_context(sites(folder / str(number), url, workers))
            compare(made)
            for turn in range(effort.warm_up + effort.rounds):
                say(f"{case.title}: round {turn + 1} of {effort.warm_up + effort.rounds}")
                for view in effort.views:
                    for site in (*made[turn % len(made) :], *made[: turn % len(made)]):
                        found = sample(site, view, effort.seconds, valkey)
                        if turn >= effort.warm_up:
                            case.samples.setdefault((view, site.name), []).append(found)
            compare(made)
        yield case


def markdown(effort: Effort) -> str:
    """Measure, and return the report."""
    with TemporaryDirectory(prefix="throughput-") as name, Valkey(Path(name) / "valkey", appendonly=False) as valkey:
        cases = list(measure(Path(name), effort, valkey))
    where = "for load, workers and server together, loopback; load by wrk"
    said = "Before and after each case one user was shown the same by all sites; no request failed."
    if failed := sum(found.errors for case in cases for samples in case.samples.values() for found in samples):
        said = f"**{failed} requests failed or were answered otherwise: no ratio where they were.**"
    packages = ("gunicorn", "flask", "flask-session", "redis", "hiredis", "msgspec")
    parts = [machine(where, *packages).replace(" cores, ", " cores ", 1), "", said, ""]
    head = ("", "", "requests/s", "ratio", "p50, ms", "p99, ms", "CPU of workers, µs", "CPU of the server, µs")
    for case in cases:
        rows = [_cells(case, view, site) for view in effort.views for site in KINDS]
        parts += [f"### {case.title}", "", table(head, rows)]
    return "\n".join(parts)


def _cells(case: Case, view: str, site: str) -> list[str]:
    samples = case.samples[view, site]
    columns = zip(*((s.per_second, s.p50, s.p99, s.worker_cpu, s.server_cpu) for s in samples), strict=True)
    per_second, p50, p99, worker, server = map(median, columns)
    times = [f"{p50:.1f}", f"{p99:.1f}", f"{worker:.0f}", f"{server:.0f}"]
    return [view, KINDS[site].label, f"{per_second:.0f}", case.ratio(view, site), *times]


if __name__ == "__main__":
    options = arguments("benchmarks.throughput", __doc__).parse_args()
    publish(markdown(QUICK if options.quick else FULL), options, "throughput")
