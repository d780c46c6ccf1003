"""Sessions of boto3 whose answers end in time.

boto3 bounds each read of an answer. A server that sends a byte now and then keeps that bound for ever; here the answer
as a whole has the time that one read of it has. The same holds for the calls that boto3 makes by itself, to STS for
the keys of a role.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPResponse
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
from botocore.session import Session


class _BoundedReader(io.RawIOBase):
    """The bytes that come over a socket until its time-out has passed once.

    :param raw: reads from the socket.
    :param sock: a socket of any kind.
    """

    def __init__(self, raw: Any, sock: Any) -> None:
        self._raw = raw
        self._socket = sock
        self._timeout: float | None = sock.gettimeout()
        self._end = time.monotonic() + (self._timeout or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        if self._timeout is None:
            return self._raw.readinto(buffer)
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        finally:
            self._socket.settimeout(self._timeout)  # a connection is used again

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock))


class _Connection(AWSHTTPConnection):  # type: ignore[misc]
    response_class = _BoundedResponse


class _TLSConnection(AWSHTTPSConnection):  # type: ignore[misc]
    response_class = _BoundedResponse


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TLSPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TLSConnection


class BoundedSession(Session):  # type: ignore[misc]
    """A botocore session whose clients, also those that it makes for itself, get answers that end in time."""

    def create_client(self, *args: Any, **kwargs: Any) -> Any:
        """Return a client whose answers end in time."""
        client = super().create_client(*args, **kwargs)
        # botocore has no setting for it. A test with a real server notices when these names change.
        client._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_TLSPool)
        return client
