"""What applications do with a session because Flask's own one is a dict."""

from __future__ import annotations

from tests.support.fakes import Maker, Repository


def test_a_copy_is_a_dict_of_its_own(maker: Maker, repository: Repository) -> None:
    session = maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}))
    copy = session.copy()
    assert type(copy) is dict
    copy["lang"] = "en"
    assert session["lang"] == "ja"


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
