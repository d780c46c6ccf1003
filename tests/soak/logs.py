"""Checks of the log of a soak's workers."""

from __future__ import annotations

import re
from collections.abc import Callable

_TRACE = re.compile(r"Traceback|WORKER TIMEOUT|met an error it does not know")


def look_at_the_log(log: str, hidden: set[str], found: Callable[[str], None]) -> None:
    """Report ids and values in the log, and unexpected errors."""
    if any(secret in log for secret in hidden):
        found("I14: a session id stands in the log")
    if re.search(r"person-\d+:\d+", log):
        found("I14: a session value stands in the log")
    if trace := _TRACE.search(log):
        found(f"an unexpected error in the log: {log[max(0, trace.start() - 500) : trace.end() + 3000]}")
