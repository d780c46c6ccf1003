"""Figures for Amazon CloudWatch: ``PutMetricData`` once per interval and host, from a thread of its own.

One attempt with short waits; what CloudWatch does not take is dropped and counted. The limits of the interface are
kept here, because a request that breaks one is refused as a whole. No time stamps are sent: CloudWatch takes the
moment of receipt, so that a host whose clock is wrong does not lose its figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError, PartialCredentialsError

from ...aws.client import explain, make_session
from . import catalogue
from .figures import BY_NAME, Counts, Figure, Figures, parts
from .publisher import NotTaken, Sink

MOST_DATA = 1000
"""Data in one request."""

MOST_BYTES = 1_000_000
"""Bytes of one request."""

MOST_VALUES = 150
"""Different values in one datum."""

_OF_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Codes of AWS for credentials that are not, or not any longer, valid."""

_WAIT = 0.8
"""Seconds, for a connection and for the answer: both together end within what an exit may take."""

Datum = dict[str, Any]


def data(found: Figures, whole: Mapping[str, str]) -> list[Datum]:
    """Return figures in the form that CloudWatch takes.

    :param whole: the dimensions of all of them.
    """
    return [datum for figure, counts in found.items() for datum in _data(figure, counts, whole)]


def _data(figure: Figure, counts: Counts, whole: Mapping[str, str]) -> Iterator[Datum]:
    dimensions = {**whole, figure.by: figure.of} if figure.by else whole
    head = {
        "MetricName": figure.metric,
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "Unit": BY_NAME[figure.metric].unit,
    }
    if list(counts.values()) == [1]:
        yield {**head, "Value": next(iter(counts))}
        return
    # Values and counts, from which CloudWatch can tell percentiles.
    for part in parts(counts, MOST_VALUES):
        yield {**head, "Values": list(part), "Counts": list(part.values())}


def requests(found: Iterable[Datum]) -> Iterator[list[Datum]]:
    """Yield the data in as many requests as it takes."""
    request: list[Datum] = []
    weight = 0
    for datum in found:
        own = _weight(datum)
        if request and (len(request) >= MOST_DATA or weight + own > MOST_BYTES):
            yield request
            request, weight = [], 0
        request.append(datum)
        weight += own
    if request:
        yield request


def _weight(datum: Datum) -> int:
    """Return the most bytes a datum takes in the wordiest form that boto3 has used: a form with the path of every
    value."""
    texts = sum(200 + 3 * (len(pair["Name"]) + len(pair["Value"])) for pair in datum["Dimensions"])
    return 300 + 3 * len(datum["MetricName"]) + texts + 160 * len(datum.get("Values", "."))


class CloudWatch(Sink):
    """Publishes figures."""

    place = "CloudWatch"
    _client: Any = None

    def _send(self, found: Figures) -> None:
        everything = data(found, self._dimensions)
        left = len(everything)
        try:
            for request in requests(everything):
                if self._client is None:
                    self._client = connect()
                self._client.put_metric_data(Namespace=catalogue.NAMESPACE, MetricData=request)
                left -= len(request)
        except Exception as error:  # whatever boto3 makes of answers, addresses and files that are nonsense
            if self._client is not None and _is_of_credentials(error):
                # A new one finds others. It takes a tenth of a second of this process, so only for this.
                self._client.close()
                self._client = None
            raise NotTaken(explain(error), left) from error


def _is_of_credentials(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in _OF_CREDENTIALS
    return isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError))


def connect() -> Any:
    """Return a client that waits shortly and tries once. boto3 itself reads ``AWS_ENDPOINT_URL``."""
    config = Config(connect_timeout=_WAIT, read_timeout=_WAIT, retries={"total_max_attempts": 1})
    return make_session(None).client("cloudwatch", config=config)
