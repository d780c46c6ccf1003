"""The level that is derived from what a site says."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.ops.diagnosis.findings import Unknown
from flask_langpont_session.ops.diagnosis.health_page import Page
from flask_langpont_session.ops.diagnosis.stores_now import StoreAnswer
from flask_langpont_session.ops.diagnosis.watching import Look
from flask_langpont_session.stores.host.summary import Waiting

OK, LOST = StoreAnswer(0.001, None), StoreAnswer(None, "it is lost")
PAGE = "http://shop.example/healthz"


def page(level: int, **used: bool) -> Page:
    return Page(PAGE, 0.001, {"level": level, "stores": {"primary": {"read": True, "write": True} | used}})


def refusing_sign_ins() -> Page:
    return page(0)._replace(report={**page(0).report, "logins": False})


def look(*pages: Page, **of: Any) -> Look:
    stores = {"primary": of.get("primary", OK), "replica": of.get("replica", OK), "database": of.get("database", OK)}
    return Look(0.0, pages, stores, of.get("age", 0.0), 1800.0, of.get("journal", Waiting(0, None)), 1)


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (look(), 0),
        (look(primary=LOST), 1),
        (look(primary=LOST, replica=LOST), 2),
        (look(primary=LOST, replica=LOST, age=1800.0), 3),
        (look(primary=LOST, replica=LOST, database=LOST), 4),
        (look(database=LOST), 0),
        (look(page(2)), 2),
        (look(page(0), page(1), primary=LOST, replica=LOST), 1),
        (look(Page(PAGE, 0.1, {}, "it does not answer"), primary=LOST), 1),
    ],
)
def test_the_level_is_the_workers_where_any_says_one(seen: Look, level: int) -> None:
    assert seen.level == level


@pytest.mark.parametrize(
    "seen",
    [
        look(database=LOST),
        look(page(1)),
        look(refusing_sign_ins()),
        look(Page(PAGE, 0.1, {}, "it does not answer")),
        look(journal=Unknown("it cannot be read")),
    ],
)
def test_whatever_is_wrong_is_not_well(seen: Look) -> None:
    assert not seen.is_well


@pytest.mark.parametrize(
    ("seen", "refused"),
    [
        (look(), False),
        (look(primary=LOST, replica=LOST), False),
        (look(database=LOST), True),
        (look(page(0), database=LOST), False),
        (look(page(0), Page(PAGE, 0.1, {"level": 0, "stores": {}, "logins": False})), True),
    ],
)
def test_whether_sign_ins_are_refused_is_said_by_the_workers_where_any_speaks(seen: Look, refused: bool) -> None:
    """At level 0 sign-ins may be refused, too."""
    assert seen.refuses_sign_ins is refused


def test_a_level_of_each_shard_is_of_its_own() -> None:
    """The worst counts."""
    stores = {"primary:1": OK, "primary:2": LOST, "replica:1": OK, "database": OK}
    assert Look(0.0, (), stores, 0.0, 1800.0, None, None).level == 2
