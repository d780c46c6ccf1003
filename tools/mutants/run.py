"""Run of the tests against one mutant, layer by layer, until one of them fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .table import PACKAGE, ROOT, Mutant

LAYERS = ("unit", "protocol", "servers")
"""The layers, cheapest first."""

WHOLE = {"unit": ("tests/unit",), "protocol": ("tests/protocol/test_schedules.py",), "servers": ()}
"""Layer → the tests to run when those that the list names pass. Of servers only the named ones are run."""

_LIMIT = 900
"""Seconds for one run of tests; a mutant that keeps them busy for longer is dead."""

_FAILED = 1
"""pytest's exit status if tests failed. Any other but 0 says that they were not run."""

_LEFT_OUT = ".git", ".venv*", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build"


@dataclass(frozen=True)
class Outcome:
    """The end of a mutant.

    :param layer: that killed it; None: it is alive.
    :param seconds: of all runs until then.
    :param killer: the test that failed first.
    """

    mutant: Mutant
    layer: str | None
    seconds: float
    killer: str

    def __str__(self) -> str:
        late = " (a cheaper layer should)" if self.layer and self.layer != self.mutant.layer else ""
        return f"{self.mutant.name:45} {self.layer or 'ALIVE':9}{self.seconds:6.1f} s  {self.killer}{late}"


class Copy:
    """A copy of the tree, which has at most one mistake at a time.

    :param root: a folder that is not there yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        self._changes = 0

    def write(self, file: str, text: str) -> None:
        """Replace a file of the package."""
        path = self.root / PACKAGE / file
        path.write_text(text)
        # Python's compiled files go by size and whole seconds: two mistakes of the same size in one second look alike.
        self._changes += 1
        os.utime(path, (self._changes, self._changes))

    def restore(self, file: str) -> None:
        """Give a file of the package its own text."""
        self.write(file, (ROOT / PACKAGE / file).read_text())

    def failing_test(self, tests: Sequence[str]) -> str | None:
        """Return the first test that fails; None: all pass.

        :raises RuntimeError: the tests could not be run, as when the mistake is one of syntax.
        """
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return "(out of time)"
        if done.returncode not in (0, _FAILED):
            raise RuntimeError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        if not done.returncode:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return failed[1].removeprefix("tests/") if failed else "(unknown)"


def try_mutant(copy: Copy, mutant: Mutant, layers: Sequence[str], *, is_quick: bool = False) -> Outcome:
    """Run the tests of these layers against a mutant until one fails.

    :param is_quick: of the unit tests run only those that the list names, and those in the folder of the module.
    :raises RuntimeError: the tests could not be run.
    """
    copy.write(mutant.file, mutant.applied(copy.root))
    began = time.monotonic()
    try:
        for layer in layers:
            named = [test for test in mutant.named_tests(copy.root) if _layer_of(test) == layer]
            around = [mutant.folder(copy.root)] if layer == "unit" else []
            for tests in (named, around, () if is_quick and layer == "unit" else WHOLE[layer]):
                if tests and (killer := copy.failing_test(tests)):
                    return Outcome(mutant, layer, time.monotonic() - began, killer)
    except RuntimeError as error:
        raise RuntimeError(f"mutant {mutant.name}: {error}") from None
    finally:
        copy.restore(mutant.file)
    return Outcome(mutant, None, time.monotonic() - began, "")


def _layer_of(test: str) -> str:
    folder = test.split("/")[1]
    return folder if folder in ("unit", "protocol") else "servers"
