"""Encryption at rest on real servers: nothing of a session can be read where it is stored, nor put elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.ops.diagnosis.findings import Unknown
from flask_langpont_session.ops.diagnosis.one_session import read_session
from flask_langpont_session.stores.codec.cipher import FORMAT

from .behind import browser, key, sign_in, wait_for_level, wait_until_home
from .conftest import MakeApp, close, cookie_of, on_sqlite, parts

NEW, OLD = bytes(range(200, 232)).hex(), bytes(range(100, 132)).hex()
KEYS = {"ENCRYPTION_KEYS": [NEW]}
MARKER = "Marzipan"
"""Stands in every value of these tests, and nowhere else."""


@pytest.fixture
def raw(primary: Valkey) -> Iterator[Any]:
    """A client that shows bytes."""
    with closing(primary.client(text=False)) as client:
        yield client


def in_redis(client: Any) -> bytes:
    """All that is there: what RDB, AOF and replicas get."""
    hashes = [client.hgetall(name) for name in client.scan_iter() if client.type(name) == b"hash"]
    return b"\n".join(name + b"=" + value for found in hashes for name, value in found.items())


def in_database(url: str) -> bytes:
    """All payloads."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return "\n".join(connection.execute(sa.text("SELECT payload FROM langpont_sessions")).scalars()).encode()


def on_disk(folder: Path) -> bytes:
    """The content of all files."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pid")


def notices(app: Flask, client: Any) -> None:
    """A request finds that Redis is away; without one, that takes until the next look of the monitor."""
    browser(app, client.cookie).get("/who")
    wait_for_level(app, 2)


def talk(client: Any, word: str) -> None:
    """Values of all categories."""
    client.post("/set", json={"lang": word, "input_text": [word], "draft": {"of": word}, "tf_state": word})


MODES: Sequence[tuple[Mapping[str, Any], bool]] = (({}, True), (KEYS, False))
"""Settings, and whether the marker is found: without encryption it has to be, or nothing was looked at."""


@on_sqlite
@pytest.mark.parametrize(("config", "is_found"), MODES, ids=["plain", "encrypted"])
def test_nothing_can_be_read_in_the_stores(
    make_app: MakeApp,
    primary: Valkey,
    raw: Any,
    database_url: str,
    tmp_path: Path,
    config: Mapping[str, Any],
    is_found: bool,
) -> None:
    """Values of a visitor and of a user cannot be read in Redis nor in any database: neither by queries nor in the
    files."""
    word = f"{MARKER} {tmp_path.name}"  # the server's files have what it was told in other tests, too
    app = make_app(DATABASE_URL=database_url, **config)
    visitor = app.test_client()
    talk(visitor, word)
    assert (word.encode() in in_redis(raw)) is is_found
    user = sign_in(app)
    talk(user, word)
    assert (word.encode() in in_database(database_url)) is is_found
    with primary.client() as redis:
        redis.save()
    assert (word.encode() in on_disk(primary.folder)) is is_found
    assert (word.encode() in on_disk(tmp_path)) is (is_found and database_url.startswith("sqlite"))
    for client, name in ((visitor, None), (user, "7")):
        found: Any = client.get("/all").json
        assert found.get("_user_id") == name
        assert [found[key] for key in ("lang", "input_text", "draft", "tf_state")] == [
            word, [word], {"of": word}, word,
        ]  # fmt: skip


@pytest.mark.parametrize(("config", "is_found"), MODES, ids=["plain", "encrypted"])
def test_nothing_can_be_read_in_an_outage(
    make_app: MakeApp, primary: Valkey, raw: Any, tmp_path: Path, config: Mapping[str, Any], is_found: bool
) -> None:
    """Journal, shared copies and whatever lies beside them cannot be read; and the data is merged afterwards."""
    app, sibling = make_app(**config), make_app(**config)
    user = sign_in(app, input_text=f"{MARKER} before")
    for worker in (app, sibling):
        browser(worker, user.cookie).get("/all")
    primary.kill()
    for worker in (app, sibling):
        notices(worker, user)
    user.post("/set", json={"draft": MARKER, "source_lang": f"{MARKER} in the outage"})
    journal = parts(app).backend.journal
    wait_until(lambda: journal.counts()["copies"] > 0, "shared copies")
    assert journal.counts()["writes"] == 2
    assert (MARKER.encode() in on_disk(tmp_path)) is is_found
    seen = browser(sibling, user.cookie).get("/all").json
    assert (seen["draft"], seen["input_text"]) == (MARKER, f"{MARKER} before")
    primary.start()
    wait_until_home(app, sibling)
    assert (MARKER.encode() in in_redis(raw)) is is_found
    assert (MARKER.encode() in on_disk(tmp_path)) is is_found
    assert browser(sibling, user.cookie).get("/all").json["source_lang"] == f"{MARKER} in the outage"


# -- keys that are exchanged -------------------------------------------------------------------------------------------


def with_devices(app: Flask) -> Flask:
    @app.post("/end-others")
    def end_others() -> str:
        return str(app.session_interface.revoke_others().sessions)  # type: ignore[attr-defined]

    return app


def said(caplog: pytest.LogCaptureFixture, setting: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if f"LANGPONT_SESSION_{setting}" in record.getMessage()]


def test_keys_are_exchanged_without_a_logout(make_app: MakeApp, raw: Any) -> None:
    """Keys are exchanged in the order of the how-to; a key that is taken out too early costs what was sealed by it,
    and no error page."""
    before = make_app(ENCRYPTION_KEYS=[OLD])
    user, visitor = sign_in(before, lang="ja"), before.test_client()
    cookie = cookie_of(visitor.post("/set", json={"lang": "ja"}))
    accepting = make_app(ENCRYPTION_KEYS=[OLD, NEW])
    exchanged = make_app(ENCRYPTION_KEYS=[NEW, OLD])
    for app in (accepting, exchanged, before):
        assert browser(app, user.cookie).get("/all").json["user_role"] == "user"
        assert browser(app, cookie or "").get("/get/lang").json["value"] == "ja"
    browser(exchanged, user.cookie).post("/set", json={"user_role": "editor", "lang": "en"})
    for app in (accepting, exchanged, make_app(ENCRYPTION_KEYS=[NEW])):
        found = browser(app, user.cookie).get("/all").json
        assert (found["_user_id"], found["user_role"], found["lang"]) == ("7", "editor", "en")
    too_early = make_app(ENCRYPTION_KEYS=[NEW])
    found = browser(too_early, cookie or "").get("/get/lang")
    assert (found.status_code, found.json) == (200, {"value": None, "present": False})


def test_what_was_written_before_is_read_until_the_switch_over_ends(make_app: MakeApp, raw: Any) -> None:
    """Users stay signed in, and what is written from now on is sealed. When it is over, plain text is damaged."""
    before = make_app()
    user, visitor = sign_in(before, lang="ja"), before.test_client()
    cookie = cookie_of(visitor.post("/set", json={"lang": "ja", "draft": "of before"}))
    close(before)  # a worker without keys would bring sealed rows to Redis as they are, should it find Redis changed
    prepared = make_app(ENCRYPTION_KEYS=[NEW], ENCRYPTED_CATEGORIES=[])
    ends = datetime.now(UTC) + timedelta(days=1)
    switching = make_app(ENCRYPTION_KEYS=[NEW], ENCRYPTION_SWITCH_OVER=ends.isoformat())
    for app in (prepared, switching):
        assert browser(app, user.cookie).get("/all").json["user_role"] == "user"
        assert browser(app, cookie or "").get("/get/draft").json["value"] == "of before"
    browser(switching, cookie or "").post("/set", json={"lang": MARKER})
    browser(switching, user.cookie).post("/set", json={"user_role": MARKER})
    assert MARKER.encode() not in in_redis(raw)
    assert raw.hget(key(user.digest), "user_role")[:1] == FORMAT
    # The workers that do not seal yet read what those do that seal already.
    assert browser(prepared, user.cookie).get("/all").json["user_role"] == MARKER
    assert browser(prepared, cookie or "").get("/all").json == {"lang": MARKER, "draft": "of before"}
    over = make_app(ENCRYPTION_KEYS=[NEW], ENCRYPTION_SWITCH_OVER=datetime.now(UTC))
    assert browser(over, cookie or "").get("/all").json == {"lang": MARKER}
    assert browser(over, user.cookie).get("/all").json["user_role"] == MARKER


def test_a_session_whose_key_is_missing_is_listed_and_can_be_ended(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Ending it takes no key. Its user is not shown as signed in, and the log names the setting, once."""
    elsewhere, here = make_app(ENCRYPTION_KEYS=[NEW, OLD]), with_devices(make_app(ENCRYPTION_KEYS=[OLD]))
    lost, mine = sign_in(elsewhere), sign_in(here)
    for _ in range(2):
        assert browser(here, lost.cookie).get("/who").json["user"] is None
    assert [text.count("auth") for text in said(caplog, "ENCRYPTION_KEYS")] == [1]
    assert not any(part in caplog.text for part in (lost.digest, lost.cookie, OLD, NEW))
    state = parts(here)
    with here.app_context():
        listed = here.session_interface.sessions("7")  # type: ignore[attr-defined]
    assert [one.digest for one in listed] == [lost.digest, mine.digest]
    shown = read_session(state.backend, lost.digest, ())
    assert isinstance(shown.described, Unknown)
    assert "ENCRYPTION_KEYS" in shown.described.why
    assert browser(elsewhere, lost.cookie).get("/who").json["user"] == "7"
    assert mine.post("/end-others").text == "1"
    assert browser(elsewhere, lost.cookie).get("/who").json["user"] is None
    assert mine.get("/who").json["user"] == "7"


def test_the_log_says_that_plain_text_is_not_read_any_more(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Switched over without ENCRYPTION_SWITCH_OVER, every user is signed out: that must not be a riddle."""
    user = sign_in(make_app())
    app = make_app(**KEYS)
    for _ in range(2):
        assert browser(app, user.cookie).get("/who").json["user"] is None
    assert len(said(caplog, "ENCRYPTION_SWITCH_OVER")) == 1
    assert user.digest not in caplog.text
