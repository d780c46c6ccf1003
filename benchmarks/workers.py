"""Worker processes of a benchmark: forked from one that has imported what they need, and told by a pipe what to do."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")


def pipe() -> tuple[Connection, Connection]:
    """Return the end that reads and the end that writes of a pipe between two workers."""
    return _CONTEXT.Pipe(duplex=False)


class Process:
    """A worker. It ends with this process, in whatever way that ends.

    :param work: a function of a module. It gets its end of the pipe, and `arguments`.
    """

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        _CONTEXT.set_forkserver_preload([work.__module__])  # heeded until the first start
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=work, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, what: object) -> None:
        """Tell it something."""
        self._pipe.send(what)

    def answer(self) -> Any:
        """Return the next message of the worker. :raises RuntimeError: it has ended instead."""
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(f"a worker ended with status {code}; its own message is above") from None

    @property
    def has_answered(self) -> bool:
        """Return whether there is something to be read."""
        return self._pipe.poll()

    def close(self) -> None:
        """Let it end by itself: it is told no more."""
        self._pipe.close()
        self._process.join()

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self.close()
