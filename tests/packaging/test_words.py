"""The program that looks for old words finds them where they count; ``make check`` runs it."""

from __future__ import annotations

import ast

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


def test_a_docstring_that_makes_readers_guess_is_found() -> None:
    """Of functions and classes everywhere; of constants where it is asked for, as in the package."""
    tree = ast.parse(
        '"""A module."""\ndef f():\n    """What is said."""\nLIMIT = 1\n"""Of all."""\nNAME = ""\n"""The name."""\n'
    )
    assert list(words.riddles_of(tree)) == [(2, "What")]
    assert list(words.riddles_of(tree, with_constants=True)) == [(5, "Of"), (3, "What")]
