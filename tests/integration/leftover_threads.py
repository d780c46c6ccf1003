"""Threads that an application leaves behind."""

from __future__ import annotations

import threading

ONE_PER_PROCESS = {"langpont-session-lag"}


def threads() -> set[threading.Thread]:
    """Return the threads of this package, without those that all applications of a process share."""
    started = {thread for thread in threading.enumerate() if thread.name.startswith("langpont")}
    return {thread for thread in started if thread.name not in ONE_PER_PROCESS}
