"""The pages: translating, signing in and out, language and theme."""

from datetime import UTC, datetime

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_user, logout_user

from example_app.forms import LoginForm, TranslateForm
from example_app.phrasebook import ENGINES, PHRASES, translate
from example_app.session import history, live, remember
from example_app.users import DEMO_PASSWORDS, authenticate

pages = Blueprint("pages", __name__)

#: The form's fields are remembered under their own names.
REMEMBERED = ("source_lang", "target_lang", "input_text", "context_info", "translation_engine")


@pages.get("/")
def index() -> ResponseReturnValue:
    """The one page of the application."""
    return _page(translate_form())


def _page(form: TranslateForm, login: LoginForm | None = None, *, wrong: bool = False) -> str:
    return render_template(
        "index.html",
        form=form,
        login=login or LoginForm(formdata=None),
        wrong=wrong,
        passwords=DEMO_PASSWORDS,
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
    session["username"] = user.id
    session["user_role"] = user.role
    return redirect(url_for("pages.index"), 303)


@pages.post("/logout")
def logout() -> ResponseReturnValue:
    """Sign out, for ever: no outage brings this session back."""
    logout_user()
    return redirect(url_for("pages.index"), 303)


@pages.post("/early-access")
def early_access() -> ResponseReturnValue:
    """Switch a right on or off: like a sign-in, it needs the database (GrantRefused, 503)."""
    if current_user.is_authenticated:
        session["early_access"] = not session.get("early_access", False)
    return redirect(url_for("pages.index"), 303)


@pages.post("/language")
def language() -> ResponseReturnValue:
    """Choose the language of the pages."""
    if request.form.get("lang") in ("jp", "en"):
        session["lang"] = request.form["lang"]
    return redirect(url_for("pages.index"), 303)


@pages.post("/theme")
def theme() -> ResponseReturnValue:
    """Choose light or dark."""
    if request.form.get("theme") in ("light", "dark"):
        session["theme"] = request.form["theme"]
    return redirect(url_for("pages.index"), 303)


@pages.post("/translate")
def translate_text() -> ResponseReturnValue:
    """Translate, and remember question and answer."""
    if not current_user.is_authenticated:
        return redirect(url_for("pages.index"), 303)
    form = translate_form()
    if not form.validate():
        return _page(form), 400
    _translate(form)
    # Where nothing can be remembered, the answer exists in this request only.
    return redirect(url_for("pages.index"), 303) if live().available("translation_state") else _page(form)


def _translate(form: TranslateForm) -> None:
    given = {name: value for name, value in form.data.items() if name in REMEMBERED}
    session.update(given)
    session["last_usage_date"] = datetime.now(UTC).date()
    engine = given.get("translation_engine", "exact")
    answer = translate(given["input_text"], given["source_lang"], given["target_lang"], engine)
    remember({**given, "answer": answer.text, "phrase": answer.phrase, "at": datetime.now(UTC)})


def translate_form() -> TranslateForm:
    """The form as it was last sent. The choice of engine is left out where the table disables it."""
    engines = ENGINES if session.get("early_access") else ENGINES[:1]
    form = TranslateForm(data={name: session[name] for name in REMEMBERED if name in session})
    if not live().available("engine_selection"):
        del form.translation_engine
    else:
        form.translation_engine.choices = list(engines)
    return form
