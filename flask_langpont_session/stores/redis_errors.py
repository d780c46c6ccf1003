"""What a driver error means: one table from redis-py's exceptions and Redis' codes to the classes the rest knows."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from redis import exceptions as driver

from .base import ErrorClass, StoreError

# The first row that matches counts: redis-py's subclasses are not what their names say (AuthenticationError and
# BusyLoadingError *are* ConnectionErrors), so the special ones stand above the general ones.
_BY_TYPE: tuple[tuple[tuple[type[Exception], ...], ErrorClass], ...] = (
    (
        (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError),
        ErrorClass.IDENTITY_REFUSED,
    ),
    ((driver.BusyLoadingError, driver.MasterDownError), ErrorClass.BUSY),
    ((driver.MaxConnectionsError, driver.DataError, UnicodeError), ErrorClass.LOCAL),
    ((driver.ReadOnlyError, driver.OutOfMemoryError), ErrorClass.WRITE_REFUSED),
    (
        (driver.MovedError, driver.AskError, driver.TryAgainError, driver.ClusterCrossSlotError),
        ErrorClass.TOPOLOGY,
    ),
    ((driver.CrossSlotTransactionError,), ErrorClass.TOPOLOGY),
)

# Errors the driver has no class for keep their code as the first word of the text.
_BY_CODE: Mapping[str, ErrorClass] = {
    "BUSY": ErrorClass.BUSY,
    "LOADING": ErrorClass.BUSY,
    "MASTERDOWN": ErrorClass.BUSY,
    "READONLY": ErrorClass.WRITE_REFUSED,
    "OOM": ErrorClass.WRITE_REFUSED,
    "MISCONF": ErrorClass.WRITE_REFUSED,
    "NOREPLICAS": ErrorClass.WRITE_REFUSED,
    "NOAUTH": ErrorClass.IDENTITY_REFUSED,
    "WRONGPASS": ErrorClass.IDENTITY_REFUSED,
    "NOPERM": ErrorClass.IDENTITY_REFUSED,
    "WRONGTYPE": ErrorClass.DATA,
}


def classify(error: Exception) -> ErrorClass:
    """The error class of a driver error. What nobody knows counts as unreachable: fail closed, and be counted."""
    for types, error_class in _BY_TYPE:
        if isinstance(error, types):
            return error_class
    text = str(error)
    code = getattr(error, "status_code", None) or text.partition(" ")[0]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code == "ERR" and "script" in text:
        return ErrorClass.LOCAL  # the server is well; what it was asked to run is not
    if type(error) is driver.ConnectionError and text.startswith("No connection available"):
        return ErrorClass.LOCAL
    if _caused_by_tls(error):
        return ErrorClass.IDENTITY_REFUSED
    return ErrorClass.UNREACHABLE


def _caused_by_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def translate(store: str, error: Exception, *, sent: bool = False) -> StoreError:
    """A driver error as the rest of the package sees it: by class, without its text (which may quote values).

    :param sent: the command had left: unless the server itself refused it, it may have been done.
    """
    timed_out = isinstance(error, (driver.TimeoutError, TimeoutError))
    refused = isinstance(error, driver.ResponseError)
    return StoreError(store, classify(error), type(error).__name__, timed_out=timed_out, sent=sent and not refused)
