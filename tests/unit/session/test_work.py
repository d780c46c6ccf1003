"""The keys of a session as a whole."""

from __future__ import annotations

from flask_langpont_session.policy.categories import AUTHENTICATED_AT
from flask_langpont_session.session.work import present, readable_keys
from tests.support.fakes import Maker, Repository


def test_stored_assigned_added_and_removed_keys_make_it_up(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}, data={"cart": [1]}))
    session["theme"] = "dark"
    session.increment("usage_count")
    del session["cart"]
    assert present(session.work) == {"lang": b'"ja"', "usage_count": None, "theme": b'"dark"'}


def test_what_was_saved_stays_and_a_time_that_the_package_notes_is_not_shown(
    maker: Maker, repository: Repository
) -> None:
    auth = {"_user_id": "7", AUTHENTICATED_AT: 5}
    session = maker.session(repository.has(maker.sid("u", "u"), auth=auth))
    session["lang"] = "en"
    session.flush()
    assert list(present(session.work)) == ["_user_id", "lang"]


def test_a_value_that_cannot_be_read_counts_as_absent_and_is_counted(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja", "theme": "dark"}))
    session.work.own_loaded().show("ui", {"lang": b"not JSON", "theme": b'"dark"'})
    assert readable_keys(session.work) == ["theme"]
    assert repository.recorder.counters()["unreadable_values"] == 1
