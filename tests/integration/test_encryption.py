"""Encryption at rest on real servers: nothing of a session can be read where it is stored, nor put elsewhere."""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import ConfigError
from flask_langpont_session.ops.diagnosis.findings import Unknown
from flask_langpont_session.ops.diagnosis.one_session import read_session
from flask_langpont_session.stores.codec.cipher import FORMAT

from .behind import browser, digest, key, outcomes, resting, sign_in, wait_for_level, wait_until_home
from .conftest import MakeApp, close, cookie_of, on_sqlite, parts
from .counting import wait_for_monitors

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


def test_auth_that_waits_for_the_database_is_sealed_too(make_app: MakeApp, postgres: Any, tmp_path: Path) -> None:
    """An ordinary key of auth, written while the database is down, and the value that it was made from."""
    engine = sa.create_engine(postgres.url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS langpont_sessions, langpont_users"))
    engine.dispose()
    app = make_app(DATABASE_URL=postgres.url, DURABLE_KEYS=["draft"], **KEYS)
    user = sign_in(app, draft=f"{MARKER} before")
    with resting(app):
        postgres.kill()
        user.post("/set", json={"draft": f"{MARKER} in the outage"})
        assert parts(app).backend.journal.counts()["writes"] == 1
        assert MARKER.encode() not in on_disk(tmp_path)
        assert user.get("/get/draft").json["value"] == f"{MARKER} in the outage"
        postgres.start()
    wait_until_home(app)
    assert MARKER.encode() not in in_database(postgres.url)
    assert user.get("/get/draft").json["value"] == f"{MARKER} in the outage"
    row = parts(app).backend.database.load(user.digest)
    assert row is not None and row.payload["draft"] == f'"{MARKER} in the outage"'.encode()


def test_what_is_made_twice_of_an_unknown_value_is_one_change(make_app: MakeApp, primary: Valkey) -> None:
    """A view that saves, and goes on, while nothing is known of the session: the journal knows its own value again."""
    app = make_app(**KEYS)

    @app.post("/twice")
    def twice() -> str:
        for word in ("once", "twice"):
            session["draft"] = [*session.get("draft", []), word]
            session.flush()  # type: ignore[attr-defined]
        return ""

    cookie = cookie_of(app.test_client().post("/set", json={"lang": "ja"}))
    primary.kill()
    stranger = make_app(**KEYS)  # another worker, which has seen nothing of this session
    stranger.add_url_rule("/twice", view_func=twice, methods=["POST"])
    stranger.test_client().get("/who")
    wait_for_level(stranger, 2)
    client = browser(stranger, cookie or "")
    assert client.post("/twice").status_code == 200
    assert client.get("/get/draft").json["value"] == ["once", "twice"]
    primary.start()
    wait_until_home(app, stranger)
    assert client.get("/all").json == {"lang": "ja", "draft": ["once", "twice"]}


# -- an attacker writes to a store -------------------------------------------------------------------------------------

Attack = Callable[[Any, str, str], None]


def _of_another_session(client: Any, mine: str, others: str) -> None:
    client.hset(key(mine, "ui"), "lang", client.hget(key(others, "ui"), "lang"))


def _plain(client: Any, mine: str, others: str) -> None:
    client.hset(key(mine, "ui"), "lang", '"forged"')


@pytest.mark.parametrize("attack", [_of_another_session, _plain])
def test_a_value_that_was_put_there_reads_as_absent(make_app: MakeApp, raw: Any, attack: Attack) -> None:
    """A value that was written by someone who may write to Redis reads as absent. Other values are as they were, and
    writing it again heals it."""
    before = make_app(**KEYS)
    cookie, other_cookie = (
        cookie_of(before.test_client().post("/set", json={"lang": text, "draft": f"draft {text}", "input_text": text}))
        for text in ("mine", "others")
    )
    parts(before).close()  # a worker that has a copy may show that, or give it back to Redis
    raw.hset(key(digest(cookie), "translation"), "lang", raw.hget(key(digest(cookie), "translation"), "input_text"))
    attack(raw, digest(cookie), digest(other_cookie))
    app = make_app(**KEYS)
    mine = browser(app, cookie or "")
    found = mine.get("/all")
    assert (found.status_code, found.json) == (200, {"draft": "draft mine", "input_text": "mine"})
    assert parts(app).recorder.counters()["unreadable_values"] >= 1
    mine.post("/set", json={"lang": "healed"})
    assert mine.get("/all").json == {"lang": "healed", "draft": "draft mine", "input_text": "mine"}


def _older_rights(client: Any, user: Any, before: Mapping[bytes, bytes]) -> None:
    client.hset(key(user.digest), b"user_role", before[b"user_role"])


def _rights_in_plain(client: Any, user: Any, before: Mapping[bytes, bytes]) -> None:
    client.hset(key(user.digest), "user_role", '"admin"')


@pytest.mark.parametrize("attack", [_older_rights, _rights_in_plain])
def test_rights_that_were_put_into_redis_count_for_nothing(make_app: MakeApp, raw: Any, attack: Any) -> None:
    """Rights in Redis do not count, not even those that this very session once had: the database says what it has."""
    app = make_app(NEAR_CACHE=(), MEMORY_BYTES=0, **KEYS)
    user = sign_in(app)
    user.post("/set", json={"user_role": "admin"})
    before = raw.hgetall(key(user.digest))
    user.post("/set", json={"user_role": "user"})
    asked = parts(app).recorder.counters().get("records_set_aside", 0)
    wait_for_monitors()  # what one gives back to Redis at first would mend the record
    attack(raw, user, before)
    assert user.get("/all").json.get("user_role") == "user"
    assert parts(app).recorder.counters()["records_set_aside"] > asked
    assert "ok" in outcomes(app, "database")


def _payload(app: Flask, name: str) -> dict[str, Any]:
    with parts(app).backend.database.engine.connect() as connection:
        text = connection.execute(sa.text("SELECT payload FROM langpont_sessions WHERE digest = :d"), {"d": name})
        found: dict[str, Any] = json.loads(text.scalar_one())
        return found


@pytest.mark.parametrize("attack", ["of another session", "of an older version"])
def test_rights_that_were_put_into_the_database_count_for_nothing(make_app: MakeApp, raw: Any, attack: str) -> None:
    """The row is damaged: no user is shown, and no error page."""
    app = make_app(NEAR_CACHE=(), VERIFY_INTERVAL=0, **KEYS)
    user, admin = sign_in(app), sign_in(app, "8")
    admin.post("/set", json={"user_role": "admin"})
    user.post("/set", json={"user_role": "admin"})
    older = _payload(app, user.digest)
    user.post("/set", json={"user_role": "user"})
    payload = _payload(app, user.digest)
    assert payload["user_role"].keys() == {"@sealed"}
    forged = {
        "of another session": _payload(app, admin.digest)["user_role"],
        "of an older version": older["user_role"],
        "plain": "admin",
        "cut off": {"@sealed": payload["user_role"]["@sealed"][:-4]},
        "no base64": {"@sealed": "?"},
    }[attack]
    with parts(app).backend.database.engine.begin() as connection:
        text = json.dumps({**payload, "user_role": forged}, separators=(",", ":"))
        connection.execute(
            sa.text("UPDATE langpont_sessions SET payload = :p WHERE digest = :d"), {"p": text, "d": user.digest}
        )
    raw.delete(key(user.digest))
    fresh = make_app(NEAR_CACHE=(), **KEYS)
    found = browser(fresh, user.cookie).get("/all")
    assert (found.status_code, found.json.get("user_role")) == (200, None)
    assert browser(fresh, admin.cookie).get("/all").json["user_role"] == "admin"


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


# -- what Redis has to read --------------------------------------------------------------------------------------------


def test_an_encrypted_number_cannot_be_added_to(make_app: MakeApp, raw: Any) -> None:
    """To increment a key of an encrypted category raises an error that says so; in a plain category it works."""

    def counting(app: Flask) -> Any:
        @app.post("/count")
        def count() -> str:
            return str(session.increment("usage_count"))  # type: ignore[attr-defined]

        app.config["PROPAGATE_EXCEPTIONS"] = True
        return app.test_client()

    client = counting(make_app(**KEYS))
    with pytest.raises(
        ConfigError, match=r"cannot increment with this configuration:(?s:.)*'translation'.*is encrypted"
    ):
        client.post("/count")
    client = counting(make_app(ENCRYPTED_CATEGORIES=["auth", "ui"], **KEYS))
    assert [client.post("/count").text for _ in range(2)] == ["1", "2"]
    client.post("/set", json={"lang": MARKER})
    assert client.get("/all").json == {"usage_count": 2, "lang": MARKER}
    assert MARKER.encode() not in in_redis(raw)


# -- what stays as it was ----------------------------------------------------------------------------------------------


def test_a_hit_of_the_near_cache_is_not_decrypted_again(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker keeps opened values: a request that asks no store decrypts nothing."""
    from flask_langpont_session.stores.codec.sealing import SealingCodec

    app = make_app(**KEYS)
    user = sign_in(app, lang="ja")
    opened: list[str] = []
    plainly = SealingCodec.value_from_store

    def noting(codec: SealingCodec, digest: str, category: str, field: str, *rest: Any) -> bytes:
        opened.append(field)
        return plainly(codec, digest, category, field, *rest)

    monkeypatch.setattr(SealingCodec, "value_from_store", noting)
    parts(app).monitor.tick()
    user.get("/all")
    for _ in range(3):
        opened.clear()
        assert user.get("/all").json["lang"] == "ja"
    assert opened == []


def test_no_key_is_shown_anywhere(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the settings nor the parts, the health page or the log show a key."""
    with caplog.at_level(logging.DEBUG):
        app = make_app(**KEYS)
        sign_in(app, lang="ja").get("/all")
        state = parts(app)
        shown = [
            repr(state.settings),
            repr(state),
            repr(state.backend.database),
            app.test_client().get("/healthz").text,
        ]
    everything = "\n".join([*shown, caplog.text])
    for form in (NEW, NEW.upper(), repr(bytes.fromhex(NEW)), str(b64decode(NEW))):
        assert form not in everything


def test_a_record_of_an_older_time_is_refused_by_leases_alone(make_app: MakeApp, raw: Any) -> None:
    """A whole record with its own description, put back by someone who may write to Redis, is sealed rightly: that is
    what leases are for. Once it is as old as they allow, the database is asked."""
    app = make_app(NEAR_CACHE=(), MEMORY_BYTES=0, **KEYS)
    user = sign_in(app)
    before = raw.hgetall(key(user.digest))
    user.post("/set", json={"user_role": "reader"})
    raw.delete(key(user.digest))
    raw.hset(key(user.digest), mapping=before)
    assert user.get("/all").json["user_role"] == "reader"  # this worker has seen a later version
