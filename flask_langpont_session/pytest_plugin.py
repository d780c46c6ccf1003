"""Fixtures for an application's own tests. pytest finds them by itself; imported is only what a test asks for.

>>> @pytest.fixture                                          # doctest: +SKIP
... def app(langpont_app_config):
...     return create_app(langpont_app_config)
>>> def test_profile_without_redis(client, session_outage):  # doctest: +SKIP
...     with session_outage(2):
...         assert client.get("/profile").status_code == 200
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from flask import Flask


class SessionOutage(Protocol):
    """The type of the fixture ``session_outage``."""

    def __call__(self, level: int, app: Flask | None = None) -> AbstractContextManager[None]:
        """Have requests find the stores as they are at a level (0-4) of the decision table, while this is open.

        :param app: None: the one that the fixture ``app`` gives.
        """


@pytest.fixture
def langpont_redis_url() -> str | None:
    """The Redis or Valkey that tests use; None: one in memory. Define a fixture of this name to use another one."""
    return None


@pytest.fixture
def langpont_app_config(langpont_redis_url: str | None) -> Iterator[dict[str, Any]]:
    """A configuration for the application of one test (:func:`flask_langpont_session.testing.app_config`), to be put
    over its own before ``init_app``. Applications that were set up meanwhile are closed when the test is over."""
    from .testing import app_config, closing_applications

    with closing_applications():
        yield app_config(langpont_redis_url)


@pytest.fixture
def session_outage(request: pytest.FixtureRequest) -> SessionOutage:
    """``with session_outage(2): …``, see :func:`flask_langpont_session.testing.outage`."""
    from .testing import outage

    def session_outage(level: int, app: Flask | None = None) -> AbstractContextManager[None]:
        return outage(request.getfixturevalue("app") if app is None else app, level)

    return session_outage


@pytest.fixture
def captured_session_events() -> Iterator[list[object]]:
    """The events that were sent during the test, in their order (values of :mod:`flask_langpont_session.events`)."""
    from .testing import captured_events

    with captured_events() as seen:
        yield seen
