"""The rights that a user of Redis needs, and questions that show whether it has them and change nothing.

A server looks at the rights of a user before it does anything else with a command. So a command that is sent with what
makes it do nothing (a key that is not there, an option that forbids to make one, arguments that do not go together) is
refused for want of a right, or it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Question = tuple[Any, ...]

_NO_SCRIPT = "0" * 40

FOR_ALL: Mapping[str, Question] = {
    "eval": ("EVAL", "return 0", -1),
    "evalsha": ("EVALSHA", _NO_SCRIPT, 0),
    "info": ("INFO", "server"),
    "time": ("TIME",),
    "set": ("SET", "{key}", "", "XX"),
    "get": ("GET", "{key}"),
    "del": ("DEL", "{key}"),
    "exists": ("EXISTS", "{key}"),
    "pexpire": ("PEXPIRE", "{key}", 1),
    "pttl": ("PTTL", "{key}"),
    "rename": ("RENAME", "{key}", "{key}"),
    "hset": ("HSET", "{key}", "a", "", "without a value"),
    "hmget": ("HMGET", "{key}", "a"),
    "hgetall": ("HGETALL", "{key}"),
    "hdel": ("HDEL", "{key}", "a"),
    "client|tracking": ("CLIENT", "TRACKING", "OFF"),
}
"""Right → a question that needs it. ``{key}`` is a key of this package that is not there."""

FOR_METRICS: Mapping[str, Question] = {
    "zadd": ("ZADD", "{key}", "XX", 0, "a"),
    "zcount": ("ZCOUNT", "{key}", 0, 0),
    "zremrangebyscore": ("ZREMRANGEBYSCORE", "{key}", 0, 0),
}

ON_CLUSTERS: Mapping[str, Question] = {
    "cluster|slots": ("CLUSTER", "SLOTS"),
    "cluster|info": ("CLUSTER", "INFO"),
    "readonly": ("READONLY",),
    "asking": ("ASKING",),
}

KEYS = "keys"
"""Stands among missing rights for the one to the keys of the package."""
