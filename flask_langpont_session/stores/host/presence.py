"""The living workers of a host, and the latest word of each, in small files beside the journal.

A worker holds a lock on a file of its own, which the system takes back from a process that is killed: no silence has to
be waited for.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...support.files import open_private
from ...support.forks import renew_in_children
from ...support.locks import takes
from .opening import translated

_LONGEST = 1 << 16
"""Bytes of a word that are read."""

FORGOTTEN = "forgotten"
"""The part of a word that says how many sessions in use had no room in the memory of its worker."""

NEAR = "near"
"""The part of a word that says how many connections of the near cache its worker has."""

LOST = "lost"
"""The part of a word that says when its worker has found a Redis to have lost data: by its name, seconds since 1970."""

FEATURES = "features"
"""The part of a word that names the features of which its worker has met a key."""


def parts_of(word: str) -> Mapping[str, Any]:
    """Return the parts of a worker's word; none yet, if it is being written at this moment."""
    try:
        said = json.loads(word)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class Presence:
    """One worker among those of its host.

    :param path: of the journal that they share; None: all of them are in this process.
    :param words: then what each of them has said.
    """

    def __init__(self, path: Path | None, words: dict[Presence, str]) -> None:
        self._path = None if path is None else path.resolve()
        self._words = words
        self._own: Path | None = None
        self._descriptor = -1
        renew_in_children(self, Presence.forget)

    def say(self, word: str) -> bool:
        """Let the other workers of the host know something, in the place of what this one has said before.

        :return: True.
        :raises StoreError: its file cannot be written.
        """
        if self._path is None:
            self._words[self] = word
            return True
        with translated():
            if self._own is None:
                self._words_in(self._path)  # removes what workers have left that were killed
                self._own, self._descriptor = _held(self._path)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, word.encode(), 0)
        return True

    def others(self) -> list[str]:
        """Return the latest word of each other worker that lives and has said anything. One that is being written may
        be cut off.

        :raises StoreError: the files cannot be read.
        """
        if self._path is None:
            return [word for worker, word in self._words.copy().items() if worker is not self]
        with translated():
            return self._words_in(self._path) if self._path.parent.is_dir() else []

    def end(self) -> None:
        """Stop being a worker, as after the end of the process. Never raises."""
        if self._own is not None:
            with suppress(OSError):
                self._own.unlink()
        self.forget()

    def forget(self) -> None:
        """Let go of the file in a forked child: its parent goes on."""
        self._words.pop(self, None)
        if self._own is not None:
            os.close(self._descriptor)
            self._own = None

    def _words_in(self, journal: Path) -> list[str]:
        beginning = f"{journal.name}-worker-"
        files = [path for path in journal.parent.iterdir() if path.name.startswith(beginning)]
        words = (self._word_in(path) for path in files if path != self._own)
        return [word for word in words if word is not None]

    @staticmethod
    def _word_in(path: Path) -> str | None:
        """Return the word in a worker's file; None: its worker has ended, and the file is removed."""
        with suppress(FileNotFoundError), os.fdopen(open_private(path, os.O_RDWR), "rb", 0) as file:
            if not takes(file.fileno()):
                return file.read(_LONGEST).decode(errors="replace")
            path.unlink()
        return None


def _held(journal: Path) -> tuple[Path, int]:
    """Make a file and lock it. Return the file, and the descriptor by which it is locked."""
    while True:
        path = journal.with_name(f"{journal.name}-worker-{secrets.token_hex(8)}")
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        if takes(descriptor) and path.exists():
            return path, descriptor
        os.close(descriptor)  # another worker found it unlocked, and takes it for that of one that was killed
