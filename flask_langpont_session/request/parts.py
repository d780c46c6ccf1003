"""What all that a request does over the stores is done with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..stores.backend import Backend
from .fallback import Fallback
from .journal_writer import JournalWriter
from .operations import Operations
from .verifier import Verifier


@dataclass(frozen=True, slots=True)
class Parts:
    """Shared by :class:`~.reads.Reads`, :class:`~.saves.Saves` and what those use.

    :param now_ms: milliseconds since 1970.
    """

    backend: Backend
    fallback: Fallback
    journal_writer: JournalWriter
    verifier: Verifier
    now_ms: Callable[[], int]
    operations: Operations
