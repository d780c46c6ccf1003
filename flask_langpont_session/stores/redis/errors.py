"""The meaning of driver errors: one table from redis-py's exceptions and Redis' codes to the classes the rest knows.

Errors that are in no table count as unreachable: a server that says what we do not understand is not used.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping

from msgspec import MsgspecError
from redis import exceptions as driver

from ...policy import causes
from ...policy.errors import ErrorClass, StoreError, shard_of


def _newer(name: str) -> tuple[type[Exception], ...]:
    """Return an exception class that older versions of redis-py neither have nor raise; empty there."""
    return (getattr(driver, name),) if hasattr(driver, name) else ()


# The first row that matches counts: redis-py's subclasses are not what their names say (AuthenticationError,
# BusyLoadingError and MaxConnectionsError *are* ConnectionErrors, MasterDownError is a ClusterDownError, and what a
# cluster client raises is no RedisError), so the special ones stand above the general ones.
_BY_TYPE: tuple[tuple[tuple[type[Exception], ...], ErrorClass], ...] = (
    ((driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError), ErrorClass.IDENTITY_REFUSED),
    ((driver.AuthenticationWrongNumberOfArgsError, *_newer("ExternalAuthProviderError")), ErrorClass.IDENTITY_REFUSED),
    ((driver.BusyLoadingError, driver.MasterDownError), ErrorClass.BUSY),
    ((driver.ReadOnlyError, driver.OutOfMemoryError), ErrorClass.WRITE_REFUSED),
    ((driver.AskError, driver.TryAgainError, driver.ClusterCrossSlotError), ErrorClass.TOPOLOGY),
    (_newer("CrossSlotTransactionError"), ErrorClass.TOPOLOGY),
    ((driver.MaxConnectionsError, driver.DataError, UnicodeEncodeError), ErrorClass.LOCAL),
    ((UnicodeDecodeError, MsgspecError, RecursionError), ErrorClass.DATA),
    ((driver.InvalidResponse, driver.ClusterDownError, driver.ClusterError), ErrorClass.UNREACHABLE),
    ((driver.RedisClusterException, driver.TimeoutError, driver.NoScriptError), ErrorClass.UNREACHABLE),
)

# What the driver has no class for keeps its code as the first word of the text; else the code is `status_code`.
BY_CODE: Mapping[str, ErrorClass] = {
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
    "MOVED": ErrorClass.TOPOLOGY,
    "ASK": ErrorClass.TOPOLOGY,
    "TRYAGAIN": ErrorClass.TOPOLOGY,
    "CROSSSLOT": ErrorClass.TOPOLOGY,
    "WRONGTYPE": ErrorClass.DATA,
    "CLUSTERDOWN": ErrorClass.UNREACHABLE,
}

# What a server says, behind the code, to each connection that it does not serve.
_UNSERVED: Mapping[str, str] = {
    "max number of clients reached": causes.USED_UP,
    "cluster support disabled": causes.NO_CLUSTER,
    "SELECT is not allowed in cluster mode": causes.CLUSTER_NODE,
    "DB index is out of range": causes.NO_SUCH_NUMBER,
}

# A pool of redis-py's is used up: a plain ConnectionError.
_POOL_IS_USED_UP = "No connection available"

# A node says this of a slot that no shard has. It is well, although its code says that it is not.
_HOMELESS = "Hash slot not served"

# TLS, as `reason` or, where OpenSSL leaves that out, the text says it. An alert or a file of ours is about the identity
# of a peer, unless the network garbled something: those are told apart by the second list.
_TLS_IDENTITY = ("alert", "tls settings", "pem lib", "key values mismatch", "no certificate", "bad end line")
_TLS_TRANSPORT = ("record mac", "decode error", "internal error", "unexpected message", "protocol version", "notify")

# What a certificate was refused for (OpenSSL's X509_V_ERR_…), for people.
_CERTIFICATE: Mapping[int, str] = {
    10: causes.EXPIRED,
    62: "certificate: of another host name; see the host in LANGPONT_SESSION_REDIS_URL",
    64: "certificate: of another address; see the host in LANGPONT_SESSION_REDIS_URL",
}
_NOT_TRUSTED = f"{causes.NOT_TRUSTED}; see ssl_ca_certs in LANGPONT_SESSION_REDIS_URL"
_OWN_CERTIFICATE = (
    "TLS: refused by the server, or a file is unusable; see ssl_ca_certs and ssl_certfile in LANGPONT_SESSION_REDIS_URL"
)

# A right that the server missed, of a command sent or of one inside a script. Nothing but the name of a command fits
# between the quotes.
_NO_RIGHT = re.compile(r"permissions to run the '([a-z|_.-]{1,64})' command")
_NO_KEY = re.compile(r"permissions to access a key|can't access at least one of the keys")
_RIGHTS = "see Rights in Redis in the documentation's page on configuration"

# What a server says to a connection that has not signed in, or not as it should: by its text, because older versions of
# redis-py have no code of it.
_NO_PASSWORD = ("Authentication required", "HELLO must be called with the client already authenticated")
_WRONG_PASSWORD = ("invalid username-password pair", "invalid password")

# A pipeline puts the command, with keys and values, before the text.
_PIPELINE = " of pipeline caused error: "


def classify(error: Exception) -> ErrorClass:
    """Return the error class of a driver error. What is not known counts as unreachable."""
    return _known(error) or ErrorClass.UNREACHABLE


def is_known(error: Exception) -> bool:
    """Return whether an error stands in the tables."""
    return _known(error) is not None


def is_full(error: Exception) -> bool:
    """Return whether the server has as many clients as it takes."""
    return _why_unserved(error) == causes.USED_UP


def _why_unserved(error: Exception) -> str | None:
    """Return why a server serves no such connection, for people; None: the error is not about that."""
    text = _text(error)
    return next((cause for says, cause in _UNSERVED.items() if says in text), None)


def _known(error: Exception) -> ErrorClass | None:
    if isinstance(error, driver.ClusterDownError) and _HOMELESS in str(error):
        return ErrorClass.TOPOLOGY
    for types, error_class in _BY_TYPE:
        if isinstance(error, types):
            return error_class
    text = _text(error)
    code = getattr(error, "status_code", None) or text.partition(" ")[0]
    if isinstance(error, driver.RedisError) and code in BY_CODE:
        return BY_CODE[code]
    if _why_unserved(error):
        return ErrorClass.UNREACHABLE
    if isinstance(error, driver.ResponseError):
        if text.removeprefix("ERR ").startswith("ACL failure"):  # a right that is missing to a command inside a script
            return ErrorClass.IDENTITY_REFUSED
        # The server is well; what it was asked to run is not.
        return ErrorClass.LOCAL if code == "ERR" and "script" in text else None
    if _POOL_IS_USED_UP in text:
        return ErrorClass.LOCAL
    if isinstance(error, (driver.ConnectionError, OSError)):
        return ErrorClass.IDENTITY_REFUSED if _refused_by_tls(error) else ErrorClass.UNREACHABLE
    return None


def _refused_by_tls(error: BaseException) -> str | None:
    """Return what TLS refused, for people; None: it refused nothing."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _CERTIFICATE.get(getattr(cause, "verify_code", 0), _NOT_TRUSTED)
        if isinstance(cause, ssl.SSLError):
            says = f"{getattr(cause, 'reason', None) or ''} {cause}".lower().replace("_", " ")
            if any(sign in says for sign in _TLS_IDENTITY) and not any(sign in says for sign in _TLS_TRANSPORT):
                return _OWN_CERTIFICATE
    return None


def _text(error: Exception) -> str:
    """Return what the server said."""
    return str(error).rpartition(_PIPELINE)[2]


def _missing_right(error: Exception) -> str | None:
    """Return what the user may not do, for people; None: the error is not about that."""
    text = _text(error)
    if found := _NO_RIGHT.search(text):
        return f"right: +{found[1]} is missing; {_RIGHTS}"
    if _NO_KEY.search(text):
        return f"right: to keys that begin with LANGPONT_SESSION_KEY_PREFIX is missing; {_RIGHTS}"
    return None


def _refused_password(error: Exception) -> str | None:
    """Return what was wrong with a connection's sign-in, for people; None: it is not about that, or does not say."""
    text = str(error)
    if any(says in text for says in _NO_PASSWORD):
        return "no password was sent"
    return causes.PASSWORD if any(says in text for says in _WRONG_PASSWORD) else None


def _refused_identity(error: Exception) -> str | None:
    return _refused_by_tls(error) or _missing_right(error) or _refused_password(error)


def _why_unreachable(error: Exception) -> str | None:
    """Return why no connection could be made, for people; None: the error does not say."""
    if unserved := _why_unserved(error):
        return unserved
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return causes.NO_NAME
        if isinstance(cause, ConnectionRefusedError):
            return causes.REFUSED
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def translate(store: str, error: Exception, *, sent: bool = False) -> StoreError:
    """Return a driver error as the rest of the package sees it: by class, without its text (which may quote values).

    :param sent: the command had left: unless the server itself refused it, it may have been done.
    """
    if isinstance(error, driver.AskError):  # MovedError is one, too
        if shard_of(store):
            return Redirected(store, error)
        return StoreError(store, ErrorClass.UNREACHABLE, causes.CLUSTER_NODE)
    timed_out = isinstance(error, (driver.TimeoutError, TimeoutError))
    refused = isinstance(error, (driver.ResponseError, driver.BusyLoadingError, driver.AuthenticationError))
    error_class = classify(error)
    cause = _refused_identity(error) if error_class is ErrorClass.IDENTITY_REFUSED else _why_unreachable(error)
    return StoreError(store, error_class, cause or type(error).__name__, timed_out=timed_out, sent=sent and not refused)


class Redirected(StoreError):
    """A node of a cluster sends us to another one. It did not do what it was asked.

    :param slot: of the keys that were asked for.
    :param address: where to go; with an empty host it is the host that said so.
    :param for_good: the slot is there from now on (MOVED); else this once only (ASK).
    """

    def __init__(self, store: str, error: driver.AskError) -> None:
        super().__init__(store, ErrorClass.TOPOLOGY, type(error).__name__)
        self.slot = error.slot_id
        self.address = error.host, error.port
        self.for_good = isinstance(error, driver.MovedError)
