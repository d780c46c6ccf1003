"""The lab as a process: it starts everything, answers its control socket, and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from devservers.janitor import processes_of
from devservers.processes import LONG, free_port, wait_until
from lab.__main__ import OF_THE_DEMO, SIGNALS
from lab.control import ControlServer, ask
from lab.servers import Lab


@dataclass
class Running:
    """A lab in a process of its own."""

    process: "subprocess.Popen[str]"
    folder: Path
    url: str
    told: list[str]

    def healthz(self) -> dict[str, object]:
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=10) as answer:
            parsed: dict[str, object] = json.load(answer)
        return parsed


@contextmanager
def running_lab(tmp_path: Path, *options: str) -> Iterator[Running]:
    """Start the lab as ``make demo`` does, with its temporary folder under ``tmp_path``."""
    command = [sys.executable, "-m", "lab", "--port", str(free_port()), *options]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            told: list[str] = []
            while not (found := re.search(r"http://\S+", told[-1] if told else "")):
                told.append(next(process.stdout))
            (folder,) = tmp_path.glob("langpont-lab-*")
            yield Running(process, folder, found[0], told)
        finally:
            process.kill()


def children_of(lab: Running) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(lab.process.pid).children(recursive=True)
    return found


def test_the_lab_says_what_it_starts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A line for each server, before the address of the application, and what the doctor says behind it. What a
    terminal or a supervisor sends is an orderly end: no process and no file is left."""
    assert set(SIGNALS) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    with running_lab(tmp_path) as lab:
        assert_each_server_was_told_of(lab)
        assert_the_doctor_is_content(lab)
        assert lab.healthz()["level"] == 0
        children = children_of(lab)
        names = {process.name() for process in children}
        assert {"valkey-server", "postgres"} <= names and len(processes_of(lab.folder)) >= 6
        lab.process.send_signal(signal.SIGTERM)
        assert lab.process.wait(LONG) == 0
    wait_until_gone(lab, children)


def wait_until_gone(lab: Running, children: list[psutil.Process]) -> None:
    wait_until(lambda: not processes_of(lab.folder), "the end of all processes")
    wait_until(lambda: not lab.folder.exists(), "the end of the folder")
    wait_until(lambda: not any(process.is_running() for process in children), "the end of the children")


def assert_each_server_was_told_of(lab: Running) -> None:
    lines = [line.strip() for line in lab.told]
    application = lab.url.rpartition(":")[2]
    found = [match[1] for line in lines if (match := re.fullmatch(r"(.+) runs on port \d+", line))]
    assert sorted(found) == ["AWS (moto)", "PostgreSQL", "The application", "Valkey, a replica", "Valkey, the primary"]
    assert f"The application runs on port {application}" in lines


def assert_the_doctor_is_content(lab: Running) -> None:
    """Assert that nothing fails, and that each warning is one that the demo has on purpose. On a busy machine the
    workers may have no near cache yet."""
    assert lab.process.stdout is not None
    first = next(line for line in lab.process.stdout if "flask langpont doctor" in line)
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (\w+?)s?\b", first)}
    warnings = [next(lab.process.stdout).split() for _ in range(counts["warning"])]
    assert counts["failure"] == 0
    assert {name for _, name, *_ in warnings} <= {f"{name}:" for name in (*OF_THE_DEMO, "near-cache")}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's end")
def test_the_lab_ends_when_make_is_killed(tmp_path: Path) -> None:
    """kill -9 of make, which cannot tell the lab that it is gone. A server that stands still at that moment cannot end
    by itself."""
    start = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'lab'])"
    environment = os.environ | {"TMPDIR": str(tmp_path), "MAKELEVEL": "1"}
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, env=environment) as make:
        assert make.stdout is not None
        next(line for line in make.stdout if "http://" in line)
        (folder,) = tmp_path.glob("langpont-lab-*")
        for server in ("primary", "database"):
            answer = ask(folder / "control", {"server": server, "action": "freeze"}, timeout=10)
            assert answer["servers"][server] == "frozen"
        make.kill()
    wait_until(lambda: not processes_of(folder) and not folder.exists(), "the end of everything")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(workers=1) as lab:
        yield lab


def test_the_control_socket_switches_the_servers(lab: Lab) -> None:
    """Each action does what it says, and one that is unknown is an answer, not an end. No other user may ask."""
    control = lab.folder / "control"

    def act(server: str, action: str) -> dict[str, object]:
        return ask(control, {"server": server, "action": action}, timeout=30)

    def are(servers: dict[str, str]) -> dict[str, object]:
        return {"servers": servers, "aged": False, "aws": None}

    everything = {"primary": "running", "replica": "running", "database": "running"}
    assert ask(control, {"action": "state"}, timeout=5) == are(everything)
    assert lab.folder.stat().st_mode & 0o077 == 0
    for server in everything:
        assert act(server, "stop") == are(everything | {server: "stopped"})
        assert act(server, "start") == are(everything)
        assert act(server, "freeze") == are(everything | {server: "frozen"})
        assert act(server, "thaw") == are(everything)
    assert ask(control, {"action": "age"}, timeout=5) == are(everything) | {"aged": True}
    assert act("database", "start")["aged"] is True
    assert act("replica", "start")["aged"] is False
    assert "no such server" in str(act("web", "stop")["error"])
    assert "error" in ask(control, {"action": "start"}, timeout=5)


def test_a_page_that_hangs_up_is_no_error(tmp_path: Path) -> None:
    """Its answer is dropped: the terminal shows no traceback of a page that has waited for too long."""
    owner = Mock(aged=False, **{"state.return_value": {}, "aws_received.return_value": None})
    here, there = socket.socketpair()
    there.sendall(b'{"action": "state"}\n')
    there.close()
    with ControlServer(tmp_path / "control", owner) as server, here:
        server.finish_request(here, "")
    assert owner.state.called


def test_a_taken_port_is_refused_in_one_line() -> None:
    """The port is refused before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "lab", "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2 and "is taken" in ended.stderr
