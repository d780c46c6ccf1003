"""The tables that an application begins with: ``PRESET`` names one, ``CATEGORIES`` and ``FEATURES`` change it.

Both have the keys of the common extensions: Flask-Login, Flask-Principal, Flask-Security, Flask-AppBuilder, Authlib,
Flask-Dance, flask-oidc and Flask-pyoidc. Argue with a line here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_EXTENSIONS = [
    "session_token", "_user_id", "_fresh", "_id", "identity.*", "user", "fs_paa", "fs_gexp",
]  # fmt: skip
"""Keys by which extensions know a user, and keys in which they note something about the sign-in."""

_AUTH: Mapping[str, Sequence[str]] = {
    "oauth_tokens": [
        "oidc_auth_token", "oidc_auth_profile", "*_oauth_token", "access_token", "access_token_expires_at",
        "refresh_token", "id_token", "id_token_jwt", "userinfo", "last_authenticated", "last_session_refresh",
        "current_provider", "oauth", "oauth_provider",
    ],
    "sign_in_steps": [
        "_state_*", "oauth_state", "*_oauth_state", "*_oauth_code_verifier", "tf_user_id", "tf_state", "tf_select",
        "tf_primary_method", "tf_totp_secret", "tf_remember_login", "auth_nonce", "auth_opaque",
        "auth_request", "fragment_encoded_response", "end_session_state", "saml_*",
    ],
    "csrf_protection": ["csrf_token"],
    "session_security": ["_permanent", "session_created", "last_activity"],
}  # fmt: skip

_DATA: Mapping[str, Any] = {
    "ttl": None,
    "features": {"other": ["fs_oauth_next", "_multipass_*", "*"]},
}

DEFAULT_CATEGORIES: Mapping[str, Mapping[str, Any]] = {
    "auth": {
        "ttl": None,
        "features": {
            "authentication": [
                "logged_in", "authenticated", "user_id", "username", "user_role", "account_type", "daily_limit",
                "early_access", *_EXTENSIONS,
            ],
            **_AUTH,
        },
    },
    "translation": {
        "ttl": 1800,
        "features": {
            "translation_state": [
                "source_lang", "target_lang", "language_pair", "input_text", "partner_message", "context_info",
                "translation_context",
            ],
            "engine_selection": ["analysis_engine", "translation_engine"],
            "usage_tracking": ["usage_count", "last_usage_date"],
            "analysis_cache": ["gemini_3way_analysis", "analysis_result"],
        },
    },
    "ui": {
        "ttl": 86400,
        "features": {
            "language_preference": ["lang", "preferred_lang", "temp_lang_override"],
            "ui_settings": ["theme"],
            "statistics": ["avg_rating", "bookmarked_count"],
            "flash_messages": ["_flashes"],
            "csrf_cookie": ["fs_cc"],
            "temporary_data": ["next"],
        },
    },
    "data": _DATA,
}  # fmt: skip
"""The table of LangPont, a site that translates: preset ``langpont``."""

DEFAULT_USER_KEYS = ("_user_id", "user_id", "username", "user", "oidc_auth_token")
"""The last two are dicts: what Authlib calls ``userinfo``, and the token of flask-oidc."""

_RIGHTS = (
    *("logged_in", "authenticated", "_fresh", "last_authenticated", "identity.*", "oidc_auth_token", "*_oauth_token"),
)
"""Flask-pyoidc takes a session with ``last_authenticated`` for signed in. The token of flask-oidc is both: one that is
refreshed names no user, and is a change of what its user may do."""


USUAL_PRIORITIES: Mapping[str, str] = {
    "translation_state": "high",
    "engine_selection": "high",
    "usage_tracking": "high",
    "flash_messages": "high",
    "csrf_cookie": "high",
    "other": "high",
    "language": "high",
    "theme": "high",
    "language_preference": "medium",
    "ui_settings": "medium",
    "statistics": "medium",
    "analysis_cache": "low",
    "temporary_data": "low",
    "next_page": "low",
}
"""Feature outside of auth → its priority, in each table that has it."""


class Preset(NamedTuple):
    """A table to begin with.

    :param categories: the default of ``CATEGORIES``.
    :param privilege_keys: the default of ``PRIVILEGE_KEYS``.
    """

    categories: Mapping[str, Mapping[str, Any]]
    privilege_keys: tuple[str, ...]


PRESETS: Mapping[str, Preset] = {
    "langpont": Preset(
        DEFAULT_CATEGORIES,
        ("user_role", "account_type", "early_access", *_RIGHTS),
    ),
    "application": Preset(
        {
            "auth": {
                "ttl": None,
                "features": {
                    "authentication": [
                        "logged_in", "authenticated", "user_id", "username", "user_role", "role", "roles", "is_admin",
                        *_EXTENSIONS,
                    ],
                    **_AUTH,
                },
            },
            "ui": {
                "ttl": 86400,
                "features": {
                    "language": ["lang", "language", "locale"],
                    "theme": ["theme"],
                    "flash_messages": ["_flashes"],
                    "csrf_cookie": ["fs_cc"],
                    "next_page": ["next"],
                },
            },
            "data": _DATA,
        },
        ("user_role", "role", "roles", "is_admin", *_RIGHTS),
    ),
}  # fmt: skip
