"""Decorators for views that run only if the database says *now* that the user is signed in, and the user proved that
not long ago."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast, overload

from flask import session
from werkzeug.exceptions import Unauthorized

from .exceptions import ConfirmationRequired, GrantRefused
from .session.mapping import Session

View = TypeVar("View", bound=Callable[..., Any])


@overload
def requires_fresh(view: View) -> View: ...


@overload
def requires_fresh(
    view: None = None, *, max_age: float | None = None, otherwise: Callable[[], Any] | None = None
) -> Callable[[View], View]: ...


def requires_fresh(
    view: View | None = None, *, max_age: float | None = None, otherwise: Callable[[], Any] | None = None
) -> View | Callable[[View], View]:
    """Let a view run only if the database confirms, in this request, that its visitor is signed in.

    For what must not be done on the word of a lease that is up to VERIFY_INTERVAL old: changing a password, paying,
    administering. What the session shows afterwards (a role, for example) is the database's word too.

    >>> @app.post("/password")                            # doctest: +SKIP
    ... @requires_fresh
    ... def change_password(): ...

    With `max_age` the user must also have signed in, or entered the password again (``session.confirm()``), not long
    ago:

    >>> @app.post("/address")                             # doctest: +SKIP
    ... @requires_fresh(max_age=300)
    ... def change_address(): ...

    :param max_age: seconds since that, at most, by the database's clock; None: it does not matter.
    :param otherwise: makes the response for a visitor without a sign-in (a redirect to the sign-in page); without it
        :class:`werkzeug.exceptions.Unauthorized` (401) is raised.
    :raises ConfirmationRequired: 401: that was longer ago. The application's error handler asks for the password.
    :raises GrantRefused: 503 with Retry-After: the database does not answer, so that it cannot be
        known whether the user is signed in.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            current = session._get_current_object()  # type: ignore[attr-defined]
            if not isinstance(current, Session):
                raise RuntimeError("requires_fresh needs LangPontSession as the application's session interface")
            if current.fresh(max_age=max_age):
                return view(*args, **kwargs)
            if current.work.row is not None:
                raise ConfirmationRequired
            if current.unverified:
                raise GrantRefused(description="This is not possible right now. Please try again in a few seconds.")
            if otherwise is not None:
                return otherwise()
            raise Unauthorized()

        return cast(View, guarded)

    return decorate if view is None else decorate(view)
