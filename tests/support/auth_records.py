"""Names for the parts of the auth hash of a signed-in session, see ``scripts/auth.lua``.

``@d`` the digest, as far as it stands there, ``@live``, ``@v`` version of the row, ``@at`` stamp, ``@i`` idle and
``@x`` absolute expiry, ``@c`` creation, ``@e`` the user's epoch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOMENTS = ("@at", "@i", "@x", "@c")
PARTS = frozenset({"@d", "@live", "@v", *MOMENTS, "@e"})
_PACKED = re.compile(r"(.{11})(?:(D)(\d+)|(L)" + "([0-9a-z]{9})" * 4 + r" (\d+) (\d+))")
_NAMES = ("@d", "@live", "@v", "@live", *MOMENTS, "@v", "@e")


def unpacked(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of a hash with ``@m`` in parts; what is no such description stays as it is."""
    found = _PACKED.fullmatch(fields.get("@m", ""))
    if found is None:
        return dict(fields)
    said = {name: part for name, part in zip(_NAMES, found.groups(), strict=True) if part is not None}
    said |= {name: str(int(said[name], 36)) for name in MOMENTS if name in said}
    said["@live"] = {"L": "1", "D": "0"}[said["@live"]]
    return said | {name: value for name, value in fields.items() if name != "@m"}


def packed(said: Mapping[str, object]) -> str:
    """``@m`` of these parts. One that is missing, or no number where one belongs, makes it a damaged one."""
    own, live = str(said.get("@d", ""))[:11], str(said.get("@live", ""))
    letter = {"1": "L", "0": "D"}.get(live, live)
    if letter == "D":
        return f"{own}D{said.get('@v', '')}"
    moments = "".join(_to_base_36(str(said.get(name, ""))) for name in MOMENTS)
    return f"{own}{letter}{moments} {said.get('@v', '')} {said.get('@e', '')}"


def _to_base_36(moment: str) -> str:
    """Nine digits; what is no number stays as it is."""
    if not moment.isdigit():
        return moment
    left, text = int(moment), ""
    while len(text) < 9:
        text, left = "0123456789abcdefghijklmnopqrstuvwxyz"[left % 36] + text, left // 36
    return text


def says(client: Any, key: str) -> dict[str, str]:
    """Return the parts of an auth hash in Redis by name.

    :param client: one that decodes.
    """
    return unpacked(client.hgetall(key))


def say(client: Any, key: str, changes: Mapping[str, object | None]) -> None:
    """Change what a hash says.

    :param client: one that decodes.
    :param changes: name → what it says of that; None: nothing.
    """
    said = {name: value for name, value in {**says(client, key), **changes}.items() if value is not None}
    client.hset(key, "@m", packed(said))


def move_back(client: Any, key: str, ms: int, *names: str) -> None:
    """Make the moments of a hash earlier.

    :param names: only these; of all that are there otherwise.
    """
    there = says(client, key)
    if changes := {name: int(there[name]) - ms for name in names or MOMENTS if name in there}:
        say(client, key, changes)
