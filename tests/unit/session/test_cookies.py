"""The signed cookie."""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from flask_langpont_session.policy.ids import SessionId, digest_of
from flask_langpont_session.session import cookies
from flask_langpont_session.session.cookies import CookieSigner

KEY, OLD_KEY = "k" * 32, "o" * 32
NOW = 1_800_000_000


@pytest.fixture
def signer() -> CookieSigner:
    return CookieSigner([KEY, OLD_KEY])


def mint(signer: CookieSigner, kind: str = "u") -> SessionId:
    return signer.mint(kind, permanent=False, now=NOW)


@pytest.mark.parametrize("kind", ["a", "u"])
@pytest.mark.parametrize("permanent", [True, False])
def test_a_cookie_says_what_it_was_given(signer: CookieSigner, kind: str, permanent: bool) -> None:
    """Id, kind and permanent flag come back from the signed value."""
    made = signer.mint(kind, permanent=permanent, now=NOW)
    value = signer.dump(made)
    found = signer.load([value])
    assert found is not None
    assert (found.sid, found.kind, found.permanent, found.digest) == (made.sid, kind, permanent, made.digest)
    assert len(value) <= 128


def test_ids_are_256_random_bits_of_the_secrets_module(signer: CookieSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASVS 7.2.3: at least 128 bits from a CSPRNG."""
    assert len({mint(signer).sid for _ in range(10_000)}) == 10_000
    asked: list[int] = []
    monkeypatch.setattr(cookies.secrets, "token_bytes", lambda n: asked.append(n) or os.urandom(n))  # type: ignore[attr-defined,func-returns-value]
    assert len(urlsafe_b64decode(mint(signer).sid + "=")) == 32
    assert asked == [32]


def test_the_csrf_token_outlives_a_rotation_and_belongs_to_one_session(signer: CookieSigner) -> None:
    """It derives from the key that verified the cookie and from nothing but the id."""
    old = CookieSigner([OLD_KEY])
    made = mint(old)
    found = signer.load([old.dump(made)])
    assert found is not None
    assert found.csrf_token() == made.csrf_token()
    assert mint(signer).csrf_token() != made.csrf_token()
    assert made.csrf_token(shadow=True) != made.csrf_token()


def test_a_renewed_cookie_keeps_its_csrf_token() -> None:
    """Derived from the key of its beginning, whichever key signs; when that is gone, from the one that signed it."""
    made = mint(CookieSigner([OLD_KEY]))
    renewed = CookieSigner([KEY, OLD_KEY]).dump(made)
    for keys in ([KEY, OLD_KEY], [OLD_KEY, KEY], ["newest" * 8, KEY, OLD_KEY]):
        found = CookieSigner(keys).load([renewed])
        assert found is not None
        assert found.csrf_token() == made.csrf_token()
        assert CookieSigner(keys).dump(found).split(".")[3] == renewed.split(".")[3]
    for keys in ([KEY], ["newest" * 8, KEY]):
        found = CookieSigner(keys).load([renewed])
        assert found is not None
        assert found.secret == KEY.encode()
    assert CookieSigner([OLD_KEY]).load([renewed]) is None


SID = "c2Vzc2lvbi1pZC1vZi10aGUta25vd24tYW5zd2VycyE"
KNOWN = SessionId(SID, "u", True, NOW, KEY.encode())


def mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def signed(payload: str) -> str:
    return f"{payload}.{text(mac(mac(KEY.encode(), 'flask-langpont-session.cookie'), payload))}"


def test_known_answers() -> None:
    """Cookie, digest and token of an id and a key are the same for ever: a release that changed them would end every
    session."""
    value = CookieSigner([KEY, OLD_KEY]).dump(KNOWN)
    assert value == f"{SID}.up.6b49d200.H1DhJ7.7mDZUBRr82iWYSEFt-ZtbWwxwU13fba3RVAB1MLwOLE"
    assert KNOWN.digest == "D9B2WUgcHRirEbXtMXTTiw_28Mt4oWeKd3Deq9WmCiQ"
    assert KNOWN.csrf_token() == "6fd1f9c305c86b89346fc31dcff0a6b3d76a8104d4bfd232fa5fcbfba9c2a8f4"
    assert KNOWN.csrf_token(shadow=True) == "92f8bcdecb6d30ae8d6deb212b7df035ab6bf69567fabfc59b38459be5e2e275"
    assert CookieSigner([OLD_KEY]).load([value]) is None  # the newest key signed it


def test_only_so_many_good_cookies_are_remembered(signer: CookieSigner) -> None:
    """A browser's cookie is verified once, those of very many do not fill the memory, and bad ones take no room."""
    first, *others = (signer.dump(mint(signer)) for _ in range(5000))
    found = signer.load([first])
    for value in others:
        assert signer.load([f"{value[:-5]}wrong"]) is None
    assert signer.load(["bad", first[:-1], first]) is found
    for value in others:
        assert signer.load([value]) is signer.load([value])
    assert signer.load([first]) == found
    assert signer.load([first]) is not found


def forged(signer: CookieSigner) -> list[str]:
    good = signer.dump(mint(signer))
    sid, flags, time, key, signature = good.split(".")
    return [
        "",
        "x",
        good[:-1],
        good + "=",
        good + " ",
        " " + good,
        good.upper(),
        good.lower(),
        signature,
        "." + signature,
        sid,
        digest_of(sid),
        f"session:auth:{{{digest_of(sid)}}}",
        f"{digest_of(sid)}.{flags}.{time}.{key}.{signature}",
        f"{sid}.{flags}.{time}.{key}",
        f"{sid}.{flags}.{time}.{key}.{'A' * 43}",
        good.swapcase(),
        good + good,
        f"{sid}.us.{time}.{key}.{signature}"[::-1],
        f"{sid}.as.{time}.{key}.{signature}",
        f"{sid}.up.{time}.{key}.{signature}",
        f"{'-' if sid[0] != '-' else 'A'}{sid[1:]}.{flags}.{time}.{key}.{signature}",
        f"{sid}.{flags}.AAAAAA.{key}.{signature}",
        f"{sid}.{flags}.{time}.{signature}",
        f"{sid}.{flags}.{time}.AAAAAA.{signature}",
        "a\0\r\nb",
        "*",
        "[a-z]*?",
        "{x}y",
        "../../etc/passwd",
        "é" * 20,
        "😀" * 20,
        "A" * 10_000,
        "A" * 1_000_000,
        signer.dump(mint(signer)).replace(".", "|"),
        CookieSigner(["another key"]).dump(mint(signer)),
    ]


def test_forged_values_are_no_session(signer: CookieSigner) -> None:
    """No value that a browser sends raises an exception, or gives a session."""
    for value in forged(signer):
        assert signer.load([value]) is None, value[:40]


def test_a_foreign_payload_under_our_signature_is_no_session(signer: CookieSigner) -> None:
    """Another program with the same key and salt signed it; the shape is checked too."""
    assert signer.load([signed(signer.dump(mint(signer)).rpartition(".")[0])])
    for payload in ("", "x", "a.b", "A" * 43, "A" * 43 + ".xx", "A" * 43 + ".u", "A" * 42 + ".us", "." * 43 + ".us"):
        assert signer.load([signed(payload)]) is None


def test_of_several_cookies_the_first_with_a_good_signature_counts(signer: CookieSigner) -> None:
    """Cookie tossing: a planted bad value does not hide the real one."""
    first, second = mint(signer), mint(signer)
    found = signer.load(["bad", signer.dump(first), signer.dump(second)])
    assert found is not None
    assert found.sid == first.sid


def test_the_secret_does_not_show(signer: CookieSigner) -> None:
    """I14: a repr in a log gives away neither sid nor key."""
    made = mint(signer)
    assert made.sid not in repr(made)
    assert KEY not in repr(made)
