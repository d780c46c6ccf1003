"""The folder of an application under test: it goes with what it is for, and after all that uses it."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from devservers.processes import LONG
from flask_langpont_session.support.scratch import Scratch


def test_what_uses_the_folder_is_ended_before_it_goes() -> None:
    """Otherwise a thread that looks at a database in the folder would take that for lost, and say so."""
    scratch, seen = Scratch(), []
    path = scratch.path
    scratch.users.append(lambda: seen.append(path.is_dir()))
    assert path.is_dir()
    del scratch
    gc.collect()
    assert seen == [True]
    assert not path.exists()


def test_so_it_is_at_the_end_of_the_process() -> None:
    """The folder goes at the end of the process, with the object still there."""
    program = (
        "from flask_langpont_session.support.scratch import Scratch\n"
        "scratch = Scratch()\n"
        "path = scratch.path\n"
        "scratch.users.append(lambda: print(path, path.is_dir()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=True)
    path, was_there = done.stdout.split()
    assert was_there == "True"
    assert not Path(path).exists()


def test_a_folder_that_nothing_asked_for_is_not_made() -> None:
    """Nor is anything ended for such a folder."""
    ended: list[None] = []
    scratch = Scratch()
    scratch.users.append(lambda: ended.append(None))
    del scratch
    gc.collect()
    assert not ended
