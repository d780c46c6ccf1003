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

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`(?!\])", re.MULTILINE | re.DOTALL)
_BLOCK = r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```{}\n(?P<text>.*?)^```$"  # of a language


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    :param line: of its first statement, counted from 1.
    :param reason: why it cannot be run, as the comment ``<!-- not run: … -->`` above it says. None: it can.
    """

    page: Path
    line: int
    text: str
    reason: str | None

    @property
    def code(self) -> str:
        """Return the text of the block behind as many line ends as on its page, so that tracebacks have the page's
        numbers."""
        return "\n" * (self.line - 1) + self.text


def blocks_of(page: Path, language: str = "python") -> list[Block]:
    """Return the blocks of a page in a language, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start("text")) + 1, match["text"], match["reason"])
        for match in re.finditer(_BLOCK.format(language), text, re.MULTILINE | re.DOTALL)
    ]


def links(page: Path) -> list[str]:
    """Return the links of a page in Markdown, without those in its code."""
    return _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
