"""The tests that the page on Flask recommends, as a stranger's suite of 60, with an application each, beside as many
busy processes as LANGPONT_BUSY_PROCESSES says: none, as a rule, because one or two of them only take the machine's
processors from the tests that run beside this one. ``make busy-suite`` has 20, and a
suite of 300."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devservers.web import PROJECT

from .pages import PAGES, blocks_of
from .shop import SHOP

BUSY = int(os.environ.get("LANGPONT_BUSY_PROCESSES", 0))
TIMES = 150 if BUSY else 30
"""How often each of the two tests is run."""

LONGEST = 300 * max(1, BUSY // 2)
"""Seconds for the suite."""

CONFTEST = """
import gc
import os
import threading
import weakref

import flask
import pytest

applications = []
counts = []


def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append("number")
    metafunc.parametrize("number", range(TIMES))


def pytest_runtest_setup(item):
    if len(applications) % 25 == 10:
        gc.collect()  # it takes longer than a test
        alive = sum(known() is not None for known in applications)
        counts.append((threading.active_count(), len(os.listdir("/proc/self/fd")), alive))


@pytest.fixture(autouse=True)
def application(app):
    assert not any(app is known() for known in applications)
    applications.append(weakref.ref(app))


def pytest_sessionfinish(session):
    assert (len(applications), len(counts)) == (2 * TIMES, 2 * TIMES // 25)
    assert all(count < first + 10 for later in counts for count, first in zip(later, counts[0])), counts
    print("nothing adds up", counts)
"""


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that want all the time of a processor each."""
    work = f"import time\nend = time.monotonic() + {LONGEST}\nwhile time.monotonic() < end: pass"
    running = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.timeout(LONGEST + 30)
def test_many_tests_with_an_application_each(tmp_path: Path) -> None:
    """All pass, and neither threads nor files nor applications add up."""
    page = next(page for page in PAGES if page.name == "flask.md")
    [suite] = [block.text for block in blocks_of(page) if "def test_profile(" in block.text]
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(suite)
    (tmp_path / "conftest.py").write_text(f"TIMES = {TIMES}\n{CONFTEST}")
    with busy_processes(BUSY):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"},
            capture_output=True, text=True, timeout=LONGEST,
        )  # fmt: skip
    assert f"{2 * TIMES} passed" in done.stdout, done.stdout + done.stderr
    assert "nothing adds up" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
