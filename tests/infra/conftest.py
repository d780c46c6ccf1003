"""An AWS that answers on a local port, empty for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.aws import Aws
from tests.infra.template import REGION
from tests.support.moto import moto_server


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of the server."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def clients(moto: str) -> Iterator[Aws]:
    """Clients of the server, made once."""
    clients = Aws(moto, REGION)
    yield clients
    clients.close()
