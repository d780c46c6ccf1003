"""A round of the monitor at the moment that a test chooses."""

from __future__ import annotations

from flask import Flask

from .conftest import parts


def look(app: Flask) -> None:
    """Run one round of a worker's monitor, with canaries."""
    monitor = parts(app).monitor
    monitor.suspect("primary")
    monitor.tick()
