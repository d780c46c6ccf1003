"""Figures for Amazon CloudWatch: ``PutMetricData`` once per interval and process, from a thread of its own.

One attempt with short waits; what CloudWatch does not take is dropped and counted. The limits of the interface are
kept here, because a request that breaks one is refused as a whole. No time stamps are sent: CloudWatch takes the
moment of receipt, so that a host whose clock is wrong does not lose its figures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError, PartialCredentialsError

from ..aws.client import explain, make_session
from . import aggregate, catalogue
from .catalogue import Metric
from .recorder import Amounts, Interval, Operation, Reader, Recorder, Series

log = logging.getLogger(__name__)

MOST_DATA = 1000
"""Data in one request."""

MOST_BYTES = 1_000_000
"""Bytes of one request."""

MOST_VALUES = 150
"""Different values in one datum."""

_MOST_CHARACTERS = 1024
"""Characters of a dimension's value."""

LARGEST = 2.0**360
"""Of a value, to either side of nought."""

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


def data(
    interval: Interval, *, environment: str, service: str, active: int | None, in_use: int, dropped: int
) -> list[Datum]:
    """The data of one interval.

    What has no `by` is always there, also as 0, so that a sum over missing data does not have to be guessed; by a third
    dimension only what happened is, because each is paid for.

    :param active: sessions in use; None: not known, or another process publishes it.
    :param in_use: the most connections that were in use at a time.
    :param dropped: data that could not be published since they last could.
    """
    whole = {"Environment": environment, "Service": service}
    found = [
        _number(catalogue.HEARTBEAT, whole, 1),
        _number(catalogue.FALLBACK_LEVEL, whole, interval.level),
        _number(catalogue.SHARDS_LOST, whole, interval.lost_shards),
        _number(catalogue.POOL_IN_USE, whole, in_use),
        _number(catalogue.METRICS_DROPPED, whole, dropped),
        *(_number(metric, whole, aggregate.counted(interval, metric)) for metric in aggregate.COUNTERS),
    ]
    if active is not None:
        found.append(_number(catalogue.ACTIVE_SESSIONS, whole, active))
    fallbacks = aggregate.fallbacks(interval)
    found.append(_number(catalogue.FALLBACK_OPERATIONS, whole, sum(fallbacks.values())))
    found += [
        _number(catalogue.FALLBACK_OPERATIONS, whole | {"Backend": backend}, number)
        for backend, number in fallbacks.items()
    ]
    for metric in catalogue.LOSSES:
        causes = aggregate.by_cause(interval, metric)
        found.append(_number(metric, whole, sum(causes.values())))
        found += [_number(metric, whole | {"Cause": cause}, number) for cause, number in causes.items()]
    operations = aggregate.by_operation(interval)
    found += _operations(whole, [observed for group in operations.values() for observed in group])
    for word, group in operations.items():
        found += _operations(whole | {"Operation": word}, group)
    payloads = aggregate.measured(interval, "payload")
    found += _distribution(catalogue.PAYLOAD_BYTES, whole, _together(payloads.values()))
    for category, sizes in payloads.items():
        found += _distribution(catalogue.PAYLOAD_BYTES, whole | {"Category": _ascii(category)}, sizes)
    found += _distribution(
        catalogue.POOL_WAIT_TIME, whole, _together(aggregate.measured(interval, "pool_wait").values())
    )
    found += _distribution(
        catalogue.PROCESS_LAG, whole, _together(aggregate.measured(interval, "process_lag").values())
    )
    return found


def _operations(dimensions: Mapping[str, str], observed: Sequence[tuple[Operation, Series]]) -> list[Datum]:
    errors = sum(series.count for operation, series in observed if operation.outcome not in aggregate.FINE)
    return [
        _number(catalogue.OPERATIONS, dimensions, sum(series.count for _, series in observed)),
        _number(catalogue.ERRORS, dimensions, errors),
        *_distribution(catalogue.OPERATION_LATENCY, dimensions, _together(series.durations for _, series in observed)),
    ]


def _together(parts: Iterable[Amounts]) -> dict[float, int]:
    whole: dict[float, int] = {}
    for part in parts:
        for bound, number in part.items():
            whole[bound] = whole.get(bound, 0) + number
    return whole


def _number(metric: Metric, dimensions: Mapping[str, str], number: int) -> Datum:
    return {**_head(metric, dimensions), "Value": _within_range(number)}


def _distribution(metric: Metric, dimensions: Mapping[str, str], counts: Mapping[float, int]) -> Iterator[Datum]:
    """Values and counts, from which CloudWatch can tell percentiles."""
    remaining = iter(sorted(counts.items()))
    while part := list(islice(remaining, MOST_VALUES)):
        values, numbers = zip(*part, strict=True)
        yield {**_head(metric, dimensions), "Values": list(values), "Counts": [_within_range(n) for n in numbers]}


def _head(metric: Metric, dimensions: Mapping[str, str]) -> Datum:
    pairs = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    return {"MetricName": metric.name, "Dimensions": pairs, "Unit": metric.unit}


def _ascii(name: str) -> str:
    """A category's name as the value of a dimension: any identifier of Python's may be one."""
    return name.encode("ascii", "backslashreplace").decode()[:_MOST_CHARACTERS]


def _within_range(number: int) -> float:
    return float(max(-LARGEST, min(LARGEST, number)))


def requests(found: Iterable[Datum]) -> Iterator[list[Datum]]:
    """The data in as many requests as it takes."""
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
    """At most so many bytes, in the wordiest form that boto3 has used: a form with the path of every value."""
    texts = sum(200 + 3 * (len(pair["Name"]) + len(pair["Value"])) for pair in datum["Dimensions"])
    return 300 + 3 * len(datum["MetricName"]) + texts + 160 * len(datum.get("Values", "."))


class CloudWatch:
    """Publishes what a reader finds. Made and used in one thread of one process.

    :param active: gives the number of sessions in use if this process is to publish it.
    :param in_use: gives the most connections that were in use at a time since it was asked before.
    :param connect: makes the client.
    """

    def __init__(
        self,
        reader: Reader,
        recorder: Recorder,
        *,
        environment: str,
        service: str,
        active: Callable[[], int | None],
        in_use: Callable[[], int],
        connect: Callable[[], Any],
    ) -> None:
        self._reader = reader
        self._recorder = recorder
        self._dimensions = {"environment": environment, "service": service}
        self._active = active
        self._in_use = in_use
        self._connect = connect
        self._client: Any = None
        self._dropped = 0
        self._is_failing = False

    def publish(self) -> None:
        """Send what is new, in one attempt."""
        dropped = self._dropped
        found = data(
            self._reader.take(), **self._dimensions, active=self._active(), in_use=self._in_use(), dropped=dropped
        )
        left = len(found)
        try:
            for request in requests(found):
                self._send(request)
                left -= len(request)
        except Exception as error:  # whatever boto3 makes of answers, addresses and files that are nonsense
            self._failed(error, left)
        else:
            self._dropped -= dropped
            self._succeeded(dropped)

    def _send(self, request: list[Datum]) -> None:
        if self._client is None:
            self._client = self._connect()
        self._client.put_metric_data(Namespace=catalogue.NAMESPACE, MetricData=request)

    def _failed(self, error: Exception, lost: int) -> None:
        if self._client is not None and _is_of_credentials(error):
            # A new one finds others. It takes a tenth of a second of this process, so only for this.
            self._client.close()
            self._client = None
        cause = explain(error)
        self._dropped += lost
        self._recorder.count("metrics_dropped", lost)
        if not self._is_failing:
            log.warning("CloudWatch does not accept metrics: %s. They are dropped and counted until it does.", cause)
        self._is_failing = True

    def _succeeded(self, dropped: int) -> None:
        if self._is_failing:
            log.warning("CloudWatch accepts metrics again; %d were dropped", dropped)
        self._is_failing = False


def _is_of_credentials(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in _OF_CREDENTIALS
    return isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError))


def connect() -> Any:
    """A client that waits shortly and tries once. boto3 itself reads ``AWS_ENDPOINT_URL``."""
    config = Config(connect_timeout=_WAIT, read_timeout=_WAIT, retries={"total_max_attempts": 1})
    return make_session(None).client("cloudwatch", config=config)
