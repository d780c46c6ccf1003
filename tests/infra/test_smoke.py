"""infra/smoke.py, as far as it goes here: moto for AWS, a Valkey behind TLS for the cache."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devservers.servers import Valkey
from tests.infra.environments import parameters
from tests.infra.template import INFRA, Deployment, good_template
from tests.integration.elasticache_site import REGION, URL, Aws, DnsCache, aws, moto_url, names  # noqa: F401 - fixtures
from tests.integration.tls import Authority, TlsFront

USER = "app-user"
BY_IAM = URL.replace("://", f"://{USER}@")
Run = Callable[..., tuple[int, dict[str, tuple[str, str]]]]

main: Callable[[list[str]], int] = runpy.run_path(str(INFRA / "smoke.py"))["main"]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Valkey]:
    """Yield a cache that knows the template's user, who may greet with anything: only AWS can check what IAM signed."""
    user = Deployment(good_template(), parameters("production", AuthMode="iam")).of_type("AWS::ElastiCache::User")
    with Valkey(tmp_path / "cache", appendonly=False) as server, server.client() as admin:
        access = user["AppUser"]["AccessString"].split()
        admin.execute_command("ACL", "SETUSER", USER, "nopass", *access)
        yield server


@pytest.fixture
def run(
    aws: Aws,  # noqa: F811 - the fixture
    names: DnsCache,  # noqa: F811 - the fixture
    cache: Valkey,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Yield a function that runs the smoke test against a group with TLS, and returns the exit code, and what →
    state and text."""
    authority, name = Authority(tmp_path), aws.create_group(replicas=0, tls=True)
    with ExitStack() as ends:
        front = ends.enter_context(TlsFront(authority.context([name]), cache.port))
        names.ports = {name: front.port}

        def run(url: str, *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
            code = main(["--url", url, "--ca-file", str(authority.certificate), *arguments])
            head, *lines = capsys.readouterr().out.splitlines()
            assert head == f"replication group 'sessions', region {REGION}"
            return code, {line[9:24].strip(): (line[:8].strip(), line[25:]) for line in lines}

        yield run
    aws.threads.clear()  # here this thread may ask


def test_all_that_works_is_said_on_one_page(run: Run, aws: Aws, cache: Valkey) -> None:  # noqa: F811 - the fixture
    """The rights are those of the template; nothing but the test's own two keys is left, which end by themselves."""
    sns: Any = aws.client("sns")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    code, page = run(BY_IAM, "--topic", topic)
    assert {what: state for what, (state, _) in page.items()} == {
        "keys of AWS": "ok", "describe": "ok", "metrics": "ok", "alert": "ok", "token": "ok", "greeting": "ok",
        "rights": "ok", "EVALSHA": "ok", "no more rights": "ok", "tracking": "ok", "identity": "ok",
    }, page  # fmt: skip
    assert code == 0
    assert len(page) < 20
    cloudwatch: Any = aws.client("cloudwatch")
    assert [metric["MetricName"] for metric in cloudwatch.list_metrics()["Metrics"]] == ["Heartbeat"]
    with cache.client() as client:
        left: list[Any] = list(client.scan_iter())
        assert sorted(left) == ["session:smoke:{smoke}", "session:smoke:{smoke}:hash"]
        assert all(0 < int(client.pttl(name)) <= 60_000 for name in left)


def test_what_does_not_work_is_named(run: Run, cache: Valkey) -> None:
    """A right that is missing fails it; what the extension can do without does not."""
    with cache.client() as admin:
        admin.execute_command("ACL", "SETUSER", USER, "-time", "-client|tracking", "+config|get")
    code, page = run(BY_IAM)
    assert code == 1
    assert page["rights"] == ("failed", "refused: TIME")
    assert page["tracking"][0] == page["no more rights"][0] == "without"
    assert page["alert"] == ("skipped", "no --topic")


def test_without_a_secret_there_is_no_token(run: Run) -> None:
    """It says which question AWS refused, and that the cache did not let it in."""
    code, page = run(f"{URL}&token_secret=app/token")
    assert code == 1
    assert page["token"][0] == "failed"
    assert "there is none of this name" in page["token"][1]
    assert page["greeting"][0] == "failed"
    assert page["commands"][0] == "skipped"


def test_no_token_is_on_the_page(run: Run, aws: Aws) -> None:  # noqa: F811 - the fixture
    """The token is not shown however the secret is written."""
    aws.secrets.create_secret(
        Name="app/token", SecretString=f'{{"username": "{USER}", "password": "hunter2hunter2hunter2"}}'
    )
    code, page = run(f"{URL}&token_secret=app/token")
    assert code == 0, page
    assert "hunter2" not in str(page)
    assert page["token"][1] == f"21 characters for {USER}"


def test_a_url_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The URL is refused as the extension refuses it."""
    with pytest.raises(SystemExit) as ended:
        main(["--url", "redis://localhost"])
    assert ended.value.code == 2
    assert "--url" in capsys.readouterr().err
