"""The mapping that a view sees: what is read, when, and what it says of itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.exceptions import ConfigError, UnsupportedValue
from flask_langpont_session.policy.levels import Kept
from flask_langpont_session.policy.loaded import Verdict
from flask_langpont_session.policy.plans import Saved
from flask_langpont_session.session.mapping import Session
from tests.support.fakes import Maker, Repository, settings_in

DATA: dict[str, dict[str, Any]] = {
    "auth": {"_user_id": "7"},
    "ui": {"lang": "ja"},
    "data": {"cart": [1]},
    "translation": {"input_text": "x"},
}


def test_nothing_is_read_before_a_stored_key_is_touched(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a")))
    session["theme"] = "dark"
    session.permanent = True
    assert session["csrf_token"]
    assert "_permanent" in session
    assert repository.loads == []
    assert session.get("lang") is None
    assert len(repository.loads) == 1


def test_everything_comes_with_the_first_key(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("u", "u"), **DATA))
    assert (session["_user_id"], session["lang"], session["input_text"]) == ("7", "ja", "x")
    assert sorted(session) == ["_user_id", "cart", "input_text", "lang"]
    assert len(session) == 4
    assert len(repository.loads) == 1


def test_a_cookie_is_read_when_it_is_needed_and_once(maker: Maker) -> None:
    asked: list[int] = []
    session = Session(replace(maker.context, cookie=asked.append), 1)
    assert asked == []
    assert "lang" not in session
    assert session.new
    assert asked == [1]


class Keys(StrEnum):
    THEME = "theme"


def test_a_key_of_an_enumeration_is_its_text(maker: Maker) -> None:
    session = maker.session()
    session[Keys.THEME] = "dark"
    assert [type(key) for key in session.work.now.assigned] == [str]
    assert session["theme"] == "dark"


def test_a_key_is_text(maker: Maker) -> None:
    session = maker.session()
    for wrong in (1, None, b"a"):
        assert wrong not in session  # type: ignore[comparison-overlap]
        with pytest.raises(KeyError):
            session[wrong]  # type: ignore[index]
        with pytest.raises(UnsupportedValue):
            session[wrong] = 1  # type: ignore[index]


def test_what_was_removed_is_gone_and_what_was_set_is_there(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), **DATA))
    del session["lang"]
    session["theme"] = "dark"
    assert "lang" not in session
    assert (session["theme"], session.get("lang", "default")) == ("dark", "default")
    with pytest.raises(KeyError):
        del session["lang"]


def test_the_last_key_is_removed_first_as_of_a_dict(maker: Maker) -> None:
    """An empty session raises a KeyError, as an empty dict does."""
    session = maker.session()
    session.update(lang="jp", cart=[1], theme="dark")
    assert [session.popitem() for _ in range(3)] == [("theme", "dark"), ("cart", [1]), ("lang", "jp")]
    with pytest.raises(KeyError, match="empty"):
        session.popitem()


def test_an_increment_is_seen_at_once_and_added_by_the_server(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), translation={"usage_count": 2}))
    assert session.increment("usage_count") == 3
    assert session.increment("usage_count", 2) == session["usage_count"] == 5
    assert session.flush() is Kept.NOWHERE  # this repository does not say where it is
    [plan] = repository.plans
    assert plan.changes["translation"].increments == {"usage_count": 3}
    assert plan.changes["translation"].sets == {}


@pytest.mark.parametrize(
    ("key", "by"), [("usage_count", 1.5), ("usage_count", 10**18), ("daily_limit", 1), ("lang", 1), ("full", 1)]
)
def test_what_cannot_be_added_is_refused(maker: Maker, repository: Repository, key: str, by: int) -> None:
    """A fraction, too much at once, a key of auth, a value that is no number, and what would leave 64 bits."""
    session = maker.session(repository.has(maker.sid("a"), **{**DATA, "data": {"full": 2**63 - 1}}))
    with pytest.raises(UnsupportedValue):
        session.increment(key, by)


def test_what_is_added_to_a_number_that_was_just_assigned_is_part_of_it(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), translation={"usage_count": 2}))
    session["usage_count"] = 10
    assert session.increment("usage_count") == 11
    session.flush()
    change = repository.plans[0].changes["translation"]
    assert (change.sets, change.increments) == ({"usage_count": b"11"}, {})


@pytest.mark.parametrize(("max_age", "is_fresh"), [(None, True), (60, True), (59, False)])
def test_a_proof_may_have_to_be_recent(
    maker: Maker, repository: Repository, max_age: float | None, is_fresh: bool
) -> None:
    sid = repository.has(maker.sid("u", "u"), auth={"_user_id": "7"})
    row = repository.rows[sid.digest]
    repository.rows[sid.digest] = replace(row, read_at=row.created_at + 60_000)
    assert maker.session(sid).fresh(max_age=max_age) is is_fresh


def test_flush_says_where_the_worst_of_it_is(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a")))
    assert session.flush() is None
    session["lang"], session["input_text"] = "en", "y"
    repository.saves.save = lambda plan, scope: _saved(plan, ui=Kept.REDIS, translation=Kept.JOURNAL)  # type: ignore[method-assign]
    assert session.flush() is Kept.JOURNAL
    assert session.kept == {"ui": Kept.REDIS, "translation": Kept.JOURNAL}
    assert session.flush() is None


def _saved(plan, **places: Kept) -> Saved:  # type: ignore[no-untyped-def]
    plan.kept.update(places)
    return Saved(stored=True)


@pytest.mark.parametrize(("verdict", "unverified"), [(Verdict.VALID, False), (Verdict.UNVERIFIABLE, True)])
def test_it_says_whether_it_could_be_verified(
    maker: Maker, repository: Repository, verdict: Verdict, unverified: bool
) -> None:
    sid = repository.has(maker.sid("u", "u"), **DATA)
    repository.verdicts[sid.digest] = verdict
    assert maker.session(sid).unverified is unverified


def test_a_category_is_a_mapping_of_its_own(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), **DATA))
    ui = session.category("ui")
    assert dict(ui) == {"lang": "ja"}
    ui["theme"] = "dark"
    assert session["theme"] == "dark"
    with pytest.raises(KeyError):
        session.category("nothing")


def test_its_repr_has_no_values(maker: Maker, repository: Repository) -> None:
    """It ends up in logs and error pages."""
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "a secret"}))
    session["theme"] = "another secret"
    assert session["lang"]
    assert "secret" not in repr(session)


@pytest.mark.parametrize("way", [Session.copy, copy.copy, copy.deepcopy])
def test_a_copy_is_a_dict_of_its_own(maker: Maker, repository: Repository, way: Callable[[Any], Any]) -> None:
    """D31: whatever is done with it, the session and its user stay. A deep one shares no list with it either."""
    session = maker.session(repository.has(maker.sid("u", "u"), auth={"_user_id": "7"}, ui={"lang": "ja", "tabs": [1]}))
    copied = way(session)
    assert type(copied) is dict and copied == {"_user_id": "7", "lang": "ja", "tabs": [1]}
    copied["lang"] = "en"
    del copied["_user_id"]
    assert (session["lang"], session["_user_id"], session.ended, session.modified) == ("ja", "7", False, False)
    assert (copied["tabs"] is session["tabs"]) is (way is not copy.deepcopy)


def test_joined_with_another_one_the_right_one_counts(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja", "theme": "dark"}))
    assert session | {"lang": "en"} == {"lang": "en", "theme": "dark"}
    assert {"lang": "en", "other": 1} | session == {"lang": "ja", "theme": "dark", "other": 1}
    assert not session.modified


def test_what_is_joined_in_place_is_saved(maker: Maker, repository: Repository) -> None:
    session = same = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja", "theme": "dark"}))
    session |= {"lang": "en"}
    assert session is same
    session.flush()
    assert repository.plans[0].changes["ui"].sets == {"lang": b'"en"'}


def test_a_number_in_an_encrypted_category_cannot_be_added_to(tmp_path: Path) -> None:
    """Redis adds to what it can read; the error names the setting. An increment counts as a use of its key."""
    key = bytes(range(200, 232)).hex()
    repository = Repository(settings_in(tmp_path, ENCRYPTION_KEYS=[key], ENCRYPTED_CATEGORIES=["ui"]))
    maker = Maker(repository)
    session = maker.session(repository.has(maker.sid("a"), ui={"avg_rating": 1}, translation={"usage_count": 1}))
    with pytest.raises(ConfigError, match="ENCRYPTED_CATEGORIES"):
        session.increment("avg_rating")
    assert session.increment("usage_count") == 2
    assert maker.used == ["usage_count"]


def test_a_change_after_the_response_is_warned_of(maker: Maker, caplog: pytest.LogCaptureFixture) -> None:
    """By key; what ends the whole session, by no key."""
    session = maker.session()
    session["lang"] = "ja"
    session.work.is_closed = True
    for change in (lambda: session.update(theme="x"), lambda: session.increment("visits"), session.clear):
        change()
    said = [record.getMessage().split(" was changed")[0] for record in caplog.records]
    assert said == ["session['theme']", "session['visits']", "session"]
