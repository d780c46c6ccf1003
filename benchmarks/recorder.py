"""``python -m benchmarks.recorder``: what one record costs the request that makes it, whatever AWS does meanwhile.

Each call is timed by itself, the clock's own share (about 0.1 µs) included. The target is 5 µs at p99.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from time import perf_counter_ns

from flask_langpont_session.metrics.cloudwatch import CloudWatch, connect
from flask_langpont_session.metrics.figures import figures
from flask_langpont_session.metrics.recorder import Reader, Recorder
from flask_langpont_session.metrics.session_index import ActiveSessions
from flask_langpont_session.support.threads import PeriodicThread, end_all

TARGET_US = 5.0
CALLS = 200_000

AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "ap-northeast-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def calls(recorder: Recorder) -> Mapping[str, Callable[[], object]]:
    """Return the calls that a request makes to be counted."""
    active = ActiveSessions(_Nowhere(), recorder, is_up=lambda: False, interval=60)
    return {
        "observe an operation": lambda: recorder.observe("load", "all", "primary", "ok", 0.00042),
        "count an event": lambda: recorder.count("sessions_created"),
        "measure a payload": lambda: recorder.measure("payload", "ui", 120),
        "note a session in use": lambda: active.notes.served("a session", 3_600_000),
    }


class _Nowhere:
    prefix = "session"

    def run_commands(self, *_: object, **__: object) -> list[object]:
        raise AssertionError("nothing is brought anywhere")


# -- what goes on meanwhile --------------------------------------------------------------------------------------------


@contextmanager
def alone(recorder: Recorder) -> Iterator[None]:
    """Have nothing else go on."""
    yield


@contextmanager
def beside_requests(recorder: Recorder) -> Iterator[None]:
    """Have other threads keep the interpreter busy and record every tenth of a millisecond, as no request does."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            recorder.observe("load", "all", "primary", "ok", 0.001)
            until = perf_counter_ns() + 100_000
            while perf_counter_ns() < until:
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


@contextmanager
def an_endpoint_that_hangs(recorder: Recorder) -> Iterator[None]:
    """Publish to an endpoint whose connections the kernel accepts, and that never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server, _publishing(recorder, server):
        yield


@contextmanager
def an_endpoint_that_refuses(recorder: Recorder) -> Iterator[None]:
    """Publish to an endpoint where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with _publishing(recorder, taken):
            yield


@contextmanager
def _publishing(recorder: Recorder, place: socket.socket) -> Iterator[None]:
    """Run a publisher that begins anew every 0.1 s, as hundreds of them would do in a minute."""
    os.environ.update(AWS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{place.getsockname()[1]}")
    reader = Reader(recorder, lambda: 0)
    cloudwatch = CloudWatch(recorder, environment="benchmark", service="recorder", connect=connect)

    def publish() -> None:
        cloudwatch.publish(figures(reader.take(), active=None, in_use=0))

    thread = PeriodicThread("publisher", lambda: publish, 0.1)
    thread.ensure_started()
    yield
    end_all([thread])


MEANWHILE = {
    "nothing": alone,
    "three busy threads record": beside_requests,
    "AWS hangs": an_endpoint_that_hangs,
    "AWS refuses": an_endpoint_that_refuses,
}


def timed(call: Callable[[], object], number: int) -> list[int]:
    """Nanoseconds of each call, sorted."""
    found = [0] * number
    for index in range(number):
        began = perf_counter_ns()
        call()
        found[index] = perf_counter_ns() - began
    return sorted(found)


def main() -> int:
    """Print the table. The exit status is 1 if a p99 misses the target."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    worst = 0.0
    print(f"{number:,} calls each; microseconds\n")
    print("| record | meanwhile | p50 | p99 | p99.9 |\n| --- | --- | ---: | ---: | ---: |")
    for meanwhile, situation in MEANWHILE.items():
        recorder = Recorder()
        with ExitStack() as stack:
            stack.enter_context(situation(recorder))
            for name, call in calls(recorder).items():
                timed(call, number // 10)
                found = timed(call, number)
                p50, p99, p999 = (found[int(number * share)] / 1000 for share in (0.5, 0.99, 0.999))
                worst = max(worst, p99)
                print(f"| {name} | {meanwhile} | {p50:.2f} | {p99:.2f} | {p999:.2f} |", flush=True)
    print(f"\nworst p99: {worst:.2f} µs; target: at most {TARGET_US:g} µs: {'met' if worst <= TARGET_US else 'missed'}")
    return int(worst > TARGET_US)


if __name__ == "__main__":
    sys.exit(main())
