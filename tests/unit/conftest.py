"""What many unit tests need."""

from __future__ import annotations

import pytest

from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """It is 1000 s, until the test lets time pass."""
    return Clock()
