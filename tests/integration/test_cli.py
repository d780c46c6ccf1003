"""``flask langpont``: what an operator types, and what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import Result
from flask import Flask

from example_app.servers import Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.cli import langpont

from .conftest import MakeApp, close, parts

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


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(langpont, arguments)


def tables(app: Flask) -> set[str]:
    return set(sqlalchemy.inspect(parts(app).repository.database.engine).get_table_names())


def test_init_db_makes_the_tables_and_may_run_again(bare: Flask) -> None:
    """A deployment calls it each time; data that is there stays."""
    for _ in range(3):
        result = run(bare, "init-db")
        assert (result.exit_code, result.output) == (0, "The session tables are there.\n")
        assert tables(bare) >= TABLES
        client = bare.test_client()
        with client.session_transaction() as session:
            session["_user_id"] = "7"
    with parts(bare).repository.database.engine.connect() as connection:
        count = connection.execute(sqlalchemy.text("SELECT count(*) FROM langpont_sessions")).scalar()
    assert count == 3


def test_status_names_missing_tables(bare: Flask) -> None:
    """The database answers, but nobody could sign in: exit code 1 and the command that helps."""

    def assert_missing(table: str) -> None:
        for arguments in (["status"], ["status", "--json"]):
            result = run(bare, *arguments)
            assert result.exit_code == 1
            assert table in result.output
            assert "`flask langpont init-db`" in result.output

    assert_missing("langpont_")
    run(bare, "init-db")
    assert run(bare, "status").exit_code == 0
    with parts(bare).repository.database.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE langpont_sessions"))
    assert_missing("langpont_sessions")


def test_status_of_a_healthy_application(make_app: MakeApp, replica: Valkey) -> None:
    """Every store with a line of its own; for programs as JSON."""
    app = make_app(REPLICA_URL=replica.url)
    result = run(app, "status")
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [
        ["primary", "ok"], ["replica", "ok"], ["database", "ok"],
    ]  # fmt: skip
    result = run(app, "status", "--json")
    assert (result.exit_code, json.loads(result.output)) == (0, {"primary": "ok", "replica": "ok", "database": "ok"})


def test_status_with_a_store_down(make_app: MakeApp, primary: Valkey) -> None:
    """Exit code 1; the store that does not answer is named, the others are asked all the same."""
    app = make_app()
    primary.kill()
    try:
        result = run(app, "status")
        assert result.exit_code == 1
        assert "primary    primary: unreachable" in result.output
        assert "database   ok" in result.output
        found = json.loads(run(app, "status", "--json").output)
        assert found["database"] == "ok"
        assert found["primary"].startswith("primary: unreachable")
    finally:
        primary.start()
    assert run(app, "status").exit_code == 0


def test_status_with_a_store_that_hangs(make_app: MakeApp, primary: Valkey) -> None:
    """It waits a bounded time and says so."""
    app = make_app()
    primary.freeze()
    try:
        result = run(app, "status", "--json")
    finally:
        primary.thaw()
    assert result.exit_code == 1
    assert json.loads(result.output)["primary"].startswith("primary: unreachable")


def test_init_db_without_a_database_says_what_to_check(make_app: MakeApp, tmp_path: Path) -> None:
    """A sentence instead of a traceback, with the setting in it."""
    app = make_app()
    close(app)
    (tmp_path / "sessions.sqlite3").unlink()
    (tmp_path / "sessions.sqlite3").mkdir()
    result = run(app, "init-db")
    assert result.exit_code == 1
    assert result.output.startswith("Error: database: ")
    assert "LANGPONT_SESSION_DATABASE_URL" in result.output
    assert "Traceback" not in result.output


def test_commands_without_the_extension_say_so(tmp_path: Path) -> None:
    """An application that forgot init_app learns what is missing."""
    result = run(Flask("app", instance_path=str(tmp_path)), "status")
    assert result.exit_code != 0
    assert "init_app" in str(result.exception) + result.output


# -- explain -----------------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- flask langpont explain: begin -->\n", "<!-- flask langpont explain: end -->\n"


def test_the_documented_table_is_what_explain_prints(make_app: MakeApp) -> None:
    """The docs' decision table is generated: paste the output of ``flask langpont explain`` when this fails."""
    documented = DOCS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    result = run(make_app(), "explain")
    assert result.exit_code == 0
    assert documented.strip() == result.output.strip()


def test_explain_shows_the_table_as_configured(make_app: MakeApp) -> None:
    """An operator sees what is in force, not what the docs say."""
    app = make_app(
        FEATURE_PRIORITIES={"language_preference": "high"}, BEHAVIOURS={"low": {1: "local_cache_fallback"}}
    )  # fmt: skip
    lines = run(app, "explain").output.splitlines()
    assert "| ui | 86400 s | language_preference | high | `lang preferred_lang temp_lang_override` |" in lines
    assert "| low | primary | local_cache_fallback | default_value | disable_feature | disable_feature |" in lines


def test_explain_asks_no_store(make_app: MakeApp, primary: Valkey) -> None:
    """What is configured can be read while everything is down."""
    app = make_app()
    primary.kill()
    try:
        assert run(app, "explain").exit_code == 0
    finally:
        primary.start()


def test_flask_finds_the_commands(tmp_path: Path, primary: Valkey) -> None:
    """The entry point is installed: ``flask langpont`` works in any application with the extension."""
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\n"
        "from flask_langpont_session import LangPontSession\n"
        f"app = Flask('shop', instance_path={str(tmp_path)!r})\n"
        f"app.config['LANGPONT_SESSION_REDIS_URL'] = {primary.url!r}\n"
        "LangPontSession(app)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "langpont", "init-db"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "The session tables are there.\n"), done.stderr
    assert (tmp_path / "langpont_session.sqlite3").stat().st_mode & 0o077 == 0
