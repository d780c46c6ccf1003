"""The results of checks, and of those that cannot tell."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from ...policy.errors import ErrorClass, StoreError

T = TypeVar("T")


class Outcome(StrEnum):
    """Outcomes of a check, from good to bad. What could not be looked at is no pass."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILURE = "failure"


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


Look = Generator[Finding, None, str]
"""A check at work: yields what it finds, and returns a sentence about what is well, for where it finds nothing."""


def findings_of(look: Look) -> list[Finding]:
    """Return what a check finds, or that all is well; where it needs a fact that is not known, also that it was
    skipped."""
    found: list[Finding] = []
    try:
        while True:
            found.append(next(look))
    except StopIteration as end:
        return found or [ok(end.value)]
    except CannotTell as reason:
        return [*found, Finding(Outcome.SKIPPED, str(reason))]
