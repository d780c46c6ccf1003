"""``python -m lab``: the example application with real servers around it, and switches to break them."""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from devservers.processes import is_free
from devservers.servers import ServerError
from example_app.users import DEMO_PASSWORDS
from lab.servers import Lab


def _leave(*_: object) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is cleaning up
    raise SystemExit(0)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end_with_make() -> None:
    """End as well when ``make demo`` itself is killed. Only Linux can do that."""
    if "MAKELEVEL" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def _tell(line: str) -> None:
    print(f"  {line}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description="The example app and its outage lab.")
    parser.add_argument("--port", type=int, help="of the application; 8000 or any free one by default")
    parser.add_argument("--workers", type=int, default=2, help="processes of the application (2)")
    parser.add_argument("--preload", action="store_true", help="load the application before forking")
    options = parser.parse_args()
    if options.port and not is_free(options.port):
        parser.error(f"port {options.port} is taken")
    return options


OF_THE_DEMO = {
    "cookie": "there is no HTTPS here",
    "journal-disk": "all files here are temporary",
}
"""Check of the doctor → why it warns of the demo."""


def _counted(number: int, outcome: str) -> str:
    return f"{number} {outcome}{'s' if number != 1 and outcome in ('warning', 'failure') else ''}"


def doctor_lines(said: Mapping[str, Any]) -> Iterator[str]:
    """Yield the doctor's report in short. For what is wrong, the demo's own reason is given, else what was found."""
    counts = ", ".join(_counted(number, outcome) for outcome, number in said["counts"].items())
    yield f"`flask langpont doctor` has looked at the application: {counts}."
    for check in said["checks"]:
        if check["outcome"] in ("warning", "failure"):
            found = "; ".join(one["found"] for one in check["findings"] if one["outcome"] != "ok")
            yield f"  {check['outcome']} {check['name']}: {OF_THE_DEMO.get(check['name'], found)}"


def main() -> None:
    """Run the lab until a signal ends it."""
    options = _options()
    _end_with_make()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, SIGHUP stays ignored
            signal.signal(number, _leave)
    port = options.port or (8000 if is_free(8000) else None)
    print("Starting Valkey, PostgreSQL, AWS (moto) and the application ...", flush=True)
    with Lab(port=port, workers=options.workers, preload=options.preload, aws=True, tell=_tell) as lab:
        users = " or ".join(f"{name} / {password}" for name, password in DEMO_PASSWORDS.items())
        print(f"\n  LangPont is at {lab.url}\n  Sign in as {users}.", flush=True)
        if lab.aws is not None:
            print(
                f"  Metrics and alerts are shown there; `aws --endpoint-url {lab.aws.url}` has them, too.", flush=True
            )
        print(f"  {lab.url}/healthz/status is for operators, {lab.url}/metrics for Prometheus.", flush=True)
        print("\n  Ctrl-C ends it.\n", flush=True)
        try:
            for line in doctor_lines(lab.doctor()):
                _tell(line)
        except ServerError as error:  # the demo goes on without it
            _tell(str(error))
        lab.web.wait()
        raise SystemExit(f"The application ended: {lab.web.log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    main()
