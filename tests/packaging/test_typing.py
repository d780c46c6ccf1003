"""The application that type checkers check (``make check``) uses everything that the package offers to users."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import flask_langpont_session
from flask_langpont_session import FeatureReport, LangPontSession, Revoked, Session, SessionInfo, pytest_plugin, testing

APPLICATION = Path(__file__).parents[1] / "typing" / "application.py"

FLASKS = {"begun", "close", "is_closed", "origin", "read_cookie", "seen", "work"}
"""Of :class:`Session`: what only the session interface uses."""


def used() -> set[str]:
    """Every name, attribute, parameter and function in the application."""
    nodes = list(ast.walk(ast.parse(APPLICATION.read_text(encoding="utf-8"))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def public(thing: type) -> set[str]:
    """Return what a class and its bases in this package define for users: methods, properties, fields of a
    dataclass."""
    ours = [base for base in thing.__mro__ if base.__module__.startswith("flask_langpont_session")]
    names = [name for base in ours for name in (*vars(base), *getattr(base, "__dataclass_fields__", ()))]
    return {name for name in names if not name.startswith("_")}


def defined(module: ModuleType) -> set[str]:
    """The public functions and classes of a module."""
    nodes = ast.parse(inspect.getsource(module)).body
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"}


def test_every_public_name_is_used() -> None:
    """A public name that is not used could lose its type, and no check would fail."""
    wanted = {*flask_langpont_session.__all__, *defined(testing), *defined(pytest_plugin)}
    assert wanted <= used()


def test_every_public_attribute_is_used() -> None:
    """Public attributes of the session, of the extension, and of the values that both return are all used."""
    wanted = public(Session) - FLASKS | public(SessionInfo) | public(FeatureReport) | public(Revoked)
    wanted |= public(LangPontSession) - {"open_session", "save_session", "get_expiration_time"}
    assert wanted - used() == {"of"}, "SessionInfo.of makes one of a row"
