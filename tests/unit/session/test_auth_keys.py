"""The meaning of setting, changing or removing a key of auth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import Unauthorized

from flask_langpont_session.exceptions import GrantRefused, UnsupportedValue
from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from flask_langpont_session.policy.loaded import Gap, Verdict
from flask_langpont_session.session.auth_keys import carry, hides_some, restart
from flask_langpont_session.session.context import RememberCookie
from flask_langpont_session.session.mapping import Session
from flask_langpont_session.session.saving import Saving
from flask_langpont_session.session.special_keys import SpecialKeys
from tests.support.fakes import Maker, Repository, settings_in

USER: dict[str, dict[str, Any]] = {
    "auth": {"_user_id": "7", "user_role": "editor", "daily_limit": 1},
    "ui": {"lang": "ja"},
}


def test_setting_a_user_key_is_a_sign_in_under_another_id(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}, translation={"input_text": "x"}))
    session["_user_id"] = "7"
    [minted] = maker.minted
    assert (minted.kind, session.digest, maker.forgotten) == (SIGNED_IN, minted.digest, 1)
    Saving(session.work).save()
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


ALICE = {"_user_id": "7", "user_id": 7, "username": "alice", "user_role": "admin"}


@pytest.mark.parametrize(
    ("before", "said", "left"),
    [
        (ALICE, {"_user_id": "7"}, "all"),
        (ALICE, {"username": "alice", "user_id": 7, "_user_id": "7"}, "all"),
        (ALICE, {"user_id": "7"}, "all"),
        (ALICE, {"_user_id": "8"}, "looks"),
        (ALICE, {"user_id": 8, "username": "bob", "_user_id": "8"}, "looks"),
        (ALICE, {"username": "alice", "user_id": 8}, "looks"),  # the first one could be the same user
        (ALICE, {"user_id": 7, "_user_id": "8", "username": "bob"}, "looks"),
        # that a name is new says nothing about whose the texts are
        ({"_user_id": "7"}, {"username": "alice", "_user_id": "7"}, "looks"),
        # what is set between two user keys is the new user's
        (ALICE, {"username": "alice", "usage_note": "mine", "daily_limit": 2, "_user_id": "8"}, "looks"),
        # what is set before the first one is that of the session before
        ({"_user_id": "7"}, {"daily_limit": 2, "_user_id": "8"}, "looks"),
        ({"early_access": True}, {"_user_id": "8"}, "all"),
    ],
)
def test_d15_what_is_taken_along_depends_on_whose_it_is(
    maker: Maker, repository: Repository, before: dict[str, Any], said: dict[str, Any], left: str
) -> None:
    """The same user keeps texts and looks, and no role; another one the looks alone, whichever of several keys names
    another user, and is not remembered for it."""
    texts, looks = {"input_text": "private", "usage_count": 3}, {"lang": "ja"}
    sid = repository.has(maker.sid("u", "u", permanent=True), auth=before, translation=texts, ui=looks)
    session = maker.session(sid)
    for key, value in said.items():
        session[key] = value
    own = {key: value for key, value in said.items() if (key, next(iter(said))) != ("daily_limit", "daily_limit")}
    shown = {key: session[key] for key in session if key != "csrf_token"}
    assert shown == {**own, **looks, **(texts if left == "all" else {})}
    assert session.permanent is (left == "all")


@pytest.mark.parametrize(("user", "is_same"), [("8", False), ("7", True)])
def test_d15_after_a_change_of_id_and_inside_of_values(
    maker: Maker, repository: Repository, user: str, is_same: bool
) -> None:
    """regenerate() takes everything along, and a list is the same list, whatever was put into it."""
    sid = repository.has(maker.sid("u", "u"), auth=ALICE, translation={"context_info": ["private"]})
    for renames in (False, True):
        session = maker.session(sid)
        if renames:
            session.regenerate()
        session["username"] = "alice"
        session["context_info"].append("more")
        session["_user_id"] = user
        assert session.get("context_info") == (["private", "more"] if is_same else None)
        assert session.get("user_role") is None


def test_a_sign_in_over_what_cannot_be_verified_takes_the_looks_alone(maker: Maker, repository: Repository) -> None:
    """Whose the texts are is not known."""
    sid = repository.has(maker.sid("u", "u"), **USER, translation={"input_text": "of 7"})
    repository.verdicts[sid.digest] = Verdict.UNVERIFIABLE
    session = maker.session(sid)
    session["_user_id"] = "7"
    assert {key: session.get(key) for key in ("_user_id", "input_text", "lang")} == {
        "_user_id": "7", "input_text": None, "lang": "ja",
    }  # fmt: skip


BOB = {"sub": "90125", "name": "Bob"}
TOKEN = {"access_token": "a", "userinfo": {"sub": "2482", "name": "Alice"}}
REFRESHED = {"access_token": "b", "refresh_token": "r"}


@pytest.mark.parametrize(
    ("key", "values", "user", "ids"),
    [
        ("user", [BOB], "90125", 1),
        ("user", [{"name": "Alice"}], None, 1),
        ("user", [BOB, {"name": "Bob"}], None, 1),  # nothing says that it is the same one
        ("oidc_auth_token", [TOKEN], "2482", 1),
        ("oidc_auth_token", [REFRESHED], None, 1),
        ("oidc_auth_token", [TOKEN, REFRESHED, {"access_token": "c"}], "2482", 1),
        ("oidc_auth_token", [TOKEN, {**TOKEN, "userinfo": BOB}, REFRESHED], "90125", 1),
        ("oidc_auth_token", [TOKEN, None, REFRESHED], None, 2),
    ],
)
def test_the_user_of_a_sign_in_whose_value_is_replaced_at_once(
    maker: Maker, repository: Repository, key: str, values: list[Any], user: str | None, ids: int
) -> None:
    """A token that is refreshed names no user, and takes none away."""
    session = maker.session()
    for value in values:
        session[key] = value
    assert (session[key], len(maker.minted)) == (values[-1], ids)
    Saving(session.work).save()
    assert repository.plans[-1].user == user


@pytest.mark.parametrize(
    ("before", "key", "value", "is_sign_in"),
    [
        ({"oidc_auth_token": TOKEN}, "oidc_auth_token", REFRESHED, False),
        ({"oidc_auth_token": TOKEN}, "oidc_auth_token", {**TOKEN, "userinfo": BOB}, True),
        ({"user": {"name": "Alice"}}, "user", {"name": "Alice"}, True),  # nothing says that it is the same one
    ],
)
def test_a_refreshed_token_is_no_sign_in(
    maker: Maker, repository: Repository, before: dict[str, Any], key: str, value: Any, is_sign_in: bool
) -> None:
    """It is a change of rights; the session keeps its id and its user."""
    session = maker.session(repository.has(maker.sid("u", "u"), auth=before))
    session[key] = value
    assert bool(maker.minted) is is_sign_in
    Saving(session.work).save()
    assert repository.plans[0].grants


def test_a_dict_that_was_given_out_changed_and_assigned_is_no_sign_in(maker: Maker, repository: Repository) -> None:
    """As applications do that know Flask's session. With another user in it, it is one."""
    for change, is_sign_in in (({"name": "B."}, False), ({"sub": "7"}, True)):
        session = maker.session(repository.has(maker.sid("u", "u"), auth={"user": BOB}))
        value = session["user"]
        value.update(change)
        session["user"] = value
        assert bool(maker.minted) is is_sign_in


@pytest.mark.parametrize("verdict", [Verdict.VALID, Verdict.UNVERIFIABLE, Verdict.DEAD])
def test_saying_that_there_is_no_user_ends_what_shows_one(
    maker: Maker, repository: Repository, verdict: Verdict
) -> None:
    """Applications say so for each visitor: in an outage of both stores that may be any user."""
    sid = repository.has(maker.sid("u", "u"), auth={"user": BOB})
    repository.verdicts[sid.digest] = verdict
    session = maker.session(sid)
    session["user"] = None
    assert session.ended is (verdict is Verdict.VALID)


@pytest.mark.parametrize(
    ("kind", "verdict", "is_taken"),
    [("u", Verdict.VALID, True), ("u", Verdict.DEAD, False), ("a", Verdict.ANONYMOUS, False)],
    ids=["of a session", "withdrawn elsewhere", "of a visitor"],
)
def test_a_token_goes_along_when_its_session_gets_a_user(
    maker: Maker, repository: Repository, kind: str, verdict: Verdict, is_taken: bool
) -> None:
    """As with Flask-Dance beside Flask-Login; the database is asked, whatever a lease says. No other right does."""
    sid = repository.has(maker.sid("s", kind), auth={"github_oauth_token": {"access_token": "x"}, "early_access": True})
    session = maker.session(sid)
    assert session.get("github_oauth_token")
    repository.verdicts[sid.digest] = verdict
    session["_user_id"] = "7"
    assert ("github_oauth_token" in session, "early_access" in session) == (is_taken, False)


@pytest.mark.parametrize(
    ("kind", "before", "is_taken"),
    [("a", {}, True), ("u", {"_user_id": "7"}, True), ("u", {"_user_id": "8"}, False)],
    ids=["visitor", "same user", "another user"],
)
def test_durable_keys_go_along_with_their_user(
    tmp_path: Path, kind: str, before: dict[str, Any], is_taken: bool
) -> None:
    repository = Repository(settings_in(tmp_path, DURABLE_KEYS=["cart"]))
    maker = Maker(repository)
    session = maker.session(repository.has(maker.sid("s", kind), auth={**before, "cart": ["tea"]}))
    session["_user_id"] = "7"
    assert session.get("cart") == (["tea"] if is_taken else None)
    session.sign_out()
    assert "cart" not in session


@pytest.mark.parametrize("verdict", [Verdict.UNVERIFIABLE, None], ids=["in doubt", "refused sign-in"])
def test_no_right_may_be_withdrawn_where_none_is_shown(
    maker: Maker, repository: Repository, verdict: Verdict | None
) -> None:
    """Flask-Login says so for every visitor, on each page and inside error pages: that is no refusal."""
    if verdict is None:
        session = maker.session()
        session["_user_id"] = "7"
    else:
        sid = repository.has(maker.sid("u", "u"), **USER)
        repository.verdicts[sid.digest] = verdict
        session = maker.session(sid)
    repository.lose_database()
    session["_fresh"] = False
    assert session["_fresh"] is False


def test_a_right_that_is_none_is_there(maker: Maker, repository: Repository) -> None:
    """Flask-Principal stores how a user signed in, which is None unless it is told."""
    session = maker.session(repository.has(maker.sid("u", "u"), auth={"_user_id": "7", "identity.auth_type": None}))
    assert ("identity.auth_type" in session, session["identity.auth_type"]) == (True, None)


@pytest.mark.parametrize(("fresh", "after"), [(False, True), (True, True), (None, None)])
def test_a_confirmation_is_another_id_and_the_users_proof(
    maker: Maker, repository: Repository, fresh: bool | None, after: bool | None
) -> None:
    """I27. For Flask-Login the session is fresh again; a visitor has nothing to confirm."""
    auth = USER["auth"] | ({} if fresh is None else {"_fresh": fresh})
    session = maker.session(repository.has(maker.sid("u", "u"), auth=auth))
    session.confirm()
    assert session.get("_fresh") is after
    Saving(session.work).save()
    [plan] = repository.plans
    assert (plan.confirms, plan.renames is not None, plan.target) == (True, True, maker.minted[0])
    with pytest.raises(Unauthorized):
        maker.session(maker.sid("a")).confirm()


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
    assert Saving(session.work).save() is None


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
    Saving(session.work).save()
    [plan] = repository.plans
    assert (plan.origin, plan.ends) == (sid, True)
    assert plan.target is None or plan.target.kind == ANONYMOUS


def test_removing_a_right_beside_a_user_is_a_change_of_rights(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), **USER))
    del session["user_role"]
    assert not session.ended
    Saving(session.work).save()
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
    Saving(session.work).save()
    assert [plan.ends for plan in repository.plans] == [True]


def test_a_right_that_was_changed_inside_of_its_value_is_a_grant(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), auth={"_user_id": "7", "identity.roles": ["a"]}))
    session["identity.roles"].append("admin")
    repository.refuses = True
    with pytest.raises(GrantRefused):
        Saving(session.work).save()


def test_a_visitor_has_no_rights(maker: Maker, repository: Repository) -> None:
    """The assigned value is seen in this request, and stored nowhere."""
    session = maker.session(repository.has(maker.sid("a")))
    session["logged_in"] = False
    assert session["logged_in"] is False
    assert Saving(session.work).save() is None


def test_a_new_id_of_the_same_session_brings_its_row_along(maker: Maker, repository: Repository) -> None:
    sid = repository.has(maker.sid("u", "u"), **USER)
    session = maker.session(sid)
    session.regenerate()
    Saving(session.work).save()
    [plan] = repository.plans
    assert (plan.origin, plan.renames, plan.grants) == (sid, repository.rows[sid.digest], True)
    assert set(plan.changes["auth"].sets) == set(USER["auth"])


@pytest.mark.parametrize("user", ["x" * 256, "a\0b"])
def test_a_user_id_that_the_column_cannot_hold_is_refused(maker: Maker, user: str) -> None:
    with pytest.raises(UnsupportedValue):
        maker.session()["_user_id"] = user
    assert maker.minted == []


NOTHING_HIDDEN: frozenset[str] = frozenset()
PARTLY = Gap(whole=False, hidden=frozenset({"language_preference"}))
WHOLE = Gap(whole=True, hidden=NOTHING_HIDDEN)


@pytest.fixture
def session(maker: Maker, repository: Repository) -> Session:
    """Return the session of a visitor."""
    return maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}, translation={"input_text": "x"}))


def test_what_is_carried_is_as_the_request_sees_it(session: Session) -> None:
    session["theme"] = "dark"
    session["lang"] = ["en"]
    session["lang"].append("ja")
    assert carry(session.work, ["ui"]) == {"lang": b'["en","ja"]', "theme": b'"dark"'}
    assert carry(session.work, [], ["translation_state"]) == {"input_text": b'"x"'}
    assert carry(session.work, [], ["a feature of another application"]) == {}


def test_a_default_and_a_csrf_token_are_no_data(session: Session) -> None:
    SpecialKeys(session).bring_token("of an old session")
    session.work.load().defaulted.add("lang")
    assert carry(session.work, ["auth", "ui"]) == {}
    session["lang"] = "ja"
    assert carry(session.work, ["auth", "ui"]) == {"lang": b'"ja"'}


@pytest.mark.parametrize(
    ("gap", "is_beneath", "hides"), [(WHOLE, False, True), (PARTLY, False, False), (PARTLY, True, True)]
)
def test_what_is_not_shown_may_be_there(session: Session, gap: Gap, is_beneath: bool, hides: bool) -> None:
    loaded = session.work.load()
    beneath = CategoryCopy(1, {"lang": b'"ja"'} if is_beneath else {})
    loaded.categories["ui"] = loaded.of("ui")._replace(gap=gap, copy=beneath)
    assert hides_some(session.work, ["ui", "translation"]) is hides
    assert not hides_some(session.work, ["translation"])


def test_what_is_known_as_a_whole_is_stored_anew(session: Session, maker: Maker) -> None:
    restart(session.work, ANONYMOUS, ["ui"], {"theme": b'"dark"'})
    assert session.work.target is maker.minted[0]
    assert session.work.now.assigned == {"lang": b'"ja"', "theme": b'"dark"'}
    assert session.work.carries == ()
    assert dict(session) == {"lang": "ja", "theme": "dark"}


def test_what_may_not_be_known_as_a_whole_is_brought_by_the_journal(session: Session, repository: Repository) -> None:
    repository.scope.level = 1
    session["theme"] = "dark"
    restart(session.work, ANONYMOUS, ["ui", "translation"])
    assert list(session.work.carries) == ["ui", "translation"]
    assert session.work.now.assigned == {"theme": b'"dark"'}
    assert dict(session) == {"lang": "ja", "input_text": "x", "theme": "dark"}
    for categories in (["ui"], ["ui", "translation"]):  # once it is left behind it is not brought by a later id
        restart(session.work, ANONYMOUS, categories)
    assert list(session.work.carries) == ["ui"]


def test_a_session_that_cannot_be_verified_is_granted_nothing(maker: Maker, repository: Repository) -> None:
    """The database takes writes again, and has not been asked by this request."""
    sid = repository.has(maker.sid("u", "u"), **USER)
    repository.verdicts[sid.digest] = Verdict.UNVERIFIABLE
    with pytest.raises(GrantRefused):
        maker.session(sid).regenerate()


@pytest.mark.parametrize(
    ("kind", "auth", "key", "change", "is_granted"),
    [
        ("a", {}, "user_role", lambda value: value.append("admin"), False),  # a visitor has none
        ("u", {"user": {"id": "7"}}, "user", lambda value: value.update(id="8"), False),  # another user
        ("u", {"user": {"id": "7"}}, "user", lambda value: value.update(name="x"), True),
    ],
)
def test_a_change_inside_of_a_value_names_no_other_user(
    maker: Maker, repository: Repository, kind: str, auth: Any, key: str, change: Any, is_granted: bool
) -> None:
    """Each is reported; assigning the value would be a sign-in."""
    session = maker.session(repository.has(maker.sid("s", kind), auth=auth))
    if not auth:
        session[key] = []
    change(session[key])
    Saving(session.work).save()
    stored = [plan.changes["auth"].sets for plan in repository.plans if "auth" in plan.changes]
    assert [set(sets) for sets in stored if sets] == ([{key}] if is_granted else [])
    assert [refused[:2] for refused in repository.refusals] == ([] if is_granted else [("auth", key)])


def test_removing_all_that_made_a_session_more_than_a_visitors_is_a_sign_out(
    maker: Maker, repository: Repository
) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), auth={"user_role": "editor", "daily_limit": 1}))
    del session["user_role"]
    assert session.ended


@pytest.mark.parametrize(
    ("verdict", "is_shadow"), [(Verdict.VALID, False), (Verdict.DEAD, True), (Verdict.UNVERIFIABLE, True)]
)
def test_forms_of_a_session_that_is_over_are_dead(
    maker: Maker, repository: Repository, verdict: Verdict, is_shadow: bool
) -> None:
    sid = repository.has(maker.sid("u", "u"), **USER)
    repository.verdicts[sid.digest] = verdict
    assert maker.session(sid)["csrf_token"] == sid.csrf_token(shadow=is_shadow)


@pytest.mark.parametrize(
    ("is_up", "is_read", "word"), [(True, True, None), (False, True, "clear"), (False, False, None)]
)
def test_while_the_database_is_down_a_page_shows_a_visitor_whom_flask_login_would_sign_in(
    maker: Maker, repository: Repository, is_up: bool, is_read: bool, word: str | None
) -> None:
    """The remember cookie stays for the time after; what is no page is told the truth."""
    context = replace(maker.context, remember_cookie=lambda request: RememberCookie(is_there=True, is_read=is_read))
    if not is_up:
        repository.lose_database()
    assert Session(context, maker.sid("a")).get("_remember") == word


def remembered(maker: Maker, cookie: SessionId | None) -> Session:
    """Return the session of a browser that has a remember cookie as well."""
    return Session(replace(maker.context, remember_cookie=lambda request: RememberCookie(True, True)), cookie)


@pytest.mark.parametrize(
    "leave",
    [Session.sign_out, Session.clear, lambda session: session.pop("_user_id", None)],
    ids=["sign_out", "clear", "pop"],
)
@pytest.mark.parametrize("verdict", [Verdict.VALID, Verdict.DEAD, Verdict.UNVERIFIABLE])
def test_i35_no_sign_out_is_undone_by_the_remember_cookie(
    maker: Maker, repository: Repository, leave: Callable[[Session], object], verdict: Verdict
) -> None:
    """It goes however the view signs the user out. A visitor's clear() leaves it: a login page does so before the user
    is known."""
    sid = repository.has(maker.sid("u", "u"), **USER)
    repository.verdicts[sid.digest] = verdict
    user, visitor = remembered(maker, sid), remembered(maker, repository.has(maker.sid("a"), ui={"lang": "ja"}))
    leave(user)
    assert user.transient == {"_remember": "clear"}
    visitor.clear()
    assert visitor.transient == {}


@pytest.mark.parametrize(
    ("was_displaced", "word", "goes"), [(True, "clear", True), (False, None, False), (None, "clear", False)]
)
def test_a_remember_cookie_does_not_bring_back_what_ended_for_a_limit(
    maker: Maker,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    was_displaced: bool | None,
    word: str | None,
    goes: bool,
) -> None:
    """Else two browsers would end each other's session with every page. Without an answer it stays for later."""
    monkeypatch.setattr(repository, "was_displaced", lambda digest, scope: was_displaced, raising=False)
    sid = repository.has(maker.sid("u", "u"), **USER)
    repository.verdicts[sid.digest] = Verdict.DEAD
    session = remembered(maker, sid)
    assert session.get("_remember") == word
    assert session.transient == ({"_remember": "clear"} if goes else {})


def test_a_csrf_token_is_given_no_other_value(maker: Maker, repository: Repository) -> None:
    """Nor is it stored, or one of the keys: a copy of the session has none."""
    sid = repository.has(maker.sid("a"), ui={"lang": "ja"})
    session = maker.session(sid)
    session["csrf_token"] = "mine"
    assert session["csrf_token"] == sid.csrf_token()
    assert dict(session) == {"lang": "ja"}
    assert Saving(session.work).save() is None
