"""Figures as Markdown, and the pages of the docs that have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
BENCHMARKS = DOCS / "benchmarks.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table of figures.

    :param texts: how many columns, the first ones, are text.
    """
    lines = [head, [*["---"] * texts, *["---:"] * (len(head) - texts)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_into(page: Path, name: str, report: str) -> None:
    """Put a report between the markers of that name."""
    page.write_text(written_into(page.read_text(encoding="utf-8"), name, report), encoding="utf-8")


def written_into(document: str, name: str, report: str) -> str:
    """Return the document with a report between the lines ``<!-- name -->`` and ``<!-- end of name -->``.

    :raises ValueError: it lacks them.
    """
    before, begin, _, end, after = _parted(document, name)
    return f"{before}{begin}\n\n{report}\n{end}{after}"


def between(document: str, name: str) -> str:
    """Return the report in the document. :raises ValueError: the document lacks the lines."""
    return _parted(document, name)[2].strip()


def _parted(document: str, name: str) -> tuple[str, str, str, str, str]:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = document.partition(begin)
    report, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise ValueError(f"the document lacks the lines {begin} and {end}")
    return before, begin, report, end, after
