"""Sealed entries and copies of a host, compared by their text. That a sealed journal is a journal is shown by
``tests/unit/stores/host/``.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.policy.changes import Basis
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.stores.host.journal import Carry, Journal, journal_at
from tests.support.codecs import OTHER_KEY, sealing
from tests.support.entries import value
from tests.support.journals import ref

DIGEST, ANOTHER = "h" * 43, "i" * 43
MARKER = b'"marzipan"'
codec = sealing("ui")


@pytest.fixture
def journal(path: Path) -> Journal:
    """Return a journal in a file."""
    return journal_at(path, codec=codec)


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())


def read_from_a_store(text: bytes = MARKER, digest: str = DIGEST) -> bytes:
    return codec.value_from_store(digest, "ui", "lang", codec.value_to_store(digest, "ui", "lang", text))


def test_what_waits_is_sealed(journal: Journal, path: Path) -> None:
    """The value, and the one that it was made from; both come back, and what a store has of them."""
    base = read_from_a_store()
    journal.put([value(DIGEST, "lang", MARKER, basis=Basis.SEEN, base=base), value(DIGEST, "theme", None)])
    assert b"marzipan" not in on_disk(path)
    assert journal.overlay(ref(DIGEST)).writes == {"ui": {"lang": MARKER, "theme": None}}
    entry, deletion = journal.pending_writes()
    assert (entry.value, entry.base, deletion.value) == (MARKER, MARKER, None)
    assert entry.base is not None
    assert codec.base_to_store(DIGEST, "ui", "lang", entry.base) == codec.base_to_store(DIGEST, "ui", "lang", base)


def test_copies_are_sealed(journal: Journal, path: Path) -> None:
    """The workers of the host get the copies as they were published."""
    copy = CategoryCopy(7, {"lang": MARKER})
    journal.board.publish_copies([SharedCopy(DIGEST, "ui", copy, kind="u")])
    journal.put([value(ANOTHER, "lang", MARKER)], [SharedCopy(ANOTHER, "ui", copy)])
    assert b"marzipan" not in on_disk(path)
    assert journal.overlay(ref(DIGEST)).copies["ui"] == copy
    assert [shared.copy for shared in journal.board.shared_copies().values()] == [copy._replace(began=copy.version)] * 2


def test_what_waits_goes_along_to_another_id(journal: Journal, path: Path) -> None:
    """It is sealed for that one, and as what is brought there by Redis' own record."""
    base = read_from_a_store()
    journal.put([value(DIGEST, "lang", b'"new"', kind="a", basis=Basis.SEEN, base=base)])
    journal.carry(
        Carry(DIGEST, ANOTHER, "u", ["ui"]), lambda: [SharedCopy(ANOTHER, "ui", CategoryCopy(7, {"lang": base}))]
    )
    assert journal.overlay(ref(DIGEST)).writes == {}
    assert journal.overlay(ref(ANOTHER)).writes == {"ui": {"lang": b'"new"'}}
    [entry] = journal.pending_writes()
    assert (entry.digest, entry.kind, entry.value, entry.base) == (ANOTHER, "u", b'"new"', MARKER)
    assert entry.base is not None
    assert codec.base_to_store(ANOTHER, "ui", "lang", entry.base) == codec.value_to_store(ANOTHER, "ui", "lang", base)
    assert journal.overlay(ref(ANOTHER)).copies["ui"].fields == {"lang": MARKER}
    assert b"marzipan" not in on_disk(path)


def test_what_is_made_of_a_value_that_waits_takes_its_place(journal: Journal) -> None:
    """A guess that was made from it has seen it, by its text; one that was made from another value has not."""
    journal.put([value(DIGEST, "lang", MARKER, basis=Basis.UNSEEN)])
    shown = journal.overlay(ref(DIGEST)).writes["ui"]["lang"]
    assert journal.put([value(DIGEST, "lang", b'"on"', basis=Basis.UNSEEN, base=shown)]) == []
    assert len(journal.put([value(DIGEST, "lang", b'"no"', basis=Basis.UNSEEN, base=b'"other"')])) == 1
    assert journal.overlay(ref(DIGEST)).writes["ui"]["lang"] == b'"on"'


def test_a_value_that_lost_against_a_copy_goes(journal: Journal) -> None:
    """If the copy has what it was made from, it stays."""
    base = read_from_a_store()
    for digest, found, stays in ((DIGEST, base, True), (ANOTHER, b'"newer"', False)):
        was = base if digest == DIGEST else read_from_a_store(digest=digest)
        journal.put([value(digest, "lang", b'"mine"', basis=Basis.SEEN, moment=1, base=was)])
        journal.board.publish_copies([SharedCopy(digest, "ui", CategoryCopy(7, {"lang": found}))])
        assert ("ui" in journal.overlay(ref(digest)).writes) is stays


@pytest.mark.parametrize(
    "forged",
    [
        MARKER,
        b"",
        "text",
        7,
        pytest.param(codec.value_to_store(ANOTHER, "ui", "lang", MARKER), id="of another session"),
    ],
)
def test_what_was_put_there_is_removed(
    journal: Journal, path: Path, caplog: pytest.LogCaptureFixture, forged: Any
) -> None:
    """No request sees it, no store gets it, the log says so, and it is counted (D34); what waits besides is merged."""
    counted: list[str] = []
    journal.on_damaged = counted.append
    journal.put([value(DIGEST, "lang", MARKER), value(DIGEST, "theme", b'"dark"')])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE writes SET value = ? WHERE field = 'lang'", (forged,))
    db.close()
    assert journal.overlay(ref(DIGEST)).writes == {"ui": {"theme": b'"dark"'}}
    with caplog.at_level(logging.ERROR):
        assert [entry.field for entry in journal.pending_writes()] == ["theme"]
    assert "1 entries of the journal cannot be decrypted" in caplog.text
    assert counted == ["ui"]
    assert journal.counts()["writes"] == 1


def test_what_waits_under_a_key_that_is_not_there_stays(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another worker has been given the new key already, or this one has lost an old key too early."""
    journal_at(path, codec=sealing("ui", key=OTHER_KEY)).put([value(DIGEST, "lang", MARKER)])
    journal = journal_at(path, codec=codec)
    journal.put([value(DIGEST, "theme", b'"dark"')])
    assert [(entry.field, journal.can_read(entry)) for entry in journal.pending_writes()] == [
        ("lang", False),
        ("theme", True),
    ]
    assert journal.overlay(ref(DIGEST)).writes == {"ui": {"theme": b'"dark"'}}
    assert journal.counts()["writes"] == 2
    assert "ENCRYPTION_KEYS" in caplog.text


def test_a_copy_that_was_put_there_is_damaged(journal: Journal, path: Path) -> None:
    """A copy of another session, under this one's name."""
    journal.board.publish_copies([SharedCopy(DIGEST, "ui", CategoryCopy(7, {"lang": MARKER}))])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE copies SET digest = ?", (ANOTHER,))
    db.close()
    assert codec.is_damaged(journal.overlay(ref(ANOTHER)).copies["ui"].fields["lang"])


def test_what_was_merged_is_what_the_next_value_was_made_from(journal: Journal) -> None:
    """Written again while it was sent: its base is what Redis has now, as text."""
    base = read_from_a_store()
    journal.put([value(DIGEST, "lang", b'"one"', basis=Basis.SEEN, moment=5, base=base)])
    [first] = journal.pending_writes()
    shown = journal.overlay(ref(DIGEST)).writes["ui"]["lang"]
    journal.put([value(DIGEST, "lang", b'"two"', basis=Basis.SEEN, moment=5, base=shown)])
    journal.forget_writes([first], applied=[first])
    [second] = journal.pending_writes()
    assert (second.value, second.base) == (b'"two"', b'"one"')
    assert first.value is not None and second.base is not None
    place = DIGEST, "ui", "lang"
    assert codec.base_to_store(*place, second.base) == codec.value_to_store(*place, first.value)
