"""A value can be opened where it was put, by a key of the list, and nowhere else."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from flask_langpont_session.exceptions import UnreadableValue
from flask_langpont_session.stores.codec.cipher import Cipher
from flask_langpont_session.stores.codec.keys import key_id

NEW, OLD, STRANGE = bytes(range(200, 232)), bytes(range(100, 132)), bytes(range(60, 92))
DIGEST, ANOTHER = "h" * 43, "i" * 43
PLACE = DIGEST, "ui", "lang"
TEXT = b'"ja"'

cipher = Cipher([NEW, OLD])


def test_known_answer() -> None:
    """The format is for ever: what was stored before an upgrade is opened after it."""
    fixed = Cipher([NEW], random=lambda size: bytes(range(size)))
    sealed = fixed.seal(*PLACE, TEXT, 7)
    assert sealed.hex() == KNOWN
    assert fixed.open(*PLACE, bytes.fromhex(KNOWN), 7) == TEXT


KNOWN = "a15656000102030405060708090a0bca8ff4b6dae41ea7d61310652ee57dc21094abc3"


def test_it_is_what_the_page_says() -> None:
    """HKDF-Expand for the key of the session, AES-256-GCM, the place as associated data: made here with the library's
    own parts."""
    sealed = cipher.seal(*PLACE, TEXT, 7)
    info = b"flask-langpont-session values\0" + DIGEST.encode()
    of_session = HKDFExpand(SHA256(), 32, info).derive(NEW)
    associated = sealed[:3] + f"{DIGEST}\0ui\x007\0lang".encode()
    assert sealed[:1] == b"\xa1" and sealed[1:3] == key_id(NEW)
    assert AESGCM(of_session).decrypt(sealed[3:15], sealed[15:], associated) == TEXT


@pytest.mark.parametrize(
    "moved",
    [
        (ANOTHER, "ui", "lang", 3),
        (DIGEST, "auth", "lang", 3),
        (DIGEST, "ui", "theme", 3),
        (DIGEST, "ui", "lang", 4),
        (DIGEST, "ui", "lang", 0),
        (DIGEST, "ui", "lang ", 3),
        (DIGEST, "u", "ilang", 3),
    ],
)
def test_a_value_that_was_moved_is_refused(moved: tuple[str, str, str, int]) -> None:
    """A value opens for no other session, category, field or version."""
    sealed = cipher.seal(*PLACE, TEXT, 3)
    with pytest.raises(UnreadableValue):
        cipher.open(*moved[:3], sealed, moved[3])
    assert cipher.open(*PLACE, sealed, 3) == TEXT


@given(st.data())
def test_places_are_never_taken_for_each_other(data: st.DataObject) -> None:
    """Places differ whatever a field is called."""
    names = st.sampled_from(["a", "b", "ab", "a\0b", "0", "\0", "1\0a", ""])
    plain = st.sampled_from(["a", "b", "ab", "0"])
    one, two = (data.draw(st.tuples(plain, plain, names, st.integers(0, 2))) for _ in range(2))
    sealed = cipher.seal(*one[:3], TEXT, one[3])
    if one == two:
        assert cipher.open(*two[:3], sealed, two[3]) == TEXT
    else:
        with pytest.raises(UnreadableValue):
            cipher.open(*two[:3], sealed, two[3])


def test_every_bit_counts() -> None:
    """A change of any bit of the head, the nonce, the text or the tag is noticed."""
    sealed = cipher.seal(*PLACE, TEXT)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnreadableValue):
            cipher.open(*PLACE, bytes(changed))


def test_what_is_cut_off_is_refused() -> None:
    """A value that was cut off at any place is refused, and so is one that has more behind it."""
    sealed = cipher.seal(*PLACE, TEXT)
    for size in range(len(sealed)):
        with pytest.raises(UnreadableValue):
            cipher.open(*PLACE, sealed[:size])
    with pytest.raises(UnreadableValue):
        cipher.open(*PLACE, sealed + b"\0")
    with pytest.raises(UnreadableValue, match="not encrypted"):
        cipher.open(*PLACE, TEXT)


def test_keys_are_exchanged_without_a_loss() -> None:
    """The new one seals, the old one opens what it has sealed, until it is taken out of the list."""
    before = Cipher([OLD]).seal(*PLACE, TEXT)
    during = cipher.seal(*PLACE, TEXT)
    assert cipher.open(*PLACE, before) == cipher.open(*PLACE, during) == TEXT
    assert during[1:3] == key_id(NEW)
    prepared = Cipher([OLD, NEW])  # of hosts that have the new one, and do not seal with it yet
    assert prepared.open(*PLACE, during) == TEXT
    assert prepared.seal(*PLACE, TEXT)[1:3] == key_id(OLD)
    after = Cipher([NEW])
    assert after.open(*PLACE, during) == TEXT
    for other in (after, Cipher([STRANGE])):
        with pytest.raises(UnreadableValue, match="a key that is not in ENCRYPTION_KEYS"):
            other.open(*PLACE, before)


def test_a_key_with_the_same_id_does_not_open() -> None:
    """The id says where to look, and proves nothing."""
    sealed = Cipher([OLD]).seal(*PLACE, TEXT)
    with pytest.raises(UnreadableValue, match="damaged, or encrypted for another"):
        cipher.open(*PLACE, b"\xa1" + key_id(NEW) + sealed[3:])


def test_sessions_do_not_share_a_key() -> None:
    """The same nonce in two sessions shows nothing: the key streams are different."""
    fixed = Cipher([NEW], random=lambda size: bytes(size))
    one, two = (fixed.seal(digest, "ui", "lang", bytes(32)) for digest in (DIGEST, ANOTHER))
    assert one[:15] == two[:15] and one[15:47] != two[15:47]


def test_what_is_brought_to_another_id_is_the_same_whichever_worker_brings_it() -> None:
    """A journal's entry and a record that were brought there apart can be compared. Nothing else has this nonce."""
    before = cipher.seal(*PLACE, TEXT)
    there = ANOTHER, "ui", "lang"
    first = cipher.seal_again(*there, TEXT, before=before)
    assert first == Cipher([NEW, OLD]).seal_again(*there, TEXT, before=before)
    assert cipher.open(*there, first) == TEXT
    others = [
        cipher.seal_again(*there, TEXT, before=cipher.seal(*PLACE, TEXT)),
        cipher.seal_again(ANOTHER, "ui", "theme", TEXT, before=before),
        cipher.seal_again(*there, TEXT, 1, before=before),
        cipher.seal_again(*PLACE, TEXT, before=before),
    ]
    assert len({text[3:15] for text in (first, before, *others)}) == 6


def test_no_key_is_shown() -> None:
    """Neither the cipher nor an error shows a key."""
    shown = repr(cipher) + str(vars(cipher)["_of_session"])
    sealed = cipher.seal(*PLACE, TEXT)
    with pytest.raises(UnreadableValue) as caught:
        cipher.open(*PLACE, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    shown += repr(caught.value) + str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "<Cipher with 2 keys>" in shown
    assert not any(form in shown for form in (NEW.hex(), repr(NEW)[2:-1], OLD.hex(), TEXT.decode()))


@pytest.mark.parametrize("keys", [[], [b"short"], [NEW, bytes(16)]])
def test_a_key_of_another_length_is_no_key(keys: list[bytes]) -> None:
    """AES-128 is never used by mistake."""
    with pytest.raises(ValueError, match="keys of 32 bytes"):
        Cipher(keys)


def test_threads_share_one() -> None:
    """Each of many sessions at once gets back what it has put."""

    def work(seed: int) -> bool:
        chance, is_well = random.Random(seed), True
        for _ in range(500):
            place, value = (f"{chance.randrange(5000):043}", "ui", "lang"), chance.randbytes(20)
            is_well = is_well and cipher.open(*place, cipher.seal(*place, value)) == value
        return is_well

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
