"""One request to a WSGI application, as a server makes it, without parsing that would be timed too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any

Environ = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def cookie(self) -> str | None:
        """Return the Cookie header a browser would send from now on; None: no cookie was set."""
        for name, value in self.headers:
            if name == "Set-Cookie":
                return "; ".join(f"{key}={morsel.value}" for key, morsel in SimpleCookie(value).items())
        return None


def environ_for(path: str, cookie: str) -> Environ:
    """Return the WSGI environ of a GET."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_COOKIE": cookie,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def call(app: Callable[..., Iterable[bytes]], environ: Environ) -> Reply:
    """Make one request, all in: what a WSGI server would do with the application."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[..., object]:
        started.append((status, headers))
        return started.append

    body = app(environ.copy(), start_response)
    try:
        content = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return Reply(*started[0], content)
