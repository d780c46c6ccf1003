"""The pages: translating, signing in and out, devices, language and theme."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_user, logout_user

from example_app.forms import LoginForm, TranslateForm
from example_app.phrasebook import ENGINES, PHRASES, translate
from example_app.session import history, is_kept, langpont, live, remember
from example_app.users import DEMO_PASSWORDS, authenticate
from flask_langpont_session import GrantRefused, LangPontSessionError

pages = Blueprint("pages", __name__)

#: The form's fields are remembered under their own names.
REMEMBERED = ("source_lang", "target_lang", "input_text", "context_info", "translation_engine")


@pages.get("/")
def index() -> ResponseReturnValue:
    """Show the one page of the application."""
    return _page(translate_form(), asked=_asked())


def _page(
    form: TranslateForm, login: LoginForm | None = None, *, wrong: bool = False, asked: dict[str, Any] | None = None
) -> str:
    return render_template(
        "index.html",
        form=form,
        login=login or LoginForm(formdata=None),
        wrong=wrong,
        passwords=DEMO_PASSWORDS,
        answer=_answered(asked) if asked else None,
        history=history()[::-1],
        usage_count=session.get("usage_count", 0),
        phrases=PHRASES,
    )


@pages.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    """Sign in. GrantRefused (503) is raised by `login_user` while the database is known to be down."""
    form = LoginForm()
    if not form.validate_on_submit():
        return _page(translate_form(), form)
    user = authenticate(form.username.data, form.password.data)
    if user is None:
        return _page(translate_form(), form, wrong=True), 401
    login_user(user)
    session.update(username=user.id, user_role=user.role)
    return redirect(url_for("pages.index"), 303)


@pages.post("/logout")
def logout() -> ResponseReturnValue:
    """Sign out, for ever: no outage brings this session back."""
    logout_user()
    return redirect(url_for("pages.index"), 303)


@pages.route("/devices", methods=["GET", "POST"])
def devices() -> ResponseReturnValue:
    """List where the user is signed in. A POST ends others, given a fresh password; 503 without the database."""
    if not current_user.is_authenticated:
        return redirect(url_for("pages.index"), 303)
    try:
        asks = request.method == "POST"
        if asks and _is_proved():
            langpont().revoke_others(request.form.get("digest"))
            return redirect(url_for("pages.devices"), 303)
        found = langpont().sessions(current_user.id)
        return render_template("devices.html", devices=found, asks=asks), 401 if asks else 200
    except LangPontSessionError:
        raise GrantRefused from None


def _is_proved() -> bool:
    """Return whether the password was entered in the last five minutes, or is now: then the session gets another id."""
    if live().fresh(max_age=300):
        return True
    if authenticate(current_user.id, request.form.get("password", "")) is None:
        return False
    live().confirm()
    return True


@pages.post("/early-access")
def early_access() -> ResponseReturnValue:
    """Switch a right on or off: like a sign-in, it needs the database (GrantRefused, 503)."""
    if current_user.is_authenticated:
        session["early_access"] = not session.get("early_access", False)
    return redirect(url_for("pages.index"), 303)


@pages.post("/language")
def language() -> ResponseReturnValue:
    """Choose the language of the pages."""
    return _chosen("lang", ("jp", "en"), "language_preference")


@pages.post("/theme")
def theme() -> ResponseReturnValue:
    """Choose light or dark."""
    return _chosen("theme", ("light", "dark"), "ui_settings")


def _chosen(name: str, values: tuple[str, ...], feature: str) -> ResponseReturnValue:
    value = request.form.get(name)
    if value not in values:
        return redirect(url_for("pages.index"), 303)
    session[name] = value
    # In an outage the table may give the default instead: then the choice is in the address, and good for one page.
    address: dict[str, Any] = {} if is_kept(feature) else {name: value}
    return redirect(url_for("pages.index", **address), 303)


@pages.post("/translate")
def translate_text() -> ResponseReturnValue:
    """Translate, and remember question and answer."""
    if not current_user.is_authenticated:
        return redirect(url_for("pages.index"), 303)
    form = translate_form()
    if not form.validate():
        return _page(form), 400
    given = _given(form)
    if not live().available("translation_state"):
        return redirect(url_for("pages.index", **given), 303)
    session.update(given)
    session["last_usage_date"] = datetime.now(UTC).date()
    remember(_answered(given))
    return redirect(url_for("pages.index"), 303)


def _given(form: TranslateForm) -> dict[str, Any]:
    return {name: value for name, value in form.data.items() if name in REMEMBERED}


def _answered(given: dict[str, Any]) -> dict[str, Any]:
    engine = given.get("translation_engine", "exact")
    answer = translate(given["input_text"], given["source_lang"], given["target_lang"], engine)
    return {**given, "answer": answer.text, "phrase": answer.phrase, "at": datetime.now(UTC)}


def _asked() -> dict[str, Any]:
    """Return the question in the address: it is there where nothing can be remembered."""
    if not (request.args.get("input_text") and current_user.is_authenticated) or live().available("translation_state"):
        return {}
    form = translate_form(formdata=request.args, meta={"csrf": False})
    return _given(form) if form.validate() else {}


def translate_form(**options: Any) -> TranslateForm:
    """Return the form as it was last sent. The choice of engine is left out where the table disables it."""
    engines = ENGINES if session.get("early_access") else ENGINES[:1]
    form = TranslateForm(data={name: session[name] for name in REMEMBERED if name in session}, **options)
    if not live().available("engine_selection"):
        del form.translation_engine
    else:
        form.translation_engine.choices = list(engines)
    return form
