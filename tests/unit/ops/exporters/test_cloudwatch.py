"""CloudWatch: which data an interval becomes, the limits of the interface, and what happens when it does not take them.

moto enforces no limit, so a validator of the tests' own does, and botocore's with the service's model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError
from botocore.parsers import ResponseParserError
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_langpont_session.metrics.losses import CAUSES, Cause, Loss
from flask_langpont_session.metrics.recorder import (
    BOUNDS,
    Interval,
    Measure,
    NotKept,
    Observation,
    Reader,
    Recorder,
    Series,
    Standing,
    count_level,
)
from flask_langpont_session.ops.exporters import aggregate, catalogue, cloudwatch
from flask_langpont_session.ops.exporters.cloudwatch import CloudWatch, Datum, data, requests
from flask_langpont_session.ops.exporters.figures import figures, number, together
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from flask_langpont_session.request import scope
from tests.support.metric_values import BACKEND_VALUES, ERROR_RATE, OPERATION_VALUES, STORE_VALUES

DOCS = Path(__file__).parents[4] / "docs" / "metrics.md"
WHOLE = {"Environment": "test", "Service": "shop"}
DISTRIBUTIONS = [metric for metric in catalogue.ALL if metric.is_distribution]
COUNTED = (
    catalogue.DATABASE_LOST_COMMITS,
    catalogue.NEAR_CACHE_HITS,
    catalogue.SESSIONS_CREATED,
    catalogue.SESSIONS_REGENERATED,
    catalogue.SESSIONS_ENDED,
    catalogue.SESSIONS_EXPIRED,
    catalogue.GRANTS_REFUSED,
    catalogue.VALUES_REJECTED,
    catalogue.ALERTS_FAILED,
)
"""Sums of the recorder's counter of the same name."""


USABLE = {("primary", "read"): True, ("primary", "write"): False, ("database", "read"): True}


def found(
    recorder: Recorder,
    *,
    level: int = 0,
    active: int | None = None,
    in_use: int = 0,
    dropped: int = 0,
    usable: dict[tuple[str, str], bool] | None = None,
) -> list[Datum]:
    standing = Standing(usable=usable or {}, in_use={"primary": in_use, "replica": 0}, active=active)
    own = figures(Reader(recorder, lambda: level, lambda: standing).take())
    return data({**own, **number(catalogue.METRICS_DROPPED, dropped)}, WHOLE)


def dimensions(datum: Datum) -> dict[str, str]:
    return {pair["Name"]: pair["Value"] for pair in datum["Dimensions"]}


def value(of: list[Datum], metric: catalogue.Metric, **more: str) -> float | None:
    """The one value of a metric under its dimensions and `more`; None: it is not there."""
    values = [
        datum["Value"] for datum in of if datum["MetricName"] == metric.name and dimensions(datum) == WHOLE | more
    ]
    assert len(values) <= 1
    return values[0] if values else None


def distribution(of: list[Datum], metric: catalogue.Metric, **more: str) -> dict[float, float] | None:
    """Value → count of a metric under its dimensions and `more`; None: it is not there."""
    found = [datum for datum in of if datum["MetricName"] == metric.name and dimensions(datum) == WHOLE | more]
    assert len(found) <= 1
    return dict(zip(*values_of(found[0]), strict=True)) if found else None


def values_of(datum: Datum) -> tuple[list[float], list[float]]:
    """Values and how often each was there; a single one is sent as it is."""
    return datum.get("Values", [datum.get("Value")]), datum.get("Counts", [1.0])


# -- what is published -------------------------------------------------------------------------------------------------


def test_an_interval_without_anything_is_a_heartbeat_and_noughts() -> None:
    """A missing sum always means a missing process; the number of active sessions is not known, so none is sent; there
    is no store here."""
    quiet = found(Recorder())
    assert {datum["MetricName"]: datum["Value"] for datum in quiet} == {
        metric.name: 1 if metric is catalogue.HEARTBEAT else 0
        for metric in catalogue.ALL
        if metric not in (catalogue.ACTIVE_SESSIONS, catalogue.STORE_DOWN, *DISTRIBUTIONS)
    }
    assert all(dimensions(datum) == WHOLE for datum in quiet)


def test_questions_to_stores_are_counted_in_all_and_by_operation() -> None:
    """Errors of every kind; requests are not questions, and unknown words are one."""
    recorder = Recorder()
    for name, source, outcome, milliseconds in (
        ("load", "primary", "ok", 1),
        ("load", "primary", "miss", 1),
        ("load", "primary", "unreachable", 200),
        ("load", "replica", "ok", 2),
        ("verify", "database", "ok", 3),
        ("push", "primary", "ok", 1),
        ("extend_idle", "primary", "busy", 1),
        ("something new", "primary", "ok", 1),
        ("request", "none", "error", 5000),
        ("request_save", "none", "refused", 5000),
    ):
        recorder.observe(name, "all", source, outcome, milliseconds / 1000)
    figures_ = found(recorder)
    expected = {"read": (4, 1), "verify": (1, 0), "write": (1, 0), "touch": (1, 1), "other": (1, 0), None: (8, 2)}
    for word, (done, errors) in expected.items():
        more = {"Operation": word} if word else {}
        assert (value(figures_, catalogue.OPERATIONS, **more), value(figures_, catalogue.ERRORS, **more)) == (
            done,
            errors,
        ), word
    assert distribution(figures_, catalogue.OPERATION_LATENCY) == {1: 5, 2: 1, 3: 1, 200: 1}
    assert distribution(figures_, catalogue.OPERATION_LATENCY, Operation="read") == {1: 2, 2: 1, 200: 1}
    assert distribution(figures_, catalogue.OPERATION_LATENCY, Operation="verify") == {3: 1}
    assert distribution(figures_, catalogue.OPERATION_LATENCY, Operation="delete") is None


def test_every_question_has_a_published_word_of_the_contract() -> None:
    """Each operation of the code has a word of its own, which is no ``other``; and no word of the contract is unused.

    Only the list of a user's sessions, for operators, is an ``other``.
    """
    asked = {call.name for call in vars(scope).values() if isinstance(call, scope.StoreCall)}
    assert {
        "load",
        "save",
        "verify",
        "sign_in",
        "revoke",
        "write_tombstone",
        "push",
        "quarantine",
        "extend_idle",
        "list",
    } <= asked
    assert {aggregate.operation_word(name) for name in asked - {"list"}} == set(OPERATION_VALUES) - {"other"}


def test_sizes_and_waits_are_distributions() -> None:
    """Payloads together and by category, whose name may be any of Python's; waits of both pools together."""
    recorder = Recorder()
    for of, size in (("ui", 120), ("ui", 121), ("übersetzung", 70_000)):
        recorder.measure("payload", of, size)
    recorder.measure("pool_wait", "primary", 0.5)
    recorder.measure("pool_wait", "replica", 50)
    recorder.measure("process_lag", "process", 180)
    figures_ = found(recorder, in_use=3)
    assert distribution(figures_, catalogue.PAYLOAD_BYTES) == {120: 1, 130: 1, 70_000: 1}
    assert distribution(figures_, catalogue.PAYLOAD_BYTES, Category="ui") == {120: 1, 130: 1}
    assert distribution(figures_, catalogue.PAYLOAD_BYTES, Category=r"\xfcbersetzung") == {70_000: 1}
    assert distribution(figures_, catalogue.POOL_WAIT_TIME) == {0.5: 1, 50: 1}
    assert distribution(figures_, catalogue.PROCESS_LAG) == {180: 1}
    assert value(figures_, catalogue.POOL_IN_USE) == 3


def test_states_and_counters_find_their_metrics() -> None:
    """Counts since the last interval are published under the names of the contract."""
    recorder = Recorder()
    for metric in COUNTED:
        recorder.count(metric.word, 2)
    for event in ("StoreLost", "StoreRecovered", "ServerChanged", "DataLost"):
        recorder.count(event, 2)
    for counter in ("fallback_replica", "fallback_local", "fallback_journal", "fallback_database", "duplicate_cookies"):
        recorder.count(counter, 3)
    figures_ = found(recorder, level=3, active=17, dropped=5)
    assert {value(figures_, metric) for metric in (*COUNTED, catalogue.SERVER_CHANGES, catalogue.DATA_LOSSES)} == {2}
    assert value(figures_, catalogue.CIRCUIT_TRANSITIONS) == 4
    assert value(figures_, catalogue.FALLBACK_LEVEL) == 3
    assert value(figures_, catalogue.ACTIVE_SESSIONS) == 17
    assert value(figures_, catalogue.METRICS_DROPPED) == 5
    assert value(figures_, catalogue.FALLBACK_OPERATIONS) == 12
    by_backend = {
        backend: value(figures_, catalogue.FALLBACK_OPERATIONS, Backend=backend) for backend in BACKEND_VALUES
    }
    assert by_backend == {"replica": 3, "local": 6, "database": 3, "default": None}


def test_the_level_is_published_as_it_is_and_at_its_worst() -> None:
    """The one for alarms, the other for the graph."""
    recorder = Recorder()
    count_level(recorder, 4)
    figures_ = found(recorder, level=1)
    assert (value(figures_, catalogue.CURRENT_LEVEL), value(figures_, catalogue.FALLBACK_LEVEL)) == (1, 4)


def test_each_store_is_down_or_not() -> None:
    """A store that is not down is published, too: an alarm on the absence of a figure would end late. A store that
    is not there is not."""
    figures_ = found(Recorder(), usable=USABLE)
    assert value(figures_, catalogue.STORE_DOWN) == 1
    by_store = {store: value(figures_, catalogue.STORE_DOWN, Store=store) for store in STORE_VALUES}
    assert by_store == {"primary": 1, "replica": None, "database": 0}


def test_what_is_not_kept_is_published_in_all_and_by_cause() -> None:
    """The category is left out: it would multiply what is paid for."""
    recorder = Recorder()
    recorder.count_loss(Loss.WRITES_LOST, Cause.JOURNAL_FULL, "translation", 2)
    recorder.count_loss(Loss.WRITES_LOST, Cause.JOURNAL_FULL, "ui", 3)
    recorder.count_loss(Loss.WRITES_LOST, Cause.JOURNAL_FAILED, "ui")
    recorder.count_loss(Loss.MERGE_DROPPED, Cause.IN_DOUBT, "ui")
    figures_ = found(recorder)
    assert value(figures_, catalogue.WRITES_LOST) == 6
    assert value(figures_, catalogue.WRITES_LOST, Cause="journal full") == 5
    assert value(figures_, catalogue.WRITES_LOST, Cause="journal failed") == 1
    assert value(figures_, catalogue.WRITES_LOST, Cause="no number") is None
    assert value(figures_, catalogue.MERGE_DROPPED, Cause="in doubt") == 1
    assert value(figures_, catalogue.MERGE_CONFLICTS) == value(figures_, catalogue.REQUEST_ONLY_WRITES) == 0


def test_every_metric_of_the_contract_can_be_published() -> None:
    """A dashboard that asks for one finds it, in its unit."""
    recorder = Recorder()
    recorder.observe("load", "all", "primary", "ok", 0.001)
    recorder.measure("payload", "ui", 100)
    recorder.measure("pool_wait", "primary", 1)
    recorder.measure("process_lag", "process", 1)
    units = {datum["MetricName"]: datum["Unit"] for datum in found(recorder, active=1, usable=USABLE)}
    assert units == {metric.name: metric.unit for metric in catalogue.ALL}


def test_the_page_counts_what_is_paid_for() -> None:
    """And names the values of each third dimension."""
    docs = DOCS.read_text(encoding="utf-8")
    third = {
        "Operation": len(OPERATION_VALUES),
        "Backend": len(BACKEND_VALUES),
        "Category": len(DEFAULT_CATEGORIES),
        "Store": len(STORE_VALUES),
        None: 0,
    }
    of_causes = sum(map(len, CAUSES.values()))
    series = len(catalogue.ALL) + sum(third[metric.by] for metric in catalogue.ALL if metric.by != "Cause") + of_causes
    assert f"the table has {len(catalogue.ALL)}; with the third dimensions there are up to {series} " in docs
    assert catalogue.NAMESPACE in docs and f"`{ERROR_RATE}`" in docs
    for word in (*OPERATION_VALUES, *BACKEND_VALUES, *STORE_VALUES, *Cause):
        assert f"`{word}`" in docs.partition("| dimension | values |")[2].partition("\n\n")[0]


# -- limits ------------------------------------------------------------------------------------------------------------

MODEL = botocore.session.Session().get_service_model("cloudwatch").operation_model("PutMetricData").input_shape
UNITS = {"Bytes", "Count", "Milliseconds", "None", "Seconds"}


def refusals(request: dict[str, Any]) -> list[str]:
    """Return the reasons for which CloudWatch's reference says that a request would be refused."""
    problems = [str(ParamValidator().validate(request, MODEL).generate_report() or "")]
    found = request["MetricData"]
    if not 1 <= len(found) <= 1000:
        problems.append(f"{len(found)} data")
    if len(botocore_body(request)) > 1_000_000:
        problems.append("more than 1 MB")
    if request["Namespace"].startswith(("AWS/", ":")):
        problems.append("namespace")
    for datum in found:
        problems += [f"{datum['MetricName']}: {problem}" for problem in refused_datum(datum)]
    return [problem for problem in problems if problem]


def refused_datum(datum: Datum) -> Iterator[str]:
    given = dimensions(datum)
    if len(datum["Dimensions"]) > 30 or len(given) != len(datum["Dimensions"]):
        yield "too many dimensions, or one twice"
    for name, text in given.items():
        if not (name.isascii() and name.isprintable() and 1 <= len(name) <= 255 and not name.startswith(":")):
            yield f"dimension {name!r}"
        if not (text.isascii() and text.isprintable() and 1 <= len(text) <= 1024 and text.strip()):
            yield f"value of dimension {name!r}"
    if not (datum["MetricName"].isascii() and 1 <= len(datum["MetricName"]) <= 255):
        yield "name"
    if datum["Unit"] not in UNITS:
        yield "unit"
    if ("Value" in datum) == ("Values" in datum):
        yield "one of Value and Values"
        return
    values, counts = values_of(datum)
    if not (1 <= len(values) <= 150 and len(counts) == len(values) == len(set(values))):
        yield "values and counts"
    if not all(math.isfinite(number) and abs(number) <= 2.0**360 for number in (*values, *counts)):
        yield "a number out of range"
    if any(count <= 0 for count in counts):
        yield "a count that counts nothing"


def botocore_body(request: dict[str, Any]) -> str:
    """The request as a form, the wordiest protocol that boto3 has used for it."""
    from urllib.parse import urlencode

    fields: dict[str, Any] = {"Action": "PutMetricData", "Version": "2010-08-01", "Namespace": request["Namespace"]}

    def spread(prefix: str, thing: Any) -> None:
        items = thing.items() if isinstance(thing, dict) else ((f"member.{n}", one) for n, one in enumerate(thing, 1))
        for name, one in items:
            if isinstance(one, (dict, list)):
                spread(f"{prefix}.{name}", one)
            else:
                fields[f"{prefix}.{name}"] = one

    spread("MetricData", request["MetricData"])
    return urlencode(fields)


def broken(**change: Any) -> dict[str, Any]:
    datum = {"MetricName": "M", "Dimensions": [{"Name": "N", "Value": "v"}], "Unit": "Count", "Value": 1.0}
    datum.update(change)
    return {"Namespace": "X", "MetricData": [{name: given for name, given in datum.items() if given is not ...}]}


HUGE = 10**400
"""No float holds it."""

WORST = Interval(
    {
        Observation(name, category, source, outcome): Series(HUGE, 1.0, dict.fromkeys(BOUNDS, count))
        for name, category, source, outcome, count in (
            ("load", "all", "primary", "ok", 10**300),
            ("verify", "all", "database", "unreachable", 1),
            ("a word\nof an application", "", "elsewhere", "odd", 1),
            ("request", "all", "none", "ok", 1),
        )
    },
    {Measure(name, of): dict.fromkeys(BOUNDS, 1) for name in ("payload", "pool_wait", "?") for of in ("ui", "ラング")},
    {**{metric.word: HUGE for metric in COUNTED}, "\udc80 no word": -1, "fallback_local": 0},
    4,
    {NotKept(loss, cause, "übersetzung"): HUGE for loss in Loss for cause in Cause},
    0,
    Standing(usable=USABLE, in_use={"primary": HUGE, "of an application": -HUGE}, active=HUGE),
)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("text", ["p", " ~" * 512])
@pytest.mark.parametrize("interval", [WORST, Interval({}, {}, {}, 0)], ids=["all", "nothing"])
def test_whatever_was_recorded_makes_requests_that_are_accepted(interval: Interval, text: str, workers: int) -> None:
    """Any words, any counts and any names that the configuration allows are accepted; and the dimensions are those
    of the contract."""
    own = {**figures(interval), **number(catalogue.METRICS_DROPPED, HUGE)}
    everything = data(own if workers == 1 else together([own] * workers), {"Environment": text, "Service": text})
    sent = list(requests(everything))
    assert [datum for request in sent for datum in request] == everything
    for request in sent:
        assert refusals({"Namespace": catalogue.NAMESPACE, "MetricData": request}) == []
    known = {metric.name: metric for metric in catalogue.ALL}
    words = {
        "Operation": OPERATION_VALUES,
        "Backend": BACKEND_VALUES,
        "Store": STORE_VALUES,
        "Cause": tuple(Cause),
    }
    for datum in everything:
        by = known[datum["MetricName"]].by
        third = dimensions(datum).keys() - set(catalogue.DIMENSIONS)
        assert third <= {by}
        assert all(dimensions(datum)[name] in words[name] for name in third if name != "Category")


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 150), st.integers(1, 1024))
def test_many_data_are_spread_over_requests(number: int, values: int, length: int) -> None:
    """The data is in order, none is lost, and each request is within both limits."""
    datum = broken(
        Dimensions=[{"Name": "Environment", "Value": "%" * length}],
        Value=...,
        Values=[1.5e-300 * n for n in range(values)],
        Counts=[1e300] * values,
    )["MetricData"][0]
    everything = [{**datum, "MetricName": f"M{n}"} for n in range(number)]
    sent = list(requests(everything))
    assert [one["MetricName"] for request in sent for one in request] == [one["MetricName"] for one in everything]
    assert all(len(request) <= 1000 for request in sent)
    for request in sorted(sent, key=len)[-2:]:
        assert len(botocore_body({"Namespace": "X", "MetricData": request})) <= 1_000_000


# -- failures ----------------------------------------------------------------------------------------------------------


class Client:
    """Takes or refuses what it is sent."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.sent: list[Datum] = []
        self.attempts = 0
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def put_metric_data(self, *, Namespace: str, MetricData: list[Datum]) -> None:
        self.attempts += 1
        if self.error:
            raise self.error
        assert Namespace == catalogue.NAMESPACE
        self.sent += MetricData


class Site:
    """A recorder, its figures on their way to CloudWatch, and the client."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.client = Client()
        self.connected = 0
        self._reader = Reader(self.recorder, lambda: 0)
        self._cloudwatch = CloudWatch(self.recorder, environment="test", service="shop")

    def publish(self) -> None:
        self._cloudwatch.publish(figures(self._reader.take()))

    def connect(self) -> Client:
        self.connected += 1
        return self.client


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site()
    monkeypatch.setattr(cloudwatch, "connect", made.connect)
    return made


def refused(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "arn:aws:iam::123456789012:role/secret"},
         "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutMetricData",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (refused("Throttling", 400), "Throttling"),
        (refused("AccessDenied", 403), "AccessDenied"),
        (refused("InternalServiceError", 500), "InternalServiceError"),
        (ConnectTimeoutError(endpoint_url="https://secret"), "ConnectTimeoutError"),
        (NoCredentialsError(), "there are no AWS credentials"),
        (ResponseParserError("<html>secret"), "ResponseParserError"),
    ],
)
def test_what_is_not_taken_is_dropped_counted_and_said_once(
    site: Site, caplog: pytest.LogCaptureFixture, error: Exception, says: str
) -> None:
    """One attempt per interval; one line when it begins, one when it is over; what was lost is in the next figures."""
    caplog.set_level(logging.INFO)
    site.client.error = error
    lost = 0
    for _ in range(3):
        site.recorder.observe("load", "all", "primary", "ok", 0.001)
        site.publish()
        lost = site.recorder.counters()["metrics_dropped"]
    assert (site.client.attempts, site.client.sent) == (3, [])
    [line] = caplog.messages
    assert says in line
    assert "secret" not in line and "123456789012" not in line
    site.client.error = None
    site.publish()
    site.publish()
    assert len(caplog.messages) == 2 and f"{lost} were dropped" in caplog.messages[1]

    def published(metric: catalogue.Metric) -> list[float]:
        return [datum["Value"] for datum in site.client.sent if datum["MetricName"] == metric.name]

    assert published(catalogue.METRICS_DROPPED) == [lost, 0]
    assert published(catalogue.OPERATIONS) == [0, 0]  # those of the outage are gone, not sent late


OF_CREDENTIALS = [NoCredentialsError(), refused("ExpiredToken", 403), refused("InvalidClientTokenId", 403)]
OTHERS = [
    refused("Throttling", 400),
    refused("InternalServiceError", 500),
    ConnectTimeoutError(endpoint_url="https://x"),
]


@pytest.mark.parametrize(("error", "made"), [*((e, 2) for e in OF_CREDENTIALS), *((e, 1) for e in OTHERS)])
def test_a_client_is_made_once_and_anew_only_for_other_credentials(site: Site, error: Exception, made: int) -> None:
    """New credentials are found by a new client. Making a client takes long, so a throttled or hanging AWS must not
    cost one."""
    for _ in range(3):
        site.publish()
    assert site.connected == 1
    site.client.error = error
    site.publish()
    site.client.error = None
    site.publish()
    site.publish()
    assert (site.connected, site.client.closed) == (made, made - 1)
