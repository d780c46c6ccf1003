"""The wheel and the sdist that people install, and an import that needs only what is declared."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from devservers.processes import LONG

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flask_langpont_session"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("dist")
    # Where the build backend is at hand it is used; else `build` fetches it into an environment of its own.
    isolation = [] if importlib.util.find_spec("flit_core") is None else ["--no-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), *isolation, str(ROOT)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    [path] = built.glob("*.whl")
    return zipfile.ZipFile(path)


def package_files() -> set[str]:
    """Every file of the package in this checkout."""
    return {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Scripts, type marker and migrations are in it; tests, example and docs are not."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == package_files()
    assert {
        "flask_langpont_session/py.typed",
        "flask_langpont_session/migrations/v0001.py",
        *(
            f"flask_langpont_session/stores/redis/scripts/{path.name}"
            for path in PACKAGE.glob("stores/redis/scripts/*.lua")
        ),
    } <= names
    assert len([name for name in names if name.endswith(".lua")]) >= 6


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    """Source, tests, docs, license and the settings of the tools."""
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package_files() <= names
    assert {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "docs/configuration.md",
        "tests/unit/config/test_settings.py",
    } <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".sqlite3"))]


def test_the_wheel_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    """Five hard dependencies; all else is an extra. The entry point of ``flask langpont`` is there."""
    [metadata_name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(metadata_name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    hard = {line.split(">")[0].split("[")[0].strip() for line in requirements if "extra ==" not in line}
    assert hard == {"flask", "redis", "sqlalchemy", "msgspec", "cachetools"}
    assert set(metadata.get_all("Provides-Extra") or []) >= {"aws", "demo", "prometheus", "postgresql", "speed"}
    assert metadata["Requires-Python"] == ">=3.11"
    entry_points = wheel.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
    assert "langpont=flask_langpont_session.cli:langpont" in entry_points.replace(" ", "")


def test_the_demo_gets_what_it_imports() -> None:
    """`make demo` installs less than `make test`: the example and its lab import no tool of the tests."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = declared["project"], declared["dependency-groups"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    lines = [*project["dependencies"], *extras, *groups["demo"]]
    demo = {re.split(r"[\[>=]", line)[0].lower().replace("_", "-") for line in lines}
    modules = {
        name.partition(".")[0]
        for folder in ("devservers", "example_app", "lab")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
    }
    distributions = importlib.metadata.packages_distributions()
    others = modules - set(sys.stdlib_module_names) - {"devservers", "example_app", "lab", "flask_langpont_session"}
    needed = {name for module in others for name in distributions[module]}
    needed = {name.lower().replace("_", "-") for name in needed}
    brought = {"botocore", "click", "werkzeug", "wtforms"}  # by those
    assert needed - brought - demo == set()
    assert needed & demo


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


OPTIONAL = {
    "alembic", "boto3", "botocore", "fakeredis", "flask_login", "flask_wtf", "greenlet", "hiredis", "hypothesis",
    "prometheus_client", "psycopg", "psycopg2", "psycopg_binary", "pytest", "ua_parser",
    "valkey",
}  # fmt: skip
WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import flask_langpont_session, flask_langpont_session.ops.cli, flask_langpont_session.testing
import flask_langpont_session.migrations.v0001
from flask import Flask, session
app = Flask("app", instance_path=sys.argv[1])
app.testing, app.secret_key = True, "x" * 32
app.config["LANGPONT_SESSION_REDIS_URL"] = "redis://127.0.0.1:1/0"
flask_langpont_session.LangPontSession(app)
app.get("/")(lambda: str(session.get("lang")))
print(app.test_client().get("/").text)
"""


def test_nothing_optional_is_imported(tmp_path: Path) -> None:
    """Without the extras, the tools and the tests' packages, an application starts and serves."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS.format(absent=OPTIONAL), str(tmp_path)],
        capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
