"""The table of checks in docs/operations.md is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

from flask_langpont_session.ops.diagnosis.table import CHECKS

PAGE = Path(__file__).parents[4] / "docs" / "operations.md"
BLOCK = re.compile(r"<!-- flask langpont doctor: begin -->\n(.*?)<!-- flask langpont doctor: end -->", re.DOTALL)


def rows() -> str:
    """Return the table that the page should have, to be pasted after a change."""
    lines = ["| check | looks at | why it matters |", "| --- | --- | --- |"]
    lines += [f"| `{check.name}` | {check.looks_at} | {check.why} |" for check in CHECKS]
    return "\n".join(lines) + "\n"


def test_the_page_has_every_check() -> None:
    """The checks are on the page in the order in which they are made."""
    [block] = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert block == rows()
