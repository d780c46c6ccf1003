"""Errors of the driver, as the rest of the package sees them: an error class and a name, never the text."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec
import pytest
from redis import exceptions as driver
from redis.sentinel import MasterNotFoundError, SlaveNotFoundError

from flask_langpont_session.policy.causes import CLUSTER_NODE, NO_CLUSTER, NO_SUCH_NUMBER
from flask_langpont_session.policy.errors import HEALTH_CLASSES, ErrorClass, StoreError
from flask_langpont_session.stores.redis.errors import BY_CODE, classify, is_full, is_known, translate

U, B, W, A = (
    ErrorClass.UNREACHABLE,
    ErrorClass.BUSY,
    ErrorClass.WRITE_REFUSED,
    ErrorClass.IDENTITY_REFUSED,
)
T, D, L = ErrorClass.TOPOLOGY, ErrorClass.DATA, ErrorClass.LOCAL


def with_code(error: Exception, code: str) -> Exception:
    """Return an error as the driver's parser makes it: the code taken from the text and put beside it."""
    error.status_code = code  # type: ignore[attr-defined]
    return error


def in_pipeline(error: Exception) -> Exception:
    """Return an error as a pipeline annotates it: type and code stay, the text begins with the command and its
    arguments."""
    error.args = (f"Command # 1 (HSET session:ui lang secret) of pipeline caused error: {error.args[0]}",)
    return error


def caused_by(error: Exception, cause: BaseException, *, explicit: bool = False) -> Exception:
    if explicit:
        error.__cause__ = cause
    else:
        error.__context__ = cause
    return error


def by_tls(text: str, reason: str | None = None) -> Exception:
    """Return an error of the TLS library as the driver wraps it."""
    error = ssl.SSLError(1, text)
    if reason:
        error.reason = reason
    return caused_by(driver.ConnectionError("Error while reading"), error)


ERRORS: list[tuple[Exception, ErrorClass]] = [
    # unreachable: network, hang, protocol
    (driver.ConnectionError("Error 111 connecting to h:6379. Connection refused."), U),
    (driver.ConnectionError("Connection closed by server."), U),
    (driver.TimeoutError("Timeout reading from socket"), U),
    (TimeoutError("timed out"), U),
    (ConnectionResetError(104, "Connection reset by peer"), U),
    (OSError(113, "No route to host"), U),
    (driver.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), U),
    (MasterNotFoundError("No master found for 'service'"), U),
    (SlaveNotFoundError("No slave found for 'service'"), U),
    (driver.ClusterDownError("CLUSTERDOWN The cluster is down"), U),
    (driver.ClusterDownError("CLUSTERDOWN Hash slot not served"), T),
    (driver.ClusterError("TTL exhausted."), U),
    (driver.RedisClusterException("Redis Cluster cannot be connected"), U),
    (driver.SlotNotCoveredError("slot 7 is not covered"), U),
    (driver.ResponseError("ERR something never seen before"), U),
    (caused_by(driver.ConnectionError("closed"), ssl.SSLEOFError("EOF occurred")), U),
    (with_code(driver.ConnectionError("max number of clients reached"), "ERR"), U),
    (with_code(driver.ClusterDownError("The cluster is down"), "CLUSTERDOWN"), U),
    (driver.ConnectionError("Error 2 connecting to unix:/run/redis.sock. No such file or directory."), U),
    (driver.ResponseError("CLUSTERDOWN The cluster is down"), U),
    (driver.NoScriptError("No matching script."), U),  # also to the script's text
    (MemoryError(), U),
    (AttributeError("'bytes' object has no attribute 'get'"), U),
    # TLS that the network or a server without TLS broke; half of the time OpenSSL names no reason
    (by_tls("[SSL] record layer failure (_ssl.c:2580)"), U),
    (by_tls("[SSL: WRONG_VERSION_NUMBER] wrong version number", "WRONG_VERSION_NUMBER"), U),
    (by_tls("bad record", "SSLV3_ALERT_BAD_RECORD_MAC"), U),
    (by_tls("[SYS] unknown error"), U),
    # busy: it is there and will answer later
    (driver.BusyLoadingError("Redis is loading the dataset in memory"), B),
    (with_code(driver.BusyLoadingError("Redis is loading the dataset in memory"), "LOADING"), B),
    (driver.ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL"), B),
    (driver.MasterDownError("Link with MASTER is down"), B),
    (driver.ResponseError("LOADING Redis is loading the dataset in memory"), B),
    (driver.ResponseError("MASTERDOWN Link with MASTER is down"), B),
    # writes refused, reads go on
    (driver.ReadOnlyError("You can't write against a read only replica."), W),
    (driver.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), W),
    (with_code(driver.ResponseError("command not allowed when used memory > 'maxmemory'."), "OOM"), W),
    (with_code(driver.ResponseError("You can't write against a read only replica."), "READONLY"), W),
    (driver.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it is unable to"), W),
    (driver.ResponseError("NOREPLICAS Not enough good replicas to write."), W),
    # it does not accept our identity, or we do not accept its
    (driver.AuthenticationError("invalid username-password pair or user is disabled."), A),
    (driver.AuthorizationError("not allowed"), A),
    (driver.NoPermissionError("this user has no permissions to run the 'evalsha' command"), A),
    (driver.ResponseError("NOAUTH Authentication required."), A),
    (driver.ResponseError("WRONGPASS invalid username-password pair"), A),
    (driver.ResponseError("NOPERM this user has no permissions"), A),
    (caused_by(driver.ConnectionError("Error 1 connecting"), ssl.SSLCertVerificationError("hostname mismatch")), A),
    (
        caused_by(
            driver.ConnectionError("Error"),
            caused_by(OSError("x"), ssl.SSLCertVerificationError("expired")),
            explicit=True,
        ),
        A,
    ),
    (by_tls("[SSL] tlsv13 alert certificate required (_ssl.c:2580)"), A),
    (by_tls("alert", "TLSV13_ALERT_CERTIFICATE_REQUIRED"), A),
    (by_tls("alert", "TLSV1_ALERT_UNKNOWN_CA"), A),
    (by_tls("alert", "SSLV3_ALERT_HANDSHAKE_FAILURE"), A),
    (by_tls("a file of the TLS settings cannot be read"), A),
    (
        driver.ResponseError(
            "ERR ACL failure in script: User app has no permissions to run the 'hset' command script: x"
        ),
        A,
    ),
    (driver.AuthenticationWrongNumberOfArgsError("wrong number of arguments for 'auth' command"), A),
    # where a key lives
    (driver.MovedError("3999 127.0.0.1:6381"), T),
    (driver.AskError("3999 127.0.0.1:6381"), T),
    (driver.TryAgainError("Multiple keys request during rehashing of slot"), T),
    (driver.ClusterCrossSlotError("Keys in request don't hash to the same slot"), T),
    (driver.ResponseError("MOVED 3999 127.0.0.1:6381"), T),
    (driver.ResponseError("ASK 3999 127.0.0.1:6381"), T),
    (driver.ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"), T),
    (driver.ResponseError("CROSSSLOT Keys in request don't hash to the same slot"), T),
    *((kind("cannot"), T) for kind in (getattr(driver, "CrossSlotTransactionError", None),) if kind),  # redis-py 6.3
    # text that may be data
    (driver.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), D),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), D),
    (RecursionError("maximum recursion depth exceeded"), D),
    (msgspec.DecodeError("truncated"), D),
    # our own limits
    (driver.MaxConnectionsError("Too many connections"), L),
    (driver.ConnectionError("No connection available."), L),
    (driver.DataError("Invalid input of type: 'NoneType'"), L),
    (driver.ResponseError("ERR user_script:1: Script attempted to access a non local key"), L),
    (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), L),
]


def label(value: Any) -> str:
    return f"{type(value).__name__}-{str(value)[:12]}" if isinstance(value, Exception) else str(value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (driver.ReadOnlyError("You can't write"), W),
        (with_code(driver.ResponseError("not allowed"), "OOM"), W),
        (driver.MovedError("3999 127.0.0.1:6381"), T),
        (driver.ResponseError("MISCONF Redis is configured to save RDB snapshots"), W),
        (driver.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), D),
    ],
    ids=label,
)
def test_an_error_out_of_a_pipeline_keeps_its_class(error: Exception, expected: ErrorClass) -> None:
    """The text quotes the command; type and code are still there."""
    assert classify(in_pipeline(error)) is expected


def test_what_stands_in_no_table_is_known_to_be_unknown() -> None:
    """It is unreachable all the same: fail closed, and be counted."""
    unknown = [error for error, _ in ERRORS if not is_known(error)]
    assert [type(error) for error in unknown] == [driver.ResponseError, MemoryError, AttributeError]
    assert {classify(error) for error in unknown} == {U}


def test_a_full_server_is_told_from_others() -> None:
    """No connection more is opened to it."""
    assert [is_full(error) for error, _ in ERRORS].count(True) == 1


def test_a_text_that_quotes_a_code_is_not_taken_for_it() -> None:
    """A text that a pipeline quotes is the application's."""
    assert classify(in_pipeline(driver.ResponseError("ERR NOAUTH is what a client wrote"))) is U


def test_each_code_has_an_example() -> None:
    """The example is a reply for which the driver has no class of its own."""
    plain = [error for error, _ in ERRORS if type(error) is driver.ResponseError]
    told_by = {getattr(error, "status_code", None) or str(error).partition(" ")[0] for error in plain}
    assert BY_CODE.keys() - told_by == set()


def test_each_class_has_an_example() -> None:
    """The table above leaves none out, but that of a database without tables."""
    assert {expected for _, expected in ERRORS} == set(ErrorClass) - {ErrorClass.NO_TABLES}


@pytest.mark.parametrize(("error", "expected"), ERRORS, ids=label)
def test_a_translated_error_has_no_text_of_the_driver(error: Exception, expected: ErrorClass) -> None:
    """It may quote keys and values; the name of its class is enough to look it up. Its class goes by type where the
    driver has one (its subclasses are not what their names say), else by the code."""
    translated = translate("primary:1", error)
    assert (translated.store, translated.error_class) == ("primary:1", expected)
    if not any(sign in translated.cause for sign in ("certificate", "TLS", "right", "password", "no connection left")):
        assert translated.cause == type(error).__name__
    assert str(translated) == f"primary:1: {expected.name.lower().replace('_', ' ')} ({translated.cause})"
    assert "secret" not in str(translated)
    assert translated.timed_out == isinstance(error, (driver.TimeoutError, TimeoutError))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (driver.ResponseError("DB index is out of range"), NO_SUCH_NUMBER),
        (driver.ResponseError("ERR SELECT is not allowed in cluster mode"), CLUSTER_NODE),
        (driver.MovedError("3999 127.0.0.1:6381"), CLUSTER_NODE),
        (driver.ResponseError("This instance has cluster support disabled"), NO_CLUSTER),
    ],
    ids=label,
)
def test_an_address_of_another_kind_of_server_is_told(error: Exception, cause: str) -> None:
    """The store is unreachable as long as the setting says so; a text that a pipeline quotes is the application's."""
    translated = translate("primary", error)
    assert (translated.error_class, translated.cause, translated.sent) == (U, cause, False)
    quoted = driver.ResponseError(f"Command # 1 (HSET ui {error}) of pipeline caused error: something new")
    assert translate("primary", quoted).cause == "ResponseError"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("User app has no permissions to run the 'config|get' command", "+config|get"),
        ("ERR ACL failure in script: User secret has no permissions to run the 'hset' command script: secret", "+hset"),
        ("No permissions to access a key", "LANGPONT_SESSION_KEY_PREFIX"),
        ("ERR ACL failure in script: User app can't access at least one of the keys", "LANGPONT_SESSION_KEY_PREFIX"),
        ("User app has no permissions to run the 'secret value' command", "NoPermissionError"),
    ],
)
def test_a_right_that_is_missing_has_its_name(text: str, says: str) -> None:
    """An administrator can give it; and no more of the server's text is told."""
    for error in (driver.NoPermissionError(text), in_pipeline(driver.NoPermissionError(text))):
        cause = translate("primary", error).cause
        assert says in cause and "secret" not in cause


@pytest.mark.parametrize("error_class", ErrorClass)
def test_which_classes_say_something_about_a_store(error_class: ErrorClass) -> None:
    """I11: one user's data, our own limits and resharding never open a breaker."""
    concerns = StoreError("primary", error_class, "X").concerns_health
    assert concerns == (error_class in (U, B, W, A, ErrorClass.NO_TABLES)) == (error_class in HEALTH_CLASSES)


def test_after_a_time_out_a_write_may_have_happened() -> None:
    """Unless it is known whether the command had left."""
    told = ((False, None), (True, None), (True, False), (False, True))
    assert [StoreError("primary", U, "X", timed_out=late, sent=sent).sent for late, sent in told] == [
        False, True, False, True,
    ]  # fmt: skip
    errors = (
        driver.ResponseError("ERR"),
        driver.OutOfMemoryError("OOM"),
        driver.BusyLoadingError("LOADING"),
        EOFError(),
    )
    assert [translate("primary", error, sent=True).sent for error in errors] == [False, False, False, True]
