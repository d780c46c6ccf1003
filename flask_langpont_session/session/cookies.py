"""The signed cookie: session id, kind, permanent flag, time of issue and the key of its CSRF token, in and out.

The cookie is all the browser ever holds. A forged one costs a signature check and nothing else: no store is asked
about an id that we did not sign. The value is ``<sid>.<kind><p>.<time>.<key>.<signature>``, 106 characters.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..policy.ids import SessionId, base64url

SID_BYTES = 32
"""256 random bits: ASVS 7.2.3 asks for 128, and 256 are neither guessed nor made twice."""

_SHAPE = re.compile(r"[\w-]{43}\.[au][ps]\.[0-9a-f]{8}\.[\w-]{6}\.[\w-]{43}", re.ASCII)
"""The form of our cookies. The signature of any other text is not even checked."""

_MOST_VERIFIED = 4096
"""Cookies whose signature is remembered as good, per set of keys: a browser sends the same one with every request."""

_LONGEST_HEADER = 1024
"""Characters of a Cookie header up to which it is remembered what it leads to."""

_SALT = b"flask-langpont-session.cookie"
_KEY_NAME, _KEY_NAME_LENGTH = b"flask-langpont-session.key", 6


class CookieSigner:
    """Signs and reads cookies with the application's secret keys.

    :param keys: the newest first; the first signs, all verify.
    :ivar known: name of a cookie → whole Cookie header → the id that it leads to, as far as it is remembered: a browser
        sends the same header with every request.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self._verified: dict[str, SessionId] = {}
        self.known: defaultdict[str, dict[str, SessionId]] = defaultdict(dict)
        self._keys = [key if isinstance(key, bytes) else key.encode() for key in keys]
        self._sign_with = [_hmac(key, _SALT) for key in self._keys]  # derived once, instead of at every signature
        self._named = {_name_of(key): key for key in self._keys}

    def mint(self, kind: str, *, permanent: bool, now: float) -> SessionId:
        """Return a new session id of one kind."""
        sid = base64url(secrets.token_bytes(SID_BYTES))
        return SessionId(sid, kind, permanent, int(now), self._keys[0])

    def dump(self, session_id: SessionId, permanent: bool | None = None, now: float | None = None) -> str:
        """Return the cookie's value, signed by the newest key. The CSRF token stays the same, whichever key it was
        derived from.

        :param permanent: whether the browser keeps it; `now`: when it is sent, seconds since 1970. None: as it says.
        """
        flag = "p" if (session_id.permanent if permanent is None else permanent) else "s"
        issued_at = session_id.issued_at if now is None else int(now)
        payload = f"{session_id.sid}.{session_id.kind}{flag}.{issued_at:08x}.{_name_of(session_id.secret)}"
        return f"{payload}.{_signature(self._sign_with[0], payload)}"

    def load(self, values: Iterable[str]) -> SessionId | None:
        """Return the id in the first value with a good signature; None: no value has one. Never raises."""
        return next(filter(None, map(self._load_one, values)), None)

    def remember(self, name: str, header: str, found: SessionId) -> None:
        """Remember the id that a Cookie header leads to: the header has just one cookie of this name, with a good
        signature. If it has no other cookie, which change more often, the value need not be remembered as well."""
        if len(header) <= _LONGEST_HEADER:
            headers = self.known[name]
            if len(headers) >= _MOST_VERIFIED:
                headers.clear()
            headers[header] = found
            if ";" not in header:
                self._verified.pop(header.removeprefix(f"{name}="), None)

    def _load_one(self, value: str) -> SessionId | None:
        known = self._verified.get(value)
        if known is None:
            known = self._verify(value)
            if known is not None:
                if len(self._verified) >= _MOST_VERIFIED:
                    self._verified.clear()
                self._verified[value] = known
        return known

    def _verify(self, value: str) -> SessionId | None:
        if not _SHAPE.fullmatch(value):
            return None
        payload, _, signature = value.rpartition(".")
        for key, derived in zip(self._keys, self._sign_with, strict=True):
            if hmac.compare_digest(_signature(derived, payload), signature):
                sid, flags, issued, name = payload.split(".")
                # Where the key of the token is gone, the one that signed the cookie is known for as long as the cookie.
                return SessionId(sid, flags[0], flags[1] == "p", int(issued, 16), self._named.get(name, key))
        return None


def refusal_of(values: Iterable[str]) -> str:
    """Return why a browser's values are refused: ``signature``, if one has the form of our cookies, else ``form``."""
    return "signature" if any(map(_SHAPE.fullmatch, values)) else "form"


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _signature(derived: bytes, payload: str) -> str:
    """Return the signature as itsdangerous makes it."""
    return base64url(_hmac(derived, payload.encode("ascii")))


@lru_cache(maxsize=64)
def _name_of(key: bytes) -> str:
    """Return the name by which a cookie refers to a key. It tells no more of the key than the signature does."""
    return base64url(_hmac(key, _KEY_NAME))[:_KEY_NAME_LENGTH]


@lru_cache(maxsize=64)
def _cached_signer(keys: tuple[str | bytes, ...]) -> CookieSigner:
    return CookieSigner(keys)


def signer_for(secret_key: str | bytes, fallbacks: Sequence[str | bytes] | None) -> CookieSigner:
    """Return the signer for an application's present keys. Flask's keys are read live, but making a signer is not
    free."""
    return _cached_signer((secret_key, *(fallbacks or ())))
