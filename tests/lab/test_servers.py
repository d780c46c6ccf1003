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
import redis

from devservers import processes
from devservers.leftovers import remove_leftovers
from devservers.postgres import postgres_program
from devservers.processes import alive, wait_until
from devservers.servers import Postgres, ServerError, Valkey
from devservers.valkey import SHORT

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


def test_a_valkey_comes_back_at_the_same_address_with_its_data(valkey: Valkey) -> None:
    """Killed or stopped; its append-only file is read back, and only then does start() return. Every verb may be
    repeated."""
    address = valkey.url
    for end in (valkey.kill, valkey.stop):
        with valkey.client() as client:
            client.set("key", end.__name__)
        end()
        end()
        assert not valkey.running and valkey.pid is None
        with valkey.client() as client, pytest.raises(redis.ConnectionError):
            client.ping()
        valkey.start()
        pid = valkey.pid
        valkey.start()
        with valkey.client() as client:
            assert client.get("key") == end.__name__
        assert (valkey.url, valkey.pid) == (address, pid)


def test_without_append_only_file_a_killed_valkey_is_empty(tmp_path: Path) -> None:
    """This is how a test gets a Redis that lost everything."""
    with Valkey(tmp_path, appendonly=False) as server:
        with server.client() as client:
            client.set("key", "value")
        server.kill()
        server.start()
        with server.client() as client:
            assert client.get("key") is None


def test_a_frozen_valkey_keeps_its_connections_and_says_nothing(valkey: Valkey) -> None:
    """Clients run into their time-outs until it is thawed, started or stopped."""
    with valkey.client(SHORT) as client:
        client.ping()
        for go_on in (valkey.thaw, valkey.start):
            valkey.freeze()
            assert valkey.running and valkey.frozen
            with pytest.raises(redis.TimeoutError):
                client.ping()
            go_on()
            assert not valkey.frozen
            assert client.ping()
    valkey.freeze()
    valkey.stop()
    assert not valkey.running


def test_a_replica_has_the_data_and_follows_again_after_the_primary_was_down(tmp_path: Path) -> None:
    """The replica finds the restarted primary by itself."""
    with (
        Valkey(tmp_path / "primary") as primary,
        Valkey(tmp_path / "replica", replica_of=primary) as replica,
        replica.client() as reader,
    ):
        with primary.client() as writer:
            writer.set("key", "value")
            assert writer.wait(1, 5000) == 1
        assert reader.get("key") == "value"
        primary.kill()
        assert reader.get("key") == "value"
        primary.start()
        with primary.client() as writer:
            writer.set("key", "new")
        wait_until(lambda: bool(reader.get("key") == "new"), "replication")
        primary.kill()
        replica.kill()
        replica.start()  # without a primary, it answers from its own file
        assert reader.ping()


def test_a_server_that_cannot_start_says_why(valkey: Valkey, tmp_path: Path) -> None:
    """A port that is taken, for instance."""
    with pytest.raises(ServerError, match="in use"):
        Valkey(tmp_path / "other", port=valkey.port).start()


def test_a_killed_postgres_keeps_what_was_committed(postgres: Postgres) -> None:
    """SIGKILL is not a crash of the host: commits survive although fsync is off."""
    with connect(postgres) as connection:
        connection.execute("CREATE TABLE t (a int)")
        connection.execute("INSERT INTO t VALUES (7)")
    address = postgres.url
    postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        connect(postgres)
    postgres.start()
    assert postgres.url == address
    with connect(postgres) as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(7,)]


def test_stop_ends_postgres_although_a_client_is_connected(postgres: Postgres) -> None:
    """The client is thrown out; the stop does not wait for it."""
    with connect(postgres) as connection:
        process = psutil.Process(connection.info.backend_pid)
        postgres.stop()
        assert not alive(process)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


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


def test_postgres_lets_no_client_in_without_its_password(postgres: Postgres) -> None:
    """A superuser of PostgreSQL can run programs as the server's user."""
    address = f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address, connect_timeout=5)


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
