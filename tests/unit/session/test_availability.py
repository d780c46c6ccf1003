"""Features: whether each can be used, and what it gets."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.levels import Behaviour
from flask_langpont_session.policy.loaded import Gap
from flask_langpont_session.session.availability import explain, is_available
from flask_langpont_session.session.mapping import Session
from tests.support.fakes import Maker, Repository

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def session(maker: Maker, repository: Repository) -> Session:
    return maker.session(repository.has(maker.sid("a"), ui={"lang": "ja"}))


@pytest.mark.parametrize(
    ("gap", "available"),
    [
        (None, True),
        (Gap(whole=True, hidden=NOTHING), False),
        (Gap(whole=False, hidden=NOTHING), True),
        (Gap(whole=False, hidden=NOTHING, guesses=frozenset({"lang"})), False),
        (Gap(whole=False, hidden=NOTHING, guesses=frozenset({"theme"})), True),
    ],
    ids=["all of it was read", "none", "some", "a key of it is a guess", "a key of another feature is"],
)
def test_what_could_not_be_read_cannot_be_used(
    session: Session, repository: Repository, gap: Gap | None, available: bool
) -> None:
    if gap is not None:
        loaded = session.work.load()
        loaded.categories["ui"] = loaded.of("ui")._replace(gap=gap)
    assert is_available(session.work, repository.table.features["language_preference"]) is available


def test_what_the_table_disables_cannot_be_used(session: Session, repository: Repository) -> None:
    feature = repository.table.features["statistics"]
    for level in range(5):
        repository.scope.level = level
        is_disabled = repository.fallback.behaviour(feature, "a", level) is Behaviour.DISABLE_FEATURE
        assert is_available(session.work, feature) is not is_disabled
    assert is_disabled


def test_every_feature_is_explained_with_its_source(session: Session, repository: Repository) -> None:
    reports = {report.feature: report for report in explain(session.work)}
    assert reports.keys() == repository.table.features.keys()
    language = reports["language_preference"]
    assert (language.category, language.behaviour, language.source, language.available) == (
        "ui",
        Behaviour.PRIMARY,
        "primary",
        True,
    )
    assert reports["csrf_protection"].source == "request"
