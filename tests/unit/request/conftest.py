"""A repository over stores that answer as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_langpont_session.policy.ids import SessionId
from tests.support.fake_stores import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def user() -> SessionId:
    """Return the id of a signed-in session."""
    return SessionId("user", "u", False, 1, b"secret")


@pytest.fixture
def visitor() -> SessionId:
    return SessionId("visitor", "a", False, 1, b"secret")
