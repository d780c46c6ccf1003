"""``flask langpont iam-token``: a token on standard output, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of

Run = Callable[..., Result]
USER, CACHE = "app-user", "elasticache://app-user@sessions?region=eu-west-1"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Keys, and an AWS that is not there: signing is local work."""
    given = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def run(environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    app = Flask("app", instance_path=str(tmp_path))

    def run(*arguments: str, **config: Any) -> Result:
        given = {"REDIS_URL": CACHE, **config}
        app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in given.items()})
        app.config.update(TESTING=True, SECRET_KEY="test key of the test suite, 32+ bytes")
        LangPontSession(app)
        return app.test_cli_runner().invoke(args=["langpont", "iam-token", *arguments])

    yield run
    state_of(app).close()


def test_a_token_is_handed_to_a_program(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Alone on standard output; how long it is good for is said beside it, and no log has it."""
    caplog.set_level(logging.DEBUG)
    result = run("--pipe")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"sessions/?Action=connect&User={USER}&X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert result.stdout.count("\n") == 1
    assert result.stderr.startswith(f"For user {USER}, good for new connections until ")
    signature = result.stdout.rsplit("=", 1)[1].strip()
    assert len(signature) == 64
    assert signature not in result.stderr + caplog.text


def test_a_token_for_a_serverless_cache(run: Run) -> None:
    """It is signed for that type of resource."""
    result = run("--pipe", REDIS_URL="elasticache+serverless://app-user@sessions?region=eu-west-1")
    assert "&ResourceType=ServerlessCache&" in result.stdout


def test_a_token_is_not_printed_into_a_log_by_accident(run: Run) -> None:
    """A job's standard output is no terminal."""
    result = run()
    assert result.exit_code == 1
    assert "--pipe" in result.stderr
    assert "X-Amz" not in result.output


def test_on_a_terminal_it_is_shown(run: Run, environment: pytest.MonkeyPatch) -> None:
    """The operator sees the token, as a line of text."""
    environment.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    assert run().stdout.startswith("sessions/?Action=connect")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"REDIS_URL": "rediss://cache.internal:6379/0"}, "REDIS_URL names no user that IAM signs in"),
        ({}, "REDIS_URL: the keys to sign with: there are no AWS credentials"),
    ],
)
def test_why_there_is_none(run: Run, environment: pytest.MonkeyPatch, config: dict[str, Any], says: str) -> None:
    """No user, or no keys."""
    environment.delenv("AWS_ACCESS_KEY_ID")
    result = run("--pipe", **config)
    assert result.exit_code == 1
    assert says in result.stderr
    assert not result.stdout
