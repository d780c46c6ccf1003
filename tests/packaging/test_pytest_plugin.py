"""The pytest plugin as a stranger's test suite has it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from devservers.processes import LONG
from devservers.servers import Valkey
from flask_langpont_session import pytest_plugin

ROOT = Path(__file__).parents[2]
PLUGIN = "flask_langpont_session.pytest_plugin"

APP = """
from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_user

from flask_langpont_session import LangPontSession


class User(UserMixin):
    id = "7"


def create_app(config=None):
    app = Flask(__name__)
    app.config.update(SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_URL="redis://cache.internal:6379/0")
    app.config["LANGPONT_SESSION_DATABASE_URL"] = "postgresql+psycopg://app@db.internal/app"
    app.config.update(config or {})
    LangPontSession(app)
    LoginManager(app).user_loader(lambda user_id: User())
    app.add_url_rule("/login", "login", lambda: str(login_user(User())))
    app.add_url_rule("/me", "me", lambda: current_user.get_id() or "nobody")
    return app
"""

CONFTEST = """
import gc
import os
import threading
import time
import weakref

import pytest
from shop import create_app

ONE_PER_PROCESS = {"langpont-session-lag"}
applications = []


def names():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("langpont")}


@pytest.fixture
def app(langpont_app_config):
    made = create_app(langpont_app_config)
    applications.append(weakref.ref(made))
    return made


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left():
    yield
    until = time.monotonic() + 30
    while not names() <= ONE_PER_PROCESS and time.monotonic() < until:
        time.sleep(0.01)  # a background thread ends them; a user's suite has nothing that it could wait for instead
    assert names() <= ONE_PER_PROCESS
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) < 40
    assert sum(made() is not None for made in applications) < 3 < len(applications)
"""

TESTS = """
import pytest

from flask_langpont_session.events import LevelChanged


@pytest.mark.parametrize("number", range(15))
def test_signing_in(client, number):
    assert client.get("/login").text == "True"
    assert client.get("/me").text == "7"


def test_a_session_by_hand(client):
    with client.session_transaction() as session:
        session["_user_id"] = "7"
    assert client.get("/me").text == "7"


@pytest.mark.parametrize("level", range(1, 5))
def test_outages(client, session_outage, captured_session_events, level):
    client.get("/login")
    with session_outage(level):
        assert client.get("/me").text == "7"
    changes = [event for event in captured_session_events if isinstance(event, LevelChanged)]
    assert (changes[0].old, changes[-1].new) == (0, 0)
    assert max(change.new for change in changes) == level


def test_an_outage_of_another_application(langpont_app_config, session_outage, app):
    from shop import create_app

    other = create_app(langpont_app_config)
    with session_outage(2, other):
        assert other.test_client().get("/healthz").json["level"] == 2
        assert app.test_client().get("/healthz").json["level"] == 0
"""

UNRELATED = """
import sys


def pytest_sessionfinish(session):
    heavy = {"flask", "werkzeug", "sqlalchemy", "redis", "msgspec", "flask_langpont_session.extension"}
    assert not heavy & sys.modules.keys()
    assert "flask_langpont_session.pytest_plugin" in sys.modules
"""


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Not the developer's configuration, and every warning an error: so are connections that were not closed.
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n")
    command = [sys.executable, "-X", "dev", "-m", "pytest", "-p", PLUGIN, "-q", "-p", "no:cacheprovider", *arguments]
    # Plugins of libraries that are installed beside are none of its business.
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for name, text in {"shop.py": APP, "conftest.py": CONFTEST, "test_shop.py": TESTS}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_suite_with_an_application_for_each_test(suite: Path) -> None:
    """No server, no flag, nothing that is left over in the process, and nothing beside the suite's own files."""
    before = set(suite.iterdir())
    done = run_suite(suite)
    assert "21 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in set(suite.iterdir()) - before} <= {"__pycache__", "pytest.ini"}


def test_on_a_server(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The fixture ``langpont_redis_url`` is overridden as any other."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        override = f"\n\n@pytest.fixture\ndef langpont_redis_url():\n    return {server.url!r}\n"
        (suite / "conftest.py").write_text(CONFTEST + override)
        done = run_suite(suite, "-k", "hand or outages")
        assert done.returncode == 0, done.stdout + done.stderr
        with server.client() as client:
            assert client.dbsize()


def test_a_project_without_flask_pays_nothing(tmp_path: Path) -> None:
    """The plugin is loaded wherever the package is installed."""
    (tmp_path / "conftest.py").write_text(UNRELATED)
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n")
    done = run_suite(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


NAMES = """
import flask_langpont_session.session.mapping
import flask
import flask_langpont_session as package
from flask_langpont_session import *
from flask_langpont_session import session as proxy
from flask_langpont_session.config import checks as config

assert proxy is session is package.session is flask.session
assert all(name in globals() and name in dir(package) for name in package.__all__)
assert LangPontSession.__module__ == "flask_langpont_session.extension"
assert config.PREFIX
try:
    package.Sesion
except AttributeError as error:
    assert "Sesion" in str(error)
else:
    raise AssertionError
"""


def test_what_the_package_offers_is_imported_when_it_is_asked_for() -> None:
    """The proxy has the name of a module of the package; whichever is imported first, it is the proxy."""
    command = [sys.executable, "-W", "error", "-c", NAMES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr


def test_pytest_finds_it_by_its_entry_point() -> None:
    """The entry point has the module's own name: ``-p`` with it, or an installation beside the sources, loads it
    once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
    assert import_module(PLUGIN) is pytest_plugin


def test_what_another_package_lacks_is_said() -> None:
    """The package's own names are imported when they are asked for. Python makes "cannot import name" of an
    AttributeError meanwhile, which says nothing of a package that is too old."""
    program = "import msgspec; del msgspec.json; from flask_langpont_session import LangPontSession"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LONG)
    assert "'msgspec' has no attribute 'json'" in done.stderr.splitlines()[-1]
