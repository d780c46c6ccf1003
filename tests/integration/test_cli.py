"""``flask langpont``: what an operator types, and what comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import sqlalchemy
from flask import Flask

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Valkey
from devservers.web import PROJECT
from flask_langpont_session import LangPontSession
from flask_langpont_session.ops.cli.commands import IN_SHORT, langpont
from flask_langpont_session.stores.host.presence import FEATURES, NEAR, Presence
from flask_langpont_session.stores.redis.near import NearCache
from tests.faults.proxy import FaultProxy, delay
from tests.support import former_release
from tools.tables import application_table

from .behind import age_row, emptied, entry, row, sign_in, wait_for_level, wait_until_home, waiting
from .conftest import MakeApp, close, parts
from .shop import flask, run, write_shop

TABLES = {"langpont_sessions", "langpont_users"}


@pytest.fixture
def bare(primary: Valkey, database_url: str, tmp_path: Path) -> Iterator[Flask]:
    """An application whose database has no tables yet, on each engine in turn."""
    app = Flask("app", instance_path=str(tmp_path))
    app.config.update(
        TESTING=True,
        SECRET_KEY="test key of the test suite, 32+ bytes",
        LANGPONT_SESSION_REDIS_URL=primary.url,
        LANGPONT_SESSION_DATABASE_URL=database_url,
    )
    LangPontSession(app)
    yield app
    close(app)


def tables(app: Flask) -> set[str]:
    return set(sqlalchemy.inspect(parts(app).backend.database.engine).get_table_names())


def place(app: Flask) -> str:
    """Return the place of the application's tables, as an operator looks for it."""
    url = parts(app).backend.database.engine.url
    if url.get_backend_name() == "sqlite":
        return f"sqlite, {url.database}"
    return f"{url.get_backend_name()}, database {url.database!r} on {url.host}:{url.port}"


def test_init_db_makes_the_tables_and_may_run_again(bare: Flask) -> None:
    """A deployment calls it each time; data that is there stays."""
    for _ in range(3):
        result = run(bare, "init-db")
        assert (result.exit_code, result.output) == (0, f"The session tables are there: {place(bare)}.\n")
        assert tables(bare) >= TABLES
        client = bare.test_client()
        with client.session_transaction() as session:
            session["_user_id"] = "7"
    with parts(bare).backend.database.engine.connect() as connection:
        count = connection.execute(sqlalchemy.text("SELECT count(*) FROM langpont_sessions")).scalar()
    assert count == 3


def test_a_dry_run_prints_what_init_db_runs(bare: Flask) -> None:
    """It makes no table, and no file of SQLite; for tables that are there it prints nothing to run."""
    engine, ran = parts(bare).backend.database.engine, list[str]()
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    printed = run(bare, "init-db", "--dry-run")
    assert printed.exit_code == 0
    assert file is None or not Path(file).exists()
    assert not tables(bare) & TABLES
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *told: ran.append(told[2].strip()))
    run(bare, "init-db")
    made = [statement for statement in ran if statement.startswith("CREATE")]
    assert sorted(printed.output.split(";\n")) == sorted(["", *made])
    there = run(bare, "init-db", "--dry-run")
    assert (there.exit_code, there.output) == (0, f"-- The session tables are there: {place(bare)}.\n")


def test_a_dry_run_names_one_table_that_is_missing(bare: Flask) -> None:
    run(bare, "init-db")
    with parts(bare).backend.database.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE langpont_users"))
    printed = run(bare, "init-db", "--dry-run").output
    assert "CREATE TABLE langpont_users (" in printed and "langpont_sessions" not in printed


def test_status_names_missing_tables(bare: Flask) -> None:
    """The database answers, but no user could sign in: exit code 1 and the command that helps."""

    def assert_missing(table: str) -> None:
        for arguments in (["status"], ["status", "--json"]):
            result = run(bare, *arguments)
            assert result.exit_code == 1
            assert table in result.output
            assert "`flask langpont init-db`" in result.output
            assert "DATABASE_URL" not in result.output, "it is right, and answers"

    bare.testing = False  # where they are made when they are needed
    assert_missing("langpont_")
    run(bare, "init-db")
    assert run(bare, "status").exit_code == 0
    with parts(bare).backend.database.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE langpont_sessions"))
    assert_missing("langpont_sessions")


def test_status_of_a_healthy_application(make_app: MakeApp, replica: Valkey) -> None:
    """Every store with a line of its own; for programs as JSON."""
    app = make_app(REPLICA_URL=replica.url)
    result = run(app, "status")
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [
        ["primary", "ok,", "near", "cache"], ["replica", "ok"], ["database", "ok"],
        ["journal", "ok,", "nothing", "waits"],
    ]  # fmt: skip
    result = run(app, "status", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "primary": "ok", "replica": "ok", "database": "ok", "journal": "ok",
        "near_cache": {"primary": "ok"}, "waiting": {"entries": 0, "oldest_seconds": None},
    }  # fmt: skip


def test_status_says_why_there_is_no_near_cache(make_app: MakeApp, primary: Valkey) -> None:
    """No store is lost for it: exit code 0."""
    app, switched_off = make_app(), make_app(MEMORY_BYTES=0)
    with primary.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-client|tracking")
        try:
            refused = run(app, "status")
            told = json.loads(run(app, "status", "--json").output)
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+client|tracking")
    assert (refused.exit_code, told["primary"]) == (0, "ok")
    assert "primary    ok, no near cache: the server refuses CLIENT TRACKING" in refused.output
    assert told["near_cache"]["primary"] in refused.output
    assert "primary    ok, near cache\n" in run(app, "status").output
    assert "primary    ok, no near cache: MEMORY_BYTES is 0" in run(switched_off, "status").output
    path = parts(app).backend.journal.file.path
    assert path is not None
    parts(app).backend.journal.close()
    near = path.with_name(f"{path.name}-register")
    near.unlink(missing_ok=True)
    near.symlink_to(path.with_name("elsewhere"))
    assert "primary    ok, no near cache: the file whose name ends in -register" in run(app, "status").output


def test_a_worker_with_a_near_cache_is_believed(make_app: MakeApp, primary: Valkey, monkeypatch: Any) -> None:
    """The trial of a command on a busy machine may run out of time, while the workers have one."""
    app = make_app()
    monkeypatch.setattr(NearCache, "why_not", lambda self: "no connection can be made for it")
    assert "primary    ok, no near cache: no connection can be made for it" in run(app, "status").output
    worker = Presence(parts(app).backend.journal.file.path, {})
    worker.say(json.dumps({NEAR: 2}))
    assert "primary    ok, near cache\n" in run(app, "status").output
    worker.end()


def test_status_with_a_store_down(make_app: MakeApp, primary: Valkey) -> None:
    """Exit code 1; the store that does not answer is named, the others are asked all the same."""
    app = make_app()
    primary.kill()
    try:
        result = run(app, "status")
        assert result.exit_code == 1
        assert "primary    unreachable" in result.output
        assert "database   ok" in result.output
        assert result.output.splitlines()[-1] == (
            "primary: start its server; or correct the port in LANGPONT_SESSION_REDIS_URL; see "
            "docs/operations.md#redis-connection-failed"
        )
        found = json.loads(run(app, "status", "--json").output)
        assert found["database"] == "ok"
        assert found["primary"].startswith("unreachable")
    finally:
        primary.start()
    healthy = run(app, "status")
    assert healthy.exit_code == 0
    assert "check" not in healthy.output


def test_status_has_a_cure_for_each_cause(make_app: MakeApp, primary: Valkey) -> None:
    """The cure fits the cause, although neither store is away, nor is a setting wrong."""
    app = make_app()
    locked = parts(app).backend.database.engine.connect()
    with primary.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
        locked.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            lines = run(app, "status").output.splitlines()
            watched = run(app, "watch", "--once").output
        finally:
            locked.close()
            client.execute_command("REPLICAOF", "NO", "ONE")
    cures = [line for line in lines if "docs/operations.md#" in line]
    assert [cure.partition(":")[0] for cure in cures] == ["primary", "database"]
    assert "REPLICAOF NO ONE" in cures[0] and cures[0].endswith("#redis-writes-refused")
    assert "another process holds the lock" in cures[1] and cures[1].endswith("#database-connection-failed")
    assert lines[-1] == "sign-ins are refused (503) for as long as the database takes no writes"
    assert ", sign-ins are refused (503), as found from here" in watched


def test_status_with_a_store_that_hangs(make_app: MakeApp, primary: Valkey) -> None:
    """It waits a bounded time and says so."""
    app = make_app()
    primary.freeze()
    try:
        result = run(app, "status", "--json")
    finally:
        primary.thaw()
    assert result.exit_code == 1
    assert json.loads(result.output)["primary"].startswith("unreachable")


@pytest.mark.real_time("what a busy process is late itself does not count as Redis being slow")
def test_status_tells_of_a_slow_redis_what_its_workers_do(make_app: MakeApp, primary: Valkey) -> None:
    """It answers, and in time for a command; workers do not use it."""
    with FaultProxy("127.0.0.1", primary.port) as proxy:
        app = make_app(REDIS_URL=proxy.url("redis"), REDIS_TIMEOUT=0.4)
        with proxy.failing(delay(0.35)):
            result = run(app, "status")
    assert result.exit_code == 1
    assert "primary    is slow" in result.output
    assert result.output.splitlines()[-1].startswith("primary: look at its processor")


def test_status_and_page_tell_of_a_journal_without_room(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next outage would lose what waits; the journal itself can be read, so it is no error of a store."""
    app = make_app(STATUS_PAGE=lambda request: True)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=3, f_frsize=1_048_576))
    result = run(app, "status")
    assert result.exit_code == 1
    assert "journal    3 MB are free: make room; without it what waits is lost, nothing waits" in result.output
    assert "Its disk is full (3 MB are free)" in app.test_client().get("/healthz/status").text


def test_status_takes_turns_with_the_monitor(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command waits for a round of the monitor of the same process, as under test. A probe of the database has
    one slot: the second one would look hung."""
    app = make_app()
    monitor, database = parts(app).monitor, parts(app).backend.database
    rounds, probe = list[threading.Thread](), database.probe

    def beside_a_round(timeout: float) -> None:
        if not rounds:
            rounds.append(threading.Thread(target=monitor.watch))
            rounds[0].start()
            rounds[0].join(0.2)
            assert rounds[0].is_alive(), "it did not wait"
        probe(timeout)

    monkeypatch.setattr(database, "probe", beside_a_round)
    assert "database   ok" in run(app, "status").output
    rounds[0].join(30)
    assert parts(app).health.level == 0


@pytest.mark.parametrize(
    ("command", "says"), [("init-db", "LANGPONT_SESSION_DATABASE_URL"), ("purge", "rows deleted before that: 0")]
)
def test_a_command_without_its_database_says_so(make_app: MakeApp, tmp_path: Path, command: str, says: str) -> None:
    """A sentence instead of a traceback, with the setting to check or what was done before."""
    app = make_app()
    close(app)
    (tmp_path / "sessions.sqlite3").unlink()
    (tmp_path / "sessions.sqlite3").mkdir()
    result = run(app, command)
    assert result.exit_code == 1
    assert result.output.startswith("Error: database: unreachable")
    assert says in result.output
    assert "Traceback" not in result.output


# -- explain -----------------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_documented_table_is_what_explain_prints(make_app: MakeApp) -> None:
    """Paste the output of ``flask langpont explain`` when this fails; the other preset's table is made by the site."""
    page = DOCS.read_text(encoding="utf-8")
    documented = page.partition("<!-- flask langpont explain: begin -->\n")[2].partition("<!-- flask")[0]
    for preset, table in {"langpont": documented, "application": application_table()}.items():
        result = run(make_app(PRESET=preset), "explain")
        assert result.exit_code == 0
        unfolded = re.sub(r"` \|\n\|[ |]+`", " ", result.output)
        assert table.strip() == unfolded.strip()
        assert max(map(len, result.output.splitlines())) <= 100


def test_help_and_lists_fit_a_terminal(make_app: MakeApp) -> None:
    """The commands stand in the order in which one needs them, each with a line of its own."""
    app = make_app()
    lines, parts = (
        run(app, *group, "--help").output.partition("Commands:\n")[2].splitlines() for group in ((), ("sessions",))
    )
    assert [line.split()[0] for line in lines] == list(IN_SHORT) == [*dict.fromkeys(IN_SHORT)]
    assert set(IN_SHORT) == set(langpont.commands) and len(parts) == 3
    assert not [line for line in lines + parts if "..." in line]
    assert max(map(len, run(app, "doctor", "--list").output.splitlines())) <= 100


def test_explain_shows_the_table_as_configured(make_app: MakeApp) -> None:
    """An operator sees what is in force, not what the docs say."""
    app = make_app(
        FEATURES={"language_preference": {"priority": "high"}}, BEHAVIOURS={"low": {1: "local_cache_fallback"}}
    )  # fmt: skip
    lines = run(app, "explain").output.splitlines()
    assert "| ui | 86400 s | language_preference | high | `lang preferred_lang temp_lang_override` |" in lines
    assert "| low | primary | local_cache_fallback | default_value | disable_feature | disable_feature |" in lines


def test_explain_names_what_the_workers_of_this_host_have_met(make_app: MakeApp) -> None:
    """Without a worker all features; with one those of which it has met a key, and how many others there are."""
    app = make_app(PRESET="application")
    path = parts(app).backend.journal.file.path
    worker = Presence(path, {})
    worker.say(json.dumps({FEATURES: ["authentication", "theme"]}))
    named = [line.split(" | ")[2] for line in run(app, "explain").stdout.split("session keys |\n")[1].splitlines()[1:]]
    assert [name for name in named if name.strip()] == ["authentication", "theme"]
    app = make_app(PRESET="application")
    assert "9 features more, of which no worker here has met a key: --all-features" in run(app, "explain").stderr
    worker.end()
    assert "flash_messages" in run(make_app(PRESET="application"), "explain").stdout


def test_explain_asks_no_store(make_app: MakeApp, primary: Valkey) -> None:
    """The configuration can be read while every store is down."""
    app = make_app()
    primary.kill()
    try:
        assert run(app, "explain").exit_code == 0
    finally:
        primary.start()


def flask_in_its_own_interpreter(folder: Path, *arguments: str, **config: Any) -> subprocess.CompletedProcess[str]:
    """The same, as it is typed."""
    write_shop(folder, **config)
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}"},
        capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip


def test_flask_finds_the_commands(tmp_path: Path, primary: Valkey) -> None:
    """The entry point is installed: ``flask langpont`` works in any application with the extension, and is one. The
    files are in the instance folder, whatever the name of that would mean in a URL."""
    folder = tmp_path / "100%25 shop?"
    folder.mkdir()
    done = flask_in_its_own_interpreter(folder, "langpont", "init-db", REDIS_URL=primary.url)
    said = f"The session tables are there: sqlite, {folder / 'langpont_session.sqlite3'}.\n"
    assert (done.returncode, done.stdout) == (0, said), done.stderr
    assert (folder / "langpont_session.sqlite3").stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("arguments", "makes_it"),
    [("langpont init-db", False), ("langpont explain", False), ("routes", False), ("langpont journal", True)],
)
def test_only_a_command_that_needs_the_journal_makes_it(
    tmp_path: Path, primary: Valkey, arguments: str, makes_it: bool
) -> None:
    """A command may be run as root, and the file would be root's: the workers, which run as another user, could not
    use it."""
    done = flask(tmp_path, *arguments.split(), REDIS_URL=primary.url)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "langpont_session_journal.sqlite3").exists() == makes_it
    assert makes_it or list(tmp_path.glob("langpont_session_journal*")) == []
    assert not makes_it or done.stdout.splitlines()[-2].split() == ["all", "nothing", "waits"]


def test_an_application_may_have_a_command_of_that_name(primary: Valkey, tmp_path: Path) -> None:
    """A command that the application has made before the extension is left alone."""
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="a key for tests", LANGPONT_SESSION_REDIS_URL=primary.url)
    app.cli.command("langpont")(lambda: click.echo("its own"))
    LangPontSession(app)
    assert run(app).output == "its own\n"
    close(app)


@pytest.mark.parametrize("command", ["init-db", "status", "journal", "explain", "purge"])
def test_an_application_without_the_extension_is_told_so_in_a_line(tmp_path: Path, command: str) -> None:
    """No traceback; exit code 1."""
    done = flask(tmp_path, "langpont", command, with_extension=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: LangPontSession is not set up for this application; call init_app(app)\n"


@pytest.mark.parametrize("arguments", [["langpont", "status"], ["run", "--port", "0"], ["routes"]])
def test_an_application_that_does_not_start_says_why(tmp_path: Path, arguments: list[str]) -> None:
    """Every mistake of its configuration in a line, without a traceback, whatever command is run; exit code 1."""
    done = flask(tmp_path, *arguments, REDIS_URL="http://h", GRACE=-1)
    assert done.returncode == 1
    head, *problems = done.stderr.splitlines()
    assert head == "Error: flask_langpont_session cannot start with this configuration:"
    settings = [re.match(r"  - LANGPONT_SESSION_(\w+): .+", problem) for problem in problems]
    assert [found and found[1] for found in settings] == ["GRACE", "REDIS_URL", "DATABASE_URL"]


@pytest.mark.parametrize("arguments", [["--help"], ["seed"]])
def test_an_application_that_does_not_start_hides_no_help(tmp_path: Path, arguments: list[str]) -> None:
    """Flask's commands go on if the application cannot be loaded: a message says why, without a traceback, and the
    application's commands are not known."""
    done = flask(tmp_path, *arguments, GRACE=-1)
    assert done.stderr.startswith("Error: flask_langpont_session cannot start with this configuration:\n  - LANGPONT_")
    assert "Traceback" not in done.stderr
    if arguments == ["--help"]:
        assert done.returncode == 0
        assert "  langpont " in done.stdout and "  routes " in done.stdout
    else:
        assert done.returncode == 2
        assert "Error: No such command 'seed'." in done.stderr


# -- journal -----------------------------------------------------------------------------------------------------------


def test_the_journal_says_what_waits(make_app: MakeApp, primary: Valkey) -> None:
    """The numbers are by kind and by users and visitors, while the workers go on; neither a digest nor a key nor a
    value is shown."""
    app, command = make_app(), make_app()
    user, visitor = sign_in(app, input_text="a secret text"), app.test_client()
    visitor.post("/set", json={"input_text": "before"})
    visitor.get("/all")
    primary.kill()
    try:
        user.get("/who")
        wait_for_level(app, 2)
        user.post("/set", json={"input_text": "another secret", "source_lang": "ja"})
        visitor.post("/set", json={"input_text": "during"})
        text, found = run(command, "journal"), json.loads(run(command, "journal", "--json").output)
        status, told = run(command, "status"), json.loads(run(command, "status", "--json").output)
        wait_until(lambda: health_of(app)["waiting"] == 3, "the health page says it")
        age = health_of(app)["oldest_seconds"]
    finally:
        primary.start()
    assert text.exit_code == 0
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in text.output.splitlines())
    assert re.fullmatch(r"3, the oldest for 0:00:\d\d", lines["writes"])
    assert lines["carries"] == lines["revocations"] == lines["user revocations"] == lines["pushes"] == "0"
    assert lines["sessions"] == "1 signed in, 1 visitor"
    assert re.fullmatch(r"3 wait, the oldest for 0:00:\d\d", lines["all"])
    # The worker shares its copies meanwhile: the file may have grown between the two.
    assert re.match(r"\d+ bytes, ", lines["file"]) and found["bytes"] > 0
    assert found["writes"]["entries"] == found["waiting"]["entries"] == 3
    assert 0 <= found["writes"]["oldest_seconds"] < 60
    assert found["sessions"] == {"signed_in": 1, "visitors": 1}
    assert found["bytes"] > 0
    assert re.search(r"^journal    ok, 3 wait, the oldest for 0:00:\d\d$", status.output, re.MULTILINE)
    assert (told["journal"], told["waiting"]["entries"]) == ("ok", 3)
    assert 0 <= age < 60
    for secret in (user.digest[:9], "secret", "input_text", "during"):
        assert secret not in text.output + json.dumps(found) + status.output
    wait_until_home(app)
    wait_until(lambda: health_of(app) == {"waiting": 0, "oldest_seconds": None}, "nothing waits")


def health_of(app: Flask) -> dict[str, Any]:
    """Return what a worker says of the journal."""
    found: dict[str, Any] = app.test_client().get("/healthz").get_json()["journal"]
    return found


def test_a_journal_that_cannot_be_read_says_why(make_app: MakeApp, tmp_path: Path) -> None:
    """One line, exit code 1; the stores of `status` are told all the same."""
    app = make_app()
    awake = health_of(app)
    assert awake["waiting"] == 0
    with parts(app).monitor.paused():
        parts(app).backend.journal.close()
        (tmp_path / "journal.sqlite3").write_bytes(b"not a database" * 100)
        result, status = run(app, "journal"), run(app, "status")
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert line.startswith("Error: ") and "SQLITE_NOTADB" in line and "journal --archive" in line
    assert status.exit_code == 1
    assert "primary    ok, near cache\n" in status.output
    assert "journal    journal: unreachable (SQLITE_NOTADB)" in status.output
    wait_until(lambda: health_of(app) == {"waiting": None, "oldest_seconds": None}, "that it is not known")


@pytest.mark.parametrize("lay", [former_release.make_older, former_release.damage])
def test_no_command_refuses_for_a_file_that_this_release_cannot_use(
    tmp_path: Path, primary: Valkey, lay: Callable[[Path], None]
) -> None:
    """D32: an older form, or something that is no journal. Doctor warns; `--archive` renames the file."""
    path = tmp_path / "langpont_session_journal.sqlite3"
    lay(path)
    before = path.read_bytes()

    def ran(*arguments: str) -> str:
        done = flask(tmp_path, "langpont", *arguments, REDIS_URL=primary.url)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ran("init-db")
    assert "journal    ok, nothing waits" in ran("status")
    assert f"{path}: " in ran("journal").splitlines()[-1]
    assert json.loads(ran("journal", "--json"))["unread"][0]["file"] == str(path)
    assert f"{path} is not used: " in flask(tmp_path, "langpont", "doctor", REDIS_URL=primary.url).stdout
    assert path.read_bytes() == before
    assert ran("journal", "--archive").startswith(f"{path} is {path.name}.aside-")
    assert not path.exists()
    assert ran("journal", "--archive") == "There is nothing that this release cannot read.\n"
    assert "unread" not in json.loads(ran("journal", "--json"))


def test_a_command_archives_a_damaged_journal(tmp_path: Path, primary: Valkey) -> None:
    """No worker starts with it, every command does, and the next worker makes a new one."""
    path = tmp_path / "langpont_session_journal.sqlite3-9"
    former_release.damage(path)
    assert flask(tmp_path, "langpont", "init-db", REDIS_URL=primary.url).returncode == 0
    shown = flask(tmp_path, "langpont", "journal", REDIS_URL=primary.url)
    assert (shown.returncode, "journal --archive" in shown.stderr) == (1, True)
    assert flask(tmp_path, "langpont", "status", REDIS_URL=primary.url).returncode == 1
    done = flask(tmp_path, "langpont", "journal", "--archive", REDIS_URL=primary.url)
    assert done.stdout.startswith(f"{path} is {path.name}.aside-")
    assert flask(tmp_path, "langpont", "journal", REDIS_URL=primary.url).returncode == 0


def test_what_each_worker_remembers_no_command_can_read(make_app: MakeApp) -> None:
    """JOURNAL = None: a sentence, exit code 1; `status` says nothing of it."""
    app = make_app(JOURNAL=None)
    result = run(app, "journal")
    assert result.exit_code == 1
    assert "LANGPONT_SESSION_JOURNAL is None" in result.output
    assert "journal" not in run(app, "status").output


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_sessions_are_listed_with_the_names_to_end_them_by(make_app: MakeApp) -> None:
    """One line per session on standard output, for other programs; the number of them beside it."""
    app = make_app()
    first, second = sign_in(app), sign_in(app)
    age_row(app, first.digest, 600_000)
    sign_in(app, "8")
    result = run(app, "sessions", "list", "7")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [first.digest, second.digest]
    for line in lines:
        assert re.fullmatch(r"\S{43}(  [\d-]{10} [\d:]{8}){2}", line)
    head = result.stderr.splitlines()[0]
    assert [head.index(name) for name in ("digest", "since (UTC)", "until, if unused")] == [0, 45, 66]
    assert "2 sessions of user 7" in result.stderr
    assert first.cookie.split(".")[0] not in result.output
    assert "1 session of user 8" in run(app, "sessions", "list", "8").stderr
    result = run(app, "sessions", "list", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "either a DIGEST or a --user"),
        (["A" * 43, "--user", "7"], "either a DIGEST or a --user"),
        (["7"], "43 characters"),
        (["A" * 43 + "."], "43 characters"),
    ],
    ids=["nobody", "both", "a user as a digest", "a cookie as a digest"],
)
def test_a_session_that_is_not_named_clearly_is_not_revoked(
    make_app: MakeApp, arguments: list[str], complaint: str
) -> None:
    """A usage error, exit code 2, and all users stay signed in."""
    app = make_app()
    client = sign_in(app)
    result = run(app, "sessions", "revoke", *arguments)
    assert result.exit_code == 2
    assert complaint in result.output
    assert client.get("/who").json["user"] == "7"


def test_a_digest_that_begins_with_a_dash_is_one(make_app: MakeApp) -> None:
    """One in sixty-four does: it can be given as it was listed."""
    app = make_app()
    client = sign_in(app)
    while not client.digest.startswith("-"):
        client = sign_in(app)
    result = run(app, "sessions", "revoke", client.digest)
    assert (result.exit_code, result.output) == (0, "1 session ended: the database knows it.\n")
    assert client.get("/who").json["user"] is None


def test_sessions_can_be_ended_while_redis_is_down(make_app: MakeApp, primary: Valkey) -> None:
    """The command is a process of its own; the workers of its host go on with what it left in the journal. A digest
    that has no row may be a visitor's, of whom only Redis could tell."""
    app, command = make_app(), make_app()
    client = sign_in(app)
    primary.kill()
    try:
        assert client.digest in run(command, "sessions", "list", "7").stdout
        result = run(command, "sessions", "revoke", client.digest)
        assert (result.exit_code, result.output) == (0, "1 session ended: the database knows it.\n")
        assert client.get("/who").json["user"] is None
        again, unknown = (run(command, "sessions", "revoke", digest).output for digest in (client.digest, "A" * 43))
        assert again.startswith("0 sessions ended (it was over before)")
        assert unknown.startswith("Not every store answers: whether there was such a session")
    finally:
        primary.start()
    wait_until_home(app)
    assert entry(primary, client.digest)["@live"] == "0"


@pytest.fixture
def on_postgres(make_app: MakeApp, postgres: Postgres) -> Iterator[tuple[Flask, Flask]]:
    """A worker and the command, on a database that can be killed."""
    url = emptied(postgres)
    yield make_app(DATABASE_URL=url), make_app(DATABASE_URL=url)
    postgres.start()


@pytest.mark.parametrize("by", ["digest", "user"])
def test_sessions_can_be_ended_while_the_database_is_down(
    on_postgres: tuple[Flask, Flask], postgres: Postgres, by: str
) -> None:
    """It says that the worker has to tell the database, and the worker does. A list cannot be given: a sentence, exit
    code 1."""
    app, command = on_postgres
    client = sign_in(app)
    postgres.kill()
    result = run(command, "sessions", "list", "7")
    assert result.exit_code == 1
    assert result.output.startswith("Error: the sessions cannot be listed: database: unreachable")
    result = run(command, "sessions", "revoke", *([client.digest] if by == "digest" else ["--user", "7"]))
    assert result.exit_code == 0
    assert "ended: the database does not answer; it waits in this host's journal." in result.output
    assert client.get("/who").json["user"] is None
    assert waiting(app)
    postgres.start()
    wait_until_home(app)
    assert not row(app, client.digest)["live"]


# -- footprint ---------------------------------------------------------------------------------------------------------


def test_the_footprint_names_all_that_a_removal_deletes(make_app: MakeApp, primary: Valkey, tmp_path: Path) -> None:
    """Each table, each key of Redis by its beginning, and each file and folder that is there."""
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path / 'sessions.sqlite3'}", KEY_PREFIX="shop")
    sign_in(app)
    (tmp_path / "journal.sqlite3-metrics").mkdir()  # as an exporter makes one
    before = set(map(str, tmp_path.iterdir()))  # a worker makes more beside its first request
    told: dict[str, set[str]] = {}
    for line in run(app, "footprint").output.splitlines():
        kind, name = line.split(maxsplit=1)
        told.setdefault(kind, set()).add(name if kind == "path" else name.split()[0])
    assert told["table"] == tables(app) == TABLES
    assert told["keys"] == {"shop:*"}
    assert {key.split(":")[0] for key in primary.client().scan_iter()} == {"shop"}
    assert before <= told["path"] <= set(map(str, tmp_path.iterdir()))


# -- purge -------------------------------------------------------------------------------------------------------------

DAY = 86_400_000


def count(app: Flask) -> int:
    with parts(app).backend.database.engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT count(*) FROM langpont_sessions")).scalar()
    return int(found or 0)


def test_purge_deletes_what_was_over_long_ago(bare: Flask) -> None:
    """Rows are deleted by the absolute expiry: a live session stays, and so does one that ended while its old cookie
    may still come."""
    run(bare, "init-db")
    database = parts(bare).backend.database

    def session_over_since(days: float, name: str) -> None:
        database.create(name, user_id="7", payload={}, idle_ms=DAY, absolute_ms=DAY)
        age_row(bare, name, int((days + 1) * DAY))

    for number, days in enumerate((-1, 0.9, 1.1, 6.9, 7.1)):
        session_over_since(days, f"session {number}")
    database.create("revoked", user_id="7", payload={}, idle_ms=DAY, absolute_ms=DAY)
    database.kill("revoked")
    result = run(bare, "purge", "--days", "7")
    assert (result.exit_code, result.output) == (0, "1 row deleted.\n")
    result = run(bare, "purge")
    assert (result.exit_code, result.output) == (0, "2 rows deleted.\n")
    result = run(bare, "purge")
    assert (result.exit_code, result.output) == (0, "0 rows deleted.\n")
    assert {info.digest for info in database.sessions_of("7")} == {"session 0", "session 1", "revoked"}


def test_purge_deletes_more_than_one_portion(make_app: MakeApp) -> None:
    """A table that was not cleared for a year is cleared by one call."""
    app = make_app()
    names = ("digest", "version", "live", "payload", "user_epoch", "created_at", "updated_at", "idle_expires_at",
             "absolute_expires_at")  # fmt: skip
    with parts(app).backend.database.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(f"INSERT INTO langpont_sessions ({', '.join(names)}) VALUES (:digest, 1, 0, '{{}}', "
                            "0, 0, 0, 0, 0)"),
            [{"digest": str(number)} for number in range(2001)],
        )  # fmt: skip
    result = run(app, "purge")
    assert (result.exit_code, result.output) == (0, "2001 rows deleted.\n")
    assert count(app) == 0


@pytest.mark.parametrize("days", ["0", "-1", "x", "0.5"])
def test_purge_takes_a_day_at_least(make_app: MakeApp, days: str) -> None:
    """Rows of sessions whose cookies may still come say that they are dead: they are needed."""
    app = make_app()
    client = sign_in(app)
    assert run(app, "purge", "--days", days).exit_code == 2
    assert row(app, client.digest)["live"]
