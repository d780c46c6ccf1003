"""The pages that people read, and what is in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
MAPS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "explanation" / "architecture.md", ROOT / "tests" / "README.md"]
"""For maintainers of the package: they name folders, files and classes."""

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n+)?^```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of Python of a page.

    :param line: of its first statement, counted from 1.
    :param reason: why it cannot be run, as the comment ``<!-- not run: … -->`` above it says. None: it can.
    """

    page: Path
    line: int
    text: str
    reason: str | None

    @property
    def code(self) -> str:
        """With its line numbers in the page, for tracebacks."""
        return "\n" * (self.line - 1) + self.text


def blocks_of(page: Path) -> list[Block]:
    """In their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start("text")) + 1, match["text"], match["reason"])
        for match in _BLOCK.finditer(text)
    ]
