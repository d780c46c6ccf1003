"""All tests of the protocol run in small parts, and what the package logs of millions of outages goes nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import simulated


@pytest.fixture(autouse=True)
def small_and_quiet() -> Iterator[None]:
    """See :func:`~.world.simulated`."""
    with simulated():
        yield
