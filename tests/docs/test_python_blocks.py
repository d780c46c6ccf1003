"""Every block of Python in README.md and docs/ runs: those of a page one after the other, in one namespace."""

from __future__ import annotations

import builtins
import dis
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import create_engine

from devservers.servers import Valkey
from devservers.web import PROJECT
from flask_langpont_session.config.settings import Settings, load_settings
from flask_langpont_session.extension import EXTENSION
from flask_langpont_session.stores.sql.tables import METADATA
from flask_langpont_session.testing import configure
from tests.integration.conftest import close

from .pages import PAGES, ROOT, blocks_of

GIVEN = """
from flask_langpont_session import LangPontSession

def charge(order):
    "The application's own"

user_id, digest = "7", "A" * 43
"""
"""What the pages speak of without saying where it is from; and `app`."""

SHOP = """
from flask import Flask, session
from flask_langpont_session import LangPontSession

def create_app(config):
    app = Flask("shop")
    app.config.update(config)
    LangPontSession(app)
    app.get("/profile")(lambda: str(session.get("_user_id")))
    return app

app = create_app({"TESTING": True, "SECRET_KEY": "a key for tests"})
"""
"""The application that the pages on tests and on the move test."""

ENVIRONMENT = {"ENVIRONMENT": "production", "AWS_DEFAULT_REGION": "ap-northeast-1"}

MOST_NOT_RUN = 3

WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]

HOW_TOS = [page for page in WITH_BLOCKS if page.parent.name == "how-to" and page.name != "test.md"]
"""Additions to an application. The page on tests has a file of its own."""

SET_UP = "langpont = LangPontSession(app)\n"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("primary")) as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """An application that is configured, has tables and no extension yet. One that a page makes has its files here."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    app = Flask("app", instance_path=str(tmp_path))
    url = f"sqlite:///{tmp_path / 'sessions.sqlite3'}"
    METADATA.create_all(engine := create_engine(url))
    engine.dispose()
    app.config.update(TESTING=True, SECRET_KEY="a key of 32 bytes or more, for tests")
    app.config.update(LANGPONT_SESSION_REDIS_URL=valkey.url, LANGPONT_SESSION_DATABASE_URL=url)
    yield app
    if EXTENSION in app.extensions:
        close(app)


def run(page: Path, app: Flask) -> dict[str, Any]:
    """Run the blocks of a page, and return the namespace afterwards."""
    namespace: dict[str, Any] = {"__name__": "page", "app": app}
    exec(GIVEN, namespace)
    with app.app_context():
        for block in blocks_of(page):
            code = compile(block.code, str(page), "exec")
            if block.reason is None:
                exec(code, namespace)
                assert unknown_names(code, namespace) == set(), f"{page}:{block.line}"
    return namespace


def unknown_names(code: CodeType, namespace: dict[str, Any]) -> set[str]:
    """Global names that functions of a block would not find when they are called."""
    wanted = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    known = {*namespace, *dir(builtins), *code.co_names} if code.co_name == "<module>" else {*namespace, *dir(builtins)}
    return (wanted - known).union(*(unknown_names(nested, namespace) for nested in inner))


@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if page not in HOW_TOS], ids=lambda page: page.name)
def test_the_page_can_be_followed(page: Path, app: Flask) -> None:
    """No block fails, no function of one misses a name, and the configuration that comes of them is accepted."""
    run(page, app)
    if EXTENSION not in app.extensions:
        load_settings(app)


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.name)
def test_a_how_to_fits_into_the_shop_of_the_tutorial(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings above the line that reads them, all else below it, in one file; and the page says so."""
    text = page.read_text(encoding="utf-8")
    assert "](../tutorial/shop.md)" in text and f"`{SET_UP.strip()}`" in text
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLASK_TESTING", "true")
    above, set_up, below = (ROOT / "docs" / "tutorial" / "shop.py").read_text(encoding="utf-8").partition(SET_UP)
    blocks = [block.text for block in blocks_of(page) if block.reason is None]
    settings = [block for block in blocks if "app.config" in block]
    namespace: dict[str, Any] = {"__name__": "shop"}
    exec("\n".join([above, *settings, set_up, below]), namespace)
    of_the_shop = dict(namespace)
    for block in blocks:
        code = compile(block, page, "exec")
        if block not in settings:
            exec(code, namespace)
        assert unknown_names(code, namespace) == set()
    assert [name for name in of_the_shop if namespace[name] is not of_the_shop[name]] == []  # nothing of it is replaced
    app = namespace["app"]
    configure(app)
    for rule in app.url_map.iter_rules():
        for method in () if rule.arguments else (rule.methods or set()) & {"GET", "POST"}:
            visitor = app.test_client().open(rule.rule, method=method, data={"password": "wrong", "name": "mine"})
            assert visitor.status_code < 500, f"{method} {rule.rule}"
    close(app)


OF_LIBRARIES = {"_fresh", "last_authenticated", "identity.*", "oidc_auth_token", "*_oauth_token"}


def test_the_page_on_keys_has_every_name_with_a_meaning(app: Flask) -> None:
    """The page has each key that is a user or a right with ``PRESET="application"``, and no other."""
    app.config["LANGPONT_SESSION_PRESET"] = "application"
    settings = load_settings(app)
    section = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8").partition("## Names with a meaning")[2]
    named = set(re.findall(r"`([a-z_]+)`", section.partition("\n## ")[0]))
    assert named == {*settings.user_keys, *settings.privilege_keys} - OF_LIBRARIES


OF_OTHERS = {"PROMETHEUS_MULTIPROC_DIR", "WTF_CSRF_SECRET_KEY"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "how-to").glob("*.md")), ids=lambda page: page.name)
def test_a_how_to_names_settings_that_there_are(page: Path) -> None:
    """The settings are those of this package, which are all in the reference, and Flask's."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"LANGPONT_SESSION_([A-Z_]+[A-Z])", text)) | set(
        re.findall(r"`([A-Z]+_[A-Z_]*[A-Z])`", text)
    )
    settings = {name.upper() for name in Settings.__dataclass_fields__}
    assert named - settings - set(Flask.default_config) - OF_OTHERS == set()


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that pages import."""
    module = ModuleType("shop")
    exec(SHOP, module.__dict__)
    monkeypatch.setitem(sys.modules, "shop", module)
    return module


def test_the_tests_of_the_docs_pass(tmp_path: Path) -> None:
    """The tests that the pages on tests and on the move recommend for a factory pass as a suite of their own."""
    for name in ("test", "moving"):
        page = next(page for page in WITH_BLOCKS if page.name == f"{name}.md")
        [suite] = [block.code for block in blocks_of(page) if "import create_app" in block.code]
        (tmp_path / f"test_{name}.py").write_text(suite)
    (tmp_path / "shop.py").write_text(SHOP)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr


PROGRAM = """
from flask_langpont_session.testing import configure
from shop import app

configure(app)
client = app.test_client()
with client.session_transaction() as session:
    session["_user_id"] = "7"
print(client.get("/profile").text)
"""


def configured(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Tests of an application that is made at the top of a module, and has its configuration from the environment."""
    shop = SHOP.replace('{"TESTING": True, "SECRET_KEY": "a key for tests"}', "{}")
    (folder / "shop.py").write_text(shop.replace("app.config.update(config)", "app.config.from_prefixed_env()"))
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder, env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}", **environment},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_an_application_at_the_top_of_a_module_is_imported_where_the_environment_says_testing(tmp_path: Path) -> None:
    """TESTING is set as the page on tests says; else the import ends before the tests can configure the application."""
    done = configured(tmp_path, FLASK_TESTING="true")
    assert done.stdout == "7\n", done.stderr
    done = configured(tmp_path)
    assert (done.stdout, "ConfigError" in done.stderr) == ("", True)


def test_few_blocks_are_not_run() -> None:
    """Each says why."""
    skipped = [block for page in PAGES for block in blocks_of(page) if block.reason is not None]
    assert len(skipped) <= MOST_NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_found(page: Path) -> None:
    """A fence that is indented or has attributes would not be run."""
    assert len(blocks_of(page)) == page.read_text(encoding="utf-8").count("```py")


def test_a_block_that_cannot_run_is_told_from_one_that_can(tmp_path: Path) -> None:
    """Nor does a block pass with a name that no function of the page would find."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n<!-- not run: no such thing here -->\n```python\nimport nothing\n```\n\n```python\nx = 1\n```\n"
    )
    assert [(block.line, block.reason) for block in blocks_of(page)] == [(5, "no such thing here"), (9, None)]
    code = compile("import os\ndef view():\n    return os.name, nowhere\n", "page", "exec")
    assert unknown_names(code, {"os": 1}) == {"nowhere"}
