"""What setting, changing or removing a key of auth means."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.exceptions import GrantRefused, UnsupportedValue
from flask_langpont_session.policy.ids import ANONYMOUS, SIGNED_IN
from flask_langpont_session.policy.records import Verdict
from tests.support.fakes import Maker, Repository

USER: dict[str, dict[str, Any]] = {
    "auth": {"_user_id": "7", "user_role": "editor", "daily_limit": 1},
    "ui": {"lang": "ja"},
}


def test_setting_a_user_key_is_a_sign_in_under_another_id(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}, translation={"input_text": "x"}))
    session["_user_id"] = "7"
    [minted] = maker.minted
    assert (minted.kind, session.digest, maker.forgotten) == (SIGNED_IN, minted.digest, 1)
    session.saving.save()
    [plan] = repository.plans
    assert (plan.is_new, plan.grants, plan.ends) == (True, True, False)
    assert plan.changes["auth"].sets == {"_user_id": b'"7"'}
    assert {name: set(change.sets) for name, change in plan.changes.items() if name != "auth"} == {
        name: {"ui": {"lang"}, "translation": {"input_text"}}[name]
        for name in repository.settings.carry_on_sign_in
        if name in ("ui", "translation")
    }


def test_the_user_and_the_rights_of_one_sign_in_share_an_id(maker: Maker) -> None:
    session = maker.session()
    session["logged_in"], session["_user_id"], session["user_role"] = True, "7", "editor"
    assert len(maker.minted) == 1


def test_another_user_takes_nothing_over_but_what_outlives_a_sign_out(maker: Maker, repository: Repository) -> None:
    """Signing in as 8 over 7's session must not show 7's role."""
    session = maker.session(repository.has(maker.sid("u", "u"), **USER, translation={"input_text": "of 7"}))
    session["_user_id"] = "8"
    assert session.get("user_role") is None
    assert session.get("daily_limit") is None
    taken = {name for name in ("ui", "translation") if name in repository.settings.carry_on_sign_out}
    assert {name for name, key in (("ui", "lang"), ("translation", "input_text")) if key in session} == taken


@pytest.mark.parametrize("deed", ["user", "right", "renewal"])
def test_without_the_database_nothing_is_granted(maker: Maker, repository: Repository, deed: str) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), **USER) if deed != "user" else None)
    repository.lose_database()
    with pytest.raises(GrantRefused):
        if deed == "user":
            session["_user_id"] = "7"
        elif deed == "right":
            session["user_role"] = "admin"
        else:
            session.regenerate()
    assert maker.minted == []


def test_what_is_said_again_is_no_change(maker: Maker, repository: Repository) -> None:
    """Flask-Login says so at each request; in an outage it must not be refused."""
    session = maker.session(repository.has(maker.sid("u", "u"), **USER))
    repository.lose_database()
    session["user_role"] = "editor"
    session["daily_limit"] = 1
    assert session.saving.save() is None


@pytest.mark.parametrize("value", [None, ""])
def test_no_user_is_a_sign_out(maker: Maker, repository: Repository, value: str | None) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), **USER))
    session["_user_id"] = value
    assert session.ended
    assert "user_role" not in session


def test_removing_the_user_ends_the_session(maker: Maker, repository: Repository) -> None:
    sid = repository.has(maker.sid("u", "u"), **USER)
    session = maker.session(sid)
    del session["_user_id"]
    session.saving.save()
    [plan] = repository.plans
    assert (plan.origin, plan.ends) == (sid, True)
    assert plan.target is None or plan.target.kind == ANONYMOUS


def test_removing_a_right_beside_a_user_is_a_change_of_rights(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), **USER))
    del session["user_role"]
    assert not session.ended
    session.saving.save()
    [plan] = repository.plans
    assert (plan.grants, plan.changes["auth"].deletes) == (True, {"user_role"})


@pytest.mark.parametrize("verdict", [Verdict.DEAD, Verdict.UNVERIFIABLE])
def test_a_session_that_is_over_or_in_doubt_ends_when_its_user_is_removed(
    maker: Maker, repository: Repository, verdict: Verdict
) -> None:
    """It shows no user; ``logout_user()`` pops the key all the same."""
    sid = repository.has(maker.sid("u", "u"), **USER)
    repository.verdicts[sid.digest] = verdict
    session = maker.session(sid)
    session.pop("_user_id", None)
    session.saving.save()
    assert [plan.ends for plan in repository.plans] == [True]


def test_a_right_that_was_changed_inside_of_its_value_is_a_grant(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), auth={"_user_id": "7", "identity_roles": ["a"]}))
    session["identity_roles"].append("admin")
    repository.refuses = True
    with pytest.raises(GrantRefused):
        session.saving.save()


def test_a_visitor_has_no_rights(maker: Maker, repository: Repository) -> None:
    """That there are none is seen in this request, and stored nowhere."""
    session = maker.session(repository.has(maker.sid("a")))
    session["logged_in"] = False
    assert session["logged_in"] is False
    assert session.saving.save() is None


def test_a_new_id_of_the_same_session_brings_its_row_along(maker: Maker, repository: Repository) -> None:
    sid = repository.has(maker.sid("u", "u"), **USER)
    session = maker.session(sid)
    session.regenerate()
    session.saving.save()
    [plan] = repository.plans
    assert (plan.origin, plan.renames, plan.grants) == (sid, repository.rows[sid.digest], True)
    assert set(plan.changes["auth"].sets) == set(USER["auth"])


@pytest.mark.parametrize("user", ["x" * 256, "a\0b"])
def test_a_user_id_that_the_column_cannot_hold_is_refused(maker: Maker, user: str) -> None:
    with pytest.raises(UnsupportedValue):
        maker.session()["_user_id"] = user
    assert maker.minted == []
