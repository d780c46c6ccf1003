"""gunicorn's settings: ``gunicorn --config gunicorn.conf.py shop:app``. Options of the command line win.

All workers of a host share the figures for Prometheus in PROMETHEUS_MULTIPROC_DIR; without it each shows its own.
"""

import os
from pathlib import Path

bind = "127.0.0.1:8000"
workers = 4
worker_class = "gthread"
threads = 8
graceful_timeout = 30  # seconds for the requests that run when it ends
worker_tmp_dir = "/dev/shm"  # what workers touch again and again is on no disk

figures = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if figures:
    Path(figures).mkdir(parents=True, exist_ok=True)  # before the application is loaded, with --preload too


def on_starting(server):
    """What a server before has left counts no more. Not at a reload: then its workers' figures go on."""
    for file in Path(figures).glob("*.db") if figures else ():
        file.unlink()


def child_exit(server, worker):
    """Else a dead worker's level and connections stay."""
    if figures:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)
