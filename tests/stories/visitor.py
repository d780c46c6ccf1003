"""A visitor over real HTTP: one kept-alive connection, one cookie jar."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from devservers.processes import LONG
from flask_langpont_session.policy.ids import digest_of

COOKIE = "langpont"
"""The name of the example application's session cookie."""

BATCH = 500
"""Sessions in one question to a worker."""

FORM = "application/x-www-form-urlencoded"


@dataclass
class Answer:
    """The response to a request."""

    status: int
    body: str
    set_cookies: list[str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Visitor:
    """Keeps cookies as a browser does, reconnects when the server closed the connection."""

    url: str
    cookies: dict[str, str] = field(default_factory=dict)
    _connection: http.client.HTTPConnection | None = None

    def at(self, url: str) -> Visitor:
        """The same browser, with the same cookie jar, at another address."""
        return Visitor(url, self.cookies)

    def twin(self, url: str | None = None) -> Visitor:
        """Return another browser with a copy of the present cookies: a thief, or a page opened before."""
        return Visitor(url or self.url, dict(self.cookies))

    @property
    def digest(self) -> str:
        """Return the digest under which the stores know the session."""
        return digest_of(self.cookies[COOKIE].split(".")[0])

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None)

    def send(self, path: str, **form: str) -> Answer:
        """Post a form to a page that asks for no CSRF token."""
        return self._request("POST", path, urlencode(form))

    @property
    def cookie(self) -> str:
        """The session cookie as a browser sends it."""
        return f"{COOKIE}={self.cookies[COOKIE]}"

    def whose(self, cookies: Sequence[str]) -> list[tuple[str | None, str | None]]:
        """User and role of many sessions, as the worker at this address knows them; None: no user's."""
        found: list[tuple[str | None, str | None]] = []
        for at in range(0, len(cookies), BATCH):
            body = json.dumps({"cookies": cookies[at : at + BATCH]})
            answer = self._request("POST", "/many", body, "application/json")
            assert answer.status == 200, answer.body
            found += map(tuple, answer.json)
        return found

    def me(self) -> Any:
        answer = self.get("/me")
        assert answer.status == 200, answer.body
        return answer.json

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: str | None, kind: str = FORM) -> Answer:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers["Content-Type"] = kind
        for last in (False, True):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=LONG)
            try:
                self._connection.request(method, path, body, headers)
                return self._read(self._connection.getresponse())
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()  # an idle connection that the server closed; a second refusal is a finding
                if last:
                    raise
        raise AssertionError("unreachable")

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        set_cookies = response.headers.get_all("Set-Cookie") or []
        for header in set_cookies:
            name, _, value = header.split(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return Answer(response.status, response.read().decode(), set_cookies)
