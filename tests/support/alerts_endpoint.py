"""An SNS of our own on 127.0.0.1 that keeps what it is sent, and fails in the ways in which AWS does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TOPICS = {
    severity: f"arn:aws:sns:ap-northeast-1:123456789012:langpont-{severity}-alerts"
    for severity in ("info", "warning", "critical", "emergency")
}

_OK = "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>"
_ERROR = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>arn and more</Message></Error></ErrorResponse>"
)


def environment_of(aws_url: str) -> dict[str, str]:
    """Return the environment in which boto3 calls this URL alone, and reads no configuration of the machine."""
    return {
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


class Sent:
    """One message that arrived.

    :ivar texts: by protocol; `body`: that of a queue.
    """

    def __init__(self, form: dict[str, list[str]]) -> None:
        self.topic = form["TopicArn"][0].rpartition(":")[2]
        self.subject = form["Subject"][0]
        self.texts: dict[str, str] = json.loads(form["Message"][0])
        self.body: dict[str, Any] = json.loads(self.texts["sqs"])
        entries = range(1, 1 + sum(name.endswith(".Name") for name in form))
        self.attributes = {
            form[f"MessageAttributes.entry.{n}.Name"][0]: form[f"MessageAttributes.entry.{n}.Value.StringValue"][0]
            for n in entries
        }

    def __str__(self) -> str:
        key = self.body["dedup_key"].partition("/LangPont/")[2].rpartition("/")[0]
        return f"{self.body['state']} {key}"


class Endpoint:
    """The server; a context manager. `behaviour`: ``ok``, ``hang``, ``500`` or an AWS error code."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.reset()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = Sent(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                outer.asked.append(message)
                if outer.behaviour == "hang":
                    outer._over.wait(60)
                    return
                if outer.behaviour == "ok":
                    outer.sent.append(message)
                self.answer()

            def answer(self) -> None:
                status = {"ok": 200, "500": 500}.get(outer.behaviour, 400)
                text = _OK if status == 200 else "oops" if status == 500 else _ERROR.format(outer.behaviour)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def reset(self) -> None:
        """Begin anew: nothing has arrived, and nothing hangs."""
        self._over.set()
        self._over = threading.Event()
        self.behaviour = "ok"
        self.sent: list[Sent] = []
        self.asked: list[Sent] = []

    @property
    def requests(self) -> int:
        """Return how many times a client asked to send a message, accepted or not."""
        return len(self.asked)

    def told(self) -> list[str]:
        """Return the messages that arrived, each as ``state key``."""
        return [str(message) for message in self.sent]

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def wait_for(condition: Callable[[], bool], what: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.03)  # to ask for messages takes as long as a request to AWS
