"""``python -m tests.flask_suite PYTHON SDIST``: run what Flask tests of sessions, and of an application's end, in both
modes of COOKIE_RESEND.

Takes an environment of its own (Flask's tests need pytest 8) and the unpacked sdist from the Makefile.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from example_app.servers import Valkey

HERE = Path(__file__).parent

ASK_FOR_THE_COOKIE_AGAIN = {
    "test_session_using_session_settings",  # wants the cookie deleted when the last key is popped
    "test_session_using_samesite_attribute",  # wants it again after the configuration changed
    "test_session_cookie_setting",  # wants a permanent cookie on every response
    "test_session_refresh_vary",  # wants it even on a page that does not touch the session
}
"""What the default does not do, because a late answer would undo a newer cookie (docs/guarantees.md)."""

CHOSEN = "session or test_app_freed_on_zero_refcount"

EXPECTED = {"flask": (24, set[str]()), "due": (24 - len(ASK_FOR_THE_COOKIE_AGAIN), ASK_FOR_THE_COOKIE_AGAIN)}


def run(python: str, sdist: Path, mode: str, folder: Path, redis_url: str) -> tuple[int, set[str], str]:
    """How many tests passed, which failed, and what pytest said."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]),
        "SUITE_REDIS_URL": redis_url,
        "SUITE_DATABASE_URL": f"sqlite:///{folder / mode}.sqlite3",
        "SUITE_COOKIE_RESEND": mode,
    }
    command = [python, "-m", "pytest", "-p", "langpont_plugin", "-p", "no:cacheprovider", "-k", CHOSEN, "-q", "-rf"]
    done = subprocess.run(
        [*command, "tests"], cwd=sdist, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    failed = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE))
    return int(passed.group(1)) if passed else 0, failed, done.stdout + done.stderr


def main(python: str, sdist: Path) -> int:
    """0 when both modes do exactly what is expected of them."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder) / "valkey") as server:
        for mode, (expected, may_fail) in EXPECTED.items():
            passed, failed, output = run(python, sdist, mode, Path(folder), server.url)
            names = ", ".join(sorted(failed)) or "none"
            print(f"Flask's tests with COOKIE_RESEND={mode!r}: {passed} passed, failed: {names}")
            if (passed, failed) != (expected, may_fail):
                print(output)
                wrong += 1
    return wrong


if __name__ == "__main__":
    # Not resolved: the interpreter of a virtual environment is a link, and the link is what makes it one.
    sys.exit(main(str(Path(sys.argv[1]).absolute()), Path(sys.argv[2]).absolute()))
