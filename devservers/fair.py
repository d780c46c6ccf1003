"""A gunicorn worker that lets its siblings have a turn, and that can be asked in person."""

import os
import socket
import time
from pathlib import Path

from gunicorn.workers.gthread import ThreadWorker


class FairWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Spreads requests that come one after another over all workers.

    The kernel wakes the workers in a fixed order, so the first to be idle would answer a single visitor for ever, and
    the lab could not show that all workers agree. A test that wants to know that of each of them finds it behind a door
    of its own: a second port, named in the file ``door-<pid>`` of gunicorn's ``--worker-tmp-dir``.
    """

    _was_here = False
    _door: socket.socket | None = None

    def init_process(self) -> None:
        """Open the door, then work."""
        if self.cfg.worker_tmp_dir:
            self._door = socket.create_server(("127.0.0.1", 0))
            note = Path(self.cfg.worker_tmp_dir, f"door-{os.getpid()}")
            note.with_suffix(".new").write_text(str(self._door.getsockname()[1]))
            note.with_suffix(".new").rename(note)  # never there and empty
            self.sockets.append(self._door)
        super().init_process()

    def accept(self, listener: object) -> None:
        """Accept a connection, unless another worker does; the one that had the last waits a little for that."""
        if listener is self._door:
            super().accept(listener)
            return
        if self._was_here:
            time.sleep(0.01)
        before = self.nr_conns
        super().accept(listener)
        self._was_here = self.nr_conns > before
