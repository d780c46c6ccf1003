"""``session.fresh()``: what the request sees from then on, and of which id the database is asked."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.policy.loaded import Verdict
from flask_langpont_session.session.saving import Saving
from tests.support.fakes import Maker, Repository

USER: dict[str, Any] = {"_user_id": "7", "user_role": "user", "_state_list": ["a"]}


def test_what_the_database_says_now_is_seen_beside_the_own_changes(maker: Maker, repository: Repository) -> None:
    """Set, removed, and changed inside of a value. What was only read is not written."""
    data = {"cart": [1], "wishes": [1]}
    sid = repository.has(maker.sid("u", "u"), auth={**USER, "early_access": True}, data=data, ui={"lang": "ja"})
    session = maker.session(sid)
    assert (session["user_role"], session["wishes"]) == ("user", [1])
    session["daily_limit"] = 9
    session["_state_list"].append("mine")
    session["cart"].append(2)
    del session["lang"]
    repository.stored[sid.digest]["auth"] = {**USER, "user_role": "guest", "_state_list": ["a"]}
    assert session.fresh()
    assert "early_access" not in session
    seen = {key: session.get(key) for key in ("user_role", "daily_limit", "_state_list", "cart", "lang", "wishes")}
    assert seen == {
        "user_role": "guest", "daily_limit": 9, "_state_list": ["a", "mine"], "cart": [1, 2], "lang": None,
        "wishes": [1],
    }  # fmt: skip
    Saving(session.work).save()
    [plan] = repository.plans
    found = {name: (set(change.sets), change.deletes) for name, change in plan.changes.items()}
    assert found == {
        "auth": ({"daily_limit", "_state_list"}, set()), "data": ({"cart"}, set()), "ui": (set(), {"lang"}),
    }  # fmt: skip


def test_another_category_is_read_again_alone(maker: Maker, repository: Repository) -> None:
    sid = repository.has(maker.sid("u", "u"), auth=USER, ui={"lang": "ja", "theme": "light"}, data={"cart": [1]})
    session = maker.session(sid)
    assert (session["lang"], session["cart"]) == ("ja", [1])
    session["theme"] = "mine"
    repository.stored[sid.digest] |= {"ui": {"lang": "en", "theme": "theirs"}, "data": {"cart": [2]}}
    assert session.fresh("ui")
    assert (session["lang"], session["theme"], session["cart"]) == ("en", "mine", [1])
    assert len(repository.loads) == 1
    with pytest.raises(KeyError):
        session.fresh("UI")


@pytest.mark.parametrize(
    "verdict", [Verdict.VALID, Verdict.DEAD, Verdict.UNVERIFIABLE], ids=["lives", "dead", "not known"]
)
@pytest.mark.parametrize("is_renamed", [False, True])
def test_i2_only_the_word_of_the_database_is_fresh(
    maker: Maker, repository: Repository, verdict: Verdict, is_renamed: bool
) -> None:
    """Another id of the session is asked for by the id before. A session that has ended shows no user under either."""
    sid = repository.has(maker.sid("u", "u"), auth=USER)
    session = maker.session(sid)
    assert session["_user_id"] == "7"
    if is_renamed:
        session.regenerate()
    repository.verdicts[sid.digest] = verdict
    if is_renamed and verdict is Verdict.UNVERIFIABLE:
        with pytest.raises(GrantRefused):
            session.fresh()
        return
    assert session.fresh() is (verdict is Verdict.VALID)
    assert session.get("_user_id") == ("7" if verdict is Verdict.VALID else None)
    assert repository.loads == [sid.digest] * 2


def test_a_sign_in_of_this_request_is_not_fresh_yet(maker: Maker, repository: Repository) -> None:
    """The database does not know of it; the request sees what it did itself, and so it does after a sign-out."""
    for sid in (None, repository.has(maker.sid("u", "u"), auth=USER)):
        session = maker.session(sid)
        session["_user_id"] = "8"
        before = len(repository.loads)
        assert (session.fresh(), session["_user_id"]) == (False, "8")
        session.sign_out()
        assert (session.fresh(), session.get("_user_id")) == (False, None)
        assert len(repository.loads) == before
