"""Helpers to read what answers do to the cookie of the browser."""

from __future__ import annotations

from typing import Any


def set_cookies(response: Any) -> list[str]:
    found: list[str] = response.headers.getlist("Set-Cookie")
    return found
