"""The signed cookie."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode

import pytest

from flask_langpont_session import cookies
from flask_langpont_session.cookies import CookieSigner, SessionId

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


def test_a_key_that_was_rotated_out_still_verifies_until_it_is_removed() -> None:
    """Sessions survive a rotation once, and die when the old key is dropped."""
    value = CookieSigner([OLD_KEY]).dump(mint(CookieSigner([OLD_KEY])))
    rotated = CookieSigner([KEY, OLD_KEY]).load([value])
    assert rotated is not None
    assert rotated.secret == OLD_KEY.encode()
    assert CookieSigner([KEY]).load([value]) is None


def test_the_csrf_token_outlives_a_rotation_and_belongs_to_one_session(signer: CookieSigner) -> None:
    """It derives from the key that verified the cookie and from nothing but the id."""
    old = CookieSigner([OLD_KEY])
    made = mint(old)
    found = signer.load([old.dump(made)])
    assert found is not None
    assert found.csrf_token() == made.csrf_token()
    assert mint(signer).csrf_token() != made.csrf_token()
    assert made.csrf_token(shadow=True) != made.csrf_token()


def forged(signer: CookieSigner) -> list[str]:
    good = signer.dump(mint(signer))
    sid, flags, time, signature = good.split(".")
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
        good + good,
        f"{sid}.us.{time}.{signature}"[::-1],
        f"{sid}.as.{time}.{signature}",
        f"{sid}.up.{time}.{signature}",
        f"{'-' if sid[0] != '-' else 'A'}{sid[1:]}.{flags}.{time}.{signature}",
        f"{sid}.{flags}.AAAAAA.{signature}",
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


def test_forged_values_are_nobody(signer: CookieSigner) -> None:
    """Whatever a browser sends: no exception, no session."""
    for value in forged(signer):
        assert signer.load([value]) is None, value[:40]


def test_a_foreign_payload_under_our_signature_is_nobody(signer: CookieSigner) -> None:
    """Another program with the same key and salt signed it; the shape is checked too."""
    for payload in ("", "x", "a.b", "A" * 43, "A" * 43 + ".xx", "A" * 43 + ".u", "A" * 42 + ".us", "." * 43 + ".us"):
        assert signer.load([signer._signers[0][1].sign(payload).decode()]) is None


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
