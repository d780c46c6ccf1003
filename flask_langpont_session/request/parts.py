"""The objects that all work of a request over the stores needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..stores.backend import Backend
    from .fallback import Fallback
    from .journal_writer import JournalWriter
    from .verifier import Verifier


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects that :class:`~.reads.Reads`, :class:`~.saves.Saves` and what those use share.

    :param now_ms: milliseconds since 1970.
    """

    backend: Backend
    fallback: Fallback
    journal_writer: JournalWriter
    verifier: Verifier
    now_ms: Callable[[], int]


class Part:
    """A part of a request's work over the stores, with all that it may need at hand."""

    def __init__(self, parts: Parts) -> None:
        backend = self._backend = parts.backend
        self._reports = backend.reports
        self._settings = backend.settings
        self._database = backend.database
        self._primary = backend.primary
        self._memory = backend.memory
        self._ended = backend.memory.ended
        self._clock = backend.clock
        self._journal_writer = parts.journal_writer
        self._verifier = parts.verifier
        self._now_ms = parts.now_ms
