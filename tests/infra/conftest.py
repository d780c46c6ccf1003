"""An AWS that answers on a local port, empty for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from tests.infra.aws import Aws
from tests.infra.template import REGION


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of the server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def clients(moto: str) -> Iterator[Aws]:
    """Clients of the server, made once."""
    clients = Aws(moto, REGION)
    yield clients
    clients.close()
