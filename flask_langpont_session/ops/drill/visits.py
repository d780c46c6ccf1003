"""Requests of a browser that only this process has: its cookie is sent to nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from flask import Flask
from flask import session as current_session

from ...exceptions import GrantRefused
from ...session.mapping import Session


class Visit(NamedTuple):
    """The outcome of one request.

    :param result: what the view returned.
    :param took: seconds, saving included.
    :param status: of the response.
    """

    result: Any
    took: float
    status: int


class Browser:
    """Makes requests past the application's views: a drill tries the session, as any view has it.

    :param undisturbed: each request is made in one of these: one that is left half way would leave the parts of the
        application in no order.
    :ivar digests: of the sessions that it had.
    """

    def __init__(self, app: Flask, undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._app = app
        self._undisturbed = undisturbed
        self._name = app.session_interface.get_cookie_name(app)
        self._cookie: str | None = None
        self.digests: set[str] = set()

    def visit(self, view: Callable[[Session], Any]) -> Visit:
        """Make one request, in which `view` has the session."""
        with self._undisturbed():
            return self._visit(view)

    def _visit(self, view: Callable[[Session], Any]) -> Visit:
        headers = {"Cookie": f"{self._name}={self._cookie}"} if self._cookie else {}
        app = self._app
        with app.test_request_context(headers=headers):
            session: Any = current_session._get_current_object()  # type: ignore[attr-defined]
            response, began = app.response_class(), time.perf_counter()
            try:
                result = view(session)
            except GrantRefused as refused:
                result, response.status_code = None, refused.code
            app.session_interface.save_session(app, session, response)
            took = time.perf_counter() - began
            self.digests.update(filter(None, [session.digest]))
        for header in response.headers.getlist("Set-Cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            if name == self._name:
                self._cookie = value or None
        return Visit(result, took, response.status_code)
