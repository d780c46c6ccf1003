"""Faults between a process and its stores, without any store."""

from __future__ import annotations

import pytest
from redis import exceptions as driver

from flask_langpont_session.ops.drill.faults import Fault, Faults

CLOSED = driver.ConnectionError("closed")


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.PRIMARY_DOWN, driver.ConnectionError), (Fault.HANG, driver.TimeoutError)]
)
def test_a_server_that_does_not_answer_is_not_asked(fault: Fault, error: type[Exception]) -> None:
    faults = Faults(backend=None)  # type: ignore[arg-type]
    faults.begin(fault)
    with pytest.raises(error):
        faults.meet(lambda: 0.0, CLOSED)


@pytest.mark.parametrize("fault", [Fault.DATABASE_DOWN, None])
def test_the_others_let_everything_through(fault: Fault | None) -> None:
    faults = Faults(backend=None)  # type: ignore[arg-type]
    faults.present = fault
    faults.meet(lambda: 0.0, CLOSED)
