"""``python -m tests.peer_suites install | run ENVIRONMENT [NAME ...]``: what the suites need, or the suites themselves.

Takes a virtual environment of its own, for the versions that the suites were written for. Without names: all suites.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .suites import SUITES, Suite

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

_LONGEST = 3600
"""Seconds for one suite, so that one that hangs ends. A busy machine takes a quarter of an hour for 955 tests."""


class Environment:
    """A virtual environment, with the unpacked sdists in it."""

    def __init__(self, folder: Path) -> None:
        # Not resolved: the interpreter of a virtual environment is a link, and the link is what makes it one.
        self.python = str(folder.absolute() / "bin" / "python")
        self._sdists = folder.absolute() / "sdists"

    def install(self, suites: list[Suite]) -> None:
        """Install the requirements of the suites, and unpack their tests."""
        wanted = {part for suite in suites for part in (suite.requirement, *suite.needs)}
        self._pip("install", "-c", str(HERE / "constraints.txt"), "-e", f"{ROOT}[speed]", "pytest", *sorted(wanted))
        for suite in suites:
            if not (folder := self._sdists / suite.name).exists():
                archives = self._sdists / "archives" / suite.name
                options = ("--no-deps", "--no-binary", suite.name, "--dest", str(archives))
                self._pip("download", *options, suite.requirement)
                [archive] = archives.iterdir()
                folder.mkdir()
                subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True)
        # For a suite without a configuration of its own pytest looks in the folders above, and would find ours.
        (self._sdists / "pytest.ini").touch()

    def sdist(self, suite: Suite) -> Path:
        """Return the folder with the tests of a suite."""
        [folder] = (self._sdists / suite.name).iterdir()
        return folder

    def _pip(self, *arguments: str) -> None:
        subprocess.run([self.python, "-m", "pip", "--quiet", *arguments], check=True)


def failures(said: str) -> set[str]:
    """The tests that failed, without their parameters, as pytest told with ``-rfE``."""
    return set(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", said, re.MULTILINE))


def run(suite: Suite, environment: Environment, redis_url: str) -> bool:
    """Run a suite, and return whether exactly the expected tests fail."""
    variables = {
        # A suite looks which certificates are asked for.
        **{name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")},
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
        "SUITE_REDIS_URL": redis_url,
        "SUITE_COOKIE_RESEND": suite.cookie_resend,
    }
    plugins = ["-p", "langpont_plugin", "-p", "no:cacheprovider"]
    options = ["-o", "addopts=", "-q", "-rfE", *(f"--ignore={folder}" for folder in suite.skips)]
    # Python 3.12 warns of what Flask-Login 0.6.3 calls, and its suite takes any warning for an error.
    options += ["-W", "ignore:datetime.datetime.utc:DeprecationWarning"]
    done = subprocess.run(
        [environment.python, "-m", "pytest", *plugins, *options, suite.tests],
        cwd=environment.sdist(suite), env=variables, capture_output=True, text=True, timeout=_LONGEST, check=False,
    )  # fmt: skip
    counted = re.search(r"(\d+) passed", done.stdout)
    passed, failed = int(counted[1]) if counted else 0, failures(done.stdout)
    print(f"{suite.requirement}, COOKIE_RESEND={suite.cookie_resend!r}: {passed} passed")
    for test in sorted(failed):
        print(f"  failed: {test}: {suite.fails.get(test, 'NOT EXPECTED')}")
    for test in sorted(suite.fails.keys() - failed):
        print(f"  passed: {test}: NOT EXPECTED")
    as_expected = (passed, failed) == (suite.passes, set(suite.fails))
    if not as_expected:
        print(f"  expected: {suite.passes} passed", done.stdout, done.stderr, sep="\n")
    return as_expected


def main(command: str, folder: Path, names: list[str]) -> int:
    """0 when every suite does exactly what is expected of it."""
    if unknown := set(names) - {suite.name for suite in SUITES}:
        raise SystemExit(f"there is no suite {', '.join(sorted(unknown))}")
    suites = [suite for suite in SUITES if not names or suite.name in names]
    environment = Environment(folder)
    if command == "install":
        environment.install(suites)
        return 0
    from devservers.servers import Valkey  # a Python that only installs has no driver

    with tempfile.TemporaryDirectory() as place, Valkey(Path(place) / "valkey", appendonly=False) as server:
        return sum(not run(suite, environment, server.url) for suite in suites)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
