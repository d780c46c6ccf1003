"""A gunicorn worker that lets its siblings have a turn."""

import time

from gunicorn.workers.gthread import ThreadWorker


class FairWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Spreads requests that come one after another over all workers.

    The kernel wakes the workers in a fixed order, so the first to be idle would answer a single visitor for ever, and
    the lab could not show that all workers agree.
    """

    _was_here = False

    def accept(self, listener: object) -> None:
        """Accept a connection, unless another worker does; the one that had the last waits a little for that."""
        if self._was_here:
            time.sleep(0.01)
        before = self.nr_conns
        super().accept(listener)
        self._was_here = self.nr_conns > before
