"""Forked children of the test process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it returns True in a forked child, within ten seconds."""
    if (child := os.fork()) == 0:
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
        thread.start()
        thread.join(10)
        os._exit(0 if done == [True] else 1)
    return os.waitpid(child, 0)[1] == 0
