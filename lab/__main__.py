"""``python -m lab``: the example application with real servers around it, and switches to break them."""

import argparse
import ctypes
import os
import signal
import sys

from devservers.processes import is_free
from example_app.users import DEMO_PASSWORDS
from lab.servers import Lab


def _leave(*_: object) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # once is enough; what follows is cleaning up
    raise SystemExit(0)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end_with_make() -> None:
    """When ``make demo`` itself is killed, end as well. Only Linux can do that."""
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
            print(f"  Metrics and alerts go to {lab.aws.url}; {lab.url}/metrics is for Prometheus.", flush=True)
        print("\n  Ctrl-C ends it.", flush=True)
        lab.web.wait()
        raise SystemExit(f"The application ended: {lab.web.log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    main()
