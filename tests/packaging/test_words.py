"""The program that looks for old words finds them where they count, and there is none left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import words

SOURCE = '''
"""A Fence, and fenceposts."""
import logging
log = logging.getLogger(__name__)
sql = "SELECT generation FROM fences"

class OldFence:
    floor = 1
    """The least; the floor."""

    def set_aside(self, heard):  # it slid
        self._settled = heard
        log.info("brought home: %s", heard)
'''


def test_old_words_are_found_in_sentences_that_readers_see() -> None:
    """Comments, docstrings and log messages; as whole words, in any case. Other texts may be of a format."""
    found = [place for line, text in words.prose_of(SOURCE) for place in words.in_prose("a.py", line, text)]
    assert sorted((place.line, place.found) for place in found) == [
        (2, "Fence"), (9, "floor"), (11, "slid"), (13, "brought home")
    ]  # fmt: skip


def test_old_words_are_found_in_names_that_are_made_of_several() -> None:
    """Where a name is defined, not where it is used."""
    names = words.names_of(ast.parse(SOURCE))
    found = [place for line, name in names for place in words.in_name("a.py", line, name)]
    assert sorted((place.line, place.found) for place in found) == [
        (7, "OldFence"), (8, "floor"), (11, "heard"), (11, "set_aside"), (12, "_settled")
    ]  # fmt: skip


@pytest.mark.parametrize("path", words.ALLOWED)
def test_what_may_stay_is_there_and_may_stay_nowhere_else(path: str) -> None:
    """Else the list would be longer than it has to be."""
    for name in words.ALLOWED[path]:
        assert not list(words.in_name(path, 1, name))
        assert list(words.in_name("other.py", 1, name))
        assert name in path or name in (words.ROOT / path).read_text(encoding="utf-8")


def test_words_for_persons_are_looked_for_as_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any case, also as a part of a name, and not inside others."""
    (tmp_path / "room.py").write_text(
        '"""Nobody asks."""\n# whole\n# who does\ndef is_nobody(): ...\nclass ForWho: ...\n'
    )
    monkeypatch.setattr(words, "PACKAGE", tmp_path)
    monkeypatch.setattr(words, "ROOT", tmp_path)
    assert words.lines_about_persons() == [
        'room.py:1: """Nobody asks."""', "room.py:3: # who does",
        "room.py:4: def is_nobody(): ...", "room.py:5: class ForWho: ...",
    ]  # fmt: skip
