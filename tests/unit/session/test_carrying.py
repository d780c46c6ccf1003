"""What goes along to another id, and what the journal has to bring there."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.ids import ANONYMOUS
from flask_langpont_session.policy.records import Gap, Verdict
from flask_langpont_session.policy.values import CategoryCopy
from flask_langpont_session.session.carrying import carry, hides_some, restart
from flask_langpont_session.session.mapping import Session
from tests.support.fakes import Maker, Repository

NOTHING_HIDDEN: frozenset[str] = frozenset()
PARTLY = Gap(whole=False, hidden=frozenset({"language_preference"}))
WHOLE = Gap(whole=True, hidden=NOTHING_HIDDEN)


@pytest.fixture
def session(maker: Maker, repository: Repository) -> Session:
    """That of a visitor."""
    return maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}, translation={"input_text": "x"}))


def test_what_is_carried_is_as_the_request_sees_it(session: Session) -> None:
    session["theme"] = "dark"
    session["lang"] = ["en"]
    session["lang"].append("ja")
    assert carry(session.work, ["ui"]) == {"lang": b'["en","ja"]', "theme": b'"dark"'}
    assert carry(session.work, [], ["translation_state"]) == {"input_text": b'"x"'}
    assert carry(session.work, [], ["a feature of another application"]) == {}


def test_a_default_and_a_csrf_token_are_no_data(session: Session) -> None:
    session.special.bring_token("of an old session")
    session.work.load().defaulted.add("lang")
    assert carry(session.work, ["auth", "ui"]) == {}
    session["lang"] = "ja"
    assert carry(session.work, ["auth", "ui"]) == {"lang": b'"ja"'}


@pytest.mark.parametrize(
    ("gap", "is_beneath", "hides"), [(WHOLE, False, True), (PARTLY, False, False), (PARTLY, True, True)]
)
def test_what_is_not_shown_may_be_there(session: Session, gap: Gap, is_beneath: bool, hides: bool) -> None:
    loaded = session.work.load()
    loaded.gaps["ui"] = gap
    if is_beneath:
        loaded.beneath["ui"] = CategoryCopy(1, {"lang": b'"ja"'})
    assert hides_some(session.work, ["ui", "translation"]) is hides
    assert not hides_some(session.work, ["translation"])


def test_what_is_known_as_a_whole_is_stored_anew(session: Session, maker: Maker) -> None:
    restart(session.work, ANONYMOUS, ["ui"], {"theme": b'"dark"'})
    assert session.work.ids.target is maker.minted[0]
    assert session.work.now.assigned == {"lang": b'"ja"', "theme": b'"dark"'}
    assert session.work.ids.identity.carries == ()
    assert dict(session) == {"lang": "ja", "theme": "dark"}


def test_what_may_not_be_known_as_a_whole_is_brought_by_the_journal(session: Session, repository: Repository) -> None:
    repository.scope.level = 1
    session["theme"] = "dark"
    restart(session.work, ANONYMOUS, ["ui", "translation"])
    assert list(session.work.ids.identity.carries) == ["ui", "translation"]
    assert session.work.now.assigned == {"theme": b'"dark"'}
    assert dict(session) == {"lang": "ja", "input_text": "x", "theme": "dark"}
    for categories in (["ui"], ["ui", "translation"]):  # once it is left behind it is not brought by a later id
        restart(session.work, ANONYMOUS, categories)
    assert list(session.work.ids.identity.carries) == ["ui"]


def test_without_another_id_nothing_is_brought(session: Session, repository: Repository, maker: Maker) -> None:
    repository.scope.level = 1
    restart(session.work, None, ["ui"])
    assert (session.work.ids.identity.carries, maker.minted) == ((), [])
    assert maker.forgotten == 1


def test_an_anonymous_shadow_stays_one(maker: Maker, repository: Repository) -> None:
    sid = repository.has(maker.sid("u", "u"), ui={"lang": "ja"})
    repository.verdicts[sid.digest] = Verdict.DEAD
    session = maker.session(sid)
    session.work.load()
    restart(session.work, None, [])
    assert session.work.load().verdict is Verdict.DEAD
