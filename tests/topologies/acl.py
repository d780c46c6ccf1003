"""The rights that docs/redis.md asks an administrator of Redis for, read from there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

USER, PASSWORD = "app", "a-long-random-token"

_DOCUMENT = Path(__file__).parents[2] / "docs" / "redis.md"
SENTINEL_PASSWORD = "another-token"


def documented(password: str = PASSWORD) -> list[str]:
    """The rules, one by one, of the user with that password."""
    [rules] = re.findall(rf"ACL SETUSER {USER} on >{password} ([^`]+)```", _DOCUMENT.read_text())
    return str(rules).split()


def more_on_clusters() -> list[str]:
    """The rules that a cluster asks for besides."""
    [rules] = re.findall(rf"ACL SETUSER {USER} (\+cluster[^`]+)```", _DOCUMENT.read_text())
    return str(rules).split()


def commands(password: str = PASSWORD) -> list[str]:
    """The commands among them, without the plus sign."""
    return [rule[1:] for rule in documented(password) if rule.startswith("+")]


def user(rules: Sequence[str]) -> str:
    """The user with these rules, as an ACL file has it."""
    return " ".join([USER, "on", f">{PASSWORD}", *rules])
