"""A browser that can go from one worker to another with the same cookies."""

from __future__ import annotations

from benchmarks.outages.browser import Answer as Answer
from benchmarks.outages.browser import Browser as OneBrowser

from .application import COOKIE


class Browser(OneBrowser):
    """One cookie jar."""

    def at(self, url: str) -> Browser:
        """Return the same browser, with the same cookie jar, at another address."""
        return Browser(url, self.cookies)

    @property
    def cookie(self) -> str | None:
        """Return the session cookie's value."""
        return self.cookies.get(COOKIE)
