"""Facts that are read from files, processes and replies, which the tests give as text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from flask_langpont_session.diagnosis.facts import WebServer
from flask_langpont_session.diagnosis.findings import Unknown
from flask_langpont_session.diagnosis.read_application import open_connections, place_in
from flask_langpont_session.diagnosis.read_host import file_at, file_system_of, gunicorn, web_server_of, workers_of
from flask_langpont_session.diagnosis.read_redis import other_hosts_of, quickest

CLIENTS = b"""id=3 addr=127.0.0.1:51820 laddr=127.0.0.1:6379 fd=8 name= flags=N db=0 cmd=get
id=4 addr=10.0.0.7:51821 laddr=10.0.0.1:6379 fd=9 name= flags=N db=0 cmd=evalsha
id=5 addr=10.0.0.8:51822 laddr=10.0.0.1:6379 fd=9 name= flags=S db=0 cmd=replconf
id=6 addr=[2001:db8::9]:51822 laddr=[2001:db8::1]:6379 fd=9 name= flags=t db=0 cmd=evalsha
id=7 addr=/run/redis.sock:0 laddr=/run/redis.sock:0 fd=9 name= flags=U db=0 cmd=ping
id=8 addr=10.0.0.1:51824 laddr=10.0.0.1:6379 fd=9 name= flags=N db=0 cmd=client|list
"""


def test_hosts_beside_this_one_are_found_among_the_clients() -> None:
    """Neither this host, by any of its addresses, nor a replica counts."""
    assert other_hosts_of(CLIENTS, "10.0.0.1") == frozenset({"10.0.0.7", "2001:db8::9"})
    assert other_hosts_of(b"", "10.0.0.1") == frozenset()
    assert isinstance(other_hosts_of(NoPermissionError("no"), "10.0.0.1"), Unknown)


def test_the_quickest_answer_says_how_a_clock_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time that it took may be on either way."""
    ticks = iter([0.0, 0.4, 1.0, 1.1, 2.0, 2.9])
    monkeypatch.setattr("time.time", lambda: 1000.0)
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    took, clock = quickest(lambda: 1005.0)
    assert took == pytest.approx(0.1)
    assert clock.ahead == pytest.approx(4.95)
    assert clock.within == pytest.approx(0.051)


# -- gunicorn ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["shop:app"], (30, False, False)),
        (["-t", "120", "--preload", "shop:app"], (120, True, False)),
        (["--timeout=5", "-k", "gthread", "--bind", "127.0.0.1:80", "shop:app"], (5, False, True)),
        (["--threads", "8", "shop:create_app()"], (30, False, True)),
        (["--timeout", "0", "--timeout", "7", "shop:app"], (7, False, False)),
        (["-c", "file:other.py", "shop:app"], (90, True, True)),
        (["-c", "other.py", "-t", "3", "shop:app"], (3, True, True)),
        (["-c", "broken.py", "shop:app"], (30, False, False)),
        (["-c", "none.py", "shop:app"], (30, False, False)),
    ],
)
def test_gunicorn_s_options(tmp_path: Path, arguments: list[str], told: tuple[float, bool, bool]) -> None:
    """The command line counts more than the file, of which only constants are read."""
    (tmp_path / "other.py").write_text(
        "import os\ntimeout = 90\npreload_app = True\nworker_class = 'gthread'\nworkers = os.cpu_count()\n"
    )
    (tmp_path / "broken.py").write_text("timeout = (")
    assert gunicorn(arguments, tmp_path) == WebServer("gunicorn", *told)


def test_gunicorn_finds_its_file_by_itself(tmp_path: Path) -> None:
    """gunicorn finds the file by its name, where it is started."""
    (tmp_path / "gunicorn.conf.py").write_text("timeout = 12\n")
    assert gunicorn(["shop:app"], tmp_path) == WebServer("gunicorn", 12, False, False)


def test_options_that_are_none_are_not_known(tmp_path: Path) -> None:
    """Rather than a guess."""
    assert isinstance(gunicorn(["-t", "soon", "shop:app"], tmp_path), Unknown)


def process(folder: Path, arguments: str, *, variables: str = "", opened: Path | None = None) -> Path:
    """Make the folder of a process as Linux shows it."""
    (folder / "fd").mkdir(parents=True)
    (folder / "cmdline").write_text(arguments.replace(" ", "\0") + "\0")
    (folder / "environ").write_text(variables)
    (folder / "cwd").symlink_to(folder)
    if opened is not None:
        (folder / "fd" / "7").symlink_to(opened)
    return folder


def test_workers_are_those_that_have_the_journal_open(tmp_path: Path) -> None:
    """The workers have the options of their environment; whatever else stands there is not kept."""
    journal, processes = tmp_path / "journal", tmp_path / "proc"
    journal.touch()
    process(processes / "self", "")
    mine = "/venv/bin/python /venv/bin/gunicorn --env KEY=secret shop:app"
    process(processes / "41", mine, variables="A=1\0GUNICORN_CMD_ARGS=-t 4 --preload\0B=2", opened=journal)
    process(processes / "42", "/venv/bin/python run.py", opened=journal)
    process(processes / "43", mine, opened=tmp_path / "other")
    process(processes / str(os.getpid()), mine, opened=journal)
    found = workers_of(journal, processes)
    assert not isinstance(found, Unknown)
    assert [worker.pid for worker in found] == [41, 42]
    assert found[0].web_server == WebServer("gunicorn", 4, True, False)
    assert isinstance(found[1].web_server, Unknown) and "python" in found[1].web_server.why
    assert "secret" not in repr(found)


def test_a_process_that_hides_is_not_known(tmp_path: Path) -> None:
    """Gunicorn may rename its workers, and another user's cannot be looked at."""
    renamed = process(tmp_path / "1", "gunicorn:§worker§[shop:app]".replace("§", " "))
    (renamed / "cmdline").write_text("gunicorn: worker [shop:app]\0")
    assert isinstance(web_server_of(renamed), Unknown)
    unreadable = process(tmp_path / "3", "/venv/bin/gunicorn shop:app", variables="GUNICORN_CMD_ARGS=--env 'A=1")
    assert isinstance(web_server_of(unreadable), Unknown)
    assert isinstance(web_server_of(tmp_path / "2"), Unknown)
    assert isinstance(workers_of(tmp_path / "journal", tmp_path / "no-proc"), Unknown)


# -- files -------------------------------------------------------------------------------------------------------------

MOUNTS = r"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:21 / /var/lib/shop rw - nfs4 10.0.0.3:/shop rw
24 22 0:22 / /with\040blank rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/", "ext4"), ("/var/lib", "ext4"), ("/var/lib/shop/a/b", "nfs4"), ("/with blank", "tmpfs")],
)
def test_the_file_system_of_a_folder(tmp_path: Path, folder: str, kind: str) -> None:
    """The file system is that of the nearest mount point above the folder."""
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system_of(Path(folder), tmp_path / "mounts") == kind
    assert isinstance(file_system_of(Path(folder), tmp_path / "none"), Unknown)


def test_a_file_and_the_place_for_one(tmp_path: Path) -> None:
    """Looking makes nothing."""
    path = tmp_path / "new" / "journal"
    found = file_at(path)
    assert (found.is_there, found.size, found.is_absolute) == (False, 0, True)
    assert found.folder_mode == tmp_path.stat().st_mode & 0o7777
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(b"12345")
    path.chmod(0o640)
    Path(f"{path}-wal").write_bytes(b"123")
    found = file_at(path)
    assert (found.is_there, found.size, found.mode, found.owner) == (True, 8, 0o640, os.geteuid())
    assert found.free > 0


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("rediss://app:secret@cache.staging.example:6380/0", "cache.staging"),
        ("redis://cache.shop.dev", "cache.shop"),
        ("redis://cache", "cache"),
        ("unix:///run/redis.sock", ""),
        ("redis+sentinel://u:secret@s1,s2/mymaster?sentinel_password=secret", "mymaster"),
        ("redis+cluster://u:secret@n1,n2:7000", "n1 n2"),
        ("elasticache://shop-staging?region=eu-west-1", "shop-staging"),
    ],
)
def test_the_place_of_a_url(url: str, place: str) -> None:
    """The place is named without a password."""
    assert place_in(url) == place


def test_connections_of_an_engine_that_are_open(tmp_path: Path) -> None:
    """Connections in use count, and so do idle ones."""
    engine = create_engine(f"sqlite:///{tmp_path / 'a'}")
    assert open_connections(None) is None
    assert open_connections(engine) == 0
    with engine.connect():
        assert open_connections(engine) == 1
    assert open_connections(engine) == 1
    engine.dispose()
    assert open_connections(engine) == 0
    assert open_connections(create_engine("sqlite://", poolclass=NullPool)) == 0
