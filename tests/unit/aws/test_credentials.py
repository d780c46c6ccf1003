"""Tokens: what a secret may hold, which one is tried first, IAM's signatures by known answers; and none is shown."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from botocore.stub import Stubber
from redis import exceptions as driver

from flask_langpont_session.aws import credentials
from flask_langpont_session.aws.background_query import SHORTEST_PAUSE
from flask_langpont_session.aws.client import Unusable
from flask_langpont_session.aws.credentials import (
    CONNECTION_LIFE,
    IamToken,
    Recycling,
    SecretToken,
    TokenNotKnownYet,
    read_secret,
    region_of,
)
from flask_langpont_session.policy.errors import ErrorClass
from flask_langpont_session.stores.redis.errors import classify
from flask_langpont_session.stores.redis.url import GroupName
from tests.support.clock import Clock

OLD, NEW, NEXT = "old-token-" * 3, "new-token-" * 3, "next-token-" * 3


# -- what a secret holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "login"),
    [
        ("a!&#$^<>-b", ("a!&#$^<>-b",)),
        (f"  {OLD}\n", (OLD,)),
        (f'{{"auth_token": "{OLD}"}}', (OLD,)),
        (f'{{"token": "{OLD}", "other": 7}}', (OLD,)),
        (f'{{"username": "app", "password": "{OLD}", "user_arn": "arn"}}', ("app", OLD)),
    ],
)
def test_a_secret_is_the_token_or_says_it_in_json(text: str, login: tuple[str, ...]) -> None:
    """The secret is the token, or has it under one of three names; with the user it is for, if it is not the default
    one."""
    assert read_secret(text) == login


@pytest.mark.parametrize(
    "text",
    [
        "", " \n", "{", f'{{"auth_token": "{OLD}"', "{}", f'{{"auth_token": ["{OLD}"]}}', '{"token": ""}',
        f'{{"token": "{OLD}", "password": "{NEW}"}}', f'{{"username": 7, "password": "{OLD}"}}',
    ],
)  # fmt: skip
def test_a_secret_that_says_no_token_is_explained_without_quoting_it(text: str) -> None:
    """Empty, broken, or with two tokens of which it is not known which one counts."""
    with pytest.raises(Unusable) as caught:
        read_secret(text)
    assert OLD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_arn_says_where_its_secret_is() -> None:
    """An ARN names the region, whatever region the group is in; a name is looked up in the group's."""
    assert region_of("arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-AbCdEf", "us-east-1") == "eu-west-1"
    assert region_of("app/token", "us-east-1") == "us-east-1"
    assert region_of("app/token", None) is None


# -- a token that a secret holds ---------------------------------------------------------------------------------------


class Secrets:
    """Secrets Manager with one secret, behind botocore's own parameter and answer checks."""

    def __init__(self) -> None:
        self.client: Any = boto3.session.Session("k", "s", region_name="eu-west-1").client("secretsmanager")
        self.stages: dict[str, str] = {}
        self.asked: list[str] = []
        self.down = False

    @contextmanager
    def __call__(self, service: str, region: str | None) -> Iterator[Any]:
        assert (service, region) == ("secretsmanager", "eu-west-1")
        yield self

    @property
    def exceptions(self) -> Any:
        return self.client.exceptions

    def get_secret_value(self, **parameters: str) -> Any:
        stage = parameters["VersionStage"]
        self.asked.append(stage)
        with Stubber(self.client) as stub:
            if self.down:
                stub.add_client_error("get_secret_value", "InternalServiceError")
            elif stage in self.stages:
                stub.add_response("get_secret_value", {"SecretString": self.stages[stage]}, parameters)
            else:
                stub.add_client_error("get_secret_value", "ResourceNotFoundException")
            return self.client.get_secret_value(**parameters)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Secrets]:
    made = Secrets()
    monkeypatch.setattr(credentials, "aws_client", made)
    yield made
    made.client.close()


@pytest.fixture
def token(secrets: Secrets, clock: Clock) -> SecretToken:
    return SecretToken("app/token", "LANGPONT_SESSION_REDIS_URL", "eu-west-1", clock=clock)


class Server:
    """A server that accepts some tokens, as a connection's greeting meets it."""

    def __init__(self, token: SecretToken, *good: str) -> None:
        self.good = set(good)
        self.becomes: dict[int, str] = {}
        """The only token that is good from the try of that number on."""
        self.tries: list[str] = []
        self._token = token

    def greet(self) -> None:
        """Make a connection."""
        Connected(self, self._token).connect()

    def answer(self, token: str) -> None:
        """Answer a greeting with this token."""
        self.tries.append(token)
        if len(self.tries) in self.becomes:
            self.good = {self.becomes[len(self.tries)]}
        if token not in self.good:
            raise driver.AuthenticationError("WRONGPASS invalid username-password pair")


class Connected:
    """A connection as redis-py's are: one that is refused is closed, and to send over a closed one connects it first.

    :ivar made: how often it was connected.
    """

    def __init__(self, server: Server, token: SecretToken) -> None:
        self.made = 0
        self._server = server
        self._token = token
        self._is_open = False
        self._greet = token.introducing(Connected._introduce)

    def connect(self) -> None:
        if self._is_open:
            return
        self._is_open = True
        self.made += 1
        assert self.made < 20, "it greets again and again"
        try:
            self._greet(self)
        except driver.RedisError:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        self._is_open = False

    def _introduce(self) -> None:
        login = self._token.get_credentials()
        self.connect()
        try:
            self._server.answer(login[-1])
        except driver.AuthenticationError:
            self.disconnect()
            raise


def test_before_a_token_is_known_the_server_is_not_asked(token: SecretToken) -> None:
    """The store is unreachable, as every server is that cannot be talked to."""
    with pytest.raises(TokenNotKnownYet) as caught:
        token.get_credentials()
    assert not token.known
    assert classify(caught.value) is ErrorClass.UNREACHABLE


LEADS = (("secret", {"AWSCURRENT": OLD}), ("secret", {"AWSCURRENT": NEW, "AWSPREVIOUS": OLD}))
"""The secret has a new token, the server not yet."""

LOOK, GREET, REFUSED = ("look", None), ("greet", None), ("refused", None)

ROTATIONS: dict[str, tuple[tuple[tuple[str, Any], ...], list[str], int]] = {
    "planned: one look, and no second try": (
        (("secret", {"AWSCURRENT": OLD}), GREET, ("good", {OLD, NEW}), GREET,
         ("secret", {"AWSCURRENT": NEW, "AWSPREVIOUS": OLD}), GREET, ("good", {NEW}), GREET),
        [OLD, OLD, NEW, NEW], 2),
    "the secret is ahead: one more try, then the accepted token first": (
        (*LEADS, GREET, LOOK, GREET, ("good", {NEW}), LOOK, GREET), [NEW, OLD, OLD, NEW], 6),
    "the server changes its mind: each connection tries every token once": (
        (*LEADS, GREET, ("good", {NEW}), GREET, ("good", {OLD}), GREET, ("good", ()), REFUSED),
        [NEW, OLD, OLD, NEW, NEW, OLD, OLD, NEW, OLD], 2),
    "it changes over between two tries": ((*LEADS, ("becomes", {2: NEW}), GREET), [NEW, OLD, NEW], 2),
    "it changes over before a greeting": (
        (*LEADS, GREET, ("becomes", {3: NEW}), GREET, GREET), [NEW, OLD, OLD, NEW, NEW], 2),
    "it changes over after a greeting": (
        (*LEADS, GREET, ("becomes", {4: NEW}), GREET, GREET), [NEW, OLD, OLD, OLD, NEW], 2),
    "the server is ahead: the pending version is found": (
        (("secret", {"AWSCURRENT": OLD}), ("good", {NEXT}), REFUSED,
         ("secret", {"AWSCURRENT": OLD, "AWSPENDING": NEXT}), GREET),
        [OLD, NEXT], 4),
    "begun in the middle: the previous version is tried last": (
        (("secret", {"AWSCURRENT": NEW, "AWSPENDING": NEXT, "AWSPREVIOUS": OLD}), REFUSED, LOOK, GREET),
        [NEW, NEXT, OLD], 4),
}  # fmt: skip
"""Steps, the tokens that the server was greeted with, and how many versions of the secret were asked for."""


@pytest.mark.parametrize(("steps", "tries", "asked"), ROTATIONS.values(), ids=ROTATIONS)
def test_a_rotation_refuses_no_connection(
    secrets: Secrets, token: SecretToken, steps: tuple[tuple[str, Any], ...], tries: list[str], asked: int
) -> None:
    """While any version of the secret is good. A connection is made anew for each token that is tried."""
    server = Server(token, OLD)
    for step, what in steps:
        if step == "good":
            server.good = set(what)
        elif step == "becomes":
            server.becomes = what
        elif step in ("secret", "look"):
            secrets.stages = what or secrets.stages
            token.query.ask()
        else:
            before, connection = len(server.tries), Connected(server, token)
            with pytest.raises(driver.AuthenticationError) if step == "refused" else nullcontext():
                connection.connect()
            assert connection.made == len(server.tries) - before
    assert (server.tries, len(secrets.asked)) == (tries, asked)


def test_a_refusal_is_looked_into_at_once(secrets: Secrets, token: SecretToken, clock: Clock) -> None:
    """The next round of the monitor looks into the refusal, in the background; no sooner than seconds after the last
    question."""
    secrets.stages = {"AWSCURRENT": OLD}
    token.look()
    token.query.wait(5)
    assert token.known
    token.look()
    token.query.wait(5)
    assert len(secrets.asked) == 1
    with pytest.raises(driver.AuthenticationError):
        Server(token, NEW).greet()
    token.look()
    token.query.wait(5)
    assert len(secrets.asked) == 1
    clock.now += SHORTEST_PAUSE
    token.look()
    token.query.wait(5)
    assert len(secrets.asked) == 4


def test_while_secrets_manager_is_down_the_last_token_stays(
    secrets: Secrets, token: SecretToken, caplog: pytest.LogCaptureFixture
) -> None:
    """The last token stays also after a refusal, which is looked into again until Secrets Manager answers."""
    secrets.stages = {"AWSCURRENT": OLD}
    token.query.ask()
    secrets.down = True
    with pytest.raises(driver.AuthenticationError):
        Server(token, NEW).greet()
    token.query.ask()
    assert token.get_credentials() == (OLD,)
    assert "InternalServiceError" in caplog.text
    secrets.down, secrets.stages = False, {"AWSCURRENT": NEW}
    secrets.asked.clear()
    token.query.ask()
    assert len(secrets.asked) == 3
    assert token.get_credentials() == (NEW,)


def test_a_secret_that_is_missing_or_no_token_is_named(
    secrets: Secrets, token: SecretToken, caplog: pytest.LogCaptureFixture
) -> None:
    """The setting is named, and what was known before stays."""
    token.query.ask()
    secrets.stages = {"AWSCURRENT": '{"pin": "1234"}'}
    token.query.ask()
    assert all(line.startswith("LANGPONT_SESSION_REDIS_URL: the secret: ") for line in caplog.messages)
    assert "there is none of this name" in caplog.messages[0]
    assert "exactly one of auth_token, token, password" in caplog.messages[1]
    assert not token.known


def test_threads_that_are_refused_together_do_not_skip_each_others_token(secrets: Secrets, token: SecretToken) -> None:
    """Each refusal counts for the token that this thread was given."""
    for secrets.stages in ({"AWSCURRENT": OLD}, {"AWSCURRENT": NEW}):
        token.query.ask()
    server, together = Server(token, OLD), threading.Barrier(8)

    def greet(_: int) -> None:
        together.wait(5)
        server.greet()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(greet, range(8)))
    assert server.tries.count(OLD) == 8
    assert NEW in server.tries


def test_no_token_is_shown(secrets: Secrets, token: SecretToken, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log, at any of our own levels, nor errors, nor repr show a token."""
    caplog.set_level(logging.DEBUG, "flask_langpont_session")
    secrets.stages = {"AWSCURRENT": OLD, "AWSPENDING": f'{{"token": "{NEXT}"', "AWSPREVIOUS": NEW}
    token.query.ask()
    with pytest.raises(driver.AuthenticationError) as caught:
        Server(token, "another").greet()
    token.query.ask()
    secrets.stages["AWSCURRENT"] = NEXT
    token.query.ask()
    assert "has a new token" in caplog.text
    shown = caplog.text + repr(token) + str(token) + repr(token.query) + repr(caught.value)
    assert not any(one in shown for one in (OLD, NEW, NEXT))


# -- IAM ---------------------------------------------------------------------------------------------------------------

# The expected values are those of aws-samples/elasticache-iam-auth-demo-app, src/test, IAMAuthTokenRequestTest.
KNOWN = [
    (None, "9e361603d85874bce06114c6644725ed113e3b11ae6fa92efdf10c6bcf5de8d7"),
    ("fakeSessionToken", "bbce2bd61bd78461297ecb92e7001ddbeab2d85906c3cbedad6c9b81fb3466dc"),
]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """AWS keys in the environment, and nothing else that boto3 could find."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    nowhere = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    given = {"AWS_ACCESS_KEY_ID": "fakeAccessKeyId", "AWS_SECRET_ACCESS_KEY": "fakeSecretKey"}
    for name, value in {**nowhere, **given, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


class Moment:
    """The time by which botocore signs; it stands still."""

    def __init__(self) -> None:
        self.now = datetime.datetime(2025, 1, 1)

    def __call__(self) -> datetime.datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += datetime.timedelta(seconds=seconds)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    made = Moment()
    monkeypatch.setattr("botocore.auth.get_current_datetime", made)
    return made


def iam(region: str | None = "eu-west-1", *, serverless: bool = False, **options: Any) -> IamToken:
    cache = GroupName("my-replication-group-id", region, serverless=serverless)
    return IamToken("my-user-id", cache, "LANGPONT_SESSION_REDIS_URL", **options)


@pytest.mark.parametrize(("session_token", "signature"), KNOWN, ids=["static keys", "keys of a role"])
def test_iam_known_answers(keys: pytest.MonkeyPatch, moment: Moment, session_token: str | None, signature: str) -> None:
    """AWS' own sample gives these tokens for these keys at this moment."""
    if session_token:
        keys.setenv("AWS_SESSION_TOKEN", session_token)
    token = iam()
    token.query.ask()
    user, signed = token.get_credentials()  # type: ignore[misc]
    expected = {
        "Action": "connect",
        "User": "my-user-id",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Date": "20250101T000000Z",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Expires": "900",
        "X-Amz-Credential": "fakeAccessKeyId/20250101/eu-west-1/elasticache/aws4_request",
        "X-Amz-Signature": signature,
        **({"X-Amz-Security-Token": session_token} if session_token else {}),
    }
    parts = urlsplit(f"//{signed}")
    assert user == "my-user-id"
    assert signed.startswith("my-replication-group-id/?Action=connect&User=my-user-id&")
    assert dict(parse_qsl(parts.query, strict_parsing=True)) == expected


def test_a_token_is_used_for_ten_minutes(keys: pytest.MonkeyPatch, moment: Moment) -> None:
    """It is good for fifteen; all connections made meanwhile greet with the same."""
    token = iam(clock=lambda: moment.now.timestamp())
    token.query.ask()
    first = token.get_credentials()
    moment.passes(599)
    assert token.get_credentials() == first
    moment.passes(1)
    second = token.get_credentials()
    assert second != first
    assert "X-Amz-Date=20250101T001000Z" in second[-1]


def test_new_keys_of_a_role_are_used_at_once(keys: pytest.MonkeyPatch) -> None:
    """botocore's session renews them; a token signed with the old ones is not used again."""
    frozen = [("key-1", "secret-1", "session-1")]

    class Role:
        def get_frozen_credentials(self) -> Any:
            from botocore.credentials import ReadOnlyCredentials

            return ReadOnlyCredentials(*frozen[0])

    class Session:
        made = 0

        def __init__(self, region_name: str | None, **_: Any) -> None:
            self.region_name = region_name
            Session.made += 1

        def get_credentials(self) -> Role:
            return Role()

    keys.setattr("boto3.session.Session", Session)
    token = iam()
    token.query.ask()
    first = token.get_credentials()[-1]
    frozen[0] = ("key-2", "secret-2", "session-2")
    assert token.get_credentials()[-1] == first
    token.query.ask()
    second = token.get_credentials()[-1]
    assert ("key-1" in first, "key-2" in second) == (True, True)
    assert Session.made == 1
    assert token.refused() is False
    token.query.ask()
    assert Session.made == 2


def test_before_there_are_keys_nothing_is_signed(keys: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No keys, or no region: each is named, and found as soon as it is there."""
    token = iam(None)
    token.query.ask()
    assert "no region is known" in caplog.messages[-1]
    keys.setenv("AWS_REGION", "eu-west-1")
    keys.delenv("AWS_ACCESS_KEY_ID")
    token = iam(None)
    token.query.ask()
    assert caplog.messages[-1].startswith("LANGPONT_SESSION_REDIS_URL: the keys to sign with: there are no AWS")
    with pytest.raises(TokenNotKnownYet):
        token.get_credentials()
    keys.setenv("AWS_ACCESS_KEY_ID", "fakeAccessKeyId")
    token.query.ask()
    assert token.known
    assert len(token.get_credentials()) == 2


def test_a_refused_token_is_signed_anew(keys: pytest.MonkeyPatch, moment: Moment, clock: Clock) -> None:
    """AWS' keys are looked up before their time as well. There is nothing else to greet this connection with."""
    token = iam(clock=clock)
    token.query.ask()
    first = token.get_credentials()
    moment.passes(2)
    keys.setenv("AWS_ACCESS_KEY_ID", "anotherKeyId")

    def looked_up() -> bool:
        token.look()
        token.query.wait(5)
        return "anotherKeyId" in token.get_credentials()[-1]

    assert not looked_up()

    def refuse(connection: object) -> None:
        raise driver.AuthenticationError("WRONGPASS")

    with pytest.raises(driver.AuthenticationError):
        token.introducing(refuse)(object())
    assert token.get_credentials() != first
    assert looked_up()


# -- recycling ---------------------------------------------------------------------------------------------------------


def test_idle_connections_are_made_anew_twice_within_the_life_of_a_connection() -> None:
    """A connection that is in use at one time has its turn before the server ends it; not all workers recycle at
    once."""
    now = [0.0]
    moments = []
    for _ in range(20):
        now[0] = 0.0
        recycling = Recycling(lambda: now[0])
        due = []
        for _ in range(12 * 60):
            now[0] += 60
            if recycling.take_due():
                due.append(now[0])
        assert len(due) >= 2
        assert due[0] <= CONNECTION_LIFE
        moments.append(due[0])
    assert len(set(moments)) > 5
