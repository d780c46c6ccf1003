"""A folder for what is no longer wanted when an application under test is gone."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path


class Scratch:
    """Made when it is asked for; goes with this object, or at the end of the process that made it."""

    def __init__(self) -> None:
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder. Nobody else may look into it."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="langpont-session-"))
            weakref.finalize(self, _remove, self._path, os.getpid())
        return self._path


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # in a forked child it is still the parent's
        shutil.rmtree(path, ignore_errors=True)
