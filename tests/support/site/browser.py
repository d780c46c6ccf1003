"""A browser over real HTTP that keeps cookies, takes the time, and never asks twice."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

FORM = "application/x-www-form-urlencoded"

COOKIE = "session"
"""The name of the session cookie, unless an application is told another one."""

NO_ANSWER = 0
"""The status of a request whose connection broke or that was given up."""

PATIENCE = 60.0
"""Seconds after which a browser gives up: the default of many load balancers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and its times.

    :param status: of HTTP, or :data:`NO_ANSWER`.
    :param began: when the request was sent, in seconds of :func:`time.monotonic`; `ended` likewise.
    """

    status: int
    body: str = ""
    set_cookies: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    @property
    def ok(self) -> bool:
        """Return whether the answer is a promise: what was asked for is done."""
        return 200 <= self.status < 300

    @property
    def seconds(self) -> float:
        """Return how long the answer took."""
        return self.ended - self.began

    @property
    def json(self) -> Any:
        """Return the body."""
        return json.loads(self.body)


@dataclass
class Browser:
    """One cookie jar. Every request has a connection of its own: a worker that dies with one breaks no other."""

    url: str
    cookies: dict[str, str] = field(default_factory=dict)
    patience: float = PATIENCE

    def twin(self, url: str | None = None) -> Self:
        """Return another browser with a copy of the cookies as they are now: a thief, or a page that was opened
        before."""
        return type(self)(url or self.url, dict(self.cookies))

    def at(self, url: str) -> Self:
        """Return the same browser, with the same cookie jar, at another address."""
        return type(self)(url, self.cookies)

    @property
    def cookie(self) -> str | None:
        """Return the value of the session cookie."""
        return self.cookies.get(COOKIE)

    def get(self, path: str) -> Answer:
        """Ask for a page."""
        return self._ask("GET", path, None)

    def send(self, path: str, **form: str) -> Answer:
        """Post a form."""
        return self._ask("POST", path, urlencode(form))

    def send_json(self, path: str, content: Any) -> Answer:
        """Post what a program says."""
        return self._ask("POST", path, json.dumps(content), "application/json")

    def _ask(self, method: str, path: str, body: str | None, kind: str = FORM) -> Answer:
        headers = {"Content-Type": kind} if body is not None else {}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        began = time.monotonic()
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=self.patience)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            return Answer(NO_ANSWER, began=began, ended=time.monotonic())
        finally:
            connection.close()
        ended = time.monotonic()
        set_cookies = tuple(response.headers.get_all("Set-Cookie") or ())
        for header in set_cookies:
            self._keep(header)
        return Answer(response.status, text, set_cookies, dict(response.headers.items()), began, ended)

    def _keep(self, header: str) -> None:
        pair, *attributes = header.split(";")
        name, _, value = pair.partition("=")
        deleted = value in ("", '""') or any(a.strip().lower() == "max-age=0" for a in attributes)
        if deleted:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value
