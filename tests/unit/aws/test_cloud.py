"""The parts of AWS that an application needs: what its settings ask for, what its start waits for, what a round
does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask

from flask_langpont_session import ConfigError
from flask_langpont_session.aws import cloud, endpoints
from flask_langpont_session.aws.cloud import Cloud, cloud_of
from flask_langpont_session.aws.credentials import IamToken, Recycling, SecretToken
from flask_langpont_session.aws.endpoints import Address, Endpoints, EndpointsFile, Group
from flask_langpont_session.build import ask_aws
from flask_langpont_session.config.checks import PREFIX
from flask_langpont_session.config.settings import Settings, load_settings
from flask_langpont_session.policy.health import DATABASE, PRIMARY, REPLICA
from flask_langpont_session.stores.redis.url import GroupName

NAME = GroupName("sessions", "ap-northeast-1")
SINGLE = Endpoints(Address("master.sessions.x", 6379))
PAIR = Endpoints(Address("master.sessions.x", 6379), Address("replica.sessions.x", 6379))
CLUSTER = Endpoints(None, configuration=Address("clustercfg.sessions.x", 6379))


class Aws:
    """A stand-in for AWS that answers what it is told to, as soon as it may."""

    def __init__(self) -> None:
        self.found = PAIR
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def describe(self, name: GroupName) -> Endpoints:
        self.asked += 1
        assert self.may_answer.wait(10)
        return self.found


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    made = Aws()
    monkeypatch.setattr(endpoints, "describe", made.describe)
    return made


def make_group(folder: Path | None = None, name: GroupName = NAME) -> Group:
    memory = EndpointsFile(folder / "endpoints" if folder else None, name)
    return Group(name, f"{PREFIX}REDIS_URL", needs_tls=False, memory=memory)


# -- settings ----------------------------------------------------------------------------------------------------------

Load = Callable[..., Settings]
Make = Callable[..., Cloud]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(**config: Any) -> Settings:
        app = Flask("app", instance_path=str(tmp_path))
        places = {"REDIS_URL": "elasticache://sessions?region=eu-west-1", "DATABASE_URL": "postgresql+psycopg://h/db"}
        app.config.update({PREFIX + name: value for name, value in {**places, **config}.items()}, SECRET_KEY="a key")
        return load_settings(app)

    return loaded


@pytest.fixture
def make(load: Load) -> Make:
    return lambda **config: cloud_of(load(**config))


def test_most_settings_ask_for_nothing(load: Load) -> None:
    """The start asks nothing then, and neither do the rounds of the monitor."""
    assert ask_aws(load(REDIS_URL="rediss://:token@cache.internal")) is None


def test_the_group_is_remembered_beside_the_journal(make: Make, aws: Aws, tmp_path: Path) -> None:
    """Without a journal, nothing is remembered."""
    for journal, files in ((tmp_path / "j.sqlite3", ["j.sqlite3-endpoints"]), (None, [])):
        group = make(JOURNAL=journal).group
        assert group is not None
        group.query.ask()
        assert [path.name for path in tmp_path.iterdir()] == files
        for path in tmp_path.iterdir():
            path.unlink()


@pytest.mark.parametrize(
    "url",
    [
        "elasticache://:t@sessions?region=eu-west-1",
        "elasticache://sessions?region=eu-west-1&token_secret=app/token",
        "elasticache://app-user@sessions?region=eu-west-1",
    ],
)
def test_signing_in_needs_tls(make: Make, aws: Aws, url: str) -> None:
    """The start ends where the token could be read."""
    aws.found = Endpoints(SINGLE.primary, tls=False)
    group = make(REDIS_URL=url).group
    assert group is not None
    group.query.ask()
    assert "could be read" in str(group.unusable)


def test_a_secret_is_where_the_group_is(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless its ARN says another region; without a group boto3 knows."""
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:app/token-AbCdEf"
    for url, region in (
        ("elasticache://sessions?region=eu-west-1&token_secret=app/token", "eu-west-1"),
        (f"elasticache://sessions?region=eu-west-1&token_secret={arn}", "us-east-1"),
        (f"rediss://cache.internal?token_secret={arn}", "us-east-1"),
    ):
        credentials = make(REDIS_URL=url).credentials
        assert isinstance(credentials, SecretToken)
        asked = Mock(side_effect=ConnectionError)
        monkeypatch.setattr("flask_langpont_session.aws.credentials.aws_client", asked)
        credentials.query.ask()
        asked.assert_called_once_with("secretsmanager", region)


# -- the start ---------------------------------------------------------------------------------------------------------


def test_the_start_does_not_wait_for_the_end_of_a_hang(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on while the question is open, and the answer is taken when it comes."""
    monkeypatch.setattr(cloud, "START_PATIENCE", 0.05)
    aws.may_answer.clear()
    group = make_group()
    Cloud(group).begin()
    assert group.query.busy
    assert not group.known
    aws.may_answer.set()
    group.query.wait(10)
    assert group.known


def test_what_is_known_from_before_is_not_waited_for(aws: Aws, tmp_path: Path) -> None:
    """Known endpoints are not asked for at start either; the monitor asks some time later."""
    EndpointsFile(tmp_path / "endpoints", NAME).note(PAIR)
    Cloud(make_group(tmp_path)).begin()
    assert aws.asked == 0


def test_a_group_that_can_never_be_used_ends_the_start(aws: Aws) -> None:
    """The error names the setting, the name, and what to do."""
    aws.found = CLUSTER
    with pytest.raises(ConfigError) as caught:
        Cloud(make_group(name=GroupName("sessions", db=2))).begin()
    [problem] = caught.value.problems
    assert problem.startswith(f"{PREFIX}REDIS_URL: replication group 'sessions': it is in cluster mode")
    assert "leave the number out" in problem


# -- rounds of the monitor ---------------------------------------------------------------------------------------------


class Store:
    """A store, as far as its connections go."""

    def __init__(self) -> None:
        self.forgot = 0

    def forget_connections(self) -> None:
        self.forgot += 1


@pytest.mark.parametrize(
    ("found", "lost", "asks"),
    [
        (PAIR, set(), False),
        (PAIR, {PRIMARY}, True),
        (PAIR, {REPLICA}, True),
        (PAIR, {DATABASE}, False),
        (SINGLE, {PRIMARY, REPLICA}, True),
    ],
)
def test_aws_is_asked_at_once_when_a_server_of_the_group_is_lost(
    aws: Aws, found: Endpoints, lost: set[str], asks: bool
) -> None:
    """Stores that are not of the group are no reason to ask AWS."""
    aws.found = found
    group = make_group()
    group.query.ask()
    stores: dict[str, Any] = {PRIMARY: Store(), REPLICA: Store()}
    Cloud(group).attend(stores, lost)
    group.query.wait(10)
    assert aws.asked == 1 + asks


@pytest.mark.parametrize("kind", ["iam", "secret"])
def test_connections_that_end_by_themselves_are_made_anew(kind: str) -> None:
    """Connections that signed in by IAM are made anew, once each time; a token of a secret opens connections for
    good."""
    moments = iter([False, True, False])

    class Due(Recycling):
        def take_due(self) -> bool:
            return next(moments)

    credentials = IamToken("u", NAME, "X") if kind == "iam" else SecretToken("s", "X", "eu-west-1")
    credentials.look = lambda: None  # type: ignore[method-assign]
    stores: dict[str, Any] = {PRIMARY: Store(), REPLICA: Store()}
    attended = Cloud(None, credentials, Due())
    forgot = []
    for _ in range(3):
        attended.attend(stores, set())
        forgot.append([store.forgot for store in stores.values()])
    assert forgot == ([[0, 0], [1, 1], [1, 1]] if kind == "iam" else [[0, 0]] * 3)
