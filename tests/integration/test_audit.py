"""The audit log: what it says of the life of signed-in sessions, and what it never says."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from flask import Flask

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import session
from flask_langpont_session.audit import SCHEMA, write_audit_log
from flask_langpont_session.testing import captured_events, switched_off

from .behind import age_entry, age_row, browser, digest, sign_in, who
from .conftest import MakeApp, cookie_of, parts
from .counting import wait_for_monitors
from .shop import run

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


class Written(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def take(self) -> list[dict[str, Any]]:
        """Return the lines that were written since the last call, without what stands in every line."""
        lines, self.lines = self.lines, []
        return [_without_the_usual(json.loads(line)) for line in lines]


def _without_the_usual(line: Mapping[str, Any]) -> dict[str, Any]:
    usual = {"schema", "at", "service", "environment"}
    assert list(line)[:4] == ["schema", "at", "service", "environment"]
    assert abs(datetime.fromisoformat(line["at"]) - datetime.now(UTC)).total_seconds() < 600
    assert (line["schema"], line["service"], line["environment"]) == (SCHEMA, "LangPont", "production")
    return {name: value for name, value in line.items() if name not in usual}


class Site(NamedTuple):
    app: Flask
    written: Written


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    app, written = make_app(MAX_SESSIONS_PER_USER=2), Written()
    write_audit_log(app, written)

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()
        return "another"

    @app.post("/confirm")
    def confirm() -> str:
        session.confirm()
        return "confirmed"

    return Site(app, written)


def short(client: Any) -> str:
    found: str = client.digest[:8]
    return found


def sign_out(client: Any, by: str, **more: Any) -> dict[str, Any]:
    return {"event": "sign_out", "session": short(client), "by": by, "durable": True, **more}


def test_the_life_of_a_session_can_be_told(site: Site) -> None:
    """Sign-in, a new id, a step-up, a sign-out; each id follows from the one before."""
    client = sign_in(site.app)
    first = short(client)
    renewed, confirmed = (cookie_of(client.post(page)) for page in ("/regenerate", "/confirm"))
    second, third = (digest(cookie)[:8] for cookie in (renewed, confirmed))
    client.post("/logout")
    assert site.written.take() == [
        {"event": "sign_in", "session": first, "adopted": False},
        {"event": "id_change", "session": second, "before": first, "why": "application"},
        {"event": "id_change", "session": third, "before": second, "why": "step_up"},
        {"event": "step_up", "session": third},
        {"event": "sign_out", "session": third, "by": "user", "durable": True},
    ]


def test_a_line_says_by_what_a_session_ended(site: Site) -> None:
    app, written = site
    langpont: Any = app.session_interface
    one, two, three = (sign_in(app) for _ in range(3))
    assert sign_out(one, "limit") in written.take()
    langpont.revoke(two.digest, app)
    assert written.take() == [sign_out(two, "application")]
    assert run(app, "sessions", "revoke", three.digest).exit_code == 0
    assert written.take() == [sign_out(three, "operator")]
    client = sign_in(app)
    again = digest(cookie_of(client.post("/login/8")))  # in the same browser
    assert written.take()[1:] == [
        sign_out(client, "user"),
        {"event": "sign_in", "session": again[:8], "adopted": False},
    ]


def test_a_user_who_is_logged_out_everywhere(site: Site) -> None:
    client, other = sign_in(site.app), sign_in(site.app)
    site.written.take()
    langpont: Any = site.app.session_interface
    langpont.revoke_user("7", site.app)
    lines = site.written.take()
    assert lines[-1] == {"event": "sign_out_everywhere", "by": "application", "sessions": 2, "durable": True}
    assert sorted(line["session"] for line in lines[:-1]) == sorted([short(client), short(other)])
    assert run(site.app, "sessions", "revoke", "--user", "7").exit_code == 0
    assert site.written.take()[-1] == {"event": "sign_out_everywhere", "by": "operator", "sessions": 0, "durable": True}


def test_what_was_over_before_does_not_end_again_with_its_user(site: Site) -> None:
    """Rows of the dead stay for hours, and get their tombstones again; that is no event."""
    gone, client = sign_in(site.app), sign_in(site.app)
    gone.post("/logout")
    renewed = cookie_of(client.post("/confirm"))
    assert renewed
    site.written.take()
    langpont: Any = site.app.session_interface
    for living in ([digest(renewed)[:8]], []):
        langpont.revoke_user("7", site.app)
        everywhere = {"event": "sign_out_everywhere", "by": "application", "sessions": len(living), "durable": True}
        ended = [{"event": "sign_out", "session": name, "by": "application", "durable": True} for name in living]
        assert site.written.take() == [*ended, everywhere]


@pytest.mark.parametrize("moved", ["idle_expires_at", "absolute_expires_at"])
def test_a_session_that_runs_out_is_told_when_a_request_finds_it(site: Site, primary: Valkey, moved: str) -> None:
    """Once: that it is over is known from then on."""
    client = sign_in(site.app)
    wait_for_monitors()
    site.written.take()
    age_row(site.app, client.digest, DAY, moved)
    age_entry(primary, client.digest, DAY, "@i" if moved == "idle_expires_at" else "@x")
    told: list[Any] = []

    def is_told() -> bool:  # on a busy machine the database may be late, and no user is shown then either
        assert who(site.app, client) is None
        told.extend(site.written.take())
        return bool(told)

    wait_until(is_told, "the database's word")
    for _ in range(2):
        assert who(site.app, client) is None
    assert [*told, *site.written.take()] == [sign_out(client, "expiry")]


def test_a_session_that_ended_otherwise_does_not_run_out_as_well(site: Site, primary: Valkey) -> None:
    """A session that was ended is not reported as run out, however late its browser comes back."""
    client = sign_in(site.app)
    client.post("/logout")
    site.written.take()
    age_row(site.app, client.digest, DAY)
    with primary.client() as redis:
        redis.delete(f"session:auth:{{{client.digest}}}")
    parts(site.app).backend.memory.clear()
    assert who(site.app, client) is None
    assert site.written.take() == []


def test_what_an_outage_does_is_told(site: Site) -> None:
    """A sign-out that only this host knows yet, and a step-up that is refused."""
    client = sign_in(site.app)
    site.written.take()
    with switched_off(site.app, "database"):
        assert client.post("/confirm").status_code == 503
        client.post("/logout")
    assert site.written.take() == [{"event": "refused"}, sign_out(client, "user", durable=False)]


def test_nothing_that_is_secret_or_personal_is_written(site: Site) -> None:
    """No id, no whole digest, no user, no value, no address."""
    client = sign_in(site.app, "hanako-4711", lang="a dialect")
    client.cookie = cookie_of(client.post("/confirm"))
    client.post("/logout", headers={"User-Agent": "Lynx"}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    text = "\n".join(site.written.lines)
    assert len(site.written.lines) == 4
    sid = client.cookie.split(".")[0]
    for secret in (sid, client.digest, digest(client.cookie), "hanako", "dialect", "Lynx", "203.0."):
        assert secret not in text
    assert max(len(word) for line in site.written.lines for word in map(str, json.loads(line).values())) < 43


def test_a_request_that_only_reads_or_writes_data_says_nothing(site: Site) -> None:
    client = sign_in(site.app)
    site.written.take()
    with captured_events(site.app) as seen:
        client.get("/who")
        client.post("/set", json={"lang": "jp"})
        visitor = browser(site.app, "forged.a.0.cookie")
        visitor.post("/set", json={"lang": "jp"})
        visitor.post("/regenerate")
    assert seen == []
    assert site.written.take() == []


def test_without_a_handler_the_logger_has_the_lines(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    write_audit_log(app)
    with caplog.at_level(logging.INFO, "flask_langpont_session.audit"):
        client = sign_in(app)
    [record] = [record for record in caplog.records if record.name == "flask_langpont_session.audit"]
    assert _without_the_usual(json.loads(record.getMessage())) == {
        "event": "sign_in",
        "session": short(client),
        "adopted": False,
    }


def test_it_is_written_once_and_by_one_application(make_app: MakeApp, site: Site) -> None:
    with pytest.raises(RuntimeError, match="before"):
        write_audit_log(site.app)
    sign_in(make_app())
    assert site.written.take() == []


def test_a_command_tells_what_the_row_knows_of_one_session(site: Site) -> None:
    """The command finds the session by the beginning of a digest, and says when a password was entered, and by what
    the session ended."""
    app = site.app
    first, _, last = (sign_in(app) for _ in range(3))
    ended, lives = (json.loads(run(app, "sessions", "show", short(each), "--json").output) for each in (first, last))
    assert (ended["state"], ended["database"]["ended_by"]) == ("dead", "limit")
    assert (lives["state"], lives["database"]["ended_by"]) == ("valid", None)
    assert lives["database"]["authenticated_at"] == lives["database"]["created_at"]
    text = run(app, "sessions", "show", short(first)).output
    assert "\nended by" in text
    assert "\nauthenticated" in text
