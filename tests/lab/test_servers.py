"""The servers that the lab and the tests run on: each verb, on the real programs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from devservers import processes
from devservers.leftovers import remove_leftovers
from devservers.postgres import postgres_program
from devservers.processes import alive, wait_until
from devservers.servers import Postgres, ServerError, Valkey

DAC_OVERRIDE = 1 << 1
"""The capability to pass over the rights of files, in /proc/PID/status."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "primary") as server:
        yield server


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path / "database") as server:
        yield server


def connect(server: Postgres, timeout: int = 5) -> "psycopg.Connection[tuple[object, ...]]":
    address = server.url.replace("+psycopg", "")
    return psycopg.connect(address, connect_timeout=timeout, autocommit=True)


def test_a_server_that_cannot_start_says_why(valkey: Valkey, tmp_path: Path) -> None:
    """A port that is taken, for instance."""
    with pytest.raises(ServerError, match="in use"):
        Valkey(tmp_path / "other", port=valkey.port).start()


def test_freeze_reaches_every_backend_of_postgres(postgres: Postgres) -> None:
    """An open connection hangs as well, not only new ones; and none is left of a server that is killed so, although
    what stands still would never notice that its postmaster is gone."""
    with connect(postgres) as connection:
        process = psutil.Process(connection.info.backend_pid)
        postgres.freeze()
        wait_until(lambda: bool(process.status() == psutil.STATUS_STOPPED), "backend stopped")
        with pytest.raises(psycopg.OperationalError):
            connect(postgres, timeout=2)
        postgres.thaw()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        postgres.freeze()
        postgres.kill()
        assert not alive(process)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has these rights one by one")
def test_postgres_starts_from_a_folder_that_only_its_owner_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout in root's home: PostgreSQL runs as another user, which may not enter it, and reaches its programs. Of
    all rights of root's it has that one."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    installed = Path(postgres_program("postgres")).parents[2]
    for package in (installed, installed.with_name(f"{installed.name}.libs")):
        shutil.copytree(package, home / package.name, ignore=shutil.ignore_patterns("pginstall", "include"))
    monkeypatch.syspath_prepend(home)
    with Postgres(tmp_path / "database") as server:
        assert server.pid is not None
        program = psutil.Process(server.pid).exe()
        assert Path(program).is_relative_to(home)
        status = Path(f"/proc/{server.pid}/status").read_text()
        with connect(server) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    rights = {name: int(value, 16) for name, value in re.findall(r"^(Cap(?:Prm|Eff)):\s*(\w+)$", status, re.MULTILINE)}
    assert set(rights) == {"CapPrm", "CapEff"}
    assert set(rights.values()) == {DAC_OVERRIDE if processes.is_root() else 0}


PARENT = """
import sys, pathlib, threading, time
from devservers.servers import Postgres, Valkey
folder = pathlib.Path(sys.argv[1])
servers = [Valkey(folder / "v"), Postgres(folder / "p")]
for server in servers:
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
print(*(server.pid for server in servers), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children of their parent's end")
def test_servers_die_with_their_parent_whatever_thread_started_them(tmp_path: Path) -> None:
    """kill -9 of the parent leaves no server, and the end of the starting thread ends none."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            servers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
            processes = [*servers, *servers[1].children()]  # some of these end by themselves: what serves a connection
            assert len(processes) > 3 and all(map(alive, servers))
        finally:  # else what failed would be hidden by a wait for the parent's end
            parent.kill()
    wait_until(lambda: not any(map(alive, processes)), "the end of all servers")
    remove_leftovers(tmp_path / "p" / "data")


def test_a_port_is_given_to_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server need not run yet, or may be down: no other process gets the port meanwhile."""
    mine = processes.free_port()
    elsewhere = f"from devservers import processes; processes.PORTS = [{mine}] * 100; print(processes.free_port())"
    other = subprocess.run([sys.executable, "-c", elsewhere], capture_output=True, text=True, check=False)
    assert f"no free port among 100 of [{mine}" in other.stderr
    processes.release(mine)
    other = subprocess.run([sys.executable, "-c", elsewhere], capture_output=True, text=True, check=True)
    assert other.stdout == f"{mine}\n"
