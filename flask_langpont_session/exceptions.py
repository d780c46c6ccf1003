"""Every error the package raises, named by what the caller can do about it.

No message carries a session id, a token or a session value: they name keys, types, settings and stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from click import ClickException
from flask.cli import NoAppException
from werkzeug.exceptions import Forbidden, HTTPException, ServiceUnavailable, Unauthorized

from .support.errors import LangPontSessionError as LangPontSessionError

_LONGEST_SHOWN = 120
"""Characters of a session key that an error message quotes."""


class ConfigError(LangPontSessionError, NoAppException, ValueError):
    """The configuration cannot work. Raised once, at start, with every problem found; and later where a view asks for
    what it rules out.

    Flask's word for an application that cannot be loaded: its commands show the problems without a traceback, and
    ``flask --help`` lists what there is beside them.

    :param problems: one sentence per mistake; each names the setting and what is allowed.
    :param cannot: what is not possible with it.
    """

    exit_code = 1

    def __init__(self, problems: Sequence[str], *, cannot: str = "start") -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"flask_langpont_session cannot {cannot} with this configuration:{lines}")

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the problems alone: how the command is used is not among them."""
        ClickException.show(self, file)


class SessionValueError(LangPontSessionError):
    """A view tried to store what a session cannot hold. The stored data is unchanged.

    :param key: the session key that was assigned.
    :param reason: what is wrong with the value, by type, never by content; may be logged.
    :param path: where inside the value; without the keys of nested dicts, which may be personal.
    """

    _cure = "docs/flask.md#values says what can be"

    def __init__(self, key: object, reason: str, path: str = "") -> None:
        self.key = key
        self.reason = reason
        where = f", inside {path}" if path else ""
        super().__init__(f"session[{_shown(key)}] cannot be stored: {reason}{where}; {self._cure}")


def _shown(key: object) -> str:
    """Return a key as it may stand in a message, however long it is."""
    text = repr(key)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(text)} characters)"


class UnsupportedValue(SessionValueError, TypeError):
    """The value (or something inside it) is nothing that Flask's own session could store either."""


class SessionTooLarge(SessionValueError, ValueError):
    """The value would push its category over ``MAX_CATEGORY_BYTES``, 256 keys, or 32 levels of nesting."""

    _cure = "keep large data in your database, and its id here (limits: docs/configuration.md#limits)"


class UnreadableValue(LangPontSessionError, ValueError):
    """Stored bytes are not what the serializer writes: another program wrote them, or they are damaged."""


class OutsideRequest(LangPontSessionError, RuntimeError):
    """A session was edited outside its requests (:meth:`.LangPontSession.edit`) in a way that needs its browser.

    :param cannot: what a session that is edited so cannot do.
    """

    def __init__(self, cannot: str) -> None:
        super().__init__(
            f"a session that is edited outside its requests cannot {cannot}: no cookie can be sent to its browser. "
            "Let a view do it; langpont.revoke(digest) ends a session from anywhere"
        )


class SessionNotFound(LangPontSessionError, LookupError):
    """There is no session with this digest, or it has ended."""


class Refused(LangPontSessionError, HTTPException):
    """A save was refused that would have changed which user is signed in, or what that user may do. Nothing was
    changed. Unhandled, it becomes the response."""

    def get_headers(self, *arguments: Any, **options: Any) -> list[tuple[str, str]]:
        """Return the headers of any HTTPException; no cache keeps the page."""
        return [*super().get_headers(*arguments, **options), ("Cache-Control", "no-store")]


class SessionLimitReached(Refused, Forbidden):
    """A sign-in of a user that has as many sessions as MAX_SESSIONS_PER_USER allows, where ON_LIMIT is ``refuse``.

    An :class:`werkzeug.exceptions.HTTPException` with status 403: unhandled, it becomes the response.

    :param description: for the visitor.
    """

    def __init__(
        self, description: str = "You are signed in on as many devices as is allowed. Sign out on one of them first."
    ) -> None:
        Forbidden.__init__(self, description=description)


class ConfirmationRequired(LangPontSessionError, Unauthorized):
    """The user is signed in, but entered a password longer ago than a view allows, see :func:`requires_fresh`.

    An :class:`werkzeug.exceptions.HTTPException` with status 401: an error handler of the application can ask for the
    password and call ``session.confirm()``.

    :param description: for the visitor.
    """

    def __init__(self, description: str = "Please enter your password again.") -> None:
        Unauthorized.__init__(self, description=description)


class GrantRefused(Refused, ServiceUnavailable):
    """A sign-in or a change of rights needs the database, and the database does not answer.

    An :class:`werkzeug.exceptions.HTTPException` with status 503: unhandled, it becomes the response.

    :param retry_after: seconds until trying again makes sense; sent as ``Retry-After``.
    :param description: for the visitor.
    """

    def __init__(
        self,
        retry_after: int = 5,
        description: str = "Signing in is not possible right now. Please try again in a few seconds.",
    ) -> None:
        ServiceUnavailable.__init__(self, description=description, retry_after=retry_after)
