"""Blocks of a page that show a terminal: commands after ``$``, and what they print."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from .pages import Block


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command, and the lines below it. ``…`` in these stands for anything."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output.rstrip("\n")


def follow(block: Block, folder: Path, variables: Mapping[str, str]) -> None:
    """Give the commands to a shell: they print what the page shows. Those that print nothing succeed."""
    for command, shown in commands(block):
        done = subprocess.run(
            command, shell=True, cwd=folder, env=dict(variables), timeout=100,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        where = f"{block.page}:{block.line}: {command}\n{done.stdout}"
        assert re.fullmatch(re.escape(shown).replace("…", ".*"), done.stdout.rstrip("\n"), re.DOTALL), where
        assert shown or done.returncode == 0, where
