"""The commands of docs/commands.md: each can be given as it stands there, and prints what the page shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from devservers.processes import free_port
from devservers.servers import Valkey
from flask_langpont_session.cli import langpont
from flask_langpont_session.testing import switched_off
from tests.docs.console import commands
from tests.docs.pages import PAGES, ROOT, blocks_of
from tests.faults.matrix_servers import configured
from tests.topologies import acl

from .behind import sign_in
from .conftest import MakeApp
from .shop import run

PAGE = ROOT / "docs" / "commands.md"
INLINE = re.compile(r"`flask (?:--app \w+ )?langpont ([^`…]+)`|^\$? ?flask (?:--app \w+ )?langpont (.+)$", re.MULTILINE)

RUN_HERE = {"doctor", "status", "sessions", "purge", "journal", "drill"}
ELSEWHERE = {"alert-test": "test_alerts", "watch": "test_cli_watch"}
"""Commands whose blocks are not run here → the module that runs them, against servers of their own."""

_SHAPES = [
    (r"(?<![\w-])[\w-]{43}(?![\w-])", "DIGEST"),  # it may begin with a -
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"/\S+\.sqlite3", "FILE"),
    (r" \(at most [\d.]+ ms\)", ""),
    (r"\d+(?:[.:]\d+)*", "N"),
    (r"\b(session|key|byte|warning|failure)s\b", r"\1"),
    (r"\s+", " "),
]


def shape(line: str) -> str:
    """A line without what differs from one run to the next."""
    for pattern, instead in _SHAPES:
        line = re.sub(pattern, instead, line)
    return line.strip()


def shown(beginning: str) -> str:
    """Return the output of a command that the page shows."""
    found = [
        output
        for block in blocks_of(PAGE, "console")
        for command, output in commands(block)
        if command.startswith(f"flask langpont {beginning}")
    ]
    assert found, beginning
    return found.pop(0)


def assert_prints(printed: str, page: str) -> None:
    """Every line of the page, but for names, numbers and times."""
    missing = {shape(line) for line in page.splitlines() if "…" not in line} - set(map(shape, printed.splitlines()))
    assert not missing, printed


def told(app: Flask, *arguments: str) -> str:
    return run(app, *arguments).output


# -- what can be given -------------------------------------------------------------------------------------------------


def given() -> Iterator[tuple[Path, str]]:
    """Every command of all pages."""
    for page in PAGES:
        for match in INLINE.finditer(page.read_text(encoding="utf-8")):
            yield page, re.split(r"\s+[|>&]|[)\"']|\s+#", match[1] or match[2])[0]


@pytest.mark.parametrize(("page", "line"), sorted(set(given())), ids=lambda value: str(value).rpartition("/")[2])
def test_a_command_of_a_page_can_be_given(page: Path, line: str) -> None:
    """There is one of this name, with these options."""
    command: Any = langpont
    words = line.split()
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}


def test_every_block_is_run() -> None:
    """Here, or in the module that is named."""
    names = {command.split()[2] for block in blocks_of(PAGE, "console") for command, _ in commands(block)}
    assert names == RUN_HERE | {name.split()[0] for name in ELSEWHERE}
    for module in ELSEWHERE.values():
        assert (Path(__file__).parent / f"{module}.py").exists()


# -- what they print ---------------------------------------------------------------------------------------------------


@pytest.fixture
def site(make_app: MakeApp, primary: Valkey, replica: Valkey) -> Flask:
    return make_app(REPLICA_URL=replica.url)


def test_status(site: Flask) -> None:
    """The same names, and all is well."""
    sign_in(site)
    assert json.loads(told(site, "status", "--json")) == json.loads(shown("status --json"))


def test_sessions(site: Flask) -> None:
    """Two of user 42: listed, shown while something waits, ended."""
    one, other = (sign_in(site, "42", lang="ja", input_text="text", cart=["tea"]) for _ in range(2))
    assert_prints(told(site, "sessions", "list", "42"), shown("sessions list"))
    with switched_off(site, "primary"):
        other.post("/set", json={"input_text": "more"})
        printed = told(site, "sessions", "show", other.digest[:8])
        assert_prints(printed, shown("sessions show"))
    assert_prints(told(site, "sessions", "revoke", one.digest), shown("sessions revoke iy"))


def test_all_sessions_of_a_user(site: Flask) -> None:
    """Ending all sessions of a user prints what the page shows, with the database and without."""
    sign_in(site, "42")
    sign_in(site, "42")
    with_database, without = (
        output
        for block in blocks_of(PAGE, "console")
        for command, output in commands(block)
        if command.startswith("flask langpont sessions revoke --user")
    )
    assert_prints(told(site, "sessions", "revoke", "--user", "42"), with_database)
    with switched_off(site, "database"):
        assert_prints(told(site, "sessions", "revoke", "--user", "42"), without)


def test_purge_without_the_database(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    from flask_langpont_session.stores.sql.upkeep import Upkeep

    monkeypatch.setattr(Upkeep, "create_tables", lambda self: None)
    app = make_app(DATABASE_URL=f"postgresql+psycopg://app@127.0.0.1:{free_port()}/app")
    assert_prints(told(app, "purge"), shown("purge"))


def test_the_journal(site: Flask) -> None:
    """The numbers are shown while Redis is away: for people, and with the same names for programs."""
    client = sign_in(site, "42", lang="ja", input_text="text")
    with switched_off(site, "primary", "replica"):
        client.post("/set", json={"input_text": "more"})
        sign_in(site, "43")
        client.post("/logout")
        printed, as_json = told(site, "journal"), told(site, "journal", "--json")
    names = [line.split("  ")[0] for line in shown("journal").splitlines()]
    assert [line.split("  ")[0] for line in printed.splitlines()] == names
    assert names_in(json.loads(as_json)) == names_in(json.loads(shown("journal --json")))


def names_in(found: Any) -> Any:
    return {name: names_in(value) for name, value in found.items()} if isinstance(found, dict) else None


def test_a_drill(site: Flask) -> None:
    assert_prints(told(site, "drill", "primary-down", "--for", "0"), shown("drill primary-down --for"))


def test_the_doctor(make_app: MakeApp, primary: Valkey, replica: Valkey) -> None:
    """The output is that of an application with the mistakes that the page shows."""
    urls = []
    for server in (primary, replica):
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", acl.USER, "on", f">{acl.PASSWORD}", *acl.documented())
        urls.append(server.url.replace("redis://", f"redis://{acl.USER}:{acl.PASSWORD}@"))
    try:
        app = make_app(REDIS_URL=urls[0], REPLICA_URL=urls[1])
        app.secret_key = "k3Vq9zXw1LrT8bNfH2Yd"
        with configured(primary, maxmemory_policy="allkeys-lru"):
            text, [of_eviction] = told(app, "doctor"), shown("doctor --json").splitlines()
            printed = told(app, "doctor", "--json", "--only", "eviction")
    finally:
        for server in (primary, replica):
            with server.client() as client:
                client.execute_command("ACL", "DELUSER", acl.USER)
    assert_prints(text, shown("doctor"))
    assert json.loads(printed) == json.loads(of_eviction)
