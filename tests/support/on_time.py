"""A process that is never late, however busy the machine is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from flask_langpont_session.stores.sql import bulkhead
from flask_langpont_session.support.lag import Lag


@contextmanager
def never_late() -> Iterator[None]:
    """Let no process count as late, for tests that say what a hanging store costs: a late process waits longer, and
    does not say that the store was the reason. Lateness has tests of its own, which tell the process how late it is."""
    with (
        patch.object(Lag, "is_late", lambda *_: False),
        patch.object(Lag, "pace", 1.0),
        patch.object(bulkhead, "FAIR_SHARE", -math.inf),  # no call began too late to say something about the database
    ):
        yield
