"""A database that says what a test wants it to say, for what stands above the connections."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.sql.engines import PATIENT_SECONDS

Answer = Any
"""A number of rows that were changed, an error that is raised, or a list of what one after the other finds: rows."""

ROW = AuthRow(
    "digest", "7", 1, True, {"_user_id": b'"7"'}, 0, created_at=0, idle_expires_at=2000, absolute_expires_at=9000,
    read_at=1000,
)  # fmt: skip
"""A session that began at 0, is read at 1000, and ends at 2000 if it is not used."""


def stored(row: AuthRow = ROW, **columns: Any) -> Any:
    """The row as a driver hands it on."""
    values = {name: getattr(row, name) for name in AuthRow.__slots__}
    values |= {"live": int(row.live), "payload": '{"_user_id":"7"}'} | columns
    return namedtuple("Stored", values)(**values)


class Result:
    """The result of a statement: rows, and their number."""

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = list(rows)
        self.rowcount = rowcount
        self.returns_rows = True

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def all(self) -> list[Any]:
        return self._rows

    def scalar(self) -> Any:
        return self.first()

    def scalar_one(self) -> Any:
        return self._rows[0]

    def scalars(self) -> Result:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)


@dataclass
class Connections:
    """Lends one connection, which answers by statement.

    :ivar answers: statement → what it is answered; `otherwise`: what all others are.
    :ivar asked: statements and their values, in order.
    :ivar lent: for what it was lent, and how each transaction ended.
    :ivar patience_given: seconds.
    """

    answers: dict[Any, Answer] = field(default_factory=dict)
    otherwise: Answer = ()
    asked: list[tuple[Any, Mapping[str, Any]]] = field(default_factory=list)
    lent: list[str] = field(default_factory=list)
    patience_given: list[float] = field(default_factory=list)
    distrusted: int = 0
    single_statements_stand_alone: bool = False
    dialect: Any = field(
        default_factory=lambda: SimpleNamespace(driver="fake", insert_returning=False, update_returning=False)
    )

    def execute(self, statement: Any, values: Mapping[str, Any] | None = None) -> Result:
        self.asked.append((statement, dict(values or {})))
        answer: Any = self.answers.get(statement, self.otherwise)
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else ()
        if isinstance(answer, Exception):
            raise answer
        return Result((), answer) if isinstance(answer, int) else Result(answer, len(answer))

    @property
    def statements(self) -> list[Any]:
        """Return the statements that were executed, without their values."""
        return [statement for statement, _ in self.asked]

    @contextmanager
    def _lent(self, what: str) -> Iterator[Connections]:
        try:
            yield self
        except Exception:  # whatever the error: a transaction that meets one is rolled back, and the caller is told
            self.lent.append(f"{what}: rolled back")
            raise
        self.lent.append(what)

    def reading(self) -> Any:
        return self._lent("reading")

    def writing(self) -> Any:
        return self._lent("writing")

    def writing_without_waiting(self) -> Any:
        return self._lent("writing without waiting")

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        self.patience_given.append(seconds)
        yield

    @contextmanager
    def beside_the_caller(self) -> Iterator[None]:
        self.lent.append("beside the caller")
        yield

    def distrust(self) -> None:
        self.distrusted += 1


class Calls:
    """Calls that run at once, with a note of each one's kind."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.made: list[str] = []
        self.cut_off_before: list[float] = []

    def _run(self, kind: str, work: Callable[[], Any], writing: bool) -> Any:
        self.made.append(f"{kind}, {'writing' if writing else 'reading'}")
        return work()

    def in_request(self, work: Callable[[], Any], timeout: float | None, *, writing: bool = True) -> Any:
        return self._run("request", work, writing)

    def patiently(self, work: Callable[[], Any], seconds: float = PATIENT_SECONDS, *, writing: bool = True) -> Any:
        return self._run("patient", work, writing)

    def read(self, ask: Callable[[Any], Any], timeout: float | None = None, *, is_patient: bool = False) -> Any:
        return self._lent(self.connections.reading, ask, writing=False, is_patient=is_patient)

    def write(self, ask: Callable[[Any], Any], timeout: float | None = None, *, is_patient: bool = False) -> Any:
        return self._lent(self.connections.writing, ask, writing=True, is_patient=is_patient)

    def _lent(self, lend: Callable[[], Any], ask: Callable[[Any], Any], *, writing: bool, is_patient: bool) -> Any:
        def work() -> Any:
            with lend() as connection:
                return ask(connection)

        return self._run("patient" if is_patient else "request", work, writing)

    def probe(self, work: Callable[[], None], timeout: float, *, writing: bool) -> None:
        self._run("probe", work, writing)

    def distrust_if_ill(self) -> None:
        self.made.append("distrust")

    def cut_off(self, given_up_before: float) -> None:
        self.cut_off_before.append(given_up_before)


@dataclass
class Schema:
    """Tables that can be made, or not.

    :ivar mends: whether a call that fails may be tried again with tables that are made.
    """

    mends: bool = False
    mended: int = 0
    was_there: bool = False

    def can_mend(self, error: Exception) -> bool:
        return self.mends

    def mend(self) -> None:
        self.mended += 1


class Refused(Exception):
    """A driver's error, known by its SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(sqlstate)


def refused(sqlstate: str) -> sa.exc.OperationalError:
    """The same as SQLAlchemy hands it on."""
    return sa.exc.OperationalError("statement", {}, Refused(sqlstate))


def fails_first(error: Exception, times: int, answer: str = "answer") -> Callable[[], str]:
    """A call that fails so often before it is answered."""
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return answer

    return call
