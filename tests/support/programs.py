"""Programs of the system that some tests drive."""

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest

_SERVERS = "/usr/sbin"
"""Where Debian has servers; a user's PATH need not have it."""


def path_of_chromium() -> str:
    """The path of Chromium without windows, which takes a third of the time of the whole one; else of that one."""
    return _found("chromium-headless-shell") or required("chromium", "chromium-headless-shell")


def required(name: str, package: str | None = None) -> str:
    """The path of a program. A test that lacks it is skipped by name, but fails where ``CI=true``.

    :param package: Debian's package with the program, if it is called otherwise.
    """
    path = _found(name)
    if path is None:
        missing = f"{name} is not installed (apt install {package or name})"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def output_of(command: Sequence[str], seconds: float) -> str:
    """Return what a program prints. If the program fails, so does the test, and shows the errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SERVERS}")
