"""The plan that is made of a request's changes, and the session after it was saved."""

from __future__ import annotations

import pytest

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.policy.ids import ANONYMOUS, SIGNED_IN
from flask_langpont_session.policy.loaded import Former
from flask_langpont_session.policy.plans import Saved
from flask_langpont_session.session.saving import Saving
from tests.support.fakes import Maker, Repository


@pytest.mark.parametrize("deed", ["nothing", "reads", "reads a list", "sets what is there"])
def test_what_changes_nothing_saves_nothing(maker: Maker, repository: Repository, deed: str) -> None:
    session = maker.session(
        repository.has(maker.sid("u", "u"), auth={"_user_id": "7", "daily_limit": 1}, data={"cart": []})
    )
    if deed == "reads":
        assert session["_user_id"] == "7"
    elif deed == "reads a list":
        assert session["cart"] == []
    elif deed == "sets what is there":
        session["daily_limit"] = 1
    assert Saving(session.work).save() is None
    assert repository.plans == []


def test_only_changed_keys_are_saved_by_category(maker: Maker, repository: Repository) -> None:
    session = maker.session(
        repository.has(maker.sid("a"), ui={"lang": "ja", "theme": "x"}, translation={"input_text": "x"})
    )
    session["lang"] = "en"
    del session["input_text"]
    Saving(session.work).save()
    [plan] = repository.plans
    assert {name: (dict(change.sets), set(change.deletes)) for name, change in plan.changes.items()} == {
        "ui": ({"lang": b'"en"'}, set()),
        "translation": ({}, {"input_text"}),
    }
    assert (plan.origin, plan.target, plan.is_new, plan.ends) == (plan.target, plan.origin, False, False)


def test_a_change_inside_of_a_value_is_found(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), data={"cart": [1]}))
    session["cart"].append(2)
    assert not session.modified
    Saving(session.work).save()
    assert repository.plans[0].changes["data"].sets == {"cart": b"[1,2]"}
    assert session.modified


def test_what_was_read_before_it_was_written_is_told(maker: Maker, repository: Repository) -> None:
    """It was made from what is there; what was set unread was not."""
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}))
    session["lang"] += "!"
    session["theme"] = "dark"
    Saving(session.work).save()
    assert repository.plans[0].changes["ui"].seen == {"lang"}


def test_a_visitor_gets_an_id_with_the_first_data(maker: Maker, repository: Repository) -> None:
    session = maker.session()
    assert session.get("lang") is None
    assert Saving(session.work).save() is None
    assert maker.minted == []
    session["lang"] = "ja"
    Saving(session.work).save()
    [plan] = repository.plans
    assert (plan.origin, plan.target, plan.is_new) == (None, maker.minted[0], True)
    assert session.work.is_worth_a_cookie


def test_nothing_is_saved_twice(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a")))
    session["lang"] = "ja"
    Saving(session.work).save()
    assert Saving(session.work).save() is None
    session["theme"] = "dark"
    Saving(session.work).save()
    assert [set(plan.changes["ui"].sets) for plan in repository.plans] == [{"lang"}, {"theme"}]


def test_clear_empties_every_category(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}))
    session.clear()
    session["theme"] = "dark"
    Saving(session.work).save()
    [plan] = repository.plans
    assert {name for name, change in plan.changes.items() if change.wipe} == set(repository.table.categories)
    assert plan.changes["ui"].sets == {"theme": b'"dark"'}


@pytest.mark.parametrize("permanent", [True, False])
def test_a_change_of_permanence_changes_the_row(maker: Maker, repository: Repository, permanent: bool) -> None:
    sid = repository.has(maker.sid("u", "u", permanent=not permanent), auth={"_user_id": "7"})
    session = maker.session(sid)
    session.permanent = permanent
    Saving(session.work).save()
    [plan] = repository.plans
    assert (plan.permanence_changed, list(plan.changes)) == (True, ["auth"])
    assert Saving(session.work).save() is None


@pytest.mark.parametrize("deed", ["sign-in", "another id"])
def test_after_a_flush_the_request_goes_on_with_the_id_that_was_made(
    maker: Maker, repository: Repository, deed: str
) -> None:
    """Later changes are changes of that session; the row is read again before auth is changed, and a sign-out
    ends it."""
    old = repository.has(maker.sid("u", "u"), auth={"_user_id": "7"}, ui={"lang": "ja"})
    session = maker.session(None if deed == "sign-in" else old)
    if deed == "sign-in":
        session["_user_id"], session.permanent = "7", True
    else:
        session.regenerate()
    session.flush()
    [minted] = maker.minted
    repository.has(minted, auth={"_user_id": "7"})
    session["daily_limit"] = 5
    assert session.flush() is not None
    session.sign_out()
    Saving(session.work).save()
    first, second, third = repository.plans
    assert (first.target, second.origin, second.target, second.is_new) == (minted, minted, minted, False)
    assert (second.loaded and second.loaded.row) is repository.rows[minted.digest]
    assert (set(second.changes), second.permanence_changed) == ({"auth"}, False)
    assert (third.origin, third.ends) == (minted, True)


def test_what_a_refused_flush_was_to_save_is_taken_back(maker: Maker, repository: Repository) -> None:
    """The session is again what is stored."""
    repository.refuses = True
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}))
    session["_user_id"], session["theme"] = "7", "dark"
    with pytest.raises(GrantRefused):
        session.flush()
    assert dict(session) == {"lang": "ja"}
    assert Saving(session.work).save() is None


def test_a_session_that_ended_meanwhile_is_what_came(maker: Maker, repository: Repository) -> None:
    repository.outcome = Saved(stored=False, ended=True)
    session = maker.session(repository.has(maker.sid("u", "u"), auth={"_user_id": "7"}))
    session["daily_limit"] = 5
    Saving(session.work).save()
    assert "_user_id" not in session
    assert not session.work.is_worth_a_cookie


@pytest.mark.parametrize(("kind", "shows"), [(SIGNED_IN, True), (ANONYMOUS, False)])
def test_a_page_that_may_show_a_users_data_is_kept_out_of_caches(
    maker: Maker, repository: Repository, kind: str, shows: bool
) -> None:
    session = maker.session(repository.has(maker.sid("s", kind), auth={"daily_limit": 1}))
    assert not session.work.showed_auth
    assert session["daily_limit"] == 1
    assert session.work.showed_auth is shows


# -- keys that lie elsewhere than in the category of their feature -----------------------------------------------------


def test_what_is_written_is_taken_away_from_where_it_was(maker: Maker, repository: Repository) -> None:
    """The value moves to the category of its feature, based on what was read where it was; keys that were not
    written stay."""
    session = maker.session(repository.has(maker.sid("a"), ui={"cart": [1], "wishes": [2]}, data={}))
    session.work.own_loaded().former = {"cart": Former("ui", True), "wishes": Former("ui", True)}
    session["cart"].append(2)
    Saving(session.work).save()
    changes = repository.plans[0].changes
    assert changes["data"].sets == {"cart": b"[1,2]"}
    assert (changes["ui"].sets, changes["ui"].deletes, changes["ui"].seen) == ({}, {"cart"}, {"cart"})
    assert session.work.load().former == {"wishes": Former("ui", True)}
    assert dict(session) == {"cart": [1, 2], "wishes": [2]}


def test_what_is_older_than_a_value_in_its_own_category_goes_with_the_next_change(
    maker: Maker, repository: Repository
) -> None:
    """Later on it could not be told any more which of both is."""
    session = maker.session(repository.has(maker.sid("a"), ui={"cart": [1]}, data={"cart": [2]}))
    session.work.own_loaded().former = {"cart": Former("ui", False)}
    assert session["cart"] == [2]
    assert Saving(session.work).save() is None
    session["theme"] = "dark"
    Saving(session.work).save()
    change = repository.plans[0].changes["ui"]
    assert (change.sets, change.deletes) == ({"theme": b'"dark"'}, {"cart"})


def test_what_belongs_to_auth_is_not_taken_away_by_other_changes(maker: Maker, repository: Repository) -> None:
    """It may be another table's, which comes back."""
    session = maker.session(repository.has(maker.sid("a"), ui={"daily_limit": 1}))
    session.work.own_loaded().former = {"daily_limit": Former("ui", False)}
    session["theme"] = "dark"
    Saving(session.work).save()
    assert repository.plans[0].changes["ui"].deletes == set()
