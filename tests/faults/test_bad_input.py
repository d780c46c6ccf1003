"""Records and rows that another program spoilt: no user sees an error or another's data, and no store is blamed for it.

Cookie values are in ``tests/integration/test_cookie_rules.py``, session values in ``test_values.py`` there, bytes of
values and configuration in ``tests/unit/policy/test_serializer.py`` and ``config/test_settings.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from tests.integration.behind import key, outcomes
from tests.integration.conftest import parts
from tests.support.auth_records import PARTS, say
from tests.support.values import UNREADABLE

from .matrix import REDIS_ROWS
from .matrix_faults import forget_what_was_read
from .matrix_site import Site, Visitor
from .matrix_sql_faults import operator

ANY_ROW = pytest.mark.parametrize(("row", "engine", "database"), [(REDIS_ROWS[0], "valkey", "sqlite")])
FAR = str(36**9 - 1)

METADATA: Mapping[str, str] = {
    "@d of another": "A" * 43, "@d empty": "", "@v text": "abc", "@v negative": "-1", "@v huge": str(2**70),
    "@v float": "1.5", "@live 2": "2", "@live text": "yes", "@at text": "now", "@at in the future": FAR,
    "@i text": "later", "@i in the future": FAR, "@x text": "never", "@x passed": "1", "@e text": "x",
    "@e of another time": "99", "@c text": "x", "@u of another": "somebody", "@unknown": "1",
}  # fmt: skip
"""Field of the package's own, and what it was set to."""

Damage = Callable[[Any, str], object]


def damages(field: str) -> dict[str, Damage]:
    """Ways to spoil a record in Redis.

    :param field: a session key of it, whose value is spoilt.
    """

    def value_of(data: bytes) -> Damage:
        return lambda client, name: client.hset(name, field, data)

    def own_field(what: str, value: str) -> Damage:
        own = what.partition(" ")[0]
        return lambda client, name: say(client, name, {own: value}) if own in PARTS else client.hset(name, own, value)

    return {
        **{f"value: {what}": value_of(data) for what, data in UNREADABLE.items()},
        **{what: own_field(what, value) for what, value in METADATA.items()},
        "no fields of ours": lambda client, name: client.hdel(name, "@m", "@u"),
        "a text": lambda client, name: client.set(name, "x"),
        "a set": lambda client, name: client.pipeline().delete(name).sadd(name, "x").execute(),
        "a stream": lambda client, name: client.pipeline().delete(name).xadd(name, {"a": "b"}).execute(),
        "a name that is no text": lambda client, name: client.hset(name, b"\xff\xfe", b"1"),
    }


def assert_well(site: Site) -> None:
    """No breaker, no level, no failure of a store."""
    state = parts(site.app)
    assert (state.health.level, state.health.open_stores()) == (0, frozenset())
    assert outcomes(site.app, "primary") | outcomes(site.app, "database") <= {"ok", "miss"}


def looks(visitor: Visitor) -> list[Any]:
    """Return the session as three pages show it, with two writes between: a read must not spoil the record for the
    next."""
    shown = [visitor.read(), visitor.read()]
    written = [visitor.write("theme"), visitor.write("theme")]
    shown.append(visitor.read())
    assert {answer.status for answer in (*shown, *written)} == {200}, shown
    assert {answer.cookie for answer in (*shown, *written)} == {None}, shown
    return [answer.shown for answer in shown]


@ANY_ROW
@pytest.mark.parametrize("category", ["auth", "ui"])
def test_a_record_that_was_spoilt_in_redis(site: Site, category: str) -> None:
    """The user stays signed in as the same user; of ui what can be read is shown; the next write is kept."""
    for what, damage in damages("session_token" if category == "auth" else "theme").items():
        visitor = Visitor(site)
        visitor.arrive()
        old = visitor.values["theme"]
        with site.pair.primary.client() as client:
            damage(client, key(visitor.digest, category))
        forget_what_was_read(site)
        for number, shown in enumerate(looks(visitor)):
            assert shown["auth"][0] == visitor.values["user"], what
            assert shown["auth"][1] in (visitor.values["token"], None), what
            assert shown["translation"] == visitor.values["text"], what
            assert shown["ui"] in ((old, None) if number < 2 else (visitor.values["theme"],)), what
    assert_well(site)


@ANY_ROW
def test_a_row_that_was_spoilt_in_the_database(site: Site) -> None:
    """With the row spoilt and nothing in Redis, the user is the one that this worker knows from before, or there is
    none."""
    payloads = {
        "nothing": "", "no JSON": "{", "a list": "[]", "a number": "1", "null": "null", "of lists": '{"a": [1]}',
        "brackets": "[" * 10_000, "NaN": '{"_user_id": NaN}',
    }  # fmt: skip
    for what, payload in payloads.items():
        visitor = Visitor(site)
        visitor.arrive()
        with operator(site) as connection:
            spoil = sa.text("UPDATE langpont_sessions SET payload = :payload WHERE digest = :digest")
            connection.execute(spoil, {"payload": payload, "digest": visitor.digest})
        with site.pair.primary.client() as client:
            client.delete(key(visitor.digest))
        for shown in looks(visitor):
            assert shown["auth"][0] in (visitor.values["user"], None), what  # as this worker knows it, or none
    state = parts(site.app)
    assert (state.health.level, state.health.open_stores()) == (0, frozenset())
