"""What spares every test process work that it would do again and again."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays until the end: the garbage collector need not look at it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def models_of_aws_are_read_once() -> Iterator[None]:
    """botocore reads its models, megabytes of JSON, anew for each of its sessions."""
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.create_loader()

    def the_same(_: str | None = None) -> Any:
        return loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", the_same)
        yield
