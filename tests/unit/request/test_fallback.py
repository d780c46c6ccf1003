"""The part of a category that a request may see, and what is unknown: from answers, copies and waiting changes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.policy.categories import Priority
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import CategoryCopy, Change, RecordRef
from flask_langpont_session.policy.levels import ALLOWED, Behaviour
from flask_langpont_session.policy.loaded import CategoryState, Loaded, Verdict
from flask_langpont_session.request.fallback import Fallback, Showing
from flask_langpont_session.stores.host.entries import NOTHING, Overlay
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.records import Answer, Written, empty_as_of
from tests.support.fakes import settings_in
from tests.support.known import content, known

NOW_MS = 1_795_782_953_000


REF = RecordRef("d", "a")


class Shown:
    """One category of one session, as a request sees it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        settings = settings_in(folder, **{"DEFAULTS": {"lang": "en"}, **config})
        self.memory = Memory(ttl=60)
        self.register = journal_at(None).board.register
        self.fallback = Fallback(settings, self.memory, self.register)
        self.table = settings.table
        self.loaded = Loaded(Verdict.ANONYMOUS)

    def by_redis(self, copy: CategoryCopy, *, level: int = 0, overlay: Overlay = NOTHING, **more: Any) -> None:
        """Redis has answered; at a level above 0 a replica."""
        name = more.pop("name", "translation")
        source, asked_at = "replica" if level else "primary", more.pop("asked_at", math.inf)
        answer = Answer(NOW_MS, {name: copy._replace(began=copy.version)}, source=source, asked_at=asked_at)
        self.fallback.show_answer(Showing(self.loaded, REF, level, overlay), name, answer)
        assert not more

    def by_host(self, *, level: int = 2, overlay: Overlay = NOTHING, name: str = "translation") -> None:
        """No Redis has answered."""
        self.fallback.show_without_answer(Showing(self.loaded, REF, level, overlay), name)

    def fields(self, name: str = "translation") -> dict[str, bytes]:
        return dict(self.loaded.of(name).shown)

    def is_unknown(self, key: str) -> bool:
        return self.loaded.is_unknown(self.table.feature_of(key), key)


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def overlay(**more: Any) -> Overlay:
    return Overlay(**{"revoked": False, "writes": {}, "deltas": {}, "copies": {}, **more})


# -- gaps --------------------------------------------------------------------------------------------------------------


ONE, TWO = {"input_text": b"1"}, {"input_text": b"2"}
KEYS = ("input_text", "source_lang", "analysis_result")
WAITING: dict[str, dict[str, Any]] = {
    "": {},
    "values": {"writes": {"input_text": b"2", "source_lang": None}},
    "a guess": {"writes": TWO, "guesses": frozenset({"input_text"})},
    "a wipe": {"wiped": True, "writes": {"source_lang": b"2"}, "copies": CategoryCopy(8, ONE)},
    "an addition": {"deltas": {"usage_count": [("added.1", 2)]}},
}
"""The entries of the category that wait in the journal."""

SIGHTS: dict[str, tuple[str, int, dict[str, bytes] | None, str, dict[str, bytes], list[bool]]] = {
    "the primary's answer is known": ("Redis", 0, ONE, "", ONE, [False, False, False]),
    "a replica's, too": ("Redis", 1, ONE, "", ONE, [False, False, False]),
    "D5: without a copy nothing is known": ("own", 2, None, "", {}, [True, True, True]),
    "an own copy: what the table hides is unknown": ("own", 2, ONE, "", ONE, [False, False, True]),
    "a sibling's copy": ("sibling", 2, ONE, "", ONE, [False, False, True]),
    "D1: at level 3 the table shows nothing": ("own", 3, ONE, "", {}, [True, True, True]),
    "D1: nor at level 4": ("own", 4, ONE, "", {}, [True, True, True]),
    "values lie over an answer": ("Redis", 0, {**ONE, "source_lang": b"1"}, "values", TWO, [False, False, False]),
    "values are this host's own where nothing else is": ("own", 2, None, "values", TWO, [False, False, True]),
    "a guess gives way to an answer": ("Redis", 0, ONE, "a guess", ONE, [False, False, False]),
    "a guess is shown where nothing is": ("Redis", 0, {}, "a guess", TWO, [True, False, False]),
    "a guess without an answer": ("own", 2, None, "a guess", TWO, [True, True, True]),
    "D10, D17: after a wipe all is known": ("Redis", 0, ONE, "a wipe", {"source_lang": b"2"}, [False, False, False]),
    "also without an answer": ("own", 2, None, "a wipe", {"source_lang": b"2"}, [False, False, False]),
    "an addition to what is not known": ("own", 2, None, "an addition", {"usage_count": b"2"}, [True, True, True]),
}


@pytest.mark.parametrize(("by", "level", "there", "waits", "fields", "unknown"), SIGHTS.values(), ids=SIGHTS)
def test_what_is_shown_and_what_is_unknown(
    shown: Shown,
    by: str,
    level: int,
    there: dict[str, bytes] | None,
    waits: str,
    fields: dict[str, bytes],
    unknown: list[bool],
) -> None:
    """A change that was made without knowing must not replace what is there."""
    of_category = {name: {"translation": value} for name, value in WAITING[waits].items() if name != "wiped"}
    waiting = overlay(**of_category, wiped=frozenset({"translation"} if "wiped" in WAITING[waits] else ()))
    copy = CategoryCopy(7, there or {})
    if by == "Redis":
        shown.by_redis(copy, level=level, overlay=waiting)
        assert shown.loaded.of("translation").copy.fields == ({} if waits == "a wipe" else there)
    elif by == "own" and there is not None:
        shown.memory.put_category("d", "translation", known(copy))
    elif by == "sibling":
        waiting = replace(waiting, copies={"translation": copy})
    if by != "Redis":
        shown.by_host(level=level, overlay=waiting)
    assert shown.fields() == fields
    assert [shown.is_unknown(key) for key in KEYS] == unknown
    assert shown.is_unknown("usage_count") or waits != "an addition"
    if by != "Redis" and there is None and not waits:
        gap = shown.loaded.of("translation").gap
        assert gap and gap.whole


def test_what_is_not_there_is_known_to_be_empty_as_of_now(shown: Shown) -> None:
    """An empty category of a primary is kept by the host, for the next outage."""
    shown.by_redis(CategoryCopy(0, {}))
    assert (shown.loaded.of("translation").copy.version, shown.fields()) == (empty_as_of(NOW_MS), {})
    assert not shown.is_unknown("input_text")
    shown.by_host()
    assert shown.loaded.of("translation").copy.version == empty_as_of(NOW_MS)
    assert not shown.is_unknown("input_text")


BY_BEHAVIOUR: dict[Behaviour, dict[str, bytes]] = {
    Behaviour.PRIMARY: {},
    Behaviour.LOCAL_CACHE_FALLBACK: {"lang": b'"ja"'},
    Behaviour.DEFAULT_VALUE: {"lang": b'"en"'},
    Behaviour.DISABLE_FEATURE: {"lang": b'"en"'},
}


@pytest.mark.parametrize(
    ("own", "hosts", "seen", "expected"),
    [
        (6000, 5000, 0, 6000),
        (5000, 6000, 0, 6000),
        (5000, 5000, 5000, 5000),
        (None, 5000, 0, 5000),
        (5000, None, 0, 5000),
        (5000, None, 6000, None),
        (5000, 6000, 7000, None),
    ],
)
def test_the_newer_copy_is_shown(
    shown: Shown, own: int | None, hosts: int | None, seen: int, expected: int | None
) -> None:
    """The copy with the higher version is shown: the worker's own, or the one that a sibling has shared. None is where
    a sibling has seen a newer version and not shared it."""
    if own is not None:
        shown.memory.put_category("d", "translation", known(CategoryCopy(own, {"input_text": b"%d" % own})))
    copies = {} if hosts is None else {"translation": CategoryCopy(hosts, {"input_text": b"%d" % hosts})}
    shown.register.note_version("d", "translation", seen)
    shown.by_host(overlay=overlay(copies=copies))
    assert shown.fields() == ({} if expected is None else {"input_text": b"%d" % expected})
    assert shown.loaded.of("translation").copy.version == (expected or 0)


def test_each_behaviour_shows_the_copy_or_the_default_or_nothing(tmp_path: Path) -> None:
    """All that a feature outside of auth can have, while no Redis answers and this worker has a copy."""
    assert BY_BEHAVIOUR.keys() == ALLOWED[Priority.MEDIUM]
    for behaviour, expected in BY_BEHAVIOUR.items():
        shown = Shown(tmp_path, BEHAVIOURS={"medium": {2: behaviour.value}})
        shown.memory.put_category("d", "ui", known(CategoryCopy(7, {"lang": b'"ja"'})))
        shown.by_host(name="ui")
        assert shown.fields("ui") == expected, behaviour


@pytest.mark.parametrize(("waits", "shown_value"), [({}, b'"en"'), ({"ui": {"lang": b'"fr"'}}, b'"fr"')])
def test_a_default_is_no_data(shown: Shown, waits: dict[str, dict[str, bytes]], shown_value: bytes) -> None:
    """It is shown for a hidden value, and what is made from it is made without knowing. It takes the place of no value
    that a request of this outage has set."""
    shown.memory.put_category("d", "ui", known(CategoryCopy(7, {"lang": b'"ja"'})))
    shown.by_host(name="ui", overlay=overlay(writes=waits))
    assert shown.fields("ui") == {"lang": shown_value}
    assert shown.loaded.defaulted == (set() if waits else {"lang"})
    assert shown.is_unknown("lang") is not bool(waits)


# -- what waits --------------------------------------------------------------------------------------------------------


def test_what_is_read_again_replaces_all_that_was_read_before(shown: Shown) -> None:
    """Changes that waited at the first read were merged in between: nothing of the first read remains."""
    waiting = overlay(writes={"translation": {"input_text": b"2"}}, guesses={"translation": frozenset({"input_text"})})
    shown.by_redis(CategoryCopy(7, {}), overlay=waiting)
    assert shown.is_unknown("input_text")
    shown.by_redis(CategoryCopy(8, {"input_text": b"2"}))
    assert shown.loaded.of("translation") == CategoryState.of(CategoryCopy(8, {"input_text": b"2"}, began=8), "primary")


@pytest.mark.parametrize("source", ["Redis", "copy of this worker", "copy of the host"])
@pytest.mark.parametrize(
    ("counted", "shown_as"),
    [
        (b"", b"15"),
        (b"added.11795782953000", b"13"),
        (b"added.21795782953000", b"12"),
        (b"added.11795782953000added.21795782953000", b"10"),
        (b"other.11795782953000", b"15"),
    ],
)
def test_an_addition_that_redis_has_counted_is_not_added_once_more(
    shown: Shown, counted: bytes, shown_as: bytes, source: str
) -> None:
    """Its entry waits until this host knows; a user must not see the sum jump and fall back. A copy may have it, too:
    another request has read it after this one had asked the journal."""
    waiting = overlay(deltas={"translation": {"usage_count": [("added.1", 2), ("added.2", 3)]}})
    copy = CategoryCopy(7, {"usage_count": b"10"}, additions=counted)
    if source == "Redis":
        shown.by_redis(copy, overlay=waiting)
    elif source == "copy of the host":
        shown.by_host(overlay=replace(waiting, copies={"translation": copy}))
    else:
        shown.by_redis(copy)
        shown.loaded = Loaded(Verdict.ANONYMOUS)
        shown.by_host(overlay=waiting)
    assert shown.fields() == {"usage_count": shown_as}


# -- own writes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (7, 9, CategoryCopy(9, {"input_text": b"1", "source_lang": b"2"})),  # as it was read
        (8, 9, CategoryCopy(7, {"input_text": b"1", "source_lang": b"2"})),  # another one has written since
        (0, 9, CategoryCopy(9, {"source_lang": b"2"})),  # nothing was there any more
    ],
)
def test_the_own_copy_follows_the_own_writes(shown: Shown, before: int, after: int, kept: CategoryCopy) -> None:
    """By the version that the write found: only then it has all that is there."""
    shown.by_redis(CategoryCopy(7, {"input_text": b"1"}))
    change = {"translation": CategoryChange(1, sets={"source_lang": b"2"})}
    shown.fallback.remember_write(
        "d", shown.loaded, change, Written("written", {"translation": Change(before, after)}), "a"
    )
    assert content(shown.memory.category("d", "translation")) == kept


def test_a_wipe_leaves_a_copy_of_what_was_written_with_it(shown: Shown) -> None:
    """The copy has what was written with the wipe, whatever was read before."""
    change = {"translation": CategoryChange(1, sets={"source_lang": b"2"}, wipe=True)}
    shown.fallback.remember_write("d", None, change, Written("written", {"translation": Change(8, 9)}), "a")
    assert content(shown.memory.category("d", "translation")) == CategoryCopy(9, {"source_lang": b"2"})
    change = {"translation": CategoryChange(1, wipe=True)}
    shown.fallback.remember_write("d", None, change, Written("written", {"translation": Change(9, 11)}), "a")
    assert content(shown.memory.category("d", "translation")) == CategoryCopy(11, {})


@pytest.mark.parametrize("wiped", [frozenset(), frozenset({"translation"})])
def test_what_waits_is_no_part_of_the_own_copy(shown: Shown, wiped: frozenset[str]) -> None:
    """It is laid over it once more at the next read. A wipe takes nothing away either: the journal was asked first, and
    what Redis answered may be from after the merge."""
    waiting = overlay(wiped=wiped, writes={"translation": {"input_text": b"waits"}})
    shown.by_redis(CategoryCopy(7, {"input_text": b"1"}), overlay=waiting)
    change = {"translation": CategoryChange(1, sets={"source_lang": b"2"})}
    shown.fallback.remember_write("d", shown.loaded, change, Written("written", {"translation": Change(7, 9)}), "a")
    assert content(shown.memory.category("d", "translation")) == CategoryCopy(
        9, {"input_text": b"1", "source_lang": b"2"}
    )
