"""``python -m devservers.janitor FOLDER``: cleans up after the lab, however the lab ended.

The lab holds the other end of our standard input. When that closes, even by kill -9 of the lab, every process that
works in FOLDER is killed and FOLDER is removed. The lab's servers die with it anyway; this is for what is frozen at
that moment, for systems without setpriv, and for the files.
"""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from devservers.leftovers import remove_leftovers
from devservers.processes import kill

#: Processes that work elsewhere carry the folder in this variable.
MARK = "LANGPONT_LAB"


def main(folder: Path) -> None:
    """Wait for the end of the lab, then leave nothing of it."""
    sys.stdin.buffer.read()
    # Twice: a process may have started another one while we looked.
    for _ in range(2):
        kill(processes_of(folder))
    for lock in folder.glob("*/data/postmaster.pid"):
        remove_leftovers(lock.parent)
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in ``folder`` or carry it as MARK."""
    return [process for process in psutil.process_iter() if _belongs(process, folder)]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        if folder in Path(process.cwd()).parents:
            return True
    with suppress(psutil.Error):
        return bool(process.environ().get(MARK) == str(folder))
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
