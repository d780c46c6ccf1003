"""AWS on this machine: moto's server with the topics for alerts, and what the application left there."""

import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import boto3
from botocore.exceptions import HTTPClientError

from devservers.processes import spawn
from devservers.server import Server, answers_http
from flask_langpont_session.config.checks import SEVERITIES
from flask_langpont_session.ops.exporters import catalogue

REGION = "ap-northeast-1"
ENVIRONMENT = "demo"
SERVICE = "LangPont"

#: Seconds between two publications of each worker: a person is looking.
INTERVAL = 5

_SHOWN = (
    catalogue.ACTIVE_SESSIONS, catalogue.OPERATIONS, catalogue.OPERATION_LATENCY, catalogue.ERRORS,
    catalogue.FALLBACK_LEVEL, catalogue.FALLBACK_OPERATIONS, catalogue.SESSIONS_CREATED, catalogue.SESSIONS_ENDED,
    catalogue.CIRCUIT_TRANSITIONS,
)  # fmt: skip
_RECENTLY = timedelta(minutes=5)

#: moto's account.
_ACCOUNT = "123456789012"

#: moto knows no percentiles.
_INSTEAD = {"p99": "Average"}


class Aws(Server):
    """CloudWatch and SNS as moto plays them, without an account, and the subscriber of all topics."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self._messages: deque[dict[str, str]] = deque(maxlen=8)
        self._reading = Lock()
        self._sqs, self._cloudwatch = self._client("sqs"), self._client("cloudwatch")
        self._inbox = ""

    @property
    def url(self) -> str:
        """Return the address for boto3 and the ``aws`` command."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return variables that lead every boto3 here, and none to a real account, whatever is configured on this
        machine."""
        nowhere = str(self.folder / "no-such-file")
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def settings(self) -> dict[str, object]:
        """Return the application's settings for this AWS."""
        return {
            "LANGPONT_SESSION_ENVIRONMENT": ENVIRONMENT,
            "LANGPONT_SESSION_SERVICE": SERVICE,
            "LANGPONT_SESSION_METRICS": ["cloudwatch", "prometheus"],
            "LANGPONT_SESSION_METRICS_URL": "/metrics",
            "LANGPONT_SESSION_ALERT_TOPICS": {name: _topic(name) for name in SEVERITIES},
        }

    def start(self) -> None:
        """Return when the server answers and has the topics."""
        super().start()
        sns = self._client("sns")
        self._inbox = self._sqs.create_queue(QueueName="inbox")["QueueUrl"]
        for severity in SEVERITIES:
            topic = sns.create_topic(Name=_topic(severity).rpartition(":")[2])["TopicArn"]
            queue, raw = f"arn:aws:sqs:{REGION}:{_ACCOUNT}:inbox", {"RawMessageDelivery": "true"}
            sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=raw)

    def received(self) -> Mapping[str, list[dict[str, str]]]:
        """Return the last messages, newest first, and the metrics of the last minutes; both empty while it does not
        answer."""
        with self._reading, suppress(HTTPClientError):
            self._receive()
            return {"messages": list(self._messages), "metrics": self._metrics()}
        return {"messages": list(self._messages), "metrics": []}

    def _receive(self) -> None:
        asked = {"QueueUrl": self._inbox, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        while received := self._sqs.receive_message(**asked).get("Messages", []):
            for message in received:
                self._sqs.delete_message(QueueUrl=self._inbox, ReceiptHandle=message["ReceiptHandle"])
                self._messages.appendleft(_in_short(message))

    def _metrics(self) -> list[dict[str, str]]:
        now = datetime.now(UTC)
        answer = self._cloudwatch.get_metric_data(
            StartTime=now - _RECENTLY,
            EndTime=now + timedelta(seconds=1),
            MetricDataQueries=[_query(number, metric) for number, metric in enumerate(_SHOWN)],
        )
        found = {result["Id"]: result["Values"] for result in answer["MetricDataResults"]}
        return [
            {"name": metric.name, "statistic": _statistic(metric), "value": _value(metric, found[f"m{number}"])}
            for number, metric in enumerate(_SHOWN)
            if found.get(f"m{number}")
        ]

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="demo",
            aws_secret_access_key="demo",
        )

    def _launch(self) -> subprocess.Popen[bytes]:
        return spawn([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)], log=self.log)

    def _answers(self) -> bool:
        return answers_http(self.port, "/moto-api/")


def _topic(severity: str) -> str:
    return f"arn:aws:sns:{REGION}:{_ACCOUNT}:langpont-{severity}-alerts"


def _in_short(message: Mapping[str, Any]) -> dict[str, str]:
    values = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    return {name: values[name] for name in ("severity", "state", "alert")}


def _query(number: int, metric: catalogue.Metric) -> dict[str, object]:
    dimensions = [
        {"Name": name, "Value": value} for name, value in zip(catalogue.DIMENSIONS, (ENVIRONMENT, SERVICE), strict=True)
    ]
    named = {"Namespace": catalogue.NAMESPACE, "MetricName": metric.name, "Dimensions": dimensions}
    period = int(_RECENTLY.total_seconds())
    return {"Id": f"m{number}", "MetricStat": {"Metric": named, "Period": period, "Stat": _statistic(metric)}}


def _statistic(metric: catalogue.Metric) -> str:
    return _INSTEAD.get(metric.statistic, metric.statistic)


def _value(metric: catalogue.Metric, values: list[float]) -> str:
    # The window of minutes may touch two periods.
    total = sum(values) if metric.statistic == "Sum" else max(values)
    return f"{total:.3g} ms" if metric.unit == "Milliseconds" else f"{total:g}"
