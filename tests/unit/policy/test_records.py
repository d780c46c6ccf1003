"""Records between session and stores: where data is, what could not be read, and what a change makes."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.categories import Feature, Priority
from flask_langpont_session.policy.changes import CategoryChange, apply_change, apply_writes, difference
from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.levels import Kept
from flask_langpont_session.policy.loaded import CategoryState, Gap, Loaded, Verdict
from flask_langpont_session.policy.plans import Plan

LIFE = Life(1000, 9000)
VISITOR, OTHER = (SessionId(name, ANONYMOUS, False, 1, b"secret") for name in ("one", "other"))
USER = SessionId("user", SIGNED_IN, False, 1, b"secret")
LANGUAGE = Feature("language", "ui", Priority.LOW, ("lang",))


def plan(origin: SessionId | None, target: SessionId | None, **more: object) -> Plan:
    return Plan(origin, target, LIFE, 0, **more)  # type: ignore[arg-type]


def test_of_several_places_the_worst_counts() -> None:
    assert Kept.worst([Kept.REDIS, Kept.NOWHERE, Kept.DATABASE]) is Kept.NOWHERE
    assert Kept.worst([Kept.DATABASE, Kept.REDIS]) is Kept.REDIS
    assert Kept.worst([]) is None


def test_parts_of_a_category_in_several_places_count_as_the_worst() -> None:
    saved = plan(VISITOR, VISITOR)
    saved.note_kept(["ui", "auth"], Kept.JOURNAL)
    saved.note_kept(["ui"], Kept.REDIS)
    saved.note_kept(["auth"], Kept.NOWHERE)
    assert saved.kept == {"ui": Kept.JOURNAL, "auth": Kept.NOWHERE}


@pytest.mark.parametrize(
    ("gap", "is_covered"),
    [
        (Gap(True, frozenset()), True),
        (Gap(False, frozenset()), False),
        (Gap(False, frozenset({"language"})), True),
        (Gap(False, frozenset({"other"})), False),
        (Gap(True, frozenset(), kept=frozenset({"other"})), True),
        (Gap(False, frozenset(), guesses=frozenset({"other"})), False),
        (Gap(True, frozenset(), kept=frozenset({"lang"})), False),
        (Gap(False, frozenset({"language"}), kept=frozenset({"lang"})), False),
        (Gap(False, frozenset(), guesses=frozenset({"lang"})), True),
        (Gap(True, frozenset(), frozenset({"lang"}), frozenset({"lang"})), True),
    ],
)
def test_what_waits_in_the_journal_is_known_unless_it_was_a_guess(gap: Gap, is_covered: bool) -> None:
    assert gap.covers("language", "lang") is is_covered
    loaded = Loaded(Verdict.ANONYMOUS, {"ui": CategoryState(gap=gap)})
    assert loaded.is_unknown(LANGUAGE, "lang") is is_covered
    assert not Loaded(Verdict.ANONYMOUS).is_unknown(LANGUAGE, "lang")


def test_the_source_of_a_feature_is_its_categorys_unless_it_is_an_exception() -> None:
    loaded = Loaded(Verdict.ANONYMOUS, {"ui": CategoryState(source="replica")})
    assert loaded.source_of(LANGUAGE) == "replica"
    loaded.exceptions["language"] = "journal"
    assert loaded.source_of(LANGUAGE) == "journal"
    assert Loaded(Verdict.ANONYMOUS).source_of(LANGUAGE) == "none"


def test_what_was_loaded_before_takes_the_place_of_what_was_loaded_now() -> None:
    gap, other = Gap(True, frozenset()), Gap(False, frozenset({"history"}))
    ui = CategoryState({"lang": b"1"}, CategoryCopy(4, {"lang": b"2"}), "local", gap)
    auth, translation = CategoryState({"a": b"1"}), CategoryState.of(CategoryCopy(5, {}), "primary")
    before = Loaded(Verdict.ANONYMOUS, {"ui": ui, "translation": translation, "auth": auth}, defaulted={"lang"})
    now = Loaded(Verdict.VALID, {"ui": CategoryState({}, CategoryCopy(9, {}), "primary", other, is_wiped=True)})
    now.keep_from(before, ["ui", "translation"])
    assert now.categories == {"ui": ui._replace(is_wiped=True), "translation": translation}
    assert now.defaulted == {"lang"}


def test_what_could_not_be_read_now_is_not_known_by_what_was_read_before() -> None:
    gap, copy = Gap(True, frozenset()), CategoryCopy(9, {"lang": b"2"})
    before = Loaded(Verdict.VALID, {"ui": CategoryState.of(CategoryCopy(4, {"lang": b"1"}), "primary")})
    now = Loaded(Verdict.VALID, {"ui": CategoryState({}, copy, "local", gap)})
    now.keep_from(before, ["ui"])
    assert now.of("ui") == before.of("ui")._replace(gap=gap)
    assert now.of("ui").copy == CategoryCopy(4, {"lang": b"1"})


def test_only_a_visitor_who_gets_another_id_leaves_one() -> None:
    assert plan(VISITOR, OTHER).leaves
    assert not plan(VISITOR, OTHER, ends=True).leaves
    assert not any(plan(*of).leaves for of in ((VISITOR, VISITOR), (VISITOR, USER), (USER, OTHER), (None, OTHER)))


def test_only_the_shadow_of_a_dead_session_can_be_written() -> None:
    dead = Loaded(Verdict.DEAD)
    assert plan(USER, USER, loaded=dead).is_for_shadow
    assert not plan(USER, OTHER, loaded=dead).is_for_shadow
    assert not plan(USER, USER, loaded=Loaded(Verdict.VALID)).is_for_shadow
    assert not plan(USER, USER).is_for_shadow


def test_a_change_is_applied_in_the_order_in_which_stores_apply_it() -> None:
    before = {"a": b"1", "b": b"2", "n": b"-3"}
    change = CategoryChange(0, sets={"a": b"9"}, deletes={"b"}, increments={"n": 5, "new": 2})
    assert apply_change(before, change) == {"a": b"9", "n": b"2", "new": b"2"}
    assert before == {"a": b"1", "b": b"2", "n": b"-3"}
    assert apply_change(before, CategoryChange(0, sets={"c": b"1"}, wipe=True)) == {"c": b"1"}


def test_an_addition_to_what_is_no_number_changes_nothing() -> None:
    fields = {"text": b'"x"'}
    apply_writes(fields, {"gone": None}, {"text": 1})
    assert fields == {"text": b'"x"'}


def test_the_difference_makes_the_one_of_the_other() -> None:
    before, after = {"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"9", "d": b"4"}
    change = difference(before, after)
    assert (dict(change.sets), set(change.deletes)) == ({"b": b"9", "d": b"4"}, {"c"})
    assert apply_change(before, change) == after
