"""Requests under way: each runs real code in a greenlet and stops at every store, so that a schedule decides what
happens in between.

A question to a store can stop twice: before it arrives, and between its effect and the reply. What happens to the
network meanwhile happens to the question: it is lost on the way, or takes effect and its reply is lost. A caller may
give up at both places; a question that had not arrived by then may still arrive later, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

from flask_langpont_session.policy.errors import ErrorClass, StoreError

from .clock import Clock

T = TypeVar("T")


class Path(Enum):
    """The state of the path between a caller and a server."""

    CLEAR = auto()
    SILENT = auto()  # nothing comes through, and no error: the caller waits until it gives up
    BROKEN = auto()  # refused or reset: the caller knows at once


class Command(Enum):
    """Ways in which a stopped task goes on."""

    GO = auto()
    GIVE_UP = auto()


@dataclass(eq=False)
class Task:
    """One request, or one round of a monitor.

    :param worker: the process it runs in; anything that can be compared.
    :param stepped: stops at stores; else it runs through.
    :param is_request: False: a round of a monitor.
    :param failures: (store, error class) of every question that failed.
    :param answered: names of the stores that answered.
    """

    label: str
    worker: Hashable
    began_ms: int
    stepped: bool = False
    is_request: bool = True
    stage: str = ""
    failures: list[tuple[str, ErrorClass]] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    run: greenlet | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Return whether the task has ended."""
        return self.run is None or self.run.dead


Late = Callable[[], None]


class Tasks:
    """A runner of tasks, one at a time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.current: Task | None = None
        self.is_late = False
        self.late: list[Late] = []
        """Questions whose callers have given up, and that have not arrived yet."""

    # -- for the schedule, which decides what happens next ---------------------------------------------------------

    def run(self, task: Task, work: Callable[[], None]) -> None:
        """Run a task until it stops for the first time, or to its end if it is not stepped."""
        if not task.stepped:
            outer, self.current = self.current, task
            try:
                work()
            finally:
                self.current = outer
            return
        task.run = greenlet(lambda command: work())
        self.resume(task, Command.GO)

    def resume(self, task: Task, command: Command = Command.GO) -> None:
        """Let a stopped task go on until it stops again."""
        assert task.run is not None
        self.current = task
        try:
            task.run.switch(command)
        finally:
            self.current = None

    def finish(self, task: Task) -> None:
        """Let a stopped task go on to its end."""
        task.stepped = False
        self.resume(task)

    def kill(self, task: Task) -> None:
        """The process of a task has died."""
        if task.run is not None and not task.run.dead:
            task.run.throw(GreenletExit)

    def arrive(self, number: int) -> None:
        """Let a late question arrive."""
        if self.late:
            self.late.pop(number % len(self.late))()

    # -- for the simulated stores ----------------------------------------------------------------------------------

    def pause(self, stage: str) -> Command:
        """Stop here, if the task that runs is one that stops."""
        task = self.current
        if task is None or not task.stepped or task.run is None:
            return Command.GO
        task.stage = stage
        parent = getcurrent().parent
        assert parent is not None
        command: Command = parent.switch()
        return command

    def ask(self, store: str, path: Callable[[], Path], timeout: float, effect: Callable[[], T]) -> T:
        """Ask a server.

        :param path: how things stand between caller and server now.
        :param timeout: seconds the caller waits.
        :param effect: what the server does with the question, and its answer.
        :raises StoreError: as a store's driver would have it.
        """
        self.clock.advance(1)
        deadline = self.clock.now_ms + round(timeout * 1000)
        self._look_at(path(), store, deadline)
        if self.pause("sent") is Command.GIVE_UP:
            task = self.current
            self.late.append(lambda: self._arrive_late(task, path, effect))
            raise self._timed_out(store, deadline)
        self._look_at(path(), store, deadline)
        try:
            answer = effect()
        except StoreError as error:
            raise self._noted(error) from None
        if self.pause("answered") is Command.GIVE_UP or self.clock.now_ms > deadline:
            raise self._timed_out(store, deadline)
        self._look_at(path(), store, deadline)
        if self.current is not None:
            self.current.answered.add(store)
        return answer

    def refuse(self, store: str, error_class: ErrorClass, cause: str) -> StoreError:
        """An error that says that nothing was done."""
        return self._noted(StoreError(store, error_class, cause))

    def _look_at(self, path: Path, store: str, deadline: int) -> None:
        if path is Path.SILENT:
            raise self._timed_out(store, deadline)
        if path is Path.BROKEN:
            raise self._noted(StoreError(store, ErrorClass.UNREACHABLE, "ConnectionError"))

    def _timed_out(self, store: str, deadline: int) -> StoreError:
        self.clock.wait_until(deadline)
        return self._noted(StoreError(store, ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True))

    def _noted(self, error: StoreError) -> StoreError:
        if self.current is not None:
            self.current.failures.append((error.store, error.error_class))
        return error

    def _arrive_late(self, task: Task | None, path: Callable[[], Path], effect: Callable[[], object]) -> None:
        if path() is not Path.CLEAR:
            return
        outer, self.current, self.is_late = self.current, task, True
        try:
            effect()
        except StoreError:
            pass  # no caller is there to be told
        finally:
            self.current, self.is_late = outer, False
