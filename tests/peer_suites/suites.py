"""The suites, how many of their tests pass, and which do not, with the reason.

Every test of a suite is run. What is listed here must fail and all else must pass, so that a difference that is gone is
found as well as a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_ASKS_FOR_THE_COOKIE = "asks for a cookie to be sent or deleted again for an id that did not change"
_NO_STORE = "a response that shows a signed-in session, or has its cookie, is no-store"
_OLD_TOKEN = "a CSRF token from before a sign-in is not valid after it"
_OF_THE_USER = "what a key of no feature holds belongs to the user, and goes when the session of that user ends"
_SHARED = "a session on a server is shared with Socket.IO when the application manages it"
_ELSEWHERE = "fails with Flask's own session, too: "


@dataclass(frozen=True)
class Suite:
    """One package's tests.

    :param version: of the package, and of the sdist that has its tests.
    :param passes: how many tests pass.
    :param fails: those that do not, as pytest names them without their parameters, and why.
    :param needs: what its tests import beside it.
    :param tests: where its tests are in the sdist.
    :param skips: folders with tests that cannot be run here.
    :param cookie_resend: the setting ``COOKIE_RESEND``.
    """

    name: str
    version: str
    passes: int
    fails: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    tests: str = "tests"
    skips: tuple[str, ...] = ()
    cookie_resend: str = "due"

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


_FLASK_NEEDS = ("asgiref", "greenlet", "python-dotenv")
_FLASK_ELSEWHERE = {"tests/test_reqctx.py::test_bad_environ_raises_bad_request": _ELSEWHERE + "Werkzeug 3.1.9"}

SUITES = (
    Suite("flask", "3.1.3", 489, _FLASK_ELSEWHERE, _FLASK_NEEDS, cookie_resend="flask"),
    Suite(
        "flask",
        "3.1.3",
        485,
        {
            **_FLASK_ELSEWHERE,
            "tests/test_basic.py::test_session_using_session_settings": _ASKS_FOR_THE_COOKIE,
            "tests/test_basic.py::test_session_using_samesite_attribute": _ASKS_FOR_THE_COOKIE,
            "tests/test_basic.py::test_session_cookie_setting": _ASKS_FOR_THE_COOKIE,
            "tests/test_basic.py::test_session_refresh_vary": _ASKS_FOR_THE_COOKIE,
        },
        _FLASK_NEEDS,
    ),
    Suite(
        "flask-login",
        "0.6.3",
        113,
        {"tests/test_login.py::LoginTestCase::test_session_protection_strong_deletes_session": _OF_THE_USER},
        ("asgiref", "semantic-version"),
    ),
    Suite("flask-wtf", "1.3.0", 85, needs=("flask-babel", "flask-reuploaded", "email-validator")),
    Suite(
        "flask-security",
        "5.9.2",
        945,
        {
            "tests/test_basic.py::test_no_cache_control": _NO_STORE,
            "tests/test_tokens.py::test_gen_mismatch": _NO_STORE,
            "tests/test_tokens.py::test_refresh_cookie": _NO_STORE,
            "tests/test_webauthn.py::test_basic_json": _NO_STORE,
            "tests/test_webauthn.py::test_verify_json": _NO_STORE,
            "tests/test_tokens.py::test_refresh_token_csrf": _OLD_TOKEN,
            "tests/test_two_factor.py::test_csrf_2fa_login_cookie": _OLD_TOKEN,
            "tests/test_unified_signin.py::test_csrf_2fa_us_cookie": _OLD_TOKEN,
            "tests/test_webauthn.py::test_csrf": _OLD_TOKEN,
            "tests/test_misc.py::test_td_format_babel_incomplete_locale": _ELSEWHERE + "a newer CLDR in Babel",
        },
        (
            *("argon2-cffi", "authlib", "bcrypt", "cbor2", "email-validator", "flask-babel", "flask-mail", "freezegun"),
            *("flask-sqlalchemy", "flask-sqlalchemy-lite", "mongoengine", "mongomock", "nh3", "peewee"),
            *("phonenumberslite", "qrcode", "requests", "sqlalchemy<2.1", "sqlalchemy-utils", "webauthn", "zxcvbn"),
        ),
    ),
    Suite(
        "flask-dance",
        "7.1.0",
        202,
        needs=(
            *("betamax", "flask-caching", "flask-login", "flask-sqlalchemy", "freezegun", "oauthlib[signedtoken]"),
            *("pytest-mock", "responses"),
        ),
    ),
    Suite(
        "flask-oidc",
        "2.4.0",
        45,
        {"tests/test_flask_oidc.py::test_accept_token_no_token": _ELSEWHERE + "a newer Authlib"},
        ("responses",),
    ),
    # Its tests of LDAP need python-ldap, which is built with OpenLDAP's headers.
    Suite(
        *("flask-multipass", "0.11.2", 137),
        needs=("authlib", "flask-wtf", "pytest-mock", "requests", "sqlalchemy"),
        skips=("tests/providers/ldap",),
    ),
    Suite(
        "flask-socketio",
        "5.7.0",
        42,
        {"test_socketio.py::TestSocketIO::test_unmanaged_session": _SHARED},
        tests="test_socketio.py",
    ),
)
"""Authlib's sdist has no tests."""
