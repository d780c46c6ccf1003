"""The data of a line of the log, and when the same is not said again."""

from __future__ import annotations

import logging

import pytest

from flask_langpont_session.support.logs import Failing, Once, fields
from tests.support.clock import Clock

log = logging.getLogger(__name__)


def test_data_stands_in_the_record_under_names_of_our_own(caplog: pytest.LogCaptureFixture) -> None:
    """Data stands in the record as it is: numbers as numbers. No name is one that the record has already."""
    log.warning("said", extra=fields("something", store="primary", seconds=1.5, name="n", args=(), message=None))
    [record] = caplog.records
    found = {name: value for name, value in vars(record).items() if name.startswith("langpont_")}
    assert found == {
        "langpont_event": "something", "langpont_store": "primary", "langpont_seconds": 1.5, "langpont_name": "n",
        "langpont_args": (), "langpont_message": None,
    }  # fmt: skip
    assert (record.name, record.getMessage()) == (__name__, "said")


def test_the_same_is_said_once_in_so_many_seconds() -> None:
    clock = Clock(0.0)
    once, said = Once(60.0, clock), []
    for moment in (0.0, 59.9, 60.0, 60.1, 120.0):
        clock.now = moment
        said.append(once.is_due())
    assert said == [True, False, True, False, True]


def test_each_of_several_things_is_said() -> None:
    """One does not keep another from being said."""
    once = Once(60.0, Clock())
    assert [once.is_due(what) for what in ("disk full", "locked", "disk full", "locked")] == [True, True, False, False]


def test_a_failure_is_said_when_it_begins_and_when_it_is_over() -> None:
    """Nothing is said while a failure goes on, nor that what never failed works."""
    failing = Failing()
    assert (failing.ends(), failing.problem) == (False, None)
    assert [failing.begins(), failing.begins()] == [True, False]
    assert failing.problem == ""
    assert [failing.ends(), failing.ends()] == [True, False]
    assert failing.begins()


def test_another_reason_is_said_as_well() -> None:
    failing = Failing()
    assert [failing.begins(why) for why in ("refused", "refused", "no answer", "refused")] == [True, False, True, True]
    assert failing.problem == "refused"
    assert failing.ends()
    assert failing.problem is None
