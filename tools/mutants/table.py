"""The list of mutants, ``mutants.toml``, as objects."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "flask_langpont_session"
LIST = Path(__file__).with_name("mutants.toml")


class StaleMutant(Exception):
    """The text of a mutant is not in its file, or is there more than once. The message says which."""


@dataclass(frozen=True)
class Mutant:
    """A mistake in one rule.

    :param name: unique in the list.
    :param file: below the package.
    :param before: a text that the file has exactly once; `after`: the text in its place.
    :param promise: the promise that is broken.
    :param layer: the cheapest layer that is to kill it.
    :param tests: files or node ids below ``tests/`` to run first; empty: the unit tests named after the module.
    """

    name: str
    file: str
    before: str
    after: str
    promise: str
    layer: str = "unit"
    tests: tuple[str, ...] = ()

    def applied(self, root: Path) -> str:
        """Return the text of the file with the mistake.

        :raises StaleMutant: the list has to be brought up to date.
        """
        path = root / PACKAGE / self.file
        if not path.is_file():
            raise StaleMutant(f"mutant {self.name}: there is no file {self.file}; correct it in tools/mutants")
        text = path.read_text()
        if (found := text.count(self.before)) != 1:
            raise StaleMutant(
                f"mutant {self.name}: its text is {found} times in {self.file}, not once; correct it in tools/mutants: "
                f"{self.before!r}"
            )
        return text.replace(self.before, self.after)

    def named_tests(self, root: Path) -> list[str]:
        """Return the tests to run first, as pytest takes them from the root."""
        if self.tests:
            return [f"tests/{test}" for test in self.tests]
        path = Path(self.file)
        mirrored = Path("tests/unit") / path.parent / f"test_{path.name}"
        return [str(mirrored)] if (root / mirrored).is_file() else []

    def folder(self, root: Path) -> str:
        """Return the folder with the unit tests of the module, and of those around it."""
        path = Path("tests/unit") / Path(self.file).parent
        return str(path if (root / path).is_dir() else path.parent)


def read_mutants() -> list[Mutant]:
    """Return the mutants of the list, in its order."""
    rows = tomllib.loads(LIST.read_text())["mutant"]
    return [Mutant(**{**row, "tests": tuple(row.get("tests", ()))}) for row in rows]
