"""A journal that cannot be written during an outage: requests are answered all the same, and operators are told.

The disk is full by SQLite's own limit of pages, which fails where, and as, a full disk does.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.events import JournalFailed, SessionRevoked
from flask_langpont_session.metrics.recorder import NotKept
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE
from flask_langpont_session.testing import captured_events

from .behind import digest, entry, is_home, row_of, stored, wait_for_level, wait_until_home
from .conftest import MakeApp, cookie_of, parts
from .small_disk import (
    Disk,
)


@pytest.fixture
def app(make_app: MakeApp, postgres: Postgres, primary: Valkey) -> Iterator[Flask]:
    postgres.start()
    app = make_app(DATABASE_URL=postgres.url)

    @app.post("/count")
    def increment() -> str:
        return str(session.increment("usage_count"))  # type: ignore[attr-defined]

    yield app
    primary.start()
    postgres.start()


@pytest.fixture
def disk(app: Flask) -> Disk:
    return Disk(app)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Holds the monitor, which would make room: the database takes what the disk is filled with."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def user(app: Flask) -> Any:
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp", "input_text": "before"})
    client.cookie = cookie_of(client.post("/login/7"))
    assert client.get("/all").json["_user_id"] == "7"
    return client


def with_cookie(app: Flask, cookie: str | None) -> Any:
    """Return a browser with a copy of a cookie."""
    client: Any = app.test_client()
    client.set_cookie("session", cookie or "")
    return client


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages that an operator must act on at once."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


def journal_errors(app: Flask) -> int:
    return parts(app).recorder.counters().get("journal_errors", 0)


def test_a_logout_without_database_and_disk_is_answered(
    app: Flask, user: Any, disk: Disk, postgres: Postgres, primary: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """I13: the logout holds by Redis and this worker; log, counter and event say that it is not safe, each once."""
    postgres.kill()
    disk.fill()
    with captured_events(app) as seen:
        assert user.post("/logout").status_code == 200
    assert with_cookie(app, user.cookie).get("/who").json["user"] is None
    assert stored(primary, "auth", user.cookie) == {}
    assert seen.count(JournalFailed("SQLITE_FULL")) == journal_errors(app) == 1
    assert [event.durable for event in seen if isinstance(event, SessionRevoked)] == [False]
    [alarm] = alarms(caplog)
    assert "LANGPONT_SESSION_JOURNAL" in alarm
    assert "SQLITE_FULL" in alarm


@pytest.mark.parametrize("what", ["daily_limit", "input_text", "usage_count"])
def test_data_that_cannot_be_kept_is_no_reason_to_fail(
    app: Flask,
    user: Any,
    disk: Disk,
    postgres: Postgres,
    primary: Valkey,
    held: ExitStack,
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A request that writes without Redis (of auth: without both) and with a full disk is answered, and so is the
    next one that reads. The lost write is counted."""
    if what == "daily_limit":
        postgres.kill()
    primary.kill()
    user.get("/who")
    wait_for_level(app, 4 if what == "daily_limit" else 2)
    held.enter_context(parts(app).monitor.paused())
    disk.fill()
    before = journal_errors(app)
    if what == "usage_count":
        assert user.post("/count").text == "1"
    else:
        assert user.post("/set", json={what: "during"}).status_code == 200
    assert journal_errors(app) > before
    assert "LANGPONT_SESSION_JOURNAL" in alarms(caplog)[0]
    category = "auth" if what == "daily_limit" else "translation"
    assert parts(app).recorder.losses() == {("writes_lost", "journal full", category): 1}
    assert user.get("/all").status_code == 200
    assert user.get("/who").json["user"] == "7"


def of_translation(app: Flask) -> list[NotKept]:
    """Return the losses of translation; the disk was filled with another category."""
    return [loss for loss in parts(app).recorder.losses() if loss.category == "translation"]


def lose(app: Flask, *stores: str) -> None:
    for store in stores:
        for way in (READ, WRITE):
            parts(app).health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Test", timed_out=True), way)


@pytest.mark.parametrize("everywhere", [False, True])
def test_i33_a_sign_out_that_the_journal_did_not_take_reaches_the_stores(
    app: Flask, user: Any, disk: Disk, primary: Valkey, held: ExitStack, everywhere: bool
) -> None:
    """D26: the disk refuses everything until the end; the worker that served the sign-out lives."""
    held.enter_context(parts(app).monitor.paused())
    lose(app, PRIMARY, DATABASE)
    with disk.refusing():
        if everywhere:
            langpont: LangPontSession = app.session_interface  # type: ignore[assignment]
            assert not langpont.revoke_user("7", app).durable
        else:
            assert user.post("/logout").status_code == 200
        assert row_of(app, user.cookie).live
        for store in (PRIMARY, DATABASE):
            parts(app).monitor.probes.recover(store, (READ, WRITE))
        held.close()
        wait_until(lambda: not row_of(app, user.cookie).live, "the end of it in the database")
        wait_until(lambda: entry(primary, digest(user.cookie)).get("@live") == "0", "the end of it in Redis")
    wait_until_home(app)


def test_i33_a_disk_that_refuses_everything_stops_no_replay(
    app: Flask, user: Any, disk: Disk, primary: Valkey, held: ExitStack
) -> None:
    """D26: what may be sent twice is sent without a mark, and once; additions wait. With room again nothing is left of
    either, and nothing counts as a conflict."""
    user.post("/count")
    held.enter_context(parts(app).monitor.paused())
    lose(app, PRIMARY)
    user.post("/set", json={"input_text": "during", "source_lang": "ja"})
    assert user.post("/count").text == "2"
    with disk.refusing():
        parts(app).monitor.probes.recover(PRIMARY, (READ, WRITE))
        held.close()
        reached = lambda: stored(primary, "translation", user.cookie).get("input_text") == '"during"'  # noqa: E731
        wait_until(reached, "what waited in Redis")
        assert stored(primary, "translation", user.cookie)["usage_count"] == "1"
        assert user.get("/get/usage_count").json["value"] == 2
    wait_until_home(app)
    assert stored(primary, "translation", user.cookie)["usage_count"] == "2"
    assert parts(app).recorder.losses() == {}


def test_i33_a_request_whose_category_waits_in_a_full_journal_writes_to_redis(
    app: Flask, user: Any, disk: Disk, primary: Valkey, held: ExitStack
) -> None:
    """D26, I18: nothing can wait behind what waits; what the request takes the place of goes, the rest is merged."""
    held.enter_context(parts(app).monitor.paused())
    lose(app, PRIMARY)
    user.post("/set", json={"input_text": "during", "source_lang": "ja"})
    parts(app).monitor.probes.recover(PRIMARY, (READ, WRITE))
    disk.fill()
    after = "after" * 2000  # which has no room in the place of what waits
    assert user.post("/set", json={"input_text": after}).status_code == 200
    assert stored(primary, "translation", user.cookie)["input_text"] == f'"{after}"'
    assert user.get("/get/input_text").json["value"] == after
    assert user.get("/get/source_lang").json["value"] == "ja"
    assert of_translation(app) == []
    disk.make_room()
    held.close()
    wait_until(lambda: is_home(app), "everything home, all that filled the disk too", 3 * LONG)
    shown = stored(primary, "translation", user.cookie)
    assert (shown["input_text"], shown["source_lang"]) == (f'"{after}"', '"ja"')
    assert of_translation(app) == []


def test_d34_a_deleted_folder_is_noticed_and_made_anew(
    app: Flask,
    user: Any,
    make_app: MakeApp,
    postgres: Postgres,
    held: ExitStack,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Workers make the folder and the file anew, so that they do not go on writing to files which siblings do not
    find."""
    folder = tmp_path / "journals"
    here, there = (make_app(DATABASE_URL=postgres.url, JOURNAL=str(folder / "journal")) for _ in range(2))
    clients = [with_cookie(worker, user.cookie) for worker in (here, there)]
    for client in clients:
        assert client.get("/who").json["user"] == "7"
    opened = [parts(worker).backend.journal.file.writer for worker in (here, there)]
    wait_until(lambda: all(side.connection for side in opened), "the journal in use by both")
    shutil.rmtree(folder.rename(tmp_path / "deleted"))  # in one step: the workers make files there at any moment
    said = "its file was deleted"
    wait_until(lambda: sum(said in alarm for alarm in alarms(caplog)) == 2, "both have noticed")
    for worker in (here, there):
        held.enter_context(parts(worker).monitor.paused())
        lose(worker, PRIMARY)
    assert clients[0].post("/set", json={"input_text": "during"}).status_code == 200
    assert (folder / "journal").exists()
    assert clients[1].get("/get/input_text").json["value"] == "during"
    assert sum(said in alarm for alarm in alarms(caplog)) == 2
