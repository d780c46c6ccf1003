"""Reads ``/healthz`` of a running application, as a monitor of the site does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

_MOST = 262_144
"""Bytes of a page that are read."""


class Page(NamedTuple):
    """The answer of one health page.

    :param url: of the page.
    :param took: seconds until the answer.
    :param report: the value of :meth:`.LangPontSession.status`; empty: no report, and `problem` says why.
    """

    url: str
    took: float
    report: Mapping[str, Any]
    problem: str | None = None


def page_at(url: str, prefix: str | None) -> str:
    """Return the address of the health page of a site.

    :param url: of the site, or of the page itself.
    :param prefix: HEALTH_URL_PREFIX.
    :raises ValueError: the URL is not of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a site: it begins with http:// or https:// and has a host")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}{prefix or '/healthz'}"


def read_page(url: str, timeout: float) -> Page:
    """Ask one page. The site's server decides which of its workers answers.

    :param timeout: seconds for each wait.
    """
    began = time.perf_counter()

    def page(report: Mapping[str, Any], problem: str | None = None) -> Page:
        return Page(url, time.perf_counter() - began, report, problem)

    try:
        text = _read(Request(url, headers={"Cache-Control": "no-cache"}), timeout)
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        return page({}, f"it does not answer: {str(reason) or type(reason).__name__}")
    try:
        report = json.loads(text)
        if isinstance(report, dict) and isinstance(report["level"], int) and isinstance(report["stores"], dict):
            return page(report)
    except (ValueError, KeyError):
        pass
    return page({}, "what it says is no health report; see HEALTH_URL_PREFIX")


def _read(question: Request, timeout: float) -> bytes:
    try:
        with urlopen(question, timeout=timeout) as answer:  # page_at() lets only HTTP pass
            return bytes(answer.read(_MOST))
    except HTTPError as refusal:
        with refusal:
            if refusal.code != 503:  # which ``fail_at`` makes of a report
                raise
            return refusal.read(_MOST)
