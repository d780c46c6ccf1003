"""Imports of the package: which folder may import which, and what is imported only where a setting asks for it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import flask_langpont_session
from devservers.processes import LONG

PACKAGE = Path(flask_langpont_session.__file__).parent
TESTS = Path(__file__).parents[1]
NAME = PACKAGE.name

MAY_IMPORT: dict[str, set[str]] = {
    "support": set(),
    "policy": {"support"},
    "stores": {"policy", "stores/host", "stores/memory", "stores/redis", "stores/sql"},
    "stores/codec": {"policy", "support"},
    "stores/host": {"policy", "stores/codec", "support"},
    "stores/memory": {"policy", "stores/host", "support"},
    "stores/redis": {"policy", "stores/codec", "stores/memory", "support"},
    "stores/sql": {"policy", "stores/codec", "support"},
    "config": {"policy", "stores/redis", "stores/sql", "support"},
    "aws": {"config", "stores/redis", "support"},
    "metrics": {"policy", "support"},
    "request": {"config", "metrics", "policy", "stores", "stores/host", "stores/memory", "stores/redis", "support"},
    "recovery": {"metrics", "policy", "stores", "stores/host", "stores/redis", "support"},
    "session": {"policy", "request", "support"},
    "adoption": {"config", "policy", "request", "session", "stores/redis", "support"},
    "migrations": set(),
    "ops": set(),
    "ops/exporters": {"aws", "metrics", "policy", "support"},
    "ops/alerts": {"aws", "config", "metrics", "policy", "support"},
    "ops/drill": {"config", "policy", "recovery", "request", "session", "stores", "stores/redis", "stores/sql"},
    "ops/diagnosis": {
        "config",
        "migrations",
        "policy",
        "stores",
        "stores/host",
        "stores/redis",
        "stores/sql",
    },
    "ops/status_page": {"metrics", "ops/exporters", "policy", "support"},
}
"""Folder → the folders that its modules may import, wherever in a module: the whole order, from below."""

FOR_ALL = {"events", "exceptions"}
"""Top-level modules that every folder may import. The other ones are wiring and what users import: they may import
everything, and no folder imports them."""

MAY_IMPORT_ALL = {"ops/cli"}
"""Folders that count as top-level modules."""

DOORS = {"build", "cli", "status"}
"""Top-level modules that import the operators' wing, ``ops/``. All but ``status``, which is imported late itself, do so
inside of functions."""

LATE: dict[str, set[str]] = {
    "config": {"aws", "stores/codec"},
    "ops/exporters": {"stores"},
    "stores": {"config", "metrics"},
    "stores/memory": {"stores/redis"},
}
"""Folder → the folders that it may import inside of functions (which run where a setting asks for them) and for types,
besides."""


class Import(NamedTuple):
    """One module that another one imports.

    :param late: inside of a function, or for types only.
    """

    importer: str
    imported: str
    late: bool


def imports_of(importer: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """The imports of modules of this package, by their names without the package's."""
    path = [NAME, *importer.split(".")] if importer else [NAME]
    tree = ast.parse(source)
    late = {id(inner) for outer in ast.walk(tree) if _makes_late(outer) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            folder = path[: len(path) + is_package - node.level] if node.level else []
            names = [".".join([*folder, *([node.module] if node.module else []), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == NAME:
                yield Import(importer, rest, id(node) in late)


def _makes_late(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def folder_of(name: str) -> str:
    """The folder of what is imported, or of the module that imports; of what is in none: the module's name."""
    parts = name.split(".")
    return next(("/".join(parts[:size]) for size in (2, 1) if "/".join(parts[:size]) in FOLDERS), parts[0])


FOLDERS = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}


@cache
def all_imports() -> list[Import]:
    """Return the imports from one folder into another, or into a top-level module."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        is_package = path.name == "__init__.py"
        module = path.parent if is_package else path.with_suffix("")
        name = ".".join(module.relative_to(PACKAGE).parts)
        if folder_of(name) in FOLDERS - MAY_IMPORT_ALL:
            imports = imports_of(name, path.read_text(), is_package=is_package)
            found += [one for one in imports if folder_of(one.imported) != folder_of(name)]
    return found


def allowed(one: Import) -> set[str]:
    """Return the folders that an import may name, from where and when it is made."""
    folder = folder_of(one.importer)
    return MAY_IMPORT[folder] | FOR_ALL | (LATE.get(folder, set()) if one.late else set())


def test_every_folder_has_its_place_in_the_order() -> None:
    """There is an order: no folder imports itself by way of others."""
    assert MAY_IMPORT.keys() | MAY_IMPORT_ALL == FOLDERS
    TopologicalSorter(MAY_IMPORT).prepare()  # raises where there is none


def test_folders_import_only_what_is_below_them() -> None:
    """Each folder imports only what the tables allow."""
    assert [one for one in all_imports() if folder_of(one.imported) not in allowed(one)] == []


def test_the_operators_wing_has_few_doors() -> None:
    """The top level imports it in the modules that the table names, and nothing else does but itself."""
    made = [one for path in PACKAGE.glob("*.py") for one in imports_of(path.stem, path.read_text())]
    found = [one for one in made if one.imported.startswith("ops.")]
    assert {one.importer for one in found} == DOORS
    assert {one.importer for one in found if not one.late} == {"status"}


def test_what_may_be_imported_is() -> None:
    """An import that is no longer made is deleted from the tables, so that it does not come back unnoticed."""
    found = {(folder_of(one.importer), folder_of(one.imported)) for one in all_imports()}
    assert not [folder for folder, others in LATE.items() if others & MAY_IMPORT[folder]]
    for table in (MAY_IMPORT, LATE):
        assert {(folder, other) for folder, others in table.items() for other in others} - found == set()


EVERY_WAY = """
from typing import TYPE_CHECKING
import flask_langpont_session.policy.errors
from flask_langpont_session.stores.sql import tables
from .. import events
from ..aws import client, cloud
from .settings import Settings
from . import checks
if TYPE_CHECKING:
    from ..stores.redis.store import RedisStore
def load():
    import os, flask_langpont_session.ops.alerts
"""


def test_every_way_to_import_is_seen() -> None:
    """Imports are seen by name and by place, at the top, in a function and for types."""
    found = set(imports_of("config.rules", EVERY_WAY))
    now = {
        "policy.errors",
        "stores.sql.tables",
        "events",
        "aws.client",
        "aws.cloud",
        "config.settings.Settings",
        "config.checks",
    }
    late = {"stores.redis.store.RedisStore", "ops.alerts"}
    assert found == {Import("config.rules", name, name in late) for name in now | late}
    [of_package] = imports_of("config", "from .checks import PREFIX", is_package=True)
    assert of_package.imported == "config.checks.PREFIX"
    assert [folder_of(name) for name in ("stores.redis.store.RedisStore", "stores.local", "events")] == [
        "stores/redis",
        "stores",
        "events",
    ]


# -- what only a setting brings ----------------------------------------------------------------------------------------

PLAIN = """
import sys
from flask import Flask, session
import flask_langpont_session

def serve(**config):
    app = Flask("app", instance_path=sys.argv[1])
    app.testing, app.secret_key = True, "x" * 32
    places = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": f"sqlite:///{sys.argv[1]}/sessions.sqlite3"}
    for name, value in {**places, **config}.items():
        app.config[f"LANGPONT_SESSION_{name}"] = value
    flask_langpont_session.LangPontSession(app)

    @app.get("/")
    def index():
        session["lang"] = session.get("lang", "ja")
        return session["lang"]

    print(app.test_client().get("/").text)

def show(*names):
    print(*(sorted(name for name in sys.modules if name.startswith(names))))

flask_langpont_session.LangPontSession  # which every worker's master imports, and every command of `flask`
show("sqlalchemy", "redis", "flask_langpont_session.stores", "flask_langpont_session.recovery")
folders = ("aws", "ops.alerts", "ops.drill", "stores.codec.cipher", "stores.codec.sealing")
late = ("boto3", "botocore", "cryptography.hazmat", *(f"flask_langpont_session.{folder}" for folder in folders))
more = ("flask_langpont_session.ops", "flask_langpont_session.adoption", "prometheus_client",
        "flask_langpont_session.status", "ua_parser")
serve()
show(*late, *more)
serve(METRICS=["prometheus"])
show(*late)
"""


def test_what_no_setting_asks_for_is_not_imported(tmp_path: Path) -> None:
    """The stores and their drivers come with the first application. One on Redis and SQLite serves without AWS,
    adoption and the operators' wing; metrics alone bring no AWS."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PLAIN, str(tmp_path)], capture_output=True, text=True, timeout=LONG
    )
    assert (done.returncode, done.stdout) == (0, "\nja\n\nja\n\n"), done.stderr


def test_no_test_imports_from_another_test() -> None:
    """Code that several tests use lies in a module of its own."""
    found = [
        f"{path.relative_to(TESTS)}: {line}"
        for path in sorted(TESTS.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"(from \S*\btest_\w+ import|import \S*\btest_)", line)
    ]
    assert found == []
