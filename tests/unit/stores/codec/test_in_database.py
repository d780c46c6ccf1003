"""A row belongs to its session and version, as a whole. That a sealed database is a database is told by
``tests/integration/test_database.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import Raw, json

from devservers.processes import LONG
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import AuthRow, Limit
from flask_langpont_session.stores.sql import tables
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.rows import Rows
from tests.support.codecs import sealing
from tests.support.fake_sql import ROW
from tests.support.fake_sql import stored as as_stored

DIGEST, ANOTHER, THIRD = "h" * 43, "i" * 43, "j" * 43
PAYLOAD = {"_user_id": b'"7"', "user_role": b'"marzipan"'}
codec = sealing("auth")
LIVES: dict[str, Any] = {"idle_ms": 60_000, "absolute_ms": 600_000}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Yield a database in a file."""
    engine = make_engine(sa.make_url(f"sqlite:///{tmp_path / 'rows.sqlite3'}"), LONG)
    made = Database(engine, timeout=LONG, codec=codec)
    made.upkeep.create_tables()
    yield made
    made.close()


def stored(database: Database) -> str:
    with database.connections.reading() as connection:
        return str(connection.execute(sa.text("SELECT payload FROM langpont_sessions")).scalars().all())


def create(database: Database, digest: str, payload: Any = PAYLOAD, limit: Limit | None = None) -> AuthRow:
    created = database.create(digest, user_id="7", payload=payload, limit=limit, **LIVES)
    assert created is not None
    return created.row


def test_every_way_to_make_and_change_a_row(database: Database) -> None:
    """Each returns the row as it is known here, and each leaves nothing that can be read."""
    row: AuthRow | None = create(database, DIGEST)
    assert row is not None and (row.version, row.payload) == (1, PAYLOAD)
    more = {**row.payload, "daily_limit": b"9"}
    row = database.update(DIGEST, seen=1, payload=more, user_id="7", idle_ms=60_000)
    assert row is not None and (row.version, row.payload) == (2, more)
    row = database.regenerate(DIGEST, successor=ANOTHER, seen=2, payload=row.payload, idle_ms=60_000)
    assert row is not None and (row.digest, row.version, row.payload) == (ANOTHER, 1, more)
    assert create(database, THIRD, limit=Limit(5, True)).payload == PAYLOAD
    adopted = database.adopt("k" * 43, note="n" * 43, note_ms=1000, user_id="8", payload=PAYLOAD, **LIVES)
    assert adopted is not None and adopted.payload == PAYLOAD
    assert "marzipan" not in stored(database)
    for digest, payload in ((ANOTHER, more), (THIRD, PAYLOAD)):
        loaded, described = database.load(digest), database.describe(digest, LONG)
        assert loaded is not None and loaded.payload == payload
        assert described is not None and described.row.payload == payload
    found = database.load_many([DIGEST, ANOTHER, THIRD], LONG)
    assert found.damaged == frozenset() and found.rows[ANOTHER].payload == more
    assert not found.rows[DIGEST].live and found.rows[DIGEST].payload == {**PAYLOAD, "daily_limit": b"9"}
    assert [row.payload for row in database.sessions_of("8")] == [PAYLOAD]
    assert [found.row.payload for found in database.devices.of_user("8")] == [PAYLOAD]
    assert more in [row.payload for row in database.changed_since(1_000_000).rows]
    assert database.load("x" * 43) is None and database.describe("x" * 43, LONG) is None
    assert database.update(DIGEST, seen=7, payload=more, user_id="7", idle_ms=60_000) is None


def test_a_row_that_was_changed_behind_its_back_is_damaged(database: Database) -> None:
    """It raises, or is left out of a list; its user is shown it, to end it. What is dead stays dead."""
    database.create(DIGEST, user_id="7", payload=PAYLOAD, **LIVES)
    database.create(ANOTHER, user_id="7", payload=PAYLOAD, **LIVES)
    with database.connections.writing() as connection:
        payload = connection.execute(
            sa.text("SELECT payload FROM langpont_sessions WHERE digest = :d"), {"d": ANOTHER}
        ).scalar_one()
        connection.execute(
            sa.text("UPDATE langpont_sessions SET payload = :p WHERE digest = :d"), {"p": payload, "d": DIGEST}
        )
    for ask in (lambda: database.load(DIGEST), lambda: database.describe(DIGEST, LONG)):
        with pytest.raises(StoreError) as caught:
            ask()
        assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "UnreadablePayload")
        assert not caught.value.concerns_health
    assert [row.digest for row in database.sessions_of("7")] == [ANOTHER]
    assert {found.row.digest: found.row.payload for found in database.devices.of_user("7")} == {
        DIGEST: {},
        ANOTHER: PAYLOAD,
    }
    assert [row.digest for row in database.changed_since(1_000_000).rows] == [ANOTHER]
    found = database.load_many([DIGEST, ANOTHER], LONG)
    assert (set(found.rows), found.damaged) == ({ANOTHER}, {DIGEST})
    assert database.kill(DIGEST) == 2
    dead = database.load(DIGEST)
    assert dead is not None and not dead.live and dead.payload == {}


def test_a_payload_of_an_older_version_is_damaged() -> None:
    """A payload is damaged if all or one of its values is of an older version."""
    rows = Rows(codec)
    first = codec.row_to_store(ROW.digest, PAYLOAD, 1)
    second = codec.row_to_store(ROW.digest, {**PAYLOAD, "user_role": b'"user"'}, 2)

    def read(payload: Any, version: int) -> AuthRow:
        text = json.encode({key: Raw(value) for key, value in payload.items()}).decode()
        return rows.value(as_stored(version=version, payload=text))

    assert read(first, 1).payload == PAYLOAD
    for payload in (first, {**second, "user_role": first["user_role"]}, {**second, "user_role": b'"admin"'}):
        with pytest.raises(StoreError):
            read(payload, 2)
    assert read(second, 2).payload["user_role"] == b'"user"'


def test_every_statement_that_raises_the_version_of_a_living_row_writes_its_payload() -> None:
    """Values belong to the version: what raises it alone would make the row unreadable."""
    statements = {name: one for name, one in vars(tables).items() if isinstance(one, sa.Update)}
    texts = {name: str(one) for name, one in statements.items()}
    raising = {name: text for name, text in texts.items() if "version=(" in text.replace(" ", "")}
    assert {"UPDATE", "KILL", "RENAME"} <= raising.keys()
    for name, text in raising.items():
        assert "payload=" in text.replace(" ", "") or "live=" in text.replace(" ", ""), name
