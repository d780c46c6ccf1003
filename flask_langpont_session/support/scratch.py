"""A folder for what is no longer wanted when an application under test is gone."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path


class Scratch:
    """A folder that is made when it is first asked for, and removed with this object, or at the end of the process.

    :ivar users: called before it goes: they end what still uses it.
    """

    def __init__(self) -> None:
        self.users: list[Callable[[], object]] = []
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """Return the folder. No other user may look into it."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="langpont-session-"))
            weakref.finalize(self, _remove, self._path, os.getpid(), self.users)
        return self._path


def _remove(path: Path, owner: int, users: Sequence[Callable[[], object]]) -> None:
    if os.getpid() == owner:  # in a forked child it is still the parent's
        for end in users:
            end()
        shutil.rmtree(path, ignore_errors=True)
