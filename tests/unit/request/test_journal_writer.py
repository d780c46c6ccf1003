"""Entries that a journal writer makes of changes, on which basis, and the warnings about a journal that refuses."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from blinker import Signal

from flask_langpont_session import events
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.metrics.reports import Reports
from flask_langpont_session.policy.changes import Basis, CategoryChange, Operation
from flask_langpont_session.policy.copies import CategoryCopy, RecordRef, SharedCopy
from flask_langpont_session.policy.ids import SessionId, digest_of
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.loaded import CategoryState, Gap, Loaded, Verdict
from flask_langpont_session.policy.plans import Plan
from flask_langpont_session.request.fallback import Fallback
from flask_langpont_session.request.journal_writer import JournalWriter, RedisTime
from flask_langpont_session.stores.host.entries import WIPED_FIELD
from flask_langpont_session.stores.host.journal import PendingWrite, journal_at
from flask_langpont_session.stores.host.limits import JournalLimits
from flask_langpont_session.stores.memory.memory import Memory
from tests.support.fakes import settings_in
from tests.support.journals import ref

SETTINGS = settings_in(Path(__file__).with_name("no-files"))
UNUSABLE = events.JournalFailed("folder is not a regular file")


class Refusing:
    """A journal writer over a journal that has no room for a copy, and what it says."""

    def __init__(self, path: Path | None) -> None:
        self.now = 1_000.0
        self.recorder = Recorder()
        self.sent: list[tuple[Signal, object]] = []
        self.journal_writer = JournalWriter(
            journal_at(path),
            cast(Any, None),  # asked for written changes only
            Reports(self.recorder, lambda signal, event: self.sent.append((signal, event)), clock=lambda: self.now),
        )

    def publish(self, version: int = 1) -> None:
        self.journal_writer.publish([SharedCopy("d", "ui", CategoryCopy(version, {}))])


@pytest.fixture
def refusing(tmp_path: Path) -> Refusing:
    """Return a journal writer whose journal cannot be used."""
    (tmp_path / "folder").mkdir()
    return Refusing(tmp_path / "folder")


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_every_failure_is_sent_and_counted(refusing: Refusing) -> None:
    """However often the journal refuses, no call fails, and each time is an event and a count."""
    for _ in range(3):
        refusing.publish()
    assert refusing.sent == [(events.journal_failed, UNUSABLE)] * 3
    assert refusing.recorder.counters() == {"journal_errors": 3}


def test_the_log_says_it_once_a_minute(refusing: Refusing, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged at once, and again only after a minute: an outage does not flood the log."""
    said = []
    for moment in (0, 1, 59.9, 60, 61, 120):
        refusing.now = 1_000.0 + moment
        refusing.publish()
        said.append(len(lines(caplog, logging.CRITICAL)))
    assert said == [1, 1, 1, 2, 2, 3]
    assert all("LANGPONT_SESSION_JOURNAL" in line for line in lines(caplog, logging.CRITICAL))


def test_one_sessions_value_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """I11: what only the data of one session is to blame for concerns no operator's disk."""
    refusing = Refusing(None)
    refusing.publish(version=2**63)
    assert refusing.sent == []
    assert refusing.recorder.counters() == {"journal_rejected": 1}
    assert lines(caplog, logging.CRITICAL) == []
    assert len(lines(caplog, logging.WARNING)) == 1


# -- what the level keeps ----------------------------------------------------------------------------------------------

DIGEST, OTHER = digest_of("d"), digest_of("e")
NOW_US = 1_795_782_953_000_000
SECOND_US = 1_000_000


def sid(name: str, kind: str = "a") -> SessionId:
    return SessionId(name, kind, permanent=False, issued_at=0, secret=b"x")


class Desk:
    """A journal writer over an empty journal, with the table as it is by default."""

    def __init__(self, max_entries: int = 100, is_in_development: bool = False) -> None:
        self.recorder = Recorder()
        self.events: list[object] = []
        self.journal = journal_at(None, limits=JournalLimits(entries=max_entries))
        self.journal_writer = JournalWriter(
            self.journal,
            Fallback(SETTINGS, Memory(ttl=60), self.journal.board.register),
            Reports(self.recorder, lambda signal, event: self.events.append(event), raises=lambda: is_in_development),
        )
        self.loaded = Loaded(Verdict.ANONYMOUS)

    def keep(self, level: int, change: CategoryChange, category: str = "translation", **more: Any) -> bool:
        target = sid(more.pop("id", "d"), more.pop("kind", "a"))
        shadow = more.pop("shadow", False)
        keeping = {name: more.pop(name) for name in ("doubt", "sent_us") if name in more}
        saying = {"origin": target, "target": target, "life": Life(1, 1), "loaded": self.loaded, **more}
        plan = Plan(**saying, level=level)
        ref, now = (
            RecordRef(target.digest, "a" if shadow else target.kind, shadow),
            RedisTime(NOW_US - SECOND_US, NOW_US),
        )
        return self.journal_writer.keep(plan, ref, {category: change}, now, **keeping)

    def carry(self, *categories: str) -> bool:
        """Carry categories from the id ``e`` to the id ``d``."""
        plan = Plan(sid("e"), sid("d"), Life(1, 1), 0, loaded=self.loaded, carries=categories)
        return self.journal_writer.carry(plan, NOW_US)

    def kept(self) -> list[PendingWrite]:
        return [replace(entry, seq=0, at_ms=0) for entry in self.journal.pending_writes()]

    def losses(self) -> dict[tuple[str, str, str], int]:
        counted = {(what, cause, name): count for (what, cause, name), count in self.recorder.losses().items()}
        sent = [event for event in self.events if isinstance(event, events.WritesNotKept)]
        assert counted == {(event.what, event.cause, event.category): event.count for event in sent} or len(sent) > 1
        assert sum(event.count for event in sent) == sum(counted.values())
        return counted


@pytest.fixture
def desk() -> Desk:
    return Desk()


def sets(*keys: str) -> CategoryChange:
    return CategoryChange(1, sets=dict.fromkeys(keys, b"1"))


KEYS = {
    # key: category, kind, levels at which it is kept
    "input_text": ("translation", "a", {0, 1, 2}),  # high
    "source_lang": ("translation", "u", {0, 1, 2}),
    "analysis_result": ("translation", "a", {0}),  # low
    "lang": ("ui", "u", {0}),  # medium
    "next": ("ui", "a", {0}),  # low
    "daily_limit": ("auth", "u", {0, 1, 2, 3, 4}),
    "username": ("auth", "a", {0, 1, 2}),  # of a visitor it has no row: it counts as high
}


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("key", KEYS)
def test_a_change_is_kept_as_the_table_says_for_the_level(key: str, level: int) -> None:
    """D1, I19: levels 3 and 4 keep data for the request only, at level 0 all of it waits for its turn. What is not kept
    is counted, be it a value, a deletion or an addition."""
    category, kind, levels = KEYS[key]
    for how in ({"sets": {key: b"1"}}, {"deletes": {key}}, {"increments": {key: 1}}):
        desk, change = Desk(), CategoryChange(1, **how)
        assert desk.keep(level, change, category, kind=kind) is (level in levels)
        assert [entry.field for entry in desk.kept()] == ([key] if level in levels else [])
        lost = {("request_only_writes", f"level {level}", category): 1}
        assert desk.losses() == ({} if level in levels else lost)


@pytest.mark.parametrize("level", range(5))
def test_a_wipe_is_kept_at_every_level(desk: Desk, level: int) -> None:
    """I20: and what the level keeps behind it."""
    change = sets("input_text", "analysis_result")
    change.wipe = True
    assert desk.keep(level, change)
    fields = [WIPED_FIELD, *(["input_text"] if level <= 2 else []), *(["analysis_result"] if level == 0 else [])]
    assert [entry.field for entry in desk.kept()] == fields
    assert desk.kept()[0].operation is Operation.WIPE


def test_that_nothing_is_stored_under_a_new_id_is_known_as_of_before_any_write(desk: Desk) -> None:
    """Redis' clock is known but for the time that its last answer took. In that time another worker may write under the
    id, of which the browser has just been told."""
    assert desk.keep(0, sets("theme"), "ui", origin=sid("e"))
    board = desk.journal.board
    [empty] = [copy for copy in board.shared_copies().values() if copy.category == "translation"]
    assert (empty.digest, empty.copy.fields) == (sid("d").digest, {})
    board.register.note_version(empty.digest, "translation", NOW_US - SECOND_US // 2)
    assert board.register.is_outdated(empty.digest, "translation", empty.copy.version)


def test_one_change_is_kept_in_part(desk: Desk) -> None:
    """Each key by its feature, the count by category."""
    assert desk.keep(2, sets("input_text", "analysis_result", "gemini_3way_analysis"))
    assert [entry.field for entry in desk.kept()] == ["input_text"]
    assert desk.losses() == {("request_only_writes", "level 2", "translation"): 2}


@pytest.mark.parametrize(("is_in_development", "named"), [(True, ["lang", "theme"]), (False, [])])
def test_a_dropped_write_is_said_once_per_key_in_development(
    is_in_development: bool, named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With the cure. A change that is kept is not named."""
    desk = Desk(is_in_development=is_in_development)
    for _ in range(2):
        desk.keep(2, sets("lang", "theme"), "ui")
        desk.keep(2, sets("input_text"))
    said = [record for record in caplog.records if vars(record)["langpont_event"] == "write_dropped"]
    assert sorted(vars(record)["langpont_key"] for record in said) == named
    for record in said:
        assert "level 2" in record.getMessage() and "LANGPONT_SESSION_FEATURES" in record.getMessage()
    assert sum(desk.losses().values()) == 4


# -- what a value was made from ----------------------------------------------------------------------------------------


def changed(key: str, *, seen: bool = False, unseen: bool = False, **more: Any) -> CategoryChange:
    return CategoryChange(1, sets={key: b"2"}, seen={key} if seen else set(), unseen={key} if unseen else set(), **more)


@pytest.mark.parametrize(
    ("change", "basis", "moment", "base"),
    [
        (changed("input_text"), Basis.BLIND, NOW_US, None),
        (changed("input_text", seen=True), Basis.SEEN, 7, b"1"),
        (changed("source_lang", seen=True), Basis.SEEN, 7, None),
        (changed("input_text", unseen=True), Basis.UNSEEN, NOW_US, b"1"),
        (changed("source_lang", unseen=True), Basis.UNSEEN, NOW_US, None),
        (changed("input_text", seen=True, wipe=True), Basis.BLIND, NOW_US, None),
        (changed("input_text", unseen=True, wipe=True), Basis.BLIND, NOW_US, None),
    ],
)
def test_what_a_value_was_made_from_is_kept_with_it(
    desk: Desk, change: CategoryChange, basis: Basis, moment: int, base: bytes | None
) -> None:
    """Nothing: by its time. What was read: the version, and the value in it. What could not be read: what was shown in
    its place."""
    desk.loaded.categories["translation"] = CategoryState.of(CategoryCopy(7, {"input_text": b"1"}), "primary")
    assert desk.keep(2, change)
    entry = desk.kept()[-1]
    assert (entry.basis, entry.moment, entry.base, entry.value) == (basis, moment, base, b"2")
    assert (entry.acknowledged, entry.doubts) == (NOW_US, "")


@pytest.mark.parametrize("how", ["new id", "nothing loaded", "of the session, for its shadow"])
def test_what_was_read_elsewhere_is_no_base(desk: Desk, how: str) -> None:
    """It was another record."""
    desk.loaded.categories["translation"] = CategoryState.of(CategoryCopy(7, {"input_text": b"1"}), "primary")
    more: dict[str, Any] = {}
    if how == "new id":
        more = {"origin": sid("e")}
    elif how == "nothing loaded":
        more = {"loaded": None}
    else:
        more = {"shadow": True, "kind": "u"}
    assert desk.keep(2, changed("input_text", seen=True), **more)
    assert (desk.kept()[0].basis, desk.kept()[0].moment) == (Basis.BLIND, NOW_US)


def test_auth_of_a_user_is_made_from_its_row(desk: Desk) -> None:
    """Changes of auth have the version of the row as basis, whether the key was read or not: the database compares
    versions of the whole row."""
    desk.loaded = Loaded(Verdict.VALID)
    desk.loaded.categories["auth"] = CategoryState.of(CategoryCopy(3, {"daily_limit": b"1"}), "primary")
    assert desk.keep(4, changed("daily_limit"), "auth", kind="u")
    [entry] = desk.kept()
    assert (entry.basis, entry.moment, entry.base) == (Basis.SEEN, 3, b"1")


def test_a_write_whose_reply_was_lost_is_kept_under_its_id(desk: Desk) -> None:
    """By it the merge knows what Redis has: values name it, additions have no other."""
    change = CategoryChange(1, sets={"input_text": b"1"}, increments={"usage_count": 2}, wipe=True)
    assert desk.keep(2, change, doubt="write.1")
    wiped, value, addition = desk.kept()
    assert [entry.doubts for entry in (wiped, value, addition)] == ["write.1 "] * 3
    assert (addition.token, addition.is_sent, addition.delta) == ("write.1", True, 2)


def test_an_addition_whose_reply_was_lost_was_sent_before_it_was_waited_for(desk: Desk) -> None:
    """Six that came while it was waited for have pushed it out of what Redis remembers: that is looked at from before
    it was sent."""
    assert desk.keep(2, CategoryChange(1, increments={"usage_count": 2}), doubt="write.1", sent_us=NOW_US - SECOND_US)
    [addition] = desk.kept()
    assert (addition.moment, addition.acknowledged) == (NOW_US - SECOND_US, NOW_US)


def test_each_addition_of_a_write_whose_reply_was_lost_has_an_id_of_its_own(desk: Desk) -> None:
    """They may be merged in two batches: what is remembered of the one says nothing of the other. The order is that in
    which they were sent."""
    change = CategoryChange(1, increments={"usage_count": 2, "input_text": 3})
    assert desk.keep(2, change, doubt="write.1")
    assert [(entry.field, entry.token) for entry in desk.kept()] == [
        ("usage_count", "write.1"),
        ("input_text", "grite.1"),
    ]


def test_an_addition_that_was_not_sent_has_an_id_of_its_own(desk: Desk) -> None:
    """The addition has no moment of sending: it cannot be in doubt."""
    assert desk.keep(2, CategoryChange(1, increments={"usage_count": 2}))
    assert desk.keep(2, CategoryChange(1, increments={"input_text": 2}))
    one, other = desk.kept()
    assert (one.is_sent, one.moment, len(one.token)) == (False, 0, 7)
    assert one.token != other.token


# -- carries, losses ---------------------------------------------------------------------------------------------------


def test_what_lies_under_a_former_id_is_carried(desk: Desk) -> None:
    """D11: a new id gets what the former one has, hidden or not."""
    assert desk.carry("ui", "translation")
    [carry] = desk.journal.pending_carries()
    assert (carry.origin, carry.digest, carry.categories) == (OTHER, DIGEST, ("ui", "translation"))
    assert carry.left_us == NOW_US
    assert desk.journal.overlay(ref(OTHER)).wiped == {"ui", "translation"}
    assert desk.losses() == {}
    assert not desk.carry()


@pytest.mark.parametrize("level", range(5))
def test_what_a_request_changes_of_what_is_carried_is_kept_as_the_table_says(desk: Desk, level: int) -> None:
    """It comes behind what is carried, and was made from that."""
    desk.loaded.categories["translation"] = CategoryState.of(CategoryCopy(7, {"input_text": b"1"}), "primary")
    moved: dict[str, Any] = {"origin": sid("e"), "carries": ("translation",)}
    assert desk.keep(level, changed("input_text", seen=True), **moved) is (level <= 2)
    assert [(entry.basis, entry.moment, entry.base) for entry in desk.kept()] == [(Basis.SEEN, 7, b"1")] * (level <= 2)
    lost = {("request_only_writes", f"level {level}", "translation"): 1}
    assert desk.losses() == ({} if level <= 2 else lost)


@pytest.mark.parametrize("level", range(5))
def test_what_is_taken_along_to_a_new_id_is_kept_at_every_level(desk: Desk, level: int) -> None:
    """It was read, and stored, when Redis was well still: it is not this outage's."""
    assert desk.keep(level, sets("input_text", "analysis_result"), origin=sid("e"))
    assert [entry.field for entry in desk.kept()] == ["input_text", "analysis_result"]
    assert desk.losses() == {}


COUNTED = b"added.11795782953000"


@pytest.mark.parametrize("whole", [False, True])
def test_the_host_knows_what_is_carried(desk: Desk, whole: bool) -> None:
    """Its requests see it under the new id, unless it could not be read."""
    there, gap = CategoryCopy(7, {"input_text": b"1"}, additions=COUNTED), Gap(True, frozenset()) if whole else None
    desk.loaded.categories["translation"] = CategoryState({"input_text": b"2"}, there, "primary", gap)
    desk.carry("ui", "translation")
    assert desk.journal.overlay(ref(DIGEST)).copies == ({} if whole else {"translation": there})


def test_what_waits_for_the_former_id_waits_for_the_new_one(desk: Desk) -> None:
    """In its order and with all that is known of it; not of categories that are not carried, nor a wipe, behind which
    there is nothing to be brought."""
    wiped = sets("input_text")
    wiped.wipe = True
    assert desk.keep(0, sets("lang"), "auth", id="e")
    assert desk.keep(0, wiped, id="e")
    assert desk.keep(0, CategoryChange(1, increments={"usage_count": 2}), id="e")
    assert desk.keep(0, sets("lang"), "ui", id="e")
    desk.carry("ui", "translation")
    assert [(entry.digest, entry.field) for entry in desk.kept()] == [
        (OTHER, "lang"), (DIGEST, "lang"), (DIGEST, "input_text"), (DIGEST, "usage_count"), (OTHER, WIPED_FIELD),
    ]  # fmt: skip
    [carry] = desk.journal.pending_carries()
    assert carry.categories == ("ui",)


@pytest.mark.parametrize(
    ("level", "kind", "carries", "known"),
    [
        (2, "a", (), {"auth", "translation", "ui", "data"}),
        (2, "u", (), {"translation", "ui", "data"}),
        (2, "a", ("translation",), {"auth", "ui", "data"}),
        (0, "a", (), {"auth", "translation", "ui", "data"}),
    ],
)
def test_the_host_knows_that_nothing_is_stored_under_a_new_id(
    desk: Desk, level: int, kind: str, carries: tuple[str, ...], known: set[str]
) -> None:
    """Otherwise all of it would be unknown for the whole outage. Categories that are yet to be carried there, and
    users' auth, stay unknown."""
    assert desk.keep(level, sets("input_text"), kind=kind, origin=sid("e"), carries=carries)
    copies = desk.journal.overlay(ref(DIGEST)).copies
    assert copies == dict.fromkeys(known, CategoryCopy(NOW_US - SECOND_US, {}))
    assert [entry.field for entry in desk.kept()] == ["input_text"]


def test_the_shadow_carries_nothing(desk: Desk) -> None:
    """The session is dead."""
    assert not desk.keep(4, sets("lang"), "ui", kind="u", shadow=True, origin=sid("e", "u"), carries=("ui",))
    assert desk.journal.pending_carries() == []


def test_what_the_journal_refuses_is_lost_and_counted() -> None:
    """I19: by the cause, each change of it, and as events. The request goes on."""
    desk = Desk(max_entries=0)
    assert not desk.keep(2, sets("input_text", "source_lang"))
    assert desk.losses() == {("writes_lost", "journal full", "translation"): 2}
    assert desk.recorder.counters() == {"journal_errors": 1, "writes_lost": 2}


def test_a_guess_for_which_there_is_no_room_is_a_conflict(desk: Desk) -> None:
    """An addition waits: something is there, which a value that was made without knowing may not replace."""
    assert desk.keep(2, CategoryChange(1, increments={"usage_count": 2}))
    assert desk.keep(2, changed("usage_count", unseen=True))
    assert [entry.operation for entry in desk.kept()] == [Operation.ADD]
    assert desk.losses() == {("merge_conflicts", "made without reading", "translation"): 1}


def test_what_a_shared_copy_outdates_is_counted(desk: Desk) -> None:
    """A sibling has seen what was written since."""
    desk.loaded.categories["translation"] = CategoryState.of(CategoryCopy(7, {"input_text": b"1"}), "primary")
    assert desk.keep(2, changed("input_text", seen=True))
    desk.journal_writer.publish([SharedCopy(DIGEST, "translation", CategoryCopy(8, {"input_text": b"9"}))])
    assert desk.kept() == []
    assert desk.losses() == {("merge_conflicts", "written since", "translation"): 1}


@pytest.mark.parametrize(
    ("names", "waits"), [(["translation"], True), (["ui"], False), (["ui", "translation"], True), ([], False)]
)
def test_what_comes_after_what_waits_has_to_wait(desk: Desk, names: list[str], waits: bool) -> None:
    """I18: for its category, of this session, and not of its shadow."""
    assert not desk.journal_writer.has_writes(ref(DIGEST), names)
    assert desk.keep(2, sets("input_text"))
    assert desk.journal_writer.has_writes(ref(DIGEST), names) is waits
    assert not desk.journal_writer.has_writes(ref(OTHER), names)
    assert not desk.journal_writer.has_writes(ref(DIGEST, shadow=True), names)
