"""``python -m benchmarks.blind``: faults that a seed chooses, and what an operator is told of each within 30 seconds.

Two hosts of two workers, Valkey with a replica, PostgreSQL and an SNS of our own. For each trial ``FOLDER/N.said.json``
has what ``status``, ``watch --once``, ``doctor``, the status page, the alerts and the log said, by the second, and
``FOLDER/N.was.json`` which fault it was: read the former first. ``--table FOLDER`` prints both side by side.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import random
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa

from benchmarks.blind_faults import FAULTS, PLACEBOS, Fault, Scene
from devservers.forks import Fork
from devservers.processes import wait_until
from tests.support.alerts_endpoint import TOPICS, Endpoint, environment_of
from tests.support.site import application
from tests.support.site.browser import Browser
from tests.support.site.hosts import Host, Stage, Worker, staged

LONGEST = 30.0
"""Seconds within which each reader has to name the cause."""

QUIET = 15.0
"""Seconds for which a placebo is watched: three times as long as an alert's condition has to hold."""

ROLE = "shop"
"""The application's user of the database, without rights of an administrator."""

Said = dict[str, list[tuple[float, str]]]
"""Reader → seconds since the fault began, and what it said."""


@contextmanager
def site(folder: Path) -> Iterator[tuple[Stage, Endpoint]]:
    """Start the stores and SNS. The application has a user of its own in the database."""
    with staged(folder, replica=True) as stage, Endpoint() as sns:
        engine, password = sa.create_engine(stage.database.url, isolation_level="AUTOCOMMIT"), secrets.token_hex(16)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'")
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}")
            connection.exec_driver_sql(f"ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {ROLE}")
        engine.dispose()
        url = sa.make_url(stage.database.url).set(username=ROLE, password=password).render_as_string(False)
        yield (
            replace(
                stage, database=cast(Any, SimpleNamespace(url=url, port=stage.database.port, server=stage.database))
            ),
            sns,
        )


@contextmanager
def hosts(stage: Stage, sns: Endpoint, folder: Path) -> Iterator[list[Host]]:
    """Start two hosts of two workers, well, with settings as an application has them."""
    stage = replace(stage, folder=folder)
    settings: dict[str, Any] = {"ALERT_TOPICS": TOPICS, "STATUS_PAGE": True, "ENVIRONMENT": "production"}
    with ExitStack() as ends:
        made = []
        for name in "ab":
            extra = environment_of(sns.url) | {application.HOST: f"host-{name}"}
            made.append(ends.enter_context(stage.host(name, 2, extra=extra, **settings)))
        yield made


def visits(workers: Sequence[Worker], over: threading.Event) -> None:
    """Sign in, look and append at every worker in turn, as users do, until it is over."""
    browsers = [Browser(worker.url, patience=2.0) for worker in workers]
    for number in range(sys.maxsize):
        for browser in browsers:
            browser.send("/sign-in", user=str(number % 20))
            browser.send("/append", entry=str(number))
            browser.get("/look")
            if over.wait(0.2):  # a visitor's pace
                return


# -- readers -----------------------------------------------------------------------------------------------------------


def command(worker: Worker, *arguments: str) -> str:
    """Return what ``flask langpont …`` says on a worker's host, and its exit code."""
    log = worker.folder / f"command-{secrets.token_hex(4)}"
    env = worker.environment() | {application.COMMAND: json.dumps(["langpont", *arguments])}
    code = Fork(application.__name__, log=log, env=env).wait(300)  # on a busy machine it is late, which is noted
    return f"{log.read_text(errors='replace')}exit code {code}"


def page(worker: Worker) -> str:
    """Return what the status page says of the present: its first two sections, without markup."""
    answer = Browser(worker.url, patience=2.0).get("/healthz/status")
    body = answer.body.partition("<h2")[2].partition('<section aria-labelledby="features">')[0]
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", f"<h2{body}")))
    return text if answer.ok else f"no page: {answer.status}"


def readers(scene: Scene, sns: Endpoint) -> dict[str, Callable[[], str]]:
    """Return reader → what it says now."""
    first = scene.workers[0]
    began = {worker: worker.log.stat().st_size for worker in scene.workers}
    urls = [argument for worker in scene.workers for argument in ("--url", worker.url)]

    def log() -> str:
        new = [worker.log.read_bytes()[size:].decode(errors="replace") for worker, size in began.items()]
        return "\n".join(new)

    def alerts() -> str:
        return "\n".join(f"{one.subject}\n{one.texts['default']}" for one in sns.sent)

    return {
        "status": lambda: command(first, "status"),
        "watch": lambda: command(first, "watch", "--once", *urls),
        "doctor": lambda: command(first, "doctor"),
        "page": lambda: "\n".join(map(page, scene.workers)),
        "alert": alerts,
        "log": log,
    }


def listen(fault: Fault, scene: Scene, sns: Endpoint) -> Said:
    """Ask every reader until all that have to name the cause have done so, or the time is over."""
    asked, said, longest = readers(scene, sns), Said(), LONGEST if fault.word else QUIET

    def ask(name: str) -> None:
        while (at := time.monotonic() - began) < longest and not named(fault, name, said):
            text = asked[name]()
            if not said.get(name) or said[name][-1][1] != text:
                said.setdefault(name, []).append((round(time.monotonic() - began, 1), text))
            # As an operator repeats a command; more looks would keep two cores busy.
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began - at)))

    with fault.happens(scene), ThreadPoolExecutor(len(asked)) as pool:
        began = time.monotonic()
        list(pool.map(ask, asked))
        said["log"].append((round(time.monotonic() - began, 1), asked["log"]()))  # all of it, for what contradicts
    return said


def named(fault: Fault, reader: str, said: Said) -> float | None:
    """Return the seconds until a reader named the cause."""
    if not fault.word:
        return None
    return next((at for at, text in said.get(reader, []) if re.search(fault.word, text, re.IGNORECASE)), None)


# -- trials ------------------------------------------------------------------------------------------------------------


def trial(fault: Fault, stage: Stage, sns: Endpoint, folder: Path) -> Said:
    """Return what was said of a fault by hosts that have seen none before. Return when it is over and all is calm."""
    with hosts(stage, sns, folder) as made, ExitStack() as ends:
        workers = [worker for host in made for worker in host.workers]
        over = threading.Event()
        visitors = threading.Thread(target=visits, args=(workers, over))
        ends.callback(visitors.join)
        ends.callback(over.set)
        visitors.start()
        wait_until(lambda: all(worker.is_well() for worker in workers), "calm before", 60)
        sns.reset()
        said = listen(fault, Scene(stage, made, folder), sns)
        wait_until(lambda: all(worker.is_well() for worker in workers), f"calm after {fault.name}", 120, pause=0.1)
    with stage.redis.client() as client:
        client.delete("session:hosts")  # what these hosts have told is no word of the next ones
    return said


def chosen(seed: int, trials: int, placebos: int, only: Sequence[str]) -> list[Fault]:
    """Return faults and placebos in an order that the seed decides; each comes once before any comes again."""
    if only:
        return [fault for fault in (*FAULTS, *PLACEBOS) if fault.name in only]
    chance = random.Random(seed)
    drawn = [one for many, of in ((trials, FAULTS), (placebos, PLACEBOS)) for one in drawn_from(chance, of, many)]
    return chance.sample(drawn, len(drawn))


def drawn_from(chance: random.Random, faults: Sequence[Fault], many: int) -> list[Fault]:
    """Return so many of them."""
    rounds = -(-many // len(faults))
    return [one for _ in range(rounds) for one in chance.sample(faults, len(faults))][:many]


def table(folder: Path) -> None:
    """Print each trial: the fault, and the second at which each reader named it, with its words."""
    for was in sorted(folder.glob("*.was.json"), key=lambda path: int(path.name.partition(".")[0])):
        number = was.name.partition(".")[0]
        fault = next(one for one in (*FAULTS, *PLACEBOS) if one.name == json.loads(was.read_text())["fault"])
        said: Said = json.loads((folder / f"{number}.said.json").read_text())
        print(f"\n{number}. {fault.name}: {fault.word or 'nothing is to be said'}")
        for reader in ("status", "watch", "doctor", "page", "alert", "log"):
            at = named(fault, reader, said)
            lines = said.get(reader, [(0.0, "")])[-1][1].splitlines()
            hits = [line for line in lines if fault.word and re.search(fault.word, line, re.IGNORECASE)]
            shown = hits[0] if hits else " | ".join(lines) if reader != "doctor" else " | ".join(problems(lines))
            mark = "-" if at is None else f"{at:g} s"
            print(
                f"   {reader:7}{mark:>7}{'  ' if reader in fault.by or not fault.word else ' *'}{shown.strip()[:400]}"
            )


def problems(lines: Sequence[str]) -> list[str]:
    """Return the lines of ``doctor`` that are about something wrong."""
    return [line for line in lines if line.startswith(("failure", "warning"))]


def main() -> int:
    """Run the trials, or print their table. Status 1: a reader that has to name a fault did not, or one told of a
    placebo."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blind", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="repeat what another run has drawn")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--placebos", type=int, default=4)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this fault; several times")
    parser.add_argument("--folder", type=Path, default=Path(f"build/blind-{os.getpid()}"))
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="print what a run has found")
    options = parser.parse_args()
    if options.table:
        table(options.table)
        return 0
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    options.folder.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with TemporaryDirectory(prefix="blind-") as name, site(Path(name)) as (stage, sns):
        faults = chosen(seed, options.trials, options.placebos, options.only)
        print(f"--seed {seed}: {len(faults)} trials, {options.folder}", flush=True)
        for number, fault in enumerate(faults, 1):
            said = trial(fault, stage, sns, Path(name) / str(number))
            (options.folder / f"{number}.said.json").write_text(json.dumps(said, indent=1))
            (options.folder / f"{number}.was.json").write_text(json.dumps({"fault": fault.name, "seed": seed}))
            missed = [reader for reader in fault.by if named(fault, reader, said) is None] if fault.word else []
            wrong += bool(missed) if fault.word else bool(said["alert"][-1][1])
            print(f"{number}: {len(missed)} readers missed it", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
