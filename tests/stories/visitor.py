"""A visitor over real HTTP: one kept-alive connection, one cookie jar."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from example_app.users import DEMO_PASSWORDS

TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


@dataclass
class Answer:
    """What came back."""

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

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None)

    def post(self, path: str, **form: str) -> Answer:
        """Post a form with the CSRF token of the page."""
        found = TOKEN.search(self.get("/").body)
        assert found, "the page has no CSRF token"
        return self._request("POST", path, urlencode({"csrf_token": found.group(1), **form}))

    def sign_in(self, user: str = "hanako") -> None:
        assert self.post("/login", username=user, password=DEMO_PASSWORDS[user]).status == 303

    def whoami(self) -> Any:
        answer = self.get("/whoami")
        assert answer.status == 200, answer.body
        return answer.json

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: str | None) -> Answer:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        for last in (False, True):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=15)
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
