"""Child processes that die with their parent, free ports, bounded waiting. Nothing here knows what a server is."""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

# Linux sends the death signal when the *thread* that forked ends, not when the process does. Everything is
# therefore started by this one thread, which lives as long as the process and whose tasks any thread may wait for.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

# Below the range that Linux and macOS hand out to outgoing connections. A port from that range could be taken by
# a client while its server is down, and a client that keeps trying a dead port could even connect to itself.
PORTS = range(15000, 30000)

_reserved: dict[int, socket.socket] = {}

LONG = 100.0
"""Seconds to wait for what comes in a moment, unless something is broken: however busy the machine is."""

_LONGEST_PAUSE = 0.1
"""Seconds: :func:`wait_until` pauses for as long as its condition took, at most for this, or for the pause that it is
given. So a condition that is a request does not take the processor from what it waits for."""


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own, so that Ctrl-C reaches only us, with its output added to ``log``.

    On Linux the child is killed when this process ends, in whatever way. ``prefix`` holds further options for
    setpriv(1), which does that.
    """
    return _spawner.submit(_spawn, [*_dying_with_us(prefix), *map(str, command)], log, cwd, env).result()


def _spawn(command: list[str], log: Path, cwd: Path | None, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )


def _dying_with_us(options: Sequence[str]) -> list[str]:
    # setpriv (util-linux, on every Linux that the wheels support) replaces itself by the command: the pid stays. A
    # preexec_fn could do the same, but is unsafe, and warned about, once this process has threads.
    setpriv = shutil.which("setpriv")
    if setpriv is None and options:
        raise RuntimeError("setpriv (package util-linux) is needed to run PostgreSQL as root")
    return [setpriv, "--pdeathsig", "KILL", *options, "--"] if setpriv else []


def family(pid: int | None) -> list[psutil.Process]:
    """Return the process, *stopped* so that it forks no further while the caller deals with it, and its descendants."""
    if pid is None:
        return []
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        first.send_signal(signal.SIGSTOP)
        return [first, *first.children(recursive=True)]
    return []


def children(pid: int | None) -> list[int]:
    """Return the process ids of the children that live."""
    if pid is None:
        return []
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children() if alive(child)]
    return []


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those of the processes that still live."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, and wait until all are gone. They need not be children of ours."""
    send(processes, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, processes)), "the end of killed processes")


def alive(process: psutil.Process) -> bool:
    """Return whether a process still does something. A zombie, whose parent has not asked yet how it ended, does
    not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which no server listens, and that no other process is given while this one
    lives."""
    for port in random.sample(PORTS, 100):
        if _reserve(port):
            if is_free(port):
                return port
            release(port)
    raise RuntimeError(f"no free port among 100 of {PORTS}")


def release(port: int) -> None:
    """Give back a port of :func:`free_port`, so that others may be given it. A port that was not chosen here is left
    alone."""
    if reservation := _reserved.pop(port, None):
        reservation.close()


@atexit.register
def _release_all() -> None:
    for port in list(_reserved):
        release(port)


def _reserve(port: int) -> bool:
    # No datagrams come here: a UDP socket of the same number says that the TCP port is taken, also before its
    # server has started and while it is down, and the kernel takes it back when this process ends.
    reservation = socket.socket(type=socket.SOCK_DGRAM)
    try:
        reservation.bind(("127.0.0.1", port))
    except OSError:
        reservation.close()
        return False
    _reserved[port] = reservation
    return True


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` of 127.0.0.1."""
    with socket.socket() as probe:
        # As servers do it: connections that were just closed do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], bool], what: str, seconds: float = LONG, pause: float = 0.005) -> None:
    """Return as soon as ``condition()`` holds. :raises TimeoutError: naming ``what``, after ``seconds``."""
    deadline = time.monotonic() + seconds
    asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        # As long as the question took: a dear one leaves the processor to what it asks about.
        time.sleep(max(pause, min(now - asked, _LONGEST_PAUSE)))
        asked = time.monotonic()


def is_root() -> bool:
    """Return whether this process runs as root."""
    return os.geteuid() == 0
