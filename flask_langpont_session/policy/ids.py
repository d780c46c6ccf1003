"""The names of a session: the secret id in the cookie, its digest everywhere else, and its kind."""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_base64
from dataclasses import dataclass, field

ANONYMOUS, SIGNED_IN = "a", "u"
"""The two kinds of session; that of an id never changes."""

_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_DIGEST_PREFIX = b"flask-langpont-session\0"
_CSRF = b"csrf"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def digest_of(sid: str) -> str:
    """Return the only form in which a session id is stored, logged (shortened) or shown: 43 characters of SHA-256.

    256 random bits need no key, so that no key rotation can lose them.
    """
    return base64url(hashlib.sha256(_DIGEST_PREFIX + sid.encode()).digest())


def is_digest(text: str) -> bool:
    """Return whether a text has the form of a digest."""
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

    @classmethod
    def without_secret(cls, digest: str, kind: str, *, permanent: bool) -> SessionId:
        """Return the name of a session for work on its records; no cookie and no token can be made of it."""
        found = cls("", kind, permanent, 0, b"")
        object.__setattr__(found, "digest", digest)
        return found

    def csrf_token(self, *, shadow: bool = False) -> str:
        """Return the session's CSRF token. A shadow has another one: forms of a dead session are dead."""
        message = _CSRF + (b"-shadow" if shadow else b"") + self.sid.encode()
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()


def base64url(raw: bytes) -> str:
    """Return bytes as base64 of letters, digits, ``-`` and ``_``; no padding."""
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=").decode("ascii")
