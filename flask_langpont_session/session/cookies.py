"""The signed cookie: session id, kind, permanent flag, time of issue and the key of its CSRF token, in and out.

The cookie is all the browser ever holds. A forged one costs a signature check and nothing else: no store is asked
about an id that we did not sign. The value is ``<sid>.<kind><p>.<time>.<key>.<signature>``, 106 characters.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from itsdangerous import Signer, want_bytes

ANONYMOUS, SIGNED_IN = "a", "u"
SID_BYTES = 32
"""256 random bits: ASVS 7.2.3 asks for 128, and nobody guesses or collides with 256."""

_SHAPE = re.compile(r"[\w-]{43}\.[au][ps]\.[0-9a-f]{8}\.[\w-]{6}\.[\w-]{43}", re.ASCII)
"""What does not look like this is not ours, and its signature is not even checked."""

_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")

_MOST_VERIFIED = 4096
"""Cookies whose signature is remembered as good, per set of keys: a browser sends the same one with every request."""

_SALT = "flask-langpont-session.cookie"
_DIGEST_PREFIX = b"flask-langpont-session\0"
_CSRF = b"csrf"
_KEY_NAME, _KEY_NAME_LENGTH = b"flask-langpont-session.key", 6


def digest_of(sid: str) -> str:
    """The only form in which a session id is stored, logged (shortened) or shown: 43 characters of SHA-256.

    256 random bits need no key, so that no key rotation can lose them.
    """
    return _base64(hashlib.sha256(_DIGEST_PREFIX + sid.encode()).digest())


def is_digest(text: str) -> bool:
    """Whether this has the form of a digest."""
    return bool(_DIGEST.fullmatch(text))


@dataclass(frozen=True, slots=True)
class SessionId:
    """A session id with what the signed cookie says of it.

    :param sid: the secret token.
    :param kind: ``a`` anonymous or ``u`` signed in; never changes for a sid.
    :param permanent: whether the browser keeps the cookie when it is closed.
    :param issued_at: seconds since 1970, by the clock of the host that signed it.
    :param secret: the secret key from which the CSRF token is derived: the newest one of when the id was made. Another
        may have signed the cookie since.
    """

    sid: str = field(repr=False)
    kind: str
    permanent: bool
    issued_at: int
    secret: bytes = field(repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.sid))

    def csrf_token(self, *, shadow: bool = False) -> str:
        """The session's CSRF token. That of a shadow is another one, so that forms of a dead session are dead."""
        message = _CSRF + (b"-shadow" if shadow else b"") + self.sid.encode()
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()


class CookieSigner:
    """Signs and reads cookies with the application's secret keys.

    :param keys: the newest first; the first signs, all verify.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self._verified: dict[str, SessionId] = {}
        self._signers = [(want_bytes(key), _make_signer(key)) for key in keys]
        self._named = {_name_of(key): key for key, _ in self._signers}

    def mint(self, kind: str, *, permanent: bool, now: float) -> SessionId:
        """A new session id of one kind."""
        sid = _base64(secrets.token_bytes(SID_BYTES))
        return SessionId(sid, kind, permanent, int(now), self._signers[0][0])

    def dump(self, session_id: SessionId) -> str:
        """The value to send, signed by the newest key. The CSRF token stays what it is, whichever key that was."""
        flags = session_id.kind + ("p" if session_id.permanent else "s")
        payload = f"{session_id.sid}.{flags}.{session_id.issued_at:08x}.{_name_of(session_id.secret)}"
        return self._signers[0][1].sign(payload).decode("ascii")

    def load(self, values: Iterable[str]) -> SessionId | None:
        """The first value with a good signature; None when there is none. Never raises."""
        return next(filter(None, map(self._load_one, values)), None)

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
        for key, signer in self._signers:
            payload, _, signature = value.rpartition(".")
            if signer.verify_signature(payload.encode("ascii"), signature):
                sid, flags, issued, name = payload.split(".")
                # Where the key of the token is gone, the one that signed the cookie is known for as long as the cookie.
                return SessionId(sid, flags[0], flags[1] == "p", int(issued, 16), self._named.get(name, key))
        return None


def _make_signer(key: str | bytes) -> Signer:
    """A signer whose key is derived here, once, instead of at every signature."""
    derived = Signer(key, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256).derive_key()
    return Signer(derived, salt=_SALT, key_derivation="none", digest_method=hashlib.sha256)


def _name_of(key: bytes) -> str:
    """By what a cookie names a key. It tells no more of the key than the signature does."""
    return _base64(hmac.new(key, _KEY_NAME, hashlib.sha256).digest())[:_KEY_NAME_LENGTH]


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


@lru_cache(maxsize=64)
def _cached_signer(keys: tuple[str | bytes, ...]) -> CookieSigner:
    return CookieSigner(keys)


def signer_for(secret_key: str | bytes, fallbacks: Sequence[str | bytes] | None) -> CookieSigner:
    """The signer for an application's present keys. Flask's keys are read live, making a signer is not free."""
    return _cached_signer((secret_key, *(fallbacks or ())))
