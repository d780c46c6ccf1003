"""D32: workers of the former release and of this one on one host, in an outage and under load. The former one is the
wheel in ``tests/releases/``."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from devservers.processes import LONG, children, spawn, wait_until
from devservers.server import Server, answers_http
from devservers.servers import Valkey
from devservers.web import PROJECT
from flask_langpont_session.stores.host.journal import journal_at
from tests.releases import two_releases
from tests.support import former_release
from tests.support.journal_process import end_all, let_go, output, process
from tests.support.journals import ref, write
from tests.support.site.browser import NO_ANSWER, Browser

from .shop import flask

USERS = 4


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package of the former release."""
    return former_release.unpack(tmp_path_factory.mktemp("former"))


# The journal alone


@pytest.fixture
def workers_end() -> Iterator[None]:
    yield
    end_all()


@pytest.mark.usefixtures("workers_end")
def test_a_sign_out_by_either_release_is_respected_by_the_other_one(former: Path, tmp_path: Path) -> None:
    """The sign-out holds at once, though no store knows it."""
    path = tmp_path / "journal"
    script = """
        journal.revocations.note("theirs")
        wait()
        print(journal.overlay(ref("mine")).revoked, sorted(journal.overlay(ref("d")).writes["translation"]))
        journal.revocations.mark_done("mine", "theirs", in_database=True, in_redis=True)
        journal.forget_writes(journal.pending_writes())
        print(journal.is_empty())
    """
    worker = process(script, path, environment=former_release.environment(former))
    assert worker.stdout and worker.stdin
    journal = journal_at(path)
    assert worker.stdout.readline() == "ready\n"
    journal.open()
    assert journal.overlay(ref("theirs")).revoked
    journal.revocations.note("mine")
    write(journal, "d", a=b"1", b=b"2")
    let_go_on(worker)
    assert output(worker) == "True ['a', 'b']\nTrue"
    assert journal.is_empty()
    journal.close()


@pytest.mark.usefixtures("workers_end")
def test_what_a_worker_of_either_release_has_seen_wiped_or_changed_is_known_to_the_other_one(
    former: Path, tmp_path: Path
) -> None:
    """A change in Redis may be in no copy that the host shares: a worker that does not reach Redis yet must know
    that its own data is outdated, and build nothing on it. Data in a near cache is asked for again."""
    path = tmp_path / "journal"
    script = """
        board = journal.board
        journal.is_empty()  # it has the journal open from here on
        board.note_version("theirs", "ui", 5000)
        board.note_wipe("wiped by them", "ui", 5000)
        near = [board.change_ids.of(digest) for digest in ("a", "b")]
        wait()
        board.change_ids.change("a", near[0])
        print([board.change_ids.of(digest) == before for digest, before in zip("ab", near)], flush=True)
        wait()
        print([board.change_ids.change(digest, board.change_ids.of(digest)) is None for digest in "ab"])
        print([board.change_ids.of(digest) == before for digest, before in zip("ab", near)])
        print([board.is_outdated("mine", "ui", version) for version in (4000, 5000)])
        print([board.is_wiped_since("wiped by me", "ui", version) for version in (4000, 5000)])
    """
    worker = process(script, path, environment=former_release.environment(former))
    assert worker.stdout and worker.stdout.readline() == "ready\n"
    with closing(journal_at(path)) as journal:
        register = journal.board.register
        journal.open()
        assert [register.is_outdated("theirs", "ui", version) for version in (4000, 5000)] == [True, False]
        assert [register.is_wiped_since("wiped by them", "ui", version) for version in (4000, 5000)] == [True, False]
        assert register.latest_version("theirs", "ui") == 5000
        register.note_version("mine", "ui", 5000)
        register.note_wipe("wiped by me", "ui", 5000)
        near = [register.of(digest) for digest in "ab"]
        let_go_on(worker)
        assert [worker.stdout.readline() for _ in range(2)] == ["[False, True]\n", "ready\n"]
        is_known = [register.change(digest, before) is None for digest, before in zip("ab", near, strict=True)]
        assert is_known == [True, False]
        let_go_on(worker)
        assert output(worker) == "[False, False]\n[False, False]\n[True, False]\n[True, False]"


def let_go_on(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin
    worker.stdin.write("\n")
    worker.stdin.flush()


@pytest.mark.usefixtures("workers_end")
def test_processes_of_both_releases_lose_nothing_of_what_they_write_at_once(former: Path, tmp_path: Path) -> None:
    """Increments that must not be lost or counted twice, while one after the other ends. The file is made by this
    release, as after going back."""
    path = tmp_path / "journal"
    script = """
        wait()
        for number in range(int(sys.argv[2])):
            journal.put([addition("d", "n"), value(f"{os.getpid()}.{number}", "a")], wait=20)
            journal.is_empty()
        print("done")
    """
    journal_at(path).open()
    of_former = former_release.environment(former)
    workers = [process(script, path, 40, environment=of_former), process(script, path, 120, environment=of_former)]
    workers += [process(script, path, 80) for _ in range(2)]
    let_go(workers)
    assert [output(worker) for worker in workers] == ["done"] * 4
    journal = journal_at(path)
    assert journal.overlay(ref("d")).deltas == {"translation": {"n": [("added..", 320)]}}
    assert journal.counts()["writes"] == 321
    journal.close()


# Applications under gunicorn


class Host(Server):
    """An application under gunicorn, whose workers import what `package` leads to when they are started."""

    stop_signal = signal.SIGQUIT

    def __init__(self, folder: Path, package: Path, settings: Mapping[str, str], workers: int = 2) -> None:
        super().__init__(folder)
        self._environment = {**former_release.environment(package), **settings}
        self._workers = workers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        # Without keep-alive each request finds any worker.
        options = ["--bind", f"127.0.0.1:{self.port}", "--workers", str(self._workers), "--threads", "4"]
        options += ["--keep-alive", "0", "--worker-tmp-dir", str(self.folder), "--no-control-socket"]
        options += ["--graceful-timeout", "20", "--chdir", str(Path(two_releases.__file__).parent)]
        command = [sys.executable, "-m", "gunicorn", *options, "two_releases:create_app()"]
        return spawn(command, log=self.log, cwd=self.folder, env=self._environment)

    def _answers(self) -> bool:
        return answers_http(self.port, "/healthz/live")

    def hang_up(self) -> None:
        assert self.pid
        os.kill(self.pid, signal.SIGHUP)

    def workers(self) -> set[int]:
        return set(children(self.pid))


@dataclass
class User:
    """One user, whose browser appends numbers to a list, one after the other."""

    visitor: Browser
    acknowledged: list[int] = field(default_factory=list)
    unknown: int = 0

    def append(self, number: int, url: str) -> None:
        """Append a number at a host. It is acknowledged if it is answered 200 and was saved anywhere."""
        answer = self.visitor.at(url).send("/append", number=str(number))
        if answer.status == NO_ANSWER:
            self.unknown += 1
            return
        assert answer.status == 200, answer.body
        assert answer.json["saved"] != "nowhere"
        if answer.json["saved"]:
            self.acknowledged.append(number)

    def has_lost(self, url: str) -> list[int]:
        """Return what was acknowledged and is not there, or not in its order. Ask again while a worker does not know:
        the journal may be too busy to answer."""
        answers: list[Any] = []

        def is_known() -> bool:
            answers.append(me(self.visitor.at(url)))
            return bool(answers[-1]["available"])

        wait_until(is_known, "an answer that knows")
        shown = answers[-1]
        left = iter(shown["numbers"])
        assert shown["count"] >= len(self.acknowledged)
        assert shown["count"] <= len(self.acknowledged) + self.unknown
        return [number for number in self.acknowledged if number not in left]


@contextmanager
def under_load(users: list[User], where: Callable[[random.Random], str]) -> Iterator[None]:
    """Every user appends all the time."""
    end, errors = threading.Event(), list[BaseException]()

    def go_on(user: User, chance: random.Random) -> None:
        try:
            for number in itertools.count(1):
                if end.is_set():
                    return
                user.append(number, where(chance))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go_on, args=(user, random.Random(n))) for n, user in enumerate(users)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(LONG)
    assert not errors, errors


@pytest.fixture
def settings(primary: Valkey, sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "FLASK_SECRET_KEY": "a secret key of the tests, long enough",
        "FLASK_SESSION_COOKIE_NAME": "langpont",
        "FLASK_SESSION_COOKIE_SECURE": "false",
        "FLASK_LANGPONT_SESSION_REDIS_URL": primary.url,
        "FLASK_LANGPONT_SESSION_DATABASE_URL": sqlite_url,
        "FLASK_LANGPONT_SESSION_JOURNAL": str(tmp_path / "shared" / "journal.sqlite3"),
        # A busy machine is no outage: the primary is killed when it is to be one.
        "FLASK_LANGPONT_SESSION_REDIS_TIMEOUT": "2",
        "FLASK_LANGPONT_SESSION_REQUEST_BUDGET": "10",
    }


def signed_in(url: str, number: int) -> User:
    visitor = Browser(url)
    assert visitor.send("/sign-in", user=f"user-{number}").status == 200
    return User(visitor)


def me(browser: Browser) -> Any:
    """Return what the session's user is shown."""
    answer = browser.get("/me")
    assert answer.status == 200, answer.body
    return answer.json


def answers_of(host: Host) -> dict[int, tuple[bool, int]]:
    """Ask until every worker has answered: process id → whether it is of the former release, and its level."""
    found: dict[int, tuple[bool, int]] = {}

    def have_all_answered() -> bool:
        shown = me(Browser(host.url))
        found[shown["pid"]] = shown["former"], shown["level"]
        return found.keys() >= host.workers()

    wait_until(have_all_answered, "an answer of every worker")
    return {pid: found[pid] for pid in host.workers()}


def levels_of(*hosts: Host) -> set[int]:
    """Return at which levels the workers answer."""
    return {level for host in hosts for _, level in answers_of(host).values()}


def seen_by_all(hosts: Sequence[Host], users: Sequence[User]) -> None:
    """Let each worker know what each user has, so that an outage hides nothing."""
    for user in users:
        user.append(0, hosts[0].url)
        for host in hosts:
            found = set[int]()
            wait_until(partial(_shows, host, user, found), "an answer of every worker")


def _shows(host: Host, user: User, found: set[int]) -> bool:
    shown = me(user.visitor.at(host.url))
    if shown["numbers"] == [0]:
        found.add(shown["pid"])
    return found >= host.workers()


def waits_for_none(path: Path) -> bool:
    journal = journal_at(path)
    try:
        return journal.waiting().entries == 0
    finally:
        journal.close()


def test_under_hup_the_former_workers_write_while_the_new_ones_start(
    former: Path, settings: dict[str, str], tmp_path: Path, primary: Valkey
) -> None:
    """Nothing acknowledged is lost in an outage of Redis, with requests all the time; who signed out stays signed
    out."""
    package, journal = tmp_path / "package", tmp_path / "shared" / "journal.sqlite3"
    package.symlink_to(former)
    with Host(tmp_path / "host", package, settings) as host:
        assert all(is_former for is_former, _ in answers_of(host).values())
        users = [signed_in(host.url, number) for number in range(USERS)]
        gone = signed_in(host.url, USERS)
        late = gone.visitor.twin()
        seen_by_all([host], users)
        primary.kill()
        wait_until(lambda: levels_of(host) == {2}, "level 2")
        with under_load(users, lambda chance: host.url):
            wait_until(lambda: not waits_for_none(journal), "changes that wait")
            assert gone.visitor.send("/sign-out").status == 200
            before = host.workers()
            package.unlink()
            package.symlink_to(PROJECT)
            host.hang_up()
            wait_until(lambda: not before & host.workers(), "the end of the former workers")
            assert not any(is_former for is_former, _ in answers_of(host).values())
            assert me(late)["user"] is None
            primary.start()
            wait_until(lambda: levels_of(host) == {0}, "level 0")
        wait_until(lambda: waits_for_none(journal), "the replay")
        assert [user.has_lost(host.url) for user in users] == [[]] * USERS
        assert me(late)["user"] is None
        assert all(user.acknowledged for user in users)


# The tables of the database


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_tables_of_the_former_release_serve_workers_of_both_and_the_way_back(
    former: Path, settings: dict[str, str], database_url: str, tmp_path: Path, primary: Valkey
) -> None:
    """They are as the SQL that a dry run of this release prints makes them. Two hosts share nothing but these, as Redis
    is lost: a sign-in and a sign-out at either are known to the other, and to the former release after this one has
    ended."""
    command = partial(flask, tmp_path, "langpont", REDIS_URL=primary.url, DATABASE_URL=database_url)
    of_this = made_by(command("init-db", "--dry-run").stdout, database_url)
    settings["FLASK_LANGPONT_SESSION_DATABASE_URL"] = database_url
    with Host(tmp_path / "old", former, settings | journal_in(tmp_path / "old"), workers=1) as old:
        assert described(database_url) == of_this
        assert command("init-db", "--dry-run").stdout.startswith("-- The session tables are there")
        assert command("init-db").returncode == 0
        names = [word for name in ("tables", "schema", "indexes", "database-writes") for word in ("--only", name)]
        looked = command("doctor", "--strict", *names)
        assert looked.returncode == 0, looked.stdout
        user = signed_in(old.url, 1).visitor
        with Host(tmp_path / "new", PROJECT, settings | journal_in(tmp_path / "new"), workers=1) as new:
            primary.kill()
            wait_until(lambda: levels_of(old, new) == {2}, "level 2")
            assert [[is_former for is_former, _ in answers_of(host).values()] for host in (old, new)] == [
                [True],
                [False],
            ]
            for number, (host, other) in enumerate(((old, new), (new, old)), start=2):
                browser = signed_in(host.url, number).visitor
                assert me(browser.at(other.url))["user"] == f"user-{number}"
                late = browser.twin()
                assert browser.send("/sign-out").status == 200
                # In an outage a worker believes for a moment what the database last told it.
                wait_until(partial(is_signed_out, late, old, new), "the end of the session on both hosts")
            stays = signed_in(new.url, 4).visitor
            assert me(user.at(new.url))["user"] == "user-1"
        assert [me(browser.at(old.url))["user"] for browser in (user, stays)] == ["user-1", "user-4"]
    assert described(database_url) == of_this


def made_by(statements: str, url: str) -> dict[str, Any]:
    """Return the tables that statements make in a database, and take these away again."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements.strip().rstrip(";").split(";\n"):
            connection.exec_driver_sql(statement)
    found = described(url)
    with engine.begin() as connection:
        for name in found:
            connection.exec_driver_sql(f"DROP TABLE {name}")
    engine.dispose()
    return found


def described(url: str) -> dict[str, Any]:
    """Return the tables of a database: columns and indexes."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found = {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)],
            sorted((str(index["name"]), index["column_names"]) for index in inspector.get_indexes(name)),
        )
        for name in inspector.get_table_names()
    }
    engine.dispose()
    return found


def is_signed_out(browser: Browser, *hosts: Host) -> bool:
    return all(me(browser.at(host.url))["user"] is None for host in hosts)


def journal_in(folder: Path) -> dict[str, str]:
    """Return the setting by which a host keeps its own journal."""
    return {"FLASK_LANGPONT_SESSION_JOURNAL": str(folder / "journal.sqlite3")}
