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
    """The configuration cannot work. Raised once, at start, with every problem found; later, by calls that the
    configuration rules out.

    As a ``NoAppException``: commands of ``flask`` show the problems without a traceback, and ``flask --help`` still
    lists the other commands.

    :param problems: one sentence per mistake; each names the setting and what is allowed.
    :param cannot: the impossible call.
    """

    exit_code = 1

    def __init__(self, problems: Sequence[str], *, cannot: str = "start") -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"flask_langpont_session cannot {cannot} with this configuration:{lines}")

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the problems alone, without the usage of the command."""
        ClickException.show(self, file)


class SessionValueError(LangPontSessionError):
    """A view tried to store a value that a session cannot hold. The stored data is unchanged.

    :param key: the session key that was assigned.
    :param reason: what is wrong with the value, by type, never by content; may be logged.
    :param path: the place inside the value; without the keys of nested dicts, which may be personal.
    """

    _cure = "store an id, or plain data (docs/flask.md#values)"

    def __init__(self, key: object, reason: str, path: str = "") -> None:
        self.key = key
        self.reason = reason
        where = f", inside {path}" if path else ""
        super().__init__(f"session[{_shown(key)}] cannot be stored: {reason}{where}; {self._cure}")


def _shown(key: object) -> str:
    """Return a key for a message, cut to a bounded length."""
    text = repr(key)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(text)} characters)"


class UnsupportedValue(SessionValueError, TypeError):
    """The value, or a part of it, has a type that Flask's own session cannot store either."""


class SessionTooLarge(SessionValueError, ValueError):
    """The value would push its category over ``MAX_CATEGORY_BYTES``, 256 keys, or 32 levels of nesting."""

    _cure = "keep large data in your database, and its id here (limits: docs/configuration.md#limits)"


class UnreadableValue(LangPontSessionError, ValueError):
    """Stored bytes were not written by the serializer, or are damaged."""


class OutsideRequest(LangPontSessionError, RuntimeError):
    """A change of a session outside of a request (:meth:`.LangPontSession.edit`) needs the session's browser.

    :param cannot: the impossible change.
    """

    def __init__(self, cannot: str) -> None:
        super().__init__(
            f"a session that is edited outside its requests cannot {cannot}: no cookie can be sent to its browser. "
            "Let a view do it; langpont.revoke(digest) ends a session from anywhere"
        )


class SessionNotFound(LangPontSessionError, LookupError):
    """There is no session with this digest, or it has ended."""


class Refused(LangPontSessionError, HTTPException):
    """A change of the signed-in user or of the user's rights was refused, and nothing was changed. Unhandled, the error
    becomes the response."""

    def get_headers(self, *arguments: Any, **options: Any) -> list[tuple[str, str]]:
        """Return the headers of any HTTPException; no cache keeps the page."""
        return [*super().get_headers(*arguments, **options), ("Cache-Control", "no-store")]


class SessionLimitReached(Refused, Forbidden):
    """A user with MAX_SESSIONS_PER_USER sessions signed in once more, and ON_LIMIT is ``refuse``.

    An :class:`werkzeug.exceptions.HTTPException` with status 403: unhandled, it becomes the response.

    :param description: for the visitor.
    """

    def __init__(
        self, description: str = "You are signed in on as many devices as is allowed. Sign out on one of them first."
    ) -> None:
        Forbidden.__init__(self, description=description)


class ConfirmationRequired(LangPontSessionError, Unauthorized):
    """The user is signed in, but the last password is older than a view allows, see :func:`requires_fresh`.

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
