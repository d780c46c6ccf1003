"""Ends a command before it is done: by Ctrl-C, and by SIGTERM, which a supervisor sends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_Handler = Callable[[int, Any], Any]


@contextmanager
def _handled(handler: _Handler) -> Iterator[dict[int, Any]]:
    """Handle both signals while this is open. Yield the handlers there were before."""
    before: dict[int, Any] = {}
    for ending in (signal.SIGINT, signal.SIGTERM):
        before[ending] = signal.signal(ending, handler)
    try:
        yield before
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def interrupting() -> Iterator[None]:
    """Have both signals raise KeyboardInterrupt, wherever the command is."""
    with _handled(signal.default_int_handler):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Finish the block before a signal ends the command: one that comes meanwhile raises KeyboardInterrupt at the
    block's end. A second one does what it would do without the block."""
    with interruptions() as seen:
        yield
    if seen:
        raise KeyboardInterrupt


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Yield a list that gets the number of the signal by which the command is to end. A second signal ends it at
    once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, before[number])

    with _handled(note) as before:
        yield seen
