"""The access string of the IAM user, on a real Valkey: the extension can do all it does, and nothing beyond."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask, request, session
from prometheus_client import CollectorRegistry

from devservers.constants import extended
from devservers.servers import Valkey
from flask_langpont_session.extension import state_of
from tests.infra.environments import parameters
from tests.infra.template import Deployment, good_template
from tests.integration.conftest import close

USER, PASSWORD = "langpont-production-1a2b3c4d", "local-only"


def test_both_users_have_the_same_rights() -> None:
    """So going from one to the other changes nothing else, and what is proven here of one holds for both."""
    both = Deployment(good_template(), parameters("production", AuthMode="both")).of_type("AWS::ElastiCache::User")
    assert set(both) == {"TokenUser", "AppUser"}
    assert len({user["AccessString"] for user in both.values()}) == 1


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server that knows the user of the template, by a password in place of IAM."""
    [user] = (
        Deployment(good_template(), parameters("production", AuthMode="iam")).of_type("AWS::ElastiCache::User").values()
    )
    with Valkey(tmp_path / "cache", appendonly=False) as server, server.client() as admin:
        admin.execute_command("ACL", "SETUSER", USER, f">{PASSWORD}", *user["AccessString"].split())
        yield server


def test_the_extension_is_refused_nothing(valkey: Valkey, tmp_path: Path) -> None:
    """Signing in, changing rights, writing, reading, signing out: no command of it shows up in the log of refusals."""
    app = Flask("app", instance_path=str(tmp_path))
    app.config.update(
        SECRET_KEY="x" * 32,
        LANGPONT_SESSION_REDIS_URL=f"redis://{USER}:{PASSWORD}@127.0.0.1:{valkey.port}/0",
        LANGPONT_SESSION_DATABASE_URL=f"sqlite:///{tmp_path}/auth.sqlite3",
        LANGPONT_SESSION_METRICS=["prometheus"],
        LANGPONT_SESSION_METRICS_REGISTRY=CollectorRegistry(),
    )
    app.session_interface = extended(app)

    @app.post("/set")
    def set_() -> dict[str, Any]:
        session.update(request.get_json())
        return dict(session)

    @app.get("/")
    def show() -> dict[str, Any]:
        session.increment("usage_count")  # type: ignore[attr-defined]
        return dict(session)

    @app.post("/out")
    def out() -> str:
        session.clear()
        return ""

    state_of(app).backend.database.upkeep.create_tables()
    client = app.test_client()
    client.post("/set", json={"lang": "jp", "input_text": "a", "theme": "dark"})
    client.post("/set", json={"user_id": 7})
    client.post("/set", json={"user_role": "editor", "input_text": "b"})
    answer = client.get("/").json
    assert answer is not None and {"user_id": 7, "lang": "jp", "input_text": "b"}.items() <= answer.items()
    client.post("/out")
    assert "user_id" not in (client.get("/").json or {})
    assert client.get("/healthz").json["level"] == 0  # type: ignore[index]
    with valkey.client() as admin:
        assert admin.execute_command("ACL", "LOG") == []
        assert [key for key in admin.scan_iter() if key.startswith("session:")]
    close(app)


@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "CONFIG GET maxmemory", "KEYS session:*", "ACL LIST", "GET shop:1", "SHUTDOWN"],
)
def test_everything_else_is_refused(valkey: Valkey, command: str) -> None:
    """Emptying the cache, changing or listing it, the keys of others."""
    with redis.Redis(port=valkey.port, username=USER, password=PASSWORD, socket_timeout=1) as client:
        assert client.set("session:x", "y")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command.split())
