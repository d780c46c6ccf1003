"""Changes of one request: what a save is told of each, and how much a category may hold."""

from __future__ import annotations

import pytest

from flask_langpont_session.exceptions import SessionTooLarge
from flask_langpont_session.policy.categories import MAX_FIELDS
from flask_langpont_session.policy.loaded import Former, Gap
from flask_langpont_session.session.mapping import Session
from flask_langpont_session.session.saving import Saving
from tests.support.fakes import Maker, Repository


def hide(session: Session, gap: Gap) -> None:
    """Have a part of the category ``ui`` be one that could not be read."""
    loaded = session.work.own_loaded()
    loaded.categories["ui"] = loaded.of("ui")._replace(gap=gap)


def test_what_could_not_be_read_is_not_based_on_what_is_there(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={}))
    hide(session, Gap(whole=False, hidden=frozenset({"language_preference"})))
    assert session.get("lang") is session.get("theme") is None
    session["lang"], session["theme"] = "ja", "dark"
    Saving(session.work).save()
    change = repository.plans[0].changes["ui"]
    assert (change.unseen, change.seen) == ({"lang"}, {"theme"})


def test_an_increment_goes_where_the_number_is_and_is_sent_once(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"visits": 3}, data={}))
    session.work.own_loaded().former = {"visits": Former("ui", True)}
    assert session.increment("visits") == 4
    Saving(session.work).save()
    assert repository.plans[0].changes["ui"].increments == {"visits": 1}
    assert Saving(session.work).save() is None


def test_a_category_holds_so_many_bytes_and_fields(maker: Maker, repository: Repository) -> None:
    """Stored values count, deleted ones do not, and a refused value changes nothing."""
    most = repository.settings.max_category_bytes
    session = maker.session(repository.has(maker.sid("a"), data={"stored": "x" * 98}))  # 106 bytes with its name
    assert "stored" in session
    session["cart"] = "x" * (most - 106 - len('cart""'))
    with pytest.raises(SessionTooLarge, match=f"{most + 1} bytes, {most} are allowed"):
        session["cart"] = "x" * (most - 106 - len('cart""') + 1)
    assert len(session["cart"]) == most - 112
    del session["cart"]
    for number in range(MAX_FIELDS - 1):
        session[f"key{number}"] = 1
    with pytest.raises(SessionTooLarge, match=f"more than {MAX_FIELDS} fields"):
        session["one more"] = 1
    del session["stored"]
    session["one more"] = 1


SPOILT = object()


@pytest.mark.parametrize(
    ("is_set_anew", "added", "kept"),
    [(False, SPOILT, None), (True, SPOILT, b"[1]"), (False, "large", None)],
    ids=["stored and spoilt", "set and spoilt", "grown too large"],
)
def test_a_value_that_cannot_be_stored_any_more_keeps_its_last_form(
    maker: Maker, repository: Repository, is_set_anew: bool, added: object, kept: bytes | None
) -> None:
    """It is reported, and takes no neighbour with it."""
    session = maker.session(repository.has(maker.sid("a"), data={"cart": [1], "wishes": [1]}))
    if is_set_anew:
        session["cart"] = [1]
    session["cart"].append("x" * repository.settings.max_category_bytes if added == "large" else added)
    session["wishes"].append(2)
    Saving(session.work).save()
    sets = {"wishes": b"[1,2]"} | ({} if kept is None else {"cart": kept})
    assert [plan.changes["data"].sets for plan in repository.plans] == [sets]
    assert [refused[:2] for refused in repository.refusals] == [("data", "cart")]


def test_a_spoilt_value_is_taken_along_as_it_was_stored_last(maker: Maker, repository: Repository) -> None:
    """The sign-in is not spoilt by it."""
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": ["ja"]}))
    session["lang"].append(SPOILT)
    session["_user_id"] = "7"
    assert session["lang"] == ["ja"]
    Saving(session.work).save()
    assert repository.plans[0].changes["ui"].sets == {"lang": b'["ja"]'}
