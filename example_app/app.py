"""The application factory: a small LangPont whose session is kept by flask_langpont_session."""

from collections.abc import Mapping
from typing import Any

from flask import Flask, current_app, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import ServiceUnavailable

from example_app.pages import pages
from example_app.session import live, logins, ui_language
from example_app.texts import TEXTS
from example_app.users import login_manager
from flask_langpont_session import GrantRefused, LangPontSession

csrf = CSRFProtect()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the application, configured by environment variables ``FLASK_…``, and by `config` over them."""
    app = Flask(__name__)
    # The table is configuration: a page that changes its language in an outage would look broken, so the language is
    # worth a local copy, which the default (medium) would not give it.
    app.config["LANGPONT_SESSION_FEATURES"] = {"language_preference": {"priority": "high"}}
    # On the page "Your devices" a session is called by its browser and system, and a user has so many at most.
    app.config.update(LANGPONT_SESSION_DEVICE_LABELS="user_agent", LANGPONT_SESSION_MAX_SESSIONS_PER_USER=20)
    app.config.update(SESSION_COOKIE_NAME="langpont", SESSION_COOKIE_SAMESITE="Lax", WTF_CSRF_TIME_LIMIT=None)
    app.config.from_prefixed_env()
    app.config.update(config or {})
    LangPontSession(app)
    csrf.init_app(app)
    login_manager.init_app(app)
    app.register_blueprint(pages)
    app.register_error_handler(GrantRefused, grant_refused)
    app.register_error_handler(CSRFError, form_refused)
    app.context_processor(page_context)
    return app


def page_context() -> dict[str, Any]:
    """Return what every template may use: the texts ``t`` in the visitor's language, and the state of the session."""
    lang = ui_language()
    session = live()
    theme = request.args.get("theme") or session.get("theme")  # neither: as the browser has it
    return {"lang": lang, "t": TEXTS[lang], "theme": theme, "live": session, "logins": logins}


def grant_refused(error: Exception) -> ResponseReturnValue:
    """Answer, while the database is down, that no user can sign in or get rights, and when to try again."""
    seconds = error.retry_after if isinstance(error, ServiceUnavailable) else None
    current_app.logger.info("a grant was refused: the database does not answer")
    page = render_template("refused.html", reason="grant_refused", seconds=seconds)
    return page, 503, {"Retry-After": str(seconds)} if seconds else {}


def form_refused(error: Exception) -> ResponseReturnValue:
    """Answer a form without a valid token: it was sent by another site, or belongs to a session that has ended."""
    return render_template("refused.html", reason="form_refused", seconds=None), 400
