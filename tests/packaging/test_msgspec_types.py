"""No thread is the first to decode a type: in msgspec 0.22 two at once end the process."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinMethodType, ModuleType
from typing import Any

import msgspec

import flask_langpont_session

PACKAGE = Path(flask_langpont_session.__file__).parent
BUILT_IN = {"dict", "list", "str", "bytes", "int", "float", "bool"}
DECODERS = (msgspec.json.Decoder, msgspec.msgpack.Decoder)

RACE = """
import os, sys, threading
from flask_langpont_session.ops.alerts import incidents
from flask_langpont_session.aws import endpoints

place = sys.argv[2]
memory = endpoints.EndpointsFile(endpoints.Path(place), endpoints.GroupName("group", None))

def race():
    sys.setswitchinterval(1e-6)
    ready = threading.Barrier(8)
    def decode():
        ready.wait()
        assert incidents.decode_host(b'{"incidents":{},"past":{},"queue":[],"serial":1}').serial == 1
        assert memory.recall() is not None
    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)

for _ in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        race()
    _, status = os.waitpid(child, 0)
    print(status)
"""
"""Forks children of a process that has imported the package and decoded nothing; each decodes in eight threads."""


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages([str(PACKAGE)], "flask_langpont_session."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def types_in(kind: object) -> Iterator[type]:
    """The structs that a decoder of a type meets."""
    if isinstance(kind, msgspec.inspect.StructType):
        yield kind.cls
        for field in kind.fields:
            yield from types_in(field.type)
    for name in ("key_type", "value_type", "item_type"):
        yield from types_in(getattr(kind, name, None)) if hasattr(kind, name) else ()
    for part in (*getattr(kind, "types", ()), *getattr(kind, "item_types", ())):
        yield from types_in(part)


def test_every_struct_belongs_to_a_decoder_that_is_made_at_import() -> None:
    """A module has made it while it was imported, which one thread does."""
    structs, prepared = set(), set()
    for module in modules():
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__:
                structs.add(value)
            owner: Any = value.__self__ if type(value) is BuiltinMethodType else value
            if type(owner) in DECODERS:
                prepared |= set(types_in(msgspec.inspect.type_info(owner.type)))
    assert {struct.__name__ for struct in structs} >= {"Host", "_Remembered"}
    assert structs <= prepared


def calls_in_functions() -> Iterator[ast.Call]:
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, (ast.FunctionDef, ast.Lambda)):
                yield from (node for node in ast.walk(function) if isinstance(node, ast.Call))


def test_no_function_makes_a_decoder() -> None:
    """A function decodes by built-in types only, of which msgspec keeps nothing."""
    for call in calls_in_functions():
        name = ast.unparse(call.func)
        assert not name.endswith(".Decoder"), ast.unparse(call)
        if name.startswith("msgspec."):
            kinds = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
            names = {node.id for kind in kinds for node in ast.walk(kind) if isinstance(node, ast.Name)}
            assert names <= BUILT_IN, ast.unparse(call)


def test_threads_that_decode_at_once_end_no_process(tmp_path: Path) -> None:
    """Two children in three ended by SIGSEGV where the types were looked at when they were first needed."""
    place = tmp_path / "endpoints"
    place.write_bytes(b'{"group":"group","region":null,"primary":null,"reader":["host",6379],"tls":false}')
    ran = subprocess.run(
        [sys.executable, "-c", RACE, "20", str(place)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert ran.stdout.split() == ["0"] * 20, ran.stderr
