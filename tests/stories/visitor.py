"""A browser at the example application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask_langpont_session.policy.ids import digest_of
from tests.support.site.browser import Browser

COOKIE = "langpont"
"""The name of the example application's session cookie."""

BATCH = 500
"""Sessions in one question to a worker."""


class Visitor(Browser):
    """One cookie jar."""

    @property
    def digest(self) -> str:
        """Return the digest under which the stores know the session."""
        return digest_of(self.cookies[COOKIE].split(".")[0])

    @property
    def header(self) -> str:
        """Return the session cookie as a browser sends it."""
        return f"{COOKIE}={self.cookies[COOKIE]}"

    def whose(self, cookies: Sequence[str]) -> list[tuple[str | None, str | None]]:
        """Return user and role of many sessions, as the worker at this address knows them; None: no user's."""
        found: list[tuple[str | None, str | None]] = []
        for at in range(0, len(cookies), BATCH):
            answer = self.send_json("/many", {"cookies": cookies[at : at + BATCH]})
            assert answer.status == 200, answer.body
            found += map(tuple, answer.json)
        return found

    def me(self) -> Any:
        """Return what the session's user is shown."""
        answer = self.get("/me")
        assert answer.status == 200, answer.body
        return answer.json
