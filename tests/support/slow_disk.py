"""A disk that takes its time, for processes that are started with it: every fsync waits first."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int slowly(const char *name, int descriptor) {
    const char *wanted = getenv("SLOW_DISK_US");
    if (wanted) usleep(atoi(wanted));
    return ((int (*)(int)) dlsym(RTLD_NEXT, name))(descriptor);
}
int fsync(int descriptor) { return slowly("fsync", descriptor); }
int fdatasync(int descriptor) { return slowly("fdatasync", descriptor); }
"""


def slow_disk(folder: Path, milliseconds: float) -> dict[str, str] | None:
    """Environment variables of processes whose disk is slow, whatever else is preloaded; None: there is no C compiler.

    :param folder: where the library is put that does it.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "slow_disk.so"
    if not library.exists():
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(command, input=_SOURCE.encode(), check=True)
    preloaded = " ".join(filter(None, [str(library), os.environ.get("LD_PRELOAD")]))
    return {"LD_PRELOAD": preloaded, "SLOW_DISK_US": str(int(milliseconds * 1000))}
