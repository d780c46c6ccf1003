"""The session as this application uses it."""

from typing import Any, cast

from flask import current_app, request, session

from flask_langpont_session import LangPontSession, Session

#: How many translations are remembered.
HISTORY_LENGTH = 10


def live() -> Session:
    """Return Flask's ``session`` with the type that it has here."""
    return cast(Session, session)


def is_kept(feature: str) -> bool:
    """Return whether a value that is written to a feature now outlives the request."""
    behaviours = {row.feature: row.behaviour for row in live().explain()}
    return behaviours[feature] in ("primary", "local_cache_fallback")


def langpont() -> LangPontSession:
    """Return the extension, which ends and lists sessions."""
    return cast(LangPontSession, current_app.session_interface)


def logins() -> bool:
    """Return whether users can sign in at this worker at the moment."""
    return bool(langpont().status()["logins"])


def ui_language() -> str:
    """Return ``jp`` or ``en``: as chosen, else as the browser asks. The same in every worker, whatever fails."""
    asked = "jp" if request.accept_languages.best_match(["en", "ja"]) == "ja" else "en"
    chosen = request.args.get("lang") or session.get("lang", asked)
    return chosen if chosen in ("jp", "en") else asked


def history() -> list[dict[str, Any]]:
    """Return the last translations, oldest first."""
    return list(session.get("translation_context", []))


def remember(entry: dict[str, Any]) -> None:
    """Add a translation to the history and count it."""
    session["translation_context"] = [*history(), entry][-HISTORY_LENGTH:]
    live().increment("usage_count")
