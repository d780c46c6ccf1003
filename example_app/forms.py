"""The forms, protected by Flask-WTF. Their fields carry the names of the session keys that remember them."""

from flask_wtf import FlaskForm
from wtforms import PasswordField, SelectField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length

from example_app.phrasebook import ENGINES, LANGUAGES


class LoginForm(FlaskForm):  # type: ignore[misc]  # Flask-WTF has no types
    """Sign-in by user id and password."""

    username = StringField(validators=[InputRequired(), Length(max=64)])
    password = PasswordField(validators=[InputRequired(), Length(max=128)])


class TranslateForm(FlaskForm):  # type: ignore[misc]
    """The text to translate, and the options."""

    source_lang = SelectField(choices=list(LANGUAGES.items()), default="ja")
    target_lang = SelectField(choices=list(LANGUAGES.items()), default="en")
    translation_engine = SelectField(choices=list(ENGINES), default=ENGINES[0])
    input_text = TextAreaField(validators=[InputRequired(), Length(max=500)])
    context_info = StringField(validators=[Length(max=200)])
