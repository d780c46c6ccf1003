"""The results of checks, and of those that cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ...policy.errors import ErrorClass, StoreError

if TYPE_CHECKING:
    from .facts import Facts

T = TypeVar("T")


class Outcome(StrEnum):
    """Outcomes of a check, from good to bad. What could not be looked at is no pass."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILURE = "failure"


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst of some outcomes."""
    order = list(Outcome)
    return max(outcomes, key=order.index, default=Outcome.SKIPPED)


class Finding(NamedTuple):
    """One thing that was found.

    :param found: a sentence without its full stop; never a secret, never data of a session.
    :param cure: the setting or the command that helps; empty: none is needed.
    :param subject: which store it is about; empty: the check has one subject only.
    """

    outcome: Outcome
    found: str
    cure: str = ""
    subject: str = ""


def ok(found: str) -> Finding:
    """Return a finding: all is well."""
    return Finding(Outcome.OK, found)


def warning(found: str, cure: str) -> Finding:
    """Return a finding: it works, and something is worse than it need be."""
    return Finding(Outcome.WARNING, found, cure)


def failure(found: str, cure: str) -> Finding:
    """Return a finding: something does not work, or is not safe."""
    return Finding(Outcome.FAILURE, found, cure)


@dataclass(frozen=True)
class Unknown:
    """Stands in the place of a fact that could not be read.

    :param why: a sentence without its full stop.
    :param error: of the store, if it was one that kept it from being read.
    """

    why: str
    error: StoreError | None = None

    @property
    def of_store(self) -> str:
        """Return in short why a store that was asked cannot be asked more."""
        is_refusal = self.error is not None and self.error.error_class is ErrorClass.IDENTITY_REFUSED
        return "refuses this application, see stores" if is_refusal else "does not answer"


class CannotTell(Exception):
    """A check needs a fact that is not known. The text says why."""


def known(fact: T | Unknown) -> T:
    """Return the fact.

    :raises CannotTell: it is not known.
    """
    if isinstance(fact, Unknown):
        raise CannotTell(fact.why)
    return fact


def guarded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings of a check; where it needs a fact that is not known, the one that it was skipped."""
    try:
        yield from findings
    except CannotTell as reason:
        yield Finding(Outcome.SKIPPED, str(reason))


SERVERS, DATABASE = "servers", "database"
"""Facts that are asked for only where a check needs them."""


class Check(NamedTuple):
    """A check, which has the name of its function.

    :param look: pure: the same facts, the same findings. One at least.
    :param looks_at: what it looks at, and what is wrong there; for the documentation.
    :param why: why it matters: a sentence.
    :param needs: whatever has to be asked for it: :data:`SERVERS`, :data:`DATABASE`.
    """

    look: Callable[[Facts], Iterable[Finding]]
    looks_at: str
    why: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name as people write it."""
        return self.look.__name__.replace("_", "-")
