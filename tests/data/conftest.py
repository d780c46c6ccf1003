"""One Valkey and one PostgreSQL for all tests; the workers are each test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.site.hosts import Host, Stage, staged

HostMaker = Callable[..., AbstractContextManager[Host]]

pytest.register_assert_rewrite("tests.data.support")

PATIENT: dict[str, Any] = {
    "REDIS_TIMEOUT": 2.0,
    "DATABASE_TIMEOUT": 2.0,
    "REQUEST_BUDGET": 4.0,
    "HEALTH_INTERVAL": 0.2,
    "VERIFY_INTERVAL": 1,
}
"""A busy machine that lets a store wait is no fault of the store; idle stores are looked at five times a second."""


if os.environ.get("LANGPONT_ENCRYPTED"):  # nothing that users get is different
    PATIENT |= {"ENCRYPTION_KEYS": [bytes(range(200, 232)).hex()], "ENCRYPTED_CATEGORIES": ["auth", "ui"]}


@pytest.fixture(scope="session")
def one_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stores, started once."""
    with staged(tmp_path_factory.mktemp("data")) as stage:
        yield stage


@pytest.fixture
def stage(one_stage: Stage, tmp_path: Path) -> Stage:
    """The stores, empty; files of hosts go into the test's own folder."""
    one_stage.empty()
    return Stage(tmp_path, one_stage.redis, one_stage.database, one_stage.secret)


@pytest.fixture
def host(stage: Stage) -> HostMaker:
    """Starts hosts whose stores have time: ``with host("a", workers=2, **settings) as a:``."""

    def start(name: str = "a", workers: int = 2, **settings: Any) -> AbstractContextManager[Host]:
        return partial(stage.host, name, workers)(**(PATIENT | settings))

    return start
