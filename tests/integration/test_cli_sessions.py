"""``flask langpont sessions show``, and what ``revoke`` counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey

from .behind import age_row, emptied, sign_in, wait_for_level
from .conftest import MakeApp, cookie_of
from .shop import flask, run


def show(app: Flask, digest: str) -> dict[str, Any]:
    result = run(app, "sessions", "show", digest, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.output)
    return told


def test_a_session_is_shown_without_what_it_holds(make_app: MakeApp) -> None:
    """Each store's part of a session is shown, by its digest or the beginning that logs have; no id, no key and no
    value."""
    app = make_app()
    client = sign_in(app, input_text="a secret text", lang="ja")
    for name in (client.digest, client.digest[:8]):
        result = run(app, "sessions", "show", name)
        assert result.exit_code == 0, result.output
        lines = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in result.output.splitlines())
        assert (lines["digest"], lines["state"], lines["user"]) == (client.digest, "valid", "7")
        assert re.fullmatch(r"[\d-]{10} [\d:]{8} UTC, or up to 0:15:00 later", lines["last seen"])
        assert re.fullmatch(r"primary: version 1, confirmed by the database [\d-]{10} [\d:]{8} UTC", lines["redis"])
        assert re.fullmatch(r"1 key, \d+ bytes, \d+:\d\d:\d\d left", lines["translation"])
        assert lines["journal"] == "this host has nothing of it"
    told = show(app, client.digest)
    assert told["state"] == told["database"]["state"] == "valid"
    assert told["database"]["created_at"] <= told["last_seen_at"] < told["idle_expires_at"]
    assert told["redis"]["categories"]["ui"] == {
        "keys": 1,
        "bytes": len('lang"ja"'),
        "ttl_seconds": pytest.approx(3600, 1),
    }
    assert told["redis"]["categories"].keys() == {"auth", "translation", "ui"}
    for secret in (client.cookie.split(".")[0], "secret", "input_text"):
        assert secret not in result.output + json.dumps(told)


def test_a_session_that_goes_on_names_its_successor(make_app: MakeApp) -> None:
    """The ended session has a tombstone, and names the digest of its successor, which can be looked at next."""
    app = make_app()

    @app.post("/rename")
    def rename() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    client = sign_in(app)
    client.cookie = cookie_of(client.post("/rename"))
    told = show(app, client.digest)
    assert (told["state"], told["redis"]["tombstone"], list(told["redis"]["categories"])) == ("dead", True, ["auth"])
    assert show(app, told["database"]["successor"])["state"] == "valid"
    assert (
        "redis               primary: a tombstone; the database knew of it"
        in run(app, "sessions", "show", client.digest).output
    )


def test_a_session_is_shown_while_redis_is_down(make_app: MakeApp, primary: Valkey) -> None:
    """Entries that wait on this host are counted; a session whose sign-out waits is dead."""
    app, command = make_app(), make_app()
    client, other = sign_in(app), sign_in(app)
    primary.kill()
    try:
        client.get("/who")
        wait_for_level(app, 2)
        client.post("/set", json={"input_text": "during"})
        other.post("/logout")
        told, ended = show(command, client.digest), show(command, other.digest)
        text = run(command, "sessions", "show", client.digest[:10]).output
    finally:
        primary.start()
    assert told["redis"]["error"].startswith("primary: unreachable")
    assert (told["state"], told["journal"]["writes"]["entries"]) == ("valid", 1)
    assert (ended["state"], ended["journal"]["revocations"]["entries"]) == ("dead", 1)
    assert re.search(r"^  writes +1, the oldest for 0:00:\d\d$", text, re.MULTILINE)


def test_a_session_is_shown_while_the_database_is_down(make_app: MakeApp, mariadb: Any) -> None:
    """The session is shown as far as Redis knows it; a beginning of a digest cannot be looked for."""
    app = make_app(DATABASE_URL=emptied(mariadb))
    client = sign_in(app)
    mariadb.kill()
    try:
        told = show(app, client.digest)
        result = run(app, "sessions", "show", client.digest[:8])
    finally:
        mariadb.start()
    assert (told["state"], told["redis"]["tombstone"]) == ("unconfirmed", False)
    assert told["database"]["error"].startswith("database: unreachable")
    assert result.exit_code == 1
    assert result.output.startswith("Error: only a whole digest can be looked for now: database: unreachable")


def test_what_is_not_one_session_is_said(make_app: MakeApp, tmp_path: Path) -> None:
    """Several that begin so, none, and a visitor, of whom the database knows nothing. Case counts."""
    app = make_app()
    digests = [sign_in(app).digest for _ in range(65)]  # two of them begin with the same one of 64 characters
    first = next(digest[0] for digest in digests if sum(other[0] == digest[0] for other in digests) > 1)
    result = run(app, "sessions", "show", first)
    assert (result.exit_code, result.output) == (1, f"Error: several digests begin with {first!r}: give more of it\n")
    for beginning in (digests[0][:10].swapcase(), "A" * 42, "%", "_" * 9):
        result = run(app, "sessions", "show", beginning)
        assert (result.exit_code, result.output.count("no signed-in session begins with")) == (1, 1)
    result = run(app, "sessions", "show", "A" * 43)
    assert (result.exit_code, "no store has anything of it" in result.output) == (1, True)


def test_of_a_visitor_there_is_no_row(make_app: MakeApp) -> None:
    """A visitor's session has no row, and is found by its whole digest alone."""
    app = make_app()

    @app.get("/digest")
    def digest() -> str:
        return session.digest or ""  # type: ignore[attr-defined]

    client = app.test_client()
    client.post("/set", json={"lang": "ja"})
    name = client.get("/digest").text
    told = show(app, name)
    assert (told["state"], told["database"], list(told["redis"]["categories"])) == ("visitor", None, ["ui"])
    assert run(app, "sessions", "show", name[:20]).exit_code == 1


def test_showing_a_session_makes_no_file(tmp_path: Path, primary: Valkey) -> None:
    """It may be run as root, to whom a journal would belong."""
    done = flask(tmp_path, "langpont", "init-db", REDIS_URL=primary.url)
    done = flask(tmp_path, "langpont", "sessions", "show", "-" * 43, "--json", REDIS_URL=primary.url)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (1, "not_found"), done.stderr
    assert list(tmp_path.glob("langpont_session_journal*")) == []


def test_a_user_is_revoked_by_name(make_app: MakeApp) -> None:
    """The user's sessions end, and no others. Sessions that were ended before, or are over, are not counted."""
    app = make_app()
    clients, other = [sign_in(app) for _ in range(4)], sign_in(app, "8")
    clients[0].post("/logout")
    age_row(app, clients[1].digest, 2 * 3_600_000)
    result = run(app, "sessions", "revoke", "--user", "7")
    assert (result.exit_code, result.output) == (0, "2 sessions ended: the database knows it.\n")
    assert run(app, "sessions", "revoke", "--user", "7").output == "0 sessions ended: the database knows it.\n"
    assert [client.get("/who").json["user"] for client in (*clients, other)] == [None] * 4 + ["8"]


def revoked(app: Flask, digest: str) -> tuple[int, str]:
    result = run(app, "sessions", "revoke", digest)
    return result.exit_code, result.output.strip()


def test_a_session_is_ended_once(make_app: MakeApp) -> None:
    """A session is ended by its digest, and no other one; it is counted once: not if it was over before, but also if
    it goes on under another digest."""
    app = make_app()

    @app.post("/rename")
    def rename() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    one, left, renamed, other = (sign_in(app) for _ in range(4))
    left.post("/logout")
    was = renamed.digest
    renamed.cookie = cookie_of(renamed.post("/rename"))
    assert revoked(app, one.digest) == (0, "1 session ended: the database knows it.")
    assert revoked(app, was) == (0, "1 session ended: the database knows it.")
    for digest in (one.digest, left.digest, was, renamed.digest):
        assert revoked(app, digest) == (0, "0 sessions ended (it was over before): the database knows it.")
    assert [client.get("/who").json["user"] for client in (one, renamed, other)] == [None, None, "7"]


def test_a_digest_that_no_store_knows_is_no_session(make_app: MakeApp) -> None:
    """Likely it is misspelt: exit code 1."""
    code, said = revoked(make_app(), "A" * 43)
    assert (code, "no store has anything of it: check the digest" in said) == (1, True)
