"""What the workers of a soak have logged."""

from __future__ import annotations

import re
from collections.abc import Callable

_TRACE = re.compile(r"Traceback|WORKER TIMEOUT|met an error it does not know")


def look_at_the_log(log: str, hidden: set[str], found: Callable[[str], None]) -> None:
    """Neither ids nor values in it, and no unexpected error."""
    if any(secret in log for secret in hidden):
        found("I14: a session id stands in the log")
    if re.search(r"person-\d+:\d+", log):
        found("I14: a session value stands in the log")
    if trace := _TRACE.search(log):
        found(f"an unexpected error in the log: {log[max(0, trace.start() - 500) : trace.end() + 3000]}")
